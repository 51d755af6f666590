//! SPDY/3.1 as far as exec needs it: what every kubelet and runtime speak among themselves (moby/spdystream), so that API
//! server and kubelet pass its bytes on as they are. A WebSocket is translated on the way, by a kubelet from 1.36 on and
//! by the API server before: that takes a third of the time that bulk takes.
//!
//! Frames are those of draft-mbelshe-httpbis-spdy-00, streams those of `remotecommand` (`v4.channel.k8s.io`). Streams have
//! no flow control of their own here: spdystream neither sends nor heeds `WINDOW_UPDATE`.

use super::{ExecEvent, StreamBroke};
use crate::spdy::{FIN, Frames, LONGEST, Odd, PING, Piece, SYN_STREAM, control, data};
use bytes::{Buf as _, BytesMut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};

/// Bytes of data in one frame: what the runtime takes on at a time.
const FRAME: usize = 32 * 1024;

/// What begins a zlib stream (RFC 1950) that uses SPDY/3's dictionary, by the dictionary's Adler-32.
const ZLIB: [u8; 6] = [0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];

/// An empty stored block of deflate (RFC 1951), by which what came before it is complete.
const SYNC: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// Which stream has which number; 0 for one that there is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Numbers {
    status: u32,
    stdin: u32,
    stdout: u32,
    stderr: u32,
    resize: u32,
}

/// Server's pings that are not answered yet.
type Pongs = Arc<Mutex<Vec<u32>>>;

#[derive(Debug)]
pub(super) struct Reader<S> {
    half: ReadHalf<S>,
    numbers: Numbers,
    frames: Frames,
    /// The status, as far as it came.
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

/// Why no streams could be made.
#[derive(Debug)]
pub(super) enum Unopened {
    /// Whoever answers does not know them: nothing was started.
    Unknown,
    /// It broke when something may have been started.
    Broke(StreamBroke),
}

/// Makes the streams, and waits until the far side has them all: what comes before that is lost (spdystream).
pub(super) async fn open<S: AsyncRead + AsyncWrite>(
    connection: S,
    stdin: bool,
    tty: bool,
) -> Result<(Reader<S>, Writer<S>), Unopened> {
    let (read, write) = tokio::io::split(connection);
    let (numbers, count, out) = streams(stdin, tty);
    let pongs = Pongs::default();
    let mut writer = Writer { half: write, numbers, out, pings: 0, pongs: Arc::clone(&pongs) };
    let mut reader = Reader { half: read, numbers, frames: Frames::default(), status: Vec::new(), pongs };
    writer.flush().await.map_err(|_| Unopened::Unknown)?;
    let mut replies = 0;
    while replies < count {
        let broke = match reader.frames.next_piece() {
            Ok(Some(Piece::Data(..))) => StreamBroke("bytes came before its streams were made".to_owned()),
            Ok(Some(piece)) => {
                replies += u32::from(matches!(piece, Piece::Reply));
                continue;
            }
            Ok(None) => match reader.half.read_buf(&mut reader.frames.buffer).await {
                Ok(1..) => continue,
                Ok(_) => StreamBroke("it ended before it began".to_owned()),
                Err(error) => StreamBroke(error.to_string()),
            },
            Err(odd) => odd.into(),
        };
        return Err(if replies == 0 { Unopened::Unknown } else { Unopened::Broke(broke) });
    }
    Ok((reader, writer))
}

/// The streams of a command: their numbers, how many they are, and the frames that make them.
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
            *number = count * 2 + 1; // a client's are odd
            let mut pairs = 1_u32.to_be_bytes().to_vec();
            for text in ["streamtype", name] {
                pairs.extend(u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
                pairs.extend(text.as_bytes());
            }
            let length = u16::try_from(pairs.len()).unwrap_or(0);
            let mut payload = Vec::new();
            payload.extend(number.to_be_bytes());
            payload.extend([0; 6]); // of no other stream, in no order
            payload.extend(if count == 0 { ZLIB.as_slice() } else { &[] });
            payload.push(0); // a stored block, and not the last
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

impl From<Odd> for StreamBroke {
    fn from(odd: Odd) -> Self {
        Self(odd.to_string())
    }
}

impl<S: AsyncRead> Reader<S> {
    /// The next event; `None` when the connection was closed.
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
                    // A command that ended takes no more.
                    Piece::Reset(stream) if stream != stdin => {
                        return Err(StreamBroke("the server broke off one of its streams".to_owned()));
                    }
                    Piece::Data(..) | Piece::Reset(_) | Piece::Reply | Piece::Other => {}
                }
            }
            self.frames.buffer.reserve(2 * FRAME);
            match self.half.read_buf(&mut self.frames.buffer).await {
                Ok(1..) => {}
                Ok(_) if self.frames.is_empty() => return Ok(None),
                Ok(_) => return Err(StreamBroke("it ended in the middle of a frame".to_owned())),
                // Closed without a goodbye of TLS: whether all came is told by the status.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(StreamBroke(error.to_string())),
            }
        }
    }

    /// Takes bytes of the status; gives it when it is whole.
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
        // 0 is one that there is not.
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

    /// What was not written when a caller gave up is written before what comes next.
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
