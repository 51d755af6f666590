//! `ops show --check`: walks the chain that `run` depends on and names the first broken link.

use crate::install::Reporter;
use crate::ops_pod::OpsPod;
use crate::settings::Settings;
use crate::show::{Presence, Shown};
use crate::stream::{self, OpenError};
use crate::{names, objects, quota};
use postern_exec::session::{self, Ended, Run};
use postern_exec::stream::{Connection, Key};
use postern_exec::transport::{Reader, Writer};
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

/// What the chain is walked with.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What must be found in the image.
    pub tool: &'a str,
    /// The operator's own key for streams; without it the install's is used.
    pub key: Option<&'a Key>,
}

/// Starts the ops pod's agent: the one exec that every run there is.
pub async fn open_agent(
    cluster: &Cluster,
    pod: &OpsPod,
) -> Result<(exec::ExecReader, exec::ExecWriter), KubeError> {
    start_agent(cluster, pod, b"run").await
}

/// Starts it once for many runs.
pub async fn open_for_many(
    cluster: &Cluster,
    pod: &OpsPod,
) -> Result<(exec::ExecReader, exec::ExecWriter), KubeError> {
    start_agent(cluster, pod, b"multiplex").await
}

async fn start_agent(
    cluster: &Cluster,
    pod: &OpsPod,
    mode: &[u8],
) -> Result<(exec::ExecReader, exec::ExecWriter), KubeError> {
    let command = [names::AGENT.into(), mode.to_vec()];
    let request = ExecRequest {
        namespace: pod.namespace(),
        pod: pod.name(),
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
    pod: &OpsPod,
    argv: &[&str],
    credentials: bool,
) -> Result<(Ended, String), ExecError> {
    let (reader, writer) = open_agent(cluster, pod).await?;
    collected(&cluster.user, (reader, writer), argv, credentials).await
}

/// The same by whatever leads to the agent.
async fn collected(
    user: &str,
    (reader, writer): (impl Reader, impl Writer),
    argv: &[&str],
    credentials: bool,
) -> Result<(Ended, String), ExecError> {
    let output = Collected::default();
    let streams =
        Streams { stdin: None, stdout: Output::to(output.clone()), stderr: Output::to(output.clone()) };
    let request = Request {
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        credentials,
        timeout_ms: 30_000,
        claimed_user: user.to_owned(),
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

/// How commands reach the agent in this walk.
enum Way<'a> {
    Exec(&'a Cluster, &'a OpsPod),
    Stream(&'a Cluster, Connection),
}

impl Way<'_> {
    async fn run(&self, argv: &[&str], credentials: bool) -> Result<(Ended, String), ExecError> {
        match self {
            Self::Exec(cluster, pod) => run_in_pod(cluster, pod, argv, credentials).await,
            Self::Stream(cluster, stream) => {
                collected(&cluster.user, stream.session(), argv, credentials).await
            }
        }
    }
}

const CHAIN: [&str; 9] =
    ["namespace", "secret", "service account", "admission", "image", "pod", "exec", "credential", "tool"];

/// Walks the chain up to and including the first link that is broken; where the pod takes streams, they are its last.
pub async fn check(
    cluster: &Cluster,
    settings: &Settings,
    shown: &Shown,
    Asked { tool, key }: Asked<'_>,
    reporter: &mut impl Reporter,
) -> Vec<Link> {
    let ops = &settings.pod;
    let mut links: Vec<Link> = Vec::new();
    let mut way = Way::Exec(cluster, ops);
    for name in CHAIN.into_iter().chain(shown.listens.then_some("stream")) {
        reporter.progress(&format!("checking {name}"));
        let (ok, detail) = match name {
            "namespace" => present(&shown.namespace, shown.namespace_state, "run `postern ops install`"),
            "secret" => present(
                &shown.secret,
                shown.secret_state,
                "run `postern ops install`: it puts the Secret back",
            ),
            "service account" => {
                present(ops.name(), shown.service_account_state, "run `postern ops install`: it puts it back")
            }
            "admission" => admission(cluster, settings, shown.pod_state == Presence::Present).await,
            "image" => image(shown, settings),
            "pod" => pod(shown),
            "exec" => match exec_link(cluster, ops).await {
                // Who may only open streams is served as `run` serves them.
                Err(error) if matches!(&error, ExecError::Kube(error) if error.is_forbidden()) => {
                    match stream::connect(cluster, ops, key, true).await {
                        Ok(connection) => {
                            way = Way::Stream(cluster, connection);
                            (true, "you may not exec; going on by stream".to_owned())
                        }
                        Err(_) => refused(&error),
                    }
                }
                Err(error) => refused(&error),
                Ok(found) => found,
            },
            "credential" => credential(&way, shown).await,
            "tool" => tool_link(&way, tool).await,
            _ => stream_link(cluster, ops, key).await,
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
        Presence::Deleting => (false, format!("{name} is being deleted; {fix}, once it is gone")),
        Presence::Missing => (false, format!("{name} is missing; {fix}")),
        Presence::Unknown => (true, format!("{name} cannot be looked at by you; taken as given")),
    }
}

/// Whether the cluster would admit the pod today, in the place of the one that may be `there`.
async fn admission(cluster: &Cluster, settings: &Settings, there: bool) -> (bool, String) {
    let version =
        objects::MadeWith { version: "check".to_owned(), rotated_at: "check".to_owned(), account: None };
    let pod = objects::pod(settings, &version);
    let Ok(object) = apply::dynamic(&pod) else { return (false, "the pod cannot be written".to_owned()) };
    match apply::admitted(cluster, &object).await {
        Ok(()) => (true, "the cluster would admit the pod".to_owned()),
        Err(error) if error.is_forbidden() => (true, "you may not make pods; taken as given".to_owned()),
        // The one that is there has the room that the next one needs.
        Err(error) if there && quota::has_room_then(&error) => {
            (true, "the cluster would admit the pod in the place of the one there is".to_owned())
        }
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
    } else if shown.pod_state == Presence::Deleting {
        (false, "it is being deleted; run `postern ops install`, once it is gone".to_owned())
    } else if shown.ready {
        (true, "ready".to_owned())
    } else if shown.pod_state == Presence::Unknown {
        (true, "you may not look at it; taken as given".to_owned())
    } else {
        (false, format!("phase {phase}, not ready; `postern ops install` says why and repairs it"))
    }
}

async fn exec_link(cluster: &Cluster, ops: &OpsPod) -> Result<(bool, String), ExecError> {
    Ok(match run_in_pod(cluster, ops, &[names::AGENT, "--version"], false).await? {
        (Ended::Exited(0), version) => (true, version),
        (outcome, output) => (false, format!("the agent ended with {outcome:?}: {output}")),
    })
}

fn refused(error: &ExecError) -> (bool, String) {
    (false, format!("{error}; `postern ops rbac` prints the Role for running tools"))
}

/// Whether a stream opens: the keys are there, the pod has them, and someone listens.
async fn stream_link(cluster: &Cluster, ops: &OpsPod, key: Option<&Key>) -> (bool, String) {
    match stream::connect(cluster, ops, key, true).await {
        Ok(_) => (true, "opens".to_owned()),
        Err(OpenError::Kube(error)) if error.is_forbidden() => {
            (true, "you may not open one; taken as given".to_owned())
        }
        Err(error) => (false, format!("{error}; run `postern ops install --stream`")),
    }
}

async fn credential(way: &Way<'_>, shown: &Shown) -> (bool, String) {
    let (outcome, output) = match way.run(&[names::AGENT, "credentials"], true).await {
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

async fn tool_link(way: &Way<'_>, tool: &str) -> (bool, String) {
    match way.run(&[names::AGENT, "which", tool], false).await {
        Ok((Ended::Exited(0), path)) => (true, path),
        Ok(_) => (false, format!("{tool} is not in the image's PATH; use an image that has it (--image)")),
        Err(error) => (false, error.to_string()),
    }
}
