//! Writes arriving content to a file.

use super::basis::Prefill;
use super::error::explain;
use super::flusher::Flusher;
use super::partial::{EVERY, KEPT, NOTE, Note};
use crate::hash_tree::{self, ChainingValue, Parts};
use crate::policy;
use crate::prefix_hash::PrefixHash;
use crate::source::zeroes;
use postern_wire::copy::{BLOCK, Entry, UNSIZED};
use rustix::fs::Stat;
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// A file that is being written.
pub(super) struct Writing {
    pub(super) entry: Box<Entry>,
    /// The path below the root.
    pub(super) path: Vec<u8>,
    pub(super) sink: Sink,
    /// The file being replaced.
    pub(super) replaces: Option<Box<Stat>>,
    size: u64,
    offset: u64,
    hasher: Hasher,
    /// Whether the source was told to stop.
    stopped: bool,
}

/// Hash of the content so far.
enum Hasher {
    Whole(blake3::Hasher),
    /// Some parts are hashed separately: in advance, or in the prefix.
    Parts(Parts, Option<PrefixHash>),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Whole(hasher) => {
                hasher.update(bytes);
            }
            Self::Parts(parts, _) => parts.update(bytes),
        }
    }

    /// The hash of the whole content, or why there is none. Call once.
    fn hash(&mut self) -> Result<[u8; 32], String> {
        match self {
            Self::Whole(hasher) => Ok(hasher.finalize().into()),
            Self::Parts(parts, before) => {
                let before = before.take().map_or_else(|| Ok(Vec::new()), PrefixHash::hashes);
                let before = before.map_err(|error| format!("reading its existing part: {error}"))?;
                let parts = std::mem::replace(parts, Parts::new(0)).hashes();
                hash_tree::root(&[before, parts].concat()).ok_or_else(|| policy::DIFFERS.to_owned())
            }
        }
    }
}

/// Where content is written.
pub(super) enum Sink {
    /// Nowhere: the existing file has all of it.
    Same,
    /// A partial file next to the final path.
    Partial(OpenFile),
    /// The existing file itself.
    InPlace(OpenFile),
    /// Nowhere: a dry run found only now that it would be written.
    Planned,
    /// Nowhere: writing failed.
    Failed {
        /// Why, for users.
        why: String,
        /// The partial file to remove. `None` keeps it so that the copy can be resumed.
        remove: Option<File>,
    },
}

impl Sink {
    /// Returns the file to remove, if it was begun and is useless.
    pub(super) fn close(self) -> Option<File> {
        match self {
            Self::Partial(open) => Some(open.close()),
            Self::Failed { why: _, remove } => remove,
            Self::Same | Self::Planned | Self::InPlace(_) => None,
        }
    }
}

/// A file that is open for writing.
pub(super) struct OpenFile {
    pub(super) file: File,
    /// The existing file, if its blocks are reused.
    pub(super) old: Option<File>,
    /// Whether it has the name of a partial file; otherwise it has no name.
    pub(super) named: bool,
    /// Hashes of the parts copied in advance, and the number of bytes copied.
    prefill: Option<(Vec<ChainingValue>, u64)>,
    notes: Option<Flusher>,
    noted: u64,
}

impl OpenFile {
    pub(super) fn new(file: File, old: Option<File>) -> Self {
        Self { file, old, named: true, prefill: None, notes: None, noted: 0 }
    }

    /// A file without a name.
    pub(super) fn unnamed(file: File) -> Self {
        Self { file, old: None, named: false, prefill: None, notes: None, noted: 0 }
    }

    /// A file that starts as a copy of the existing one.
    pub(super) fn prefilled(prefill: Prefill, old: Option<File>) -> Self {
        let Prefill { file, parts, length } = prefill;
        Self { file, old, named: true, prefill: Some((parts, length)), notes: None, noted: 0 }
    }

    /// The file itself, after the trailer is written.
    pub(super) fn close(self) -> File {
        self.close_both().0
    }

    /// The file and the existing file, after the trailer is written.
    pub(super) fn close_both(self) -> (File, Option<File>) {
        let Self { file, old, named: _, prefill: _, notes, noted: _ } = self;
        drop(notes);
        (file, old)
    }
}

