//! Work that is deferred until all files are in place: links, so that nothing is ever written through one,
//! special files, and the times of directories, which every new entry changes.

use super::commit::{mode, owner, set_owner};
use super::error::{ReceiveError, explain};
use super::target::Target;
use super::{FileReceiver, mount_namespace};
use crate::beneath::Root;
use crate::policy::DIRECTORY;
use crate::{name, policy, stat};
use postern_wire::copy::{Entry, EntryResult, Fate, Kind, Owner, ReceiveSpec, Stamp, UNOWNED};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;

#[derive(Debug, Default)]
pub(super) struct Deferred {
    entries: Vec<(Box<Entry>, Vec<u8>)>,
    directories: Vec<Made>,
    /// The directories that are new.
    new: HashSet<Vec<u8>>,
}

impl Deferred {
    /// Whether this copy created the directory at this path.
    pub(super) fn is_new(&self, path: &[u8]) -> bool {
        self.new.contains(name::split(path).0)
    }
}

/// A directory whose time has to be set, and its mode if it is new.
#[derive(Debug)]
struct Made {
    path: Vec<u8>,
    mode: Option<u32>,
    stamp: Stamp,
}

impl FileReceiver<'_> {
    /// Creates a directory immediately, because files go into it.
    pub(super) fn directory(&mut self, entry: &Entry, path: Vec<u8>) -> Result<(), ReceiveError> {
        let root = path.is_empty();
        let new_root = self.target.as_ref().is_some_and(|target| target.created || target.missing);
        let mut looked = match (&self.target, root) {
            (Some(target), true) => rustix::fs::fstat(target.root.as_fd()).map(Some),
            _ => self.look(&path),
        };
        if let (Ok(Some(there)), false) = (&looked, root)
            && stat::file_type(there) != FileType::Directory
            && self.clear_path(entry, &path)?
        {
            looked = Ok(None);
        }
        let there = match &looked {
            _ if root => !new_root,
            Ok(Some(there)) if stat::file_type(there) == FileType::Directory => true,
            Ok(Some(_)) => {
                let why = "the existing entry is not a directory".to_owned();
                return self.settle(entry.id, Fate::Failed, why);
            }
            Ok(None) => false,
            Err(error) => {
                return self.settle(entry.id, Fate::Failed, explain("checking its path", *error));
            }
        };
        let found = looked.ok().flatten().filter(|_| there);
        if self.spec.dry_run {
            let fate = if there { Fate::Made } else { Fate::Planned };
            return self.settle(entry.id, fate, String::new());
        }
        let bits = mode(self.spec, entry.stamp.mode);
        let Some(target) = &mut self.target else { return Ok(()) };
        // It must be writable for us meanwhile.
        let meanwhile = (bits & 0o777) | 0o700;
        let there = if there || path.is_empty() {
            there
        } else {
            let permissions = stat::permissions(meanwhile);
            let made = target
                .root
                .parent(&path)
                .and_then(|(parent, last)| rustix::fs::mkdirat(parent, last, permissions));
            match made {
                Ok(()) => false,
                Err(Errno::EXIST) => true, // another copy created it first
                Err(error) => {
                    return self.settle(entry.id, Fate::Failed, explain("creating the directory", error));
                }
            }
        };
        if !there
            && let Ok(opened) = target.root.open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        {
            // Independent of the umask. A setgid bit inherited from the parent stays, as on a volume with an
            // fsGroup. What could not be set is reported at the end.
            let now = rustix::fs::fstat(&opened).map_or(0, |found| stat::stamp(&found).mode);
            if now & 0o777 != meanwhile {
                let _ = stat::set_permissions(opened, meanwhile | now & 0o2000);
            }
        }
        let mut note = String::new();
        // An existing directory keeps its mode and owner unless the user requests otherwise.
        let owner = owner(self.spec, entry, None);
        if owner != Owner::default() {
            let opened = target.root.open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
            let given = opened.and_then(|opened| {
                let now = rustix::fs::fstat(&opened)?;
                Ok(set_owner(owner, &File::from(opened), &now))
            });
            note = given.map_or_else(|error| format!("{UNOWNED}: {error}"), Option::unwrap_or_default);
        }
        if !entry.xattrs.is_empty()
            && let Ok(opened) = target.root.open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            && let Err(error) = stat::set_xattrs(opened, &entry.xattrs)
        {
            let owner = if note.is_empty() { note } else { note + "; " };
            note = format!("{owner}its extended attributes could not be set: {error}");
        }
        // A directory with the temporary mode was most likely created by a copy of ours that was killed.
        let mode = match &found {
            Some(found) if !self.spec.preserve && stat::stamp(found).mode & 0o5777 != meanwhile => None,
            _ => Some(bits),
        };
        if !there {
            self.deferred.new.insert(path.clone());
            if entry.stamp.mode & 0o2000 & !bits != 0 && !self.inherits_group(&path) {
                let before = if note.is_empty() { note } else { note + "; " };
                note = format!("{before}{}", policy::SETGID_DROPPED);
            }
        }
        self.deferred.directories.push(Made { path, mode, stamp: entry.stamp });
        self.settle(entry.id, Fate::Made, note)
    }

    /// Whether new files in this directory inherit its group.
    fn inherits_group(&mut self, path: &[u8]) -> bool {
        let Some(target) = &mut self.target else { return false };
        let opened = target.root.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        opened.and_then(rustix::fs::fstat).is_ok_and(|found| stat::stamp(&found).mode & 0o2000 != 0)
    }

    /// The path relative to the target: the target itself may be one name among others in its directory.
    fn own<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        match &self.target {
            Some(Target { rename: Some(_), .. }) => name::inner(path, false),
            _ => path,
        }
    }

    /// Checks a link or special file now; it is created at the end.
    pub(super) fn defer(&mut self, mut entry: Box<Entry>, path: Vec<u8>) -> Result<(), ReceiveError> {
        entry.xattrs = Vec::new(); // unused for links; saves memory until the end
        let refused = policy::refused(self.spec, &entry.kind, self.own(&path));
        if let Some(why) = refused {
            return self.settle(entry.id, Fate::Refused, why);
        }
        if let Ok(Some(there)) = self.look(&path)
            && stat::file_type(&there) == FileType::Directory
            && !self.clear_path(&entry, &path)?
        {
            return self.settle(entry.id, Fate::Failed, DIRECTORY.to_owned());
        }
        if self.spec.dry_run {
            return self.settle(entry.id, Fate::Planned, String::new());
        }
        self.deferred.entries.push((entry, path));
        Ok(())
    }
}

