//! The content of files, from where the destination has none of it.

use super::delta::{self, Reuse, Sketch};
use super::tree::Tree;
use crate::beginning::Beginning;
use crate::chunks::{MOST_RECORDS, RECORD};
use crate::link::{LinkError, Outbox};
use crate::pack::Packer;
use crate::share::Share;
use crate::stat;
use crate::stop::Stop;
use crate::tree::{self, ChainingValue, Parts};
use crate::verdict::{CHANGED, STALE, STOPPED};
use postern_wire::copy::{BLOCK, Compression, FromSource, Known, Want};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Instant;

/// Most bytes of what is told of one file, and of another before it that gave up.
pub(super) const MOST_BYTES: usize = 2 * MOST_RECORDS * RECORD;

/// A file that was announced.
pub(super) struct Item {
    pub(super) tree: Arc<Tree>,
    pub(super) below: Vec<u8>,
    pub(super) stat: Stat,
    /// The kernel makes its content when it is read: neither size nor time say anything of it.
    pub(super) sizeless: bool,
    /// Where it is still open from its announcement, with what counts those.
    pub(super) held: Option<(OwnedFd, Arc<Share>)>,
}

impl Item {
    /// Its file, as it was announced.
    fn open(&mut self) -> Result<(File, Stat), Trouble> {
        let file = match self.held.take() {
            Some((file, _)) => file,
            None => self.tree.read(&self.below, OFlags::empty())?,
        };
        let stat = rustix::fs::fstat(&file)?;
        if !self.sizeless {
            unchanged(&self.stat, &stat)?;
        }
        Ok((File::from(file), stat))
    }
}

/// Why a file's content ends early; for people.
pub(super) struct Fault(String);

pub(super) enum Trouble {
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

/// What became of content that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    /// It was sent, or why it cannot be.
    Now,
    /// It will be asked for again.
    Later,
}

/// Sends content.
pub(super) struct Content {
    packer: Packer,
    out: Outbox,
    stop: Stop,
    /// The entry whose content is being sent.
    serving: u32,
    buffer: Vec<u8>,
    /// The parts that were hashed already, and for which entry.
    parts: Option<(u32, Vec<ChainingValue>)>,
    /// What was cut already, and for which entry.
    sketch: Option<(u32, Sketch)>,
}

impl Content {
    pub(super) fn new(compression: Compression, out: Outbox, stop: Stop) -> Self {
        let (packer, buffer) = (Packer::new(compression), vec![0; BLOCK]);
        Self { packer, out, stop, serving: 0, buffer, parts: None, sketch: None }
    }

    /// Ends content that the destination has given up on.
    fn still_wanted(&self) -> Result<(), Trouble> {
        if self.stop.is_set(self.serving) { Err(fault(STOPPED)) } else { Ok(()) }
    }

    /// Sends what is wanted of a file; whatever is wrong with the file is told to the destination.
    pub(super) fn serve(&mut self, item: &mut Item, want: &Want, told: &[u8]) -> Result<Served, LinkError> {
        self.serving = want.id;
        let ended = match self.file(item, want, told) {
            Ok(Some(hash)) => FromSource::FileEnd { id: want.id, hash },
            Ok(None) => return Ok(Served::Later),
            Err(Trouble::File(Fault(message))) => FromSource::FileFault { id: want.id, message },
            Err(Trouble::Link(error)) => return Err(error),
        };
        self.out.put(|buffer| ended.encode(buffer))?;
        Ok(Served::Now)
    }

    /// The hash of the content that was sent; nothing where it is to be asked for again.
    fn file(&mut self, item: &mut Item, want: &Want, told: &[u8]) -> Result<Option<[u8; 32]>, Trouble> {
        let (file, stat) = item.open()?;
        let size = stat::size(&stat);
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        if item.sizeless {
            return self.until_its_end(want.id, &file).map(Some);
        }
        if want.have > size {
            return Err(fault(STALE));
        }
        if want.known == Known::Prefix {
            return self.go_on(item, want, &file, &stat).map(Some);
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
            if delta::moved(&parts, told) {
                self.out.put(|buffer| FromSource::Cut(want.id).encode(buffer))?;
                self.out.flush()?;
                self.sketch = Sketch::of(&file, size)?.map(|sketch| (want.id, sketch)); // while they do
                return Ok(None);
            }
        }
        self.out.put(|buffer| FromSource::From { id: want.id, offset }.encode(buffer))?;
        match known {
            Known::Blocks => self.in_place(&file, &stat, told, &parts)?,
            Known::Chunks => self.changes(want.id, &file, &stat, told, &mut hasher)?,
            Known::Nothing | Known::Prefix => {
                self.rest(&file, &stat, (offset, size), &mut |piece| {
                    hasher.update(piece);
                })?;
            }
        }
        unchanged(&item.stat, &rustix::fs::fstat(&file)?)?;
        // What was not read again has been hashed before.
        let whole = match known {
            Known::Blocks => tree::root(&parts),
            _ if offset > 0 && offset == size => Some(want.hash),
            Known::Nothing | Known::Chunks | Known::Prefix => None,
        };
        Ok(Some(whole.unwrap_or_else(|| hasher.finalize().into())))
    }

