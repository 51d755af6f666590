//! The channels to and from an open end of a copy.

use bytes::Bytes;
use postern_exec::transport::{Incoming, Reader, Writer};
use postern_files::link::{Arrived, Incoming as Input, Outbox};
use postern_kube::exec::{ExecReader, ExecWriter};
use postern_wire::Decoder;
use postern_wire::copy::CopyRequest;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long an agent may take to send its hello: the runtime starts one command of a container at a time, and
/// abandoned commands stay in its queue.
pub(crate) const HELLO: Duration = Duration::from_millis(postern_wire::FIRST_SILENCE_MS);

/// Input from an end.
pub(crate) enum EndReader {
    Exec(Box<ExecReader>),
    Thread(mpsc::Receiver<Bytes>),
    Plain(mpsc::Receiver<Result<Bytes, String>>),
}

impl EndReader {
    pub(crate) async fn next(&mut self) -> Incoming {
        match self {
            Self::Exec(reader) => Reader::next(&mut **reader).await,
            Self::Thread(receiver) => match receiver.recv().await {
                Some(bytes) => Incoming::Bytes(bytes),
                None => Incoming::Ended("it ended".to_owned()),
            },
            Self::Plain(receiver) => match receiver.recv().await {
                Some(Ok(bytes)) => Incoming::Bytes(bytes),
                Some(Err(why)) => Incoming::Ended(why),
                None => Incoming::Ended("it ended".to_owned()),
            },
        }
    }
}

/// Output to an end.
pub(crate) enum EndWriter {
    Exec(Box<ExecWriter>),
    Thread(Option<mpsc::Sender<Bytes>>),
}

/// Maximum bytes per message to a pod: with its headers, a message still fits the 32 KiB blocks in which
/// servers and runtimes copy.
const MESSAGE: usize = 7 * (postern_wire::CHUNK - 64);

impl EndWriter {
    pub(crate) async fn send(&mut self, frames: &[u8]) -> Result<(), String> {
        match self {
            Self::Exec(writer) => {
                for message in frames.chunks(MESSAGE) {
                    Writer::send(&mut **writer, message).await?;
                }
                Ok(())
            }
            Self::Thread(Some(sender)) => {
                sender.send(Bytes::copy_from_slice(frames)).await.map_err(|_| "it ended".to_owned())
            }
            Self::Thread(None) => Err("closed".to_owned()),
        }
    }

    pub(crate) async fn close(&mut self) {
        match self {
            Self::Exec(writer) => Writer::close(&mut **writer).await,
            Self::Thread(sender) => *sender = None,
        }
    }

    /// Closes without waiting long: if the network is gone, pending data is never sent.
    pub(crate) async fn close_with_timeout(&mut self) {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.close()).await;
    }
}

/// An open end.
pub(crate) struct OpenEnd {
    pub(crate) from: EndReader,
    pub(crate) to: EndWriter,
    /// Contains bytes received after the hello that belong to the copy.
    pub(crate) decoder: Decoder,
    pub(crate) thread: Option<JoinHandle<()>>,
    /// Bytes that a translator sent to the container since the last read. Not all frames reach the container:
    /// some are only for the translator, for example content that it compares with what is already there.
    pub(crate) sent: Option<Arc<AtomicU64>>,
}

/// How long closing may take if nothing reads.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

impl OpenEnd {
    /// Sends the request to an agent. A local thread already has it.
    pub(crate) async fn send_request(&mut self, request: &CopyRequest) -> Result<(), String> {
        match &self.to {
            EndWriter::Thread(_) => Ok(()),
            EndWriter::Exec(_) => {
                let mut frame = Vec::new();
                request.encode(&mut frame);
                self.to.send(&frame).await
            }
        }
    }

    /// How many bytes of frames count as sent: those that a translator sent, if there is one.
    pub(crate) fn sent_bytes(sent: Option<&AtomicU64>, frames: usize) -> usize {
        sent.map_or(frames, |sent| usize::try_from(sent.swap(0, Ordering::Relaxed)).unwrap_or(usize::MAX))
    }

    /// Closes the end, and waits for its local task.
    pub(crate) async fn close(mut self) {
        self.to.close_with_timeout().await;
        drop(self.from);
        if let Some(thread) = self.thread {
            let _ = thread.await; // after a panic, the stream has ended
        }
    }
}

/// Serves an end on a thread of its own.
pub(crate) fn spawn_thread(serve: impl FnOnce(ThreadInput, Outbox) + Send + 'static) -> OpenEnd {
    let (to, input) = mpsc::channel(16);
    let (output, from) = mpsc::channel(16);
    let handle = Handle::current();
    let thread = tokio::task::spawn_blocking(move || {
        serve(ThreadInput { input, handle }, Outbox::new(Sender(output)));
    });
    OpenEnd {
        from: EndReader::Thread(from),
        to: EndWriter::Thread(Some(to)),
        decoder: Decoder::default(),
        thread: Some(thread),
        sent: None,
    }
}

/// Input for an end on a thread.
pub(crate) struct ThreadInput {
    input: mpsc::Receiver<Bytes>,
    handle: Handle,
}

impl Input for ThreadInput {
    fn read(&mut self, decoder: &mut Decoder, wait: Option<Duration>) -> io::Result<Arrived> {
        let got = match wait {
            None => self.input.blocking_recv(),
            Some(Duration::ZERO) => match self.input.try_recv() {
                Ok(bytes) => Some(bytes),
                Err(mpsc::error::TryRecvError::Empty) => return Ok(Arrived::TimedOut),
                Err(mpsc::error::TryRecvError::Disconnected) => None,
            },
            Some(wait) => {
                let input = &mut self.input;
                match self.handle.block_on(async { tokio::time::timeout(wait, input.recv()).await }) {
                    Ok(got) => got,
                    Err(_) => return Ok(Arrived::TimedOut),
                }
            }
        };
        Ok(match got {
            Some(bytes) => {
                decoder.push(&bytes);
                Arrived::Bytes
            }
            None => Arrived::Ended,
        })
    }
}

struct Sender(mpsc::Sender<Bytes>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
