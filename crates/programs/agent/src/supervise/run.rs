//! A running command: the loop over its streams, its processes and its client.

use super::child::Child;
use super::descendants;
use super::link::{Link, wait};
use super::output::{Output, StreamKind};
use super::stdin_queue::StdinQueue;
use crate::audit::Ending;
use crate::sys::{self, Reaped, Signals};
use postern_secret::redact::Patterns;
use postern_wire::{FromAgent, KILL_AFTER_MS, Outcome, Request, STDIN_WINDOW, ToAgent, Trailer};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::AsFd;
use rustix::process::{Signal, WaitStatus};
use std::time::{Duration, Instant};

/// Bytes read from the command at a time.
const READ: usize = 128 * 1024;

/// Interval of checks while processes are being ended.
const ENDING_TURN: Duration = Duration::from_millis(50);

/// How long to wait for an output that another process keeps open after everything has ended.
const FOREIGN_HOLDER: Duration = Duration::from_secs(1);

pub(super) struct Run {
    child: Child,
    patterns: Patterns,
    stdout: Output,
    stderr: Output,
    scratch: Vec<u8>,
    stdin_queue: StdinQueue,
    stdin_ended: bool,
    stdin_bytes: u64,
    ungranted: usize,
    timeout: Option<Instant>,
    status: Option<WaitStatus>,
    no_children: bool,
    all_ended: Option<Instant>,
    left_behind: u32,
    timed_out: bool,
    lost: bool,
    kill_at: Option<Instant>,
}

impl Run {
    pub(super) fn new(mut child: Child, request: &Request, patterns: Patterns) -> Self {
        let timeout = (request.timeout_ms > 0)
            .then(|| Instant::now().checked_add(Duration::from_millis(request.timeout_ms)))
            .flatten();
        let stdout = Output::new(StreamKind::Stdout, child.stdout.take());
        let stderr = Output::new(StreamKind::Stderr, child.stderr.take());
        Self {
            child,
            patterns,
            stdout,
            stderr,
            scratch: vec![0; READ],
            stdin_queue: StdinQueue::default(),
            stdin_ended: false,
            stdin_bytes: 0,
            ungranted: 0,
            timeout,
            status: None,
            no_children: false,
            all_ended: None,
            left_behind: 0,
            timed_out: false,
            lost: false,
            kill_at: None,
        }
    }

    /// Runs until the command, its descendants and its output have ended, then queues the trailer.
    pub(super) fn finish(mut self, link: &mut Link, signals: &Signals) -> Ending {
        link.send(&FromAgent::Started(self.child.pid.as_raw_nonzero().get().unsigned_abs()));
        // The command may have ended before we waited for SIGCHLD.
        self.reap();
        // Frames that arrived with the request are in the decoder, where poll does not see them.
        self.take_frames(link);
        while !self.is_over(link) {
            let next = self.tick(link);
            link.flush();
            self.wait(link, signals, next);
            if !link.is_lost() {
                self.take_frames(link);
            }
        }
        let (how, code, outcome) = self.outcome();
        let trailer = Trailer {
            outcome,
            stdout_bytes: self.stdout.bytes,
            stderr_bytes: self.stderr.bytes,
            stdout_hash: self.stdout.hash(),
            stderr_hash: self.stderr.hash(),
            left_behind: self.left_behind,
        };
        link.send(&FromAgent::Trailer(trailer));
        Ending { how, code, stdin: self.stdin_bytes, stdout: self.stdout.bytes, stderr: self.stderr.bytes }
    }

    fn outcome(&self) -> (&'static str, Option<u8>, Outcome) {
        let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
        let status = self.status;
        if self.lost {
            let code = status.and_then(WaitStatus::exit_status).map(byte);
            return ("client-lost", code, Outcome::Signaled(15));
        }
        if self.timed_out {
            return ("timed-out", None, Outcome::TimedOut);
        }
        match status.and_then(WaitStatus::terminating_signal) {
            Some(number) => ("signaled", Some(byte(number)), Outcome::Signaled(byte(number))),
            None => {
                let code = byte(status.and_then(WaitStatus::exit_status).unwrap_or(i32::from(u8::MAX)));
                ("exited", Some(code), Outcome::Exited(code))
            }
        }
    }

