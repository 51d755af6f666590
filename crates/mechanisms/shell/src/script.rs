//! Parts of shell scripts that several scripts share.

/// A POSIX shell function, `local_mounts COMMAND`: calls COMMAND with each mount point on a local file
/// system. Network file systems are skipped: if their server does not answer, accessing them would block
/// forever.
#[macro_export]
macro_rules! local_mounts {
    () => {
        r#"local_mounts() {
  while IFS=' ' read -r l d t l; do
    case $t in tmpfs | ext[234] | xfs | btrfs | overlay | zfs | f2fs) ;; *) continue ;; esac
    case $d in /proc* | /sys* | *[!a-zA-Z0-9/._-]*) ;; *) "$1" "$d" ;; esac
  done </proc/self/mounts
}
"#
    };
}
