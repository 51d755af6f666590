//! Removing what the source does not have.

use super::foreign;
use crate::beneath::Root;
use crate::name;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags};
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

/// What the source does not have. It is removed at the end, when it is known how much that is.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Paths below the root, and those that rules are asked about; what goes with its directory is not named.
    pub(super) paths: Vec<(Vec<u8>, Vec<u8>)>,
    /// Entries that would go.
    pub(super) going: u64,
    /// Those that are gone already: something of another kind was to have their place.
    pub(super) gone: u64,
    /// Entries that were there before this copy, those included. Counted where the limit is a part of them.
    pub(super) there: u64,
}

/// Deeper than this nothing is removed: each level holds a directory open.
const DEEP: usize = 256;

impl Seen {
    pub(super) fn add(&mut self, path: &[u8]) {
        self.names.insert(self.hasher.hash_one(path));
    }

    /// Finds in the directory at `below` what did not come and is not kept. `kept` is asked about paths below `inner`, and
    /// about what directories to be removed hold: those then stay, with that.
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
        let Ok(directory) = opened else { return }; // planned only, or said when it was made
        let mut search = Search { kept, extras };
        let came = |last: &[u8]| seen.contains(&self.hasher.hash_one(name::join(path, last)));
        let _ = search.find(&directory, (below, inner), &came, 0); // a directory that cannot be read stays
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
            // One that came was counted then, if it was there.
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

/// How many entries a directory holds, all below it included; nothing if one of them is kept.
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

/// Removes something, or what has the place of something of another kind, unless something that it holds is kept or it has
/// more than `most` entries: how many went, if any. `path` is below the root, `inner` what `kept` is asked about.
pub(super) fn make_way(
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

/// Removes something with all that it holds, never through a symlink.
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
    foreign::spare(parent, last)?;
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
