//! Runs many commands for one client connected to stdin and stdout. The container runtime starts one command
//! of a container at a time, within the container's share of a processor, so one start has to serve all of
//! them.

use crate::stream::Ready;
use crate::stream::connection::Connection;
use crate::sys::{self, Reaped, Signals};
use postern_wire::{FromAgent, Hello};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Pid;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Maximum time between checks.
const TURN: Duration = Duration::from_secs(1);

/// Serves one client until it is gone or idle, and stays until its runs have ended.
pub fn main() -> ExitCode {
    sys::harden();
    let caught = [libc::SIGCHLD, libc::SIGTERM, libc::SIGHUP];
    let (Ok(signals), Ok(mut connection)) = (Signals::catch(&caught), on_stdio()) else {
        return ExitCode::FAILURE;
    };
    let mut supervisors: Vec<Pid> = Vec::new();
    let mut scratch = vec![0; 64 * 1024];
    while connection.is_alive(Instant::now()) {
        let idle = connection.idle_until().map(|until| until.saturating_duration_since(Instant::now()));
        let (ready, signalled) = wait(&signals, Some(&connection), idle.map_or(TURN, |idle| idle.min(TURN)));
        for at in ready {
            match at {
                Ready::Client(_) => connection.client(&mut scratch, false, &mut supervisors),
                Ready::Session(_, number) => connection.session(number, &mut scratch),
                Ready::Listener(_) | Ready::Waiting(_) => {}
            }
        }
        reap(&mut supervisors);
        if signalled && signals.take().iter().any(|&number| number != libc::SIGCHLD) {
            break;
        }
    }
    // Each supervisor sees its client gone and ends its run. PID 1 would kill remaining ones immediately.
    drop(connection);
    while !supervisors.is_empty() {
        if wait(&signals, None, TURN).1 {
            signals.take();
        }
        reap(&mut supervisors);
    }
    ExitCode::SUCCESS
}

fn on_stdio() -> std::io::Result<Connection> {
    let (input, output) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let (input, output) = (rustix::io::dup(input)?, rustix::io::dup(output)?);
    for end in [&input, &output] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(end, true)?;
        sys::widen(end);
    }
    let hello = FromAgent::Hello(Hello { agent_version: env!("CARGO_PKG_VERSION").to_owned() });
    Ok(Connection::on_streams(input, output, &hello))
}

/// Waits for events: the ready parts of the connection, and whether a signal arrived.
fn wait(signals: &Signals, connection: Option<&Connection>, limit: Duration) -> (Vec<Ready>, bool) {
    let mut sources = Vec::new();
    let mut interest = vec![PollFd::new(signals, PollFlags::IN)];
    if let Some(connection) = connection {
        connection.interest(0, &mut |ready, fd, flags| {
            sources.push(ready);
            interest.push(PollFd::from_borrowed_fd(fd, flags));
        });
    }
    // Rounded up: a wait that ends too early would spin.
    let limit = Timespec::try_from(limit + Duration::from_millis(1)).ok();
    if rustix::event::poll(&mut interest, limit.as_ref()).is_err() {
        return (Vec::new(), true);
    }
    let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    let signalled = ready(&interest[0]);
    let found = interest[1..].iter().zip(sources).filter_map(|(fd, source)| ready(fd).then_some(source));
    (found.collect(), signalled)
}

fn reap(supervisors: &mut Vec<Pid>) {
    loop {
        match sys::reap() {
            Reaped::Child(pid, _) => supervisors.retain(|&one| one != pid),
            Reaped::NoChildren => return supervisors.clear(),
            Reaped::None => return,
        }
    }
}