    fn is_over(&mut self, link: &mut Link) -> bool {
        if !(self.status.is_some() && self.no_children) {
            return false;
        }
        let since = *self.all_ended.get_or_insert_with(Instant::now);
        if self.stdout.source.is_none() && self.stderr.source.is_none() {
            return true;
        }
        // Do not wait for a pipe that an unrelated process holds open. But read its content to the last byte
        // first, however slowly the client reads.
        let stranger =
            since.elapsed() > FOREIGN_HOLDER && !self.stdout.is_readable() && !self.stderr.is_readable();
        if self.lost || stranger {
            self.stdout.end(&self.patterns, link);
            self.stderr.end(&self.patterns, link);
            return true;
        }
        false
    }

    /// Handles timers; returns the next one.
    fn tick(&mut self, link: &mut Link) -> Instant {
        link.tick();
        let now = Instant::now();
        if link.is_lost() && !self.lost {
            self.lost = true;
            self.end_all();
        }
        if self.timeout.is_some_and(|at| now >= at) {
            self.timeout = None;
            if self.status.is_none() {
                self.timed_out = true;
                self.end_all();
            }
        }
        if self.status.is_some() && !self.no_children && self.kill_at.is_none() {
            self.left_behind = self.end_all();
        }
        let mut next = link.next_tick();
        if let Some(at) = self.kill_at
            && !(self.status.is_some() && self.no_children)
        {
            if now >= at {
                descendants::signal(Signal::KILL);
                self.child.signal(9);
            }
            next = next.min(now + ENDING_TURN);
        }
        if self.all_ended.is_some() {
            next = next.min(now + ENDING_TURN);
        }
        let held = [self.stdout.tick(&self.patterns, link), self.stderr.tick(&self.patterns, link)];
        held.into_iter().flatten().chain(self.timeout).fold(next, Instant::min)
    }

    /// Sends SIGTERM to all processes of the command; SIGKILL follows.
    fn end_all(&mut self) -> u32 {
        if self.kill_at.is_none() {
            self.kill_at = Some(Instant::now() + Duration::from_millis(KILL_AFTER_MS));
        }
        let reached = descendants::signal(Signal::TERM);
        // Without a way to find descendants, only the group is signalled.
        self.child.signal(15);
        reached
    }

    fn wait(&mut self, link: &mut Link, signals: &Signals, until: Instant) {
        let read_output = self.lost || !link.is_full();
        let (link_input, link_output, signal_fd) = (Link::input(), Link::output(), signals.as_fd());
        let mut interest = vec![PollFd::new(&signal_fd, PollFlags::IN)];
        let mut add = |fd, flags, wanted: bool| {
            wanted.then(|| {
                interest.push(PollFd::from_borrowed_fd(fd, flags));
                interest.len() - 1
            })
        };
        let input = add(link_input, PollFlags::IN, !link.is_lost());
        add(link_output, PollFlags::OUT, link.has_waiting());
        let stdout = self.stdout.source.as_ref().and_then(|fd| add(fd.as_fd(), PollFlags::IN, read_output));
        let stderr = self.stderr.source.as_ref().and_then(|fd| add(fd.as_fd(), PollFlags::IN, read_output));
        let has_stdin = !self.stdin_queue.is_empty();
        let stdin = self.child.stdin.as_ref().and_then(|fd| add(fd.as_fd(), PollFlags::OUT, has_stdin));
        wait(&mut interest, until);
        let ready = |at: Option<usize>| at.is_some_and(|at| !interest[at].revents().is_empty());
        let (signalled, input) = (ready(Some(0)), ready(input));
        let (stdout, stderr, stdin) = (ready(stdout), ready(stderr), ready(stdin));
        drop(interest);
        if stdout {
            self.stdout.read(&mut self.scratch, &self.patterns, link);
        }
        if stderr {
            self.stderr.read(&mut self.scratch, &self.patterns, link);
        }
        if stdin {
            self.feed(link);
        }
        if input {
            link.fill();
        }
        if signalled {
            if signals.take().iter().any(|&number| number != libc::SIGCHLD) {
                link.lose();
            }
            self.reap();
        }
    }

