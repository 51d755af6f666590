//! Handles requested content as it arrives.

use super::basis::Prefill;
use super::commit::{self, Ready};
use super::decide::unfinished_error;
use super::error::{ReceiveError, explain};
use super::partial::{self, EVERY};
use super::writing::{OpenFile, Sink, Writing};
use super::{FileReceiver, Wanted};
use crate::link::LinkError;
use crate::policy::STOPPED;
use crate::stat;
use postern_wire::copy::{Entry, EntryResult, Fate, Owner};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;

impl FileReceiver<'_> {
    /// Takes the first requested entry if `fits` accepts it; otherwise it stays in the queue for cleanup.
    pub(super) fn next_wanted(&mut self, fits: impl Fn(&Wanted) -> bool) -> Option<Wanted> {
        if self.wanted.front().is_some_and(fits) { self.wanted.pop_front() } else { None }
    }

    /// Starts the content of the first requested entry.
    pub(super) fn begin(&mut self, id: u32, offset: u64) -> Result<(), ReceiveError> {
        if self.writing.is_some() {
            return Err(LinkError::Protocol("a file started within another").into());
        }
        self.replaced = None; // its disk space may be needed
        let Some(wanted) = self.next_wanted(|wanted| wanted.entry.id == id) else {
            return Err(LinkError::Protocol("content that was not requested next").into());
        };
        let Wanted {
            entry,
            path,
            size,
            have,
            whole,
            partial,
            prefill,
            basis_bytes,
            may_send_chunks: _,
            replaces,
        } = wanted;
        self.basis_bytes = self.basis_bytes.saturating_sub(basis_bytes);
        if offset != 0 && offset != have {
            return Err(LinkError::Protocol("content at the wrong offset").into());
        }
        let mut beginning = None;
        let sink = match partial {
            _ if offset > 0 && whole => Sink::Same,
            _ if self.spec.dry_run => Sink::Planned,
            Some(partial) if offset > 0 => match partial.resume(size) {
                Ok((file, begun)) => {
                    beginning = Some(begun);
                    Sink::Partial(OpenFile::new(file, None))
                }
                Err(error) => Sink::Failed { why: explain("resuming it", error), remove: None },
            },
            left => {
                drop(left); // releases its lock, which would block us
                match prefill {
                    Some(prefill) => self.start_prefilled(prefill, &path, size),
                    None => self.open(&path, size, &entry, replaces.as_deref()),
                }
            }
        };
        self.writing = Some(Writing::new(entry, path, size, sink, replaces, (offset, beginning)));
        Ok(())
    }

    /// Starts from a copy of the older content.
    fn start_prefilled(&mut self, prefill: Prefill, path: &[u8], size: u64) -> Sink {
        match partial::allocate(&prefill.file, size) {
            Ok(()) => Sink::Partial(OpenFile::prefilled(prefill, self.read(path))),
            Err(error) => {
                Sink::Failed { why: explain("allocating space for it", error), remove: Some(prefill.file) }
            }
        }
    }

    fn open(&mut self, path: &[u8], size: u64, entry: &Entry, replaces: Option<&Stat>) -> Sink {
        let failed = |why| Sink::Failed { why, remove: None };
        let mode = commit::initial_mode(self.spec, entry, replaces);
        let old = if self.spec.delta { self.read(path) } else { None };
        let Some(target) = &mut self.target else {
            return failed("internal error: no target directory".to_owned());
        };
        // Linking a file of another owner may be forbidden (proc_sys_fs(5), protected_hardlinks).
        let own = commit::owner(self.spec, entry, replaces) == Owner::default();
        if replaces.is_none()
            && own
            && size <= EVERY
            && let Some(file) = self.unnamed.make(&mut target.root, path, self.deferred.is_new(path), mode)
        {
            return Sink::Partial(OpenFile::unnamed(file));
        }
        let begun = partial::begin(&mut target.root, path, mode).and_then(|file| {
            partial::allocate(&file, size)?;
            Ok(file)
        });
        match begun {
            Ok(file) => Sink::Partial(OpenFile::new(file, old)),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::BUSY) if self.spec.inplace => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK;
                match target.root.open(path, flags, Mode::empty()) {
                    Ok(file) if locked(&file) => failed("another copy is writing it".to_owned()),
                    Ok(file) => match rustix::fs::ftruncate(&file, 0) {
                        Ok(()) => Sink::InPlace(OpenFile::new(File::from(file), None)),
                        Err(error) => failed(explain("emptying it", error)),
                    },
                    Err(error) => failed(explain("opening it", error)),
                }
            }
            Err(error @ (Errno::TXTBSY | Errno::EXIST)) => failed(unfinished_error(error)),
            Err(error) => failed(explain("creating a file next to it", error)),
        }
    }

    /// Ends the content of a file.
    pub(super) fn end(&mut self, id: u32, hash: [u8; 32]) -> Result<(), ReceiveError> {
        let writing = self.writing.take().filter(|writing| writing.entry.id == id);
        let Some(mut writing) = writing else {
            return Err(LinkError::Protocol("the end of an unknown file").into());
        };
        let (size, is_whole) = (writing.length(), writing.is_whole());
        let verified = match &writing.sink {
            Sink::Partial(_) | Sink::InPlace(_) => writing.verify(hash),
            Sink::Same | Sink::Planned | Sink::Failed { .. } => Ok(()), // there is no content to hash
        };
        let Writing { entry, path, sink, replaces, .. } = writing;
        let (note, fate) = match (sink, verified) {
            (Sink::Failed { why, remove }, _) => {
                self.remove_useless(&path, remove);
                (why, Fate::Failed)
            }
            // The source compared the hashes.
            (Sink::Same, _) if is_whole => {
                let mut note = String::new();
                if !self.spec.dry_run {
                    note = self.reapply_metadata(&path, &entry);
                    if note.is_empty() {
                        note = self.set_time(&path, &entry);
                    }
                }
                self.busy.remove(&path);
                self.bad.remove(&path);
                return self.answer(EntryResult { id, fate: Fate::Same, hash, note });
            }
            (Sink::Partial(open), Err(why)) => {
                self.remove_useless(&path, Some(open.close()));
                (why, Fate::Failed)
            }
            (Sink::Planned, _) => (String::new(), Fate::Planned),
            (Sink::InPlace(_), Err(why)) => (why, Fate::Failed),
            (Sink::Same, _) => ("the existing file became shorter meanwhile".to_owned(), Fate::Failed),
            (Sink::Partial(open), Ok(())) => {
                return self.ready(&entry, path, open, replaces.as_deref(), (size, hash));
            }
            (Sink::InPlace(open), Ok(())) => match finish_in_place(&open.file, size, &entry) {
                Ok(()) => {
                    self.busy.remove(&path);
                    self.bad.remove(&path);
                    let note = self.reapply_metadata(&path, &entry);
                    return self.answer(EntryResult { id, fate: Fate::Written, hash, note });
                }
                Err(error) => (format!("writing it: {error}"), Fate::Failed),
            },
        };
        self.busy.remove(&path);
        self.settle(id, fate, note)
    }

    /// Sets the requested metadata of a file that is kept: owner, and with `--preserve` mode and attributes.
    pub(super) fn reapply_metadata(&mut self, path: &[u8], entry: &Entry) -> String {
        if !self.spec.preserve && self.spec.owner == Owner::default() {
            return String::new();
        }
        // Uses the open file, because its name may refer to another file by now.
        let dressed = self.read(path).and_then(|file| {
            let now = rustix::fs::fstat(&file).ok()?;
            if self.spec.preserve {
                return Some(commit::apply_metadata(self.spec, entry, None, &file, &now));
            }
            let owner = commit::owner(self.spec, entry, Some(&now));
            Some(commit::set_owner(owner, &file, &now).unwrap_or_default())
        });
        dressed.unwrap_or_else(|| "its mode and owner could not be read".to_owned())
    }

    /// Sets the time of a file whose content was already there.
    fn set_time(&mut self, path: &[u8], entry: &Entry) -> String {
        let times = stat::times(entry.stamp);
        let Some(target) = &mut self.target else { return String::new() };
        let set = target.root.parent(path).and_then(|(directory, last)| {
            rustix::fs::utimensat(directory, last, &times, AtFlags::SYMLINK_NOFOLLOW)
        });
        set.err().map(|error| format!("its time could not be set: {error}")).unwrap_or_default()
    }

    /// The content is complete and verified: sets everything but the final name.
    fn ready(
        &mut self,
        entry: &Entry,
        path: Vec<u8>,
        open: OpenFile,
        replaces: Option<&Stat>,
        (size, hash): (u64, [u8; 32]),
    ) -> Result<(), ReceiveError> {
        let named = open.named;
        let (file, old) = open.close_both();
        self.replaced = old.or(self.replaced.take());
        // Small files are common: one stat shows what need not be set.
        let finished = rustix::fs::fstat(&file).and_then(|now| {
            let note = commit::apply_metadata(self.spec, entry, replaces, &file, &now);
            if stat::size(&now) != size {
                rustix::fs::ftruncate(&file, size)?;
            }
            rustix::fs::futimens(&file, &stat::times(entry.stamp))?;
            if size > EVERY {
                rustix::fs::fsync(&file)?;
            }
            Ok((now, note))
        });
        let (now, note) = match finished {
            Ok(finished) => finished,
            Err(error) => {
                self.busy.remove(&path);
                return self.settle(entry.id, Fate::Failed, explain("finishing it", error));
            }
        };
        let settled = EntryResult { id: entry.id, fate: Fate::Written, hash, note };
        self.batch.push(
            Ready { path, settled, synced: size > EVERY, lock: file, stat: named.then_some(now) },
            size,
        );
        if self.batch.is_full() { Ok(self.commit_in_background()?) } else { Ok(()) }
    }

    /// The source cannot send a file, or no more of it.
    pub(super) fn fault(&mut self, id: u32, mut message: String) -> Result<(), ReceiveError> {
        let mut fate = Fate::Failed;
        let path = match self.writing.take() {
            Some(writing) if writing.entry.id == id => {
                let Writing { path, sink, .. } = writing;
                match &sink {
                    // The first error, at this end.
                    Sink::Failed { why, remove: _ } => message.clone_from(why),
                    Sink::Planned if message == STOPPED => (fate, message) = (Fate::Planned, String::new()),
                    _ => {}
                }
                self.remove_useless(&path, sink.close());
                path
            }
            Some(_) => return Err(LinkError::Protocol("an error for another file").into()),
            None => match self.next_wanted(|wanted| wanted.entry.id == id) {
                Some(wanted) => self.discard(wanted),
                None => return Err(LinkError::Protocol("an error for an unknown file").into()),
            },
        };
        self.busy.remove(&path);
        self.settle(id, fate, message)
    }

    /// Discards what was begun for a file whose content will not arrive; returns its path.
    pub(super) fn discard(&mut self, wanted: Wanted) -> Vec<u8> {
        let Wanted { path, prefill, basis_bytes, .. } = wanted;
        self.basis_bytes = self.basis_bytes.saturating_sub(basis_bytes);
        self.remove_useless(&path, prefill.map(|prefill| prefill.file));
        path
    }

    /// Removes a useless partial file of ours while it is locked.
    pub(super) fn remove_useless(&mut self, path: &[u8], file: Option<File>) {
        if let (Some(target), Some(file)) = (&mut self.target, file) {
            let _ = commit::remove_partial(&mut target.root, path, &file); // it may already be gone
        }
    }
}

/// Whether another process holds the lock of a copy.
fn locked(file: &rustix::fd::OwnedFd) -> bool {
    let lock = rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    lock == Err(Errno::WOULDBLOCK)
}

/// Finishes a file that was written in place: a trailing hole, its time, and flushing it to disk.
fn finish_in_place(file: &File, size: u64, entry: &Entry) -> Result<(), Errno> {
    rustix::fs::ftruncate(file, size)?;
    rustix::fs::fsync(file)?;
    rustix::fs::futimens(file, &stat::times(entry.stamp))
}
