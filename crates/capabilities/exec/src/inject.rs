//! Putting the agent into a container that has it not, and running it there: through its `sh`, in one exec.
//!
//! The script says which machine it is on, takes the agent that it is sent then, and becomes it. The agent removes its own
//! file as soon as it runs, so nothing stays. Where it does not get to run, the script removes the file; where that may not
//! have come to it either, another one does.

use crate::error::ExecError;
use crate::target::Place;
use bytes::Bytes;
use postern_kube::Cluster;
use postern_kube::exec::{ExecEnd, ExecEvent, ExecReader, ExecWriter};
use std::time::Duration;

/// How long the container may take over an answer: the runtime starts one command of a container at a time, and what is
/// given up stays in its queue.
const PATIENCE: Duration = crate::session::START.limit;

/// The same where the run has failed already and the user waits for the error.
const TIDY_PATIENCE: Duration = Duration::from_secs(10);

/// An agent's file stayed where it does not belong.
#[derive(Debug, thiserror::Error)]
#[error(
    "the agent's file {file} may still be in container {container} of pod {namespace}/{pod}; remove it by hand ({})",
    reason(.source)
)]
struct Left {
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

/// Where the agent is put, a line each: where people put things, and what is mounted of the node, such as an emptyDir beside a
/// read-only root. The first that serves.
macro_rules! directories {
    () => {
        concat!(
            postern_shell::local_mounts!(),
            r#"set -f
directories() {
  printf '%s\n' /tmp /dev/shm /var/tmp /run "$HOME" "$PWD"
  local_mounts echo
}
IFS='
'
"#
        )
    };
}

/// Finds a directory that can be written to and executed from, says the machine and the file, reads a size, takes that
/// many bytes, checks what came, and becomes it. `$1` is the file's name, the rest the agent's arguments. Only POSIX sh
/// with uname, printf, head, wc, chmod and rm.
///
/// What is no program must not get as far as `exec`: a shell takes what the kernel refuses for a script.
const PUT: &str = concat!(
    "name=$1
shift
",
    directories!(),
    r#"for d in $(directories 2>/dev/null); do
  [ -d "$d" ] && [ -w "$d" ] || continue
  f="$d/$name"
  { printf '#!/bin/sh\nexit 0\n' >"$f"; } 2>/dev/null && chmod 700 "$f" && "$f" </dev/null 2>/dev/null && break
  rm -f "$f" 2>/dev/null
  f=
done
unset IFS
[ -n "$f" ] || { echo "no directory is both writable and executable (tried /tmp /dev/shm /var/tmp /run \$HOME . and what is mounted)" >&2; exit 3; }
trap 'rm -f "$f"' EXIT
trap 'exit 6' HUP INT TERM
echo "$(uname -m) $f"
read -r size || exit 6
head -c "$size" >"$f" || exit 4
[ "$(wc -c <"$f")" -eq "$size" ] || { echo "only part of the agent arrived" >&2; exit 5; }
case "$(head -c 4 "$f")" in
*ELF) ;;
*) echo "what arrived is not the agent" >&2; exit 5 ;;
esac
exec "$f" "$@"
"#
);

/// The exit code of [`PUT`] where it has put nothing anywhere.
const NOWHERE: i32 = 3;

