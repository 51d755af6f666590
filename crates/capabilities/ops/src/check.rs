//! `ops show --check`: checks each step that `run` depends on, in order, and names the first that fails.

use crate::ops_pod::OpsPod;
use crate::reporter::Reporter;
use crate::settings::Settings;
use crate::show::{OpsPodState, Presence};
use crate::stream::{self, OpenError};
use crate::{names, objects, quota};
use postern_exec::session::{self, Ended, Run};
use postern_exec::stream::{Connection, Key};
use postern_exec::transport::{Reader, Writer};
use postern_exec::{ExecError, Output, Streams};
use postern_kube::apply;
use postern_kube::exec::{self, ExecRequest};
use postern_kube::{Cluster, KubeError};
use postern_report::{Finding, Object, Severity};
use postern_wire::Request;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// The result of one step.
struct Step {
    severity: Severity,
    message: String,
    fix: Option<String>,
}

impl Step {
    fn ok(message: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, message: message.into(), fix: None }
    }

    fn problem(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Problem, message: message.into(), fix: Some(fix.into()) }
    }

    /// The user lacks the permission to read it. That is not a problem of the pod.
    fn not_permitted(message: impl Into<String>) -> Self {
        Self { severity: Severity::Inconclusive, message: message.into(), fix: None }
    }
}

/// The inputs of the check.
#[derive(Debug)]
pub struct CheckOptions<'a> {
    /// The program that must exist in the image.
    pub tool: &'a str,
    /// The operator's own key for streams; by default the install's key is used.
    pub key: Option<&'a Key>,
}

/// Starts the ops pod's agent with an exec, as every run does.
pub async fn open_agent(
    cluster: &Cluster,
    pod: &OpsPod,
) -> Result<(exec::ExecReader, exec::ExecWriter), KubeError> {
    start_agent(cluster, pod, b"run").await
}

/// Starts one agent for many runs.
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

/// The same, over any transport to the agent.
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
            // Answers are short; a longer one is cut off.
            let room = (64 * 1024_usize).saturating_sub(bytes.len());
            bytes.extend_from_slice(&data[..data.len().min(room)]);
        }
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The transport of this check's commands.
enum Transport<'a> {
    Exec(&'a Cluster, &'a OpsPod),
    Stream(&'a Cluster, Connection),
}

impl Transport<'_> {
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
    ["namespace", "secret", "service-account", "admission", "image", "pod", "exec", "credential", "tool"];

/// Checks the steps up to and including the first that fails; the rest is skipped. If the pod accepts streams, they
/// are its last step.
pub async fn check(
    cluster: &Cluster,
    settings: &Settings,
    state: &OpsPodState,
    CheckOptions { tool, key }: CheckOptions<'_>,
    reporter: &mut impl Reporter,
) -> Vec<Finding> {
    let ops = &settings.pod;
    let subject = |step: &str| match step {
        "namespace" => Object::new("Namespace", ops.namespace()),
        "secret" | "credential" => Object::new("Secret", ops.secret()).namespace(ops.namespace()),
        "service-account" => Object::new("ServiceAccount", ops.name()).namespace(ops.namespace()),
        _ => Object::new("Pod", ops.name()).namespace(ops.namespace()),
    };
    let mut findings: Vec<Finding> = Vec::new();
    let mut transport = Transport::Exec(cluster, ops);
    let mut failed = None;
    for name in CHAIN.into_iter().chain(state.listens.then_some("stream")) {
        let rule = format!("ops/{name}");
        if let Some(failed) = failed {
            let why = format!("not checked, because {failed} has a problem");
            findings.push(Finding::new(rule, Severity::Skipped, subject(name), why));
            continue;
        }
        reporter.progress(&format!("checking {name}"));
        let install = format!("run `postern ops install{}`", ops.options());
        let found = match name {
            "namespace" => present(&state.namespace, state.namespace_state, &install),
            "secret" => present(&state.secret, state.secret_state, &install),
            "service-account" => present(ops.name(), state.service_account_state, &install),
            "admission" => admission(cluster, settings, state.pod_state == Presence::Present).await,
            "image" => image(state, settings, &install),
            "pod" => pod(state, &install),
            "exec" => match exec_step(cluster, ops).await {
                // If the user may open streams but not exec, the check uses a stream, as `run` does.
                Err(error) if matches!(&error, ExecError::Kube(error) if error.is_forbidden()) => {
                    match stream::connect(cluster, ops, key, true).await {
                        Ok(connection) => {
                            transport = Transport::Stream(cluster, connection);
                            Step::ok("you may not exec; going on by stream")
                        }
                        Err(_) => refused(&error),
                    }
                }
                Err(error) => refused(&error),
                Ok(found) => found,
            },
            "credential" => credential(&transport, state, &install).await,
            "tool" => tool_step(&transport, tool).await,
            _ => stream_step(cluster, ops, key).await,
        };
        let Step { severity, message, fix } = found;
        if severity == Severity::Problem {
            failed = Some(name);
        }
        let finding = Finding::new(rule, severity, subject(name), message);
        findings.push(match fix {
            Some(fix) => finding.fix(fix),
            None => finding,
        });
    }
    findings
}

