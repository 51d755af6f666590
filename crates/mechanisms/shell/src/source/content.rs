//! The content of files, as read by the container's tools.

use super::walk::Item;
use crate::checksum::{Sum, Tool};
use crate::listing::Stat;
use crate::quoting::{assign_path, cause};
use crate::resume::Mark;
use crate::session::{Lost, Piece, Session, parse_answer};
use crate::{Outbox, ResumeMarks, TransferMode, TranslatorError};
use postern_wire::copy::{BLOCK, FromSource, Known, Want};
use std::collections::VecDeque;

/// Block size of `get`.
const UNIT: u64 = 64 * 1024;

/// Content up to this size is buffered until it is known whether the destination already has it.
const HELD: u64 = 8 * 1024 * 1024;

/// A file that the destination requested.
pub(super) struct Wanted {
    pub(super) want: Want,
    pub(super) item: Item,
}

pub(super) struct Content {
    pub(super) way: TransferMode,
    marks: ResumeMarks,
}

/// What to do with arriving content.
enum Sink<'a> {
    /// Sends it to the destination.
    Send(&'a mut Outbox, Block),
    /// Buffers it.
    Hold(Vec<u8>),
    /// Only hashes it.
    Hash,
}

impl Sink<'_> {
    async fn take(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        match self {
            Self::Send(out, block) => block.add(bytes, out).await,
            Self::Hold(held) => {
                held.extend_from_slice(bytes);
                Ok(())
            }
            Self::Hash => Ok(()),
        }
    }
}

/// Splits content into frames.
pub(super) struct Block {
    bytes: Vec<u8>,
    /// Whether blocks of zeroes are sent as holes.
    sparse: bool,
}

impl Block {
    pub(super) fn of(item: &Item) -> Self {
        Self { bytes: Vec::with_capacity(BLOCK), sparse: item.stat.is_sparse() }
    }

    pub(super) async fn add(&mut self, mut bytes: &[u8], out: &mut Outbox) -> Result<(), Lost> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.bytes.len()));
            self.bytes.extend_from_slice(now);
            bytes = later;
            if self.bytes.len() == BLOCK {
                self.end(out).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn end(&mut self, out: &mut Outbox) -> Result<(), Lost> {
        let bytes = std::mem::take(&mut self.bytes);
        if self.sparse && bytes.iter().all(|byte| *byte == 0) {
            out.put(|buffer| FromSource::Hole(bytes.len() as u64).encode(buffer));
        } else if !bytes.is_empty() {
            out.put(|buffer| FromSource::Data(&bytes).encode(buffer));
        }
        self.bytes = bytes;
        self.bytes.clear();
        out.flush_if_large().await
    }
}

pub(super) const CHANGED: &str = "it changed while it was read";
pub(super) const DIFFERS: &str = "what was read is not what the container has: its hash differs";

/// The container's hash of a file, if the file is unchanged since its announcement.
pub(super) fn about(item: &Item, said: &[u8]) -> Result<String, String> {
    let said = String::from_utf8_lossy(said);
    let (theirs, now) = said.split_once(' ').unwrap_or((&said, ""));
    let now = Stat::parse(now.as_bytes());
    match now.is_some_and(|now| item.stat.is_still(&now)) {
        true => Ok(theirs.to_owned()),
        false => Err(CHANGED.to_owned()),
    }
}

/// The result of reading a file: its hash, or the error.
type Read = Result<blake3::Hash, String>;

impl Content {
    pub(super) fn new(way: TransferMode, marks: ResumeMarks) -> Self {
        Self { way, marks }
    }

    /// Sends the content that is requested next.
    pub(super) async fn serve(
        &mut self,
        session: &mut Session,
        wanted: &mut VecDeque<Wanted>,
        out: &mut Outbox,
    ) -> Result<(), TranslatorError> {
        if self.way.tar && wanted.front().is_some_and(Wanted::is_small) {
            return self.send_batch(session, wanted, out).await;
        }
        let Some(Wanted { want, item }) = wanted.pop_front() else { return Ok(()) };
        self.one(session, &want, &item, out).await
    }

    pub(super) async fn one(
        &self,
        session: &mut Session,
        want: &Want,
        item: &Item,
        out: &mut Outbox,
    ) -> Result<(), TranslatorError> {
        let read = self.file(session, want, item, out).await?;
        let id = want.id;
        match read {
            Ok(hash) => {
                let hash = hash.into();
                out.put(|buffer| FromSource::FileEnd { id, hash }.encode(buffer));
            }
            Err(message) => out.put(|buffer| FromSource::FileFault { id, message }.encode(buffer)),
        }
        Ok(())
    }

