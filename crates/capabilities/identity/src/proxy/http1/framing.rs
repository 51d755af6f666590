//! Where a body ends (RFC 9112 sections 6 and 7).

/// The most bytes of chunk extensions, and of trailers, that an answer may have.
const MOST_ASIDE: usize = 16 * 1024;

/// How the rest of a body is told from what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, which are passed on as they are.
    Chunked(Chunks),
    /// All until the connection is closed.
    UntilClose,
}

/// Chunks that cannot be told apart: what would follow might be taken for another answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad;

impl Framing {
    /// How many of these bytes are the body's, its framing included.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, Bad> {
        match self {
            Self::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                Ok(count)
            }
            Self::Chunked(chunks) => chunks.advance(bytes),
            Self::UntilClose => Ok(bytes.len()),
        }
    }

    /// Whether all of it has come.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.at == At::End,
            Self::UntilClose => false,
        }
    }
}

/// Where in the chunks we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunks {
    at: At,
    /// Bytes of extensions and trailers so far.
    aside: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In the size, with so many digits.
    Size(u64, u8),
    /// In spaces behind it.
    Blank(u64),
    /// In what follows the size.
    Extension(u64),
    /// Before the newline that ends the size's line.
    SizeEnd(u64),
    /// In the data, of which so much is to come.
    Data(u64),
    /// Before the two bytes that end the data.
    DataEnd(u8),
    /// At the beginning of a line of the trailer.
    Line,
    /// Within it.
    Trailer,
    /// Before its newline.
    TrailerEnd,
    /// Before the last newline of all.
    LastEnd,
    /// Behind it.
    End,
}

impl Chunks {
    pub(super) const fn new() -> Self {
        Self { at: At::Size(0, 0), aside: 0 }
    }

    fn advance(&mut self, bytes: &[u8]) -> Result<usize, Bad> {
        let mut done = 0;
        while let Some(byte) = bytes.get(done) {
            self.at = match (self.at, byte) {
                (At::End, _) => break,
                (At::Data(left), _) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - done);
                    done += count;
                    let left = left - count as u64;
                    self.at = if left == 0 { At::DataEnd(2) } else { At::Data(left) };
                    continue;
                }
                // Fifteen digits are a thousand million gigabytes.
                (At::Size(size, digits @ 0..15), byte) if byte.is_ascii_hexdigit() => {
                    let digit = char::from(*byte).to_digit(16).unwrap_or_default();
                    At::Size(size * 16 + u64::from(digit), digits + 1)
                }
                (At::Size(size, 1..) | At::Blank(size) | At::Extension(size), b'\r') => At::SizeEnd(size),
                (At::Size(size, 1..) | At::Blank(size), b';') => At::Extension(size),
                (At::Size(size, 1..) | At::Blank(size), b' ' | b'\t') => At::Blank(size),
                (At::Extension(size), byte) if is_text(*byte) => self.beside(At::Extension(size))?,
                (At::SizeEnd(0) | At::TrailerEnd, b'\n') => At::Line,
                (At::SizeEnd(size), b'\n') => At::Data(size),
                (At::DataEnd(2), b'\r') => At::DataEnd(1),
                (At::DataEnd(1), b'\n') => At::Size(0, 0),
                (At::Line, b'\r') => At::LastEnd,
                (At::Trailer, b'\r') => At::TrailerEnd,
                (At::Line | At::Trailer, byte) if is_text(*byte) => self.beside(At::Trailer)?,
                (At::LastEnd, b'\n') => At::End,
                _ => return Err(Bad),
            };
            done += 1;
        }
        Ok(done)
    }

    fn beside(&mut self, at: At) -> Result<At, Bad> {
        self.aside += 1;
        if self.aside > MOST_ASIDE { Err(Bad) } else { Ok(at) }
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A piece of a body as a chunk of its own; an empty one ends the body.
pub(super) fn chunk(out: &mut Vec<u8>, piece: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
}

/// How much of this is a body of chunks, and whether it is all of it, when so much is read at a time.
pub(super) fn whole(bytes: &[u8], step: usize) -> Result<(usize, bool), Bad> {
    let (mut framing, mut all) = (Framing::Chunked(Chunks::new()), 0);
    for piece in bytes.chunks(step.max(1)) {
        let count = framing.advance(piece)?;
        all += count;
        if count < piece.len() {
            break;
        }
    }
    Ok((all, framing.is_done()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same however it is cut.
    fn read(text: &str) -> Result<(usize, bool), Bad> {
        let found = whole(text.as_bytes(), text.len());
        for step in 1..text.len() {
            assert_eq!(whole(text.as_bytes(), step), found, "{text:?} by {step}");
        }
        found
    }

    #[test]
    fn chunks_end_where_they_say() {
        assert_eq!(read("5\r\nhello\r\n0\r\n\r\n"), Ok((15, true)));
        assert_eq!(read("5;a=\"b\"\r\nhello\r\n00\r\n\r\nHTTP/1.1"), Ok((22, true)));
        assert_eq!(read("A \r\n0123456789\r\n0\r\nX: y\r\nZ: \r\n\r\n"), Ok((32, true)));
        assert_eq!(read("5\r\nhel"), Ok((6, false)));
        assert_eq!(read("0\r\n"), Ok((3, false)));
    }

    #[test]
    fn chunks_that_two_readers_may_take_for_two_things_are_none() {
        for text in [
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "\r\n",
            ";a\r\n",
            "0x5\r\nhello\r\n",
            "-5\r\nhello",
            "5 5\r\nhello",
            "5;a\nb\r\nhello",
            "5;a\rb\r\nhello",
            "0\r\nX: y\n\r\n",
            "0\r\n\n",
            "fffffffffffffffff\r\n",
            "1000000000000000\r\n",
        ] {
            assert_eq!(read(text), Err(Bad), "{text:?}");
        }
        assert_eq!(read(&format!("5;{}", "a".repeat(20_000))), Err(Bad));
        assert_eq!(read(&format!("0\r\n{}", "a: b\r\n".repeat(5_000))), Err(Bad));
    }

    #[test]
    fn lengths_and_ends_of_connections_count_too() {
        let mut framing = Framing::Length(5);
        assert_eq!(framing.advance(b"hel"), Ok(3));
        assert_eq!((framing.advance(b"lo, more"), framing.is_done()), (Ok(2), true));
        let mut framing = Framing::UntilClose;
        assert_eq!((framing.advance(b"any"), framing.is_done()), (Ok(3), false));
        let mut out = Vec::new();
        chunk(&mut out, b"0123456789abcdef");
        chunk(&mut out, b"");
        assert_eq!(out, b"10\r\n0123456789abcdef\r\n0\r\n\r\n");
    }
}