impl Writing {
    /// Starts at the beginning, or at the end of a partial file.
    pub(super) fn new(
        entry: Box<Entry>,
        path: Vec<u8>,
        size: u64,
        sink: Sink,
        replaces: Option<Box<Stat>>,
        (offset, beginning): (u64, Option<PrefixHash>),
    ) -> Self {
        let parts = |beginning| Hasher::Parts(Parts::after(hash_tree::part_length(size), offset), beginning);
        let hasher = match (&sink, beginning) {
            (_, Some(beginning)) => parts(Some(beginning)),
            (Sink::Partial(open), None) if open.prefill.is_some() => parts(None),
            _ => Hasher::Whole(blake3::Hasher::new()),
        };
        Self { entry, path, sink, replaces, size, offset, hasher, stopped: false }
    }

    /// Returns the entry once if its content should be stopped. `None` if almost all of it has already been
    /// sent.
    pub(super) fn stops(&mut self) -> Option<u32> {
        let unwanted = matches!(self.sink, Sink::Failed { .. } | Sink::Planned);
        if !unwanted || self.stopped || self.size - self.offset <= BLOCK as u64 {
            return None;
        }
        self.stopped = true;
        Some(self.entry.id)
    }

    /// Checks that the content is complete and has this hash; otherwise returns the error.
    pub(super) fn verify(&mut self, hash: [u8; 32]) -> Result<(), String> {
        if self.offset != self.size && self.size != UNSIZED {
            return Err(policy::DIFFERS.to_owned());
        }
        let gone_on = matches!(&self.hasher, Hasher::Parts(_, Some(_)));
        match self.hasher.hash()? == hash {
            true => Ok(()),
            false if gone_on => Err(policy::RESUMED_DIFFERS.to_owned()),
            false => Err(policy::DIFFERS.to_owned()),
        }
    }

    /// Whether it cannot be resumed: it failed, or its final length is unknown.
    pub(super) fn is_useless(&self) -> bool {
        matches!(self.sink, Sink::Failed { .. } | Sink::Planned) || self.size == UNSIZED
    }

    /// Whether its length is complete.
    pub(super) fn is_whole(&self) -> bool {
        self.offset == self.size
    }

    /// Bytes of content so far.
    pub(super) fn length(&self) -> u64 {
        self.offset
    }

    fn fail(&mut self, why: String) {
        let remove = std::mem::replace(&mut self.sink, Sink::Same).close();
        self.sink = Sink::Failed { why, remove };
    }

    fn check_room(&mut self, length: u64) -> bool {
        let fits = self.offset.checked_add(length).is_some_and(|end| end <= self.size);
        if !fits && !matches!(self.sink, Sink::Failed { .. }) {
            self.fail("received more content than announced".to_owned());
        }
        fits
    }

    fn advance(&mut self, length: u64) {
        self.offset += length;
        let Some(note) = self.note().filter(|_| self.size > EVERY) else { return };
        let Sink::Partial(open) = &mut self.sink else { return };
        if self.offset - open.noted >= EVERY {
            open.noted = self.offset;
            if open.notes.is_none() {
                open.notes = Flusher::start(&open.file);
            }
            if let Some(notes) = &open.notes {
                notes.note(note, self.size);
            }
        }
    }

    fn note(&self) -> Option<Note> {
        (self.size > KEPT && self.size != UNSIZED)
            .then(|| Note::new(self.size, self.entry.stamp, self.offset))
    }

