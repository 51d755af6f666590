//! Errors that end a copy, and messages for system errors.

use crate::beneath::Base;
use crate::link::LinkError;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// An error that ends the whole copy, as opposed to one entry.
#[derive(Debug)]
pub(super) enum ReceiveError {
    /// The connection to the other end failed.
    Link(LinkError),
    /// Nothing can be copied; the message is for users.
    Fatal(String),
}

impl From<LinkError> for ReceiveError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

/// Computed once, because it inspects every mount.
static WRITABLE: OnceLock<Vec<String>> = OnceLock::new();

/// The root of another container, if its files are written.
static ROOT: OnceLock<Vec<u8>> = OnceLock::new();

/// Declares that the files are below this root.
pub(super) fn set_container_root(root: &[u8]) {
    let _ = ROOT.set(root.to_owned()); // called first
}

/// Describes a system error: the cause and what helps.
pub(super) fn explain(attempt: &str, error: Errno) -> String {
    let mut text = format!("{attempt}: {error}");
    match error {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            let user = rustix::process::geteuid().as_raw();
            let group = rustix::process::getegid().as_raw();
            let _ = write!(text, " as uid {user}, gid {group}"); // writing to a String cannot fail
            let writable = WRITABLE.get_or_init(writable);
            if !writable.is_empty() {
                let _ = write!(text, "; writable here: {}", writable.join(", "));
            }
        }
        Errno::BUSY => {
            text.push_str("; it is a mount point and cannot be replaced, only written to with --inplace");
        }
        Errno::LOOP | Errno::NOTDIR => {
            text.push_str("; one of its parent directories is a symlink or a file");
        }
        _ => {}
    }
    text
}

/// Directories that this process may write to, in the target file system: common ones, and mount points.
fn writable() -> Vec<String> {
    let root = ROOT.get().map(Vec::as_slice);
    let Ok(base) = Base::new(root) else { return Vec::new() };
    let mut places: Vec<String> = ["/tmp", "/var/tmp", "/dev/shm", "/data", "/run"].map(str::to_owned).into();
    // The home directory of another container is unknown here.
    places.extend(std::env::var("HOME").ok().filter(|_| root.is_none()));
    if let Ok(mounts) = std::fs::read_to_string(mounts(root)) {
        let mounted = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ');
            let (place, kind) = (fields.nth(1)?, fields.next()?);
            let real =
                !matches!(kind, "proc" | "sysfs" | "cgroup" | "cgroup2" | "devpts" | "mqueue" | "devtmpfs");
            (real && !place.starts_with("/proc") && !place.starts_with("/sys") && !place.contains('\\'))
                .then(|| place.to_owned())
        });
        places.extend(mounted);
    }
    let may = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let serves = |place: &String| {
        let found = base.look(place.as_bytes(), true);
        found.and_then(|found| rustix::fs::accessat(found, c".", may, AtFlags::empty())).is_ok()
    };
    let mut found: Vec<String> = Vec::new();
    for place in places.into_iter().filter(serves) {
        if !found.contains(&place) && found.len() < 8 {
            found.push(place);
        }
    }
    found
}

/// The mount table of the process with this root (`/proc/PID/root`), or of ours.
fn mounts(root: Option<&[u8]>) -> PathBuf {
    let of = root.and_then(|root| root.strip_suffix(b"/root")).unwrap_or(b"/proc/self");
    Path::new(OsStr::from_bytes(of)).join("mounts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_errors_name_user_and_writable_directories() {
        let text = explain("creating /x", Errno::ACCESS);
        let user = rustix::process::geteuid().as_raw();
        assert!(
            text.starts_with("creating /x: Permission denied") && text.contains(&format!("as uid {user}")),
            "{text}"
        );
        assert!(text.contains("; writable here: /tmp"), "{text}");
        assert_eq!(mounts(Some(b"/proc/7/root")), Path::new("/proc/7/mounts"));
        assert_eq!(mounts(None), Path::new("/proc/self/mounts"));
        assert!(explain("replacing /etc/hosts", Errno::BUSY).ends_with("--inplace"));
    }
}
