//! Content on its way into a file.

use super::partial::{EVERY, KEPT, NOTE, Note};
use super::tell::Ahead;
use super::trouble::explain;
use crate::beginning::Beginning;
use crate::source::zeroes;
use crate::tree::{self, ChainingValue, Parts};
use crate::verdict;
use postern_wire::copy::{BLOCK, Entry, UNSIZED};
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
    hasher: Hasher,
    /// The source was told that no more of it is taken.
    stopped: bool,
}

/// The hash of what came so far.
enum Hasher {
    Whole(blake3::Hasher),
    /// Where some parts of it are hashed apart: before it came, or at its beginning.
    Parts(Parts, Option<Beginning>),
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

    /// The hash of it all, asked for once, or why there is none.
    fn hash(&mut self) -> Result<[u8; 32], String> {
        match self {
            Self::Whole(hasher) => Ok(hasher.finalize().into()),
            Self::Parts(parts, before) => {
                let before = before.take().map_or_else(|| Ok(Vec::new()), Beginning::hashes);
                let before = before.map_err(|error| format!("reading what was there of it: {error}"))?;
                let parts = std::mem::replace(parts, Parts::new(0)).hashes();
                tree::root(&[before, parts].concat()).ok_or_else(|| verdict::DIFFERS.to_owned())
            }
        }
    }
}

/// Where content goes.
pub(super) enum Into {
    /// Nowhere: what is there has all of it.
    Same,
    /// An unfinished file beside its place.
    Beside(Open),
    /// The file itself.
    Itself(Open),
    /// Nowhere: in a dry run it is only known by now that it would be written.
    Planned,
    /// Nowhere any more.
    Failed {
        /// Why, for people.
        why: String,
        /// What there is of it, to be removed; without it, it stays to be taken up.
        remove: Option<File>,
    },
}

impl Into {
    /// What was begun and is of no use, to be removed.
    pub(super) fn close(self) -> Option<File> {
        match self {
            Self::Beside(open) => Some(open.close()),
            Self::Failed { why: _, remove } => remove,
            Self::Same | Self::Planned | Self::Itself(_) => None,
        }
    }
}

/// A file that is open for writing.
pub(super) struct Open {
    pub(super) file: File,
    /// What has the name now, where blocks of it are used again.
    pub(super) old: Option<File>,
    /// It has the name of an unfinished file, rather than none.
    pub(super) named: bool,
    /// Hashes of the parts of it that were copied ahead, and how many bytes that were.
    ahead: Option<(Vec<ChainingValue>, u64)>,
    notes: Option<Flusher>,
    noted: u64,
}

impl Open {
    pub(super) fn new(file: File, old: Option<File>) -> Self {
        Self { file, old, named: true, ahead: None, notes: None, noted: 0 }
    }

    /// One that has no name.
    pub(super) fn nameless(file: File) -> Self {
        Self { file, old: None, named: false, ahead: None, notes: None, noted: 0 }
    }

    /// One that begins as a copy of what has the name now.
    pub(super) fn ahead(ahead: Ahead, old: Option<File>) -> Self {
        let Ahead { file, parts, length } = ahead;
        Self { file, old, named: true, ahead: Some((parts, length)), notes: None, noted: 0 }
    }

    /// The file alone, once nothing is being noted about it any more.
    pub(super) fn close(self) -> File {
        self.close_both().0
    }

    /// The same, with what has the name now.
    pub(super) fn close_both(self) -> (File, Option<File>) {
        let Self { file, old, named: _, ahead: _, notes, noted: _ } = self;
        drop(notes);
        (file, old)
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
        (offset, beginning): (u64, Option<Beginning>),
    ) -> Self {
        let parts = |beginning| Hasher::Parts(Parts::after(tree::part_length(size), offset), beginning);
        let hasher = match (&into, beginning) {
            (_, Some(beginning)) => parts(Some(beginning)),
            (Into::Beside(open), None) if open.ahead.is_some() => parts(None),
            _ => Hasher::Whole(blake3::Hasher::new()),
        };
        Self { entry, path, into, replaces, size, offset, hasher, stopped: false }
    }

