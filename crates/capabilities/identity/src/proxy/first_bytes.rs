//! Detects the version of HTTP from the first bytes of a connection, without consuming them.
//!
//! hyper can detect it too, but it reads the first bytes into a separate buffer, and each HTTP/1.1 connection then
//! keeps 16 KiB instead of 8.

use rustix::net::{RecvFlags, recv};
use std::io;
use std::os::fd::AsFd;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// The first bytes of HTTP/2 (RFC 9113 section 3.4). No method of HTTP/1.1 begins with them.
const HTTP2: &[u8] = b"PRI";

/// The beginning of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// A request with HTTP/1.1.
    Http1,
    /// HTTP/2, or too few bytes to decide.
    Unclear,
}

/// A connection whose next bytes can be peeked at.
pub(super) trait Peek {
    /// Waits for bytes and copies them without consuming them; returns 0 at the connection's end.
    fn peek_into(&self, bytes: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
}

impl Peek for TcpStream {
    async fn peek_into(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.peek(bytes).await
    }
}

impl Peek for UnixStream {
    async fn peek_into(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.async_io(Interest::READABLE, || Ok(recv(self.as_fd(), &mut *bytes, RecvFlags::PEEK)?.0)).await
    }
}

/// Waits for the first bytes of a connection. Returns `None` if it ends before.
pub(super) async fn look(stream: &impl Peek) -> Option<Beginning> {
    let mut bytes = [0; HTTP2.len()];
    let count = stream.peek_into(&mut bytes).await.ok().filter(|count| *count > 0)?;
    let is_http1 = !HTTP2.starts_with(&bytes[..count]);
    Some(if is_http1 { Beginning::Http1 } else { Beginning::Unclear })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn the_first_bytes_tell_the_version_and_stay_unread() {
        for (sent, want) in [
            ("GET / HTTP/1.1\r\n", Some(Beginning::Http1)),
            ("PUT / HTTP/1.1\r\n", Some(Beginning::Http1)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Beginning::Unclear)),
            ("P", Some(Beginning::Unclear)),
            ("", None),
        ] {
            let (mut client, mut server) = UnixStream::pair().unwrap();
            client.write_all(sent.as_bytes()).await.unwrap();
            drop(client);
            assert_eq!(look(&server).await, want, "{sent}");
            let mut read = String::new();
            server.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, sent);
        }
    }
}
