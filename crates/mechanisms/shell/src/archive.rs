//! Archives as tar(1) has them: what GNU's and busybox's write is read, and what both read is written.
//!
//! What is read comes from a container, and is hostile: sizes are bounded before anything is held, every header has to
//! have its checksum, and no name is used but to find which of the files that were asked for it is.

use bytes::{Bytes, BytesMut};
use postern_wire::copy::Stamp;

const BLOCK: usize = 512;

/// Longest name, or other extended header, that is held.
const LONG: u64 = 64 * 1024;

/// The latest time that a header holds, in seconds since 1970: in 2242. Of what is later busybox keeps the rest of a division.
pub const LATEST: i64 = 0o77_777_777_777;

/// An archive that is none, or none that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The checksum of a header is wrong.
    #[error("what tar sent is no archive: a header's checksum is wrong")]
    Checksum,
    /// A number in a header is none.
    #[error("what tar sent is no archive: a number in a header is none")]
    Number,
    /// A name or extended header is too long.
    #[error("what tar sent has a name, or other header, beyond {LONG} bytes")]
    Long,
    /// An extended header is none.
    #[error("what tar sent is no archive: an extended header is none")]
    Extended,
    /// Something that was not asked for.
    #[error("what tar sent has holes in a form that is not read")]
    Sparse,
    /// It goes on behind its end.
    #[error("what tar sent goes on behind the archive's end")]
    Behind,
}

/// What comes next in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A file of this size begins.
    File {
        /// Its name, as it stands there.
        name: Vec<u8>,
        /// Bytes of its content.
        size: u64,
    },
    /// Something else, such as a link.
    Other {
        /// Its name.
        name: Vec<u8>,
    },
    /// Bytes of the file that began last.
    Data(Bytes),
    /// The archive is whole.
    End,
}

/// Reads an archive as it comes.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: BytesMut,
    /// Bytes of content that are to come, and of padding behind it.
    content: u64,
    padding: usize,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    /// An extended header that is being read: its kind and length.
    extended: Option<(u8, usize)>,
    zeroes: u8,
    ended: bool,
}

impl Reader {
    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// What comes next; nothing where more has to come first.
    pub fn next_part(&mut self) -> Result<Option<Part>, Flaw> {
        loop {
            if self.ended {
                // Archives are filled up with zeroes.
                let zeroes = self.buffer.iter().all(|byte| *byte == 0);
                self.buffer.clear();
                return if zeroes { Ok(None) } else { Err(Flaw::Behind) };
            }
            if self.content > 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                let count = usize::try_from(self.content).unwrap_or(usize::MAX).min(self.buffer.len());
                self.content -= count as u64;
                return Ok(Some(Part::Data(self.buffer.split_to(count).freeze())));
            }
            if self.padding > 0 {
                let count = self.padding.min(self.buffer.len());
                let _ = self.buffer.split_to(count);
                self.padding -= count;
                if self.padding > 0 {
                    return Ok(None);
                }
            }
            if let Some((kind, length)) = self.extended {
                if self.buffer.len() < length.next_multiple_of(BLOCK) {
                    return Ok(None);
                }
                let header = self.buffer.split_to(length.next_multiple_of(BLOCK));
                self.extended = None;
                self.extend(kind, &header[..length])?;
                continue;
            }
            if self.buffer.len() < BLOCK {
                return Ok(None);
            }
            let header = self.buffer.split_to(BLOCK);
            if header.iter().all(|byte| *byte == 0) {
                self.zeroes += 1;
                if self.zeroes == 2 {
                    self.ended = true;
                    return Ok(Some(Part::End));
                }
                continue;
            }
            self.zeroes = 0;
            if let Some(part) = self.header(&header)? {
                return Ok(Some(part));
            }
        }
    }

    /// Whether the archive came to its end.
    pub fn is_whole(&self) -> bool {
        self.ended
    }

    fn header(&mut self, header: &[u8]) -> Result<Option<Part>, Flaw> {
        let sum = number(&header[148..156])?;
        let own: u64 = header[..148].iter().chain(&header[156..]).map(|byte| u64::from(*byte)).sum();
        if sum != own + 8 * u64::from(b' ') {
            return Err(Flaw::Checksum);
        }
        let (kind, size) = (header[156], number(&header[124..136])?);
        if matches!(kind, b'L' | b'K' | b'x' | b'g') {
            let length = usize::try_from(size).ok().filter(|_| size <= LONG).ok_or(Flaw::Long)?;
            self.extended = Some((kind, length));
            return Ok(None);
        }
        let size = self.size.take().unwrap_or(size);
        let name = self.name.take().unwrap_or_else(|| {
            let name = until_zero(&header[..100]);
            let prefix = until_zero(&header[345..500]);
            // In GNU's form other things stand where the prefix does.
            match header[257..263] == *b"ustar\0" && !prefix.is_empty() {
                true => [prefix, b"/", name].concat(),
                false => name.to_vec(),
            }
        });
        match kind {
            b'0' | 0 | b'7' => {
                self.content = size;
                let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
                self.padding = (BLOCK - over) % BLOCK;
                Ok(Some(Part::File { name, size }))
            }
            b'S' => Err(Flaw::Sparse),
            _ => Ok(Some(Part::Other { name })),
        }
    }

    fn extend(&mut self, kind: u8, header: &[u8]) -> Result<(), Flaw> {
        match kind {
            b'L' => self.name = Some(until_zero(header).to_vec()),
            b'x' => {
                let mut rest = header;
                while !rest.is_empty() {
                    let space = rest.iter().position(|byte| *byte == b' ').ok_or(Flaw::Extended)?;
                    let length = decimal(&rest[..space]).and_then(|length| usize::try_from(length).ok());
                    let length = length.filter(|length| *length > space + 1 && *length <= rest.len());
                    let length = length.ok_or(Flaw::Extended)?;
                    let record = rest[space + 1..length].strip_suffix(b"\n").ok_or(Flaw::Extended)?;
                    rest = &rest[length..];
                    let equals = record.iter().position(|byte| *byte == b'=').ok_or(Flaw::Extended)?;
                    let (key, value) = (&record[..equals], &record[equals + 1..]);
                    match key {
                        b"path" => self.name = Some(value.to_vec()),
                        b"size" => self.size = Some(decimal(value).ok_or(Flaw::Number)?),
                        key if key.starts_with(b"GNU.sparse.") => return Err(Flaw::Sparse),
                        _ => {}
                    }
                }
            }
            _ => {} // the target of a link, or what is said of all
        }
        Ok(())
    }
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// A number in a header: octal, or what is too large for that in base 256.
fn number(field: &[u8]) -> Result<u64, Flaw> {
    if let [0x80, rest @ ..] = field {
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if high.iter().any(|byte| *byte != 0) {
            return Err(Flaw::Number);
        }
        return Ok(low.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    }
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    let digits = text.iter().map(|byte| (b'0'..=b'7').contains(byte).then(|| u64::from(byte - b'0')));
    digits
        .into_iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(8)?.checked_add(digit?))
        .ok_or(Flaw::Number)
}

