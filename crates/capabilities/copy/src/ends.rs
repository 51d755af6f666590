//! The two ends of a copy, wherever they are.

use crate::error::CopyError;
use crate::pod::{News, Pod};
use crate::streams;
use bytes::Bytes;
use postern_exec::transport::{Incoming, Reader, Writer};
use postern_files::link::{Arrived, Incoming as Input, Outbox};
use postern_files::{destination, source};
use postern_kube::exec::{ExecReader, ExecWriter};
use postern_s3::Store;
use postern_wire::Decoder;
use postern_wire::copy::CopyRequest;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Where an end is.
pub enum End<'a> {
    /// This machine's files.
    Local,
    /// Our own stdin or stdout.
    Stream(streams::Stream),
    /// A container.
    Pod(Pod<'a>),
    /// A bucket.
    S3(Store),
}

impl End<'_> {
    /// For people.
    pub fn name(&self) -> String {
        match self {
            Self::Local => "this machine".to_owned(),
            Self::Stream(_) => "our own stream".to_owned(),
            Self::Pod(pod) => pod.name(),
            Self::S3(store) => store.name(),
        }
    }
}

/// Bytes from an end.
pub(crate) enum FromEnd {
    Exec(Box<ExecReader>),
    Thread(mpsc::Receiver<Bytes>),
    Plain(mpsc::Receiver<Result<Bytes, String>>),
}

impl FromEnd {
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

/// Bytes to an end.
pub(crate) enum ToEnd {
    Exec(Box<ExecWriter>),
    Thread(Option<mpsc::Sender<Bytes>>),
}

/// Bytes in one message to a pod, at most: with its headers it still fits what servers and runtimes copy at a time, 32 KiB
/// by 32 KiB.
const MESSAGE: usize = 7 * (postern_wire::CHUNK - 64);

impl ToEnd {
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

    /// The same, without waiting for long: behind a network that is gone, what was sent before stays where it is.
    pub(crate) async fn close_soon(&mut self) {
        let _ = tokio::time::timeout(GOODBYE, self.close()).await;
    }
}

/// An end that is being talked to.
pub(crate) struct Opened {
    pub(crate) from: FromEnd,
    pub(crate) to: ToEnd,
    /// What came with the hello and belongs to the copy.
    pub(crate) decoder: Decoder,
    pub(crate) thread: Option<JoinHandle<()>>,
    /// Where a translator stands before the end: the bytes that really went to the container since this was last looked at.
    /// Of the frames some are for the translator alone, as where it compares what is there already.
    pub(crate) said: Option<Arc<AtomicU64>>,
}

/// How long a goodbye may take where nobody takes it.
const GOODBYE: Duration = Duration::from_secs(2);

impl Opened {
    /// Tells an agent what is asked of it; a thread of ours knows.
    pub(crate) async fn ask(&mut self, ask: &CopyRequest) -> Result<(), String> {
        match &self.to {
            ToEnd::Thread(_) => Ok(()),
            ToEnd::Exec(_) => {
                let mut frame = Vec::new();
                ask.encode(&mut frame);
                self.to.send(&frame).await
            }
        }
    }

    /// How many bytes of frames count as sent: those that went on, where a translator says so.
    pub(crate) fn went(said: Option<&AtomicU64>, frames: usize) -> usize {
        said.map_or(frames, |said| usize::try_from(said.swap(0, Ordering::Relaxed)).unwrap_or(usize::MAX))
    }

    /// Ends the conversation, and waits for what is of this process.
    pub(crate) async fn close(mut self) {
        self.to.close_soon().await;
        drop(self.from);
        if let Some(thread) = self.thread {
            let _ = thread.await; // a panic there was told by the stream that ended
        }
    }
}

/// Starts an end on what it is asked.
pub(crate) async fn open(
    end: &End<'_>,
    ask: &CopyRequest,
    notify: &mut dyn FnMut(News),
) -> Result<Opened, CopyError> {
    match end {
        End::Local => {
            let ask = ask.clone();
            Ok(on_thread(move |mut input, out| {
                let decoder = Decoder::default();
                // What goes wrong there is in the frames, or is a stream that ended.
                let _ = match &ask {
                    CopyRequest::Send(spec) => source::send(spec, input, decoder, &out, None, || ()),
                    CopyRequest::Receive(spec) => destination::receive(spec, &mut input, decoder, &out, None),
                };
            }))
        }
        End::Stream(stream) => {
            let (stream, ask) = (stream.clone(), ask.clone());
            let opened = on_thread(move |input, out| streams::serve(&stream, &ask, input, &out));
            // It may be waiting in a read of our stdin.
            Ok(Opened { thread: None, ..opened })
        }
        End::S3(store) => {
            let (to, input) = mpsc::channel(16);
            let (output, from) = mpsc::channel(16);
            let store = store.clone();
            let task = match ask.clone() {
                CopyRequest::Send(spec) => tokio::spawn(store.send(spec, input, output)),
                CopyRequest::Receive(spec) => tokio::spawn(store.receive(spec, input, output)),
            };
            Ok(Opened {
                from: FromEnd::Thread(from),
                to: ToEnd::Thread(Some(to)),
                decoder: Decoder::default(),
                thread: Some(task),
                said: None,
            })
        }
        End::Pod(pod) => {
            let reached = pod.open(ask, notify).await;
            reached.map_err(|source| CopyError::Reach { place: end.name(), source })
        }
    }
}

fn on_thread(serve: impl FnOnce(Channel, Outbox) + Send + 'static) -> Opened {
    let (to, input) = mpsc::channel(16);
    let (output, from) = mpsc::channel(16);
    let handle = Handle::current();
    let thread = tokio::task::spawn_blocking(move || {
        serve(Channel { input, handle }, Outbox::new(Sender(output)));
    });
    Opened {
        from: FromEnd::Thread(from),
        to: ToEnd::Thread(Some(to)),
        decoder: Decoder::default(),
        thread: Some(thread),
        said: None,
    }
}

/// What a thread hears.
pub(crate) struct Channel {
    input: mpsc::Receiver<Bytes>,
    handle: Handle,
}

impl Input for Channel {
    fn read(&mut self, decoder: &mut Decoder, wait: Option<Duration>) -> io::Result<Arrived> {
        let got = match wait {
            None => self.input.blocking_recv(),
            Some(Duration::ZERO) => match self.input.try_recv() {
                Ok(bytes) => Some(bytes),
                Err(mpsc::error::TryRecvError::Empty) => return Ok(Arrived::Quiet),
                Err(mpsc::error::TryRecvError::Disconnected) => None,
            },
            Some(wait) => {
                let input = &mut self.input;
                match self.handle.block_on(async { tokio::time::timeout(wait, input.recv()).await }) {
                    Ok(got) => got,
                    Err(_) => return Ok(Arrived::Quiet),
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
