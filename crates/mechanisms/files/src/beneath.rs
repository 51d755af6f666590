//! Opens paths beneath a directory only. No symlink on the path is followed, even if the tree changes
//! concurrently. Uses openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`; if the system lacks or forbids
//! it, opens each component with `O_NOFOLLOW`.

use crate::name;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// Flags for a directory handle that is only used to look things up.
#[cfg(target_os = "linux")]
const LOOK: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const LOOK: OFlags = OFlags::RDONLY;

/// A directory that confines all paths.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    /// The last opened directory: most paths share it with the one before.
    last: Option<(Vec<u8>, OwnedFd)>,
    by_component: bool,
}

impl Root {
    /// Confines paths to this directory.
    pub(crate) fn new(directory: OwnedFd) -> Self {
        Self { directory, last: None, by_component: false }
    }

    /// As on a system without openat2(2).
    #[cfg(test)]
    pub(crate) fn by_component(directory: OwnedFd) -> Self {
        Self { directory, last: None, by_component: true }
    }

    /// The directory itself.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Opens `path`, which must have passed [`name::check`]. The empty path is the directory itself.
    pub(crate) fn open(&mut self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // openat2(2) takes a mode only if a file may be created.
        let mode = if flags.contains(OFlags::CREATE) { mode } else { Mode::empty() };
        if path.is_empty() {
            return openat(&self.directory, c".", flags, mode);
        }
        #[cfg(target_os = "linux")]
        if !self.by_component {
            use rustix::fs::{ResolveFlags, openat2};
            let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match openat2(&self.directory, path, flags, mode, within) {
                // A seccomp profile older than the system call returns EPERM.
                Err(Errno::NOSYS | Errno::PERM) => self.by_component = true,
                Err(Errno::AGAIN) => {} // the tree changed concurrently; retry component by component
                other => return other,
            }
        }
        let (parent, name) = name::split(path);
        if name == b"." || name == b".." {
            return Err(Errno::XDEV);
        }
        let parent = self.walk(parent)?;
        openat(&parent, name, flags, mode)
    }

    fn walk(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = openat(&self.directory, c".", flags, Mode::empty())?;
        for component in path.split(|&byte| byte == b'/').filter(|component| !component.is_empty()) {
            if component == b"." || component == b".." {
                return Err(Errno::XDEV); // as openat2(2) returns for a path that escapes
            }
            at = openat(&at, component, flags, Mode::empty())?;
        }
        Ok(at)
    }

    /// The parent directory of `path` and the last component, for calls that take a directory and a name.
    pub(crate) fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(BorrowedFd<'_>, &'p [u8]), Errno> {
        let (parent, name) = name::split(path);
        if parent.is_empty() {
            return Ok((self.directory.as_fd(), name));
        }
        if self.last.as_ref().is_none_or(|(known, _)| known != parent) {
            let opened = self.open(parent, LOOK | OFlags::DIRECTORY, Mode::empty())?;
            self.last = Some((parent.to_vec(), opened));
        }
        match &self.last {
            Some((_, directory)) => Ok((directory.as_fd(), name)),
            None => Err(Errno::NOENT), // it was just set
        }
    }
}

/// The root for paths typed by users: the process's own root, or another one such as `/proc/PID/root`, which
/// no symlink can escape.
#[derive(Debug)]
pub(crate) struct Base(Option<OwnedFd>);

impl Base {
    /// Resolves paths in `root`, or in this process's root.
    pub(crate) fn new(root: Option<&[u8]>) -> Result<Self, Errno> {
        let open = |root: &[u8]| openat(CWD, root, LOOK | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        root.map(open).transpose().map(Self)
    }

    /// Opens a path as typed. Follows symlinks, except at the last component if `flags` has `NOFOLLOW`.
    pub(crate) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        let Some(root) = &self.0 else { return openat(CWD, path, flags, Mode::empty()) };
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{ResolveFlags, openat2};
            let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            match openat2(root, path, flags, Mode::empty(), within) {
                Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {}
                other => return other,
            }
        }
        in_root(root.as_fd(), path, flags)
    }

    /// Opens with `O_PATH`.
    pub(crate) fn look(&self, path: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
        self.open(path, if follow { LOOK } else { LOOK | OFlags::NOFOLLOW })
    }
}

/// Maximum number of symlinks in one resolution, as in Linux.
const MAX_LINKS: usize = 40;

