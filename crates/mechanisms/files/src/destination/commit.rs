//! Gives finished files their final names, in batches after all of them are on disk.

use super::error::explain;
use super::{FileReceiver, mount_namespace, unnamed};
use crate::beneath::Root;
use crate::link::{LinkError, Outbox};
use crate::open_files::OpenFileShare;
use crate::{name, stat};
use postern_wire::copy::{Entry, EntryResult, Fate, FromDestination, Owner, ReceiveSpec, UNOWNED};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::sync::mpsc::{SendError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Maximum number of files in a batch, if that many may be open.
const FILES: usize = 2_048;

/// Maximum bytes in a batch.
const BYTES: u64 = 64 * 1024 * 1024;

/// A finished file that lacks only its final name.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) path: Vec<u8>,
    pub(super) settled: EntryResult,
    /// Whether it is already on disk.
    pub(super) synced: bool,
    /// The open file with its lock: no other copy may start writing it before it has its name.
    pub(super) lock: File,
    /// Its attributes under the name of a partial file; `None` if it has no name yet.
    pub(super) stat: Option<Stat>,
}

#[derive(Debug)]
pub(super) struct Batch {
    ready: Vec<Ready>,
    bytes: u64,
    share: OpenFileShare,
}

impl Batch {
    /// A batch for an end with this share of open files; there are two batches at a time.
    pub(super) fn new(share: OpenFileShare) -> Self {
        Self { ready: Vec::new(), bytes: 0, share }
    }

    pub(super) fn push(&mut self, ready: Ready, bytes: u64) {
        self.ready.push(ready);
        self.bytes += bytes;
    }

    fn take(&mut self) -> Vec<Ready> {
        self.bytes = 0;
        std::mem::take(&mut self.ready)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.ready.len() >= FILES.min(self.share.quarter()) || self.bytes >= BYTES
    }
}

/// Commits files.
struct CommitTarget {
    root: Root,
    inplace: bool,
    out: Outbox,
}

/// The result of committing a file.
struct Done {
    path: Vec<u8>,
    written: bool,
}

impl CommitTarget {
    fn commit(&mut self, ready: Vec<Ready>, mut done: impl FnMut(Done)) -> Result<(), LinkError> {
        // One flush of the file system is cheaper than one for each file.
        let synced = ready.iter().all(|one| one.synced) || flush(self.root.as_fd());
        for Ready { path, mut settled, synced: own, lock, stat } in ready {
            if !synced && !own {
                settled.fate = Fate::Failed;
                "flushing it to disk failed".clone_into(&mut settled.note);
            } else if let Err(error) =
                move_into_place(&mut self.root, &path, &lock, stat.as_ref(), self.inplace)
            {
                settled.fate = Fate::Failed;
                settled.note = explain("renaming it", error);
            }
            drop(lock);
            done(Done { path, written: settled.fate == Fate::Written });
            self.out.put(|buffer| FromDestination::EntryResult(settled).encode(buffer))?;
        }
        Ok(())
    }
}

/// Commits files on a thread of its own: flushing takes time, and more files arrive meanwhile.
pub(super) struct Committer {
    sender: SyncSender<Vec<Ready>>,
    done: Arc<Mutex<Vec<Done>>>,
    thread: JoinHandle<Result<(), LinkError>>,
}

impl Committer {
    fn start(mut target: CommitTarget) -> Option<Self> {
        // A rendezvous channel: at most one batch is being committed while the next is collected.
        let (sender, batches) = sync_channel::<Vec<Ready>>(0);
        let done = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&done);
        let thread = std::thread::Builder::new().spawn(move || {
            while let Ok(batch) = batches.recv() {
                target.commit(batch, |done| list(&told).push(done))?;
                target.out.flush()?;
            }
            Ok(())
        });
        thread.ok().map(|thread| Self { sender, done, thread })
    }
}

