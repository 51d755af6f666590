//! A connection whose client must say something soon: hyper's own time-out begins with the first byte. Or one that has said
//! something already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A connection that breaks when nothing comes for a while at its beginning.
pub(super) struct Patience<S> {
    stream: S,
    /// What was read before.
    said: Vec<u8>,
    /// Until the first byte.
    first: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    pub(super) fn new(stream: S, first: Duration) -> Self {
        Self { stream, said: Vec::new(), first: Some(Box::pin(tokio::time::sleep(first))) }
    }

    /// One of which this much was read already.
    pub(super) fn having_read(stream: S, said: Vec<u8>) -> Self {
        Self { stream, said, first: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.said.is_empty() {
            let count = self.said.len().min(buf.remaining());
            buf.put_slice(&self.said[..count]);
            self.said.drain(..count);
            if self.said.is_empty() {
                self.said = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Some(first) = &mut self.first else { return read };
        if read.is_ready() {
            self.first = None;
            return read;
        }
        first.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn what_was_read_before_is_read_again_first() {
        let (mut client, server) = tokio::io::duplex(16);
        client.write_all(b"lo").await.unwrap();
        drop(client);
        let mut server = Patience::having_read(server, b"hel".to_vec());
        assert_eq!(server.read_u8().await.unwrap(), b'h');
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"ello");
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_first_byte_is_waited_for() {
        let wait = Duration::from_secs(30);
        let (_client, server) = tokio::io::duplex(16);
        let error = Patience::new(server, wait).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (mut client, server) = tokio::io::duplex(16);
        let mut server = Patience::new(server, wait);
        client.write_all(b"a").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'a');
        // A stream may then be silent for as long as it likes.
        let later = tokio::time::timeout(wait * 10, server.read_u8()).await;
        assert!(later.is_err());
    }
}
