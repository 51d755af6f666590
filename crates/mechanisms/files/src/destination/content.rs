//! What was asked for, as it comes: where it goes, and what becomes of it.

use super::commit::{self, Ready};
use super::decide::unfinished_trouble;
use super::partial::{self, EVERY};
use super::tell::Ahead;
use super::trouble::{Trouble, explain};
use super::writing::{Into, Open, Writing};
use super::{Destination, Wanted};
use crate::link::LinkError;
use crate::stat;
use crate::verdict::STOPPED;
use postern_wire::copy::{Entry, EntryResult, Fate, Owner};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;

impl Destination<'_> {
    /// Takes what was asked for first, if it is as it has to be; else it stays, to be cleared away.
    pub(super) fn next_wanted(&mut self, fits: impl Fn(&Wanted) -> bool) -> Option<Wanted> {
        if self.wanted.front().is_some_and(fits) { self.wanted.pop_front() } else { None }
    }

    /// Content of what was asked for first begins to come.
    pub(super) fn begin(&mut self, id: u32, offset: u64) -> Result<(), Trouble> {
        if self.writing.is_some() {
            return Err(LinkError::Protocol("a file in the middle of another").into());
        }
        self.replaced = None; // its room may be needed
        let Some(wanted) = self.next_wanted(|wanted| wanted.entry.id == id) else {
            return Err(LinkError::Protocol("content that was not asked for next").into());
        };
        let Wanted { entry, path, size, have, whole, partial, ahead, told, uncut: _, replaces } = wanted;
        self.told = self.told.saturating_sub(told);
        if offset != 0 && offset != have {
            return Err(LinkError::Protocol("content from the wrong place").into());
        }
        let mut beginning = None;
        let into = match partial {
            _ if offset > 0 && whole => Into::Same,
            _ if self.spec.dry_run => Into::Planned,
            Some(partial) if offset > 0 => match partial.go_on(size) {
                Ok((file, begun)) => {
                    beginning = Some(begun);
                    Into::Beside(Open::new(file, None))
                }
                Err(error) => Into::Failed { why: explain("taking it up", error), remove: None },
            },
            left => {
                drop(left); // its lock would keep us out
                match ahead {
                    Some(ahead) => self.go_ahead(ahead, &path, size),
                    None => self.open(&path, size, &entry, replaces.as_deref()),
                }
            }
        };
        self.writing = Some(Writing::new(entry, path, size, into, replaces, (offset, beginning)));
        Ok(())
    }

    /// Goes on with what begins as a copy of the older content.
    fn go_ahead(&mut self, ahead: Ahead, path: &[u8], size: u64) -> Into {
        match partial::make_room(&ahead.file, size) {
            Ok(()) => Into::Beside(Open::ahead(ahead, self.read(path))),
            Err(error) => {
                Into::Failed { why: explain("making room for it", error), remove: Some(ahead.file) }
            }
        }
    }

    fn open(&mut self, path: &[u8], size: u64, entry: &Entry, replaces: Option<&Stat>) -> Into {
        let failed = |why| Into::Failed { why, remove: None };
        let mode = commit::first_mode(self.spec, entry, replaces);
        let old = if self.spec.delta { self.read(path) } else { None };
        let Some(placed) = &mut self.placed else { return failed("it has no place".to_owned()) };
        // One of another owner may be forbidden to be linked (proc_sys_fs(5), protected_hardlinks).
        let own = commit::owner(self.spec, entry, replaces) == Owner::default();
        if replaces.is_none()
            && own
            && size <= EVERY
            && let Some(file) = self.nameless.make(&mut placed.root, path, self.later.is_new(path), mode)
        {
            return Into::Beside(Open::nameless(file));
        }
        let begun = partial::begin(&mut placed.root, path, mode).and_then(|file| {
            partial::make_room(&file, size)?;
            Ok(file)
        });
        match begun {
            Ok(file) => Into::Beside(Open::new(file, old)),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::BUSY) if self.spec.inplace => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK;
                match placed.root.open(path, flags, Mode::empty()) {
                    Ok(file) if locked(&file) => {
                        failed("another copy is writing it at this moment".to_owned())
                    }
                    Ok(file) => match rustix::fs::ftruncate(&file, 0) {
                        Ok(()) => Into::Itself(Open::new(File::from(file), None)),
                        Err(error) => failed(explain("emptying it", error)),
                    },
                    Err(error) => failed(explain("opening it", error)),
                }
            }
            Err(error @ (Errno::TXTBSY | Errno::EXIST)) => failed(unfinished_trouble(error)),
            Err(error) => failed(explain("creating a file beside it", error)),
        }
    }

    /// The source has sent all of a file.
    pub(super) fn end(&mut self, id: u32, hash: [u8; 32]) -> Result<(), Trouble> {
        let writing = self.writing.take().filter(|writing| writing.entry.id == id);
        let Some(mut writing) = writing else { return Err(LinkError::Protocol("the end of no file").into()) };
        let (size, is_whole) = (writing.length(), writing.is_whole());
        let verified = match &writing.into {
            Into::Beside(_) | Into::Itself(_) => writing.verify(hash),
            Into::Same | Into::Planned | Into::Failed { .. } => Ok(()), // nothing of it came to be hashed
        };
        let Writing { entry, path, into, replaces, .. } = writing;
        let (note, fate) = match (into, verified) {
            (Into::Failed { why, remove }, _) => {
                self.forget(&path, remove);
                (why, Fate::Failed)
            }
            // The source compared the hashes.
            (Into::Same, _) if is_whole => {
                let mut note = String::new();
                if !self.spec.dry_run {
                    note = self.redress(&path, &entry);
                    if note.is_empty() {
                        note = self.touch(&path, &entry);
                    }
                }
                self.busy.remove(&path);
                self.bad.remove(&path);
                return self.answer(EntryResult { id, fate: Fate::Same, hash, note });
            }
            (Into::Beside(open), Err(why)) => {
                self.forget(&path, Some(open.close()));
                (why, Fate::Failed)
            }
            (Into::Planned, _) => (String::new(), Fate::Planned),
            (Into::Itself(_), Err(why)) => (why, Fate::Failed),
            (Into::Same, _) => ("it is shorter here than it was".to_owned(), Fate::Failed),
            (Into::Beside(open), Ok(())) => {
                return self.ready(&entry, path, open, replaces.as_deref(), (size, hash));
            }
            (Into::Itself(open), Ok(())) => match finish_itself(&open.file, size, &entry) {
                Ok(()) => {
                    self.busy.remove(&path);
                    self.bad.remove(&path);
                    let note = self.redress(&path, &entry);
                    return self.answer(EntryResult { id, fate: Fate::Written, hash, note });
                }
                Err(error) => (format!("writing it: {error}"), Fate::Failed),
            },
        };
        self.busy.remove(&path);
        self.settle(id, fate, note)
    }

    /// Gives a file that stays what was asked for besides its content: owner, and with `--preserve` mode and attributes.
    pub(super) fn redress(&mut self, path: &[u8], entry: &Entry) -> String {
        if !self.spec.preserve && self.spec.owner == Owner::default() {
            return String::new();
        }
        // By what it is opened as, and not by a name that may have become another's.
        let dressed = self.read(path).and_then(|file| {
            let now = rustix::fs::fstat(&file).ok()?;
            if self.spec.preserve {
                return Some(commit::dress(self.spec, entry, None, &file, &now));
            }
            let owner = commit::owner(self.spec, entry, Some(&now));
            Some(commit::give(owner, &file, &now).unwrap_or_default())
        });
        dressed.unwrap_or_else(|| "its mode and owner could not be looked at".to_owned())
    }

    /// Sets the time of a file whose content was there already.
    fn touch(&mut self, path: &[u8], entry: &Entry) -> String {
        let times = stat::times(entry.stamp);
        let Some(placed) = &mut self.placed else { return String::new() };
        let set = placed.root.parent(path).and_then(|(directory, last)| {
            rustix::fs::utimensat(directory, last, &times, AtFlags::SYMLINK_NOFOLLOW)
        });
        set.err().map(|error| format!("its time could not be set: {error}")).unwrap_or_default()
    }

    /// Content is complete and verified: everything but its name is given to it.
    fn ready(
        &mut self,
        entry: &Entry,
        path: Vec<u8>,
        open: Open,
        replaces: Option<&Stat>,
        (size, hash): (u64, [u8; 32]),
    ) -> Result<(), Trouble> {
        let named = open.named;
        let (file, old) = open.close_both();
        self.replaced = old.or(self.replaced.take());
        // Small files are many: one look serves all that need not be done.
        let finished = rustix::fs::fstat(&file).and_then(|now| {
            let note = commit::dress(self.spec, entry, replaces, &file, &now);
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
        if self.batch.is_full() { Ok(self.commit_beside()?) } else { Ok(()) }
    }

    /// The source cannot send a file, or no more of it.
    pub(super) fn fault(&mut self, id: u32, mut message: String) -> Result<(), Trouble> {
        let mut fate = Fate::Failed;
        let path = match self.writing.take() {
            Some(writing) if writing.entry.id == id => {
                let Writing { path, into, .. } = writing;
                match &into {
                    Into::Failed { why, remove: _ } => message.clone_from(why), // what happened first, and here
                    Into::Planned if message == STOPPED => (fate, message) = (Fate::Planned, String::new()),
                    _ => {}
                }
                self.forget(&path, into.close());
                path
            }
            Some(_) => return Err(LinkError::Protocol("a fault of another file").into()),
            None => match self.next_wanted(|wanted| wanted.entry.id == id) {
                Some(wanted) => self.let_go(wanted),
                None => return Err(LinkError::Protocol("a fault of no file").into()),
            },
        };
        self.busy.remove(&path);
        self.settle(id, fate, message)
    }

    /// Forgets what was begun of a file whose content will not come; its path.
    pub(super) fn let_go(&mut self, wanted: Wanted) -> Vec<u8> {
        let Wanted { path, ahead, told, .. } = wanted;
        self.told = self.told.saturating_sub(told);
        self.forget(&path, ahead.map(|ahead| ahead.file));
        path
    }

    /// Removes an unfinished file of ours that is of no use, while it is locked.
    pub(super) fn forget(&mut self, path: &[u8], file: Option<File>) {
        if let (Some(placed), Some(file)) = (&mut self.placed, file) {
            let _ = commit::remove_partial(&mut placed.root, path, &file); // it may be gone
        }
    }
}

/// Whether someone else holds the lock that a copy takes.
fn locked(file: &rustix::fd::OwnedFd) -> bool {
    let lock = rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    lock == Err(Errno::WOULDBLOCK)
}

/// Ends what was written into the file itself: a hole at its end, its time, and the disk.
fn finish_itself(file: &File, size: u64, entry: &Entry) -> Result<(), Errno> {
    rustix::fs::ftruncate(file, size)?;
    rustix::fs::fsync(file)?;
    rustix::fs::futimens(file, &stat::times(entry.stamp))
}
