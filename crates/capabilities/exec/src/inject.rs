//! Copies the agent into a container whose image does not have it, and runs it there: with the container's `sh`, in
//! one exec.
//!
//! The script prints the machine's architecture, receives the agent for it, and runs it with `exec`. The agent
//! deletes its own file as soon as it runs, so nothing stays. If the agent does not start, the script deletes the
//! file. If the script may not have reached that point, a second script deletes it.

use crate::error::ExecError;
use crate::target::Place;
use bytes::Bytes;
use postern_kube::Cluster;
use postern_kube::exec::{ExecEnd, ExecEvent, ExecReader, ExecWriter};
use std::time::Duration;

/// The time limit for an answer of the container. The runtime starts one command of a container at a time, and an
/// abandoned command stays in its queue.
const ANSWER_LIMIT: Duration = crate::session::START.limit;

/// The same limit after the run has failed, when the user waits for the error.
const CLEANUP_LIMIT: Duration = Duration::from_secs(10);

/// The agent's file was left in the container.
#[derive(Debug, thiserror::Error)]
#[error(
    "the agent's file {file} may still be in container {container} of pod {namespace}/{pod}; remove it by hand ({})",
    reason(.source)
)]
struct FileLeft {
    file: String,
    namespace: String,
    pod: String,
    container: String,
    source: Box<ExecError>,
}

/// A machine's architecture, with its OCI name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// `AArch64`.
    Arm64,
}

/// Returns the agent for an architecture, if there is one.
pub type Agents = fn(Arch) -> Option<&'static [u8]>;

/// Prints the directories to try, one a line: the usual ones, and mounts of local file systems, such as an emptyDir
/// beside a read-only root. The first usable one is taken.
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

/// Finds a directory that is writable and executable, prints the machine and the file, reads a size, receives that
/// many bytes, checks them, and runs them with `exec`. `$1` is the file's name, the rest are the agent's arguments.
/// It needs only a POSIX sh with uname, printf, head, wc, chmod and rm.
///
/// A file that is not a program must not reach `exec`: a shell runs a file that the kernel rejects as a script.
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
[ -n "$f" ] || { echo "no directory is both writable and executable (tried /tmp /dev/shm /var/tmp /run \$HOME . \
and what is mounted)" >&2; exit 3; }
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

/// The exit code of [`PUT`] if it found no directory and wrote no file.
const NO_DIRECTORY: i32 = 3;

/// Deletes the agent named `$1` from every directory where it may be.
const REMOVE: &str = concat!(
    directories!(),
    r#"for d in $(directories 2>/dev/null); do
  f="$d/$1"
  rm -f "$f" 2>/dev/null
  [ ! -e "$f" ] || { echo "$f is still there" >&2; exit 1; }
done
"#
);

/// Returns the architecture for the output of `uname -m`.
pub fn arch_of_machine(machine: &str) -> Option<Arch> {
    match machine.trim() {
        "x86_64" | "amd64" => Some(Arch::Amd64),
        "aarch64" | "arm64" => Some(Arch::Arm64),
        _ => None,
    }
}

/// Copies the agent and starts it with these arguments; `agents` returns the program for an architecture. When this
/// function returns, the agent has sent its first bytes, so it has deleted its file. The reader returns these bytes
/// first.
///
/// If the future is dropped, the script's stdin ends, and the script deletes its file.
pub async fn start(
    cluster: &Cluster,
    place: &Place,
    agents: Agents,
    arguments: &[&str],
) -> Result<(ExecReader, ExecWriter), ExecError> {
    let name = format!(".postern-agent-{}-{:x}", std::process::id(), nonce());
    let command = [&["sh", "-c", PUT, "sh", &name], arguments].concat();
    // Most nodes have this machine's architecture, so its agent is decompressed while the shell starts.
    let expected = arch_of_machine(std::env::consts::ARCH).unwrap_or(Arch::Amd64);
    drop(std::thread::Builder::new().spawn(move || agents(expected)));
    let (mut reader, mut writer) = open(cluster, place, &command, true).await?;
    let mut file = name.clone();
    let putting = put(&mut reader, &mut writer, agents, &mut file);
    let error = match tokio::time::timeout(ANSWER_LIMIT, putting).await {
        Ok(Ok(())) => return Ok((reader, writer)),
        Ok(Err(Ended::Code(code, stderr))) if code == NO_DIRECTORY => return Err(exited(code, &stderr)),
        Ok(Err(Ended::Failed(why))) if file == name => {
            let container = &place.container;
            let why = format!("container {container} has no shell to copy it with ({why})");
            return Err(ExecError::Inject(why));
        }
        Ok(Err(ended)) => ended.into(),
        Err(_) => timed_out(ANSWER_LIMIT),
    };
    // The script ends when its stdin is closed, and may delete the file itself.
    writer.close().await;
    drop(reader);
    match remove(cluster, place, &name, &file).await {
        Ok(()) => Err(error),
        Err(left) => Err(ExecError::Inject(format!("{}; {left}", reason(&error)))),
    }
}

