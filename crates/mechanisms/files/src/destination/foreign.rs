//! Files of another mount namespace, as an agent in an ephemeral container has them before it.

use rustix::fd::AsFd;
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the files that are written are of another mount namespace than ours.
static FOREIGN: AtomicBool = AtomicBool::new(false);

/// From now on they are.
pub(super) fn begin() {
    FOREIGN.store(true, Ordering::Relaxed);
}

/// Refuses to replace or remove what is a mount there, such as a container's `/etc/hosts`. The kernel does so itself (EBUSY) for
/// mounts of our own namespace; those of another it detaches instead, since Linux 3.18.
pub(super) fn spare(directory: impl AsFd, last: &[u8]) -> Result<(), Errno> {
    if FOREIGN.load(Ordering::Relaxed) && is_mount(directory, last) { Err(Errno::BUSY) } else { Ok(()) }
}

/// Whether something is mounted at this name, by statx(2), Linux 5.8.
#[cfg(target_os = "linux")]
fn is_mount(directory: impl AsFd, last: &[u8]) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(directory, last, flags, StatxFlags::TYPE);
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// No agent is there.
#[cfg(not(target_os = "linux"))]
fn is_mount(_directory: impl AsFd, _last: &[u8]) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, open};

    #[test]
    fn a_mount_is_told_from_a_directory() {
        let root = open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert!(is_mount(&root, b"proc"));
        assert!(!is_mount(&root, b"usr"));
        assert!(!is_mount(&root, b"none-of-this-name"));
    }
}
