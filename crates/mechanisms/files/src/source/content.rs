//! Sends the content of files from where the destination lacks it.

use super::content_error::{ContentError, Fault, fault, read};
use super::delta::{self, ChunkList, Reuse};
use super::tree::Tree;
use crate::chunks::{MOST_RECORDS, RECORD};
use crate::compression::Compressor;
use crate::hash_tree::{self, ChainingValue, Parts};
use crate::link::{LinkError, Outbox};
use crate::open_files::OpenFileShare;
use crate::policy::{CHANGED, STALE, STOPPED};
use crate::prefix_hash::PrefixHash;
use crate::stat;
use crate::stop_flag::StopFlag;
use postern_wire::copy::{BLOCK, Compression, FromSource, Known, Want};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

/// Maximum bytes of basis information for one file, plus those of an earlier file that failed.
pub(super) const MOST_BYTES: usize = 2 * MOST_RECORDS * RECORD;

/// An announced file.
pub(super) struct Item {
    pub(super) tree: Arc<Tree>,
    pub(super) below: Vec<u8>,
    pub(super) stat: Stat,
    /// The kernel generates its content when it is read: its size and time are meaningless.
    pub(super) generated: bool,
    /// The file if it is still open since its announcement, and the share that counts it.
    pub(super) opened: Option<(OwnedFd, Arc<OpenFileShare>)>,
}

impl Item {
    /// Opens the file and checks that it is unchanged.
    fn open(&mut self) -> Result<(File, Stat), ContentError> {
        let file = match self.opened.take() {
            Some((file, _)) => file,
            None => self.tree.read(&self.below, OFlags::empty())?,
        };
        let stat = rustix::fs::fstat(&file)?;
        if !self.generated {
            unchanged(&self.stat, &stat)?;
        }
        Ok((File::from(file), stat))
    }
}

/// The result of a content request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    /// The content was sent, or the reason why it cannot be.
    Done,
    /// The destination will request it again.
    Retry,
}

/// Sends content.
pub(super) struct Content {
    compressor: Compressor,
    out: Outbox,
    stop: StopFlag,
    /// The entry whose content is being sent.
    serving: u32,
    buffer: Vec<u8>,
    /// Parts already hashed, and their entry.
    parts: Option<(u32, Vec<ChainingValue>)>,
    /// Chunks already computed, and their entry.
    chunk_list: Option<(u32, ChunkList)>,
}

impl Content {
    pub(super) fn new(compression: Compression, out: Outbox, stop: StopFlag) -> Self {
        let (compressor, buffer) = (Compressor::new(compression), vec![0; BLOCK]);
        Self { compressor, out, stop, serving: 0, buffer, parts: None, chunk_list: None }
    }

    /// Fails if the destination has stopped this content.
    fn check_stopped(&self) -> Result<(), ContentError> {
        if self.stop.is_set(self.serving) { Err(fault(STOPPED)) } else { Ok(()) }
    }

    /// Sends the requested content of a file. Errors of the file are sent to the destination.
    pub(super) fn serve(&mut self, item: &mut Item, want: &Want, basis: &[u8]) -> Result<Served, LinkError> {
        self.serving = want.id;
        let ended = match self.file(item, want, basis) {
            Ok(Some(hash)) => FromSource::FileEnd { id: want.id, hash },
            Ok(None) => return Ok(Served::Retry),
            Err(ContentError::File(Fault(message))) => FromSource::FileFault { id: want.id, message },
            Err(ContentError::Link(error)) => return Err(error),
        };
        self.out.put(|buffer| ended.encode(buffer))?;
        Ok(Served::Done)
    }

