//! Multiplexes several runs on one authenticated connection. Each run is a numbered session and uses the same
//! frames as an exec.
//!
//! The client opens sessions with increasing numbers. The agent may send only as much as a session has credit
//! for, so a slow reader stops its own command and no other. What the client sends is bounded by the stdin
//! window of the frames.

use crate::WireError;
use crate::decode::put_frame;
use crate::fields::Fields;

mod kind {
    pub(super) const OPEN: u8 = 128;
    pub(super) const DATA: u8 = 129;
    pub(super) const CREDIT: u8 = 130;
    pub(super) const CLOSE: u8 = 131;
}

/// Bytes that the agent may send in a session before the client grants more.
pub const SESSION_CREDIT: usize = 512 * 1024;

/// A message of either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mux<'a> {
    /// Opens a session. Client only.
    Open(u32),
    /// Bytes of a session: frames, split at arbitrary positions.
    Data(u32, &'a [u8]),
    /// The agent may send this many more bytes in the session. Client only.
    Credit(u32, u32),
    /// Ends the session. From the client, it means that the client has gone.
    Close(u32),
}

impl<'a> Mux<'a> {
    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Open(session) => put_frame(out, kind::OPEN, |out| out.extend(session.to_be_bytes())),
            Self::Data(session, bytes) => put_frame(out, kind::DATA, |out| {
                out.extend(session.to_be_bytes());
                out.extend_from_slice(bytes);
            }),
            Self::Credit(session, bytes) => put_frame(out, kind::CREDIT, |out| {
                out.extend(session.to_be_bytes());
                out.extend(bytes.to_be_bytes());
            }),
            Self::Close(session) => put_frame(out, kind::CLOSE, |out| out.extend(session.to_be_bytes())),
        }
    }

    /// Decodes a message from its kind and payload.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new("session", payload);
        let session = fields.u32()?;
        let message = match kind {
            kind::OPEN => Self::Open(session),
            kind::DATA => return Ok(Self::Data(session, &payload[4..])),
            kind::CREDIT => Self::Credit(session, fields.u32()?),
            kind::CLOSE => Self::Close(session),
            other => return Err(WireError::UnknownKind(other)),
        };
        fields.end()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decoder;

    #[test]
    fn messages_round_trip() {
        let messages =
            [Mux::Open(1), Mux::Data(2, b"abc"), Mux::Data(3, b""), Mux::Credit(4, 5), Mux::Close(u32::MAX)];
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        for message in messages {
            let (kind, payload) = decoder.next_frame().unwrap().unwrap();
            assert_eq!(Mux::decode(kind, payload).unwrap(), message);
        }
        assert!(decoder.next_frame().unwrap().is_none());
    }

    #[test]
    fn short_long_and_unknown_messages_are_refused() {
        assert!(Mux::decode(kind::DATA, b"abc").is_err());
        assert!(Mux::decode(kind::OPEN, b"abcde").is_err());
        assert!(Mux::decode(kind::CREDIT, b"abcde").is_err());
        assert_eq!(Mux::decode(1, b"abcd"), Err(WireError::UnknownKind(1)));
    }
}
