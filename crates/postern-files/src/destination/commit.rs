//! Finished files get their names, many at a time once all of them are on the disk.

use super::Destination;
use super::trouble::explain;
use crate::beneath::Root;
use crate::link::LinkError;
use crate::{name, stat};
use postern_wire::copy::{Entry, Fate, FromDestination, Owner, ReceiveSpec, Settled};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;

/// Most files that wait for their names, where that many may be open.
const FILES: usize = 1_024;

/// Most of their bytes.
const BYTES: u64 = 64 * 1024 * 1024;

/// A file that has all but its name.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) path: Vec<u8>,
    pub(super) settled: Settled,
    /// It is on the disk already.
    pub(super) synced: bool,
    /// Open, and so locked: nobody else may begin to write it before it has its name.
    pub(super) lock: File,
}

#[derive(Debug)]
pub(super) struct Batch {
    ready: Vec<Ready>,
    bytes: u64,
    most: usize,
}

impl Batch {
    /// For a process that may have so many files open.
    pub(super) fn new(open: u64) -> Self {
        let most = usize::try_from(open / 2).unwrap_or(FILES).clamp(1, FILES);
        Self { ready: Vec::new(), bytes: 0, most }
    }

    pub(super) fn push(&mut self, ready: Ready, bytes: u64) {
        self.ready.push(ready);
        self.bytes += bytes;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.ready.len() >= self.most || self.bytes >= BYTES
    }
}

impl Destination<'_> {
    /// Gives every finished file its name, and answers for it.
    pub(super) fn commit(&mut self) -> Result<(), LinkError> {
        self.batch.bytes = 0;
        let ready = std::mem::take(&mut self.batch.ready);
        let Some(placed) = &mut self.placed else { return Ok(()) };
        // One flush of the file system costs less than one for each file.
        let synced = ready.iter().all(|one| one.synced) || flush(placed.root.as_fd());
        for Ready { path, mut settled, synced: own, lock } in ready {
            if !synced && !own {
                settled.fate = Fate::Failed;
                "the disk does not take it".clone_into(&mut settled.note);
            } else if let Err(error) = name_it(&mut placed.root, &path, &lock, self.spec.inplace) {
                settled.fate = Fate::Failed;
                settled.note = explain("putting it in its place", error);
            }
            drop(lock);
            self.busy.remove(&path);
            if settled.fate == Fate::Written {
                self.bad.remove(&path);
            }
            self.out.put(|buffer| FromDestination::Settled(settled).encode(buffer))?;
        }
        Ok(())
    }
}

/// Everything on the directory's file system reaches the disk.
fn flush(directory: rustix::fd::BorrowedFd<'_>) -> bool {
    #[cfg(target_os = "linux")]
    {
        match rustix::fs::openat(directory, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(opened) => return rustix::fs::syncfs(opened).is_ok(),
            Err(_) => rustix::fs::sync(), // it cannot be opened for reading
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = directory;
    true
}

/// Whether the unfinished file of this path is the one that we hold.
fn is_ours(root: &mut Root, path: &[u8], file: &File) -> Result<(), Errno> {
    let own = rustix::fs::fstat(file)?;
    let (directory, last) = root.parent(path)?;
    let there = rustix::fs::statat(directory, name::partial(last).as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
    if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino) { Ok(()) } else { Err(Errno::STALE) }
}

fn name_it(root: &mut Root, path: &[u8], file: &File, inplace: bool) -> Result<(), Errno> {
    is_ours(root, path, file)?;
    let (directory, last) = root.parent(path)?;
    let unfinished = name::partial(last);
    let named = rustix::fs::renameat(directory, unfinished.as_slice(), directory, last);
    match named {
        Err(Errno::BUSY | Errno::XDEV) if inplace => {
            into_itself(root, path, file)?;
            remove_partial(root, path, file)
        }
        Err(error) => {
            remove_partial(root, path, file)?; // whole, and of no use
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

/// Writes what is complete into the file that cannot be replaced.
fn into_itself(root: &mut Root, path: &[u8], from: &File) -> Result<(), Errno> {
    use std::io::{Seek as _, SeekFrom};
    let into = root.open(path, OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK, Mode::empty())?;
    let (mut from, mut into) = (from, File::from(into));
    let copied = from
        .seek(SeekFrom::Start(0))
        .and_then(|_| std::io::copy(&mut from, &mut into))
        .and_then(|_| into.sync_all())
        .and_then(|()| from.metadata()?.modified())
        .and_then(|changed| into.set_modified(changed));
    copied.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Removes the unfinished file that we hold, and no other.
pub(super) fn remove_partial(root: &mut Root, path: &[u8], file: &File) -> Result<(), Errno> {
    is_ours(root, path, file)?;
    let (directory, last) = root.parent(path)?;
    rustix::fs::unlinkat(directory, name::partial(last).as_slice(), AtFlags::empty())
}

/// The bits that an entry may bring.
pub(super) fn mode(spec: &ReceiveSpec, mode: u32) -> u32 {
    if spec.specials { mode & 0o7777 } else { mode & 0o1777 }
}

/// The permission bits of a new file: those of what it replaces, or what the entry may bring.
pub(super) fn bits(spec: &ReceiveSpec, entry: &Entry, old: Option<&Stat>) -> u32 {
    let old = old.filter(|_| !spec.preserve);
    mode(spec, old.map_or(entry.stamp.mode, |old| stat::stamp(old).mode))
}

/// Gives a new file its owner, mode and attributes; says what it could not give.
pub(super) fn dress(spec: &ReceiveSpec, entry: &Entry, old: Option<&Stat>, file: &File) -> String {
    let old = old.filter(|_| !spec.preserve);
    let owner = owner(spec, entry, old);
    let mut notes = Vec::new();
    let us = Owner {
        user: Some(rustix::process::geteuid().as_raw()),
        group: Some(rustix::process::getegid().as_raw()),
    };
    if owner != us
        && owner != Owner::default()
        && let Err(error) = stat::own_open(file, owner)
    {
        notes.push(format!("its owner could not be set: {error}"));
    }
    let bits = bits(spec, entry, old);
    let now = rustix::fs::fstat(file).map(|now| stat::stamp(&now).mode);
    if now != Ok(bits)
        && let Err(error) = stat::permit(file, bits)
    {
        notes.push(format!("its mode could not be set: {error}"));
    }
    if let Err(error) = stat::set_xattrs(file, &entry.xattrs) {
        notes.push(format!("its extended attributes could not be set: {error}"));
    }
    notes.join("; ")
}

/// Who is to own an entry: whom the user names, else the owner of what it replaces, else nobody in particular.
pub(super) fn owner(spec: &ReceiveSpec, entry: &Entry, old: Option<&Stat>) -> Owner {
    let Owner { user, group } = spec.owner;
    let (other_user, other_group) = match old {
        Some(old) => (Some(old.st_uid), Some(old.st_gid)),
        None if spec.preserve => (Some(entry.stamp.user), Some(entry.stamp.group)),
        None => (None, None),
    };
    Owner { user: user.or(other_user), group: group.or(other_group) }
}
