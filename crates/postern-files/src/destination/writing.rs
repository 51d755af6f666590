//! Content on its way into a file.

use super::partial::{EVERY, NOTE, Note};
use super::trouble::explain;
use crate::source::zeroes;
use postern_wire::copy::{Entry, UNSIZED};
use rustix::fs::Stat;
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// A file that is being written.
pub(super) struct Writing {
    pub(super) entry: Box<Entry>,
    /// Below the root.
    pub(super) path: Vec<u8>,
    pub(super) into: Into,
    /// The file that it replaces.
    pub(super) replaces: Option<Box<Stat>>,
    size: u64,
    offset: u64,
    hasher: blake3::Hasher,
}

/// Where content goes.
pub(super) enum Into {
    /// Nowhere: what is there has all of it.
    Same,
    /// An unfinished file beside its place.
    Beside(Open),
    /// The file itself.
    Itself(Open),
    /// Nowhere any more.
    Failed {
        /// Why, for people.
        why: String,
        /// What there is of it, to be removed; without it, it stays to be taken up.
        remove: Option<File>,
    },
}

/// A file that is open for writing.
pub(super) struct Open {
    pub(super) file: File,
    /// What has the name now, where blocks of it are used again.
    pub(super) old: Option<File>,
    notes: Option<Notes>,
    noted: u64,
}

impl Open {
    pub(super) fn new(file: File, old: Option<File>) -> Self {
        Self { file, old, notes: None, noted: 0 }
    }

    /// The file alone, once nothing is being noted about it any more.
    pub(super) fn close(self) -> File {
        let Self { file, old: _, notes, noted: _ } = self;
        drop(notes);
        file
    }
}

impl Writing {
    /// From the beginning, or from where an unfinished file ends.
    pub(super) fn new(
        entry: Box<Entry>,
        path: Vec<u8>,
        size: u64,
        into: Into,
        replaces: Option<Box<Stat>>,
        done: Option<(u64, blake3::Hasher)>,
    ) -> Self {
        let (offset, hasher) = done.unwrap_or_default();
        Self { entry, path, into, replaces, size, offset, hasher }
    }

    /// The hash of the content, when all of it came.
    pub(super) fn whole(&self) -> Option<[u8; 32]> {
        (self.offset == self.size || self.size == UNSIZED).then(|| self.hasher.finalize().into())
    }

    /// Bytes of content so far.
    pub(super) fn length(&self) -> u64 {
        self.offset
    }

    fn fail(&mut self, why: String) {
        let remove = match std::mem::replace(&mut self.into, Into::Same) {
            Into::Beside(open) => Some(open.close()),
            Into::Same | Into::Itself(_) | Into::Failed { .. } => None,
        };
        self.into = Into::Failed { why, remove };
    }

    fn room(&mut self, length: u64) -> bool {
        let fits = self.offset.checked_add(length).is_some_and(|end| end <= self.size);
        if !fits && !matches!(self.into, Into::Failed { .. }) {
            self.fail("more content came than was announced".to_owned());
        }
        fits
    }

    fn advance(&mut self, length: u64) {
        self.offset += length;
        let Some(note) = self.note() else { return };
        let Into::Beside(open) = &mut self.into else { return };
        if self.offset - open.noted >= EVERY {
            open.noted = self.offset;
            if open.notes.is_none() {
                open.notes = Notes::start(&open.file, self.size);
            }
            if let Some(notes) = &open.notes {
                let _ = notes.sender.send(note); // without notes it is only begun anew
            }
        }
    }

    fn note(&self) -> Option<Note> {
        (self.size > EVERY && self.size != UNSIZED)
            .then(|| Note::new(self.size, self.entry.stamp, self.offset))
    }

    /// Takes bytes of the content.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        if !self.room(bytes.len() as u64) {
            return;
        }
        if let Into::Beside(open) | Into::Itself(open) = &self.into {
            if let Err(error) = open.file.write_all_at(bytes, self.offset) {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                let why = explain("writing it", errno);
                return self.fail_and_keep(why);
            }
            self.hasher.update(bytes);
            self.advance(bytes.len() as u64);
        }
    }

    /// Takes zeroes that need no room.
    pub(super) fn hole(&mut self, length: u64) {
        if !self.room(length) {
            return;
        }
        if let Into::Beside(_) | Into::Itself(_) = &self.into {
            zeroes(&mut self.hasher, length);
            self.advance(length);
        }
    }

    /// Takes bytes of the file that has the name now.
    pub(super) fn reuse(&mut self, from: u64, length: u64) {
        if !self.room(length) {
            return;
        }
        let mut buffer = vec![0; 128 * 1024];
        let (mut at, end) = (from, from.saturating_add(length));
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
            let read = match &self.into {
                Into::Beside(Open { old: Some(old), .. }) => old.read_exact_at(&mut buffer[..wanted], at),
                Into::Failed { .. } => return,
                Into::Same | Into::Itself(_) | Into::Beside(_) => Err(std::io::ErrorKind::NotFound.into()),
            };
            if read.is_err() {
                return self.fail("the file that it replaces changed meanwhile".to_owned());
            }
            self.data(&buffer[..wanted]);
            at += wanted as u64;
        }
    }

    fn fail_and_keep(&mut self, why: String) {
        if self.note().is_none() {
            return self.fail(why);
        }
        let into = std::mem::replace(&mut self.into, Into::Failed { why, remove: None });
        self.note_down(into);
    }

    /// Leaves an unfinished file so that it can be taken up.
    pub(super) fn keep(mut self) {
        let into = std::mem::replace(&mut self.into, Into::Same);
        self.note_down(into);
    }

    fn note_down(&self, into: Into) {
        if let (Into::Beside(open), Some(note)) = (into, self.note()) {
            let Open { file, old: _, notes, noted: _ } = open;
            drop(notes); // waits for what is being noted
            let written = rustix::fs::ftruncate(&file, self.size + NOTE as u64).is_ok()
                && file.sync_data().is_ok()
                && file.write_all_at(&note.encode(), self.size).is_ok();
            let _ = written; // where the disk is full, the last note holds
        }
    }
}

/// Writes notes beside the writer, each once the content before it is on the disk.
struct Notes {
    sender: Sender<Note>,
    thread: Option<JoinHandle<()>>,
}

impl Notes {
    fn start(file: &File, size: u64) -> Option<Self> {
        let file = file.try_clone().ok()?;
        let (sender, notes) = channel::<Note>();
        let thread = std::thread::spawn(move || {
            while let Ok(mut note) = notes.recv() {
                note = notes.try_iter().last().unwrap_or(note);
                if file.sync_data().is_ok() {
                    let _ = file.write_all_at(&note.encode(), size); // the one before holds
                }
            }
        });
        Some(Self { sender, thread: Some(thread) })
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.sender = channel().0; // the thread ends with the last sender
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Hashes the first bytes of a file.
pub(super) fn hash_up_to(file: &File, end: u64, hasher: &mut blake3::Hasher) -> std::io::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    let mut at = 0;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
        file.read_exact_at(&mut buffer[..wanted], at)?;
        hasher.update(&buffer[..wanted]);
        at += wanted as u64;
    }
    Ok(())
}
