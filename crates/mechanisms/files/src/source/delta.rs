//! What of a file the destination has already, told by chunks.

use super::content::{Trouble, read};
use crate::chunks::{Cutter, MOST_RECORDS, NAME, RECORD, name};
use crate::link::{LinkError, Outbox};
use crate::tree::ChainingValue;
use postern_wire::copy::FromSource;
use std::collections::HashMap;
use std::fs::File;

/// One part in so many that differ is sent without a look at whether it only moved.
const FEW: usize = 16;

/// Whether more of a file's parts differ from those that the destination has than can have changed where they are.
pub(super) fn moved(parts: &[ChainingValue], told: &[u8]) -> bool {
    let theirs: &[ChainingValue] = told.as_chunks().0;
    let unlike = parts.iter().zip(theirs).filter(|(own, their)| own != their).count();
    unlike > 1 + parts.len().min(theirs.len()) / FEW
}

/// A file's chunks in their order, each by name and length, and the hash of all of it.
pub(super) struct Sketch {
    pub(super) chunks: Vec<([u8; NAME], u32)>,
    pub(super) hasher: blake3::Hasher,
}

impl Sketch {
    /// Of a file of this size; none where it has more chunks than are ever told of.
    pub(super) fn of(file: &File, size: u64) -> Result<Option<Self>, Trouble> {
        let mut sketch = Self { chunks: Vec::new(), hasher: blake3::Hasher::new() };
        let mut at = 0;
        let cut = Cutter::new(size).each(
            |buffer| {
                let left = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
                let got = if left == 0 { 0 } else { read(file, &mut buffer[..left], at).map_err(Some)? };
                at += got as u64;
                Ok(got)
            },
            |chunk| {
                sketch.hasher.update(chunk);
                sketch.chunks.push((name(chunk), u32::try_from(chunk.len()).unwrap_or(u32::MAX)));
                if sketch.chunks.len() > MOST_RECORDS { Err(None) } else { Ok(()) }
            },
        );
        match cut {
            Ok(()) => Ok(Some(sketch)),
            Err(None) => Ok(None),
            Err(Some(trouble)) => Err(trouble),
        }
    }
}

/// A run of bytes that the destination has, so far.
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

/// Where each chunk that the destination has begins there.
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