    /// The hash of the sent content; `None` if the destination will request it again.
    fn file(&mut self, item: &mut Item, want: &Want, basis: &[u8]) -> Result<Option<[u8; 32]>, ContentError> {
        let (file, stat) = item.open()?;
        let size = stat::size(&stat);
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        if item.generated {
            return self.send_to_eof(want.id, &file).map(Some);
        }
        if want.have > size {
            return Err(fault(STALE));
        }
        if want.known == Known::Prefix {
            return self.resume(item, want, &file, &stat).map(Some);
        }
        if want.have > 0 {
            let ready = self.hashed(want.id).filter(|_| want.have == size);
            if ready.is_none() {
                self.each_up_to(&file, want.have, |piece| {
                    hasher.update(piece);
                })?;
            }
            if ready.unwrap_or_else(|| hasher.finalize().into()) == want.hash {
                offset = want.have;
            } else if want.partial {
                return Err(fault(STALE));
            } else {
                hasher.reset();
            }
        }
        let known = if offset == 0 { want.known } else { Known::Nothing };
        let mut parts = Vec::new();
        if known == Known::Blocks {
            parts = self.take_parts(want.id, &file, size)?;
            if delta::moved(&parts, basis) {
                self.out.put(|buffer| FromSource::Cut(want.id).encode(buffer))?;
                self.out.flush()?;
                // In parallel with the destination.
                self.chunk_list = ChunkList::of(&file, size)?.map(|chunk_list| (want.id, chunk_list));
                return Ok(None);
            }
        }
        self.out.put(|buffer| FromSource::From { id: want.id, offset }.encode(buffer))?;
        match known {
            Known::Blocks => self.in_place(&file, &stat, basis, &parts)?,
            Known::Chunks => self.changes(want.id, &file, &stat, basis, &mut hasher)?,
            Known::Nothing | Known::Prefix => {
                self.rest(&file, &stat, (offset, size), &mut |piece| {
                    hasher.update(piece);
                })?;
            }
        }
        unchanged(&item.stat, &rustix::fs::fstat(&file)?)?;
        // Content that was not read again was hashed before.
        let whole = match known {
            Known::Blocks => hash_tree::root(&parts),
            _ if offset > 0 && offset == size => Some(want.hash),
            Known::Nothing | Known::Chunks | Known::Prefix => None,
        };
        Ok(Some(whole.unwrap_or_else(|| hasher.finalize().into())))
    }

    /// Sends and hashes everything that can be read.
    fn send_to_eof(&mut self, id: u32, mut file: &File) -> Result<[u8; 32], ContentError> {
        let mut hasher = blake3::Hasher::new();
        self.out.put(|buffer| FromSource::From { id, offset: 0 }.encode(buffer))?;
        loop {
            let got = match std::io::Read::read(&mut file, &mut self.buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if got == 0 {
                return Ok(hasher.finalize().into());
            }
            self.check_stopped()?;
            hasher.update(&self.buffer[..got]);
            block(&mut self.compressor, &self.out, &self.buffer[..got])?;
        }
    }

    /// Sends what follows the destination's prefix and hashes the prefix in parallel; returns the hash of the
    /// whole file.
    fn resume(
        &mut self,
        item: &Item,
        want: &Want,
        file: &File,
        stat: &Stat,
    ) -> Result<[u8; 32], ContentError> {
        let (size, have) = (stat::size(stat), want.have);
        let length = hash_tree::part_length(size);
        if !have.is_multiple_of(length) {
            return Err(fault(STALE));
        }
        let beginning = PrefixHash::start(file, length, have)?;
        let mut parts = Parts::after(length, have);
        self.out.put(|buffer| FromSource::From { id: want.id, offset: have }.encode(buffer))?;
        self.rest(file, stat, (have, size), &mut |piece| parts.update(piece))?;
        let whole = [beginning.hashes()?, parts.hashes()].concat();
        unchanged(&item.stat, &rustix::fs::fstat(file)?)?;
        hash_tree::root(&whole).ok_or_else(|| fault(STALE))
    }

    /// The hash of a whole entry with hashed parts.
    fn hashed(&self, id: u32) -> Option<[u8; 32]> {
        self.parts.as_ref().filter(|(own, _)| *own == id).and_then(|(_, parts)| hash_tree::root(parts))
    }

    fn take_parts(&mut self, id: u32, file: &File, size: u64) -> Result<Vec<ChainingValue>, ContentError> {
        match self.parts.take() {
            Some((own, parts)) if own == id => Ok(parts),
            _ => self.hash_parts(file, size),
        }
    }

    fn hash_parts(&mut self, file: &File, size: u64) -> Result<Vec<ChainingValue>, ContentError> {
        let mut parts = Parts::new(hash_tree::part_length(size));
        self.each_up_to(file, size, |piece| parts.update(piece))?;
        Ok(parts.hashes())
    }

    /// Reads the first bytes of a file in pieces.
    fn each_up_to(&mut self, file: &File, end: u64, mut each: impl FnMut(&[u8])) -> Result<(), ContentError> {
        let mut at = 0;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
            let got = read(file, &mut self.buffer[..wanted], at)?;
            each(&self.buffer[..got]);
            at += got as u64;
        }
        Ok(())
    }

