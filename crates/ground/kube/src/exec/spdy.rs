//! SPDY/3.1 as far as exec needs it. Every kubelet and runtime uses it internally (moby/spdystream), so the API
//! server and the kubelet forward its bytes unchanged. A WebSocket is translated on the path, by the kubelet from
//! 1.36 on and by the API server before: that takes a third of the time of bulk data.
//!
//! The frames are those of draft-mbelshe-httpbis-spdy-00, the streams those of `remotecommand` (`v4.channel.k8s.io`).
//! These streams have no flow control: spdystream neither sends nor respects `WINDOW_UPDATE`.

use super::{ExecEvent, StreamBroke};
use crate::spdy::{FIN, Frames, LONGEST, PING, Piece, ProtocolViolation, SYN_STREAM, control, data};
use bytes::{Buf as _, BytesMut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};

/// Bytes of data in one frame: what the runtime processes at once.
const FRAME: usize = 32 * 1024;

/// The first bytes of a zlib stream (RFC 1950) that uses SPDY/3's dictionary, identified by its Adler-32.
const ZLIB: [u8; 6] = [0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];

/// An empty stored block of deflate (RFC 1951), which completes the data before it.
const SYNC: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// The number of each stream; 0 if there is no such stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Numbers {
    status: u32,
    stdin: u32,
    stdout: u32,
    stderr: u32,
    resize: u32,
}

/// The server's pings that are not answered yet.
type Pongs = Arc<Mutex<Vec<u32>>>;

#[derive(Debug)]
pub(super) struct Reader<S> {
    half: ReadHalf<S>,
    numbers: Numbers,
    frames: Frames,
    /// The part of the status that has arrived.
    status: Vec<u8>,
    pongs: Pongs,
}

#[derive(Debug)]
pub(super) struct Writer<S> {
    half: WriteHalf<S>,
    numbers: Numbers,
    out: BytesMut,
    pings: u32,
    pongs: Pongs,
}

/// Why no streams could be created.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The peer does not support them: nothing was started.
    Unknown,
    /// The stream broke after something may have been started.
    Broke(StreamBroke),
}

/// Creates the streams, and waits until the server has accepted all of them: spdystream discards data that arrives
/// before.
pub(super) async fn open<S: AsyncRead + AsyncWrite>(
    connection: S,
    stdin: bool,
    tty: bool,
) -> Result<(Reader<S>, Writer<S>), OpenError> {
    let (read, write) = tokio::io::split(connection);
    let (numbers, count, out) = streams(stdin, tty);
    let pongs = Pongs::default();
    let mut writer = Writer { half: write, numbers, out, pings: 0, pongs: Arc::clone(&pongs) };
    let mut reader = Reader { half: read, numbers, frames: Frames::default(), status: Vec::new(), pongs };
    writer.flush().await.map_err(|_| OpenError::Unknown)?;
    let mut replies = 0;
    while replies < count {
        let broke = match reader.frames.next_piece() {
            Ok(Some(Piece::Data(..))) => {
                StreamBroke("data arrived before its streams were created".to_owned())
            }
            Ok(Some(piece)) => {
                replies += u32::from(matches!(piece, Piece::Reply));
                continue;
            }
            Ok(None) => match reader.half.read_buf(&mut reader.frames.buffer).await {
                Ok(1..) => continue,
                Ok(_) => StreamBroke("it ended before its streams were created".to_owned()),
                Err(error) => StreamBroke(error.to_string()),
            },
            Err(violation) => violation.into(),
        };
        return Err(if replies == 0 { OpenError::Unknown } else { OpenError::Broke(broke) });
    }
    Ok((reader, writer))
}

