//! The frames of SPDY/3.1 (draft-mbelshe-httpbis-spdy-00), as far as exec needs them.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The longest control frame that is accepted.
pub const LONGEST: usize = 64 * 1024;

/// The first bytes of a control frame: the control bit, and version 3.
const CONTROL: u16 = 0x8003;

pub(crate) const SYN_STREAM: u16 = 1;
pub(crate) const SYN_REPLY: u16 = 2;
pub(crate) const RST_STREAM: u16 = 3;
pub(crate) const PING: u16 = 6;

/// The flag of a stream's last frame.
pub(crate) const FIN: u8 = 1;

/// The peer violates the protocol.
#[derive(Debug, thiserror::Error)]
#[error("the server violates the SPDY protocol")]
pub struct ProtocolViolation;

/// Appends a control frame.
pub(crate) fn control(out: &mut BytesMut, kind: u16, payload: &[u8]) {
    out.put_u16(CONTROL);
    out.put_u16(kind);
    out.put_u32(u32::try_from(payload.len()).unwrap_or(0)); // no flags, and 24 bits of length
    out.extend_from_slice(payload);
}

/// Appends a frame of data.
pub(crate) fn data(out: &mut BytesMut, stream: u32, flags: u8, data: &[u8]) {
    out.put_u32(stream);
    out.put_u32(u32::from(flags) << 24 | u32::try_from(data.len()).unwrap_or(0));
    out.extend_from_slice(data);
}

/// The bytes that were read and not yet returned.
#[derive(Debug, Default)]
pub struct Frames {
    /// The buffer to which new bytes are appended.
    pub buffer: BytesMut,
    /// Stream and remaining bytes of the current data frame.
    data: Option<(u32, usize)>,
}

/// A piece of a stream, or of the connection.
#[derive(Debug)]
pub enum Piece {
    /// Bytes of a stream.
    Data(u32, Bytes),
    /// A stream was accepted.
    Reply,
    /// A stream was reset.
    Reset(u32),
    /// A ping, or the answer to one of ours.
    Ping(u32),
    /// A frame that exec ignores.
    Other,
}

impl Frames {
    /// Whether no frame is incomplete.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.data.is_none()
    }

    /// Returns the next piece, or `None` until more bytes are read. Data is returned as it arrives, whatever length
    /// its frame announces.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, ProtocolViolation> {
        if let Some((stream, left)) = self.data {
            let count = left.min(self.buffer.len());
            if count == 0 && left > 0 {
                return Ok(None);
            }
            self.data = (count < left).then_some((stream, left - count));
            return Ok(Some(Piece::Data(stream, self.buffer.split_to(count).freeze())));
        }
        let Some(header) = self.buffer.first_chunk::<8>() else { return Ok(None) };
        let mut fields = &header[..];
        let (first, rest) = (fields.get_u32(), fields.get_u32());
        let length = (rest & 0x00ff_ffff) as usize; // after 8 bits of flags
        if first >> 31 == 0 {
            self.buffer.advance(8);
            self.data = Some((first, length));
            return self.next_piece();
        }
        let [version, kind] = [first >> 16, first & 0xffff].map(|half| u16::try_from(half).unwrap_or(0));
        if version != CONTROL || length > LONGEST {
            return Err(ProtocolViolation);
        }
        if self.buffer.len() < 8 + length {
            return Ok(None);
        }
        let payload = self.buffer.split_to(8 + length).split_off(8).freeze();
        let number = || payload.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        Ok(Some(match kind {
            SYN_REPLY => Piece::Reply,
            RST_STREAM => Piece::Reset(number()),
            PING => Piece::Ping(number()),
            _ => Piece::Other, // connection frames, after which the connection ends
        }))
    }
}