impl Deferred {
    /// Creates the deferred entries and reports the results.
    ///
    /// Hard links to files in `bad` are not created, because those were not written.
    pub(super) fn apply(
        &mut self,
        spec: &ReceiveSpec,
        target: &mut Target,
        bad: &HashSet<Vec<u8>>,
    ) -> Vec<EntryResult> {
        let Self { entries, directories, new: _ } = std::mem::take(self);
        let mut settled = Vec::with_capacity(entries.len());
        for (entry, path) in entries {
            let made = match &entry.kind {
                Kind::Symlink(to) => symlink(&mut target.root, &path, to),
                Kind::HardLink(to) => {
                    let to = target.path(to);
                    // The existing file is not the source's.
                    if bad.contains(&to) {
                        Err(Errno::STALE)
                    } else {
                        hard_link(&mut target.root, &path, &to)
                    }
                }
                Kind::Fifo | Kind::Device { .. } => special(spec, &mut target.root, &path, &entry),
                Kind::File(_) | Kind::Directory => Ok(()),
            };
            let note = match &made {
                Ok(()) => finish(spec, &mut target.root, &path, &entry),
                Err(error) => explain("creating it", *error),
            };
            let fate = if made.is_ok() { Fate::Made } else { Fate::Failed };
            settled.push(EntryResult { id: entry.id, fate, hash: [0; 32], note });
        }
        for Made { path, mode, stamp } in directories.into_iter().rev() {
            let opened = target.root.open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
            if let Ok(opened) = opened {
                let _ = rustix::fs::futimens(&opened, &stat::times(stamp)); // fails for another owner
                if let Some(mode) = mode {
                    // A setgid directory stays one.
                    let now = rustix::fs::fstat(&opened).map_or(0, |found| stat::stamp(&found).mode);
                    if now != mode | now & 0o2000 {
                        let _ = stat::set_permissions(&opened, mode | now & 0o2000);
                    }
                }
            }
        }
        settled
    }
}

