//! Reads and sets the attributes of files.

use crate::existing::{self, Existing};
use postern_wire::copy::{Kind, Owner, Stamp};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

/// Mode, owner and time.
pub(crate) fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        mode: Mode::from_raw_mode(stat.st_mode).bits() & 0o7777,
        user: stat.st_uid,
        group: stat.st_gid,
        seconds: stat.st_mtime,
        nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}

/// An existing entry, for decisions that all ends share.
pub(crate) fn existing(stat: &Stat) -> Existing {
    let kind = match file_type(stat) {
        FileType::RegularFile => existing::FileType::File,
        FileType::Directory => existing::FileType::Directory,
        FileType::Symlink => existing::FileType::Symlink,
        _ => existing::FileType::Special,
    };
    Existing { kind, size: size(stat), stamp: self::stamp(stat) }
}

/// The file's type.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Size in bytes.
pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Whether it uses less disk space than its size, so that it has holes.
pub(crate) fn is_sparse(stat: &Stat) -> bool {
    // In units of 512 bytes.
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size(stat)
}

/// Whether the kernel generates the content of a file when it is read, as in /proc and /sys. The size of such
/// files is 0 or a page, whatever they contain.
#[cfg(target_os = "linux")]
pub(crate) fn is_generated(file: impl AsFd, stat: &Stat) -> bool {
    /// proc, sysfs, cgroup, cgroup2, debugfs, tracefs (linux/magic.h).
    const MADE: [i64; 6] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163];
    let empty = stat.st_blocks == 0 && matches!(size(stat), 0 | 4096);
    empty && rustix::fs::fstatfs(file).is_ok_and(|found| MADE.contains(&found.f_type))
}

/// Only Linux has such files.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_generated(_file: impl AsFd, _stat: &Stat) -> bool {
    false
}

/// A special file as an entry kind; `None` for types that cannot be copied, such as sockets.
pub(crate) fn special(stat: &Stat) -> Option<Kind> {
    let device = |block| Kind::Device {
        block,
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
    };
    match file_type(stat) {
        FileType::Fifo => Some(Kind::Fifo),
        FileType::BlockDevice => Some(device(true)),
        FileType::CharacterDevice => Some(device(false)),
        _ => None,
    }
}

/// Timestamps that set the modification time and keep the access time.
pub(crate) fn times(stamp: Stamp) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let changed = Timespec { tv_sec: stamp.seconds, tv_nsec: stamp.nanos.into() };
    Timestamps { last_access: omit, last_modification: changed }
}

/// Sets the owner of `name` itself, without following a symlink.
pub(crate) fn set_owner(directory: BorrowedFd<'_>, name: &[u8], owner: Owner) -> Result<(), Errno> {
    let Owner { user, group } = owner;
    if user.is_none() && group.is_none() {
        return Ok(());
    }
    let (user, group) = (user.map(Uid::from_raw), group.map(Gid::from_raw));
    rustix::fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets the owner of an open file.
pub(crate) fn set_owner_of(file: impl AsFd, owner: Owner) -> Result<(), Errno> {
    let Owner { user, group } = owner;
    rustix::fs::fchown(file, user.map(Uid::from_raw), group.map(Gid::from_raw))
}

/// Converts permission bits.
pub(crate) fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

/// Sets the permission bits of an open file.
pub(crate) fn set_permissions(file: impl AsFd, mode: u32) -> Result<(), Errno> {
    rustix::fs::fchmod(file, permissions(mode))
}

/// Maximum size of the names and values of one entry's extended attributes.
const XATTRS: usize = 64 * 1024;

/// Extended attributes in the `user` namespace; empty if the file system does not support them.
pub(crate) fn xattrs(file: impl AsFd) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let Ok(length) = rustix::fs::flistxattr(&file, names.as_mut_slice()) else { return Vec::new() };
    let mut found = Vec::new();
    let mut room = XATTRS;
    for name in names[..length].split(|&byte| byte == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0; room];
        if let Ok(length) = rustix::fs::fgetxattr(&file, name, value.as_mut_slice()) {
            value.truncate(length);
            room = room.saturating_sub(length + name.len());
            found.push((name.to_vec(), value));
        }
    }
    found
}

/// Sets extended attributes. Ignores namespaces other than `user`.
pub(crate) fn set_xattrs(file: impl AsFd, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Errno> {
    let ours = xattrs.iter().filter(|(name, _)| name.starts_with(b"user.") && !name.contains(&0));
    ours.into_iter().try_for_each(|(name, value)| {
        rustix::fs::fsetxattr(&file, name.as_slice(), value, rustix::fs::XattrFlags::empty())
    })
}
