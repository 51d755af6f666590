//! Frames to and from the other end, with heartbeats while idle.

use postern_wire::{Decoder, WireError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Bytes collected before they are written.
const FULL: usize = 256 * 1024;

/// The other end sent an invalid message or is gone.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The stream ended or broke.
    #[error("the other end is gone: {0}")]
    Lost(String),
    /// It sent an invalid frame.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It sent a frame at the wrong time.
    #[error("the other end violated the protocol: {0}")]
    Protocol(&'static str),
}

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// Bytes were pushed into the decoder.
    Bytes,
    /// Nothing arrived in time.
    TimedOut,
    /// The stream ended.
    Ended,
}

/// Input from the other end.
pub trait Incoming: Send {
    /// Pushes available bytes into the decoder. Waits at most this long for them; without a limit,
    /// indefinitely.
    fn read(&mut self, decoder: &mut Decoder, wait: Option<Duration>) -> io::Result<Arrived>;
}

/// Reads from a pipe, a socket or anything else that supports poll(2).
#[derive(Debug)]
pub struct Descriptor<F> {
    file: F,
    buffer: Vec<u8>,
}

impl<F: AsFd> Descriptor<F> {
    /// Reads from this descriptor.
    pub fn new(file: F) -> Self {
        Self { file, buffer: vec![0; 128 * 1024] }
    }
}

impl<F: AsFd + Send> Incoming for Descriptor<F> {
    fn read(&mut self, decoder: &mut Decoder, wait: Option<Duration>) -> io::Result<Arrived> {
        let limit = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        loop {
            let mut watched = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut watched, limit.as_ref()) {
                Ok(0) => return Ok(Arrived::TimedOut),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            return match rustix::io::read(&self.file, &mut self.buffer) {
                Ok(0) => Ok(Arrived::Ended),
                Ok(count) => {
                    decoder.push(&self.buffer[..count]);
                    Ok(Arrived::Bytes)
                }
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

struct State {
    buffer: Vec<u8>,
    sink: Box<dyn Write + Send>,
    spoke: bool,
}

impl State {
    fn flush(&mut self) -> Result<(), LinkError> {
        if !self.buffer.is_empty() {
            let written = self.sink.write_all(&self.buffer).and_then(|()| self.sink.flush());
            self.buffer.clear();
            self.spoke = true;
            written.map_err(|error| LinkError::Lost(error.to_string()))?;
        }
        Ok(())
    }
}

/// Sends frames to the other end; clones share one stream.
#[derive(Clone)]
pub struct Outbox(Arc<Mutex<State>>);

impl std::fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Outbox")
    }
}

impl Outbox {
    /// Sends frames to this sink, which may block.
    pub fn new(sink: impl Write + Send + 'static) -> Self {
        let buffer = Vec::with_capacity(2 * FULL);
        Self(Arc::new(Mutex::new(State { buffer, sink: Box::new(sink), spoke: false })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a frame. It is sent with the next [`Self::flush`] at the latest.
    pub fn put(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), LinkError> {
        let mut state = self.lock();
        encode(&mut state.buffer);
        if state.buffer.len() >= FULL { state.flush() } else { Ok(()) }
    }

    /// Sends the collected frames.
    pub fn flush(&self) -> Result<(), LinkError> {
        self.lock().flush()
    }

    /// Sends `heartbeat` whenever nothing else was sent for this long, until the last clone is dropped.
    pub fn keep_alive(&self, heartbeat: impl Fn(&mut Vec<u8>) + Send + 'static, every: Duration) {
        let shared: Weak<Mutex<State>> = Arc::downgrade(&self.0);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(every);
                let Some(shared) = shared.upgrade() else { return };
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if !std::mem::take(&mut state.spoke) {
                    heartbeat(&mut state.buffer);
                    if state.flush().is_err() {
                        return;
                    }
                    state.spoke = false;
                }
            }
        });
    }
}
