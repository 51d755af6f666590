//! Removing what the source has not.

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

/// Deeper than this nothing is removed: each level holds a directory open.
const DEEP: usize = 256;

impl Seen {
    pub(super) fn add(&mut self, path: &[u8]) {
        self.names.insert(self.hasher.hash_one(path));
    }

    /// Removes from the directory at `below` what did not come and is not kept; each path, and whether it went. `kept` is
    /// asked about paths below `inner`, and about what directories to be removed hold: those then stay, with that.
    pub(super) fn extra(
        &mut self,
        path: &[u8],
        root: &mut Root,
        (below, inner): (&[u8], &[u8]),
        kept: &dyn Fn(&[u8], bool) -> bool,
        dry_run: bool,
    ) -> Vec<(Vec<u8>, Result<(), Errno>)> {
        let seen = std::mem::take(&mut self.names);
        let opened = root.open(below, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let Ok(directory) = opened else { return Vec::new() }; // planned only, or said when it was made
        let mut clearing = Clearing { kept, dry_run, gone: Vec::new() };
        let came = |last: &[u8]| {
            name::is_partial(last) || seen.contains(&self.hasher.hash_one(name::join(path, last)))
        };
        let _ = clearing.clear(&directory, Some((below, inner)), &came, 0); // a directory that cannot be read stays
        clearing.gone
    }
}

/// Removes what has the place of something of another kind, if nothing that it holds is kept: whether it went. `path` is
/// below the root, `inner` what `kept` is asked about.
pub(super) fn make_way(
    root: &mut Root,
    path: &[u8],
    inner: &[u8],
    kept: &dyn Fn(&[u8], bool) -> bool,
    dry_run: bool,
) -> Result<bool, Errno> {
    let (parent, last) = root.parent(path)?;
    let parent = parent.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    let mut clearing = Clearing { kept, dry_run, gone: Vec::new() };
    let opened = open(&parent, last).ok();
    if opened.as_ref().is_some_and(|opened| clearing.holds(opened, inner, 0)) {
        return Ok(false);
    }
    if !dry_run {
        clearing.remove(&parent, last, (opened.is_some(), opened), 0)?;
    }
    Ok(true)
}

struct Clearing<'a> {
    kept: &'a dyn Fn(&[u8], bool) -> bool,
    dry_run: bool,
    gone: Vec<(Vec<u8>, Result<(), Errno>)>,
}

impl Clearing<'_> {
    /// Removes what a directory holds, never through a symlink; all of it where it is not said how the paths are told.
    fn clear(
        &mut self,
        directory: &OwnedFd,
        told: Option<(&[u8], &[u8])>,
        came: &dyn Fn(&[u8]) -> bool,
        depth: usize,
    ) -> Result<(), Errno> {
        if depth >= DEEP {
            return Err(Errno::NAMETOOLONG);
        }
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let (last, is_directory) = (entry.file_name().to_bytes(), is_directory(directory, &entry));
            if last == b"." || last == b".." || came(last) {
                continue;
            }
            let opened = if is_directory { open(directory, last).ok() } else { None };
            let Some((below, inner)) = told else {
                self.remove(directory, last, (is_directory, opened), depth)?;
                continue;
            };
            let (shown, path) = (name::join(below, last), name::join(inner, last));
            if (self.kept)(&path, is_directory) {
                continue;
            }
            match opened {
                Some(opened) if self.holds(&opened, &path, depth) => {
                    let _ = self.clear(&opened, Some((&shown, &path)), &|_| false, depth + 1); // as above
                }
                opened => {
                    let removed = if self.dry_run {
                        Ok(())
                    } else {
                        self.remove(directory, last, (is_directory, opened), depth)
                    };
                    self.gone.push((shown, removed));
                }
            }
        }
        Ok(())
    }

    fn remove(
        &mut self,
        directory: &OwnedFd,
        last: &[u8],
        (is_directory, opened): (bool, Option<OwnedFd>),
        depth: usize,
    ) -> Result<(), Errno> {
        if let Some(opened) = opened {
            self.clear(&opened, None, &|_| false, depth + 1)?;
        }
        foreign::spare(directory, last)?;
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(directory, last, flags)
    }

    /// Whether something in a directory is kept.
    fn holds(&self, directory: &OwnedFd, inner: &[u8], depth: usize) -> bool {
        let Ok(entries) = Dir::read_from(directory) else { return false };
        entries.flatten().any(|entry| {
            let last = entry.file_name().to_bytes();
            let (path, is_directory) = (name::join(inner, last), is_directory(directory, &entry));
            last != b"."
                && last != b".."
                && ((self.kept)(&path, is_directory)
                    || is_directory
                        && depth < DEEP
                        && open(directory, last).is_ok_and(|opened| self.holds(&opened, &path, depth + 1)))
        })
    }
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
