//! The client's own streams. Reading stdin and writing output block, so each has a thread. Channels of a few chunks
//! connect the threads to the session: they bound the memory, and a slow reader slows the pod down. The runs of a
//! fan-out share one thread, so a thousand runs do not need two thousand threads.

use crate::error::ExecError;
use bytes::Bytes;
use postern_wire::{CHUNK, TerminalSize};
use std::io::{self, Read, Write};
use std::pin::Pin;
use tokio::sync::{mpsc, oneshot};

/// Chunks between a thread and the session.
const DEPTH: usize = 8;

/// The local streams of a run.
pub struct Streams {
    /// Standard input for the command, if any.
    pub stdin: Option<Box<dyn Read + Send>>,
    /// The destination of stdout; unbuffered.
    pub stdout: Output,
    /// The destination of stderr; unbuffered.
    pub stderr: Output,
}

/// The destination of one output of a run.
pub enum Output {
    /// A writer, on a thread of its own.
    Writer(Box<dyn Write + Send>),
    /// The printer that several runs share.
    Feed(Box<dyn Feed>),
}

/// Accepts the output of one of several runs.
pub trait Feed: Send + Sync {
    /// Accepts a chunk; waits while the printer is slow.
    fn give(&self, chunk: Bytes) -> Pin<Box<dyn Future<Output = Result<(), ExecError>> + Send + '_>>;
}

impl Output {
    /// Writes to `destination` on a thread of its own.
    pub fn to(destination: impl Write + Send + 'static) -> Self {
        Self::Writer(Box::new(destination))
    }
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("stdin", &self.stdin.is_some()).finish_non_exhaustive()
    }
}

/// A user's action while a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Send this signal to the command.
    Signal(u8),
    /// End the command at once.
    Kill,
    /// The terminal now has this size.
    Resize(TerminalSize),
}

/// Bytes of stdin in a chunk. With the headers of its frame and its channel, a chunk still fits the 32 KiB that
/// servers and runtimes copy at once, so it needs one copy and not two.
const STDIN_CHUNK: usize = CHUNK - 64;

/// A chunk of stdin, or the error of the read. A read error is not an end of file.
pub(crate) type Chunk = io::Result<Bytes>;

/// Returns the chunks of `source` up to its end. If the run ends first, the thread stays behind: its read blocks.
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
                    let _ = sender.blocking_send(Err(error)); // fails only if the run has ended
                    return;
                }
            }
        }
    });
    receiver
}

/// Returns the next chunk. Never returns if there is no stdin, or after its end.
pub(crate) async fn next_chunk(input: &mut Option<mpsc::Receiver<Chunk>>) -> Option<Chunk> {
    match input {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// An output of the client.
pub(crate) enum Sink {
    /// Nothing was written yet. Most commands leave at least one output empty, and starting a thread takes time.
    Idle(Box<dyn Write + Send>),
    Thread(Thread),
    Feed(Box<dyn Feed>),
    Finished,
}

/// A thread that writes, and its result.
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

    /// Passes a chunk on; waits while the destination is slow.
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

    /// Waits until everything is written. The printer writes what went to a feed.
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
