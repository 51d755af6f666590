//! The ops pod's PID 1: reaps, keeps the audit log, lets running commands finish when told to stop.
//!
//! Everything that is reparented to PID 1 was left behind by a supervisor that was killed: it is ended.

use crate::audit::{BUSY, LINE_LIMIT, SOCKET, STOPPING, WELCOME};
use crate::{sys, time};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;

/// Supervisors connected at a time; a process in the pod cannot make PID 1 grow without bound.
const MAX_RUNS: usize = 256;

/// Runs until SIGTERM and the end of the last command.
pub fn main() -> ExitCode {
    sys::harden();
    let signals = sys::Signals::catch(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT]);
    let Ok(signals) = signals else { return ExitCode::FAILURE };
    let listener = match listen(Path::new(SOCKET)) {
        Ok(listener) => Some(listener),
        Err(error) => {
            // Commands still run without it; the log says that it is not to be trusted.
            log(&format!(
                "{{\"time\":\"{}\",\"event\":\"error\",\"message\":\"no audit socket: {error}\"}}",
                time::now()
            ));
            None
        }
    };
    event("serving");
    Server { listener, runs: Vec::new(), stopping: false }.serve(&signals);
    event("stopped");
    ExitCode::SUCCESS
}

fn event(name: &str) {
    let version = env!("CARGO_PKG_VERSION");
    log(&format!("{{\"time\":\"{}\",\"event\":\"{name}\",\"agentVersion\":\"{version}\"}}", time::now()));
}

/// One line on stdout, which is the pod's log.
fn log(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    // What a container that was restarted in this pod left.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A supervisor that is running a command.
struct Running {
    stream: UnixStream,
    line: Vec<u8>,
}

struct Server {
    listener: Option<UnixListener>,
    runs: Vec<Running>,
    stopping: bool,
}

impl Server {
    fn serve(mut self, signals: &sys::Signals) {
        while !(self.stopping && self.runs.is_empty()) {
            let mut interest = vec![PollFd::new(signals, PollFlags::IN)];
            let first_run = 1 + usize::from(self.listener.is_some());
            interest.extend(self.listener.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
            interest.extend(self.runs.iter().map(|run| PollFd::new(&run.stream, PollFlags::IN)));
            // Leftovers that ignore SIGTERM are looked at again each second.
            let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
            if rustix::event::poll(&mut interest, Some(&limit)).is_err() {
                interest.iter_mut().for_each(PollFd::clear_revents);
            }
            let ready: Vec<bool> = interest.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(interest);
            if ready[0] {
                self.stopping |= signals.take().iter().any(|&number| number != libc::SIGCHLD);
            }
            end_leftovers();
            for (at, _) in ready.iter().enumerate().skip(first_run).rev().filter(|(_, ready)| **ready) {
                self.read(at - first_run);
            }
            if first_run == 2 && ready[1] {
                self.accept();
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((mut stream, _)) = listener.accept() {
            let answer = match self.runs.len() {
                _ if self.stopping => STOPPING,
                MAX_RUNS.. => BUSY,
                _ => WELCOME,
            };
            let _ = stream.set_nonblocking(true);
            let _ = stream.write_all(&[answer]);
            if answer == WELCOME {
                self.runs.push(Running { stream, line: Vec::new() });
            }
        }
    }

    fn read(&mut self, at: usize) {
        let mut bytes = [0; 8 * 1024];
        let run = &mut self.runs[at];
        match run.stream.read(&mut bytes) {
            Ok(count @ 1..) if run.line.len() + count <= LINE_LIMIT => {
                run.line.extend_from_slice(&bytes[..count]);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => {
                let run = self.runs.swap_remove(at);
                log(&audited(&run.line));
            }
        }
    }
}

/// The line as the supervisor sent it, or that it was killed before it could.
fn audited(line: &[u8]) -> String {
    match std::str::from_utf8(line.strip_suffix(b"\n").unwrap_or_default()) {
        // Whatever else connects to the socket gets no second line and no control character into the log.
        Ok(line) if line.starts_with('{') && line.ends_with('}') && !line.contains(char::is_control) => {
            line.to_owned()
        }
        _ => format!("{{\"time\":\"{}\",\"event\":\"run\",\"outcome\":\"supervisor-lost\"}}", time::now()),
    }
}

/// Reaps the dead and ends whoever was left to us.
fn end_leftovers() {
    loop {
        match sys::reap() {
            sys::Reaped::Child(..) => {}
            sys::Reaped::NoChildren => return,
            sys::Reaped::None => break,
        }
    }
    for pid in children() {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

#[cfg(target_os = "linux")]
fn children() -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_nonzero();
    // The kernel lists the children of the one thread there is (proc(5); CONFIG_PROC_CHILDREN is on in every
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
    use super::audited;

    #[test]
    fn only_a_whole_line_is_taken_as_it_is() {
        assert_eq!(audited(b"{\"event\":\"run\"}\n"), "{\"event\":\"run\"}");
        for forged in [b"{\"a\":1".as_slice(), b"", b"{}\n{}\n", b"{\x1b[31m}\n"] {
            assert!(audited(forged).contains("supervisor-lost"), "{forged:?}");
        }
    }
}