fn list(done: &Mutex<Vec<Done>>) -> MutexGuard<'_, Vec<Done>> {
    done.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileReceiver<'_> {
    fn commit_target(&self) -> Option<CommitTarget> {
        let root = Root::new(self.target.as_ref()?.root.as_fd().try_clone_to_owned().ok()?);
        Some(CommitTarget { root, inplace: self.spec.inplace, out: self.out.clone() })
    }

    /// Commits every finished file and sends its result.
    pub(super) fn commit(&mut self) -> Result<(), LinkError> {
        let ready = self.batch.take();
        self.commit_here(ready)
    }

    fn commit_here(&mut self, ready: Vec<Ready>) -> Result<(), LinkError> {
        if ready.is_empty() {
            return Ok(());
        }
        let mut target =
            self.commit_target().ok_or_else(|| LinkError::Lost("no more files can be opened".to_owned()))?;
        target.commit(ready, |done| self.committed(done))
    }

    /// Commits a full batch in the background.
    pub(super) fn commit_in_background(&mut self) -> Result<(), LinkError> {
        if self.committer.is_none() {
            self.committer = self.commit_target().and_then(Committer::start);
        }
        let ready = self.batch.take();
        match &self.committer {
            Some(committer) => match committer.sender.send(ready) {
                Ok(()) => Ok(()),
                Err(SendError(_)) => self.commit_all(), // reports the error
            },
            None => self.commit_here(ready),
        }
    }

    /// Commits everything, including the batch in progress.
    pub(super) fn commit_all(&mut self) -> Result<(), LinkError> {
        let own = self.commit();
        let Some(Committer { sender, done, thread }) = self.committer.take() else { return own };
        drop(sender);
        let other = thread.join().unwrap_or_else(|_| Err(LinkError::Lost("a thread ended early".to_owned())));
        std::mem::take(&mut *list(&done)).into_iter().for_each(|done| self.committed(done));
        own.and(other)
    }

    /// Records the results of the background thread.
    pub(super) fn record_committed(&mut self) {
        let done = self.committer.as_ref().map(|committer| std::mem::take(&mut *list(&committer.done)));
        done.into_iter().flatten().for_each(|done| self.committed(done));
    }

    fn committed(&mut self, Done { path, written }: Done) {
        self.busy.remove(&path);
        if written {
            self.bad.remove(&path);
        }
    }
}

/// Flushes the directory's file system to disk.
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

/// Whether the partial file at this path is the open one.
fn is_ours(root: &mut Root, path: &[u8], own: &Stat) -> Result<(), Errno> {
    let (directory, last) = root.parent(path)?;
    let there = rustix::fs::statat(directory, name::partial(last).as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
    if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino) { Ok(()) } else { Err(Errno::STALE) }
}