/// Removes the agent named `$1` from wherever it was put.
const REMOVE: &str = concat!(
    directories!(),
    r#"for d in $(directories 2>/dev/null); do
  f="$d/$1"
  rm -f "$f" 2>/dev/null
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

/// Puts the agent there and starts it with these arguments; `agents` gives the program for an architecture. When this
/// returns, the agent has said its first words and so has removed its file; the reader gives them out first.
///
/// Dropped on the way it ends the script's stdin, and the script removes what it has put there.
pub async fn start(
    cluster: &Cluster,
    place: &Place,
    agents: Agents,
    arguments: &[&str],
) -> Result<(ExecReader, ExecWriter), ExecError> {
    let name = format!(".postern-agent-{}-{:x}", std::process::id(), nonce());
    let command = [&["sh", "-c", PUT, "sh", &name], arguments].concat();
    // Most nodes are as this machine is: their agent is inflated while the shell there starts.
    let expected = arch_of_machine(std::env::consts::ARCH).unwrap_or(Arch::Amd64);
    drop(std::thread::Builder::new().spawn(move || agents(expected)));
    let (mut reader, mut writer) = open(cluster, place, &command, true).await?;
    let mut file = name.clone();
    let putting = put(&mut reader, &mut writer, agents, &mut file);
    let error = match tokio::time::timeout(PATIENCE, putting).await {
        Ok(Ok(())) => return Ok((reader, writer)),
        Ok(Err(Ended::Code(code, said))) if code == NOWHERE => return Err(exited(code, &said)),
        Ok(Err(Ended::Failed(why))) if file == name => {
            let container = &place.container;
            let why = format!("container {container} has no shell to put it there with ({why})");
            return Err(ExecError::Inject(why));
        }
        Ok(Err(ended)) => ended.into(),
        Err(_) => late(PATIENCE),
    };
    // The script ends without its stdin, and may be the one that removes it.
    writer.close().await;
    drop(reader);
    match remove(cluster, place, &name, &file).await {
        Ok(()) => Err(error),
        Err(left) => Err(ExecError::Inject(format!("{}; {left}", reason(&error)))),
    }
}

/// Talks to the script until the agent has said something. `file` becomes the path that it is put to.
async fn put(
    reader: &mut ExecReader,
    writer: &mut ExecWriter,
    agents: Agents,
    file: &mut String,
) -> Result<(), Ended> {
    let mut said = Said::default();
    let line = loop {
        said.hear_or_end(reader).await?;
        if let Some(line) = said.out.strip_suffix(b"\n") {
            break String::from_utf8(line.to_vec()).map_err(|_| odd("the path it answered is not UTF-8"))?;
        }
    };
    let (machine, path) = line.split_once(' ').unwrap_or((&line, ""));
    path.clone_into(file);
    let arch =
        arch_of_machine(machine).ok_or_else(|| odd(&format!("there is no agent for machine {machine:?}")))?;
    let program = agents(arch)
        .filter(|program| !program.is_empty())
        .ok_or_else(|| odd(&format!("this build of postern carries no agent for {arch:?}")))?;
    let sending = async {
        // Why it takes no more is in what it says.
        let _ = writer.stdin(format!("{}\n", program.len()).as_bytes()).await;
        for chunk in program.chunks(postern_wire::CHUNK) {
            if writer.stdin(chunk).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    said.out.clear();
    let hearing = async {
        while said.out.is_empty() {
            said.hear_or_end(reader).await?;
        }
        Ok(())
    };
    tokio::select! {
        heard = hearing => heard?,
        () = sending => {}
    }
    reader.unread(Bytes::from(said.out));
    Ok(())
}

/// How a script ended that was not to.
enum Ended {
    /// With this code, having said so.
    Code(i32, Vec<u8>),
    /// It was not started, or the runtime lost it.
    Failed(String),
    /// The stream broke, or what came on it makes no sense.
    Odd(String),
}

fn odd(why: &str) -> Ended {
    Ended::Odd(why.to_owned())
}

impl From<Ended> for ExecError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Code(code, said) => exited(code, &said),
            Ended::Failed(why) => Self::Runtime(why),
            Ended::Odd(why) => Self::Inject(why),
        }
    }
}

fn exited(code: i32, said: &[u8]) -> ExecError {
    ExecError::Inject(format!("{} (exit code {code})", String::from_utf8_lossy(said).trim()))
}

fn late(limit: Duration) -> ExecError {
    ExecError::Inject(format!("no answer within {} s", limit.as_secs()))
}

/// Bytes of what a script says that are kept: no answer is ever long, and one that talks on is not listened to.
const KEPT: usize = 8_192;

/// What a script said.
#[derive(Default)]
struct Said {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Said {
    /// Takes what comes next; the exit code at the end.
    async fn hear(&mut self, reader: &mut ExecReader) -> Result<Option<i32>, Ended> {
        match reader.next().await {
            Ok(Some(ExecEvent::Stdout(data))) if self.out.len() < KEPT => self.out.extend_from_slice(&data),
            Ok(Some(ExecEvent::Stderr(data))) if self.err.len() < KEPT => self.err.extend_from_slice(&data),
            Ok(Some(ExecEvent::End(ExecEnd::Exited(code)))) => return Ok(Some(code)),
            Ok(Some(ExecEvent::End(ExecEnd::Failed(why)))) => return Err(Ended::Failed(why)),
            Ok(Some(_)) => {}
            Ok(None) => return Err(odd("the stream was closed without a status")),
            Err(error) => return Err(Ended::Odd(error.to_string())),
        }
        Ok(None)
    }

    async fn hear_or_end(&mut self, reader: &mut ExecReader) -> Result<(), Ended> {
        match self.hear(reader).await? {
            Some(code) => Err(Ended::Code(code, std::mem::take(&mut self.err))),
            None => Ok(()),
        }
    }
}

/// What a script died of, without the words that every [`ExecError::Inject`] begins with.
pub(crate) fn reason(error: &ExecError) -> String {
    match error {
        ExecError::Inject(why) => why.clone(),
        other => other.to_string(),
    }
}

async fn remove(cluster: &Cluster, place: &Place, name: &str, file: &str) -> Result<(), Left> {
    let removed = simple(cluster, place, &["sh", "-c", REMOVE, "sh", name], TIDY_PATIENCE).await;
    removed.map(|_| ()).map_err(|error| {
        let Place { namespace, pod, container, agent: _ } = place.clone();
        Left { file: file.to_owned(), namespace, pod, container, source: Box::new(error) }
    })
}

fn nonce() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos()
}

