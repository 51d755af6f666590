//! What is done once all files are in place: links, so that nothing is ever written through one, special files, and the
//! times of directories, which every entry made in them changes.

use super::commit::{give, mode, owner};
use super::place::Placed;
use super::trouble::{Trouble, explain};
use super::{DIRECTORY, Destination, foreign};
use crate::beneath::Root;
use crate::{name, stat, verdict};
use postern_wire::copy::{Entry, EntryResult, Fate, Kind, Owner, ReceiveSpec, Stamp, UNOWNED};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;

#[derive(Debug, Default)]
pub(super) struct Later {
    entries: Vec<(Box<Entry>, Vec<u8>)>,
    directories: Vec<Made>,
    /// Those of them that are new.
    new: HashSet<Vec<u8>>,
}

impl Later {
    /// Whether the directory of this path was made by this copy.
    pub(super) fn is_new(&self, path: &[u8]) -> bool {
        self.new.contains(name::split(path).0)
    }
}

/// A directory to be given its time, and its mode where it is new.
#[derive(Debug)]
struct Made {
    path: Vec<u8>,
    mode: Option<u32>,
    stamp: Stamp,
}

impl Destination<'_> {
    /// A directory: made at once, as files go into it.
    pub(super) fn directory(&mut self, entry: &Entry, path: Vec<u8>) -> Result<(), Trouble> {
        let root = path.is_empty();
        let new_root = self.placed.as_ref().is_some_and(|placed| placed.made || placed.missing);
        let mut looked = match (&self.placed, root) {
            (Some(placed), true) => rustix::fs::fstat(placed.root.as_fd()).map(Some),
            _ => self.look(&path),
        };
        if let (Ok(Some(there)), false) = (&looked, root)
            && stat::file_type(there) != FileType::Directory
            && self.make_way(entry, &path)?
        {
            looked = Ok(None);
        }
        let there = match &looked {
            _ if root => !new_root,
            Ok(Some(there)) if stat::file_type(there) == FileType::Directory => true,
            Ok(Some(_)) => {
                let why = "what has its place is no directory".to_owned();
                return self.settle(entry.id, Fate::Failed, why);
            }
            Ok(None) => false,
            Err(error) => {
                return self.settle(entry.id, Fate::Failed, explain("looking at its place", *error));
            }
        };
        let found = looked.ok().flatten().filter(|_| there);
        if self.spec.dry_run {
            let fate = if there { Fate::Made } else { Fate::Planned };
            return self.settle(entry.id, fate, String::new());
        }
        let bits = mode(self.spec, entry.stamp.mode);
        let Some(placed) = &mut self.placed else { return Ok(()) };
        // We have to be able to write into it meanwhile.
        let meanwhile = (bits & 0o777) | 0o700;
        let there = if there || path.is_empty() {
            there
        } else {
            let permissions = stat::permissions(meanwhile);
            let made = placed
                .root
                .parent(&path)
                .and_then(|(parent, last)| rustix::fs::mkdirat(parent, last, permissions));
            match made {
                Ok(()) => false,
                Err(Errno::EXIST) => true, // another copy was quicker
                Err(error) => {
                    return self.settle(entry.id, Fate::Failed, explain("making the directory", error));
                }
            }
        };
        if !there
            && let Ok(opened) = placed.root.open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        {
            // Whatever the umask; what files inherit their group by stays, as a volume of an fsGroup has it. It is said at the
            // end what could not be set.
            let now = rustix::fs::fstat(&opened).map_or(0, |found| stat::stamp(&found).mode);
            if now & 0o777 != meanwhile {
                let _ = stat::permit(opened, meanwhile | now & 0o2000);
            }
        }
        let mut note = String::new();
        // One that is there keeps its own, unless the user says otherwise.
        let owner = owner(self.spec, entry, None);
        if owner != Owner::default() {
            let opened = placed.root.open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
            let given = opened.and_then(|opened| {
                let now = rustix::fs::fstat(&opened)?;
                Ok(give(owner, &File::from(opened), &now))
            });
            note = given.map_or_else(|error| format!("{UNOWNED}: {error}"), Option::unwrap_or_default);
        }
        if !entry.xattrs.is_empty()
            && let Ok(opened) = placed.root.open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            && let Err(error) = stat::set_xattrs(opened, &entry.xattrs)
        {
            let owner = if note.is_empty() { note } else { note + "; " };
            note = format!("{owner}its extended attributes could not be set: {error}");
        }
        // One that has the mode of meanwhile is most likely ours, of a copy that was killed.
        let mode = match &found {
            Some(found) if !self.spec.preserve && stat::stamp(found).mode & 0o5777 != meanwhile => None,
            _ => Some(bits),
        };
        if !there {
            self.later.new.insert(path.clone());
            if entry.stamp.mode & 0o2000 & !bits != 0 && !self.inherits_group(&path) {
                let before = if note.is_empty() { note } else { note + "; " };
                note = format!("{before}{}", verdict::UNGROUPED);
            }
        }
        self.later.directories.push(Made { path, mode, stamp: entry.stamp });
        self.settle(entry.id, Fate::Made, note)
    }

    /// Whether files in this directory get its group.
    fn inherits_group(&mut self, path: &[u8]) -> bool {
        let Some(placed) = &mut self.placed else { return false };
        let opened = placed.root.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        opened.and_then(rustix::fs::fstat).is_ok_and(|found| stat::stamp(&found).mode & 0o2000 != 0)
    }

    /// Below what the user named: the destination itself may be one name among others in its directory.
    fn own<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        match &self.placed {
            Some(Placed { rename: Some(_), .. }) => name::inner(path, false),
            _ => path,
        }
    }

    /// A link or special file: checked now, made at the end.
    pub(super) fn postpone(&mut self, mut entry: Box<Entry>, path: Vec<u8>) -> Result<(), Trouble> {
        entry.xattrs = Vec::new(); // links have none, and this waits for the end
        let refused = verdict::refused(self.spec, &entry.kind, self.own(&path));
        if let Some(why) = refused {
            return self.settle(entry.id, Fate::Refused, why);
        }
        if let Ok(Some(there)) = self.look(&path)
            && stat::file_type(&there) == FileType::Directory
            && !self.make_way(&entry, &path)?
        {
            return self.settle(entry.id, Fate::Failed, DIRECTORY.to_owned());
        }
        if self.spec.dry_run {
            return self.settle(entry.id, Fate::Planned, String::new());
        }
        self.later.entries.push((entry, path));
        Ok(())
    }
}

