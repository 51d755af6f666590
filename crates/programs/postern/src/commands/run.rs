//! `postern run`.

use super::exec::{connected, within};
use super::{Context, credentials, run_each, streams, transports};
use crate::cli::run::{Backend, Login, Run as Args};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::{signals, terminal};
use postern_config::Tool;
use postern_exec::session::{self, Ended, Notice, Report, Run};
use postern_exec::stream::Connection;
use postern_exec::target::Place;
use postern_exec::{ExecError, container_end, exit, transport};
use postern_kube::Cluster;
use postern_ops::OpsPod;
use postern_ops::check::open_agent;
use postern_ops::install::Reporter as _;
use postern_ops::names as ops;
use postern_secret::resolve::Resolved;
use postern_wire::{FileSpec, Request, login as names};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) async fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args {
        pod,
        backend,
        transport,
        stream_key,
        each,
        fan_out,
        env,
        workdir,
        file,
        login,
        credential,
        stdin,
        tty,
        timeout,
        command,
    } = args;
    if backend == Backend::Ops && !credential.is_empty() {
        return Err(Failure::usage(
            "--credential is for --backend local; the ops pod has its own",
            Some("give it to the pod with: postern ops install --credential NAME".to_owned()),
        ));
    }
    if backend == Backend::Local && (transport.is_some() || stream_key.is_some()) {
        return Err(Failure::usage("--transport and --stream-key are for --backend ops", None));
    }
    if backend == Backend::Local && login.is_some() {
        let hint = "log in on this machine with the cloud's own tool".to_owned();
        return Err(Failure::usage("--login is for --backend ops", Some(hint)));
    }
    let pod = context.ops_pod(pod)?;
    run_each::check(&each, &fan_out, [("-i", stdin), ("-t", tty), ("--file", !file.is_empty())], printer)?;
    let asked = Asked { env, workdir, stdin, tty, timeout };
    let mut request = asked.request(context, command, printer)?;
    let files = stage(&file, &mut request)?;
    let values = run_each::values(each)?;
    let limit = Some(Duration::from_millis(request.timeout_ms)).filter(|limit| !limit.is_zero());
    let door = match backend {
        Backend::Ops => {
            let cluster = connected(context, limit).await?;
            request.credentials = true;
            request.login = wanted_login(context, login);
            if login == Some(Login::Ibm) {
                // What a pod that has no profile does not know of itself.
                let ibm = &context.config.ibm;
                let known = [(names::ENDPOINT, &ibm.api_endpoint), (names::IBM_REGION, &ibm.region)];
                let known = known.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
                request.env.extend(known.map(|(name, value)| (name.into(), value.into_bytes())));
            }
            request.claimed_user.clone_from(&cluster.user);
            let transport = transports::chosen(context, transport);
            let opening = transports::stream(context, &cluster, &pod, transport, stream_key, printer);
            match in_time(limit, Box::pin(opening)).await? {
                Some(stream) => Door::Stream(stream),
                None => Door::Exec(cluster, pod),
            }
        }
        Backend::Local => {
            add_credentials(context, &credential, &mut request, printer)?;
            Door::Local(std::env::current_exe().map_err(ExecError::Local)?)
        }
    };
    if let Some(values) = values {
        return run_each::run(&door, &request, timeout, values, &fan_out, printer).await;
    }
    let run = Run { request, files };
    Ok(match &door {
        Door::Stream(stream) => {
            let (reader, writer) = stream.session();
            supervised(reader, writer, run, stdin, printer).await
        }
        Door::Exec(cluster, pod) => {
            let opening = async { open_agent(cluster, pod).await.map_err(ExecError::Kube) };
            let (reader, writer) = within(limit, opening).await?;
            let ran = supervised(reader, writer, run, stdin, printer).await;
            container_end::explain_error(cluster, &place(pod), ran).await
        }
        Door::Local(own) => {
            let (reader, writer) = transport::local(own, &SUPERVISOR).map_err(ExecError::Local)?;
            supervised(reader, writer, run, stdin, printer).await
        }
    }?)
}

pub(super) fn place(pod: &OpsPod) -> Place {
    Place {
        namespace: pod.namespace().to_owned(),
        pod: pod.name().to_owned(),
        container: ops::CONTAINER.to_owned(),
        agent: Some(ops::AGENT.to_owned()),
    }
}

/// As [`within`], where why it failed is told already.
async fn in_time<T>(
    limit: Option<Duration>,
    reaching: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    within(limit, async { Ok(reaching.await) }).await?
}

/// The way to a supervisor.
pub(super) enum Door {
    /// By the runtime's exec into the ops pod.
    Exec(Cluster, OpsPod),
    /// By a stream to the ops pod's agent.
    Stream(Connection),
    /// This very program.
    Local(PathBuf),
}

/// What makes this program the supervisor.
pub(super) const SUPERVISOR: [&str; 1] = ["__agent"];

/// The login that the agent is asked for.
fn wanted_login(context: &Context, login: Option<Login>) -> Option<postern_wire::Login> {
    let provider = match login {
        None => None,
        Some(Login::Ibm) => Some(names::IBM.to_owned()),
        Some(Login::None) => return None,
    };
    let (attempts, interval) = context.config.login.attempts();
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    Some(postern_wire::Login { provider, attempts, interval_ms })
}

/// Gives a local run its credentials.
fn add_credentials(
    context: &Context,
    flags: &[String],
    request: &mut Request,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let found = credentials::from_flags(context, flags, printer).map_err(|failure| match failure.code {
        exit::DENIED => Failure { code: exit::NEVER_REACHED, ..failure },
        _ => failure,
    })?;
    for Resolved { credential, secret, from: _ } in found {
        let value = secret.expose().to_vec();
        request
            .secret_env
            .extend(credential.names.into_iter().map(|name| (name.into_bytes(), value.clone())));
    }
    Ok(())
}

/// What the command line asks of a run, before the tool's defaults.
pub(super) struct Asked {
    pub(super) env: Vec<(String, String)>,
    pub(super) workdir: Option<String>,
    pub(super) stdin: bool,
    pub(super) tty: bool,
    pub(super) timeout: Option<Duration>,
}

impl Asked {
    /// The request, with the config's defaults for this tool where the command line says nothing.
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

/// Announces the files of `--file` in the request; returns their local paths.
fn stage(files: &[(String, String)], request: &mut Request) -> Result<Vec<PathBuf>, Failure> {
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

/// Tells that the pod has not started the agent yet.
pub(super) struct Queue<'p> {
    printer: &'p mut Printer,
    told: bool,
}

impl<'p> Queue<'p> {
    pub(super) fn new(printer: &'p mut Printer) -> Self {
        Self { printer, told: false }
    }

    /// On a terminal how long, elsewhere once.
    pub(super) fn waits(&mut self, waited: Duration) {
        let text = format!("waiting for the pod to start it, behind other commands ({} s)", waited.as_secs());
        if self.printer.shows_progress() {
            self.printer.progress(&text);
        } else if !std::mem::replace(&mut self.told, true) {
            self.printer.note(&text);
        }
    }

    pub(super) fn over(&mut self) {
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
    let mut queue = Queue::new(printer);
    let notice = |notice: Notice<'_>| match notice {
        Notice::Queued(waited) => queue.waits(waited),
        Notice::Agent(text) => queue.printer.progress(text),
        Notice::Started => queue.over(),
    };
    let result = session::run_with_notices(reader, writer, run, streams, controls, notice).await;
    queue.over();
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