async fn open(
    cluster: &Cluster,
    place: &Place,
    command: &[&str],
    stdin: bool,
) -> Result<(ExecReader, ExecWriter), ExecError> {
    let command: Vec<Vec<u8>> = command.iter().map(|argument| argument.as_bytes().to_vec()).collect();
    place.open(cluster, &command, stdin, false).await
}

/// Runs a small command to its end; its stdout, or an error with its stderr.
pub(crate) async fn simple(
    cluster: &Cluster,
    place: &Place,
    command: &[&str],
    limit: Duration,
) -> Result<Vec<u8>, ExecError> {
    // Its writer is kept: without one the exec would end.
    let (mut reader, _writer) = open(cluster, place, command, false).await?;
    let mut said = Said::default();
    let ending = async {
        loop {
            if let Some(code) = said.hear(&mut reader).await? {
                return Ok::<_, Ended>(code);
            }
        }
    };
    match tokio::time::timeout(limit, ending).await {
        Ok(Ok(0)) => Ok(said.out),
        Ok(Ok(code)) => Err(exited(code, &said.err)),
        Ok(Err(ended)) => Err(ended.into()),
        Err(_) => Err(late(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Output, Stdio};

    /// A script as each of the shells that are here would run it.
    fn each_shell(script: &str, arguments: &[&str], stdin: &[u8], seen: impl Fn(Output)) {
        let shells: [&[&str]; 4] = [&["sh"], &["dash"], &["bash", "--posix"], &["busybox", "ash"]];
        for shell in shells {
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).args(["-c", script, "sh"]).args(arguments);
            let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            let mut child = match spawned {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && shell != ["sh"] => continue,
                spawned => spawned.unwrap(),
            };
            // One that does not listen to the end is one of the cases.
            let _ = child.stdin.take().unwrap().write_all(stdin);
            seen(child.wait_with_output().unwrap());
        }
    }

    fn name(test: &str) -> String {
        format!(".postern-agent-test-{test}-{}", std::process::id())
    }

    /// The file that the script said it would use.
    fn file(output: &Output) -> std::path::PathBuf {
        let line = String::from_utf8(output.stdout.clone()).unwrap();
        let (machine, path) = line.lines().next().unwrap().split_once(' ').unwrap();
        assert!(arch_of_machine(machine).is_some(), "{line:?}");
        path.into()
    }

    #[test]
    fn the_script_becomes_what_it_is_sent() {
        // A program that says its arguments and its stdin.
        let program = std::fs::read("/bin/sh").unwrap();
        let script = "echo \"$@\"; cat; kill -0 $$";
        let name = name("runs");
        let stdin = [format!("{}\n", program.len()).as_bytes(), &program].concat();
        each_shell(PUT, &[&name, "-c", script, "x", "a b", "c"], &stdin, |output| {
            let said = String::from_utf8(output.stdout.clone()).unwrap();
            assert!(output.status.success() && said.ends_with("\na b c\n"), "{output:?}");
            std::fs::remove_file(file(&output)).unwrap(); // as the agent does itself
        });
    }

    #[test]
    fn what_does_not_get_to_run_leaves_nothing() {
        let name = name("fails");
        let cases: [(&[u8], i32, &str); 5] = [
            (b"", 6, ""),
            (b"9\n\x7fELFagen", 5, "only part of the agent arrived"),
            (b"9\n\x7fELFagent", 126, ""), // the kernel does not take it
            (b"9\necho oh no", 5, "what arrived is not the agent"),
            (b"x\n", 4, ""),
        ];
        for (stdin, code, said) in cases {
            each_shell(PUT, &[&name], stdin, |output| {
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(error.contains(said), "{stdin:?}: {output:?}");
                assert!(!output.status.success(), "{output:?}");
                if code != 126 {
                    assert_eq!(output.status.code(), Some(code), "{output:?}");
                    assert!(!file(&output).exists(), "{stdin:?}");
                }
                let _ = std::fs::remove_file(file(&output));
            });
        }
    }

    #[test]
    fn what_one_script_puts_the_other_removes() {
        let name = name("removed");
        let path = std::path::Path::new("/tmp").join(&name);
        std::fs::write(&path, "").unwrap();
        // Again: nothing to remove is no failure.
        for _ in 0..2 {
            each_shell(REMOVE, &[&name], b"", |output| {
                assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
                assert!(!path.exists());
            });
        }
    }
}
