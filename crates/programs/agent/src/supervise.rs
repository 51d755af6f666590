//! Runs one command for a client connected to stdin and stdout.
//!
//! One thread with one `poll`. The client's byte stream shows that it is alive: when it ends, or is silent
//! for [`postern_wire::CLIENT_SILENCE_MS`], every process of the command is ended. Only the trailer confirms
//! the output, and the process stays until the client has it: runtimes drop the last output of an exiting
//! process (kubernetes#124571).

mod child;
mod descendants;
mod link;
mod login;
mod output;
mod run;
mod staged;
mod stdin_queue;

use crate::audit::{Ending, Invocation, Log, SOCKET};
use crate::credentials::{self, CredentialError};
use crate::sys;
use child::Child;
use link::{Link, Lost};
use login::LoginError;
use postern_secret::redact::Patterns;
use postern_secret::{Secret, TooShort};
use postern_wire::{Failure, FailureKind, FromAgent, Hello, Request, ToAgent};
use run::Run;
use staged::Staged;
use std::path::Path;
use std::process::ExitCode;

/// Serves one client on stdin and stdout. Exits 0 when the client received the result, 1 when it was lost.
///
/// `key` is the key that the client proved to PID 1, for the audit line; without it the client connected by
/// exec.
pub fn main(key: Option<&str>) -> ExitCode {
    sys::harden();
    sys::adopt_orphans();
    let Ok(signals) = sys::Signals::catch(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGHUP]) else {
        return ExitCode::FAILURE;
    };
    let Ok(mut link) = Link::on_stdio() else { return ExitCode::FAILURE };
    match serve(&mut link, &signals, key) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Lost) => ExitCode::FAILURE,
    }
}

fn serve(link: &mut Link, signals: &sys::Signals, key: Option<&str>) -> Result<(), Lost> {
    link.send(&FromAgent::Hello(Hello { agent_version: env!("CARGO_PKG_VERSION").to_owned() }));
    match prepare(link, signals, key)? {
        Ok((prepared, log)) => {
            let Prepared { request, staged, patterns, environment, invocation } = prepared;
            // The client gave up before the runtime connected us: the command is not started.
            if Link::is_hung_up() {
                drop(staged);
                log.write(&invocation.line(&NOT_STARTED));
                return Err(Lost);
            }
            let ending = match Child::start(&request, &environment) {
                Ok(child) => Run::new(child, &request, patterns).finish(link, signals),
                Err(failure) => {
                    link.send(&FromAgent::Failure(failure));
                    NOT_STARTED
                }
            };
            drop(staged);
            log.write(&invocation.line(&ending));
        }
        Err(failure) => link.send(&FromAgent::Failure(failure)),
    }
    link.until_done()
}

const NOT_STARTED: Ending = Ending { how: "not-started", code: None, stdin: 0, stdout: 0, stderr: 0 };

struct Prepared {
    request: Request,
    staged: Staged,
    patterns: Patterns,
    environment: Vec<(Vec<u8>, Vec<u8>)>,
    invocation: Invocation,
}

/// The request, its credentials and its files: everything that can fail before the command starts.
fn prepare(
    link: &mut Link,
    signals: &sys::Signals,
    key: Option<&str>,
) -> Result<Result<(Prepared, Log), Failure>, Lost> {
    // The request has not arrived yet, so there is time for this.
    link.flush();
    let mounted = Mounted::read();
    let request = match link.next(|frame| match frame {
        ToAgent::Request(request) => Some(*request),
        _ => None,
    })? {
        Ok(request) => request,
        Err(message) => return Ok(Err(Failure { kind: FailureKind::BadRequest, message })),
    };
    let (mut secrets, patterns, environment) = match secrets(&request, mounted) {
        Ok(found) => found,
        Err(failure) => return Ok(Err(failure)),
    };
    let argv = request.argv.iter().map(|argument| patterns.mask(argument));
    let invocation = Invocation::begin(&request.claimed_user, key, argv);
    let log = match Log::open(Path::new(SOCKET)) {
        Ok(log) => log,
        Err(refused) => {
            return Ok(Err(Failure { kind: FailureKind::System, message: refused.to_string() }));
        }
    };
    let staged = match Staged::receive(link, &request.files)? {
        Ok(staged) => staged,
        Err(failure) => {
            log.write(&invocation.line(&NOT_STARTED));
            return Ok(Err(failure));
        }
    };
    let patterns = match login::login(link, signals, &request, &environment, &patterns) {
        Ok(None) => patterns,
        Ok(Some(token)) => {
            secrets.push(token);
            Patterns::new(&secrets)
        }
        Err(stop) => {
            log.write(&invocation.line(&NOT_STARTED));
            return match stop {
                LoginError::Failed(failure) => Ok(Err(failure)),
                LoginError::Lost => Err(Lost),
            };
        }
    };
    Ok(Ok((Prepared { request, staged, patterns, environment, invocation }, log)))
}

type Environment = Vec<(Vec<u8>, Vec<u8>)>;

/// The pod's mounted credentials and token, independent of the request.
struct Mounted {
    credentials: Result<Vec<(String, Secret)>, CredentialError>,
    token: Option<Secret>,
    patterns: Patterns,
}

impl Mounted {
    fn read() -> Self {
        let credentials = credentials::mounted(Path::new(credentials::DIRECTORY));
        let token = login::pod_token();
        let held = credentials.iter().flatten().map(|(_, secret)| secret).chain(&token);
        let patterns = Patterns::new(held);
        Self { credentials, token, patterns }
    }
}

/// The secrets to redact, the patterns to search for, and the variables to add to the command's environment.
fn secrets(request: &Request, mounted: Mounted) -> Result<(Vec<Secret>, Patterns, Environment), Failure> {
    let failed = |message: String| Failure {
        kind: FailureKind::Credential,
        message: format!("{message}; nothing was run"),
    };
    let Mounted { credentials, token, patterns } = mounted;
    let credentials = credentials.map_err(|error| failed(error.to_string()))?;
    let given = request.secret_env.iter().map(|(name, value)| {
        let shown = String::from_utf8_lossy(name).into_owned();
        Ok((name.clone(), Secret::new(&shown, value.clone())?))
    });
    let given: Vec<(Vec<u8>, Secret)> =
        given.collect::<Result<_, TooShort>>().map_err(|error| failed(error.to_string()))?;
    let mut environment = Vec::new();
    if request.credentials {
        environment.extend(
            credentials.iter().map(|(name, secret)| (name.clone().into_bytes(), secret.expose().to_vec())),
        );
    }
    environment.extend(given.iter().map(|(name, secret)| (name.clone(), secret.expose().to_vec())));
    environment.extend(request.env.iter().cloned());
    let known = given.is_empty();
    let all =
        credentials.into_iter().map(|(_, secret)| secret).chain(given.into_iter().map(|(_, secret)| secret));
    let all: Vec<Secret> = all.chain(token).collect();
    let patterns = if known { patterns } else { Patterns::new(&all) };
    Ok((all, patterns, environment))
}
