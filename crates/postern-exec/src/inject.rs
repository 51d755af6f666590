//! Putting the agent into a container that has it not, through its `sh`.
//!
//! The agent removes its own file as soon as it runs, so nothing stays. Where it did not get to run, [`tidy`] does.

use crate::error::ExecError;
use crate::target::Place;
use bytes::Bytes;
use postern_kube::Cluster;
use postern_kube::exec::{ExecEnd, ExecEvent};
use std::time::Duration;

/// How long the container may take over an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same where the run has failed already and the user waits for the error.
const TIDY_PATIENCE: Duration = Duration::from_secs(10);

/// An agent that was put into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    /// Where it is.
    pub path: String,
    /// Its file's name, which nothing else has.
    name: String,
}

/// An agent's file stayed where it does not belong.
#[derive(Debug, thiserror::Error)]
#[error(
    "the agent's file {file} may still be in container {container} of pod {namespace}/{pod}; remove it by hand ({})",
    reason(.source)
)]
pub struct Left {
    file: String,
    namespace: String,
    pod: String,
    container: String,
    source: Box<ExecError>,
}

/// A machine's architecture, as OCI names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// `AArch64`.
    Arm64,
}

/// Gives the agent for an architecture, where there is one.
pub type Agents = fn(Arch) -> Option<&'static [u8]>;

/// Where the agent is put: the first of these that serves.
macro_rules! directories {
    () => {
        r#"/tmp /dev/shm /var/tmp /run "$HOME" "$PWD""#
    };
}

/// Finds a directory that can be written to and executed from, takes the agent from stdin, checks that all of it came,
/// and prints where it is. `$1` is its name, `$2` its size. Only POSIX sh with printf, head, wc, chmod and rm.
const PUT: &str = concat!(
    "for d in ",
    directories!(),
    r#"; do
  [ -d "$d" ] && [ -w "$d" ] || continue
  f="$d/$1"
  printf '#!/bin/sh\nexit 0\n' >"$f" 2>/dev/null && chmod 700 "$f" && "$f" 2>/dev/null && break
  rm -f "$f"
  f=
done
[ -n "$f" ] || { head -c "$2" >/dev/null; echo "no directory is both writable and executable (tried /tmp /dev/shm /var/tmp /run \$HOME .)" >&2; exit 3; }
trap 'rm -f "$f"' HUP INT TERM
head -c "$2" >"$f" || { rm -f "$f"; exit 4; }
[ "$(wc -c <"$f")" -eq "$2" ] || { rm -f "$f"; echo "only part of the agent arrived" >&2; exit 5; }
printf '%s' "$f"
"#
);

/// Removes the agent named `$1` from wherever it was put.
const REMOVE: &str = concat!(
    "for d in ",
    directories!(),
    r#"; do
  f="$d/$1"
  rm -f "$f"
  [ ! -e "$f" ] || { echo "$f is still there" >&2; exit 1; }
done
"#
);

/// The architecture that `uname -m` names.
pub fn arch_of_machine(machine: &str) -> Option<Arch> {
    match machine.trim() {
        "x86_64" | "amd64" => Some(Arch::Amd64),
        "aarch64" | "arm64" => Some(Arch::Arm64),
        _ => None,
    }
}

/// Asks the container which machine it runs on.
async fn machine(cluster: &Cluster, place: &Place) -> Result<Arch, ExecError> {
    let answer = simple(cluster, place, &["sh", "-c", "uname -m"], None, PATIENCE).await?;
    let machine = String::from_utf8_lossy(&answer).into_owned();
    arch_of_machine(&machine)
        .ok_or_else(|| ExecError::Inject(format!("there is no agent for machine {:?}", machine.trim())))
}

/// Puts the agent there. `agent` gives the program for an architecture.
pub async fn inject(
    cluster: &Cluster,
    place: &Place,
    agent: impl Fn(Arch) -> Option<&'static [u8]>,
) -> Result<Injected, ExecError> {
    let arch = match machine(cluster, place).await {
        Ok(arch) => arch,
        Err(ExecError::Runtime(why)) => {
            return Err(ExecError::Inject(format!(
                "container {} has no shell to put it there with ({why})",
                place.container
            )));
        }
        Err(error) => return Err(error),
    };
    let program = agent(arch)
        .filter(|program| !program.is_empty())
        .ok_or_else(|| ExecError::Inject(format!("this build of postern carries no agent for {arch:?}")))?;
    let name = format!(".postern-agent-{}-{:x}", std::process::id(), nonce());
    let size = program.len().to_string();
    let command = ["sh", "-c", PUT, "sh", &name, &size];
    let put = simple(cluster, place, &command, Some(Bytes::from_static(program)), PATIENCE).await;
    let put = put.and_then(|path| {
        String::from_utf8(path).map_err(|_| ExecError::Inject("the path it answered is not UTF-8".to_owned()))
    });
    match put {
        Ok(path) => Ok(Injected { path, name }),
        // All of it may have come, and only the answer was lost.
        Err(error) => match remove(cluster, place, &name, &name).await {
            Ok(()) => Err(error),
            Err(left) => Err(ExecError::Inject(format!("{}; {left}", reason(&error)))),
        },
    }
}