/// A name that every tool prints as it is, so that it is one line.
pub(crate) fn is_plain(name: &[u8]) -> bool {
    !name.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\')
}

/// Adds a file to an archive.
pub(crate) fn put(archive: &mut Vec<u8>, path: &[u8], mode: u32, stamp: Stamp, content: &[u8]) {
    let name = [b"./", path].concat();
    // busybox's leaves this out, and takes whole seconds.
    let mut time = format!(" mtime={}.{:09}\n", stamp.seconds, stamp.nanos);
    let length = time.len() + 2; // two digits, as it is never longer than 99
    time.insert_str(0, &length.to_string());
    header(archive, b"./PaxHeaders/time", 0o644, 0, time.len(), b'x');
    fill(archive, time.as_bytes());
    if name.len() > 100 {
        header(archive, b"././@LongLink", 0o644, 0, name.len() + 1, b'L');
        fill(archive, &[name.as_slice(), b"\0"].concat());
    }
    header(archive, &name, mode, stamp.seconds, content.len(), b'0');
    fill(archive, content);
}

/// Ends an archive.
pub(crate) fn end(archive: &mut Vec<u8>) {
    archive.resize(archive.len() + 2 * BLOCK, 0);
    // What tar(1) takes at a time.
    archive.resize(archive.len().next_multiple_of(20 * BLOCK), 0);
}

fn fill(archive: &mut Vec<u8>, content: &[u8]) {
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

fn header(archive: &mut Vec<u8>, name: &[u8], mode: u32, seconds: i64, size: usize, kind: u8) {
    let mut header = [0; BLOCK];
    let short = &name[..name.len().min(100)];
    header[..short.len()].copy_from_slice(short);
    let mut field = |from: usize, digits: usize, value: u64| {
        let text = format!("{value:0digits$o}");
        let text = &text.as_bytes()[text.len().saturating_sub(digits)..];
        header[from..from + digits].copy_from_slice(text);
    };
    field(100, 7, mode.into());
    field(108, 7, 0);
    field(116, 7, 0);
    field(124, 11, size as u64);
    field(136, 11, u64::try_from(seconds).unwrap_or(0) & LATEST.unsigned_abs());
    header[148..156].copy_from_slice(b"        ");
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar  \0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&header);
}

#[cfg(test)]
mod tests;