    /// Sends a range, with holes as such.
    fn rest(
        &mut self,
        file: &File,
        stat: &Stat,
        (mut at, till): (u64, u64),
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ContentError> {
        // Without holes there is nothing to look for.
        let sparse = stat::is_sparse(stat);
        while at < till {
            let (data, end) = if sparse { extent(file, at, till)? } else { (at, till) };
            if data > at {
                zeroes(data - at, &mut *each);
                self.out.put(|buffer| FromSource::Hole(data - at).encode(buffer))?;
                at = data;
            }
            self.data(file, at, end, each)?;
            at = end;
        }
        Ok(())
    }

    /// Sends the whole file, with references to blocks that the destination has at the same offset.
    fn in_place(
        &mut self,
        file: &File,
        stat: &Stat,
        basis: &[u8],
        parts: &[ChainingValue],
    ) -> Result<(), ContentError> {
        let size = stat::size(stat);
        let length = hash_tree::part_length(size);
        let (mut at, mut reuse) = (0, Reuse::default());
        let theirs = basis.as_chunks().0.iter().map(Some).chain(std::iter::repeat(None));
        for (own, their) in parts.iter().zip(theirs) {
            let end = (at + length).min(size);
            if Some(own) == their {
                reuse.add(at, end - at, &self.out)?;
            } else {
                reuse.flush(&self.out)?;
                self.rest(file, stat, (at, end), &mut |_| {})?;
            }
            at = end;
        }
        Ok(reuse.flush(&self.out)?)
    }

    /// Sends the whole file, with references to chunks that the destination has anywhere.
    fn changes(
        &mut self,
        id: u32,
        file: &File,
        stat: &Stat,
        chunks: &[u8],
        hasher: &mut blake3::Hasher,
    ) -> Result<(), ContentError> {
        let ready = self.chunk_list.take().filter(|(own, _)| *own == id);
        let chunk_list = match ready {
            Some((_, chunk_list)) => Some(chunk_list),
            None => ChunkList::of(file, stat::size(stat))?,
        };
        let Some(chunk_list) = chunk_list else {
            return self.rest(file, stat, (0, stat::size(stat)), &mut |piece| {
                hasher.update(piece);
            });
        };
        let known = delta::known(chunks);
        let (mut at, mut reuse) = (0, Reuse::default());
        for (name, length) in &chunk_list.chunks {
            let end = at + u64::from(*length);
            match known.get(name) {
                Some(&offset) => reuse.add(offset, u64::from(*length), &self.out)?,
                None => {
                    reuse.flush(&self.out)?;
                    self.data(file, at, end, &mut |_| {})?;
                }
            }
            at = end;
        }
        reuse.flush(&self.out)?;
        *hasher = chunk_list.hasher;
        Ok(())
    }

    /// Hashes the parts of a file while the destination does the same. Errors are reported when the content
    /// is requested.
    pub(super) fn prepare(&mut self, id: u32, item: &mut Item) {
        let hashed = item.open().and_then(|(file, stat)| self.hash_parts(&file, stat::size(&stat)));
        self.parts = hashed.ok().map(|parts| (id, parts));
    }

    /// Sends the bytes from `at` to `end`.
    fn data(
        &mut self,
        file: &File,
        mut at: u64,
        end: u64,
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ContentError> {
        while at < end {
            self.check_stopped()?;
            let wanted = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
            let got = read(file, &mut self.buffer[..wanted], at)?;
            each(&self.buffer[..got]);
            block(&mut self.compressor, &self.out, &self.buffer[..got])?;
            at += got as u64;
        }
        Ok(())
    }
}

fn unchanged(before: &Stat, now: &Stat) -> Result<(), ContentError> {
    let kept = |stat: &Stat| {
        (stat.st_dev, stat.st_ino, stat.st_size, stat::stamp(stat).seconds, stat::stamp(stat).nanos)
    };
    if stat::file_type(now) == FileType::RegularFile && kept(before) == kept(now) {
        Ok(())
    } else {
        Err(fault(CHANGED))
    }
}

fn block(compressor: &mut Compressor, out: &Outbox, bytes: &[u8]) -> Result<(), LinkError> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let frame = match compressor.compress(bytes) {
        Some(smaller) => FromSource::Compressed { length, bytes: smaller },
        None => FromSource::Data(bytes),
    };
    let began = Instant::now();
    out.put(|buffer| frame.encode(buffer))?;
    compressor.sent(began.elapsed());
    Ok(())
}

/// Produces the zeroes of a hole in pieces.
pub(crate) fn zeroes(mut count: u64, mut each: impl FnMut(&[u8])) {
    static ZEROES: [u8; 4 * 1024] = [0; 4 * 1024];
    while count > 0 {
        let piece = usize::try_from(count).unwrap_or(ZEROES.len()).min(ZEROES.len());
        each(&ZEROES[..piece]);
        count -= piece as u64;
    }
}

/// The next range of data at or after `at` and before `till`.
fn extent(file: &File, at: u64, till: u64) -> Result<(u64, u64), ContentError> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) if data < till => {
                let end = rustix::fs::seek(file, SeekFrom::Hole(data))?;
                return Ok((data, end.min(till)));
            }
            Ok(_) | Err(Errno::NXIO) => return Ok((till, till)), // the rest is a hole
            Err(_) => {}                                         // the file system does not support this
        }
    }
    Ok((at, till))
}
