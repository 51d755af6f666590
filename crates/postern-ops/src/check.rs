//! `ops show --check`: walks the chain that `run` depends on and names the first broken link.

use crate::install::Reporter;
use crate::settings::Settings;
use crate::show::{Presence, Shown};
use crate::{names, objects};
use postern_exec::session::{self, Ended, Run};
use postern_exec::{ExecError, Output, Streams};
use postern_kube::apply;
use postern_kube::exec::{self, ExecRequest};
use postern_kube::{Cluster, KubeError};
use postern_wire::Request;
use serde::Serialize;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Its name.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

/// Starts the ops pod's agent: the one exec that every run there is.
pub async fn open_agent(cluster: &Cluster) -> Result<(exec::ExecReader, exec::ExecWriter), KubeError> {
    let command = [names::AGENT.into(), b"run".to_vec()];
    let request = ExecRequest {
        namespace: names::NAMESPACE,
        pod: names::NAME,
        container: Some(names::CONTAINER),
        command: &command,
        stdin: true,
        tty: false,
    };
    exec::open(cluster, &request).await
}

/// Runs a command in the ops pod through its agent and collects its output.
pub async fn run_in_pod(
    cluster: &Cluster,
    argv: &[&str],
    credentials: bool,
) -> Result<(Ended, String), ExecError> {
    let (reader, writer) = open_agent(cluster).await?;
    let output = Collected::default();
    let streams =
        Streams { stdin: None, stdout: Output::to(output.clone()), stderr: Output::to(output.clone()) };
    let request = Request {
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        credentials,
        timeout_ms: 30_000,
        claimed_user: cluster.user.clone(),
        ..Request::default()
    };
    let (_control, controls) = mpsc::channel(1);
    let report = session::run(reader, writer, Run { request, files: Vec::new() }, streams, controls).await?;
    Ok((report.outcome, output.text()))
}

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    fn text(&self) -> String {
        let bytes = self.0.lock().map(|bytes| bytes.clone()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

impl Write for Collected {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if let Ok(mut bytes) = self.0.lock() {
            // Answers are short; what is not is cut, not kept.
            let room = (64 * 1024_usize).saturating_sub(bytes.len());
            bytes.extend_from_slice(&data[..data.len().min(room)]);
        }
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Walks the chain up to and including the first link that is broken. `tool` is what must be found in the image.
pub async fn check(
    cluster: &Cluster,
    settings: &Settings,
    shown: &Shown,
    tool: &str,
    reporter: &mut impl Reporter,
) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    for name in
        ["namespace", "secret", "service account", "admission", "image", "pod", "exec", "credential", "tool"]
    {
        reporter.progress(&format!("checking {name}"));
        let (ok, detail) = match name {
            "namespace" => present(shown.namespace, shown.namespace_state, "run `postern ops install`"),
            "secret" => present(
                shown.secret,
                shown.secret_state,
                "run `postern ops install`: it puts the Secret back",
            ),
            "service account" => present(
                names::NAME,
                shown.service_account_state,
                "run `postern ops install`: it puts it back",
            ),
            "admission" => admission(cluster, settings).await,
            "image" => image(shown, settings),
            "pod" => pod(shown),
            "exec" => exec_link(cluster).await,
            "credential" => credential(cluster, shown).await,
            _ => tool_link(cluster, tool).await,
        };
        links.push(Link { name, ok, detail });
        if !ok {
            break;
        }
    }
    links
}

fn present(name: &str, state: Presence, fix: &str) -> (bool, String) {
    match state {
        Presence::Present => (true, name.to_owned()),
        Presence::Missing => (false, format!("{name} is missing; {fix}")),
        Presence::Unknown => (true, format!("{name} cannot be looked at by you; taken as given")),
    }
}

/// Whether the cluster would admit the pod today: a dry run under another name.
async fn admission(cluster: &Cluster, settings: &Settings) -> (bool, String) {
    let version =
        objects::MadeWith { version: "check".to_owned(), rotated_at: "check".to_owned(), account: None };
    let mut pod = objects::pod(settings, &version);
    pod.metadata.name = Some(format!("{}-check", names::NAME));
    let Ok(object) = apply::dynamic(&pod) else { return (false, "the pod cannot be written".to_owned()) };
    match apply::apply(cluster, &object, None, true).await {
        Ok(_) => (true, "the cluster would admit the pod".to_owned()),
        Err(error) if error.is_forbidden() => (true, "you may not make pods; taken as given".to_owned()),
        Err(error) => {
            let fix = crate::diagnose::of_refusal(&error).map(|found| found.fix).unwrap_or_default();
            (false, format!("{error}; {fix}"))
        }
    }
}

fn image(shown: &Shown, settings: &Settings) -> (bool, String) {
    match (&shown.image, shown.image_matches) {
        (Some(image), Some(true)) => (true, image.clone()),
        (Some(image), _) => (
            false,
            format!(
                "the pod has {image}, this program installs {}; run `postern ops install`",
                settings.image
            ),
        ),
        (None, _) if shown.pod_state == Presence::Unknown => {
            (true, "you may not look at the pod; taken as given".to_owned())
        }
        (None, _) => (false, "there is no pod; run `postern ops install`".to_owned()),
    }
}

fn pod(shown: &Shown) -> (bool, String) {
    let phase = shown.phase.clone().unwrap_or_else(|| "missing".to_owned());
    if shown.service_account_replaced {
        let why = "its ServiceAccount was made after it, and refuses its tokens; `postern ops install` replaces the pod";
        (false, why.to_owned())
    } else if shown.ready {
        (true, "ready".to_owned())
    } else if shown.pod_state == Presence::Unknown {
        (true, "you may not look at it; taken as given".to_owned())
    } else {
        (false, format!("phase {phase}, not ready; `postern ops install` says why and repairs it"))
    }
}

async fn exec_link(cluster: &Cluster) -> (bool, String) {
    match run_in_pod(cluster, &[names::AGENT, "--version"], false).await {
        Ok((Ended::Exited(0), version)) => (true, version),
        Ok((outcome, output)) => (false, format!("the agent ended with {outcome:?}: {output}")),
        Err(error) => (false, format!("{error}; `postern ops rbac` prints the Role for running tools")),
    }
}

async fn credential(cluster: &Cluster, shown: &Shown) -> (bool, String) {
    let (outcome, output) = match run_in_pod(cluster, &[names::AGENT, "credentials"], true).await {
        Ok(found) => found,
        Err(error) => return (false, error.to_string()),
    };
    let mounted: Vec<&str> = output.lines().collect();
    match &shown.credentials {
        _ if outcome != Ended::Exited(0) => (false, format!("the agent cannot read them: {output}")),
        Some(expected) if *expected != mounted => (
            false,
            format!(
                "the Secret has [{}], the pod sees [{}]; run `postern ops install`",
                expected.join(", "),
                mounted.join(", ")
            ),
        ),
        _ if mounted.is_empty() => (true, "none (no static key)".to_owned()),
        _ => (true, mounted.join(", ")),
    }
}

async fn tool_link(cluster: &Cluster, tool: &str) -> (bool, String) {
    match run_in_pod(cluster, &[names::AGENT, "which", tool], false).await {
        Ok((Ended::Exited(0), path)) => (true, path),
        Ok(_) => (false, format!("{tool} is not in the image's PATH; use an image that has it (--image)")),
        Err(error) => (false, error.to_string()),
    }
}
