//! Partial files. They have a name of their own next to the final path, and a trailer that records the
//! progress.
//!
//! The trailer is behind the last byte of the expected content. It needs no second file, and truncating the
//! file to its length removes it. It is written after the content before it has reached the disk.

use crate::beneath::Root;
use crate::prefix_hash::PrefixHash;
use crate::{hash_tree, name, stat};
use postern_wire::copy::{BLOCK, Stamp, UNSIZED};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// Bytes between two updates of the trailer; also the minimum content that gets one before its copy is
/// interrupted.
pub(super) const EVERY: u64 = 8 * 1024 * 1024;

/// Files above this size are kept when a copy is interrupted.
pub(super) const KEPT: u64 = 256 * 1024;

/// How long to wait for a copy that writes the same file: longer than an agent waits for a silent client.
const PATIENCE: Duration = Duration::from_secs(8);

const MAGIC: [u8; 8] = *b"PSTNPT01";

/// Size of the trailer in bytes.
pub(super) const NOTE: usize = 8 + 8 + 8 + 4 + 8 + 12;

/// A partial file that can be resumed.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) file: File,
    /// Valid bytes at the beginning, in whole parts.
    pub(super) good: u64,
}

impl Partial {
    /// Prepares for the rest of the content, while the existing part is hashed.
    pub(super) fn resume(self, size: u64) -> Result<(File, PrefixHash), Errno> {
        let Self { file, good } = self;
        let beginning = PrefixHash::start(&file, hash_tree::part_length(size), good);
        let beginning = beginning.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        // Truncated only now: until then the trailer records what is valid.
        rustix::fs::ftruncate(&file, good)?;
        allocate(&file, size)?;
        Ok((file, beginning))
    }
}

/// The source of a partial file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) size: u64,
    pub(super) seconds: i64,
    pub(super) nanos: u32,
    pub(super) good: u64,
}

impl Note {
    pub(super) fn new(size: u64, stamp: Stamp, good: u64) -> Self {
        Self { size, seconds: stamp.seconds, nanos: stamp.nanos, good }
    }

    pub(super) fn encode(self) -> [u8; NOTE] {
        let Self { size, seconds, nanos, good } = self;
        let mut note = [0; NOTE];
        note[..8].copy_from_slice(&MAGIC);
        note[8..16].copy_from_slice(&size.to_be_bytes());
        note[16..24].copy_from_slice(&seconds.to_be_bytes());
        note[24..28].copy_from_slice(&nanos.to_be_bytes());
        note[28..36].copy_from_slice(&good.to_be_bytes());
        let sum = blake3::hash(&note[..36]);
        note[36..].copy_from_slice(&sum.as_bytes()[..12]);
        note
    }

    fn decode(note: &[u8; NOTE]) -> Option<Self> {
        let long = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&note[at..at + 8]);
            bytes
        };
        let sum = blake3::hash(&note[..36]);
        if note[..8] != MAGIC || note[36..] != sum.as_bytes()[..12] {
            return None;
        }
        let nanos = u32::from_be_bytes([note[24], note[25], note[26], note[27]]);
        let (size, good) = (u64::from_be_bytes(long(8)), u64::from_be_bytes(long(28)));
        (good <= size).then_some(Self { size, seconds: i64::from_be_bytes(long(16)), nanos, good })
    }
}

/// The result of looking for a partial file.
pub(super) enum Found {
    /// None that is usable.
    Nothing,
    /// It was begun from the same source.
    Partial(Box<Partial>),
    /// It was begun from an older version of the source.
    Stale,
}

