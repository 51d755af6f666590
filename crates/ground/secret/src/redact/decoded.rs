//! Decoded views of a text: with escapes decoded, and with base64 joined across line breaks. They find
//! secrets of which only some characters are escaped, and secrets in base64 within longer text; those have no
//! fixed encoding to search for.

use memchr::{memchr_iter, memchr3_iter};
use std::ops::Range;
use zeroize::Zeroizing;

/// Minimum length of base64 at the end of a line that continues in the next; shorter ones are words.
const RUN: usize = 16;

/// A decoded part of a text.
pub(super) struct View {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// In the order of both positions. Each one ends where the next begins.
    segments: Vec<Segment>,
    /// The start of an escape that is truncated by the end of the text.
    pub(super) cut: Option<usize>,
    /// Whether the view ends at the end of the text.
    pub(super) to_end: bool,
}

/// A part of a view. Text is mostly not escaped, so there are few of them.
#[derive(Debug, Clone, Copy)]
struct Segment {
    /// Where it begins in the view.
    view: usize,
    /// Where it begins in the text.
    text: usize,
    /// Where it ends in the text.
    end: usize,
    /// Whether all bytes of it stand for the same part of the text, instead of one byte each.
    escaped: bool,
}

impl View {
    fn new(room: usize) -> Self {
        let bytes = Zeroizing::new(Vec::with_capacity(room));
        Self { bytes, segments: Vec::new(), cut: None, to_end: true }
    }

    /// Adds a part of the text as it is.
    fn literal(&mut self, text: &[u8], range: Range<usize>) {
        let Some(bytes) = text.get(range.clone()).filter(|bytes| !bytes.is_empty()) else { return };
        let segment = Segment { view: self.bytes.len(), text: range.start, end: range.end, escaped: false };
        self.segments.push(segment);
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds what an escape stands for.
    fn escape(&mut self, bytes: &[u8], range: Range<usize>) {
        let segment = Segment { view: self.bytes.len(), text: range.start, end: range.end, escaped: true };
        self.segments.push(segment);
        self.bytes.extend_from_slice(bytes);
    }

    /// The range in the text of one byte of the view.
    fn byte(&self, at: usize) -> Option<Range<usize>> {
        if at >= self.bytes.len() {
            return None;
        }
        let after = self.segments.partition_point(|segment| segment.view <= at);
        let Segment { view, text, end, escaped } = *self.segments.get(after.checked_sub(1)?)?;
        Some(if escaped { text..end } else { text + (at - view)..text + (at - view) + 1 })
    }

    /// The range in the text of a part of the view.
    pub(super) fn place(&self, range: &Range<usize>) -> Range<usize> {
        let begin = self.byte(range.start).map_or(0, |place| place.start);
        let end = range.end.checked_sub(1).and_then(|last| self.byte(last)).map_or(begin, |place| place.end);
        begin..end
    }

    /// The first byte of the view that begins at or after a position in the text.
    pub(super) fn index(&self, place: usize) -> usize {
        let after = self.segments.partition_point(|segment| segment.text < place);
        let next = self.segments.get(after).map_or(self.bytes.len(), |segment| segment.view);
        match after.checked_sub(1).and_then(|before| self.segments.get(before)) {
            Some(&Segment { view, text, end, escaped: false }) if place < end => view + (place - text),
            _ => next,
        }
    }

    /// Decodes the escapes of URLs, JSON, string literals and HTML. `None` if there is no escape. Reads
    /// nothing further than `reach` from an escape.
    pub(super) fn decoded(text: &[u8], reach: usize) -> Option<Self> {
        let mut escapes = memchr3_iter(b'%', b'\\', b'&', text);
        let first = escapes.next()?;
        let last = escapes.next_back().unwrap_or(first);
        let (begin, end) = (first.saturating_sub(reach), text.len().min(last.saturating_add(reach)));
        let mut view = Self::new(end - begin);
        view.to_end = end == text.len();
        let (mut done, mut is_plain) = (begin, true);
        for at in memchr3_iter(b'%', b'\\', b'&', &text[..end]) {
            // It may be the second character of an escape.
            if at < done {
                continue;
            }
            match escape(&text[at..]) {
                Escape::None => {}
                Escape::Of(letter, length) => {
                    is_plain = false;
                    view.literal(text, done..at);
                    done = at + length;
                    match letter {
                        Letter::Byte(byte) => view.escape(&[byte], at..done),
                        Letter::Char(letter) => {
                            view.escape(letter.encode_utf8(&mut [0; 4]).as_bytes(), at..done);
                        }
                    }
                }
                // At the end of the stream it is literal.
                Escape::Cut => {
                    is_plain = false;
                    view.cut.get_or_insert(at);
                }
            }
        }
        view.literal(text, done..end);
        (!is_plain).then_some(view)
    }

    /// Joins base64 across line breaks. `None` if there is none.
    pub(super) fn joined(text: &[u8]) -> Option<Self> {
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte);
        let breaks = |at: &usize| {
            let line = text[..*at].strip_suffix(b"\r").unwrap_or(&text[..*at]);
            let run = line.iter().rev().take(RUN).take_while(|byte| is_base64(byte)).count();
            // The part before the text may have been base64 too.
            run == RUN || run > 0 && run == line.len()
        };
        let half = text.last().filter(|byte| **byte == b'\r').map(|_| text.len());
        let mut breaks = memchr_iter(b'\n', text).chain(half).filter(breaks).peekable();
        breaks.peek()?;
        let mut view = Self::new(text.len());
        let mut done = 0;
        for at in breaks {
            let line = if text[..at].ends_with(b"\r") { at - 1 } else { at };
            view.literal(text, done..line);
            done = text.len().min(at + 1);
        }
        view.literal(text, done..text.len());
        Some(view)
    }
}

