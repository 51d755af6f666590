//! Files in another mount namespace, as seen by an agent in an ephemeral container.

use rustix::fd::AsFd;
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the written files are in another mount namespace than ours.
static FOREIGN: AtomicBool = AtomicBool::new(false);

/// Declares that the files are in another mount namespace.
pub(super) fn set_foreign() {
    FOREIGN.store(true, Ordering::Relaxed);
}

/// Refuses to replace or remove a mount point there, such as a container's `/etc/hosts`. The kernel does so
/// itself (EBUSY) for mounts of our own namespace; mounts of another namespace are detached instead, since
/// Linux 3.18.
pub(super) fn refuse_mount_point(directory: impl AsFd, last: &[u8]) -> Result<(), Errno> {
    if FOREIGN.load(Ordering::Relaxed) && is_mount(directory, last) { Err(Errno::BUSY) } else { Ok(()) }
}

/// Whether a name is a mount point, with statx(2), Linux 5.8.
#[cfg(target_os = "linux")]
fn is_mount(directory: impl AsFd, last: &[u8]) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(directory, last, flags, StatxFlags::TYPE);
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// There is no agent on other systems.
#[cfg(not(target_os = "linux"))]
fn is_mount(_directory: impl AsFd, _last: &[u8]) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, open};

    #[test]
    fn mount_points_are_detected() {
        let root = open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert!(is_mount(&root, b"proc"));
        assert!(!is_mount(&root, b"usr"));
        assert!(!is_mount(&root, b"none-of-this-name"));
    }
}
