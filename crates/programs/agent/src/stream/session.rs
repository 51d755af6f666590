//! One run on a connection: a supervisor of its own on a socket pair, as if started by an exec.

use crate::write_buffer::WriteBuffer;
use postern_wire::{Mux, SESSION_CREDIT};
use rustix::process::Pid;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Maximum bytes pending for a supervisor; beyond that, its client is not read.
const BEHIND: usize = 256 * 1024;

pub(super) struct Session {
    pub(super) id: u32,
    /// Our end; `None` after either side has closed it.
    pub(super) socket: Option<UnixStream>,
    queue: WriteBuffer,
    credit: usize,
}

impl Session {
    /// Starts the supervisor. Its audit line contains the proved key, if any.
    pub(super) fn start(id: u32, key: Option<&str>) -> io::Result<(Self, Pid)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("postern-agent").arg("run");
        if let Some(key) = key {
            command.args(["--key", key]);
        }
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone()?)));
        command.stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs))).stderr(Stdio::null());
        // The std handle is dropped: PID 1 reaps every child itself.
        let started = command.spawn()?;
        let pid = i32::try_from(started.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the process id is out of range"))?;
        Ok((Self { id, socket: Some(ours), queue: WriteBuffer::default(), credit: SESSION_CREDIT }, pid))
    }

    pub(super) fn grant(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes as usize).min(2 * SESSION_CREDIT);
    }

    /// Queues bytes for the supervisor.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.socket.is_some() {
            self.queue.end().extend_from_slice(bytes);
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        if let Some(socket) = &self.socket
            && self.queue.flush(socket).is_err()
        {
            // It may still send output.
            self.queue.clear();
        }
    }

    pub(super) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn is_behind(&self) -> bool {
        self.queue.len() > BEHIND
    }

    pub(super) fn may_send(&self) -> bool {
        self.credit > 0
    }

    /// Reads the supervisor's output once, within the session's credit.
    pub(super) fn receive(&mut self, scratch: &mut [u8], out: &mut Vec<u8>) {
        let Some(socket) = &self.socket else { return };
        let room = scratch.len().min(self.credit);
        if room == 0 {
            return;
        }
        match rustix::io::read(socket, &mut scratch[..room]) {
            Ok(count @ 1..) => {
                self.credit -= count;
                Mux::Data(self.id, &scratch[..count]).encode(out);
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(0) | Err(_) => {
                self.socket = None;
                Mux::Close(self.id).encode(out);
            }
        }
    }
}
