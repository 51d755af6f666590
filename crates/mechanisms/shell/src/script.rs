//! Parts of shell scripts that several scripts share.

/// A function of the POSIX shell, `local_mounts COMMAND`: calls COMMAND with each local directory that is a mount point. A
/// mount of another machine is left out: where that machine does not answer, looking at it would never end.
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
