//! The audit line of one run, and how it reaches PID 1's log.
//!
//! `run` keeps a connection to PID 1's socket open while its command runs, so that PID 1 knows what is
//! running. At the end it sends its line and closes the connection. If a connection closes without a line,
//! the supervisor was killed, and PID 1 logs that.

use crate::time;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The socket of the ops pod's PID 1, on an emptyDir that only this pod can access.
pub const SOCKET: &str = "/run/postern/agent.sock";

/// Maximum length of a line in bytes; a longer argv is truncated first.
pub const LINE_LIMIT: usize = 64 * 1024;

/// Maximum bytes of argv in an audit line.
const ARGV_LIMIT: usize = 8 * 1024;

/// Answer of PID 1 when it accepts no more runs.
pub const STOPPING: u8 = b'S';
/// Answer of PID 1 when it supervises its maximum number of runs.
pub const BUSY: u8 = b'B';
/// Answer of PID 1 when the run may start.
pub const WELCOME: u8 = b'W';

/// A run, for its audit line.
#[derive(Debug)]
pub struct Invocation {
    started: String,
    clock: Instant,
    claimed_user: String,
    key: Option<String>,
    argv: Vec<String>,
}

/// How a run ended, for its audit line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// One of `exited`, `signaled`, `timed-out`, `client-lost`, `not-started`.
    pub how: &'static str,
    /// The exit code or signal number.
    pub code: Option<u8>,
    /// Bytes of stdin consumed.
    pub stdin: u64,
    /// Bytes of stdout sent.
    pub stdout: u64,
    /// Bytes of stderr sent.
    pub stderr: u64,
}

impl Invocation {
    /// Starts now. `argv` must already have its secrets masked. `key` is the key that the client proved, on a
    /// stream connection.
    pub fn begin(claimed_user: &str, key: Option<&str>, argv: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut left = ARGV_LIMIT;
        let mut shown = Vec::new();
        for argument in argv {
            if argument.len() > left {
                shown.push("…".to_owned());
                break;
            }
            left -= argument.len();
            shown.push(String::from_utf8_lossy(&argument).into_owned());
        }
        let claimed_user = claimed_user.chars().take(256).collect();
        let key = key.map(str::to_owned);
        Self { started: time::now(), clock: Instant::now(), claimed_user, key, argv: shown }
    }

    /// The audit line: one JSON object.
    pub fn line(&self, ending: &Ending) -> String {
        let Self { started, clock, claimed_user, key, argv } = self;
        let Ending { how, code, stdin, stdout, stderr } = ending;
        let mut line = format!("{{\"time\":\"{started}\",\"event\":\"run\",\"claimedUser\":");
        quote(&mut line, claimed_user);
        match key {
            Some(key) => {
                line.push_str(",\"transport\":\"stream\",\"key\":");
                quote(&mut line, key);
            }
            None => line.push_str(",\"transport\":\"exec\""),
        }
        line.push_str(",\"argv\":[");
        for (at, argument) in argv.iter().enumerate() {
            if at > 0 {
                line.push(',');
            }
            quote(&mut line, argument);
        }
        let _ = write!(line, "],\"outcome\":\"{how}\",\"code\":");
        match code {
            Some(code) => {
                let _ = write!(line, "{code}");
            }
            None => line.push_str("null"),
        }
        let millis = clock.elapsed().as_millis();
        let _ = write!(
            line,
            ",\"durationMs\":{millis},\"stdinBytes\":{stdin},\"stdoutBytes\":{stdout},\"stderrBytes\":{stderr}}}"
        );
        line
    }
}

/// Appends `text` as a JSON string. Control characters are escaped, so a line stays one line.
pub(crate) fn quote(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// The connection to PID 1's log.
#[derive(Debug, Default)]
pub struct Log(Option<UnixStream>);

/// PID 1 accepts no more runs. A run that it cannot log is not started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its pod is being replaced or deleted.
    #[error("the pod is being stopped and takes no more commands")]
    Stopping,
    /// There are too many runs.
    #[error("the pod runs as many commands at a time as it can log")]
    Busy,
}

impl Log {
    /// Announces a run. Outside the ops pod there is no socket, and nothing is logged.
    pub fn open(socket: &Path) -> Result<Self, Refused> {
        let Some(mut stream) = connect(socket) else { return Ok(Self(None)) };
        let mut answer = [WELCOME];
        match io::Read::read(&mut stream, &mut answer) {
            Ok(1) if answer[0] == STOPPING => Err(Refused::Stopping),
            Ok(1) if answer[0] == BUSY => Err(Refused::Busy),
            _ => Ok(Self(Some(stream))),
        }
    }

    /// Writes the line. If PID 1 does not listen, the line is dropped.
    ///
    /// The connection stays open until this process ends: PID 1 must not end before the client has the result.
    pub fn write(self, line: &str) {
        if let Some(mut stream) = self.0 {
            let _ = stream.write_all(format!("{line}\n").as_bytes());
            std::mem::forget(stream);
        }
    }
}

/// PID 1 may start to listen shortly after its container is Running: its directory exists before its socket.
fn connect(socket: &Path) -> Option<UnixStream> {
    if !socket.parent().is_some_and(Path::is_dir) {
        return None;
    }
    let end = Instant::now() + Duration::from_millis(500);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                let limit = Some(Duration::from_secs(2));
                stream.set_read_timeout(limit).and(stream.set_write_timeout(limit)).ok()?;
                return Some(stream);
            }
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_on_one_line() {
        let run =
            Invocation::begin("jo \"x\"", Some("AAAA"), [b"echo".to_vec(), b"a\nb\x1b[31m\xff".to_vec()]);
        let ending = Ending { how: "exited", code: Some(3), stdin: 1, stdout: 2, stderr: 3 };
        let line = run.line(&ending);
        assert!(!line.contains('\n') && !line.contains('\x1b'), "{line}");
        for part in [
            r#""claimedUser":"jo \"x\"""#,
            r#""transport":"stream","key":"AAAA","#,
            r#""argv":["echo","a\u000ab\u001b[31m"#,
            r#""outcome":"exited","code":3,"#,
            r#""stdinBytes":1,"stdoutBytes":2,"stderrBytes":3}"#,
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn an_endless_argv_is_cut() {
        let run = Invocation::begin("", None, std::iter::repeat_n(vec![b'x'; 1_000], 1_000));
        assert!(
            run.line(&Ending { how: "exited", code: None, stdin: 0, stdout: 0, stderr: 0 }).len()
                < LINE_LIMIT
        );
    }

    #[test]
    fn outside_the_ops_pod_nothing_is_logged() {
        assert!(Log::open(Path::new("/nonexistent/agent.sock")).unwrap().0.is_none());
    }
}