fn move_into_place(
    root: &mut Root,
    path: &[u8],
    file: &File,
    own: Option<&Stat>,
    inplace: bool,
) -> Result<(), Errno> {
    if let Some(own) = own {
        is_ours(root, path, own)?;
    }
    let (directory, last) = root.parent(path)?;
    let unfinished = name::partial(last);
    if own.is_none() {
        let mut tries = 0;
        loop {
            match unnamed::link(file, directory, last) {
                Err(Errno::EXIST) => {} // replace a file created meanwhile
                other => return other,
            }
            match unnamed::link_unfinished(file, directory, &unfinished) {
                // It belongs to another copy that is about to rename it.
                Err(Errno::EXIST) if tries < 100 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(20)); // no notification exists for this
                }
                other => break other?,
            }
        }
    }
    let named = mount_namespace::refuse_mount_point(directory, last)
        .and_then(|()| rustix::fs::renameat(directory, unfinished.as_slice(), directory, last));
    match named {
        Err(Errno::BUSY | Errno::XDEV) if inplace => {
            write_in_place(root, path, file)?;
            remove_partial(root, path, file)
        }
        Err(error) => {
            remove_partial(root, path, file)?; // complete but useless
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

/// Writes the complete content into a file that cannot be replaced.
fn write_in_place(root: &mut Root, path: &[u8], from: &File) -> Result<(), Errno> {
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

/// Removes the partial file if it is the open one.
pub(super) fn remove_partial(root: &mut Root, path: &[u8], file: &File) -> Result<(), Errno> {
    is_ours(root, path, &rustix::fs::fstat(file)?)?;
    let (directory, last) = root.parent(path)?;
    rustix::fs::unlinkat(directory, name::partial(last).as_slice(), AtFlags::empty())
}

/// The mode bits that an entry may set.
pub(super) fn mode(spec: &ReceiveSpec, mode: u32) -> u32 {
    if spec.specials { mode & 0o7777 } else { mode & 0o1777 }
}

/// The permission bits of a new file: those of the replaced file, or those that the entry may set.
pub(super) fn bits(spec: &ReceiveSpec, entry: &Entry, old: Option<&Stat>) -> u32 {
    let old = old.filter(|_| !spec.preserve);
    mode(spec, old.map_or(entry.stamp.mode, |old| stat::stamp(old).mode))
}

/// The initial mode of a new file: it may not be readable to anyone who may not read it in the end.
pub(super) fn initial_mode(spec: &ReceiveSpec, entry: &Entry, old: Option<&Stat>) -> Mode {
    stat::permissions(bits(spec, entry, old) & 0o777)
}

/// Sets the owner, mode and attributes of a file with the current attributes `now`; returns what could not be
/// set.
pub(super) fn apply_metadata(
    spec: &ReceiveSpec,
    entry: &Entry,
    old: Option<&Stat>,
    file: &File,
    now: &Stat,
) -> String {
    let old = old.filter(|_| !spec.preserve);
    let mut notes = Vec::new();
    notes.extend(set_owner(owner(spec, entry, old), file, now));
    let bits = bits(spec, entry, old);
    if stat::stamp(now).mode != bits
        && let Err(error) = stat::set_permissions(file, bits)
    {
        notes.push(format!("its mode could not be set: {error}"));
    }
    if let Err(error) = stat::set_xattrs(file, &entry.xattrs) {
        notes.push(format!("its extended attributes could not be set: {error}"));
    }
    notes.join("; ")
}

/// Sets the owner of a file with the current attributes `now`; returns the error.
pub(super) fn set_owner(owner: Owner, file: &File, now: &Stat) -> Option<String> {
    let Owner { user, group } = owner;
    if user.is_none_or(|user| user == now.st_uid) && group.is_none_or(|group| group == now.st_gid) {
        return None;
    }
    stat::set_owner_of(file, owner).err().map(|error| format!("{UNOWNED}: {error}"))
}

/// The owner of an entry: the one that the user requested, else that of the replaced file, else unspecified.
pub(super) fn owner(spec: &ReceiveSpec, entry: &Entry, old: Option<&Stat>) -> Owner {
    let Owner { user, group } = spec.owner;
    let (other_user, other_group) = match old {
        Some(old) => (Some(old.st_uid), Some(old.st_gid)),
        None if spec.preserve => (Some(entry.stamp.user), Some(entry.stamp.group)),
        None => (None, None),
    };
    Owner { user: user.or(other_user), group: group.or(other_group) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::destination::unnamed::UnnamedFiles;

    #[test]
    fn a_file_created_meanwhile_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let opened =
            rustix::fs::open(folder.path(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        let mut root = Root::new(opened);
        let Some(file) = UnnamedFiles::default().make(&mut root, b"f", false, Mode::RUSR) else {
            return; // this file system does not support unnamed files
        };
        std::fs::write(folder.path().join("f"), "another").unwrap();
        move_into_place(&mut root, b"f", &file, None, false).unwrap();
        assert_eq!(std::fs::read(folder.path().join("f")).unwrap(), b"");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::create_dir(folder.path().join("g")).unwrap();
        let file = UnnamedFiles::default().make(&mut root, b"g", false, Mode::RUSR).unwrap();
        assert_eq!(move_into_place(&mut root, b"g", &file, None, false), Err(Errno::ISDIR));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "what could not be named is gone");
    }
}
