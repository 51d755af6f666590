//! Creates small new files without a name until they are complete (`O_TMPFILE`): a killed copy leaves nothing
//! behind, and linkat(2) takes a third of the time of rename(2).

use crate::beneath::Root;
use crate::name;
use rustix::fd::{AsRawFd as _, BorrowedFd};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;

/// Whether the file system used last supports unnamed files.
#[derive(Debug, Default)]
pub(super) struct UnnamedFiles {
    /// A directory of that file system.
    tried: Option<Stat>,
    works: bool,
}

impl UnnamedFiles {
    /// Creates an unnamed file next to this path, whose directory is new or not. Returns `None` if the file
    /// system does not support such files, `/proc` is missing, something forbids it, or a partial file exists
    /// that can be resumed.
    pub(super) fn make(&mut self, root: &mut Root, path: &[u8], new: bool, mode: Mode) -> Option<File> {
        let (directory, last) = root.parent(path).ok()?;
        let unfinished = name::partial(last);
        let holder = rustix::fs::fstat(directory).ok()?;
        if self.tried.is_none_or(|tried| tried.st_dev != holder.st_dev) {
            self.works = probe(directory, &unfinished)?;
            self.tried = Some(holder);
        }
        let left = || rustix::fs::statat(directory, unfinished.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        if !self.works || !new && !matches!(left(), Err(Errno::NOENT)) {
            return None;
        }
        open(directory, mode).ok()
    }
}

#[cfg(target_os = "linux")]
fn open(directory: BorrowedFd<'_>, mode: Mode) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::openat(directory, c".", flags, mode).map(File::from)
}

#[cfg(not(target_os = "linux"))]
fn open(_: BorrowedFd<'_>, _: Mode) -> Result<File, Errno> {
    Err(Errno::OPNOTSUPP)
}

/// Tests whether a file can be named and unnamed; `None` if the failure may not be specific to this file.
fn probe(directory: BorrowedFd<'_>, unfinished: &[u8]) -> Option<bool> {
    let linked = open(directory, Mode::RUSR | Mode::WUSR)
        .and_then(|file| link_unfinished(&file, directory, unfinished).map(|()| file));
    let tried = linked.and_then(|held| {
        let removed = rustix::fs::unlinkat(directory, unfinished, AtFlags::empty());
        drop(held);
        removed
    });
    match tried {
        Ok(()) => Some(true),
        Err(Errno::EXIST | Errno::ACCESS | Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE) => None,
        Err(_) => Some(false),
    }
}

/// Gives a file the name of a partial file, with its lock.
pub(super) fn link_unfinished(
    file: &File,
    directory: BorrowedFd<'_>,
    unfinished: &[u8],
) -> Result<(), Errno> {
    let _ = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive); // may be unsupported
    link(file, directory, unfinished)
}

/// Gives an unnamed file a name that does not exist yet.
pub(super) fn link(file: &File, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    // Works without CAP_DAC_READ_SEARCH from Linux 6.10 on, for a file that we opened ourselves.
    match rustix::fs::linkat(file, c"", directory, name, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT | Errno::PERM) => {
            let own = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, own, directory, name, AtFlags::SYMLINK_FOLLOW)
        }
        other => other,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn an_unnamed_file_gets_a_new_name() {
        let folder = tempfile::tempdir().unwrap();
        let opened =
            rustix::fs::open(folder.path(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        let (mut root, mut unnamed) = (Root::new(opened), UnnamedFiles::default());
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let Some(file) = unnamed.make(&mut root, b"f", false, Mode::RUSR) else {
            return assert!(unnamed.tried.is_some(), "it was tried out, and there are none");
        };
        assert_eq!(names(), 0);
        file.write_all_at(b"content", 0).unwrap();
        link(&file, root.as_fd(), b"f").unwrap();
        assert_eq!(link(&file, root.as_fd(), b"f"), Err(Errno::EXIST));
        assert_eq!(std::fs::read(folder.path().join("f")).unwrap(), b"content");
        drop(unnamed.make(&mut root, b"g", true, Mode::RUSR).unwrap());
        assert_eq!(names(), 1);
        // An existing partial file is resumed, whether it is checked first or later.
        std::fs::write(folder.path().join(".g.postern-partial"), "left").unwrap();
        assert!(unnamed.make(&mut root, b"g", false, Mode::RUSR).is_none());
        assert!(UnnamedFiles::default().make(&mut root, b"g", false, Mode::RUSR).is_none());
    }
}