/// Sets owner and time of an entry that is neither file nor directory.
fn finish(spec: &ReceiveSpec, root: &mut Root, path: &[u8], entry: &Entry) -> String {
    if matches!(entry.kind, Kind::HardLink(_)) {
        return String::new(); // a hard link shares them with its file
    }
    let Ok((parent, last)) = root.parent(path) else { return String::new() };
    let owned = stat::set_owner(parent, last, owner(spec, entry, None));
    let timed = rustix::fs::utimensat(parent, last, &stat::times(entry.stamp), AtFlags::SYMLINK_NOFOLLOW);
    match (owned, timed) {
        (Err(error), _) => format!("{UNOWNED}: {error}"),
        (_, Err(error)) => format!("its time could not be set: {error}"),
        (Ok(()), Ok(())) => String::new(),
    }
}

/// Creates an entry under the name of a partial file, then renames it into place.
fn replace(
    root: &mut Root,
    path: &[u8],
    make: impl FnOnce(rustix::fd::BorrowedFd<'_>, &[u8]) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let (parent, last) = root.parent(path)?;
    let unfinished = name::partial(last);
    let _ = rustix::fs::unlinkat(parent, unfinished.as_slice(), AtFlags::empty()); // left behind
    make(parent, &unfinished)?;
    let named = mount_namespace::refuse_mount_point(parent, last)
        .and_then(|()| rustix::fs::renameat(parent, unfinished.as_slice(), parent, last));
    // If both names are the same file, rename(2) does nothing and leaves both.
    let _ = rustix::fs::unlinkat(parent, unfinished.as_slice(), AtFlags::empty());
    named
}

fn symlink(root: &mut Root, path: &[u8], target: &[u8]) -> Result<(), Errno> {
    let (parent, last) = root.parent(path)?;
    if let Ok(there) = rustix::fs::readlinkat(parent, last, Vec::new())
        && there.as_bytes() == target
    {
        return Ok(());
    }
    replace(root, path, |parent, unfinished| rustix::fs::symlinkat(target, parent, unfinished))
}

fn hard_link(root: &mut Root, path: &[u8], to: &[u8]) -> Result<(), Errno> {
    // Its directory may not be the one that is open for the link.
    let target = root.open(name::split(to).0, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let name_there = name::split(to).1;
    let there = rustix::fs::statat(&target, name_there, AtFlags::SYMLINK_NOFOLLOW)?;
    if stat::file_type(&there) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    replace(root, path, |parent, unfinished| {
        rustix::fs::linkat(&target, name_there, parent, unfinished, AtFlags::empty())
    })
}

fn special(spec: &ReceiveSpec, root: &mut Root, path: &[u8], entry: &Entry) -> Result<(), Errno> {
    let (kind, device) = match entry.kind {
        Kind::Device { block: true, major, minor } => {
            (FileType::BlockDevice, rustix::fs::makedev(major, minor))
        }
        Kind::Device { block: false, major, minor } => {
            (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
        }
        _ => (FileType::Fifo, 0),
    };
    let bits = stat::permissions(mode(spec, entry.stamp.mode));
    replace(root, path, |parent, unfinished| {
        #[cfg(not(target_vendor = "apple"))]
        {
            rustix::fs::mknodat(parent, unfinished, kind, bits, device)
        }
        #[cfg(target_vendor = "apple")]
        {
            let _ = (parent, unfinished, kind, bits, device);
            Err(Errno::NOTSUP)
        }
    })
}