/// Runs the dialogue with the script until the agent has sent something. `file` is set to the path of the file.
async fn put(
    reader: &mut ExecReader,
    writer: &mut ExecWriter,
    agents: Agents,
    file: &mut String,
) -> Result<(), Ended> {
    let mut output = ScriptOutput::default();
    let line = loop {
        output.receive_or_end(reader).await?;
        if let Some(line) = output.out.strip_suffix(b"\n") {
            break String::from_utf8(line.to_vec())
                .map_err(|_| protocol_error("the path that the script printed is not UTF-8"))?;
        }
    };
    let (machine, path) = line.split_once(' ').unwrap_or((&line, ""));
    path.clone_into(file);
    let arch = arch_of_machine(machine)
        .ok_or_else(|| protocol_error(&format!("there is no agent for machine {machine:?}")))?;
    let program = agents(arch)
        .filter(|program| !program.is_empty())
        .ok_or_else(|| protocol_error(&format!("this build of postern carries no agent for {arch:?}")))?;
    let sending = async {
        // If the script accepts no more input, its output has the reason.
        let _ = writer.stdin(format!("{}\n", program.len()).as_bytes()).await;
        for chunk in program.chunks(postern_wire::CHUNK) {
            if writer.stdin(chunk).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    output.out.clear();
    let receiving = async {
        while output.out.is_empty() {
            output.receive_or_end(reader).await?;
        }
        Ok(())
    };
    tokio::select! {
        received = receiving => received?,
        () = sending => {}
    }
    reader.unread(Bytes::from(output.out));
    Ok(())
}

/// How a script ended that was not expected to end.
enum Ended {
    /// With this code; its stderr.
    Code(i32, Vec<u8>),
    /// It was not started, or the runtime lost it.
    Failed(String),
    /// The stream broke, or its content is not valid.
    Protocol(String),
}

fn protocol_error(why: &str) -> Ended {
    Ended::Protocol(why.to_owned())
}

impl From<Ended> for ExecError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Code(code, stderr) => exited(code, &stderr),
            Ended::Failed(why) => Self::Runtime(why),
            Ended::Protocol(why) => Self::Inject(why),
        }
    }
}

fn exited(code: i32, stderr: &[u8]) -> ExecError {
    ExecError::Inject(format!("{} (exit code {code})", String::from_utf8_lossy(stderr).trim()))
}

fn timed_out(limit: Duration) -> ExecError {
    ExecError::Inject(format!("no answer within {} s", limit.as_secs()))
}

/// The maximum bytes of a script's output that are kept. No valid answer is longer.
const MAX_OUTPUT: usize = 8_192;

/// The output of a script.
#[derive(Default)]
struct ScriptOutput {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl ScriptOutput {
    /// Reads the next event; returns the exit code at the end.
    async fn receive(&mut self, reader: &mut ExecReader) -> Result<Option<i32>, Ended> {
        match reader.next().await {
            Ok(Some(ExecEvent::Stdout(data))) if self.out.len() < MAX_OUTPUT => {
                self.out.extend_from_slice(&data);
            }
            Ok(Some(ExecEvent::Stderr(data))) if self.err.len() < MAX_OUTPUT => {
                self.err.extend_from_slice(&data);
            }
            Ok(Some(ExecEvent::End(ExecEnd::Exited(code)))) => return Ok(Some(code)),
            Ok(Some(ExecEvent::End(ExecEnd::Failed(why)))) => return Err(Ended::Failed(why)),
            Ok(Some(_)) => {}
            Ok(None) => return Err(protocol_error("the stream was closed without a status")),
            Err(error) => return Err(Ended::Protocol(error.to_string())),
        }
        Ok(None)
    }