/// Resolves a path component by component. `/` and the topmost `..` mean `root`.
fn in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let look = LOOK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let again = || openat(root, c".", LOOK | OFlags::CLOEXEC, Mode::empty());
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
        parts.rev().map(<[u8]>::to_vec).collect()
    };
    let mut rest = parts(path); // the next component is the last
    let mut stack = vec![again()?];
    let mut links = 0;
    while let Some(component) = rest.pop() {
        if component == b".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        let Some(at) = stack.last() else { return Err(Errno::NOENT) };
        let target = match rustix::fs::readlinkat(at, component.as_slice(), Vec::new()) {
            Ok(target) if !(rest.is_empty() && flags.contains(OFlags::NOFOLLOW)) => target.into_bytes(),
            _ if rest.is_empty() => {
                return openat(at, component.as_slice(), flags | OFlags::NOFOLLOW, Mode::empty());
            }
            _ => {
                let next = openat(at, component.as_slice(), look | OFlags::DIRECTORY, Mode::empty())?;
                stack.push(next);
                continue;
            }
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        if target.starts_with(b"/") {
            stack.truncate(1);
        }
        rest.extend(parts(&target));
    }
    match stack.last() {
        Some(at) => openat(at, c".", flags, Mode::empty()),
        None => Err(Errno::NOENT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn directory(path: &std::path::Path) -> OwnedFd {
        openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn no_symlink_leads_anywhere_beneath() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tree.path().join("a/b")).unwrap();
        std::fs::write(tree.path().join("a/b/file"), "x").unwrap();
        symlink("b", tree.path().join("a/inside")).unwrap();
        symlink("/etc", tree.path().join("out")).unwrap();
        symlink("/etc/passwd", tree.path().join("a/b/last")).unwrap();
        for by_component in [false, true] {
            let fd = directory(tree.path());
            let mut root = if by_component { Root::by_component(fd) } else { Root::new(fd) };
            let mut open = |path: &[u8]| root.open(path, OFlags::RDONLY, Mode::empty()).map(|_| ());
            assert_eq!(open(b"a/b/file"), Ok(()));
            assert_eq!(open(b""), Ok(()));
            for wrong in [&b"a/inside/file"[..], b"out/passwd", b"a/b/last", b"out"] {
                let error = open(wrong).unwrap_err();
                assert!(matches!(error, Errno::LOOP | Errno::NOTDIR), "{wrong:?}: {error}");
            }
            assert!(root.parent(b"out/x").is_err());
            assert_eq!(root.parent(b"a/b/x").unwrap().1, b"x");
        }
    }

    #[test]
    fn a_typed_path_stays_in_its_root() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tree.path().join("run/deep")).unwrap();
        std::fs::create_dir(tree.path().join("var")).unwrap();
        std::fs::write(tree.path().join("run/pid"), "7").unwrap();
        symlink("/run", tree.path().join("var/run")).unwrap();
        symlink("../../../../run/pid", tree.path().join("var/pid")).unwrap();
        symlink("loop", tree.path().join("loop")).unwrap();
        let root = directory(tree.path());
        let seen = |path: &[u8], flags: OFlags| {
            in_root(root.as_fd(), path, flags).map(|fd| rustix::fs::fstat(fd).unwrap().st_ino)
        };
        let inode = |path: &str| {
            use std::os::unix::fs::MetadataExt as _;
            tree.path().join(path).symlink_metadata().unwrap().ino()
        };
        let base = Base::new(Some(tree.path().as_os_str().as_encoded_bytes())).unwrap();
        for path in [&b"/var/run/pid"[..], b"var/pid", b"/../../run/pid", b"var/run/deep/../pid"] {
            assert_eq!(seen(path, OFlags::RDONLY), Ok(inode("run/pid")), "{path:?}");
            assert!(base.open(path, OFlags::RDONLY).is_ok());
        }
        assert_eq!(seen(b"/", OFlags::RDONLY), Ok(inode("")));
        assert_eq!(seen(b"var/pid", LOOK | OFlags::NOFOLLOW), Ok(inode("var/pid")));
        assert_eq!(seen(b"loop", OFlags::RDONLY), Err(Errno::LOOP));
        assert_eq!(seen(b"/etc/passwd", OFlags::RDONLY), Err(Errno::NOENT));
        assert!(base.open(b"/etc/passwd", OFlags::RDONLY).is_err());
    }
}
