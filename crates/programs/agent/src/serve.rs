//! The PID 1 of the ops pod and of Jobs: reaps processes, writes the audit log, lets running commands finish at shutdown.
//!
//! Every process that is reparented to PID 1 was left behind by a killed supervisor, and is ended.

use crate::audit::{BUSY, LINE_LIMIT, SOCKET, STOPPING, WELCOME, quote};
use crate::stream::{Gate, Ready};
use crate::{sys, time};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::AsFd as _;
use rustix::process::{Pid, Signal};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Maximum number of connected supervisors, so that a process in the pod cannot exhaust PID 1's memory.
const MAX_RUNS: usize = 256;

/// The port of the stream transport, and the directory of its keys.
#[derive(Debug, Clone, Copy)]
pub struct Stream<'a> {
    /// The port on both loopback addresses.
    pub port: u16,
    /// The directory with `authorized_keys` and `audience`.
    pub keys: &'a Path,
}

/// Runs until SIGTERM and the end of the last command. With `once`, it takes one command, ends with it and with its exit
/// code, and waits so long for it.
pub fn main(stream: Option<Stream<'_>>, once: Option<Duration>) -> ExitCode {
    sys::harden();
    let signals = sys::Signals::catch(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT]);
    let Ok(signals) = signals else { return ExitCode::FAILURE };
    let listener = match listen(Path::new(SOCKET)) {
        Ok(listener) => Some(listener),
        Err(error) => {
            // Commands still run without it; the log states that it is incomplete.
            log_error(&format!("no audit socket: {error}"));
            None
        }
    };
    let gate = stream.and_then(|Stream { port, keys }| match Gate::open(port, keys) {
        Ok(gate) => Some(gate),
        Err(error) => {
            // Commands still run by exec.
            log_error(&format!("no stream listener on port {port}: {error}"));
            None
        }
    });
    event("serving", gate.as_ref().map(Gate::port));
    let once = once.map(|wait| Once { until: Instant::now() + wait, code: NO_COMMAND });
    let code = Server { listener, gate, once, runs: Vec::new(), stopping: false }.serve(&signals);
    event("stopped", None);
    ExitCode::from(code)
}

/// The exit code of a Job to which nobody sent a command, or whose supervisor was killed.
const NO_COMMAND: u8 = 125;

/// For one command only.
struct Once {
    /// Until when it may begin.
    until: Instant,
    code: u8,
}

fn event(name: &str, stream_port: Option<u16>) {
    let (time, version) = (time::now(), env!("CARGO_PKG_VERSION"));
    let port = stream_port.map_or_else(String::new, |port| format!(",\"streamPort\":{port}"));
    log(&format!("{{\"time\":\"{time}\",\"event\":\"{name}\",\"agentVersion\":\"{version}\"{port}}}"));
}

fn log_error(message: &str) {
    let mut line = format!("{{\"time\":\"{}\",\"event\":\"error\",\"message\":", time::now());
    quote(&mut line, message);
    log(&format!("{line}}}"));
}

/// Writes one line to stdout, which is the pod's log.
fn log(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    // Left by an earlier container of this pod.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A supervisor that is running a command.
struct Running {
    stream: UnixStream,
    line: Vec<u8>,
    /// Whether its line was written to the log. It may take longer until its client has the result.
    is_logged: bool,
}

struct Server {
    listener: Option<UnixListener>,
    gate: Option<Gate>,
    once: Option<Once>,
    runs: Vec<Running>,
    stopping: bool,
}

/// The source of a ready descriptor.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Audit,
    Run(usize),
    Stream(Ready),
}

impl Server {
    /// Returns the exit code.
    fn serve(mut self, signals: &sys::Signals) -> u8 {
        while !self.is_over() {
            let ready = self.wait(signals);
            let mut runs = Vec::new();
            let mut streams = Vec::new();
            for source in ready {
                match source {
                    Source::Signals => {
                        self.stopping |= signals.take().iter().any(|&number| number != libc::SIGCHLD);
                    }
                    Source::Audit => self.accept(),
                    Source::Run(at) => runs.push(at),
                    Source::Stream(at) => streams.push(at),
                }
            }
            // In reverse order, because each may be removed.
            runs.into_iter().rev().for_each(|at| self.read(at));
            if let Some(gate) = &mut self.gate {
                gate.turn(&streams, self.stopping);
            }
            self.end_orphans();
        }
        self.once.map_or(0, |once| once.code)
    }

    fn is_over(&self) -> bool {
        let nobody_came = self.once.as_ref().is_some_and(|once| Instant::now() >= once.until);
        (self.stopping || nobody_came)
            && self.runs.is_empty()
            && !self.gate.as_ref().is_some_and(Gate::is_busy)
    }

