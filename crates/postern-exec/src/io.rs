//! Our own streams. Reading stdin and writing output block, so each has a thread; channels of a few chunks between
//! them and the session keep memory bounded and let a slow reader slow the far side down.

use crate::error::ExecError;
use bytes::Bytes;
use postern_wire::{CHUNK, TerminalSize};
use std::io::{self, Read, Write};
use tokio::sync::{mpsc, oneshot};

/// Chunks between a thread and the session.
const DEPTH: usize = 8;

/// Where a run's streams are connected.
pub struct Streams {
    /// Standard input for the command, or none at all.
    pub stdin: Option<Box<dyn Read + Send>>,
    /// Where its stdout goes; unbuffered.
    pub stdout: Box<dyn Write + Send>,
    /// Where its stderr goes; unbuffered.
    pub stderr: Box<dyn Write + Send>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("stdin", &self.stdin.is_some()).finish_non_exhaustive()
    }
}

/// What the user does while a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Sends this signal to the command.
    Signal(u8),
    /// Ends it at once.
    Kill,
    /// The terminal has this size now.
    Resize(TerminalSize),
}

/// Bytes of stdin in a chunk: with its frame's and its channel's header it still fits the 32 KiB that servers and
/// runtimes copy at a time, and costs them one turn, not two.
const STDIN_CHUNK: usize = CHUNK - 64;

/// Chunks of our stdin; ends with it. The thread is left behind when the run ends first: it waits in a read.
pub(crate) fn read_all(mut source: Box<dyn Read + Send>) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(DEPTH);
    std::thread::spawn(move || {
        let mut buffer = vec![0; STDIN_CHUNK];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&buffer[..count])).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// One of our outputs.
pub(crate) struct Sink(State);

enum State {
    /// Nothing was written yet; most commands leave at least one output empty, and a thread takes its time.
    Idle(Box<dyn Write + Send>),
    Writing {
        chunks: mpsc::Sender<Bytes>,
        done: oneshot::Receiver<io::Result<()>>,
    },
    Finished,
}

impl Sink {
    pub(crate) fn new(destination: Box<dyn Write + Send>) -> Self {
        Self(State::Idle(destination))
    }

    /// Hands over a chunk; waits while the destination is slow.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), ExecError> {
        self.0 = match std::mem::replace(&mut self.0, State::Finished) {
            State::Idle(destination) => begin(destination),
            other => other,
        };
        let sent = match &self.0 {
            State::Writing { chunks, done: _ } => chunks.send(chunk).await.is_ok(),
            State::Idle(_) | State::Finished => false,
        };
        if sent { Ok(()) } else { self.finish().await }
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(&mut self) -> Result<(), ExecError> {
        match std::mem::replace(&mut self.0, State::Finished) {
            State::Idle(_) | State::Finished => Ok(()),
            State::Writing { chunks, done } => {
                drop(chunks);
                match done.await {
                    Ok(result) => result.map_err(ExecError::Output),
                    Err(_) => Err(ExecError::Output(io::ErrorKind::BrokenPipe.into())),
                }
            }
        }
    }
}

fn begin(mut destination: Box<dyn Write + Send>) -> State {
    let (chunks, mut receiver) = mpsc::channel::<Bytes>(DEPTH);
    let (sender, done) = oneshot::channel();
    std::thread::spawn(move || {
        let mut result = Ok(());
        while let Some(chunk) = receiver.blocking_recv() {
            result = destination.write_all(&chunk);
            if result.is_err() {
                break;
            }
        }
        let _ = sender.send(result.and_then(|()| destination.flush()));
    });
    State::Writing { chunks, done }
}
