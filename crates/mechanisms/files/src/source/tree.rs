//! One opened source, from which everything can be read again.

use super::roots::SourceRoot;
use crate::beneath::{Base, Root};
use crate::{name, resolve, stat};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A root, and how to read beneath it.
pub(super) struct Tree {
    root: Mutex<Root>,
    base: Arc<Base>,
    typed: Vec<u8>,
    /// Whether symlinks are followed, wherever they lead.
    follow: bool,
    /// Whether the contents were requested, rather than the directory itself.
    pub(super) contents: bool,
}

impl Tree {
    /// Opens a source; its path below the root is empty if it is the root itself. A symlink that the user
    /// typed is followed (as by `cp -rH`).
    pub(super) fn open(
        base: &Arc<Base>,
        top: &SourceRoot,
        follow: bool,
        contents: bool,
    ) -> Result<(Self, Vec<u8>, Stat), Errno> {
        let seen = base.look(&top.typed, true)?;
        let stat = rustix::fs::fstat(&seen)?;
        let (directory, below) = match stat::file_type(&stat) {
            FileType::Directory => (base.open(&top.typed, OFlags::RDONLY | OFlags::DIRECTORY)?, Vec::new()),
            // By the directory that really contains it, so that it can be opened again.
            _ => resolve::holder(base, &top.typed)?,
        };
        let contents = top.name.is_empty() || contents && below.is_empty();
        let typed = if below.is_empty() { top.typed.clone() } else { name::split(&top.typed).0.to_vec() };
        let root = Mutex::new(Root::new(directory));
        Ok((Self { root, base: Arc::clone(base), typed, follow, contents }, below, stat))
    }

    fn lock(&self) -> MutexGuard<'_, Root> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens for reading.
    pub(super) fn read(&self, below: &[u8], more: OFlags) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | more;
        match self.follow && !below.is_empty() {
            true => self.base.open(&name::join(&self.typed, below), flags),
            false => self.lock().open(below, flags, Mode::empty()),
        }
    }

    /// The attributes of an entry in an open directory.
    pub(super) fn stat(
        &self,
        directory: BorrowedFd<'_>,
        component: &[u8],
        below: &[u8],
    ) -> Result<Stat, Errno> {
        match self.follow {
            true => self.base.look(&name::join(&self.typed, below), true).and_then(rustix::fs::fstat),
            false => rustix::fs::statat(directory, component, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    /// The target of a symlink.
    pub(super) fn link(&self, below: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut root = self.lock();
        let (directory, component) = root.parent(below)?;
        rustix::fs::readlinkat(directory, component, Vec::new()).map(std::ffi::CString::into_bytes)
    }
}
