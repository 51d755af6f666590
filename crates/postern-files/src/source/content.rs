//! The content of files, from where the destination has none of it.

use super::tree::Tree;
use crate::chunks::{Cutter, MOST_RECORDS, NAME, RECORD, name};
use crate::link::{LinkError, Outbox};
use crate::pack::Packer;
use crate::stat;
use postern_wire::copy::{BLOCK, Compression, FromSource, Want};
use rustix::fs::{FileType, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Instant;

/// Most bytes of chunk records for one file, and for another before it that gave up.
pub(super) const MOST_BYTES: usize = 2 * MOST_RECORDS * RECORD;

/// A file that was announced.
pub(super) struct Item {
    pub(super) tree: Arc<Tree>,
    pub(super) below: Vec<u8>,
    pub(super) stat: Stat,
}

/// Why a file's content ends early; for people.
struct Fault(String);

enum Trouble {
    Link(LinkError),
    File(Fault),
}

impl From<LinkError> for Trouble {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::File(Fault(format!("reading it: {error}")))
    }
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        std::io::Error::from(error).into()
    }
}

fn fault(why: &str) -> Trouble {
    Trouble::File(Fault(why.to_owned()))
}

/// Sends content.
pub(super) struct Content {
    packer: Packer,
    out: Outbox,
    buffer: Vec<u8>,
}

impl Content {
    pub(super) fn new(compression: Compression, out: Outbox) -> Self {
        Self { packer: Packer::new(compression), out, buffer: vec![0; BLOCK] }
    }

    /// Sends what is wanted of a file; whatever is wrong with the file is told to the destination.
    pub(super) fn serve(&mut self, item: &Item, want: &Want, chunks: &[u8]) -> Result<(), LinkError> {
        let ended = match self.file(item, want, chunks) {
            Ok(hash) => FromSource::FileEnd { id: want.id, hash },
            Err(Trouble::File(Fault(message))) => FromSource::FileFault { id: want.id, message },
            Err(Trouble::Link(error)) => return Err(error),
        };
        self.out.put(|buffer| ended.encode(buffer))
    }

    fn file(&mut self, item: &Item, want: &Want, chunks: &[u8]) -> Result<[u8; 32], Trouble> {
        let file = File::from(item.tree.read(&item.below, OFlags::empty())?);
        let stat = rustix::fs::fstat(&file)?;
        unchanged(&item.stat, &stat)?;
        let size = stat::size(&stat);
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        if want.have > 0 {
            if want.have > size {
                return Err(fault(STALE));
            }
            self.hash_up_to(&file, want.have, &mut hasher)?;
            if hasher.finalize() == want.hash {
                offset = want.have;
            } else if want.partial {
                return Err(fault(STALE));
            } else {
                hasher.reset();
            }
        }
        self.out.put(|buffer| FromSource::From { id: want.id, offset }.encode(buffer))?;
        match want.chunks && offset == 0 {
            true => self.changes(&file, size, chunks, &mut hasher)?,
            false => self.rest(&file, &stat, offset, &mut hasher)?,
        }
        unchanged(&item.stat, &rustix::fs::fstat(&file)?)?;
        Ok(hasher.finalize().into())
    }