    async fn file(
        &self,
        session: &mut Session,
        want: &Want,
        item: &Item,
        out: &mut Outbox,
    ) -> Result<Read, TranslatorError> {
        let Want { id, have, hash, .. } = *want;
        let size = item.stat.size;
        let same = have == size && have > 0 && want.known != Known::Prefix;
        let begin =
            |out: &mut Outbox, offset| out.put(|buffer| FromSource::From { id, offset }.encode(buffer));
        if same && session.tools.sum == Some(Tool::Blake3) && self.way.verify {
            // The container's hash is known without reading the content here.
            let theirs = self.read(session, item, 0, &mut Sink::Hash).await?;
            if theirs.as_ref().is_ok_and(|theirs| *theirs == hash) {
                begin(out, have);
                return Ok(theirs);
            }
        } else if same && size <= HELD {
            let mut held = Sink::Hold(Vec::new());
            let read = self.read(session, item, u64::MAX, &mut held).await?;
            let known = read.as_ref().is_ok_and(|read| *read == hash);
            begin(out, if known { have } else { 0 });
            if let (Sink::Hold(held), false, true) = (held, known, read.is_ok()) {
                let mut block = Block::of(item);
                block.add(&held, out).await?;
                block.end(out).await?;
            }
            return Ok(read);
        } else if same {
            let read = self.read(session, item, u64::MAX, &mut Sink::Hash).await?;
            if read.as_ref().is_ok_and(|read| *read == hash) {
                begin(out, have);
                return Ok(read);
            }
        }
        let mark = match want.partial {
            true => {
                let hash = (want.known != Known::Prefix).then_some(hash);
                self.marks.find(&item.real, &item.stat, have, hash)
            }
            false => None,
        };
        begin(out, mark.as_ref().map_or(0, |mark| mark.offset));
        let block = Block::of(item);
        let mut sink = Sink::Send(out, block);
        let read = self.read_from(session, item, mark, u64::MAX, &mut sink).await?;
        if let Sink::Send(out, mut block) = sink {
            block.end(out).await?;
        }
        if read.is_ok() && self.way.verify && session.tools.sum.is_none() {
            // No tool computes hashes: reading the same content twice verifies it.
            let again = self.read(session, item, u64::MAX, &mut Sink::Hash).await?;
            if again != read {
                return Ok(Err("reading it again returned different content".to_owned()));
            }
        }
        Ok(read)
    }

    /// Reads at most this many bytes; none if a tool computes our own hash.
    async fn read(
        &self,
        session: &mut Session,
        item: &Item,
        most: u64,
        sink: &mut Sink<'_>,
    ) -> Result<Read, Lost> {
        self.read_from(session, item, None, most, sink).await
    }

    /// The same from an offset that was reached before.
    async fn read_from(
        &self,
        session: &mut Session,
        item: &Item,
        mark: Option<Mark>,
        most: u64,
        sink: &mut Sink<'_>,
    ) -> Result<Read, Lost> {
        let size = item.stat.size;
        let wanted = size.min(most);
        let mut line = Vec::new();
        assign_path(&mut line, 'a', &item.real);
        let sum = session.tools.sum.filter(|_| self.way.verify && wanted == size).map(Tool::start);
        let remembers = matches!(sink, Sink::Send(..)) && size > HELD;
        if remembers && mark.is_none() {
            self.marks.begin(&item.real, &item.stat);
        }
        let Mark { offset: mut count, mut hasher, mut sum } =
            mark.unwrap_or_else(|| Mark { offset: 0, hasher: blake3::Hasher::new(), sum });
        let skipped = count / UNIT;
        line.extend_from_slice(format!("get {skipped} {}\n", wanted.div_ceil(UNIT) - skipped).as_bytes());
        session.queue(&line);
        let end = loop {
            match session.piece().await? {
                // Excess bytes are reported below and need not be buffered.
                Piece::Bytes(bytes) if count + bytes.len() as u64 > wanted => count = u64::MAX / 2,
                Piece::Bytes(mut bytes) => {
                    while !bytes.is_empty() {
                        // At the boundaries of frames, where the destination may have stopped.
                        let room = BLOCK - usize::try_from(count % BLOCK as u64).unwrap_or(0);
                        let part = bytes.split_to(bytes.len().min(room));
                        hasher.update(&part);
                        if let Some(sum) = &mut sum {
                            sum.add(&part);
                        }
                        sink.take(&part).await?;
                        count += part.len() as u64;
                        if remembers && count % BLOCK as u64 == 0 {
                            self.marks.add(Mark { offset: count, hasher: hasher.clone(), sum: sum.clone() });
                        }
                    }
                }
                Piece::End(end) => break end,
            }
        };
        session.confirm_stream();
        let said = match parse_answer(&end) {
            Some(Ok(said)) => said,
            Some(Err(why)) => return Ok(Err(format!("reading it: {}", cause(&why)))),
            None => return Err(Lost(format!("unexpected answer of the shell: {}", cause(&end)))),
        };
        let theirs = match count == wanted {
            true => about(item, &said),
            false => Err(CHANGED.to_owned()),
        };
        let theirs = match theirs {
            Ok(theirs) => theirs,
            Err(why) => return Ok(Err(why)),
        };
        if wanted < size {
            let theirs = blake3::Hash::from_hex(&theirs);
            return Ok(theirs.map_err(|_| "its hash in the container is malformed".to_owned()));
        }
        match sum.map(Sum::end) {
            Some(ours) if ours != theirs => Ok(Err(DIFFERS.to_owned())),
            _ => Ok(Ok(hasher.finalize())),
        }
    }
}
