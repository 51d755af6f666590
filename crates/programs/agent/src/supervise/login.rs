//! The login to a cloud before a tool that needs it.
//!
//! The cloud's own tool logs in (the agent has no TLS), with the token that the kubelet refreshes for the pod
//! or with a mounted key. Later runs reuse its session until it is about to expire. One run logs in at a
//! time. If the login fails, the tool is not run.

mod session;

use super::link::{Link, Lost};
use crate::sys::{self, Reaped, Signals};
use postern_secret::Secret;
use postern_secret::redact::Patterns;
use postern_wire::login as variables;
use postern_wire::{Failure, FailureKind, FromAgent, Login, Request};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitStatus};
use session::Session;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit of one attempt.
const ATTEMPT: Duration = Duration::from_secs(60);

/// Interval of checks for the login of another run.
const LOCKED: Duration = Duration::from_millis(100);

/// Maximum bytes of a failed login's output that are reported.
const SAID: usize = 2_000;

/// Why the login does not succeed.
pub(super) enum LoginError {
    /// The client is lost.
    Lost,
    /// The error to report.
    Failed(Failure),
}

/// The login that a command needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    argv: Vec<OsString>,
    /// The directory in which the tool stores its session.
    home: PathBuf,
    /// The required profile of the session.
    profile: Option<String>,
    attempts: u8,
    interval: Duration,
}

fn failed(message: String) -> Failure {
    Failure { kind: FailureKind::Login, message }
}

impl Plan {
    /// The login in the request or, if it does not name one, the login that the pod is set up for. `pod`
    /// reads the agent's own variables, `command` those of the command.
    fn of(
        request: &Request,
        pod: impl Fn(&str) -> Option<OsString>,
        command: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, Failure> {
        let Some(Login { provider, attempts, interval_ms }) = &request.login else { return Ok(None) };
        let word = |value: Option<OsString>| value?.into_string().ok().filter(|value| !value.is_empty());
        let text = |name: &str| word(pod(name));
        let trusted = text(variables::PROVIDER)
            .filter(|provider| provider == variables::IBM)
            .and(text(variables::IBM_PROFILE));
        match provider.as_deref() {
            None if trusted.is_none() || !is_ibmcloud(request) => return Ok(None),
            None | Some(variables::IBM) => {}
            Some(other) => return Err(failed(format!("unknown login {other:?}; use ibm"))),
        }
        let mut argv = vec!["ibmcloud".to_owned(), "login".to_owned(), "-a".to_owned()];
        argv.push(
            word(command(variables::ENDPOINT)).unwrap_or_else(|| variables::IBM_DEFAULT_ENDPOINT.to_owned()),
        );
        argv.push("-r".to_owned());
        argv.push(
            word(command(variables::IBM_REGION)).unwrap_or_else(|| variables::IBM_DEFAULT_REGION.to_owned()),
        );
        argv.push("--quiet".to_owned());
        if let Some(profile) = &trusted {
            let token = text(variables::TOKEN).unwrap_or_default();
            // The tool reads the file itself, so the token is in no argv.
            argv.extend([
                "--cr-token".to_owned(),
                format!("@{token}"),
                "--profile".to_owned(),
                profile.clone(),
            ]);
        } else if command(variables::IBM_KEY).is_none() {
            return Err(failed(
                "the pod has neither a trusted profile nor IBMCLOUD_API_KEY to log in with".to_owned(),
            ));
        }
        let home = command("IBMCLOUD_HOME").or_else(|| command("HOME")).filter(|home| !home.is_empty());
        Ok(Some(Self {
            argv: argv.into_iter().map(OsString::from).collect(),
            home: home.map_or_else(|| PathBuf::from("/"), PathBuf::from),
            profile: trusted,
            attempts: *attempts,
            interval: Duration::from_millis(*interval_ms),
        }))
    }
}

fn is_ibmcloud(request: &Request) -> bool {
    let program = request.argv.first().map(|program| Path::new(OsStr::from_bytes(program)));
    program.and_then(Path::file_name) == Some(OsStr::new("ibmcloud"))
}

/// The secret part of a token, to redact: without its signature it is useless.
fn signature(name: &str, token: &str) -> Option<Secret> {
    Secret::new(name, token.trim().rsplit('.').next()?).ok()
}

/// The token that identifies the pod, if there is one.
pub(super) fn pod_token() -> Option<Secret> {
    let path = std::env::var_os(variables::TOKEN)?;
    signature("the pod's token", &std::fs::read_to_string(path).ok()?)
}

/// Logs in if the request needs it; returns the access token, to redact.
pub(super) fn login(
    link: &mut Link,
    signals: &Signals,
    request: &Request,
    environment: &[(Vec<u8>, Vec<u8>)],
    patterns: &Patterns,
) -> Result<Option<Secret>, LoginError> {
    let of_command = |name: &str| {
        let own = environment.iter().rev().find(|(known, _)| known == name.as_bytes());
        own.map(|(_, value)| OsString::from_vec(value.clone())).or_else(|| std::env::var_os(name))
    };
    let plan = Plan::of(request, |name| std::env::var_os(name), of_command).map_err(LoginError::Failed)?;
    let Some(plan) = plan else { return Ok(None) };
    let session = || Session::of(&plan.home, plan.profile.as_deref());
    let known = |session: Session| signature("the access token", &session.token);
    if let Some(session) = session() {
        return Ok(known(session));
    }
    let mut lock = lock_file(&plan.home).map_err(LoginError::Failed)?;
    let mut waited = false;
    while rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        waited = true;
        turn(link, signals, None, Instant::now() + LOCKED)?;
    }
    // The previous holder may have logged in or failed: waiting runs do not retry as often.
    if let Some(session) = session() {
        return Ok(known(session));
    }
    let mut theirs = String::new();
    let _ = lock.read_to_string(&mut theirs);
    if waited && !theirs.is_empty() {
        return Err(LoginError::Failed(failed(theirs)));
    }
    let _ = lock.set_len(0);
    let mut said = String::new();
    for attempt in 1..=plan.attempts {
        let of = if plan.attempts == 1 {
            String::new()
        } else {
            format!(" (attempt {attempt} of {})", plan.attempts)
        };
        link.send(&FromAgent::Notice(&format!("logging in to IBM Cloud{of}")));
        match plan.attempt(link, signals, environment)? {
            Ok(()) => return Ok(session().and_then(known)),
            Err(text) => said = text,
        }
        let next = Instant::now() + plan.interval;
        while attempt < plan.attempts && Instant::now() < next {
            turn(link, signals, None, next)?;
        }
    }
    let said = String::from_utf8_lossy(&patterns.mask(said.as_bytes())).into_owned();
    let how = if plan.profile.is_some() { "trusted-profile" } else { "API-key" };
    let times = if plan.attempts == 1 { "attempt" } else { "attempts" };
    let message = format!("{how} login failed after {} {times}: {said}", plan.attempts);
    let _ = lock.write_at(message.as_bytes(), 0);
    Err(LoginError::Failed(failed(message)))
}

