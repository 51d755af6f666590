//! A connection with one client: sessions, and the bytes between them and the client. It is an authenticated
//! socket, or the streams of an exec.

use super::Ready;
use super::session::Session;
use crate::write_buffer::WriteBuffer;
use postern_wire::{Decoder, FromAgent, Mux};
use rustix::event::PollFlags;
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::process::Pid;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Maximum number of sessions on one connection.
const MAX_SESSIONS: usize = 64;

/// Sessions are not read while more than this many bytes of output are pending.
const FULL: usize = 512 * 1024;

/// A connection without sessions is closed after this time.
const IDLE: Duration = Duration::from_secs(30);

/// The streams of a connection.
enum Streams {
    Socket(TcpStream),
    /// Input and output of an exec.
    Streams(OwnedFd, OwnedFd),
}

impl Streams {
    fn input(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(socket) => socket.as_fd(),
            Self::Streams(input, _) => input.as_fd(),
        }
    }

    fn output(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(socket) => socket.as_fd(),
            Self::Streams(_, output) => output.as_fd(),
        }
    }
}

pub(crate) struct Connection {
    ends: Streams,
    /// The key that the client proved; `None` for an exec.
    key: Option<String>,
    decoder: Decoder,
    out: WriteBuffer,
    sessions: Vec<Session>,
    last_id: u32,
    idle_since: Option<Instant>,
    lost: bool,
}

impl Connection {
    /// A connection with a client that has proved this key.
    pub(super) fn new(stream: TcpStream, key: String) -> Self {
        Self::with(Streams::Socket(stream), Some(key), WriteBuffer::default())
    }

    /// A connection with a client through an exec. Sends the hello first.
    pub(crate) fn on_streams(input: OwnedFd, output: OwnedFd, hello: &FromAgent<'_>) -> Self {
        let mut out = WriteBuffer::default();
        hello.encode(out.end());
        Self::with(Streams::Streams(input, output), None, out)
    }

    fn with(ends: Streams, key: Option<String>, out: WriteBuffer) -> Self {
        Self {
            ends,
            key,
            decoder: Decoder::default(),
            out,
            sessions: Vec::new(),
            last_id: 0,
            idle_since: Some(Instant::now()),
            lost: false,
        }
    }

    pub(crate) fn interest<'a>(&'a self, at: usize, add: &mut impl FnMut(Ready, BorrowedFd<'a>, PollFlags)) {
        let mut input = PollFlags::empty();
        input.set(PollFlags::IN, !self.sessions.iter().any(Session::is_behind));
        let mut output = PollFlags::empty();
        output.set(PollFlags::OUT, !self.out.is_empty());
        // Even without requested events, so that the end of the connection is reported.
        match &self.ends {
            Streams::Socket(socket) => add(Ready::Client(at), socket.as_fd(), input | output),
            Streams::Streams(from, to) => {
                add(Ready::Client(at), from.as_fd(), input);
                if !output.is_empty() {
                    add(Ready::Client(at), to.as_fd(), output);
                }
            }
        }
        for (number, session) in self.sessions.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, session.may_send() && self.out.len() < FULL);
            flags.set(PollFlags::OUT, session.has_queue());
            if let (Some(socket), false) = (&session.socket, flags.is_empty()) {
                add(Ready::Session(at, number), socket.as_fd(), flags);
            }
        }
    }

    /// Handles the client's ready socket. Adds started supervisors to `started`.
    pub(crate) fn client(&mut self, scratch: &mut [u8], stopping: bool, started: &mut Vec<Pid>) {
        self.flush();
        match rustix::io::read(self.ends.input(), &mut *scratch) {
            Ok(0) => self.lost = true,
            Ok(count) => {
                self.decoder.push(&scratch[..count]);
                self.messages(stopping, started);
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => self.lost = true,
        }
    }

    /// Handles a session's ready socket.
    pub(crate) fn session(&mut self, number: usize, scratch: &mut [u8]) {
        // Client messages are handled first in a turn, and may have closed it.
        let Some(session) = self.sessions.get_mut(number) else { return };
        session.flush();
        session.receive(scratch, self.out.end());
        self.flush();
    }

    fn messages(&mut self, stopping: bool, started: &mut Vec<Pid>) {
        loop {
            let message = match self.decoder.next_frame() {
                Ok(None) => return,
                Ok(Some((kind, payload))) => Mux::decode(kind, payload),
                Err(error) => Err(error),
            };
            match message {
                Ok(Mux::Open(id)) if id > self.last_id => {
                    self.last_id = id;
                    let free = !stopping && self.sessions.len() < MAX_SESSIONS;
                    match free.then(|| Session::start(id, self.key.as_deref())) {
                        Some(Ok((session, pid))) => {
                            self.sessions.push(session);
                            started.push(pid);
                        }
                        _ => Mux::Close(id).encode(self.out.end()),
                    }
                }
                // Data for a session that has ended is dropped.
                Ok(Mux::Data(id, bytes)) => {
                    if let Some(session) = self.sessions.iter_mut().find(|session| session.id == id) {
                        session.send(bytes);
                    }
                }
                Ok(Mux::Credit(id, bytes)) => {
                    if let Some(session) = self.sessions.iter_mut().find(|session| session.id == id) {
                        session.grant(bytes);
                    }
                }
                // The supervisor sees its client gone and ends its run.
                Ok(Mux::Close(id)) => self.sessions.retain(|session| session.id != id),
                Ok(Mux::Open(_)) | Err(_) => {
                    self.lost = true;
                    return;
                }
            }
        }
    }

    fn flush(&mut self) {
        self.lost |= self.out.flush(self.ends.output()).is_err();
    }

    /// Whether the connection continues. If not, dropping it closes every session's socket, which ends their
    /// commands.
    pub(crate) fn is_alive(&mut self, now: Instant) -> bool {
        self.flush();
        self.sessions.retain(|session| session.socket.is_some());
        self.idle_since = match self.sessions.is_empty() {
            true => Some(self.idle_since.unwrap_or(now)),
            false => None,
        };
        !self.lost && self.idle_until().is_none_or(|until| now < until)
    }

    pub(crate) fn idle_until(&self) -> Option<Instant> {
        self.idle_since.map(|since| since + IDLE)
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.lost && (!self.sessions.is_empty() || !self.out.is_empty())
    }
}