/// Opens for writing only a file of ours: not a hard link, and not another owner's.
fn open(root: &mut Root, path: &[u8], create: Option<Mode>) -> Result<(File, bool), Errno> {
    let (directory, last) = name::split(path);
    let path = name::join(directory, &name::partial(last));
    let patient_until = Instant::now() + PATIENCE;
    loop {
        match try_open(root, &path, create) {
            // The lock may be held for a client that is gone, which is not known yet.
            Err(Errno::TXTBSY | Errno::STALE) if Instant::now() < patient_until => {
                std::thread::sleep(Duration::from_millis(20)); // flock(2) has no timeout
            }
            Err(Errno::STALE) => return Err(Errno::TXTBSY),
            other => return other,
        }
    }
}

fn try_open(root: &mut Root, path: &[u8], create: Option<Mode>) -> Result<(File, bool), Errno> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK;
    // A file that we create is ours, whatever owner the file system reports.
    let created = match create {
        Some(mode) => match root.open(path, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Err(Errno::EXIST) => None,
            other => Some(other?),
        },
        None => None,
    };
    let ours = created.is_some();
    let file = created.map_or_else(|| root.open(path, flags, Mode::empty()), Ok)?;
    let found = rustix::fs::fstat(&file)?;
    let regular = stat::file_type(&found) == rustix::fs::FileType::RegularFile;
    if !regular || found.st_nlink > 1 || !ours && found.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::EXIST);
    }
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) | Err(Errno::NOSYS | Errno::NOTSUP | Errno::NOLCK) => {}
        Err(Errno::WOULDBLOCK) => return Err(Errno::TXTBSY),
        Err(error) => return Err(error),
    }
    // The holder of the lock may have renamed the file meanwhile.
    let (directory, last) = root.parent(path)?;
    match rustix::fs::statat(directory, last, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(now) if (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino) => Ok((File::from(file), ours)),
        Ok(_) | Err(Errno::NOENT) => Err(Errno::STALE),
        Err(error) => Err(error),
    }
}

/// Creates an empty partial file with this mode, or truncates the existing one.
pub(super) fn begin(root: &mut Root, path: &[u8], mode: Mode) -> Result<File, Errno> {
    let (file, new) = open(root, path, Some(mode))?;
    if !new {
        rustix::fs::ftruncate(&file, 0)?;
        rustix::fs::fchmod(&file, mode)?;
    }
    Ok(file)
}

/// Allocates space for the content of a resumable file and the trailer behind it.
pub(super) fn allocate(file: &File, size: u64) -> Result<(), Errno> {
    let noted = size > EVERY && size != UNSIZED;
    if noted { rustix::fs::ftruncate(file, size + NOTE as u64) } else { Ok(()) }
}

/// Looks for a partial file of this size and time.
pub(super) fn find(root: &mut Root, path: &[u8], size: u64, stamp: Stamp) -> Result<Found, Errno> {
    let file = match open(root, path, None) {
        Ok((file, _)) => file,
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    let length = stat::size(&rustix::fs::fstat(&file)?);
    let mut note = [0; NOTE];
    let at = length.checked_sub(NOTE as u64);
    let read = at.is_some_and(|at| file.read_exact_at(&mut note, at).is_ok());
    let Some(note) = Note::decode(&note).filter(|note| read && Some(note.size) == at) else {
        return Ok(Found::Nothing);
    };
    if note != Note::new(size, stamp, note.good) {
        return Ok(Found::Stale);
    }
    // Whole parts and whole blocks, because a source without an agent can resume only there.
    match note.good - note.good % hash_tree::part_length(size).max(BLOCK as u64) {
        0 => Ok(Found::Nothing),
        good => Ok(Found::Partial(Box::new(Partial { file, good }))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_is_valid_or_ignored() {
        let note = Note { size: 10, seconds: -1, nanos: 5, good: 7 };
        let bytes = note.encode();
        assert_eq!(Note::decode(&bytes), Some(note));
        for at in 0..NOTE {
            let mut wrong = bytes;
            wrong[at] ^= 1;
            assert_eq!(Note::decode(&wrong), None);
        }
        assert_eq!(Note::decode(&Note { good: 11, ..note }.encode()), None);
    }
}