    fn reap(&mut self) {
        loop {
            match sys::reap() {
                Reaped::Child(pid, status) if pid == self.child.pid => self.status = Some(status),
                Reaped::Child(..) => {}
                Reaped::None => {
                    self.no_children = false;
                    return;
                }
                Reaped::NoChildren => {
                    self.no_children = true;
                    return;
                }
            }
        }
    }

    /// Writes to the command's stdin what it accepts, and grants the client as much again.
    fn feed(&mut self, link: &mut Link) {
        while let (Some(stdin), false) = (&self.child.stdin, self.stdin_queue.is_empty()) {
            match rustix::io::write(stdin, self.stdin_queue.front()) {
                // Queued input is lost: the command must not take the remaining input for complete.
                Ok(0) => {
                    link.lose();
                    return;
                }
                Ok(count) => {
                    self.stdin_queue.consume(count);
                    self.taken(count, link);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    // The command closed its stdin: input is discarded, as with a shell's pipe.
                    let dropped = self.stdin_queue.len();
                    self.stdin_queue.clear();
                    self.child.stdin = None;
                    self.taken(dropped, link);
                }
            }
        }
        if self.stdin_ended && self.stdin_queue.is_empty() {
            self.child.stdin = None;
        }
    }

    fn taken(&mut self, count: usize, link: &mut Link) {
        self.stdin_bytes += count as u64;
        self.ungranted += count;
        if self.ungranted >= STDIN_WINDOW / 4 {
            link.send(&FromAgent::Window(u32::try_from(self.ungranted).unwrap_or(u32::MAX)));
            self.ungranted = 0;
        }
    }

    fn take_frames(&mut self, link: &mut Link) {
        let mut passed_on = 0;
        loop {
            match link.frame() {
                Ok(None) => break,
                Ok(Some(ToAgent::Heartbeat)) => {}
                Ok(Some(ToAgent::Stdin(data))) => {
                    if self.stdin_ended || self.stdin_queue.len() + data.len() > STDIN_WINDOW {
                        link.lose();
                        return;
                    }
                    match &self.child.stdin {
                        None => passed_on += data.len(),
                        Some(stdin) => {
                            // The command is usually waiting for it, so it is written at once.
                            let at_once = self.stdin_queue.is_empty();
                            let written =
                                if at_once { rustix::io::write(stdin, data).unwrap_or(0) } else { 0 };
                            passed_on += written;
                            self.stdin_queue.push(&data[written..]);
                        }
                    }
                }
                Ok(Some(ToAgent::StdinEnd)) => {
                    if self.child.terminal.is_some() && self.child.stdin.is_some() {
                        // End of file, as typed by a user.
                        self.stdin_queue.push(&[4]);
                    } else {
                        self.stdin_ended = true;
                    }
                }
                Ok(Some(ToAgent::Signal(9))) => {
                    self.kill_at.get_or_insert_with(Instant::now);
                    self.child.signal(9);
                    descendants::signal(Signal::KILL);
                }
                Ok(Some(ToAgent::Signal(number))) => self.child.signal(number),
                Ok(Some(ToAgent::Resize(size))) => self.child.resize(size),
                // The client violated the protocol: it is treated as lost.
                Ok(Some(ToAgent::Request(_) | ToAgent::File(_) | ToAgent::Done)) | Err(_) => {
                    link.lose();
                    return;
                }
            }
        }
        self.taken(passed_on, link);
        self.feed(link);
    }
}
