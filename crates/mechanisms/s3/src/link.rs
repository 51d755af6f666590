//! Frames to and from the client, for a task on its runtime.

use bytes::Bytes;
use postern_wire::{Decoder, WireError};
use tokio::sync::mpsc;

/// Bytes collected before they are sent.
const FULL: usize = 64 * 1024;

/// Why an end stops before it has finished.
#[derive(Debug)]
pub(crate) enum EndError {
    /// The client is gone, or a frame is invalid; the other side sees the stream end.
    Gone,
    /// Nothing more can be copied; the message is sent to the client.
    Fatal(String),
}

impl From<WireError> for EndError {
    fn from(_: WireError) -> Self {
        Self::Gone
    }
}

impl From<crate::error::RequestError> for EndError {
    fn from(error: crate::error::RequestError) -> Self {
        Self::Fatal(error.message)
    }
}

/// Frames from the client.
pub(crate) struct Inbox(mpsc::Receiver<Bytes>);

impl Inbox {
    pub(crate) fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self(receiver)
    }

    /// Waits for more frames. Cancel-safe.
    pub(crate) async fn read(&mut self, decoder: &mut Decoder) -> Result<(), EndError> {
        let bytes = self.0.recv().await.ok_or(EndError::Gone)?;
        decoder.push(&bytes);
        Ok(())
    }

    /// Reads what is available; returns whether there was anything.
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

    /// Appends a frame. It is sent with the next [`Self::flush`] at the latest.
    pub(crate) async fn put(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), EndError> {
        encode(&mut self.buffer);
        if self.buffer.len() >= FULL { self.flush().await } else { Ok(()) }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), EndError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::copy_from_slice(&self.buffer);
        self.buffer.clear();
        self.sender.send(bytes).await.map_err(|_| EndError::Gone)
    }
}
