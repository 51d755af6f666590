//! The loopback listener of an ops pod installed with `--stream`: runs that need no exec by the container
//! runtime.
//!
//! Operators reach it by port-forward, but so can every process of the pod. So nothing is parsed before the
//! client has proved an authorized key (`postern_wire::stream`), and connections of the pod's own user have a
//! separate limit. They are identified by the user of the connecting socket; a port-forward uses the
//! runtime's user.

pub(crate) mod connection;
mod handshake;
mod keys;
mod peer;
mod session;

use crate::sys;
use connection::Connection;
use handshake::{Next, Waiting};
use keys::Keys;
use peer::Origin;
use postern_wire::stream::Verdict;
use rustix::event::PollFlags;
use rustix::fd::{AsFd as _, BorrowedFd};
use rustix::process::Pid;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

/// Maximum number of authenticated connections.
const MAX_CONNECTIONS: usize = 64;

/// Maximum number of unauthenticated connections from outside the pod; the oldest is closed.
const MAX_WAITING: usize = 64;

/// The same for processes of the pod's own user; further ones are closed at once.
const MAX_WAITING_INSIDE: usize = 4;

/// The source of a ready descriptor. Numbers are indexes that are valid for one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    Listener(usize),
    Waiting(usize),
    Client(usize),
    Session(usize, usize),
}

/// The listener and its connections.
pub(crate) struct Gate {
    listeners: Vec<TcpListener>,
    keys: Keys,
    waiting: Vec<Waiting>,
    connections: Vec<Connection>,
    /// Supervisors that were not reaped yet. Some outlive their connection to end their run.
    supervisors: Vec<Pid>,
    scratch: Vec<u8>,
    port: u16,
}

impl Gate {
    /// Listens on both loopback addresses, so that no process of the pod can bind the one that a runtime
    /// tries next.
    pub(crate) fn open(port: u16, keys: &Path) -> io::Result<Self> {
        let mut listeners = vec![TcpListener::bind((Ipv4Addr::LOCALHOST, port))?];
        let port = listeners[0].local_addr()?.port();
        // A pod without IPv6 has no second address.
        listeners.extend(TcpListener::bind((Ipv6Addr::LOCALHOST, port)));
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        Ok(Self {
            listeners,
            keys: Keys::at(keys),
            waiting: Vec::new(),
            connections: Vec::new(),
            supervisors: Vec::new(),
            scratch: vec![0; 64 * 1024],
            port,
        })
    }

    /// The port: the requested one, or the system's choice for 0.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Adds the descriptors to wait for.
    pub(crate) fn interest<'a>(&'a self, mut add: impl FnMut(Ready, BorrowedFd<'a>, PollFlags)) {
        for (at, listener) in self.listeners.iter().enumerate() {
            add(Ready::Listener(at), listener.as_fd(), PollFlags::IN);
        }
        for (at, waiting) in self.waiting.iter().enumerate() {
            add(Ready::Waiting(at), waiting.stream.as_fd(), PollFlags::IN);
        }
        for (at, connection) in self.connections.iter().enumerate() {
            connection.interest(at, &mut add);
        }
    }

    /// Serves what is ready, then expired timers.
    pub(crate) fn turn(&mut self, ready: &[Ready], stopping: bool) {
        for &at in ready {
            match at {
                Ready::Listener(at) => self.accept(at),
                Ready::Waiting(at) => self.waiting[at].ready = true,
                Ready::Client(at) => {
                    self.connections[at].client(&mut self.scratch, stopping, &mut self.supervisors);
                }
                Ready::Session(at, session) => self.connections[at].session(session, &mut self.scratch),
            }
        }
        let now = Instant::now();
        for mut waiting in std::mem::take(&mut self.waiting) {
            match waiting.advance(&self.keys, now) {
                Next::Wait => self.waiting.push(waiting),
                Next::Gone => {}
                Next::Proved(key) => self.admit(waiting.stream, key, stopping),
            }
        }
        self.connections.retain_mut(|connection| connection.is_alive(now));
    }

    /// The next timer of [`Gate::turn`].
    pub(crate) fn next(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|waiting| waiting.until);
        waiting.chain(self.connections.iter().filter_map(Connection::idle_until)).min()
    }

    /// Whether this child of PID 1 is a supervisor of ours.
    pub(crate) fn started(&self, pid: Pid) -> bool {
        self.supervisors.contains(&pid)
    }

    /// A child of PID 1 was reaped.
    pub(crate) fn reaped(&mut self, pid: Pid) {
        self.supervisors.retain(|&supervisor| supervisor != pid);
    }

    /// Whether output for a client is pending.
    pub(crate) fn is_busy(&self) -> bool {
        self.connections.iter().any(Connection::is_busy)
    }

    fn accept(&mut self, at: usize) {
        // A limited number per turn, so that existing connections come first.
        for _ in 0..64 {
            let Ok((stream, peer)) = self.listeners[at].accept() else { return };
            let origin = stream.local_addr().map_or(Origin::Inside, |local| peer::origin(&peer, &local));
            let same = self.waiting.iter().filter(|waiting| waiting.origin == origin).count();
            match origin {
                Origin::Inside if same >= MAX_WAITING_INSIDE => {
                    sys::reset(stream);
                    continue;
                }
                Origin::Outside if same >= MAX_WAITING => {
                    let oldest = self.waiting.iter().position(|waiting| waiting.origin == origin);
                    oldest.map(|oldest| self.waiting.remove(oldest));
                }
                Origin::Inside | Origin::Outside => {}
            }
            self.waiting.extend(Waiting::begin(stream, origin));
        }
    }

    fn admit(&mut self, stream: TcpStream, key: String, stopping: bool) {
        let verdict = match self.connections.len() {
            _ if stopping => Verdict::Stopping,
            MAX_CONNECTIONS.. => Verdict::Busy,
            _ => Verdict::Welcome,
        };
        let told = rustix::io::write(&stream, &[verdict.encode()]);
        if verdict == Verdict::Welcome && told.is_ok() {
            self.connections.push(Connection::new(stream, key));
        }
    }
}
