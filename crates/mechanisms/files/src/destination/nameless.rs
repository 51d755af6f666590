//! Small new files have no name until they are complete (`O_TMPFILE`): a copy that is killed leaves nothing of them, and
//! a link costs a third of the time that a rename does.

use crate::beneath::Root;
use crate::name;
use rustix::fd::{AsRawFd as _, BorrowedFd};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;

/// Whether files can be made so on the file system that was tried last.
#[derive(Debug, Default)]
pub(super) struct Nameless {
    /// A directory of it.
    tried: Option<Stat>,
    works: bool,
}

impl Nameless {
    /// Makes a file that belongs beside this path, in a directory that is new or not; nothing where the file system has no
    /// such files, `/proc` is missing, something forbids it, or there is an unfinished file to be picked up.
    pub(super) fn make(&mut self, root: &mut Root, path: &[u8], new: bool, mode: Mode) -> Option<File> {
        let (directory, last) = root.parent(path).ok()?;
        let unfinished = name::partial(last);
        let holder = rustix::fs::fstat(directory).ok()?;
        if self.tried.is_none_or(|tried| tried.st_dev != holder.st_dev) {
            self.works = try_out(directory, &unfinished)?;
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

/// Gives one a name, and takes it away again: whether that works, where what went wrong may not be of this one alone.
fn try_out(directory: BorrowedFd<'_>, unfinished: &[u8]) -> Option<bool> {
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

/// Gives a file the name of an unfinished one, locked as those are.
pub(super) fn link_unfinished(
    file: &File,
    directory: BorrowedFd<'_>,
    unfinished: &[u8],
) -> Result<(), Errno> {
    let _ = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive); // not every file system has locks
    link(file, directory, unfinished)
}

/// Gives a file that has no name one that nothing else has.
pub(super) fn link(file: &File, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    // Where the kernel does not ask for CAP_DAC_READ_SEARCH: from Linux 6.10 on, of one that was opened by ourselves.
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
    fn a_file_without_a_name_gets_one_that_nothing_else_has() {
        let folder = tempfile::tempdir().unwrap();
        let opened =
            rustix::fs::open(folder.path(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        let (mut root, mut nameless) = (Root::new(opened), Nameless::default());
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let Some(file) = nameless.make(&mut root, b"f", false, Mode::RUSR) else {
            return assert!(nameless.tried.is_some(), "it was tried out, and there are none");
        };
        assert_eq!(names(), 0);
        file.write_all_at(b"content", 0).unwrap();
        link(&file, root.as_fd(), b"f").unwrap();
        assert_eq!(link(&file, root.as_fd(), b"f"), Err(Errno::EXIST));
        assert_eq!(std::fs::read(folder.path().join("f")).unwrap(), b"content");
        drop(nameless.make(&mut root, b"g", true, Mode::RUSR).unwrap());
        assert_eq!(names(), 1);
        // What has the name of its unfinished file is picked up the usual way, when it is the first and when it is not.
        std::fs::write(folder.path().join(".g.postern-partial"), "left").unwrap();
        assert!(nameless.make(&mut root, b"g", false, Mode::RUSR).is_none());
        assert!(Nameless::default().make(&mut root, b"g", false, Mode::RUSR).is_none());
    }
}
