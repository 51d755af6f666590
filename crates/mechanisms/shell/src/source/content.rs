//! The content of files as the container's tools read it.

use super::walk::Item;
use crate::listing::Stat;
use crate::memory::Mark;
use crate::quoting::{assign_path, cause};
use crate::session::{Lost, Piece, Session, yes};
use crate::sum::{Sum, Tool};
use crate::{Memory, Out, Trouble, Way};
use postern_wire::copy::{BLOCK, FromSource, Known, Want};
use std::collections::VecDeque;

/// Bytes in one of the blocks that `get` counts.
const UNIT: u64 = 64 * 1024;

/// Content up to this size is held while it is found out whether the destination has it.
const HELD: u64 = 8 * 1024 * 1024;

/// A file that the destination asks for.
pub(super) struct Wanted {
    pub(super) want: Want,
    pub(super) item: Item,
}

pub(super) struct Content {
    pub(super) way: Way,
    memory: Memory,
}

/// What is done with content as it comes.
enum Sink<'a> {
    /// It goes on to the destination.
    Send(&'a mut Out, Block),
    /// It is kept.
    Hold(Vec<u8>),
    /// It is only hashed.
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

/// Content that becomes frames.
pub(super) struct Block {
    bytes: Vec<u8>,
    /// Blocks of nothing but zeroes are holes.
    sparse: bool,
}

impl Block {
    pub(super) fn of(item: &Item) -> Self {
        Self { bytes: Vec::with_capacity(BLOCK), sparse: item.stat.is_sparse() }
    }

    pub(super) async fn add(&mut self, mut bytes: &[u8], out: &mut Out) -> Result<(), Lost> {
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

    pub(super) async fn end(&mut self, out: &mut Out) -> Result<(), Lost> {
        let bytes = std::mem::take(&mut self.bytes);
        if self.sparse && bytes.iter().all(|byte| *byte == 0) {
            out.put(|buffer| FromSource::Hole(bytes.len() as u64).encode(buffer));
        } else if !bytes.is_empty() {
            out.put(|buffer| FromSource::Data(&bytes).encode(buffer));
        }
        self.bytes = bytes;
        self.bytes.clear();
        out.much().await
    }
}

pub(super) const CHANGED: &str = "it changed while it was read";
pub(super) const DIFFERS: &str = "what came is not what the container has: its hash differs";

/// The hash that the container has of a file, when it is still the one that was announced.
pub(super) fn about(item: &Item, said: &[u8]) -> Result<String, String> {
    let said = String::from_utf8_lossy(said);
    let (theirs, now) = said.split_once(' ').unwrap_or((&said, ""));
    let now = Stat::parse(now.as_bytes());
    match now.is_some_and(|now| item.stat.is_still(&now)) {
        true => Ok(theirs.to_owned()),
        false => Err(CHANGED.to_owned()),
    }
}

/// What reading a file came to: its hash, or why not.
type Read = Result<blake3::Hash, String>;

impl Content {
    pub(super) fn new(way: Way, memory: Memory) -> Self {
        Self { way, memory }
    }

    /// Sends what is wanted next.
    pub(super) async fn serve(
        &mut self,
        session: &mut Session,
        wanted: &mut VecDeque<Wanted>,
        out: &mut Out,
    ) -> Result<(), Trouble> {
        if self.way.tar && wanted.front().is_some_and(Wanted::is_small) {
            return self.together(session, wanted, out).await;
        }
        let Some(Wanted { want, item }) = wanted.pop_front() else { return Ok(()) };
        self.one(session, &want, &item, out).await
    }

    pub(super) async fn one(
        &self,
        session: &mut Session,
        want: &Want,
        item: &Item,
        out: &mut Out,
    ) -> Result<(), Trouble> {
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
        out: &mut Out,
    ) -> Result<Read, Trouble> {
        let Want { id, have, hash, .. } = *want;
        let size = item.stat.size;
        let same = have == size && have > 0 && want.known != Known::Prefix;
        let begin = |out: &mut Out, offset| out.put(|buffer| FromSource::From { id, offset }.encode(buffer));
        if same && session.tools.sum == Some(Tool::Blake3) && self.way.verify {
            // Its hash is known there without a byte of it coming here.
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
                self.memory.find(&item.real, &item.stat, have, hash)
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
            // Nothing hashes there: what comes twice is what is there.
            let again = self.read(session, item, u64::MAX, &mut Sink::Hash).await?;
            if again != read {
                return Ok(Err("it comes differently when it is read again".to_owned()));
            }
        }
        Ok(read)
    }

    /// Reads at most so many bytes; a tool that hashes as we do needs none.
    async fn read(
        &self,
        session: &mut Session,
        item: &Item,
        most: u64,
        sink: &mut Sink<'_>,
    ) -> Result<Read, Lost> {
        self.read_from(session, item, None, most, sink).await
    }

    /// The same from a place on that was reached before.
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
            self.memory.begin(&item.real, &item.stat);
        }
        let Mark { offset: mut count, mut hasher, mut sum } =
            mark.unwrap_or_else(|| Mark { offset: 0, hasher: blake3::Hasher::new(), sum });
        let skipped = count / UNIT;
        line.extend_from_slice(format!("get {skipped} {}\n", wanted.div_ceil(UNIT) - skipped).as_bytes());
        session.say(&line);
        let end = loop {
            match session.piece().await? {
                // More than there was to be is told of below, and nobody has to hold it.
                Piece::Bytes(bytes) if count + bytes.len() as u64 > wanted => count = u64::MAX / 2,
                Piece::Bytes(mut bytes) => {
                    while !bytes.is_empty() {
                        // As the frames are cut, and so what the destination may have.
                        let room = BLOCK - usize::try_from(count % BLOCK as u64).unwrap_or(0);
                        let part = bytes.split_to(bytes.len().min(room));
                        hasher.update(&part);
                        if let Some(sum) = &mut sum {
                            sum.add(&part);
                        }
                        sink.take(&part).await?;
                        count += part.len() as u64;
                        if remembers && count % BLOCK as u64 == 0 {
                            self.memory.add(Mark { offset: count, hasher: hasher.clone(), sum: sum.clone() });
                        }
                    }
                }
                Piece::End(end) => break end,
            }
        };
        session.heard();
        let said = match yes(&end) {
            Some(Ok(said)) => said,
            Some(Err(why)) => return Ok(Err(format!("reading it: {}", cause(&why)))),
            None => return Err(Lost(format!("the shell answers oddly: {}", cause(&end)))),
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
            return Ok(theirs.map_err(|_| "its hash there cannot be read".to_owned()));
        }
        match sum.map(Sum::end) {
            Some(ours) if ours != theirs => Ok(Err(DIFFERS.to_owned())),
            _ => Ok(Ok(hasher.finalize())),
        }
    }
}