enum Letter {
    Byte(u8),
    Char(char),
}

enum Escape {
    /// A literal character.
    None,
    /// An escape of this many bytes.
    Of(Letter, usize),
    /// A truncated escape at the end of the text.
    Cut,
}

fn escape(text: &[u8]) -> Escape {
    match text.first() {
        Some(b'%') => number(text, 1, 2),
        Some(b'\\') => match text.get(1) {
            None => Escape::Cut,
            Some(b'u') => unit(text),
            Some(b'x') => number(text, 2, 2),
            Some(short) => match short {
                b'n' => Escape::Of(Letter::Byte(b'\n'), 2),
                b'r' => Escape::Of(Letter::Byte(b'\r'), 2),
                b't' => Escape::Of(Letter::Byte(b'\t'), 2),
                b'b' => Escape::Of(Letter::Byte(8), 2),
                b'f' => Escape::Of(Letter::Byte(12), 2),
                b'"' | b'\'' | b'\\' | b'/' => Escape::Of(Letter::Byte(*short), 2),
                _ => Escape::None,
            },
        },
        Some(b'&') => entity(text),
        _ => Escape::None,
    }
}

fn hex(text: &[u8], from: usize, digits: usize) -> Result<u32, Escape> {
    let end = text.len().min(from + digits);
    let there = text.get(from..end).unwrap_or_default();
    match std::str::from_utf8(there).ok().filter(|there| there.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        None => Err(Escape::None),
        Some(there) if there.len() < digits => Err(Escape::Cut),
        Some(there) => u32::from_str_radix(there, 16).map_err(|_| Escape::None),
    }
}

/// A byte in hexadecimal.
fn number(text: &[u8], from: usize, digits: usize) -> Escape {
    match hex(text, from, digits) {
        Ok(number) => Escape::Of(Letter::Byte(number.to_le_bytes()[0]), from + digits),
        Err(other) => other,
    }
}

/// One or two UTF-16 units.
fn unit(text: &[u8]) -> Escape {
    let first = match hex(text, 2, 4) {
        Ok(first) => first,
        Err(other) => return other,
    };
    if let Some(letter) = char::from_u32(first) {
        return Escape::Of(Letter::Char(letter), 6);
    }
    let rest = &text[6..];
    if rest.len() < 2 && b"\\u".starts_with(rest) {
        return Escape::Cut;
    }
    if !rest.starts_with(b"\\u") {
        return Escape::None;
    }
    match hex(text, 8, 4) {
        Ok(second) if (0xd800..0xdc00).contains(&first) && (0xdc00..0xe000).contains(&second) => {
            let letter = char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            letter.map_or(Escape::None, |letter| Escape::Of(Letter::Char(letter), 12))
        }
        Ok(_) => Escape::None,
        Err(other) => other,
    }
}

/// Length of the longest entity, such as `&#x1F600;`.
const LONGEST: usize = 10;

fn entity(text: &[u8]) -> Escape {
    let near = &text[..text.len().min(LONGEST)];
    let Some(end) = near.iter().position(|byte| *byte == b';') else {
        let plain = near[1..].iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'#');
        return if plain && text.len() < LONGEST { Escape::Cut } else { Escape::None };
    };
    let name = std::str::from_utf8(&near[1..end]).unwrap_or_default();
    let letter = match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => match (name.strip_prefix("#x").or_else(|| name.strip_prefix("#X")), name.strip_prefix('#')) {
            (Some(hex), _) => u32::from_str_radix(hex, 16).ok().and_then(char::from_u32),
            (None, Some(decimal)) => decimal.parse().ok().and_then(char::from_u32),
            (None, None) => None,
        },
    };
    letter.map_or(Escape::None, |letter| Escape::Of(Letter::Char(letter), end + 1))
}
