//! Decides whether a file is kept, compared or requested.

use super::basis::{BasisInfo, Queued};
use super::error::{ReceiveError, explain};
use super::partial::{self, Found, KEPT};
use super::{FileReceiver, Wanted};
use crate::prefix_hash::each_up_to;
use crate::{name, policy, stat};
use postern_wire::copy::{Delete, Entry, Fate, FromDestination, Kind, Known, Stamp, UNSIZED, Want};
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;

/// Files below this size are sent whole: a delta would save less than it costs.
const DELTA_FROM: u64 = 256 * 1024;

impl FileReceiver<'_> {
    /// Compares a file with the existing one and requests what is missing.
    pub(super) fn decide(&mut self, entry: Box<Entry>, path: Vec<u8>) -> Result<(), ReceiveError> {
        let Kind::File(size) = entry.kind else { return Ok(()) };
        let there = match self.look(&path) {
            Ok(there) => there,
            Err(error) => return self.settle(entry.id, Fate::Failed, explain("checking its path", error)),
        };
        let there = match there {
            Some(there) => match stat::existing(&there).blocks_file() {
                None => Some(there),
                Some(_) if self.clear_path(&entry, &path)? => None,
                Some(why) => return self.settle(entry.id, Fate::Failed, why.to_owned()),
            },
            None => None,
        };
        if let Some(there) = &there
            && let Some((fate, mut note)) = stat::existing(there).kept(self.spec, &entry, size)
        {
            if fate != Fate::Skipped {
                self.bad.remove(&path);
                if !self.spec.dry_run {
                    note = self.reapply_metadata(&path, &entry);
                }
            }
            return self.settle(entry.id, fate, note);
        }
        let there = there.filter(|there| stat::file_type(there) == FileType::RegularFile);
        if self.reusable(size, there.as_ref()).is_some() && !self.may_send_basis() {
            self.busy.insert(path.clone());
            self.queued.push_back(Queued::Entry(entry, path));
            return Ok(());
        }
        self.ask(entry, path, size, there)
    }

    /// With `delete`, removes an existing entry of another type; returns whether the path is free. A
    /// single-file copy never does this for the file itself.
    pub(super) fn clear_path(&mut self, entry: &Entry, path: &[u8]) -> Result<bool, ReceiveError> {
        let (Some(target), true, 1) = (&mut self.target, self.spec.delete.is_requested(), self.tops) else {
            return Ok(false);
        };
        let inner = name::inner(&entry.path, target.contents);
        let rules = &self.rules;
        let kept = |path: &[u8], directory: bool| rules.excludes(path, directory);
        let most = match self.spec.delete {
            Delete::AtMost(most) => most.saturating_sub(self.extras.going),
            Delete::Percent(_) => 0, // the total is known only at the end
            Delete::Nothing | Delete::Extra | Delete::All => u64::MAX,
        };
        match super::delete::clear_path(&mut target.root, (path, inner), &kept, most, self.spec.dry_run) {
            Ok(Some(going)) => {
                self.extras.going += going;
                self.extras.gone += going;
                self.extras.there += going;
                self.out.put(|buffer| FromDestination::Deleted(path).encode(buffer))?;
                Ok(true)
            }
            Ok(None) | Err(_) => Ok(false), // the caller reports the conflict
        }
    }

    /// The existing file, if its blocks may be reused.
    fn reusable<'s>(&self, size: u64, there: Option<&'s Stat>) -> Option<&'s Stat> {
        // A file far larger than the new one shares too little with it.
        there.filter(|there| {
            self.spec.delta
                && !self.spec.inplace
                && !self.spec.dry_run
                && (DELTA_FROM..UNSIZED).contains(&size)
                && stat::size(there) / 16 <= size
        })
    }

    /// Requests a file's content, or the missing part. In a dry run, requests only content that may already
    /// be there; if it differs, the content is discarded.
    fn ask(
        &mut self,
        entry: Box<Entry>,
        path: Vec<u8>,
        size: u64,
        there: Option<Stat>,
    ) -> Result<(), ReceiveError> {
        let mut want = Want::all(entry.id);
        let older = self.reusable(size, there.as_ref());
        let (mut found, mut basis) = (None, None);
        if let Some(there) = &there
            && stat::existing(there).is_compared(self.spec, &entry, size)
        {
            let hash = match older {
                Some(older) => {
                    basis = self.send_basis(&entry, &path, size, older, false)?;
                    basis.as_ref().and_then(|basis| basis.hash)
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
            // Reported before the content is sent in vain.
            return self.settle(entry.id, Fate::Failed, explain("creating a file next to it", error));
        }
        if !whole && size > KEPT && size != UNSIZED {
            match self.unfinished(&path, size, entry.stamp) {
                Ok(Found::Nothing) => {}
                Ok(Found::Stale) => {
                    return self.settle(entry.id, Fate::Failed, policy::STALE.to_owned());
                }
                Ok(Found::Partial(partial)) => {
                    (want.have, want.partial, want.known) = (partial.good, true, Known::Prefix);
                    found = Some(partial);
                }
                Err(error) => return self.settle(entry.id, Fate::Failed, unfinished_error(error)),
            }
        }
        if let Some(older) = older
            && !whole
            && found.is_none()
            && basis.is_none()
        {
            basis = self.send_basis(&entry, &path, size, older, true)?;
        }
        let (prefill, basis_bytes) = match basis {
            // A resumed partial file needs nothing of the file that it replaces.
            Some(BasisInfo { hash: _, prefill, bytes }) if found.is_none() => (prefill, bytes),
            _ => (None, 0),
        };
        if basis_bytes > 0 {
            want.known = Known::Blocks;
        }
        self.basis_bytes += basis_bytes;
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
            prefill,
            basis_bytes,
            may_send_chunks: basis_bytes > 0,
            replaces,
        });
        Ok(())
    }

    /// Whether a file can be created next to this path, according to its directory's mode and mount.
    fn may_write(&mut self, path: &[u8]) -> Result<(), Errno> {
        let Some(target) = &mut self.target else { return Ok(()) };
        let parent = crate::name::split(path).0;
        if self.writable.as_deref() == Some(parent) {
            return Ok(());
        }
        let (directory, _) = target.root.parent(path)?;
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        match rustix::fs::accessat(directory, c".", wanted, AtFlags::EACCESS) {
            Err(error @ (Errno::ACCESS | Errno::ROFS)) => Err(error),
            // A kernel without faccessat2(2) reports it when the file is created.
            _ => {
                self.writable = Some(parent.to_vec());
                Ok(())
            }
        }
    }

    /// The current entry at a path, if any.
    pub(super) fn look(&mut self, path: &[u8]) -> Result<Option<Stat>, Errno> {
        let Some(target) = self.target.as_mut().filter(|target| !target.missing) else { return Ok(None) };
        let found = target
            .root
            .parent(path)
            .and_then(|(directory, last)| rustix::fs::statat(directory, last, AtFlags::SYMLINK_NOFOLLOW));
        match found {
            Ok(found) => Ok(Some(found)),
            // In a dry run, the directory may only be planned, in place of another entry.
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) if self.spec.dry_run => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn read(&mut self, path: &[u8]) -> Option<File> {
        let target = self.target.as_mut()?;
        target.root.open(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).ok().map(File::from)
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
        match &mut self.target {
            Some(target) => partial::find(&mut target.root, path, size, stamp),
            None => Ok(Found::Nothing),
        }
    }
}

/// Why a partial file cannot be used.
pub(super) fn unfinished_error(error: Errno) -> String {
    match error {
        Errno::TXTBSY => "another copy is writing it".to_owned(),
        Errno::EXIST => {
            "a file with the name of its unfinished file exists and is not ours; remove it".to_owned()
        }
        other => explain("opening its unfinished file", other),
    }
}