    /// Sends all that can be read, and hashes it.
    fn until_its_end(&mut self, id: u32, mut file: &File) -> Result<[u8; 32], Trouble> {
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
            self.still_wanted()?;
            hasher.update(&self.buffer[..got]);
            block(&mut self.packer, &self.out, &self.buffer[..got])?;
        }
    }

    /// Sends what follows the beginning that the destination has, and hashes that meanwhile: the hash of all of it.
    fn go_on(&mut self, item: &Item, want: &Want, file: &File, stat: &Stat) -> Result<[u8; 32], Trouble> {
        let (size, have) = (stat::size(stat), want.have);
        let length = tree::part_length(size);
        if !have.is_multiple_of(length) {
            return Err(fault(STALE));
        }
        let beginning = Beginning::start(file, length, have)?;
        let mut parts = Parts::after(length, have);
        self.out.put(|buffer| FromSource::From { id: want.id, offset: have }.encode(buffer))?;
        self.rest(file, stat, (have, size), &mut |piece| parts.update(piece))?;
        let whole = [beginning.hashes()?, parts.hashes()].concat();
        unchanged(&item.stat, &rustix::fs::fstat(file)?)?;
        tree::root(&whole).ok_or_else(|| fault(STALE))
    }

    /// The hash of all of an entry whose parts were hashed.
    fn hashed(&self, id: u32) -> Option<[u8; 32]> {
        self.parts.as_ref().filter(|(own, _)| *own == id).and_then(|(_, parts)| tree::root(parts))
    }

    fn take_parts(&mut self, id: u32, file: &File, size: u64) -> Result<Vec<ChainingValue>, Trouble> {
        match self.parts.take() {
            Some((own, parts)) if own == id => Ok(parts),
            _ => self.hash_parts(file, size),
        }
    }

    fn hash_parts(&mut self, file: &File, size: u64) -> Result<Vec<ChainingValue>, Trouble> {
        let mut parts = Parts::new(tree::part_length(size));
        self.each_up_to(file, size, |piece| parts.update(piece))?;
        Ok(parts.hashes())
    }

    /// The first bytes of a file, a piece at a time.
    fn each_up_to(&mut self, file: &File, end: u64, mut each: impl FnMut(&[u8])) -> Result<(), Trouble> {
        let mut at = 0;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
            let got = read(file, &mut self.buffer[..wanted], at)?;
            each(&self.buffer[..got]);
            at += got as u64;
        }
        Ok(())
    }

    /// Everything of a range, holes as such.
    fn rest(
        &mut self,
        file: &File,
        stat: &Stat,
        (mut at, till): (u64, u64),
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Trouble> {
        // Without a hole there is nothing to look for.
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

    /// The whole file, by reference where the destination has the same in the same place.
    fn in_place(
        &mut self,
        file: &File,
        stat: &Stat,
        told: &[u8],
        parts: &[ChainingValue],
    ) -> Result<(), Trouble> {
        let size = stat::size(stat);
        let length = tree::part_length(size);
        let (mut at, mut reuse) = (0, Reuse::default());
        let theirs = told.as_chunks().0.iter().map(Some).chain(std::iter::repeat(None));
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

    /// The whole file, by reference where the destination has the bytes.
    fn changes(
        &mut self,
        id: u32,
        file: &File,
        stat: &Stat,
        chunks: &[u8],
        hasher: &mut blake3::Hasher,
    ) -> Result<(), Trouble> {
        let ready = self.sketch.take().filter(|(own, _)| *own == id);
        let sketch = match ready {
            Some((_, sketch)) => Some(sketch),
            None => Sketch::of(file, stat::size(stat))?,
        };
        let Some(sketch) = sketch else {
            return self.rest(file, stat, (0, stat::size(stat)), &mut |piece| {
                hasher.update(piece);
            });
        };
        let known = delta::known(chunks);
        let (mut at, mut reuse) = (0, Reuse::default());
        for (name, length) in &sketch.chunks {
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
        *hasher = sketch.hasher;
        Ok(())
    }

    /// Hashes the parts of a file while the destination does so with what it has; what goes wrong is told when its content
    /// is asked for.
    pub(super) fn prepare(&mut self, id: u32, item: &mut Item) {
        let hashed = item.open().and_then(|(file, stat)| self.hash_parts(&file, stat::size(&stat)));
        self.parts = hashed.ok().map(|parts| (id, parts));
    }

    /// Bytes of the file, from `at` to `end`.
    fn data(
        &mut self,
        file: &File,
        mut at: u64,
        end: u64,
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Trouble> {
        while at < end {
            self.still_wanted()?;
            let wanted = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
            let got = read(file, &mut self.buffer[..wanted], at)?;
            each(&self.buffer[..got]);
            block(&mut self.packer, &self.out, &self.buffer[..got])?;
            at += got as u64;
        }
        Ok(())
    }
}

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
        Some(smaller) => FromSource::Compressed { length, bytes: smaller },
        None => FromSource::Data(bytes),
    };
    let began = Instant::now();
    out.put(|buffer| frame.encode(buffer))?;
    packer.sent(began.elapsed());
    Ok(())
}

/// What a hole reads as, a piece at a time.
pub(crate) fn zeroes(mut count: u64, mut each: impl FnMut(&[u8])) {
    static ZEROES: [u8; 4 * 1024] = [0; 4 * 1024];
    while count > 0 {
        let piece = usize::try_from(count).unwrap_or(ZEROES.len()).min(ZEROES.len());
        each(&ZEROES[..piece]);
        count -= piece as u64;
    }
}

pub(super) fn read(file: &File, buffer: &mut [u8], at: u64) -> Result<usize, Trouble> {
    loop {
        match file.read_at(buffer, at) {
            Ok(0) => return Err(fault(CHANGED)), // shorter than it was
            Ok(got) => return Ok(got),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The next data at or after `at` and before `till`: where it begins and ends.
fn extent(file: &File, at: u64, till: u64) -> Result<(u64, u64), Trouble> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) if data < till => {
                let end = rustix::fs::seek(file, SeekFrom::Hole(data))?;
                return Ok((data, end.min(till)));
            }
            Ok(_) | Err(Errno::NXIO) => return Ok((till, till)), // a hole to the end
            Err(_) => {}                                         // the file system does not say
        }
    }
    Ok((at, till))
}
