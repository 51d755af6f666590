//! Our own streams. Reading stdin and writing output block, so each has a thread; channels of a few chunks between
//! them and the session keep memory bounded and let a slow reader slow the far side down. The runs of a fan-out feed one
//! thread together, so that a thousand of them do not take two thousand.

use crate::error::ExecError;
use bytes::Bytes;
use postern_wire::{CHUNK, TerminalSize};
use std::io::{self, Read, Write};
use std::pin::Pin;
use tokio::sync::{mpsc, oneshot};

/// Chunks between a thread and the session.
const DEPTH: usize = 8;

/// Where a run's streams are connected.
pub struct Streams {
    /// Standard input for the command, or none at all.
    pub stdin: Option<Box<dyn Read + Send>>,
    /// Where its stdout goes; unbuffered.
    pub stdout: Output,
    /// Where its stderr goes; unbuffered.
    pub stderr: Output,
}

/// Where one output of a run goes.
pub enum Output {
    /// To this, by a thread of its own.
    Writer(Box<dyn Write + Send>),
    /// To whoever shows what several runs say.
    Feed(Box<dyn Feed>),
}

/// Takes the output of one of several runs.
pub trait Feed: Send + Sync {
    /// Takes a chunk; waits while those who show it are slow.
    fn give(&self, chunk: Bytes) -> Pin<Box<dyn Future<Output = Result<(), ExecError>> + Send + '_>>;
}

impl Output {
    /// By a thread of its own to `destination`.
    pub fn to(destination: impl Write + Send + 'static) -> Self {
        Self::Writer(Box::new(destination))
    }
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

/// A chunk of our stdin, or why there is no more of it: what cannot be read is no end.
pub(crate) type Chunk = io::Result<Bytes>;

/// Chunks of our stdin; ends with it. The thread is left behind when the run ends first: it waits in a read.
pub(crate) fn read_all(mut source: Box<dyn Read + Send>) -> mpsc::Receiver<Chunk> {
    let (sender, receiver) = mpsc::channel(DEPTH);
    std::thread::spawn(move || {
        let mut buffer = vec![0; STDIN_CHUNK];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.blocking_send(Ok(Bytes::copy_from_slice(&buffer[..count]))).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let _ = sender.blocking_send(Err(error)); // a run that has ended does not care
                    return;
                }
            }
        }
    });
    receiver
}

/// The next of these chunks; never comes where there is no stdin, or no more of it.
pub(crate) async fn next_chunk(input: &mut Option<mpsc::Receiver<Chunk>>) -> Option<Chunk> {
    match input {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// One of our outputs.
pub(crate) enum Sink {
    /// Nothing was written yet; most commands leave at least one output empty, and a thread takes its time.
    Idle(Box<dyn Write + Send>),
    Thread(Thread),
    Feed(Box<dyn Feed>),
    Finished,
}

/// A thread that writes, and how it ended.
pub(crate) struct Thread {
    chunks: mpsc::Sender<Bytes>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Sink {
    pub(crate) fn new(output: Output) -> Self {
        match output {
            Output::Writer(destination) => Self::Idle(destination),
            Output::Feed(feed) => Self::Feed(feed),
        }
    }

    /// Hands over a chunk; waits while the destination is slow.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), ExecError> {
        *self = match std::mem::replace(self, Self::Finished) {
            Self::Idle(destination) => Self::Thread(Thread::start(destination)),
            other => other,
        };
        let sent = match self {
            Self::Thread(thread) => thread.chunks.send(chunk).await.is_ok(),
            Self::Feed(feed) => return feed.give(chunk).await,
            Self::Idle(_) | Self::Finished => false,
        };
        if sent { Ok(()) } else { self.finish().await }
    }

    /// Waits until everything is written; what was fed is its taker's to write.
    pub(crate) async fn finish(&mut self) -> Result<(), ExecError> {
        match std::mem::replace(self, Self::Finished) {
            Self::Thread(Thread { chunks, done }) => {
                drop(chunks);
                match done.await {
                    Ok(result) => result.map_err(ExecError::Output),
                    Err(_) => Err(ExecError::Output(io::ErrorKind::BrokenPipe.into())),
                }
            }
            Self::Idle(_) | Self::Feed(_) | Self::Finished => Ok(()),
        }
    }
}

impl Thread {
    fn start(mut destination: Box<dyn Write + Send>) -> Self {
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
        Self { chunks, done }
    }
}
