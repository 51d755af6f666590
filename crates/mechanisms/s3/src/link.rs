//! Frames to and from the client, as a task of its own runtime.

use bytes::Bytes;
use postern_wire::{Decoder, WireError};
use tokio::sync::mpsc;

/// Bytes collected before they are sent.
const FULL: usize = 64 * 1024;

/// Why an end stops before it has finished.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Nobody listens, or what is said makes no sense; whoever is there sees the stream end.
    Gone,
    /// Nothing more can be copied; to be told.
    Fatal(String),
}

impl From<WireError> for Ended {
    fn from(_: WireError) -> Self {
        Self::Gone
    }
}

impl From<crate::error::Trouble> for Ended {
    fn from(trouble: crate::error::Trouble) -> Self {
        Self::Fatal(trouble.message)
    }
}

/// Frames from the client.
pub(crate) struct Inbox(mpsc::Receiver<Bytes>);

impl Inbox {
    pub(crate) fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self(receiver)
    }

    /// Waits for more. May be dropped while it waits.
    pub(crate) async fn read(&mut self, decoder: &mut Decoder) -> Result<(), Ended> {
        let bytes = self.0.recv().await.ok_or(Ended::Gone)?;
        decoder.push(&bytes);
        Ok(())
    }

    /// Takes what is there already; whether there was anything.
    pub(crate) fn try_read(&mut self, decoder: &mut Decoder) -> bool {
        self.0.try_recv().map(|bytes| decoder.push(&bytes)).is_ok()
    }
}

/// Frames to the client.
pub(crate) struct Outbox {
    sender: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl Outbox {
    pub(crate) fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { sender, buffer: Vec::with_capacity(2 * FULL) }
    }

    /// Adds a frame; it is on its way at the latest with the next [`Self::flush`].
    pub(crate) async fn put(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), Ended> {
        encode(&mut self.buffer);
        if self.buffer.len() >= FULL { self.flush().await } else { Ok(()) }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), Ended> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::copy_from_slice(&self.buffer);
        self.buffer.clear();
        self.sender.send(bytes).await.map_err(|_| Ended::Gone)
    }
}
