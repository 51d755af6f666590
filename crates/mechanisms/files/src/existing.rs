//! Decisions about a file whose path is already taken. Every end that writes to a file system shares them.

use crate::policy::{DIRECTORY, NEWER, is_newer, same_time};
use postern_wire::copy::{Compare, Entry, Fate, ReceiveSpec, Stamp};

/// The type of an existing entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, FIFO or socket.
    Special,
}

/// The entry that exists at the path of a file to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Existing {
    /// Its type.
    pub kind: FileType,
    /// Its size in bytes.
    pub size: u64,
    /// Mode, owner, modification time.
    pub stamp: Stamp,
}

impl Existing {
    /// Why a file cannot replace it; `None` if it can. A symlink is replaced, not followed.
    pub fn blocks_file(self) -> Option<&'static str> {
        match self.kind {
            FileType::File | FileType::Symlink => None,
            FileType::Directory => Some(DIRECTORY),
            FileType::Special => Some("a device, FIFO or socket exists at this path"),
        }
    }

    /// Whether it is kept without comparing its content, and why. `size` is the size of its replacement.
    pub fn kept(self, spec: &ReceiveSpec, entry: &Entry, size: u64) -> Option<(Fate, String)> {
        if self.kind != FileType::File {
            return None;
        }
        let equal = self.size == size && same_time(self.stamp, entry.stamp);
        if equal && entry.settled {
            return Some((Fate::Same, String::new()));
        }
        if equal && spec.compare == Compare::Times {
            return Some((Fate::Unchanged, String::new()));
        }
        if equal && size == 0 {
            return Some((Fate::Same, String::new()));
        }
        (spec.update && is_newer(self.stamp, entry.stamp)).then(|| (Fate::Skipped, NEWER.to_owned()))
    }

    /// Whether its content is compared with the source's by hash before any is sent.
    pub fn is_compared(self, spec: &ReceiveSpec, entry: &Entry, size: u64) -> bool {
        self.kind == FileType::File
            && self.size == size
            && size > 0
            && (spec.compare == Compare::Hash || same_time(self.stamp, entry.stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_wire::copy::{Delete, Kind, Limits, Owner};

    fn spec(compare: Compare, update: bool) -> ReceiveSpec {
        ReceiveSpec {
            root: None,
            target: b"t".to_vec(),
            directory: false,
            named: false,
            parents: false,
            compare,
            delta: false,
            update,
            delete: Delete::Nothing,
            dry_run: false,
            inplace: false,
            preserve: false,
            owner: Owner::default(),
            unsafe_links: false,
            specials: false,
            clean: false,
            rules: Vec::new(),
            limits: Limits::default(),
        }
    }

    fn entry(size: u64, seconds: i64, settled: bool) -> Entry {
        let stamp = Stamp { seconds, ..Stamp::default() };
        Entry { id: 0, path: b"f".to_vec(), kind: Kind::File(size), stamp, xattrs: Vec::new(), settled }
    }

    fn existing(kind: FileType, size: u64, seconds: i64) -> Existing {
        Existing { kind, size, stamp: Stamp { seconds, ..Stamp::default() } }
    }

    #[test]
    fn only_files_and_symlinks_are_replaced() {
        assert!(existing(FileType::File, 1, 1).blocks_file().is_none());
        assert!(existing(FileType::Symlink, 1, 1).blocks_file().is_none());
        assert!(existing(FileType::Directory, 1, 1).blocks_file().is_some());
        assert!(existing(FileType::Special, 1, 1).blocks_file().is_some());
    }

    #[test]
    fn size_time_and_options_decide_what_is_kept() {
        let kept = |there: Existing, compare, update, settled| {
            there.kept(&spec(compare, update), &entry(4, 10, settled), 4).map(|(fate, _)| fate)
        };
        let same = existing(FileType::File, 4, 10);
        assert_eq!(kept(same, Compare::Verify, false, false), None);
        assert_eq!(kept(same, Compare::Verify, false, true), Some(Fate::Same));
        assert_eq!(kept(same, Compare::Times, false, false), Some(Fate::Unchanged));
        assert_eq!(kept(existing(FileType::File, 5, 11), Compare::Verify, true, false), Some(Fate::Skipped));
        assert_eq!(kept(existing(FileType::File, 5, 11), Compare::Verify, false, false), None);
        assert_eq!(kept(existing(FileType::Symlink, 4, 10), Compare::Times, true, true), None);
    }

    #[test]
    fn content_is_compared_where_size_and_time_match_or_hashes_decide() {
        let compared = |there: Existing, compare, size| {
            there.is_compared(&spec(compare, false), &entry(size, 10, false), size)
        };
        assert!(compared(existing(FileType::File, 4, 10), Compare::Verify, 4));
        assert!(!compared(existing(FileType::File, 4, 11), Compare::Verify, 4));
        assert!(compared(existing(FileType::File, 4, 11), Compare::Hash, 4));
        assert!(!compared(existing(FileType::File, 5, 10), Compare::Hash, 4));
        assert!(!compared(existing(FileType::File, 0, 10), Compare::Hash, 0));
    }
}