/// Returns the streams of a command: their numbers, their count, and the frames that create them.
fn streams(stdin: bool, tty: bool) -> (Numbers, u32, BytesMut) {
    let (mut out, mut numbers, mut count) = (BytesMut::new(), Numbers::default(), 0);
    for (wanted, name, number) in [
        (true, "error", &mut numbers.status),
        (stdin, "stdin", &mut numbers.stdin),
        (true, "stdout", &mut numbers.stdout),
        (!tty, "stderr", &mut numbers.stderr),
        (tty, "resize", &mut numbers.resize),
    ] {
        if wanted {
            *number = count * 2 + 1; // a client's numbers are violation
            let mut pairs = 1_u32.to_be_bytes().to_vec();
            for text in ["streamtype", name] {
                pairs.extend(u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
                pairs.extend(text.as_bytes());
            }
            let length = u16::try_from(pairs.len()).unwrap_or(0);
            let mut payload = Vec::new();
            payload.extend(number.to_be_bytes());
            payload.extend([0; 6]); // no associated stream, no priority
            payload.extend(if count == 0 { ZLIB.as_slice() } else { &[] });
            payload.push(0); // a stored block that is not the last
            payload.extend(length.to_le_bytes());
            payload.extend((!length).to_le_bytes());
            payload.extend(pairs);
            payload.extend(SYNC);
            control(&mut out, SYN_STREAM, &payload);
            count += 1;
        }
    }
    (numbers, count, out)
}

impl From<ProtocolViolation> for StreamBroke {
    fn from(violation: ProtocolViolation) -> Self {
        Self(violation.to_string())
    }
}

impl<S: AsyncRead> Reader<S> {
    /// Returns the next event; `None` after the connection was closed.
    pub(super) async fn next(&mut self) -> Result<Option<ExecEvent>, StreamBroke> {
        let Numbers { status, stdin, stdout, stderr, resize: _ } = self.numbers;
        loop {
            while let Some(piece) = self.frames.next_piece()? {
                match piece {
                    Piece::Data(_, bytes) if bytes.is_empty() => {}
                    Piece::Data(stream, bytes) if stream == stdout => {
                        return Ok(Some(ExecEvent::Stdout(bytes)));
                    }
                    Piece::Data(stream, bytes) if stream == stderr => {
                        return Ok(Some(ExecEvent::Stderr(bytes)));
                    }
                    Piece::Data(stream, bytes) if stream == status => {
                        if let Some(end) = self.status(&bytes)? {
                            return Ok(Some(end));
                        }
                    }
                    Piece::Ping(number) if number % 2 == 1 => return Ok(Some(ExecEvent::Alive)),
                    Piece::Ping(number) => {
                        let mut pongs = self.pongs.lock().unwrap_or_else(PoisonError::into_inner);
                        if pongs.len() < 100 {
                            pongs.push(number);
                        }
                    }
                    // A command that has ended accepts no more stdin.
                    Piece::Reset(stream) if stream != stdin => {
                        return Err(StreamBroke("the server reset one of its streams".to_owned()));
                    }
                    Piece::Data(..) | Piece::Reset(_) | Piece::Reply | Piece::Other => {}
                }
            }
            self.frames.buffer.reserve(2 * FRAME);
            match self.half.read_buf(&mut self.frames.buffer).await {
                Ok(1..) => {}
                Ok(_) if self.frames.is_empty() => return Ok(None),
                Ok(_) => return Err(StreamBroke("it ended in the middle of a frame".to_owned())),
                // Closed without a TLS close_notify: the status shows whether everything arrived.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(StreamBroke(error.to_string())),
            }
        }
    }

    /// Adds bytes of the status; returns it when it is complete.
    fn status(&mut self, bytes: &[u8]) -> Result<Option<ExecEvent>, StreamBroke> {
        self.status.extend_from_slice(bytes);
        match serde_json::from_slice::<Status>(&self.status) {
            Ok(status) => {
                self.status.clear();
                Ok(Some(ExecEvent::End(super::end(&status))))
            }
            Err(error) if error.is_eof() && self.status.len() <= LONGEST => Ok(None),
            Err(error) => Err(StreamBroke(format!("its status cannot be read: {error}"))),
        }
    }
}

impl<S: AsyncWrite> Writer<S> {
    /// Sends bytes of stdin.
    pub(super) async fn stdin(&mut self, data: &[u8]) -> Result<(), StreamBroke> {
        for piece in data.chunks(FRAME) {
            self.data(self.numbers.stdin, 0, piece);
        }
        self.send().await
    }

    pub(super) async fn end_stdin(&mut self) -> Result<(), StreamBroke> {
        self.data(self.numbers.stdin, FIN, &[]);
        self.send().await
    }

    pub(super) async fn resize(&mut self, size: &[u8]) -> Result<(), StreamBroke> {
        self.data(self.numbers.resize, 0, size);
        self.send().await
    }

    pub(super) async fn ping(&mut self) -> Result<(), StreamBroke> {
        self.pings = self.pings.wrapping_add(2) | 1;
        control(&mut self.out, PING, &self.pings.to_be_bytes());
        self.send().await
    }

    pub(super) async fn close(&mut self) {
        let _ = self.half.shutdown().await;
    }

    fn data(&mut self, stream: u32, flags: u8, bytes: &[u8]) {
        // 0 means that there is no such stream.
        if stream != 0 {
            data(&mut self.out, stream, flags, bytes);
        }
    }

    async fn send(&mut self) -> Result<(), StreamBroke> {
        let pongs = std::mem::take(&mut *self.pongs.lock().unwrap_or_else(PoisonError::into_inner));
        for number in pongs {
            control(&mut self.out, PING, &number.to_be_bytes());
        }
        self.flush().await.map_err(|error| StreamBroke(error.to_string()))
    }

    /// Data that an abandoned call did not write is written before new data.
    async fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.half.write(&self.out).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => self.out.advance(count),
            }
        }
        self.half.flush().await
    }
}

#[cfg(test)]
mod tests;
