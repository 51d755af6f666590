//! Putting the agent into a container that has it not, through its `sh`.
//!
//! The agent removes its own file as soon as it runs, so nothing stays.

use crate::error::ExecError;
use crate::target::Place;
use bytes::Bytes;
use postern_kube::Cluster;
use postern_kube::exec::{self, ExecEnd, ExecEvent, ExecRequest};

/// A machine's architecture, as OCI names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// `AArch64`.
    Arm64,
}

/// Finds a directory that can be written to and executed from, takes the agent from stdin, checks that all of it came,
/// and prints where it is. `$1` is its name, `$2` its size. Only POSIX sh with printf, head, wc, chmod and rm.
const SCRIPT: &str = r#"
for d in /tmp /dev/shm /var/tmp /run "$HOME" "$PWD"; do
  [ -d "$d" ] && [ -w "$d" ] || continue
  f="$d/$1"
  printf '#!/bin/sh\nexit 0\n' >"$f" 2>/dev/null && chmod 700 "$f" && "$f" 2>/dev/null && break
  rm -f "$f"
  f=
done
[ -n "$f" ] || { echo "no directory is both writable and executable (tried /tmp /dev/shm /var/tmp /run \$HOME .)" >&2; exit 3; }
trap 'rm -f "$f"' HUP INT TERM
head -c "$2" >"$f" || { rm -f "$f"; exit 4; }
[ "$(wc -c <"$f")" -eq "$2" ] || { rm -f "$f"; echo "only part of the agent arrived" >&2; exit 5; }
printf '%s' "$f"
"#;

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
    let answer = simple(cluster, place, &["sh", "-c", "uname -m"], None).await?;
    let machine = String::from_utf8_lossy(&answer).into_owned();
    arch_of_machine(&machine)
        .ok_or_else(|| ExecError::Inject(format!("there is no agent for machine {:?}", machine.trim())))
}

/// Puts the agent there and returns its path. `agent` gives the program for an architecture.
pub async fn inject(
    cluster: &Cluster,
    place: &Place,
    agent: impl Fn(Arch) -> Option<&'static [u8]>,
) -> Result<String, ExecError> {
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
    let command = ["sh", "-c", SCRIPT, "sh", &name, &size];
    let path = simple(cluster, place, &command, Some(Bytes::from_static(program))).await?;
    String::from_utf8(path).map_err(|_| ExecError::Inject("the path it answered is not UTF-8".to_owned()))
}

fn nonce() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// Runs a small command to its end; its stdout, or an error with its stderr.
async fn simple(
    cluster: &Cluster,
    place: &Place,
    command: &[&str],
    stdin: Option<Bytes>,
) -> Result<Vec<u8>, ExecError> {
    let command: Vec<Vec<u8>> = command.iter().map(|argument| argument.as_bytes().to_vec()).collect();
    let request = ExecRequest {
        namespace: &place.namespace,
        pod: &place.pod,
        container: Some(&place.container),
        command: &command,
        stdin: stdin.is_some(),
        tty: false,
    };
    let (mut reader, mut writer) = exec::open(cluster, &request).await?;
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
    let limit = std::time::Duration::from_secs(60);
    tokio::select! {
        result = receiving => result,
        () = sending => Err(ExecError::Inject("sending never ended".to_owned())),
        () = tokio::time::sleep(limit) => Err(ExecError::Inject(format!("no answer within {} s", limit.as_secs()))),
    }
}