/// Locked during a login; contains the output of the last failed one.
fn lock_file(home: &Path) -> Result<File, Failure> {
    let directory = home.join(".bluemix");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    let path = directory.join(".postern-login");
    made.and_then(|()| {
        OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path)
    })
    .map_err(|error| failed(format!("opening {}: {error}", path.display())))
}

impl Plan {
    /// One attempt; the inner error is the tool's output.
    fn attempt(
        &self,
        link: &mut Link,
        signals: &Signals,
        environment: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Result<(), String>, LoginError> {
        let (mut process, output) = self.start(environment).map_err(LoginError::Failed)?;
        let (mut output, mut said) = (Some(output), Vec::new());
        let end = Instant::now() + ATTEMPT;
        let status = loop {
            let status = process.ended();
            output = output.filter(|output| read(output, &mut said));
            match status {
                Some(status) => break status,
                None if Instant::now() >= end => {
                    return Ok(Err(format!("no answer within {} s", ATTEMPT.as_secs())));
                }
                None => turn(link, signals, output.as_ref(), end)?,
            }
        };
        if status.exit_status() == Some(0) {
            return Ok(Ok(()));
        }
        let text = String::from_utf8_lossy(&said);
        let text = text.trim();
        let begin = text.char_indices().map(|(at, _)| at).find(|at| text.len() - at <= SAID).unwrap_or(0);
        Ok(Err(if text.is_empty() { "it printed nothing".to_owned() } else { text[begin..].to_owned() }))
    }

    fn start(&self, environment: &[(Vec<u8>, Vec<u8>)]) -> Result<(Process, OwnedFd), Failure> {
        let refused = |error: std::io::Error| failed(format!("starting ibmcloud to log in: {error}"));
        let (ours, theirs) = std::io::pipe().map_err(refused)?;
        let ours = OwnedFd::from(ours);
        rustix::io::ioctl_fionbio(&ours, true).map_err(|error| refused(error.into()))?;
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).stdin(Stdio::null());
        command.stdout(theirs.try_clone().map_err(refused)?).stderr(theirs);
        for (name, value) in environment {
            command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
        }
        sys::own_session(&mut command, false);
        let started = command.spawn().map_err(refused)?;
        let pid = i32::try_from(started.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| refused(std::io::Error::other("the process id is out of range")))?;
        Ok((Process { pid, status: None }, ours))
    }
}