    /// Waits, and returns what is ready.
    fn wait(&self, signals: &sys::Signals) -> Vec<Source> {
        let mut sources = vec![Source::Signals];
        let mut interest = vec![PollFd::new(signals, PollFlags::IN)];
        let mut add = |source, fd, flags| {
            sources.push(source);
            interest.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if let Some(listener) = &self.listener {
            add(Source::Audit, listener.as_fd(), PollFlags::IN);
        }
        for (at, run) in self.runs.iter().enumerate() {
            add(Source::Run(at), run.stream.as_fd(), PollFlags::IN);
        }
        if let Some(gate) = &self.gate {
            gate.interest(|ready, fd, flags| add(Source::Stream(ready), fd, flags));
        }
        // Processes that ignore SIGTERM are checked every second.
        let second = Duration::from_secs(1);
        let next = self.gate.as_ref().and_then(Gate::next);
        let left = next.map_or(second, |next| next.saturating_duration_since(Instant::now()).min(second));
        // Rounded up: a wait that ends too early would spin.
        let limit = Timespec::try_from(left + Duration::from_millis(1)).ok();
        if rustix::event::poll(&mut interest, limit.as_ref()).is_err() {
            return Vec::new();
        }
        let ready = interest.iter().map(|fd| !fd.revents().is_empty());
        ready.zip(sources).filter_map(|(ready, source)| ready.then_some(source)).collect()
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((mut stream, _)) = listener.accept() {
            let answer = match self.runs.len() {
                _ if self.stopping => STOPPING,
                1.. if self.once.is_some() => BUSY,
                MAX_RUNS.. => BUSY,
                _ => WELCOME,
            };
            let _ = stream.set_nonblocking(true);
            let _ = stream.write_all(&[answer]);
            if answer == WELCOME {
                self.runs.push(Running { stream, line: Vec::new(), is_logged: false });
            }
        }
    }

    fn read(&mut self, at: usize) {
        let mut bytes = [0; 8 * 1024];
        let run = &mut self.runs[at];
        match run.stream.read(&mut bytes) {
            Ok(count @ 1..) if run.line.len() + count <= LINE_LIMIT => {
                run.line.extend_from_slice(&bytes[..count]);
                if !run.is_logged && run.line.ends_with(b"\n") {
                    run.is_logged = true;
                    self.log_run(at);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => {
                if !run.is_logged {
                    self.log_run(at);
                }
                self.runs.swap_remove(at);
                self.stopping |= self.once.is_some();
            }
        }
    }

    fn log_run(&mut self, at: usize) {
        let line = audited(&self.runs[at].line);
        log(&line);
        if let Some(once) = &mut self.once {
            once.code = exit_code(&line).unwrap_or(NO_COMMAND);
        }
    }

    /// Reaps ended processes and ends orphaned ones.
    fn end_orphans(&mut self) {
        loop {
            match sys::reap() {
                sys::Reaped::Child(pid, _) => {
                    if let Some(gate) = &mut self.gate {
                        gate.reaped(pid);
                    }
                }
                sys::Reaped::NoChildren => return,
                sys::Reaped::None => break,
            }
        }
        let ours = |pid: &Pid| self.gate.as_ref().is_some_and(|gate| gate.started(*pid));
        for pid in children().into_iter().filter(|pid| !ours(pid)) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// The supervisor's line, or a line that it was killed.
fn audited(line: &[u8]) -> String {
    match std::str::from_utf8(line.strip_suffix(b"\n").unwrap_or_default()) {
        // Other programs that connect to the socket cannot add lines or control characters to the log.
        Ok(line) if line.starts_with('{') && line.ends_with('}') && !line.contains(char::is_control) => {
            line.to_owned()
        }
        _ => format!("{{\"time\":\"{}\",\"event\":\"run\",\"outcome\":\"supervisor-lost\"}}", time::now()),
    }
}

/// The exit code in a supervisor's line, as a shell reports it. What follows it has no text in it.
fn exit_code(line: &str) -> Option<u8> {
    let (before, rest) = line.rsplit_once("\"code\":")?;
    let code: u8 = rest.split(',').next()?.parse().ok()?;
    Some(if before.ends_with("\"signaled\",") { code.saturating_add(128) } else { code })
}

#[cfg(target_os = "linux")]
fn children() -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_nonzero();
    // The kernel lists the children of our only thread (proc(5); CONFIG_PROC_CHILDREN is enabled in every
    // distribution kernel).
    let text = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

#[cfg(not(target_os = "linux"))]
fn children() -> Vec<Pid> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::{audited, exit_code};

    #[test]
    fn the_exit_code_is_not_that_of_an_argument() {
        let line = r#"{"argv":["\"code\":7,"],"outcome":"exited","code":3,"durationMs":1}"#;
        assert_eq!(exit_code(line), Some(3));
        assert_eq!(exit_code(r#"{"outcome":"signaled","code":9,"durationMs":1}"#), Some(137));
        assert_eq!(exit_code(r#"{"outcome":"lost","code":null,"durationMs":1}"#), None);
        assert_eq!(exit_code(&audited(b"")), None);
    }

    #[test]
    fn only_a_whole_line_is_taken_as_it_is() {
        assert_eq!(audited(b"{\"event\":\"run\"}\n"), "{\"event\":\"run\"}");
        for forged in [b"{\"a\":1".as_slice(), b"", b"{}\n{}\n", b"{\x1b[31m}\n"] {
            assert!(audited(forged).contains("supervisor-lost"), "{forged:?}");
        }
    }
}