    async fn receive_or_end(&mut self, reader: &mut ExecReader) -> Result<(), Ended> {
        match self.receive(reader).await? {
            Some(code) => Err(Ended::Code(code, std::mem::take(&mut self.err))),
            None => Ok(()),
        }
    }
}

/// Returns why a script failed, without the prefix of [`ExecError::Inject`].
pub(crate) fn reason(error: &ExecError) -> String {
    match error {
        ExecError::Inject(why) => why.clone(),
        other => other.to_string(),
    }
}

async fn remove(cluster: &Cluster, place: &Place, name: &str, file: &str) -> Result<(), FileLeft> {
    let removed = simple(cluster, place, &["sh", "-c", REMOVE, "sh", name], CLEANUP_LIMIT).await;
    removed.map(|_| ()).map_err(|error| {
        let Place { namespace, pod, container, agent: _ } = place.clone();
        FileLeft { file: file.to_owned(), namespace, pod, container, source: Box::new(error) }
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

/// Runs a small command to its end. Returns its stdout, or an error with its stderr.
pub(crate) async fn simple(
    cluster: &Cluster,
    place: &Place,
    command: &[&str],
    limit: Duration,
) -> Result<Vec<u8>, ExecError> {
    // The writer must stay alive: without it the exec would end.
    let (mut reader, _writer) = open(cluster, place, command, false).await?;
    let mut output = ScriptOutput::default();
    let ending = async {
        loop {
            if let Some(code) = output.receive(&mut reader).await? {
                return Ok::<_, Ended>(code);
            }
        }
    };
    match tokio::time::timeout(limit, ending).await {
        Ok(Ok(0)) => Ok(output.out),
        Ok(Ok(code)) => Err(exited(code, &output.err)),
        Ok(Err(ended)) => Err(ended.into()),
        Err(_) => Err(timed_out(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Output, Stdio};

    /// Runs a script with each of the shells that are installed here.
    fn each_shell(script: &str, arguments: &[&str], stdin: &[u8], check: impl Fn(Output)) {
        let shells: [&[&str]; 4] = [&["sh"], &["dash"], &["bash", "--posix"], &["busybox", "ash"]];
        for shell in shells {
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).args(["-c", script, "sh"]).args(arguments);
            let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            let mut child = match spawned {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && shell != ["sh"] => continue,
                spawned => spawned.unwrap(),
            };
            // One of the cases does not read its input to the end.
            let _ = child.stdin.take().unwrap().write_all(stdin);
            check(child.wait_with_output().unwrap());
        }
    }

    fn name(test: &str) -> String {
        format!(".postern-agent-test-{test}-{}", std::process::id())
    }

    /// The file that the script printed.
    fn file(output: &Output) -> std::path::PathBuf {
        let line = String::from_utf8(output.stdout.clone()).unwrap();
        let (machine, path) = line.lines().next().unwrap().split_once(' ').unwrap();
        assert!(arch_of_machine(machine).is_some(), "{line:?}");
        path.into()
    }

    #[test]
    fn the_script_becomes_what_it_is_sent() {
        // A program that prints its arguments and its stdin.
        let program = std::fs::read("/bin/sh").unwrap();
        let script = "echo \"$@\"; cat; kill -0 $$";
        let name = name("runs");
        let stdin = [format!("{}\n", program.len()).as_bytes(), &program].concat();
        each_shell(PUT, &[&name, "-c", script, "x", "a b", "c"], &stdin, |output| {
            let stderr = String::from_utf8(output.stdout.clone()).unwrap();
            assert!(output.status.success() && stderr.ends_with("\na b c\n"), "{output:?}");
            std::fs::remove_file(file(&output)).unwrap(); // as the agent does itself
        });
    }

    #[test]
    fn what_does_not_get_to_run_leaves_nothing() {
        let name = name("fails");
        let cases: [(&[u8], i32, &str); 5] = [
            (b"", 6, ""),
            (b"9\n\x7fELFagen", 5, "only part of the agent arrived"),
            (b"9\n\x7fELFagent", 126, ""), // the kernel rejects it
            (b"9\necho oh no", 5, "what arrived is not the agent"),
            (b"x\n", 4, ""),
        ];
        for (stdin, code, stderr) in cases {
            each_shell(PUT, &[&name], stdin, |output| {
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(error.contains(stderr), "{stdin:?}: {output:?}");
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
        // The second time there is nothing to delete, which is not an error.
        for _ in 0..2 {
            each_shell(REMOVE, &[&name], b"", |output| {
                assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
                assert!(!path.exists());
            });
        }
    }
}