/// A running login; its process group is killed when dropped.
struct Process {
    pid: Pid,
    status: Option<WaitStatus>,
}

impl Process {
    fn ended(&mut self) -> Option<WaitStatus> {
        while let (None, Reaped::Child(pid, status)) = (self.status, sys::reap()) {
            if pid == self.pid {
                self.status = Some(status);
            }
        }
        self.status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        if self.status.is_none() {
            let _ = rustix::process::waitpid(Some(self.pid), rustix::process::WaitOptions::empty());
        }
    }
}

/// Reads available output; `false` at its end.
fn read(output: &OwnedFd, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4_096];
    loop {
        match rustix::io::read(output, &mut buffer) {
            Ok(0) => return false,
            Ok(count) => said.extend_from_slice(&buffer[..count]),
            Err(error) => return matches!(error, Errno::AGAIN | Errno::INTR),
        }
        let surplus = said.len().saturating_sub(8 * SAID);
        said.drain(..surplus);
    }
}

/// Waits once for a child, its output, the client, or the time.
fn turn(
    link: &mut Link,
    signals: &Signals,
    output: Option<&OwnedFd>,
    until: Instant,
) -> Result<(), LoginError> {
    let others: Vec<_> = output.map(AsFd::as_fd).into_iter().chain([signals.as_fd()]).collect();
    link.turn_with(&others, Some(until)).map_err(|Lost| LoginError::Lost)?;
    if signals.take().iter().any(|&number| number != libc::SIGCHLD) {
        link.lose();
    }
    match link.store_early_frames() {
        _ if link.is_lost() => Err(LoginError::Lost),
        Some(number) => Err(LoginError::Failed(failed(format!("the login was ended by signal {number}")))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request with a login; `""` does not name a cloud.
    fn request(program: &str, login: Option<&str>) -> Request {
        Request {
            argv: vec![program.as_bytes().to_vec()],
            login: login.map(|provider| Login {
                provider: Some(provider.to_owned()).filter(|provider| !provider.is_empty()),
                attempts: 3,
                interval_ms: 20_000,
            }),
            ..Request::default()
        }
    }

    fn plan(
        request: &Request,
        pod: &[(&str, &str)],
        command: &[(&str, &str)],
    ) -> Result<Option<Plan>, Failure> {
        let among = |table: &[(&str, &str)], name: &str| {
            table.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        Plan::of(request, |name| among(pod, name), |name| among(command, name))
    }

    const POD: [(&str, &str); 3] =
        [("POSTERN_LOGIN", "ibm"), ("IAM_PROFILE_ID", "Profile-1"), ("POSTERN_LOGIN_TOKEN", "/t/token")];

    #[test]
    fn a_trusted_pod_logs_in_for_the_clouds_own_tool() {
        let implied = |program: &str, pod: &[(&str, &str)]| {
            plan(&request(program, Some("")), pod, &[]).unwrap().is_some()
        };
        assert!(implied("ibmcloud", &POD) && implied("/usr/local/bin/ibmcloud", &POD));
        assert!(!implied("kubectl", &POD) && !implied("ibmcloud", &[]) && !implied("ibmcloud", &POD[..1]));
        assert_eq!(plan(&request("ibmcloud", None), &POD, &[]), Ok(None));
    }

    #[test]
    fn neither_the_token_nor_a_key_is_an_argument() {
        let named = request("sh", Some("ibm"));
        let trusted = plan(&named, &POD, &[("HOME", "/home/ops")]).unwrap().unwrap();
        let argv: Vec<_> = trusted.argv.iter().map(|argument| argument.to_str().unwrap()).collect();
        assert_eq!(
            argv.join(" "),
            "ibmcloud login -a https://cloud.ibm.com -r us-south --quiet --cr-token @/t/token --profile Profile-1"
        );
        assert_eq!(trusted.home, Path::new("/home/ops"));
        let key =
            plan(&named, &[], &[("IBMCLOUD_API_KEY", "the-key"), ("IBMCLOUD_HOME", "/x")]).unwrap().unwrap();
        assert!(!format!("{key:?}").contains("the-key") && key.home == Path::new("/x"));
    }

    #[test]
    fn unknown_logins_are_refused() {
        let said = |login: &str, pod: &[(&str, &str)]| {
            plan(&request("sh", Some(login)), pod, &[]).unwrap_err().message
        };
        assert_eq!(said("aws", &POD), "unknown login \"aws\"; use ibm");
        assert_eq!(
            said("ibm", &[]),
            "the pod has neither a trusted profile nor IBMCLOUD_API_KEY to log in with"
        );
    }
}