    /// Once, the entry of which no more is to be sent; nothing where as good as all of it is on its way.
    pub(super) fn stops(&mut self) -> Option<u32> {
        let unwanted = matches!(self.into, Into::Failed { .. } | Into::Planned);
        if !unwanted || self.stopped || self.size - self.offset <= BLOCK as u64 {
            return None;
        }
        self.stopped = true;
        Some(self.entry.id)
    }

    /// Whether all of the content came, and has this hash; else why it is of no use.
    pub(super) fn verify(&mut self, hash: [u8; 32]) -> Result<(), String> {
        if self.offset != self.size && self.size != UNSIZED {
            return Err(verdict::DIFFERS.to_owned());
        }
        let gone_on = matches!(&self.hasher, Hasher::Parts(_, Some(_)));
        match self.hasher.hash()? == hash {
            true => Ok(()),
            false if gone_on => Err(verdict::ANOTHER.to_owned()),
            false => Err(verdict::DIFFERS.to_owned()),
        }
    }

    /// Whether nobody can go on with it: it failed, or nobody knows how long it was to be.
    pub(super) fn is_useless(&self) -> bool {
        matches!(self.into, Into::Failed { .. } | Into::Planned) || self.size == UNSIZED
    }

    /// Whether all of the content is there, as far as its length says.
    pub(super) fn is_whole(&self) -> bool {
        self.offset == self.size
    }

    /// Bytes of content so far.
    pub(super) fn length(&self) -> u64 {
        self.offset
    }

    fn fail(&mut self, why: String) {
        let remove = std::mem::replace(&mut self.into, Into::Same).close();
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
        let Some(note) = self.note().filter(|_| self.size > EVERY) else { return };
        let Into::Beside(open) = &mut self.into else { return };
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

    /// Takes bytes of the content.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        if !self.room(bytes.len() as u64) {
            return;
        }
        if let Into::Beside(open) | Into::Itself(open) = &self.into {
            if let Err(error) = open.file.write_all_at(bytes, self.offset) {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                let why = explain("writing it", errno);
                return match errno {
                    // A disk that stays full is worse, for who works there and for the next files, than to begin again.
                    Errno::NOSPC | Errno::DQUOT => self.fail(why),
                    _ => self.fail_and_keep(why),
                };
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
        if let Into::Beside(open) | Into::Itself(open) = &self.into {
            if open.ahead.as_ref().is_some_and(|(_, end)| self.offset < *end)
                && let Err(error) = empty(&open.file, self.offset, length)
            {
                return self.fail_and_keep(explain("writing it", error));
            }
            zeroes(length, |piece| self.hasher.update(piece));
            self.advance(length);
        }
    }

    /// Takes parts that lie there already, as they were hashed when they were copied; how many bytes those are.
    fn in_place(&mut self, length: u64) -> u64 {
        let Into::Beside(Open { ahead: Some((parts, end)), .. }) = &self.into else { return 0 };
        let Hasher::Parts(hasher, None) = &mut self.hasher else { return 0 };
        let (usual, mut taken) = (tree::part_length(self.size), 0);
        while let Some(edge) = hasher.edge()
            && let Some(hash) = parts.get(edge)
        {
            let begin = edge as u64 * usual;
            let own = usual.min(end.saturating_sub(begin));
            // A short one is the last.
            if taken + own > length || own < usual && begin + own != self.size {
                break;
            }
            hasher.known(*hash);
            taken += own;
        }
        taken
    }

    /// Takes bytes of the file that has the name now.
    pub(super) fn reuse(&mut self, from: u64, length: u64) {
        if !self.room(length) {
            return;
        }
        let taken = if from == self.offset { self.in_place(length) } else { 0 };
        if taken > 0 {
            self.advance(taken);
        }
        let (from, length) = (from + taken, length - taken);
        let sparse = match &self.into {
            Into::Beside(Open { old: Some(old), .. }) => {
                rustix::fs::fstat(old).is_ok_and(|old| crate::stat::is_sparse(&old))
            }
            _ => false,
        };
        let mut buffer = vec![0; 128 * 1024];
        let (mut at, end) = (from, from.saturating_add(length));
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
            let read = match &self.into {
                Into::Beside(Open { old: Some(old), .. }) => old.read_exact_at(&mut buffer[..wanted], at),
                Into::Failed { .. } | Into::Planned => return,
                Into::Same | Into::Itself(_) | Into::Beside(_) => Err(std::io::ErrorKind::NotFound.into()),
            };
            if read.is_err() {
                return self.fail("the file that it replaces changed meanwhile".to_owned());
            }
            // A hole stays one.
            if sparse && buffer[..wanted].iter().all(|byte| *byte == 0) {
                self.hole(wanted as u64);
            } else {
                self.data(&buffer[..wanted]);
            }
            at += wanted as u64;
        }
    }

