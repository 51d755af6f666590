//! Removing what the source has not.

use crate::beneath::Root;
use crate::name;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::hash::BuildHasher as _;

/// The names that came in the directory that entries come from now, as hashes: a directory may hold millions, and two
/// with the same hash only leave one in place.
#[derive(Debug, Default)]
pub(super) struct Seen {
    names: HashSet<u64>,
    hasher: std::hash::RandomState,
}

/// Deeper than this nothing is removed: each level holds a directory open.
const DEEP: usize = 256;

impl Seen {
    pub(super) fn add(&mut self, path: &[u8]) {
        self.names.insert(self.hasher.hash_one(path));
    }

    /// Removes from the directory what did not come and is not kept; each path, and whether it went.
    pub(super) fn extra(
        &mut self,
        path: &[u8],
        root: &mut Root,
        below: &[u8],
        kept: impl Fn(&[u8], bool) -> bool,
        dry_run: bool,
    ) -> Vec<(Vec<u8>, Result<(), Errno>)> {
        let seen = std::mem::take(&mut self.names);
        let opened = root.open(below, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let Ok(directory) = opened else { return Vec::new() }; // planned only, or said when it was made
        let Ok(entries) = Dir::read_from(&directory) else { return Vec::new() };
        let mut gone = Vec::new();
        for entry in entries.flatten() {
            let last = entry.file_name().to_bytes();
            let is_directory = match entry.file_type() {
                FileType::Unknown => is_directory(&directory, last),
                known => known == FileType::Directory,
            };
            let came = seen.contains(&self.hasher.hash_one(name::join(path, last)));
            if last == b"." || last == b".." || came || kept(last, is_directory) {
                continue;
            }
            let removed = if dry_run { Ok(()) } else { remove(&directory, last, is_directory, 0) };
            gone.push((name::join(below, last), removed));
        }
        gone
    }
}

fn is_directory(directory: &OwnedFd, last: &[u8]) -> bool {
    let found = rustix::fs::statat(directory, last, AtFlags::SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

/// Removes something and all that it holds, never through a symlink.
fn remove(parent: &OwnedFd, last: &[u8], directory: bool, depth: usize) -> Result<(), Errno> {
    if !directory {
        return rustix::fs::unlinkat(parent, last, AtFlags::empty());
    }
    if depth >= DEEP {
        return Err(Errno::NAMETOOLONG);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(parent, last, flags, Mode::empty())?;
    for entry in Dir::read_from(&opened)? {
        let entry = entry?;
        let inner = entry.file_name().to_bytes();
        if inner != b"." && inner != b".." {
            let directory = match entry.file_type() {
                FileType::Unknown => is_directory(&opened, inner),
                known => known == FileType::Directory,
            };
            remove(&opened, inner, directory, depth + 1)?;
        }
    }
    rustix::fs::unlinkat(parent, last, AtFlags::REMOVEDIR)
}
