//! Removes entries that the source does not have.

use super::mount_namespace;
use crate::beneath::Root;
use crate::name;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::hash::BuildHasher as _;

/// The names received in the current directory, as hashes: a directory may have millions of entries. A hash
/// collision only keeps an entry.
#[derive(Debug, Default)]
pub(super) struct ReceivedNames {
    names: HashSet<u64>,
    hasher: std::hash::RandomState,
}

/// Entries that the source does not have. They are removed at the end, when their number is known.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Paths below the root, and the paths that rules match. Entries below a removed directory are not
    /// listed.
    pub(super) paths: Vec<(Vec<u8>, Vec<u8>)>,
    /// Entries that would be removed.
    pub(super) going: u64,
    /// Entries that are already gone because an entry of another type replaced them.
    pub(super) gone: u64,
    /// Entries before this copy, including those. Counted only if the limit is a percentage.
    pub(super) there: u64,
}

/// Maximum depth of removal: each level keeps a directory open.
const DEEP: usize = 256;

impl ReceivedNames {
    pub(super) fn add(&mut self, path: &[u8]) {
        self.names.insert(self.hasher.hash_one(path));
    }

    /// Finds the entries of the directory `below` that were not received and are not kept. `kept` is called
    /// with paths below `inner`, also for the contents of directories to be removed: such directories then
    /// stay, with the kept entry.
    pub(super) fn extra(
        &mut self,
        path: &[u8],
        root: &mut Root,
        (below, inner): (&[u8], &[u8]),
        kept: &dyn Fn(&[u8], bool) -> bool,
        extras: &mut Extras,
    ) {
        let seen = std::mem::take(&mut self.names);
        let opened = root.open(below, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let Ok(directory) = opened else { return }; // only planned, or already reported
        let mut search = Search { kept, extras };
        let came = |last: &[u8]| seen.contains(&self.hasher.hash_one(name::join(path, last)));
        let _ = search.find(&directory, (below, inner), &came, 0); // keep a directory that cannot be read
    }
}

struct Search<'a> {
    kept: &'a dyn Fn(&[u8], bool) -> bool,
    extras: &'a mut Extras,
}

impl Search<'_> {
    fn find(
        &mut self,
        directory: &OwnedFd,
        (below, inner): (&[u8], &[u8]),
        came: &dyn Fn(&[u8]) -> bool,
        depth: usize,
    ) -> Result<(), Errno> {
        if depth >= DEEP {
            return Err(Errno::NAMETOOLONG);
        }
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let last = entry.file_name().to_bytes();
            if last == b"." || last == b".." || depth == 0 && name::is_partial(last) {
                continue;
            }
            // An entry that was received was counted then, if it existed.
            if came(last) {
                continue;
            }
            self.extras.there += 1;
            let is_directory = is_directory(directory, &entry);
            let (shown, path) = (name::join(below, last), name::join(inner, last));
            if (self.kept)(&path, is_directory) {
                continue;
            }
            let opened = if is_directory { open(directory, last).ok() } else { None };
            let held = match &opened {
                Some(opened) => count(self.kept, opened, &path, depth),
                None => Some(0),
            };
            match (held, opened) {
                (None, Some(opened)) => {
                    let _ = self.find(&opened, (&shown, &path), &|_| false, depth + 1); // as above
                }
                (held, _) => {
                    let held = held.unwrap_or(0);
                    self.extras.there += held;
                    self.extras.going += held + 1;
                    self.extras.paths.push((shown, path));
                }
            }
        }
        Ok(())
    }
}

/// The number of entries in a directory, including everything below it; `None` if one of them is kept.
fn count(kept: &dyn Fn(&[u8], bool) -> bool, directory: &OwnedFd, inner: &[u8], depth: usize) -> Option<u64> {
    let Ok(entries) = Dir::read_from(directory) else { return Some(0) };
    let mut all = 0;
    for entry in entries.flatten() {
        let last = entry.file_name().to_bytes();
        if last == b"." || last == b".." {
            continue;
        }
        let (path, is_directory) = (name::join(inner, last), is_directory(directory, &entry));
        if kept(&path, is_directory) {
            return None;
        }
        all += 1;
        if is_directory
            && depth < DEEP
            && let Ok(opened) = open(directory, last)
        {
            all += count(kept, &opened, &path, depth + 1)?;
        }
    }
    Some(all)
}

/// Removes an entry, or one that blocks an entry of another type, unless it contains something kept or has
/// more than `most` entries. Returns how many were removed, if any. `path` is below the root, `inner` is the
/// path for `kept`.
pub(super) fn clear_path(
    root: &mut Root,
    (path, inner): (&[u8], &[u8]),
    kept: &dyn Fn(&[u8], bool) -> bool,
    most: u64,
    dry_run: bool,
) -> Result<Option<u64>, Errno> {
    let (parent, last) = root.parent(path)?;
    let parent = parent.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    let opened = open(&parent, last).ok();
    let held = opened.as_ref().map_or(Some(0), |opened| count(kept, opened, inner, 0));
    let Some(going) = held.map(|held| held + 1).filter(|going| *going <= most) else { return Ok(None) };
    if !dry_run {
        remove(&parent, last, (opened.is_some(), opened), 0)?;
    }
    Ok(Some(going))
}

/// Removes an entry with everything in it, never through a symlink.
fn remove(
    parent: &OwnedFd,
    last: &[u8],
    (directory, opened): (bool, Option<OwnedFd>),
    depth: usize,
) -> Result<(), Errno> {
    if let Some(opened) = opened {
        if depth >= DEEP {
            return Err(Errno::NAMETOOLONG);
        }
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let (last, deeper) = (entry.file_name().to_bytes(), is_directory(&opened, &entry));
            if last != b"." && last != b".." {
                let below = if deeper { open(&opened, last).ok() } else { None };
                remove(&opened, last, (deeper, below), depth + 1)?;
            }
        }
    }
    mount_namespace::refuse_mount_point(parent, last)?;
    let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    rustix::fs::unlinkat(parent, last, flags)
}

fn open(parent: &OwnedFd, last: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, last, flags, Mode::empty())
}

fn is_directory(directory: &OwnedFd, entry: &DirEntry) -> bool {
    match entry.file_type() {
        FileType::Unknown => {
            let found = rustix::fs::statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
            found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
        }
        known => known == FileType::Directory,
    }
}