    fn fail_and_keep(&mut self, mut why: String) {
        if self.size <= EVERY || self.note().is_none() {
            return self.fail(why); // the next files may fit
        }
        if matches!(&self.into, Into::Beside(open) if open.named) {
            why.push_str(&verdict::kept(&self.path));
        }
        let into = std::mem::replace(&mut self.into, Into::Failed { why, remove: None });
        self.note_down(into);
    }

    /// Leaves an unfinished file so that it can be taken up. One that has no name is given back, with its path, to get that
    /// of an unfinished file.
    pub(super) fn keep(mut self) -> Option<(Vec<u8>, File)> {
        let into = std::mem::replace(&mut self.into, Into::Same);
        let nameless = self.note_down(into)?;
        Some((self.path, nameless))
    }

    fn note_down(&self, into: Into) -> Option<File> {
        let (Into::Beside(open), Some(note)) = (into, self.note()) else { return None };
        let Open { file, old: _, named, ahead: _, notes, noted: _ } = open;
        drop(notes); // waits for what is being noted
        let written = rustix::fs::ftruncate(&file, self.size + NOTE as u64).is_ok()
            && file.sync_data().is_ok()
            && file.write_all_at(&note.encode(), self.size).is_ok();
        // Where the disk is full, the last note holds.
        (written && !named).then_some(file)
    }
}

/// What is brought to the disk; with a note, and where that goes.
type Flush = Option<(Note, u64)>;

/// Brings a file to the disk beside its writer, and notes then how much of it is there.
pub(super) struct Flusher {
    sender: Sender<Flush>,
    thread: Option<JoinHandle<()>>,
    flushed: u64,
}

impl Flusher {
    pub(super) fn start(file: &File) -> Option<Self> {
        let file = file.try_clone().ok()?;
        let (sender, asked) = channel::<Flush>();
        let thread = std::thread::spawn(move || {
            while let Ok(mut flush) = asked.recv() {
                flush = asked.try_iter().last().unwrap_or(flush);
                if file.sync_data().is_ok()
                    && let Some((note, at)) = flush
                {
                    let _ = file.write_all_at(&note.encode(), at); // the one before holds
                }
            }
        });
        Some(Self { sender, thread: Some(thread), flushed: 0 })
    }

    /// So much was written.
    pub(super) fn wrote(&mut self, end: u64) {
        if end - self.flushed >= EVERY {
            self.flushed = end;
            let _ = self.sender.send(None); // it is flushed at the end in any case
        }
    }

    fn note(&self, note: Note, at: u64) {
        let _ = self.sender.send(Some((note, at))); // without notes it is only begun anew
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.sender = channel().0; // the thread ends with the last sender
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes bytes that were written read as zeroes, without room on the disk where the system can do that.
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
