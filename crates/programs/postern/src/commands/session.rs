//! What `run` and `exec` have in common: options of a run, the route to a supervisor, our streams and terminal.

use super::{Context, streams};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::{signals, terminal};
use postern_config::Tool;
use postern_exec::session::{self, Ended, Notice, Report, Run};
use postern_exec::stream::Connection;
use postern_exec::target::Place;
use postern_exec::{ExecError, transport};
use postern_kube::Cluster;
use postern_ops::install::Reporter as _;
use postern_ops::{OpsPod, names as ops};
use postern_wire::{FileSpec, Request};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connects within the limit. A plug-in of the kubeconfig that still runs then is ended.
pub(super) async fn connected(context: &Context, limit: Option<Duration>) -> Result<Cluster, ExecError> {
    within(limit, async { context.cluster().await.map_err(ExecError::Kube) }).await
}

/// Limits what has to be done before the command begins.
pub(super) async fn within<T>(
    limit: Option<Duration>,
    reaching: impl Future<Output = Result<T, ExecError>>,
) -> Result<T, ExecError> {
    match limit {
        None => reaching.await,
        Some(limit) => tokio::time::timeout(limit, reaching)
            .await
            .unwrap_or_else(|_| Err(ExecError::TimedOut { limit, note: ", before it was begun" })),
    }
}

/// How the supervisor is reached.
pub(super) enum Route {
    /// By the runtime's exec into the ops pod.
    Exec(Cluster, OpsPod),
    /// By a stream to the ops pod's agent.
    Stream(Connection),
    /// This program itself.
    Local(PathBuf),
}

/// The arguments that make this program the supervisor.
pub(super) const SUPERVISOR: [&str; 1] = ["__agent"];

/// The ops pod's container.
pub(super) fn place(pod: &OpsPod) -> Place {
    Place {
        namespace: pod.namespace().to_owned(),
        pod: pod.name().to_owned(),
        container: ops::CONTAINER.to_owned(),
        agent: Some(ops::AGENT.to_owned()),
    }
}

/// The command line's options for a run, before the tool's defaults.
pub(super) struct RunOptions {
    pub(super) env: Vec<(String, String)>,
    pub(super) workdir: Option<String>,
    pub(super) stdin: bool,
    pub(super) tty: bool,
    pub(super) timeout: Option<Duration>,
}

impl RunOptions {
    /// The request, with the config's defaults for this tool.
    pub(super) fn request(
        self,
        context: &Context,
        command: Vec<OsString>,
        printer: &mut Printer,
    ) -> Result<Request, Failure> {
        let Self { env, workdir, stdin, tty, timeout } = self;
        let program = command.first().map(OsString::as_os_str).unwrap_or_default();
        if program.is_empty() {
            return Err(Failure::usage("the command is empty", Some("name one after --".to_owned())));
        }
        let name = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default();
        let Tool { env: tool_env, workdir: tool_workdir, timeout: _ } =
            context.config.tools.get(name).cloned().unwrap_or_default();
        let timeout = timeout.or_else(|| context.config.timeout(name));
        let bytes = |(name, value): (String, String)| (name.into_bytes(), value.into_bytes());
        let mut all: Vec<_> = tool_env.into_iter().chain(env).map(bytes).collect();
        let terminal = tty.then(terminal::is_terminal).unwrap_or_default();
        if tty && !terminal {
            printer.warn("our own input is not a terminal: going on without -t");
        }
        if let Some(term) = std::env::var_os("TERM").filter(|_| terminal) {
            all.push((b"TERM".to_vec(), term.into_vec()));
        }
        let request = Request {
            argv: command.into_iter().map(OsStringExt::into_vec).collect(),
            env: all,
            workdir: workdir.or(tool_workdir).map(String::into_bytes),
            stdin,
            terminal: terminal.then(terminal::size),
            timeout_ms: timeout.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            ..Request::default()
        };
        session::check(&request)?;
        Ok(request)
    }
}

/// Says that the pod has not started the agent yet.
pub(super) struct QueueNotice<'p> {
    printer: &'p mut Printer,
    shown: bool,
}

impl<'p> QueueNotice<'p> {
    pub(super) fn new(printer: &'p mut Printer) -> Self {
        Self { printer, shown: false }
    }

    /// Shows the time on a terminal; elsewhere says it once.
    pub(super) fn waited(&mut self, waited: Duration) {
        let text = format!("waiting for the pod to start it, behind other commands ({} s)", waited.as_secs());
        if self.printer.shows_progress() {
            self.printer.progress(&text);
        } else if !std::mem::replace(&mut self.shown, true) {
            self.printer.note(&text);
        }
    }

    pub(super) fn end(&mut self) {
        self.printer.clear();
    }
}

/// How a run ended, for `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RunReport {
    exit_code: u8,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<u8>,
    stdout_bytes: u64,
    stderr_bytes: u64,
    left_behind: u32,
    agent_version: String,
}

/// Runs through an agent, with our own streams, signals and terminal.
pub(super) async fn supervised(
    reader: impl transport::Reader,
    writer: impl transport::Writer,
    run: Run,
    stdin: bool,
    printer: &mut Printer,
) -> Result<u8, ExecError> {
    let terminal = run.request.terminal.is_some();
    let controls = signals::controls(terminal).map_err(ExecError::Local)?;
    let streams = streams::own(stdin).map_err(ExecError::Local)?;
    // Without stdin, Ctrl-C has to stay a signal.
    let raw = (terminal && stdin).then(terminal::Raw::enter).flatten();
    let mut queue = QueueNotice::new(printer);
    let notice = |notice: Notice<'_>| match notice {
        Notice::Queued(waited) => queue.waited(waited),
        Notice::Agent(text) => queue.printer.progress(text),
        Notice::Started => queue.end(),
    };
    let result = session::run_with_notices(reader, writer, run, streams, controls, notice).await;
    queue.end();
    drop(raw);
    let Report { outcome, stdout_bytes, stderr_bytes, left_behind, agent_version } = result?;
    if left_behind > 0 {
        printer.verbose(&format!("{left_behind} processes that the command left behind were ended with it"));
    }
    let exit_code = outcome.exit_code();
    let (outcome, signal) = match outcome {
        Ended::Exited(_) => ("exited", None),
        Ended::Signaled(number) => ("signaled", Some(number)),
    };
    if let Some(number) = signal {
        printer.verbose(&format!("the command was ended by signal {number}"));
    }
    printer.run_report(&RunReport {
        exit_code,
        outcome,
        signal,
        stdout_bytes,
        stderr_bytes,
        left_behind,
        agent_version,
    });
    Ok(exit_code)
}

/// The command as bytes, for an exec without the agent.
pub(super) fn bytes(command: &[OsString]) -> Vec<Vec<u8>> {
    command.iter().map(|argument| argument.as_bytes().to_vec()).collect()
}

/// Adds the files of `--file` to the request; returns their local paths.
pub(super) fn stage(files: &[(String, String)], request: &mut Request) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = Vec::new();
    for (local, remote) in files {
        let failed = |source| ExecError::LocalFile { path: local.clone(), source };
        let metadata = std::fs::metadata(local).map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(std::io::Error::other("it is not a regular file")).into());
        }
        if remote.is_empty() {
            return Err(Failure::usage(format!("--file {local}=: the path in the pod is missing"), None));
        }
        request.files.push(FileSpec { path: remote.clone().into_bytes(), size: metadata.len() });
        paths.push(local.into());
    }
    Ok(paths)
}
