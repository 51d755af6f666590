//! Parses the output of `stat` in a container.

use postern_files::existing::{Existing, FileType};
use postern_wire::copy::{Kind, Stamp};

/// One entry, in the format of `server.sh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    mode: u32,
    pub(crate) size: u64,
    pub(crate) stamp: Stamp,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) links: u64,
    /// Allocated blocks of 512 bytes.
    pub(crate) blocks: u64,
    major: u32,
    minor: u32,
}

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    Directory,
    Symlink,
    Other,
}

impl Stat {
    /// Parses `%f %s %u %g %Y %y|%d:%i %h %b %t %T`; `%y` is only used for the fraction of the second.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (left, right) = text.split_once('|')?;
        let mut left = left.split_ascii_whitespace();
        let mode = u32::from_str_radix(left.next()?, 16).ok()?;
        let size = left.next()?.parse().ok()?;
        let (user, group) = (left.next()?.parse().ok()?, left.next()?.parse().ok()?);
        let seconds = left.next()?.parse().ok()?;
        let nanos =
            left.nth(1).and_then(|time| time.split_once('.')).map_or(Some(0), |(_, part)| nanos(part))?;
        let mut right = right.split_ascii_whitespace();
        let (device, inode) = right.next()?.split_once(':')?;
        let (links, blocks) = (right.next()?.parse().ok()?, right.next()?.parse().ok()?);
        let mut hex = || u32::from_str_radix(right.next()?, 16).ok();
        let (major, minor) = (hex()?, hex()?);
        let stamp = Stamp { mode: mode & 0o7777, user, group, seconds, nanos };
        let (device, inode) = (device.parse().ok()?, inode.parse().ok()?);
        Some(Self { mode, size, stamp, device, inode, links, blocks, major, minor })
    }

    /// An existing entry, for decisions that all ends share.
    pub(crate) fn existing(&self) -> Existing {
        let kind = match self.kind() {
            Type::File => FileType::File,
            Type::Directory => FileType::Directory,
            Type::Symlink => FileType::Symlink,
            Type::Other => FileType::Special,
        };
        Existing { kind, size: self.size, stamp: self.stamp }
    }

    pub(crate) fn kind(&self) -> Type {
        match self.mode & 0o170_000 {
            0o100_000 => Type::File,
            0o040_000 => Type::Directory,
            0o120_000 => Type::Symlink,
            _ => Type::Other,
        }
    }

    /// A special file as an entry kind; `None` for a socket.
    pub(crate) fn special(&self) -> Option<Kind> {
        let device = |block| Kind::Device { block, major: self.major, minor: self.minor };
        match self.mode & 0o170_000 {
            0o010_000 => Some(Kind::Fifo),
            0o060_000 => Some(device(true)),
            0o020_000 => Some(device(false)),
            _ => None,
        }
    }

    /// Whether it may have holes.
    pub(crate) fn is_sparse(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }

    /// Whether the file is unchanged, according to its attributes.
    pub(crate) fn is_still(&self, now: &Self) -> bool {
        (self.size, self.inode, self.device) == (now.size, now.inode, now.device)
            && (self.stamp.seconds, self.stamp.nanos) == (now.stamp.seconds, now.stamp.nanos)
    }
}

fn nanos(part: &str) -> Option<u32> {
    let digits: String = part.chars().chain(std::iter::repeat('0')).take(9).collect();
    digits.parse().ok()
}

/// The entries of a directory: each starts with the mark and ends with a slash and a newline, which no name
/// ends with. `None` if the text is malformed.
pub fn entries(text: &[u8], mark: &str) -> Option<Vec<(Vec<u8>, Stat)>> {
    let begin = [mark.as_bytes(), b" "].concat();
    let end = [b"/\n", begin.as_slice()].concat();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let mut rest = text.strip_prefix(begin.as_slice())?.strip_suffix(b"/\n")?;
    let mut found = Vec::new();
    loop {
        let (record, more) = match find(rest, &end) {
            Some(at) => (&rest[..at], Some(&rest[at + end.len()..])),
            None => (rest, None),
        };
        let bars = record.iter().enumerate().filter(|(_, byte)| **byte == b'|').map(|(at, _)| at);
        let bar = bars.take(2).last()?;
        let (stat, path) = (&record[..bar], &record[bar + 1..]);
        let name = &path[path.iter().rposition(|byte| *byte == b'/')? + 1..];
        found.push((name.to_vec(), Stat::parse(stat)?));
        match more {
            Some(more) => rest = more,
            None => return Some(found),
        }
    }
}

pub(crate) fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|byte| *byte == first) {
        if text[from + at..].starts_with(what) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"81a4 5 7 8 1000000000 2001-09-09 01:46:40.123456789 +0000|63:15 2 8 0 0";

    #[test]
    fn stat_records_are_parsed_completely() {
        let stat = Stat::parse(ONE).unwrap();
        assert_eq!((stat.kind(), stat.size, stat.inode, stat.links), (Type::File, 5, 15, 2));
        let want = Stamp { mode: 0o644, user: 7, group: 8, seconds: 1_000_000_000, nanos: 123_456_789 };
        assert_eq!(stat.stamp, want);
        let device = Stat::parse(b"21b6 0 0 0 -5 1969-12-31 23:59:55 +0000|5:9 1 0 1 3").unwrap();
        assert_eq!(device.special(), Some(Kind::Device { block: false, major: 1, minor: 3 }));
        assert_eq!((device.stamp.seconds, device.stamp.nanos), (-5, 0));
        for cut in 0..ONE.len() - 3 {
            assert_eq!(Stat::parse(&ONE[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn names_with_newlines_are_parsed() {
        let record = |name: &[u8]| [b"M ", ONE, b"|/d|x/", name, b"/\n"].concat();
        let text = [record(b"a"), record(b"b\nM 81a4\n"), record(b"c|d")].concat();
        let names: Vec<_> = entries(&text, "M").unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"a"[..], b"b\nM 81a4\n", b"c|d"]);
        assert_eq!(entries(b"", "M"), Some(Vec::new()));
        for odd in [&b"x"[..], b"M ", b"M /\n", b"M 81a4|x|/a/\n"] {
            assert_eq!(entries(odd, "M"), None);
        }
        assert_eq!(entries(&text[..text.len() - 1], "M"), None);
    }
}
