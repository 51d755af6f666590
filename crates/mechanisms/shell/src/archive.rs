//! Reads and writes tar(1) archives. Reads what GNU tar and busybox tar write, and writes what both can read.
//!
//! The archive comes from a container and is hostile: sizes are limited before anything is buffered, every
//! header must have a valid checksum, and names are only used to identify the requested files.

use bytes::{Bytes, BytesMut};
use postern_wire::copy::Stamp;

const BLOCK: usize = 512;

/// Maximum length of a name or another extended header.
const LONG: u64 = 64 * 1024;

/// The latest time in a header, in seconds since 1970: in 2242. busybox truncates later times.
pub const LATEST: i64 = 0o77_777_777_777;

/// The archive is invalid or uses an unsupported feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The checksum of a header is wrong.
    #[error("tar sent an invalid archive: the checksum of a header is wrong")]
    Checksum,
    /// A number in a header is malformed.
    #[error("tar sent an invalid archive: a number in a header is malformed")]
    Number,
    /// A name or extended header is too long.
    #[error("tar sent a name or another header longer than {LONG} bytes")]
    Long,
    /// An extended header is malformed.
    #[error("tar sent an invalid archive: the extended header is malformed")]
    Extended,
    /// A sparse file in an unsupported format.
    #[error("tar sent a sparse file in an unsupported format")]
    Sparse,
    /// There are bytes after the end.
    #[error("tar sent bytes after the end of the archive")]
    Behind,
}

/// The next item of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The start of a file.
    File {
        /// Its name, as in the archive.
        name: Vec<u8>,
        /// Its size in bytes.
        size: u64,
    },
    /// Another type, such as a link.
    Other {
        /// Its name.
        name: Vec<u8>,
    },
    /// Bytes of the current file.
    Data(Bytes),
    /// The end of the archive.
    End,
}

/// Parses an archive incrementally.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: BytesMut,
    /// Remaining bytes of the file's content, and of the padding after it.
    content: u64,
    padding: usize,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    /// The extended header being read: its type and length.
    extended: Option<(u8, usize)>,
    zeroes: u8,
    ended: bool,
}

impl Reader {
    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item; `None` if more bytes are needed.
    pub fn next_part(&mut self) -> Result<Option<Part>, ArchiveError> {
        loop {
            if self.ended {
                // Archives are padded with zeroes.
                let zeroes = self.buffer.iter().all(|byte| *byte == 0);
                self.buffer.clear();
                return if zeroes { Ok(None) } else { Err(ArchiveError::Behind) };
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

    /// Whether the end of the archive was read.
    pub fn is_whole(&self) -> bool {
        self.ended
    }

    fn header(&mut self, header: &[u8]) -> Result<Option<Part>, ArchiveError> {
        let sum = number(&header[148..156])?;
        let own: u64 = header[..148].iter().chain(&header[156..]).map(|byte| u64::from(*byte)).sum();
        if sum != own + 8 * u64::from(b' ') {
            return Err(ArchiveError::Checksum);
        }
        let (kind, size) = (header[156], number(&header[124..136])?);
        if matches!(kind, b'L' | b'K' | b'x' | b'g') {
            let length = usize::try_from(size).ok().filter(|_| size <= LONG).ok_or(ArchiveError::Long)?;
            self.extended = Some((kind, length));
            return Ok(None);
        }
        let size = self.size.take().unwrap_or(size);
        let name = self.name.take().unwrap_or_else(|| {
            let name = until_zero(&header[..100]);
            let prefix = until_zero(&header[345..500]);
            // GNU's format has other fields in place of the prefix.
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
            b'S' => Err(ArchiveError::Sparse),
            _ => Ok(Some(Part::Other { name })),
        }
    }

    fn extend(&mut self, kind: u8, header: &[u8]) -> Result<(), ArchiveError> {
        match kind {
            b'L' => self.name = Some(until_zero(header).to_vec()),
            b'x' => {
                let mut rest = header;
                while !rest.is_empty() {
                    let space = rest.iter().position(|byte| *byte == b' ').ok_or(ArchiveError::Extended)?;
                    let length = decimal(&rest[..space]).and_then(|length| usize::try_from(length).ok());
                    let length = length.filter(|length| *length > space + 1 && *length <= rest.len());
                    let length = length.ok_or(ArchiveError::Extended)?;
                    let record = rest[space + 1..length].strip_suffix(b"\n").ok_or(ArchiveError::Extended)?;
                    rest = &rest[length..];
                    let equals =
                        record.iter().position(|byte| *byte == b'=').ok_or(ArchiveError::Extended)?;
                    let (key, value) = (&record[..equals], &record[equals + 1..]);
                    match key {
                        b"path" => self.name = Some(value.to_vec()),
                        b"size" => self.size = Some(decimal(value).ok_or(ArchiveError::Number)?),
                        key if key.starts_with(b"GNU.sparse.") => return Err(ArchiveError::Sparse),
                        _ => {}
                    }
                }
            }
            _ => {} // the target of a link, or a global header
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

/// A number in a header: octal, or base 256 if it is too large for that.
fn number(field: &[u8]) -> Result<u64, ArchiveError> {
    if let [0x80, rest @ ..] = field {
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if high.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Number);
        }
        return Ok(low.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    }
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    let digits = text.iter().map(|byte| (b'0'..=b'7').contains(byte).then(|| u64::from(byte - b'0')));
    digits
        .into_iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(8)?.checked_add(digit?))
        .ok_or(ArchiveError::Number)
}

/// Whether every tool prints the name unescaped on one line.
pub(crate) fn is_plain(name: &[u8]) -> bool {
    !name.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\')
}

/// Appends a file to an archive.
pub(crate) fn put(archive: &mut Vec<u8>, path: &[u8], mode: u32, stamp: Stamp, content: &[u8]) {
    let name = [b"./", path].concat();
    // busybox ignores this and uses whole seconds.
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

/// Appends the end of an archive.
pub(crate) fn end(archive: &mut Vec<u8>) {
    archive.resize(archive.len() + 2 * BLOCK, 0);
    // The block size of tar(1).
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
