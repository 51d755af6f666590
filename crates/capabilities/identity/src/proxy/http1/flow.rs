//! Bytes that pass. What waits for a peer holds no buffer: a thread has one, and what cannot be passed on at once is kept.

use super::framing::{Framing, chunk};
use super::pool::Upstream;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most of a client that is read while it waits for an answer, its request included, in bytes; what follows waits in its
/// socket.
const MOST_AHEAD: usize = 128 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// Who ended it.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client is gone: nobody is there to be told.
    Client,
    /// The API's connection broke.
    Api(io::Error),
}

/// Reads what is there, and gives it to `with`.
fn poll_read<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    cx: &mut Context<'_>,
    with: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        Poll::Ready(Ok(with(read.filled())))
    })
}

fn append(all: &mut Vec<u8>) -> impl FnOnce(&[u8]) -> usize {
    |read| {
        all.extend_from_slice(read);
        read.len()
    }
}

/// Reads more; how much it was, and 0 at the end.
pub(super) async fn more<S: AsyncRead + Unpin>(stream: &mut S, all: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| poll_read(stream, cx, append(all))).await
}

/// What a client says, or that it goes, while it waits for an answer.
fn poll_client<C: AsyncRead + Unpin, T>(
    client: &mut C,
    cx: &mut Context<'_>,
    ahead: &mut Vec<u8>,
) -> Poll<Result<T, Gone>> {
    while ahead.len() < MOST_AHEAD {
        match poll_read(client, cx, append(ahead)) {
            Poll::Pending => break,
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Gone)),
        }
    }
    Poll::Pending
}

/// The client is gone: nobody is there to be told.
#[derive(Debug)]
pub(super) struct Gone;

/// Waits for something, as long as the client is there.
pub(super) async fn meanwhile<C: AsyncRead + Unpin, F: Future + Unpin>(
    client: &mut C,
    ahead: &mut Vec<u8>,
    mut what: F,
) -> Result<F::Output, Gone> {
    poll_fn(|cx| match Pin::new(&mut what).poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => poll_client(client, cx, ahead),
    })
    .await
}

/// Reads more of an API's answer, as long as the client is there.
pub(super) async fn more_of_answer<C: AsyncRead + Unpin>(
    client: &mut C,
    ahead: &mut Vec<u8>,
    api: &mut Upstream,
    all: &mut Vec<u8>,
) -> Result<usize, Ended> {
    poll_fn(|cx| match poll_read(api, cx, append(all)) {
        Poll::Ready(read) => Poll::Ready(read.map_err(Ended::Api)),
        Poll::Pending => poll_client(client, cx, ahead).map_err(|Gone| Ended::Client),
    })
    .await
}

/// Takes what was read to what waits for the client: how much was read, and how much of it is the body's.
fn take(bytes: &[u8], framing: &mut Framing, waiting: &mut Vec<u8>) -> io::Result<(usize, usize)> {
    let broken = |_| io::Error::new(io::ErrorKind::InvalidData, "its chunks are none");
    let own = framing.advance(bytes).map_err(broken)?;
    match framing {
        // By an empty chunk the client knows that it has all.
        Framing::UntilClose => chunk(waiting, bytes),
        Framing::Length(_) | Framing::Chunked(_) if bytes.is_empty() => {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Framing::Length(_) | Framing::Chunked(_) => waiting.extend_from_slice(&bytes[..own]),
    }
    Ok((bytes.len(), own))
}

/// Passes the rest of a body on as it comes; whether nothing followed it.
pub(super) async fn pass<C: AsyncRead + AsyncWrite + Unpin>(
    client: &mut C,
    ahead: &mut Vec<u8>,
    api: &mut Upstream,
    framing: &mut Framing,
) -> Result<bool, Ended> {
    let (mut waiting, mut written, mut over, mut alone) = (Vec::new(), 0, framing.is_done(), true);
    poll_fn(|cx| {
        loop {
            while written < waiting.len() {
                match ready!(Pin::new(&mut *client).poll_write(cx, &waiting[written..])) {
                    Ok(count @ 1..) => written += count,
                    Ok(0) | Err(_) => return Poll::Ready(Err(Ended::Client)),
                }
            }
            (waiting, written) = (Vec::new(), 0);
            if over || framing.is_done() {
                return Poll::Ready(Ok(alone));
            }
            let read = poll_read(api, cx, |bytes| take(bytes, framing, &mut waiting));
            match read {
                Poll::Ready(Ok(Ok((read, own)))) => (over, alone) = (read == 0, read == own),
                Poll::Ready(Ok(Err(error)) | Err(error)) => return Poll::Ready(Err(Ended::Api(error))),
                Poll::Pending => return poll_client(client, cx, ahead).map_err(|Gone| Ended::Client),
            }
        }
    })
    .await
}
