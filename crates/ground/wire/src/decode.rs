//! Incremental decoding of frames from bytes.

use crate::MAX_PAYLOAD;

/// Bytes that are not a valid frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame kind is not valid in this direction.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The length exceeds [`MAX_PAYLOAD`].
    #[error("a frame announces {0} bytes, more than the {MAX_PAYLOAD} allowed")]
    TooLong(usize),
    /// The payload ends before its last field.
    #[error("the {0} frame ends early")]
    Short(&'static str),
    /// The payload continues after its last field.
    #[error("the {0} frame has {1} bytes too many")]
    Trailing(&'static str, usize),
    /// The value of a field is out of range.
    #[error("the {frame} frame has an invalid {field}")]
    Invalid {
        /// The frame.
        frame: &'static str,
        /// The field in it.
        field: &'static str,
    },
    /// The other end has another protocol version.
    #[error("the other end speaks protocol version {0}, this one {ours}", ours = crate::VERSION)]
    Version(u16),
    /// The other end is not an agent.
    #[error("the other end is not a postern agent (it began with {0:?})")]
    NotAnAgent(String),
}

const HEADER: usize = 5;

/// Consumed bytes that may stay at the front of the buffer. Small enough to stay in the processor's cache.
const TIDY: usize = 64 * 1024;

/// Collects bytes and returns whole frames. Holds at most one frame beyond the bytes pushed last.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Appends bytes as they came from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > TIDY {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame as its kind and payload, or `None` until more bytes are pushed.
    pub fn next_frame(&mut self) -> Result<Option<(u8, &[u8])>, WireError> {
        let rest = &self.buffer[self.start..];
        let Some((header, body)) = rest.split_at_checked(HEADER) else { return Ok(None) };
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length > MAX_PAYLOAD {
            return Err(WireError::TooLong(length));
        }
        if body.len() < length {
            return Ok(None);
        }
        let begin = self.start + HEADER;
        self.start = begin + length;
        Ok(Some((header[0], &self.buffer[begin..begin + length])))
    }

    /// Bytes that were pushed and are not yet part of a returned frame.
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

/// Appends one frame to `out`. Callers split data into at most [`crate::CHUNK`] bytes.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[kind, 0, 0, 0, 0]);
    let begin = out.len();
    payload(out);
    let length = u32::try_from(out.len() - begin).unwrap_or(u32::MAX);
    out[begin - 4..begin].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_decoded_however_the_bytes_are_split() {
        let mut bytes = Vec::new();
        for (kind, payload) in [(7_u8, b"abc".as_slice()), (8, b""), (9, &[0; 300])] {
            put_frame(&mut bytes, kind, |out| out.extend_from_slice(payload));
        }
        for size in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut kinds = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                while let Some((kind, payload)) = decoder.next_frame().unwrap() {
                    kinds.push((kind, payload.len()));
                }
            }
            assert_eq!(kinds, [(7, 3), (8, 0), (9, 300)]);
            assert!(decoder.pending().is_empty());
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_collected() {
        let mut decoder = Decoder::default();
        decoder.push(&[1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next_frame(), Err(WireError::TooLong(u32::MAX as usize)));
    }
}
