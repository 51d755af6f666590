//! Writes arriving content in the container.

use super::decide::{LARGE, There, Wanted};
use super::{Pending, ShellReceiver};
use crate::TranslatorError;
use crate::checksum::{Sum, Tool};
use crate::listing::Stat;
use crate::quoting::assign_path;
use crate::session::{Lost, Piece, Tools};
use postern_files::name;
use postern_files::policy::DIFFERS;
use postern_wire::copy::{Entry, EntryResult, Fate, FromDestination, Kind, UNSIZED};

/// Bytes of one `put` request.
const PIECE: usize = 256 * 1024;

/// Block size of `sums`.
const BLOCK: usize = 8 * 1024 * 1024;

/// Bytes between two checks that the written content is intact.
const ASK: u64 = 4 * 1024 * 1024;

/// A file whose content is arriving.
pub(super) struct Writing {
    pub(super) entry: Box<Entry>,
    pub(super) path: Vec<u8>,
    pub(super) old: Option<Stat>,
    size: u64,
    length: u64,
    hasher: blake3::Hasher,
    sum: Option<Sum>,
    state: State,
    /// The offset at which the shell was last asked for its status.
    asked: u64,
    /// Why no more of it is wanted.
    stopped: Option<String>,
}

enum State {
    /// Content is compared with the existing file, block by block.
    Compare { theirs: Vec<String>, whole: bool, same: usize, block: Vec<u8> },
    /// Content is buffered until it is complete.
    Gather(Vec<u8>),
    /// Content is written.
    Put(Vec<u8>),
}

/// Why a file could not be written.
pub(super) fn trouble(tools: &Tools, why: &[u8]) -> String {
    tools.explain("writing it", why)
}