fn present(name: &str, state: Presence, install: &str) -> Step {
    match state {
        Presence::Present => Step::ok(name),
        Presence::Deleting => {
            Step::problem(format!("{name} is being deleted"), format!("{install}, once it is gone"))
        }
        Presence::Missing => {
            Step::problem(format!("{name} is missing"), format!("{install}: it creates it again"))
        }
        Presence::Unknown => Step::not_permitted(format!("you may not look at {name}")),
    }
}

/// Whether the cluster would admit the pod now, in place of the existing one if `there`.
async fn admission(cluster: &Cluster, settings: &Settings, there: bool) -> Step {
    let version =
        objects::MadeWith { version: "check".to_owned(), rotated_at: "check".to_owned(), account: None };
    let pod = objects::pod(settings, &version);
    let object = match apply::dynamic(&pod) {
        Ok(object) => object,
        Err(error) => {
            return Step::problem(format!("the pod cannot be written: {error}"), "report this defect");
        }
    };
    match apply::admitted(cluster, &object).await {
        Ok(()) => Step::ok("the cluster would admit the pod"),
        Err(error) if error.is_forbidden() => Step::not_permitted("you may not create pods"),
        // The existing pod occupies the room that the next one needs.
        Err(error) if there && quota::fits_as_replacement(&error) => {
            Step::ok("the cluster would admit the pod in place of the existing one")
        }
        Err(error) => {
            let found = crate::diagnose::of_refusal(&settings.pod.pod_ref(), &error);
            Step::problem(error.to_string(), found.and_then(|found| found.fix).unwrap_or_default())
        }
    }
}

fn image(state: &OpsPodState, settings: &Settings, install: &str) -> Step {
    match (&state.image, state.image_matches) {
        (Some(image), Some(true)) => Step::ok(image.clone()),
        (Some(image), _) => {
            Step::problem(format!("the pod has {image}, this program installs {}", settings.image), install)
        }
        (None, _) if state.pod_state == Presence::Unknown => {
            Step::not_permitted("you may not look at the pod")
        }
        (None, _) => Step::problem("there is no pod", install),
    }
}

fn pod(state: &OpsPodState, install: &str) -> Step {
    let phase = state.phase.clone().unwrap_or_else(|| "missing".to_owned());
    if state.service_account_replaced {
        let why = "the pod is older than its ServiceAccount, so the API server rejects the pod's tokens";
        Step::problem(why, format!("{install}: it replaces the pod"))
    } else if state.pod_state == Presence::Deleting {
        Step::problem("the pod is being deleted", format!("{install}, once it is gone"))
    } else if state.ready {
        Step::ok("ready")
    } else if state.pod_state == Presence::Unknown {
        Step::not_permitted("you may not look at the pod")
    } else {
        Step::problem(
            format!("phase {phase}, not ready"),
            format!("{install}: it reports the reason, and repairs the pod"),
        )
    }
}

async fn exec_step(cluster: &Cluster, ops: &OpsPod) -> Result<Step, ExecError> {
    Ok(match run_in_pod(cluster, ops, &[names::AGENT, "--version"], false).await? {
        (Ended::Exited(0), version) => Step::ok(version),
        (outcome, output) => {
            let fix = format!("see `postern ops logs{}`", ops.options());
            Step::problem(format!("the agent ended with {outcome:?}: {output}"), fix)
        }
    })
}

fn refused(error: &ExecError) -> Step {
    Step::problem(error.to_string(), "`postern ops rbac` prints the Role for running tools")
}

/// Whether a stream opens: the keys exist, the pod has them, and the agent listens.
async fn stream_step(cluster: &Cluster, ops: &OpsPod, key: Option<&Key>) -> Step {
    match stream::connect(cluster, ops, key, true).await {
        Ok(_) => Step::ok("opens"),
        Err(OpenError::Kube(error)) if error.is_forbidden() => {
            Step::not_permitted("you may not open a stream")
        }
        Err(error) => {
            Step::problem(error.to_string(), format!("run `postern ops install{} --stream`", ops.options()))
        }
    }
}

async fn credential(transport: &Transport<'_>, state: &OpsPodState, install: &str) -> Step {
    let (outcome, output) = match transport.run(&[names::AGENT, "credentials"], true).await {
        Ok(found) => found,
        Err(error) => return Step::problem(error.to_string(), install),
    };
    let mounted: Vec<&str> = output.lines().collect();
    match &state.credentials {
        _ if outcome != Ended::Exited(0) => {
            Step::problem(format!("the agent cannot read the credentials: {output}"), install)
        }
        Some(expected) if *expected != mounted => Step::problem(
            format!("the Secret has [{}], the pod has [{}]", expected.join(", "), mounted.join(", ")),
            install,
        ),
        _ if mounted.is_empty() => Step::ok("none (no static key)"),
        _ => Step::ok(mounted.join(", ")),
    }
}

async fn tool_step(transport: &Transport<'_>, tool: &str) -> Step {
    match transport.run(&[names::AGENT, "which", tool], false).await {
        Ok((Ended::Exited(0), path)) => Step::ok(path),
        Ok(_) => {
            Step::problem(format!("{tool} is not in the image's PATH"), "use an image that has it (--image)")
        }
        Err(error) => Step::problem(error.to_string(), "run it again"),
    }
}