impl Later {
    /// Makes what was left for the end, and says what became of it.
    ///
    /// Other names of files in `bad` are not made: those were not written.
    pub(super) fn apply(
        &mut self,
        spec: &ReceiveSpec,
        placed: &mut Placed,
        bad: &HashSet<Vec<u8>>,
    ) -> Vec<EntryResult> {
        let Self { entries, directories, new: _ } = std::mem::take(self);
        let mut settled = Vec::with_capacity(entries.len());
        for (entry, path) in entries {
            let made = match &entry.kind {
                Kind::Symlink(target) => symlink(&mut placed.root, &path, target),
                Kind::HardLink(to) => {
                    let to = placed.path(to);
                    // What has that name is not what the source has.
                    if bad.contains(&to) {
                        Err(Errno::STALE)
                    } else {
                        hard_link(&mut placed.root, &path, &to)
                    }
                }
                Kind::Fifo | Kind::Device { .. } => special(spec, &mut placed.root, &path, &entry),
                Kind::File(_) | Kind::Directory => Ok(()),
            };
            let note = match &made {
                Ok(()) => finish(spec, &mut placed.root, &path, &entry),
                Err(error) => explain("making it", *error),
            };
            let fate = if made.is_ok() { Fate::Made } else { Fate::Failed };
            settled.push(EntryResult { id: entry.id, fate, hash: [0; 32], note });
        }
        for Made { path, mode, stamp } in directories.into_iter().rev() {
            let opened = placed.root.open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
            if let Ok(opened) = opened {
                let _ = rustix::fs::futimens(&opened, &stat::times(stamp)); // a directory of someone else's keeps its own
                if let Some(mode) = mode {
                    // A directory that files inherit their group from stays one.
                    let now = rustix::fs::fstat(&opened).map_or(0, |found| stat::stamp(&found).mode);
                    if now != mode | now & 0o2000 {
                        let _ = stat::permit(&opened, mode | now & 0o2000);
                    }
                }
            }
        }
        settled
    }
}

/// Owner and time of what is no file and no directory.
fn finish(spec: &ReceiveSpec, root: &mut Root, path: &[u8], entry: &Entry) -> String {
    if matches!(entry.kind, Kind::HardLink(_)) {
        return String::new(); // they are those of the file
    }
    let Ok((parent, last)) = root.parent(path) else { return String::new() };
    let owned = stat::own(parent, last, owner(spec, entry, None));
    let timed = rustix::fs::utimensat(parent, last, &stat::times(entry.stamp), AtFlags::SYMLINK_NOFOLLOW);
    match (owned, timed) {
        (Err(error), _) => format!("{UNOWNED}: {error}"),
        (_, Err(error)) => format!("its time could not be set: {error}"),
        (Ok(()), Ok(())) => String::new(),
    }
}

/// Makes something under the name of an unfinished file first, and then puts it in its place whole.
fn replace(
    root: &mut Root,
    path: &[u8],
    make: impl FnOnce(rustix::fd::BorrowedFd<'_>, &[u8]) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let (parent, last) = root.parent(path)?;
    let unfinished = name::partial(last);
    let _ = rustix::fs::unlinkat(parent, unfinished.as_slice(), AtFlags::empty()); // left by one that was cut off
    make(parent, &unfinished)?;
    let named = foreign::spare(parent, last)
        .and_then(|()| rustix::fs::renameat(parent, unfinished.as_slice(), parent, last));
    // Two names of one file: rename(2) then does nothing, and leaves both.
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
