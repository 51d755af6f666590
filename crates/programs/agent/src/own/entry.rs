//! Opens and changes one entry of a directory.

use super::Rules;
use rustix::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chmod, chownat, fchown, fstat, openat,
    openat2, statat,
};
use rustix::io::Errno;
use std::ffi::CStr;

/// What came of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has the right owner already.
    Same,
    /// It was changed.
    Changed,
    /// It is a directory, which has to be entered.
    Directory,
    /// It is a device node, and was left.
    Device,
    /// It is another mount, and was left.
    Mount,
    /// It has several hard links, and was left.
    HardLink,
    /// It is no longer there.
    Gone,
}

/// Opens an entry of a directory, not through a symlink and not on another mount (`EXDEV`).
pub(super) fn open(parent: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    match openat2(parent, name, flags, Mode::empty(), within) {
        // Not known to the kernel, or to a seccomp profile. A name has no `/`, so it is no path through a symlink. The
        // caller compares the device numbers.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => openat(parent, name, flags, Mode::empty()),
        other => other,
    }
}

/// Whether it has the right owner.
pub(super) fn is_owned(stat: &Stat, rules: Rules) -> bool {
    (stat.st_uid, stat.st_gid) == (rules.uid, rules.gid)
}

/// Changes the owner of an open directory.
pub(super) fn change_directory(directory: impl AsFd, rules: Rules) -> Result<(), Errno> {
    fchown(directory, Some(Uid::from_raw(rules.uid)), Some(Gid::from_raw(rules.gid)))
}

/// Changes an entry that is not a directory, if its owner is another. `likely` says that it probably is: then the look
/// before opening it is saved.
pub(super) fn change(
    parent: BorrowedFd<'_>,
    name: &CStr,
    device: u64,
    rules: Rules,
    likely: bool,
) -> Result<Outcome, Errno> {
    match try_change(parent, name, device, rules, likely) {
        Err(Errno::NOENT) => Ok(Outcome::Gone),
        Err(Errno::XDEV) => Ok(Outcome::Mount),
        other => other,
    }
}

fn try_change(
    parent: BorrowedFd<'_>,
    name: &CStr,
    device: u64,
    rules: Rules,
    likely: bool,
) -> Result<Outcome, Errno> {
    if !likely {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(Outcome::Directory);
        }
        if is_owned(&stat, rules) {
            return Ok(Outcome::Same);
        }
    }
    // What is checked and what is changed must be the same file, even if someone renames others meanwhile.
    change_open(&open(parent, name, OFlags::PATH)?, device, rules)
}

/// Changes an open file that is not a directory, if its owner is another.
pub(super) fn change_open(file: &OwnedFd, device: u64, rules: Rules) -> Result<Outcome, Errno> {
    let stat = fstat(file)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Directory {
        return Ok(Outcome::Directory);
    }
    if stat.st_dev != device {
        return Ok(Outcome::Mount);
    }
    if is_owned(&stat, rules) {
        return Ok(Outcome::Same);
    }
    // 0:0 is the whiteout of overlayfs, which is no device.
    if matches!(kind, FileType::BlockDevice | FileType::CharacterDevice) && stat.st_rdev != 0 {
        return Ok(Outcome::Device);
    }
    if stat.st_nlink > 1 && !rules.allow_hard_links {
        return Ok(Outcome::HardLink);
    }
    let (uid, gid) = (Some(Uid::from_raw(rules.uid)), Some(Gid::from_raw(rules.gid)));
    chownat(file, c"", uid, gid, AtFlags::EMPTY_PATH)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    if rules.keep_setuid && kind == FileType::RegularFile && mode.intersects(Mode::SUID | Mode::SGID) {
        // fchmod(2) takes no descriptor that was opened with O_PATH.
        chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), mode)?;
    }
    Ok(Outcome::Changed)
}
