//! What is told to the source of the content that has a file's name now, and its copy ahead of the answer: most of a file
//! that changed is where it was.

use super::trouble::Trouble;
use super::writing::Flusher;
use super::{Destination, Wanted, partial};
use crate::chunks::{Cutter, MOST_RECORDS, RECORD, name as chunk_name};
use crate::link::LinkError;
use crate::stat;
use crate::tree::{self, ChainingValue, Parts};
use postern_wire::copy::{BLOCK, Entry, FromDestination, Known, Want};
use rustix::fs::Stat;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

/// Bytes of hashes or chunk records in one frame.
const RECORDS: usize = 32 * 1024;

/// Most bytes that were told and not yet answered; files whose turn it is then wait.
const MOST_TOLD: usize = 4 * 1024 * 1024;

/// Content of an older file, copied to where the new one is written.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) file: File,
    /// The hash of each part that was copied.
    pub(super) parts: Vec<ChainingValue>,
    /// Bytes that were copied.
    pub(super) length: u64,
}

/// What was told of an older content.
pub(super) struct Told {
    /// BLAKE3 of all of it, where it has no less bytes than the new one.
    pub(super) hash: Option<[u8; 32]>,
    pub(super) ahead: Option<Ahead>,
    /// Bytes of what was told.
    pub(super) bytes: usize,
}

/// What waits until less is told and not answered.
#[derive(Debug)]
pub(super) enum Deferred {
    /// To be decided.
    Entry(Box<Entry>, Vec<u8>),
    /// To have its chunks told.
    Cut(Wanted),
}

/// Why chunks are not told to the end.
enum Untold {
    /// They cannot be read, or are too many.
    Useless,
    Link(LinkError),
}

impl From<LinkError> for Untold {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl Destination<'_> {
    /// Whether one more may be told of.
    pub(super) fn may_tell(&self) -> bool {
        self.told == 0 || self.told < MOST_TOLD
    }

    /// Tells the hashes of what has the place now, and with `copy` begins the new file with it.
    pub(super) fn tell(
        &mut self,
        entry: &Entry,
        path: &[u8],
        size: u64,
        replaces: &Stat,
        copy: bool,
    ) -> Result<Option<Told>, Trouble> {
        let Some(old) = self.read(path) else { return Ok(None) };
        self.out.put(|buffer| FromDestination::Hashing(entry.id).encode(buffer))?;
        self.out.flush()?;
        let mut file = match &mut self.placed {
            Some(placed) if copy => {
                let mode = super::commit::first_mode(self.spec, entry, Some(replaces));
                // Where it cannot be made now, the reason is told when its content comes.
                partial::begin(&mut placed.root, path, mode).ok()
            }
            _ => None,
        };
        let mut flusher = file.as_ref().and_then(Flusher::start);
        let sparse = stat::is_sparse(replaces);
        let (mut parts, mut at) = (Parts::new(tree::part_length(size)), 0_u64);
        let mut buffer = vec![0; BLOCK];
        while at < size {
            let wanted = usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK);
            let got = match old.read_at(&mut buffer[..wanted], at) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break, // what was read is told
            };
            let piece = &buffer[..got];
            parts.update(piece);
            let hole = sparse && piece.iter().all(|byte| *byte == 0);
            if let Some(written) = &file
                && !hole
                && written.write_all_at(piece, at).is_err()
            {
                self.forget(path, file.take()); // it is told when its content comes
            }
            at += got as u64;
            if let Some(flusher) = &mut flusher {
                flusher.wrote(at);
            }
        }
        drop(flusher);
        let parts = parts.hashes();
        for some in parts.as_flattened().chunks(RECORDS) {
            self.out.put(|buffer| FromDestination::Blocks(some).encode(buffer))?;
        }
        let hash = if at == size { tree::root(&parts) } else { None };
        let bytes = parts.as_flattened().len();
        let ahead = file.map(|file| Ahead { file, parts, length: at });
        Ok(Some(Told { hash, ahead, bytes }))
    }

    /// The source asks for the chunks of what was asked for first: too much of it is not where it was.
    pub(super) fn cut(&mut self, id: u32) -> Result<(), Trouble> {
        let Some(mut wanted) = self.next_wanted(|wanted| wanted.entry.id == id && wanted.uncut) else {
            return Err(LinkError::Protocol("chunks of nothing that it was told of").into());
        };
        self.told = self.told.saturating_sub(std::mem::take(&mut wanted.told));
        self.deferred.push_back(Deferred::Cut(wanted));
        Ok(())
    }

    /// Takes up what waited, as far as that is possible now.
    pub(super) fn take_up(&mut self) -> Result<(), Trouble> {
        while self.may_tell()
            && let Some(next) = self.deferred.pop_front()
        {
            match next {
                Deferred::Entry(entry, path) => {
                    self.busy.remove(&path);
                    self.decide(entry, path)?;
                }
                Deferred::Cut(wanted) => self.tell_chunks(wanted)?,
            }
        }
        Ok(())
    }

    fn tell_chunks(&mut self, mut wanted: Wanted) -> Result<(), Trouble> {
        let bytes = self.chunks(&wanted.path, wanted.size)?;
        let known = if bytes.is_some() { Known::Chunks } else { Known::Nothing };
        (wanted.told, wanted.uncut) = (bytes.unwrap_or(0), false);
        self.told += wanted.told;
        let mut want = Want::all(wanted.entry.id);
        want.known = known;
        self.out.put(|buffer| FromDestination::Want(want).encode(buffer))?;
        self.wanted.push_back(wanted);
        Ok(())
    }

    /// Tells the chunks of what has the place now; how many bytes that were.
    fn chunks(&mut self, path: &[u8], size: u64) -> Result<Option<usize>, Trouble> {
        let Some(mut file) = self.read(path) else { return Ok(None) };
        let (mut records, mut count) = (Vec::with_capacity(RECORDS), 0);
        let told = Cutter::new(size).each(
            |buffer| file.read(buffer).map_err(|_| Untold::Useless),
            |chunk| {
                records.extend(u32::try_from(chunk.len()).unwrap_or(u32::MAX).to_be_bytes());
                records.extend(chunk_name(chunk));
                count += 1;
                if count > MOST_RECORDS {
                    return Err(Untold::Useless);
                }
                if records.len() >= RECORDS {
                    self.out.put(|buffer| FromDestination::Chunks(&records).encode(buffer))?;
                    records.clear();
                }
                Ok(())
            },
        );
        match told {
            Ok(()) => {}
            Err(Untold::Useless) => return Ok(None), // what was told of is not used then
            Err(Untold::Link(error)) => return Err(error.into()),
        }
        self.out.put(|buffer| FromDestination::Chunks(&records).encode(buffer))?;
        Ok(Some(count * RECORD))
    }
}