    fn hash_up_to(&mut self, file: &File, end: u64, hasher: &mut blake3::Hasher) -> Result<(), Trouble> {
        let mut at = 0;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
            let got = read(file, &mut self.buffer[..wanted], at)?;
            hasher.update(&self.buffer[..got]);
            at += got as u64;
        }
        Ok(())
    }

    /// Everything from `at` on, holes as such.
    fn rest(
        &mut self,
        file: &File,
        stat: &Stat,
        mut at: u64,
        hasher: &mut blake3::Hasher,
    ) -> Result<(), Trouble> {
        let size = stat::size(stat);
        // st_blocks counts 512 bytes. Without a hole there is nothing to look for.
        let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        while at < size {
            let (data, end) = if sparse { extent(file, at, size)? } else { (at, size) };
            if data > at {
                zeroes(hasher, data - at);
                self.out.put(|buffer| FromSource::Hole(data - at).encode(buffer))?;
                at = data;
            }
            while at < end {
                let wanted = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
                let got = read(file, &mut self.buffer[..wanted], at)?;
                hasher.update(&self.buffer[..got]);
                block(&mut self.packer, &self.out, &self.buffer[..got])?;
                at += got as u64;
            }
        }
        Ok(())
    }

    /// The whole file, by reference where the destination has the bytes.
    fn changes(
        &mut self,
        file: &File,
        size: u64,
        chunks: &[u8],
        hasher: &mut blake3::Hasher,
    ) -> Result<(), Trouble> {
        let known = known(chunks);
        let cutter = Cutter::new(size);
        let (mut buffer, mut start, mut end) = (vec![0; cutter.most() * 4], 0, 0);
        let (mut read_to, mut reuse) = (0, Reuse::default());
        loop {
            if end - start < cutter.most() {
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
                while end < buffer.len() && read_to < size {
                    let wanted =
                        usize::try_from(size - read_to).unwrap_or(usize::MAX).min(buffer.len() - end);
                    let got = read(file, &mut buffer[end..end + wanted], read_to)?;
                    end += got;
                    read_to += got as u64;
                }
            }
            if start == end {
                return Ok(reuse.flush(&self.out)?);
            }
            let length = cutter.cut(&buffer[start..end]);
            let chunk = &buffer[start..start + length];
            hasher.update(chunk);
            match known.get(&name(chunk)) {
                Some(&offset) => reuse.add(offset, length as u64, &self.out)?,
                None => {
                    reuse.flush(&self.out)?;
                    for piece in chunk.chunks(BLOCK) {
                        block(&mut self.packer, &self.out, piece)?;
                    }
                }
            }
            start += length;
        }
    }
}

/// A run of bytes that the destination has, so far.
#[derive(Default)]
struct Reuse {
    offset: u64,
    length: u64,
}

impl Reuse {
    fn add(&mut self, offset: u64, length: u64, out: &Outbox) -> Result<(), LinkError> {
        if self.length > 0 && self.offset + self.length == offset {
            self.length += length;
            return Ok(());
        }
        self.flush(out)?;
        *self = Self { offset, length };
        Ok(())
    }

    fn flush(&mut self, out: &Outbox) -> Result<(), LinkError> {
        let Self { offset, length } = std::mem::take(self);
        if length == 0 {
            return Ok(());
        }
        out.put(|buffer| FromSource::Reuse { offset, length }.encode(buffer))
    }
}

/// Where each chunk that the destination has begins there.
fn known(mut records: &[u8]) -> HashMap<[u8; NAME], u64> {
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

const STALE: &str = "it has changed since a copy of it was begun and interrupted; remove what that left with \
                     `postern cp --clean DESTINATION` to copy it anew";

const CHANGED: &str = "it changed while it was copied";

fn unchanged(before: &Stat, now: &Stat) -> Result<(), Trouble> {
    let kept = |stat: &Stat| {
        (stat.st_dev, stat.st_ino, stat.st_size, stat::stamp(stat).seconds, stat::stamp(stat).nanos)
    };
    if stat::file_type(now) == FileType::RegularFile && kept(before) == kept(now) {
        Ok(())
    } else {
        Err(fault(CHANGED))
    }
}

fn block(packer: &mut Packer, out: &Outbox, bytes: &[u8]) -> Result<(), LinkError> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let frame = match packer.pack(bytes) {
        Some(smaller) => FromSource::Packed { length, bytes: smaller },
        None => FromSource::Data(bytes),
    };
    let began = Instant::now();
    out.put(|buffer| frame.encode(buffer))?;
    packer.sent(began.elapsed());
    Ok(())
}

/// Hashes what a hole reads as.
pub(crate) fn zeroes(hasher: &mut blake3::Hasher, mut count: u64) {
    static ZEROES: [u8; 4 * 1024] = [0; 4 * 1024];
    while count > 0 {
        let piece = usize::try_from(count).unwrap_or(ZEROES.len()).min(ZEROES.len());
        hasher.update(&ZEROES[..piece]);
        count -= piece as u64;
    }
}

fn read(file: &File, buffer: &mut [u8], at: u64) -> Result<usize, Trouble> {
    loop {
        match file.read_at(buffer, at) {
            Ok(0) => return Err(fault(CHANGED)), // shorter than it was
            Ok(got) => return Ok(got),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The next data at or after `at`: where it begins and ends.
fn extent(file: &File, at: u64, size: u64) -> Result<(u64, u64), Trouble> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) if data < size => {
                let end = rustix::fs::seek(file, SeekFrom::Hole(data))?;
                return Ok((data, end.min(size)));
            }
            Ok(_) | Err(Errno::NXIO) => return Ok((size, size)), // a hole to the end
            Err(_) => {}                                         // the file system does not say
        }
    }
    Ok((at, size))
}
