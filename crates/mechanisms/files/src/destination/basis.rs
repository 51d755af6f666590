//! Sends information about the file being replaced (the basis), and starts copying it before the source
//! answers: most blocks of a changed file stay where they were.

use super::error::ReceiveError;
use super::flusher::Flusher;
use super::{FileReceiver, Wanted, partial};
use crate::chunks::{Cutter, MOST_RECORDS, RECORD, name as chunk_name};
use crate::hash_tree::{self, ChainingValue, Parts};
use crate::link::LinkError;
use crate::stat;
use postern_wire::copy::{BLOCK, Entry, FromDestination, Known, Want};
use rustix::fs::Stat;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

/// Bytes of hashes or chunk records in one frame.
const RECORDS: usize = 32 * 1024;

/// Maximum basis bytes sent and not yet answered; further files wait.
const MOST_BASIS_BYTES: usize = 4 * 1024 * 1024;

/// Content of the basis, copied to the new file in advance.
#[derive(Debug)]
pub(super) struct Prefill {
    pub(super) file: File,
    /// The hash of each copied part.
    pub(super) parts: Vec<ChainingValue>,
    /// Bytes that were copied.
    pub(super) length: u64,
}

/// What was sent about a basis.
pub(super) struct BasisInfo {
    /// BLAKE3 of the basis, if it is at least as long as the new file.
    pub(super) hash: Option<[u8; 32]>,
    pub(super) prefill: Option<Prefill>,
    /// Bytes that were sent.
    pub(super) bytes: usize,
}

/// Work that waits until fewer basis bytes are unanswered.
#[derive(Debug)]
pub(super) enum Queued {
    /// An entry to decide on.
    Entry(Box<Entry>, Vec<u8>),
    /// An entry whose chunks are to be sent.
    Cut(Wanted),
}

/// Why chunks are not sent completely.
enum ChunkError {
    /// They cannot be read, or there are too many.
    Useless,
    Link(LinkError),
}

impl From<LinkError> for ChunkError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl FileReceiver<'_> {
    /// Whether information about one more basis may be sent.
    pub(super) fn may_send_basis(&self) -> bool {
        self.basis_bytes == 0 || self.basis_bytes < MOST_BASIS_BYTES
    }

    /// Sends the block hashes of the basis. With `copy`, starts the new file as a copy of it.
    pub(super) fn send_basis(
        &mut self,
        entry: &Entry,
        path: &[u8],
        size: u64,
        replaces: &Stat,
        copy: bool,
    ) -> Result<Option<BasisInfo>, ReceiveError> {
        let Some(old) = self.read(path) else { return Ok(None) };
        self.out.put(|buffer| FromDestination::Hashing(entry.id).encode(buffer))?;
        self.out.flush()?;
        let mut file = match &mut self.target {
            Some(target) if copy => {
                let mode = super::commit::initial_mode(self.spec, entry, Some(replaces));
                // If it cannot be created now, the error is reported when its content arrives.
                partial::begin(&mut target.root, path, mode).ok()
            }
            _ => None,
        };
        let mut flusher = file.as_ref().and_then(Flusher::start);
        let sparse = stat::is_sparse(replaces);
        let (mut parts, mut at) = (Parts::new(hash_tree::part_length(size)), 0_u64);
        let mut buffer = vec![0; BLOCK];
        while at < size {
            let wanted = usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK);
            let got = match old.read_at(&mut buffer[..wanted], at) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break, // send what was read
            };
            let piece = &buffer[..got];
            parts.update(piece);
            let hole = sparse && piece.iter().all(|byte| *byte == 0);
            if let Some(written) = &file
                && !hole
                && written.write_all_at(piece, at).is_err()
            {
                self.remove_useless(path, file.take()); // reported when its content arrives
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
        let hash = if at == size { hash_tree::root(&parts) } else { None };
        let bytes = parts.as_flattened().len();
        let prefill = file.map(|file| Prefill { file, parts, length: at });
        Ok(Some(BasisInfo { hash, prefill, bytes }))
    }

    /// The source requests chunks for the first requested entry: too much of it has moved.
    pub(super) fn handle_cut(&mut self, id: u32) -> Result<(), ReceiveError> {
        let Some(mut wanted) = self.next_wanted(|wanted| wanted.entry.id == id && wanted.may_send_chunks)
        else {
            return Err(LinkError::Protocol("a request for chunks of an unknown file").into());
        };
        self.basis_bytes = self.basis_bytes.saturating_sub(std::mem::take(&mut wanted.basis_bytes));
        self.queued.push_back(Queued::Cut(wanted));
        Ok(())
    }

    /// Resumes queued work as far as possible.
    pub(super) fn resume_queued(&mut self) -> Result<(), ReceiveError> {
        while self.may_send_basis()
            && let Some(next) = self.queued.pop_front()
        {
            match next {
                Queued::Entry(entry, path) => {
                    self.busy.remove(&path);
                    self.decide(entry, path)?;
                }
                Queued::Cut(wanted) => self.send_chunks(wanted)?,
            }
        }
        Ok(())
    }

    fn send_chunks(&mut self, mut wanted: Wanted) -> Result<(), ReceiveError> {
        let bytes = self.chunks(&wanted.path, wanted.size)?;
        let known = if bytes.is_some() { Known::Chunks } else { Known::Nothing };
        (wanted.basis_bytes, wanted.may_send_chunks) = (bytes.unwrap_or(0), false);
        self.basis_bytes += wanted.basis_bytes;
        let mut want = Want::all(wanted.entry.id);
        want.known = known;
        self.out.put(|buffer| FromDestination::Want(want).encode(buffer))?;
        self.wanted.push_back(wanted);
        Ok(())
    }

    /// Sends the chunks of the basis; returns the number of bytes sent.
    fn chunks(&mut self, path: &[u8], size: u64) -> Result<Option<usize>, ReceiveError> {
        let Some(mut file) = self.read(path) else { return Ok(None) };
        let (mut records, mut count) = (Vec::with_capacity(RECORDS), 0);
        let told = Cutter::new(size).each(
            |buffer| file.read(buffer).map_err(|_| ChunkError::Useless),
            |chunk| {
                records.extend(u32::try_from(chunk.len()).unwrap_or(u32::MAX).to_be_bytes());
                records.extend(chunk_name(chunk));
                count += 1;
                if count > MOST_RECORDS {
                    return Err(ChunkError::Useless);
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
            Err(ChunkError::Useless) => return Ok(None), // the sent chunks are then not used
            Err(ChunkError::Link(error)) => return Err(error.into()),
        }
        self.out.put(|buffer| FromDestination::Chunks(&records).encode(buffer))?;
        Ok(Some(count * RECORD))
    }
}