/// What a script died of, without the words that every [`ExecError::Inject`] begins with.
pub(crate) fn reason(error: &ExecError) -> String {
    match error {
        ExecError::Inject(why) => why.clone(),
        other => other.to_string(),
    }
}

/// Removes the agent's file where `error` leaves open whether the agent came to do it itself.
pub async fn tidy(cluster: &Cluster, place: &Place, agent: &Injected, error: &ExecError) -> Result<(), Left> {
    let Injected { path, name } = agent;
    if agent_ran(error) { Ok(()) } else { remove(cluster, place, name, path).await }
}

/// Whether only an agent that ran, and so has removed its file, can have led to this error.
fn agent_ran(error: &ExecError) -> bool {
    match error {
        ExecError::NotStarted(_)
        | ExecError::Broke(_)
        | ExecError::Corrupt { .. }
        | ExecError::TimedOut { .. }
        | ExecError::Cancelled(_)
        | ExecError::Hold { .. }
        | ExecError::Output(_) => true,
        ExecError::Kube(_)
        | ExecError::Target(_)
        | ExecError::Runtime(_)
        | ExecError::NoAgent(_)
        | ExecError::NeedsAgent { .. }
        | ExecError::Inject(_)
        | ExecError::Ephemeral { .. }
        | ExecError::LocalFile { .. }
        | ExecError::Local(_) => false,
    }
}

/// Removes the file of an agent that was not started.
pub async fn discard(cluster: &Cluster, place: &Place, agent: &Injected) -> Result<(), Left> {
    let Injected { path, name } = agent;
    remove(cluster, place, name, path).await
}

async fn remove(cluster: &Cluster, place: &Place, name: &str, file: &str) -> Result<(), Left> {
    let removed = simple(cluster, place, &["sh", "-c", REMOVE, "sh", name], None, TIDY_PATIENCE).await;
    removed.map(|_| ()).map_err(|error| {
        let Place { namespace, pod, container, agent: _ } = place.clone();
        Left { file: file.to_owned(), namespace, pod, container, source: Box::new(error) }
    })
}

fn nonce() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// Runs a small command to its end; its stdout, or an error with its stderr.
pub(crate) async fn simple(
    cluster: &Cluster,
    place: &Place,
    command: &[&str],
    stdin: Option<Bytes>,
    limit: Duration,
) -> Result<Vec<u8>, ExecError> {
    let command: Vec<Vec<u8>> = command.iter().map(|argument| argument.as_bytes().to_vec()).collect();
    let (mut reader, mut writer) = place.open(cluster, &command, stdin.is_some(), false).await?;
    let sending = async {
        if let Some(data) = stdin {
            for chunk in data.chunks(postern_wire::CHUNK) {
                if writer.stdin(chunk).await.is_err() {
                    break;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let receiving = async {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match reader.next().await {
                // Neither answer is ever long; a container that talks on is not listened to.
                Ok(Some(ExecEvent::Stdout(data))) if out.len() < 8_192 => out.extend_from_slice(&data),
                Ok(Some(ExecEvent::Stderr(data))) if err.len() < 8_192 => err.extend_from_slice(&data),
                Ok(Some(ExecEvent::End(ExecEnd::Exited(0)))) => return Ok(out),
                Ok(Some(ExecEvent::End(ExecEnd::Exited(code)))) => {
                    let said = String::from_utf8_lossy(&err).trim().to_owned();
                    return Err(ExecError::Inject(format!("{said} (exit code {code})")));
                }
                Ok(Some(ExecEvent::End(ExecEnd::Failed(why)))) => return Err(ExecError::Runtime(why)),
                Ok(Some(_)) => {}
                Ok(None) => {
                    return Err(ExecError::Inject("the stream was closed without a status".to_owned()));
                }
                Err(error) => return Err(ExecError::Inject(error.to_string())),
            }
        }
    };
    tokio::select! {
        result = receiving => result,
        () = sending => Err(ExecError::Inject("sending never ended".to_owned())),
        () = tokio::time::sleep(limit) => Err(ExecError::Inject(format!("no answer within {} s", limit.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// A script as the container's shell would run it.
    fn sh(script: &str, arguments: &[&str], stdin: &[u8]) -> (bool, String) {
        let mut shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(stdin).unwrap();
        let output = shell.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn what_one_script_puts_the_other_removes() {
        let name = format!(".postern-agent-test-{}", std::process::id());
        let (ok, path) = sh(PUT, &[&name, "5"], b"agent and more");
        assert!(ok && path.ends_with(&name), "{path:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"agent");
        assert_eq!(sh(REMOVE, &[&name], b""), (true, String::new()));
        assert!(!std::path::Path::new(&path).exists());
        // Again: nothing to remove is no failure.
        assert_eq!(sh(REMOVE, &[&name], b""), (true, String::new()));
        // Less than was announced leaves nothing.
        assert_eq!(sh(PUT, &[&name, "5"], b"agen"), (false, String::new()));
        assert!(!std::path::Path::new(&path).exists());
    }

    #[test]
    fn a_file_is_removed_unless_its_agent_has_spoken() {
        assert!(agent_ran(&ExecError::Broke(String::new())));
        for error in [ExecError::Runtime(String::new()), ExecError::NoAgent(String::new())] {
            assert!(!agent_ran(&error), "{error:?}");
        }
    }
}