impl ShellReceiver<'_> {
    /// Whether the shell is in the middle of a file.
    pub(super) fn is_writing(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| matches!(writing.state, State::Put(_)))
    }

    /// Starts the content of the first requested entry.
    pub(super) fn begin(&mut self, id: u32, offset: u64) -> Result<(), TranslatorError> {
        let wanted = self.wanted.pop_front().filter(|wanted| wanted.entry.id == id);
        let (Some(wanted), None, 0) = (wanted, &self.writing, offset) else {
            return Err(Lost("content that was not requested next".to_owned()).into());
        };
        let Wanted { entry, path, old, there } = wanted;
        let Kind::File(size) = entry.kind else { return Ok(()) };
        let sum = self.session.tools.sum;
        let compare = |theirs, whole| State::Compare { theirs, whole, same: 0, block: Vec::new() };
        let state = match there {
            There::Whole(theirs) => compare(theirs, true),
            There::Partial(theirs) => compare(theirs, false),
            There::Nothing if self.goes_in_archive(&entry, size, old.as_ref()) => State::Gather(Vec::new()),
            There::Nothing => State::Put(Vec::new()),
        };
        let begins = matches!(state, State::Put(_));
        let sum = sum.map(Tool::start);
        let writing = Writing {
            entry,
            path,
            old,
            size,
            length: 0,
            hasher: blake3::Hasher::new(),
            sum,
            state,
            asked: 0,
            stopped: None,
        };
        if begins {
            self.open(&writing, &format!("new {}", large(size)));
        }
        self.writing = Some(writing);
        Ok(())
    }

    /// Declares the file that the shell writes next, and how it starts.
    fn open(&mut self, writing: &Writing, how: &str) {
        self.unpack();
        let mut line = self.names(&writing.path);
        // Its name if it is kept so that a later copy can resume it.
        let (parent, last) = name::split(&writing.path);
        assign_path(&mut line, 'r', &self.container_path(&name::join(parent, &name::partial(last))));
        line.extend_from_slice(how.as_bytes());
        line.extend_from_slice(if self.spec.inplace { b" inplace\n" } else { b"\n" });
        self.session.queue(&line);
    }

    /// Assigns `p` and `q` for a file: its temporary and its final path.
    pub(super) fn names(&self, path: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        assign_path(&mut line, 'p', &self.container_path(&self.temporary_path(path)));
        assign_path(&mut line, 'q', &self.container_path(path));
        line
    }

    /// The name of a file until it is complete and verified; only this connection uses it. Another copy may
    /// be writing to the same target, or the shell of a lost connection, and shells have no locks.
    pub(super) fn temporary_path(&self, path: &[u8]) -> Vec<u8> {
        let (parent, last) = name::split(path);
        let own = blake3::hash(self.session.mark.as_bytes()).to_hex();
        let own = [last, b".", &own.as_bytes()[..8]].concat();
        name::join(parent, &name::partial(&own))
    }

    pub(super) async fn data(&mut self, bytes: &[u8]) -> Result<(), TranslatorError> {
        let Some(mut writing) = self.writing.take() else {
            return Err(Lost("content that was not requested".to_owned()).into());
        };
        if writing.size != UNSIZED && writing.length.saturating_add(bytes.len() as u64) > writing.size {
            return Err(Lost("more content than announced".to_owned()).into());
        }
        writing.length += bytes.len() as u64;
        writing.hasher.update(bytes);
        if let Some(sum) = &mut writing.sum {
            sum.add(bytes);
        }
        self.push(&mut writing, bytes).await?;
        self.writing = Some(writing);
        Ok(())
    }

    async fn push(&mut self, writing: &mut Writing, mut bytes: &[u8]) -> Result<(), TranslatorError> {
        while !bytes.is_empty() {
            match &mut writing.state {
                State::Gather(held) => {
                    held.extend_from_slice(bytes);
                    return Ok(());
                }
                State::Put(held) => {
                    let (now, later) = bytes.split_at(bytes.len().min(PIECE - held.len()));
                    held.extend_from_slice(now);
                    bytes = later;
                    if held.len() == PIECE {
                        self.put(writing).await?;
                    }
                }
                State::Compare { block, .. } => {
                    let (now, later) = bytes.split_at(bytes.len().min(BLOCK - block.len()));
                    block.extend_from_slice(now);
                    bytes = later;
                    if block.len() == BLOCK {
                        self.compare(writing).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends the buffered part of a file.
    async fn put(&mut self, writing: &mut Writing) -> Result<(), TranslatorError> {
        let State::Put(held) = &mut writing.state else { return Ok(()) };
        if !held.is_empty() {
            self.session.queue(format!("put {}\n", held.len()).as_bytes());
            self.session.content(held);
            held.clear();
        }
        if writing.length - writing.asked >= ASK {
            writing.asked = writing.length;
            self.session.queue(b"how\n");
            self.pending.push_back(Pending::How { id: writing.entry.id });
        }
        Ok(self.session.flush_if_large().await?)
    }

    /// Compares a block. The first block that differs, and everything after it, is written.
    async fn compare(&mut self, writing: &mut Writing) -> Result<(), TranslatorError> {
        let State::Compare { theirs, whole, same, block } = &mut writing.state else { return Ok(()) };
        let ours = self.session.tools.sum.map(|tool| tool.of(block));
        if ours.is_some() && ours.as_ref() == theirs.get(*same) {
            *same += 1;
            block.clear();
            return Ok(());
        }
        let (whole, same, block) = (*whole, *same, std::mem::take(block));
        writing.state = State::Put(Vec::new());
        let bytes = same as u64 * BLOCK as u64;
        let how = match (whole, same) {
            (_, 0) => format!("new {}", large(writing.size)),
            (true, _) => format!("prefix {same} {}", large(writing.size)),
            (false, _) => format!("resume {bytes}"),
        };
        self.open(writing, &how);
        Box::pin(self.push(writing, &block)).await
    }

    /// Writes zeroes as a hole.
    pub(super) async fn hole(&mut self, length: u64) -> Result<(), TranslatorError> {
        const ZEROES: &[u8] = &[0; 64 * 1024];
        let Some(mut writing) = self.writing.take() else {
            return Err(Lost("content that was not requested".to_owned()).into());
        };
        // Streams have no holes.
        if writing.size == UNSIZED || writing.length.saturating_add(length) > writing.size {
            return Err(Lost("more content than announced".to_owned()).into());
        }
        if matches!(writing.state, State::Put(_)) {
            self.put(&mut writing).await?;
        }
        let mut left = length;
        while left > 0 {
            let zeroes = &ZEROES[..usize::try_from(left).unwrap_or(ZEROES.len()).min(ZEROES.len())];
            left -= zeroes.len() as u64;
            writing.length += zeroes.len() as u64;
            writing.hasher.update(zeroes);
            if let Some(sum) = &mut writing.sum {
                sum.add(zeroes);
            }
            // When comparing or buffering, holes are ordinary content.
            if !matches!(writing.state, State::Put(_)) {
                self.push(&mut writing, zeroes).await?;
                if let State::Put(_) = &writing.state {
                    self.put(&mut writing).await?;
                }
            }
        }
        if let State::Put(_) = &writing.state {
            self.session.queue(format!("hole {}\n", writing.length).as_bytes());
        }
        self.writing = Some(writing);
        Ok(())
    }

    /// Ends the content of a file.
    pub(super) async fn end(&mut self, id: u32, hash: [u8; 32]) -> Result<(), TranslatorError> {
        let writing = self.writing.take().filter(|writing| writing.entry.id == id);
        let Some(mut writing) = writing else {
            return Err(Lost("the end of an unknown file".to_owned()).into());
        };
        let whole = writing.size == UNSIZED || writing.length == writing.size;
        if *writing.hasher.finalize().as_bytes() != hash || !whole {
            self.forget(&writing);
            self.settle(id, Fate::Failed, DIFFERS.to_owned());
            return Ok(());
        }
        if let State::Compare { block, .. } = &writing.state
            && !block.is_empty()
        {
            self.compare(&mut writing).await?;
        }
        if let State::Compare { whole, .. } = &writing.state {
            if *whole {
                self.finish_unchanged(&writing, hash);
                return Ok(());
            }
            // The partial file is complete.
            self.open(&writing, &format!("resume {}", writing.length));
            writing.state = State::Put(Vec::new());
        }
        self.put(&mut writing).await?;
        let verified = self.way.verify;
        let note = match (verified, writing.entry.xattrs.is_empty()) {
            (true, true) => "",
            (true, false) => "extended attributes are not kept with --via tar or shell",
            (false, _) => "not verified",
        };
        let hash = if verified { hash } else { [0; 32] };
        let settled = EntryResult { id, fate: Fate::Written, hash, note: note.to_owned() };
        let sum = writing.sum.take().map_or("-".to_owned(), Sum::end);
        if let State::Gather(content) = &writing.state {
            self.add(&writing, content, sum, settled);
            return Ok(());
        }
        let unread = verified && self.session.tools.sum.is_none();
        if unread {
            self.read_back(&writing).await?;
        }
        let (mode, time, owner) = self.dress(&writing.entry, writing.old.as_ref());
        let inplace = if self.spec.inplace && !unread { "inplace" } else { "-" };
        self.session.queue(format!("fin {sum} {mode} {time} {owner} - {inplace}\n").as_bytes());
        self.pending.push_back(Pending::File { id, path: writing.path, settled });
        Ok(())
    }

    /// All of the content is already in place.
    fn finish_unchanged(&mut self, writing: &Writing, hash: [u8; 32]) {
        let Writing { entry, path, old, .. } = writing;
        self.busy.remove(path);
        self.bad.remove(path);
        let settled = EntryResult { id: entry.id, fate: Fate::Same, hash, note: String::new() };
        match old {
            Some(old) => self.reapply_metadata(entry, path, old, settled),
            None => self.answer(settled),
        }
    }

    /// If no tool computes hashes, the written file is read back.
    async fn read_back(&mut self, writing: &Writing) -> Result<(), TranslatorError> {
        self.answers(0).await?;
        let blocks = writing.length.div_ceil(64 * 1024);
        self.session.queue(format!("a=$p;get 0 {blocks}\n").as_bytes());
        let mut hasher = blake3::Hasher::new();
        while let Piece::Bytes(bytes) = self.session.piece().await? {
            hasher.update(&bytes);
        }
        self.session.confirm_stream();
        if hasher.finalize() != writing.hasher.finalize() {
            let line = format!("x=${{x:-'{DIFFERS}'}}\n");
            self.session.queue(line.as_bytes());
        }
        Ok(())
    }

    /// The file cannot be written: the source should stop sending it.
    pub(super) fn stop(&mut self, id: u32, why: &[u8]) {
        let why = trouble(&self.session.tools, why);
        let writing = self.writing.as_mut().filter(|writing| writing.entry.id == id);
        let Some(writing) = writing.filter(|writing| writing.stopped.is_none()) else { return };
        writing.stopped = Some(why);
        self.out.put(|buffer| FromDestination::Stop(id).encode(buffer));
    }

    /// The source cannot send a file, or no more of it.
    pub(super) fn fault(&mut self, id: u32, mut message: String) -> Result<(), TranslatorError> {
        let path = match self.writing.take() {
            Some(mut writing) if writing.entry.id == id => {
                self.forget(&writing);
                message = writing.stopped.take().unwrap_or(message);
                writing.path
            }
            Some(_) => return Err(Lost("an error for another file".to_owned()).into()),
            None => match self.wanted.pop_front() {
                Some(wanted) if wanted.entry.id == id => wanted.path,
                _ => return Err(Lost("an error for an unknown file".to_owned()).into()),
            },
        };
        self.busy.remove(&path);
        self.settle(id, Fate::Failed, message);
        Ok(())
    }

    /// Removes a useless partial file.
    fn forget(&mut self, writing: &Writing) {
        if matches!(writing.state, State::Put(_)) {
            self.session.queue(b"drop\n");
        }
        self.busy.remove(&writing.path);
    }
}

fn large(size: u64) -> u8 {
    u8::from(size > LARGE && size != UNSIZED)
}
