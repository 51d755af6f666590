//! The content of files, from where the destination has none of it.

use super::delta::{self, Reuse, Sketch};
use super::tree::Tree;
use crate::chunks::{MOST_RECORDS, RECORD};
use crate::link::{LinkError, Outbox};
use crate::pack::Packer;
use crate::stat;
use crate::verdict::{CHANGED, STALE};
use postern_wire::copy::{BLOCK, Compression, FromSource, Want};
use rustix::fs::{FileType, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
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

/// Sends content.
pub(super) struct Content {
    packer: Packer,
    out: Outbox,
    buffer: Vec<u8>,
    /// What was cut already, and for which entry.
    sketch: Option<(u32, Sketch)>,
}

impl Content {
    pub(super) fn new(compression: Compression, out: Outbox) -> Self {
        Self { packer: Packer::new(compression), out, buffer: vec![0; BLOCK], sketch: None }
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
            true => self.changes(want.id, &file, &stat, chunks, &mut hasher)?,
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
            self.data(file, at, end, Some(hasher))?;
            at = end;
        }
        Ok(())
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
        let Some(sketch) = sketch else { return self.rest(file, stat, 0, hasher) };
        let known = delta::known(chunks);
        let (mut at, mut reuse) = (0, Reuse::default());
        for (name, length) in &sketch.chunks {
            let end = at + u64::from(*length);
            match known.get(name) {
                Some(&offset) => reuse.add(offset, u64::from(*length), &self.out)?,
                None => {
                    reuse.flush(&self.out)?;
                    self.data(file, at, end, None)?;
                }
            }
            at = end;
        }
        reuse.flush(&self.out)?;
        *hasher = sketch.hasher;
        Ok(())
    }

    /// Cuts a file into chunks while the destination does so with what it has; what goes wrong is told when its content
    /// is asked for.
    pub(super) fn prepare(&mut self, id: u32, item: &Item) {
        let sketched = item.tree.read(&item.below, OFlags::empty()).map_err(Trouble::from).and_then(|file| {
            let file = File::from(file);
            let stat = rustix::fs::fstat(&file)?;
            unchanged(&item.stat, &stat)?;
            Sketch::of(&file, stat::size(&stat))
        });
        self.sketch = sketched.ok().flatten().map(|sketch| (id, sketch));
    }

    /// Bytes of the file, from `at` to `end`.
    fn data(
        &mut self,
        file: &File,
        mut at: u64,
        end: u64,
        mut hasher: Option<&mut blake3::Hasher>,
    ) -> Result<(), Trouble> {
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
            let got = read(file, &mut self.buffer[..wanted], at)?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&self.buffer[..got]);
            }
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
