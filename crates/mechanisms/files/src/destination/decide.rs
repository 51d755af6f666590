//! What is done about a file: left alone, compared with what is there, or wanted.

use super::partial::{self, Found, KEPT};
use super::tell::{Deferred, Told};
use super::trouble::{Trouble, explain};
use super::{DIRECTORY, Destination, Wanted};
use crate::beginning::each_up_to;
use crate::{name, stat, verdict};
use postern_wire::copy::{Compare, Delete, Entry, Fate, FromDestination, Kind, Known, Stamp, UNSIZED, Want};
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;

/// Files below this size are sent whole: what could be found again is not worth the question.
const DELTA_FROM: u64 = 256 * 1024;

impl Destination<'_> {
    /// A file: what is there, and what is wanted of it.
    pub(super) fn decide(&mut self, entry: Box<Entry>, path: Vec<u8>) -> Result<(), Trouble> {
        let Kind::File(size) = entry.kind else { return Ok(()) };
        let there = match self.look(&path) {
            Ok(there) => there,
            Err(error) => return self.settle(entry.id, Fate::Failed, explain("looking at its place", error)),
        };
        let there = match there {
            // A symlink is replaced, not followed.
            Some(there) if !matches!(stat::file_type(&there), FileType::RegularFile | FileType::Symlink) => {
                if !self.make_way(&entry, &path)? {
                    let why = match stat::file_type(&there) {
                        FileType::Directory => DIRECTORY,
                        _ => "a device, fifo or socket has its place",
                    };
                    return self.settle(entry.id, Fate::Failed, why.to_owned());
                }
                None
            }
            there => there,
        };
        if let Some(there) = &there
            && let Some((fate, mut note)) = self.left_alone(&entry, size, there)
        {
            if fate != Fate::Skipped {
                self.bad.remove(&path);
                if !self.spec.dry_run {
                    note = self.redress(&path, &entry);
                }
            }
            return self.settle(entry.id, fate, note);
        }
        let there = there.filter(|there| stat::file_type(there) == FileType::RegularFile);
        if self.older(size, there.as_ref()).is_some() && !self.may_tell() {
            self.busy.insert(path.clone());
            self.deferred.push_back(Deferred::Entry(entry, path));
            return Ok(());
        }
        self.ask(entry, path, size, there)
    }

    /// With `delete`, what has the place of something of another kind goes: whether the place is free. It is no file of this
    /// copy where that has one source.
    pub(super) fn make_way(&mut self, entry: &Entry, path: &[u8]) -> Result<bool, Trouble> {
        let (Some(placed), true, 1) = (&mut self.placed, self.spec.delete.is_asked(), self.tops) else {
            return Ok(false);
        };
        let inner = name::inner(&entry.path, placed.contents);
        let rules = &self.rules;
        let kept = |path: &[u8], directory: bool| rules.excludes(path, directory);
        let most = match self.spec.delete {
            Delete::AtMost(most) => most.saturating_sub(self.extras.going),
            Delete::Percent(_) => 0, // of how much is known at the end only
            Delete::Nothing | Delete::Extra | Delete::All => u64::MAX,
        };
        match super::delete::make_way(&mut placed.root, (path, inner), &kept, most, self.spec.dry_run) {
            Ok(Some(going)) => {
                self.extras.going += going;
                self.extras.gone += going;
                self.extras.there += going;
                self.out.put(|buffer| FromDestination::Deleted(path).encode(buffer))?;
                Ok(true)
            }
            Ok(None) | Err(_) => Ok(false), // it is said what has the place
        }
    }

    /// What of there may be used again block by block.
    fn older<'s>(&self, size: u64, there: Option<&'s Stat>) -> Option<&'s Stat> {
        // Of one that is far larger than what comes, little can be found again.
        there.filter(|there| {
            self.spec.delta
                && !self.spec.inplace
                && !self.spec.dry_run
                && (DELTA_FROM..UNSIZED).contains(&size)
                && stat::size(there) / 16 <= size
        })
    }

    /// Whether the content there is compared with the source's by hash, before any is sent.
    fn compares(&self, entry: &Entry, size: u64, there: &Stat) -> bool {
        let times = || verdict::same_time(stat::stamp(there), entry.stamp);
        stat::size(there) == size && size > 0 && (self.spec.compare == Compare::Hash || times())
    }

    /// Asks for a file's content, or for what of it is not there yet. In a dry run only for what may be there already: what
    /// comes then is of another content, and is let go.
    fn ask(
        &mut self,
        entry: Box<Entry>,
        path: Vec<u8>,
        size: u64,
        there: Option<Stat>,
    ) -> Result<(), Trouble> {
        let mut want = Want::all(entry.id);
        let older = self.older(size, there.as_ref());
        let (mut found, mut told) = (None, None);
        if let Some(there) = &there
            && self.compares(&entry, size, there)
        {
            let hash = match older {
                Some(older) => {
                    told = self.tell(&entry, &path, size, older, false)?;
                    told.as_ref().and_then(|told| told.hash)
                }
                None => self.hash(&path, size),
            };
            if let Some(hash) = hash {
                (want.have, want.hash) = (size, hash);
            }
        }
        let whole = want.have > 0;
        if self.spec.dry_run && !whole {
            return self.settle(entry.id, Fate::Planned, String::new());
        }
        if !whole
            && !self.spec.inplace
            && let Err(error) = self.may_write(&path)
        {
            // Said before the content was sent for nothing.
            return self.settle(entry.id, Fate::Failed, explain("creating a file beside it", error));
        }
        if !whole && size > KEPT && size != UNSIZED {
            match self.unfinished(&path, size, entry.stamp) {
                Ok(Found::Nothing) => {}
                Ok(Found::Stale) => {
                    return self.settle(entry.id, Fate::Failed, verdict::STALE.to_owned());
                }
                Ok(Found::Partial(partial)) => {
                    (want.have, want.partial, want.known) = (partial.good, true, Known::Prefix);
                    found = Some(partial);
                }
                Err(error) => return self.settle(entry.id, Fate::Failed, unfinished_trouble(error)),
            }
        }
        if let Some(older) = older
            && !whole
            && found.is_none()
            && told.is_none()
        {
            told = self.tell(&entry, &path, size, older, true)?;
        }
        let (ahead, told) = match told {
            // What is taken up needs nothing of what it replaces.
            Some(Told { hash: _, ahead, bytes }) if found.is_none() => (ahead, bytes),
            _ => (None, 0),
        };
        if told > 0 {
            want.known = Known::Blocks;
        }
        self.told += told;
        self.out.put(|buffer| FromDestination::Want(want).encode(buffer))?;
        self.busy.insert(path.clone());
        let replaces = there.map(Box::new);
        let have = want.have;
        self.wanted.push_back(Wanted {
            entry,
            path,
            size,
            have,
            whole,
            partial: found,
            ahead,
            told,
            uncut: told > 0,
            replaces,
        });
        Ok(())
    }

    /// Whether a file can be made beside this path, as far as its directory's mode and mount say.
    fn may_write(&mut self, path: &[u8]) -> Result<(), Errno> {
        let Some(placed) = &mut self.placed else { return Ok(()) };
        let parent = crate::name::split(path).0;
        if self.writable.as_deref() == Some(parent) {
            return Ok(());
        }
        let (directory, _) = placed.root.parent(path)?;
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        match rustix::fs::accessat(directory, c".", wanted, AtFlags::EACCESS) {
            Err(error @ (Errno::ACCESS | Errno::ROFS)) => Err(error),
            // A kernel without faccessat2(2) says it when the file is made.
            _ => {
                self.writable = Some(parent.to_vec());
                Ok(())
            }
        }
    }

    /// What has the place now, if anything.
    pub(super) fn look(&mut self, path: &[u8]) -> Result<Option<Stat>, Errno> {
        let Some(placed) = self.placed.as_mut().filter(|placed| !placed.missing) else { return Ok(None) };
        let found = placed
            .root
            .parent(path)
            .and_then(|(directory, last)| rustix::fs::statat(directory, last, AtFlags::SYMLINK_NOFOLLOW));
        match found {
            Ok(found) => Ok(Some(found)),
            // In a dry run the directory may only be planned, in place of what is none.
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) if self.spec.dry_run => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a file is left as it is, without a look at its content.
    fn left_alone(&self, entry: &Entry, size: u64, there: &Stat) -> Option<(Fate, String)> {
        if stat::file_type(there) != FileType::RegularFile {
            return None;
        }
        verdict::left_alone(self.spec, entry, size, stat::size(there), stat::stamp(there))
    }

    pub(super) fn read(&mut self, path: &[u8]) -> Option<File> {
        let placed = self.placed.as_mut()?;
        placed.root.open(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).ok().map(File::from)
    }

    fn hash(&mut self, path: &[u8], size: u64) -> Option<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let read = each_up_to(&self.read(path)?, size, |piece| {
            hasher.update(piece);
            true
        });
        read.ok()?;
        Some(hasher.finalize().into())
    }

    fn unfinished(&mut self, path: &[u8], size: u64, stamp: Stamp) -> Result<Found, Errno> {
        match &mut self.placed {
            Some(placed) => partial::find(&mut placed.root, path, size, stamp),
            None => Ok(Found::Nothing),
        }
    }
}

/// Why an unfinished file cannot be had.
pub(super) fn unfinished_trouble(error: Errno) -> String {
    match error {
        Errno::TXTBSY => "another copy is writing it at this moment".to_owned(),
        Errno::EXIST => "what has the name of its unfinished file is not ours; remove it".to_owned(),
        other => explain("opening its unfinished file", other),
    }
}
