//! Finds content that the destination already has, by chunks.

use super::content_error::{ContentError, read};
use crate::chunks::{Cutter, MOST_RECORDS, NAME, RECORD, name};
use crate::hash_tree::ChainingValue;
use crate::link::{LinkError, Outbox};
use postern_wire::copy::FromSource;
use std::collections::HashMap;
use std::fs::File;

/// If at most one part in this many differs, the differing parts are sent without checking whether they
/// moved.
const FEW: usize = 16;

/// Whether more parts differ than in-place changes explain.
pub(super) fn moved(parts: &[ChainingValue], basis: &[u8]) -> bool {
    let theirs: &[ChainingValue] = basis.as_chunks().0;
    let unlike = parts.iter().zip(theirs).filter(|(own, their)| own != their).count();
    unlike > 1 + parts.len().min(theirs.len()) / FEW
}

/// The chunks of a file in order, with names and lengths, and the hash of the whole file.
pub(super) struct ChunkList {
    pub(super) chunks: Vec<([u8; NAME], u32)>,
    pub(super) hasher: blake3::Hasher,
}

impl ChunkList {
    /// Of a file of this size; `None` if it has more chunks than are ever sent.
    pub(super) fn of(file: &File, size: u64) -> Result<Option<Self>, ContentError> {
        let mut chunk_list = Self { chunks: Vec::new(), hasher: blake3::Hasher::new() };
        let mut at = 0;
        let cut = Cutter::new(size).each(
            |buffer| {
                let left = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
                let got = if left == 0 { 0 } else { read(file, &mut buffer[..left], at).map_err(Some)? };
                at += got as u64;
                Ok(got)
            },
            |chunk| {
                chunk_list.hasher.update(chunk);
                chunk_list.chunks.push((name(chunk), u32::try_from(chunk.len()).unwrap_or(u32::MAX)));
                if chunk_list.chunks.len() > MOST_RECORDS { Err(None) } else { Ok(()) }
            },
        );
        match cut {
            Ok(()) => Ok(Some(chunk_list)),
            Err(None) => Ok(None),
            Err(Some(trouble)) => Err(trouble),
        }
    }
}

/// A run of bytes that the destination has.
#[derive(Default)]
pub(super) struct Reuse {
    offset: u64,
    length: u64,
}

impl Reuse {
    pub(super) fn add(&mut self, offset: u64, length: u64, out: &Outbox) -> Result<(), LinkError> {
        if self.length > 0 && self.offset + self.length == offset {
            self.length += length;
            return Ok(());
        }
        self.flush(out)?;
        *self = Self { offset, length };
        Ok(())
    }

    pub(super) fn flush(&mut self, out: &Outbox) -> Result<(), LinkError> {
        let Self { offset, length } = std::mem::take(self);
        if length == 0 {
            return Ok(());
        }
        out.put(|buffer| FromSource::Reuse { offset, length }.encode(buffer))
    }
}

/// The offset of each chunk in the destination's file.
pub(super) fn known(mut records: &[u8]) -> HashMap<[u8; NAME], u64> {
    let mut known = HashMap::with_capacity(records.len() / RECORD);
    let mut offset = 0_u64;
    while let Some((length, rest)) = records.split_first_chunk::<4>() {
        let Some((name, rest)) = rest.split_first_chunk::<NAME>() else { break };
        known.entry(*name).or_insert(offset);
        offset = offset.saturating_add(u32::from_be_bytes(*length).into());
        records = rest;
    }
    known
}