    /// Writes bytes of the content.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        if !self.check_room(bytes.len() as u64) {
            return;
        }
        if let Sink::Partial(open) | Sink::InPlace(open) = &self.sink {
            if let Err(error) = open.file.write_all_at(bytes, self.offset) {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                let why = explain("writing it", errno);
                return match errno {
                    // A disk that stays full is worse than starting over, for other users and for the next
                    // files.
                    Errno::NOSPC | Errno::DQUOT => self.fail(why),
                    _ => self.fail_but_keep(why),
                };
            }
            self.hasher.update(bytes);
            self.advance(bytes.len() as u64);
        }
    }

    /// Writes zeroes as a hole.
    pub(super) fn hole(&mut self, length: u64) {
        if !self.check_room(length) {
            return;
        }
        if let Sink::Partial(open) | Sink::InPlace(open) = &self.sink {
            if open.prefill.as_ref().is_some_and(|(_, end)| self.offset < *end)
                && let Err(error) = empty(&open.file, self.offset, length)
            {
                return self.fail_but_keep(explain("writing it", error));
            }
            zeroes(length, |piece| self.hasher.update(piece));
            self.advance(length);
        }
    }

    /// Accepts parts that are already in place, with the hashes computed when they were copied; returns their
    /// number of bytes.
    fn in_place(&mut self, length: u64) -> u64 {
        let Sink::Partial(OpenFile { prefill: Some((parts, end)), .. }) = &self.sink else { return 0 };
        let Hasher::Parts(hasher, None) = &mut self.hasher else { return 0 };
        let (usual, mut taken) = (hash_tree::part_length(self.size), 0);
        while let Some(edge) = hasher.edge()
            && let Some(hash) = parts.get(edge)
        {
            let begin = edge as u64 * usual;
            let own = usual.min(end.saturating_sub(begin));
            // A short part is the last.
            if taken + own > length || own < usual && begin + own != self.size {
                break;
            }
            hasher.known(*hash);
            taken += own;
        }
        taken
    }

    /// Copies bytes from the existing file.
    pub(super) fn reuse(&mut self, from: u64, length: u64) {
        if !self.check_room(length) {
            return;
        }
        let taken = if from == self.offset { self.in_place(length) } else { 0 };
        if taken > 0 {
            self.advance(taken);
        }
        let (from, length) = (from + taken, length - taken);
        let sparse = match &self.sink {
            Sink::Partial(OpenFile { old: Some(old), .. }) => {
                rustix::fs::fstat(old).is_ok_and(|old| crate::stat::is_sparse(&old))
            }
            _ => false,
        };
        let mut buffer = vec![0; 128 * 1024];
        let (mut at, end) = (from, from.saturating_add(length));
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
            let read = match &self.sink {
                Sink::Partial(OpenFile { old: Some(old), .. }) => {
                    old.read_exact_at(&mut buffer[..wanted], at)
                }
                Sink::Failed { .. } | Sink::Planned => return,
                Sink::Same | Sink::InPlace(_) | Sink::Partial(_) => Err(std::io::ErrorKind::NotFound.into()),
            };
            if read.is_err() {
                return self.fail("the existing file changed meanwhile".to_owned());
            }
            // Keep holes.
            if sparse && buffer[..wanted].iter().all(|byte| *byte == 0) {
                self.hole(wanted as u64);
            } else {
                self.data(&buffer[..wanted]);
            }
            at += wanted as u64;
        }
    }

    fn fail_but_keep(&mut self, mut why: String) {
        if self.size <= EVERY || self.note().is_none() {
            return self.fail(why); // frees space for the next files
        }
        if matches!(&self.sink, Sink::Partial(open) if open.named) {
            why.push_str(&policy::kept(&self.path));
        }
        let sink = std::mem::replace(&mut self.sink, Sink::Failed { why, remove: None });
        self.write_trailer(sink);
    }

    /// Keeps a partial file so that the copy can be resumed. Returns a file without a name, with its path, so
    /// that it can get the name of a partial file.
    pub(super) fn keep(mut self) -> Option<(Vec<u8>, File)> {
        let sink = std::mem::replace(&mut self.sink, Sink::Same);
        let unnamed = self.write_trailer(sink)?;
        Some((self.path, unnamed))
    }

    fn write_trailer(&self, sink: Sink) -> Option<File> {
        let (Sink::Partial(open), Some(note)) = (sink, self.note()) else { return None };
        let OpenFile { file, old: _, named, prefill: _, notes, noted: _ } = open;
        drop(notes); // waits for pending writes of the trailer
        let written = rustix::fs::ftruncate(&file, self.size + NOTE as u64).is_ok()
            && file.sync_data().is_ok()
            && file.write_all_at(&note.encode(), self.size).is_ok();
        // If the disk is full, the previous trailer stays valid.
        (written && !named).then_some(file)
    }
}

/// Replaces written bytes with zeroes, as a hole if the system supports that.
fn empty(file: &File, mut at: u64, length: u64) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::FallocateFlags;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(file, flags, at, length).is_ok() {
            return Ok(());
        }
    }
    let mut written = Ok(());
    zeroes(length, |piece| {
        written = std::mem::replace(&mut written, Ok(())).and_then(|()| file.write_all_at(piece, at));
        at += piece.len() as u64;
    });
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
