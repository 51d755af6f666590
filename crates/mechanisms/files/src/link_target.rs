//! Checks whether a symlink stays inside its tree.

/// Whether a symlink at `path` (checked by [`crate::name::check`]) with this target points inside the root,
/// whatever other such symlinks exist there.
///
/// `..` is allowed only at the start of the target, where it climbs real directories. After a name that may
/// itself be a symlink, `..` leads to the parent of that link's target.
pub(crate) fn stays_inside(path: &[u8], target: &[u8]) -> bool {
    if target.is_empty() || target.starts_with(b"/") || target.contains(&0) {
        return false;
    }
    let mut climbed = 0;
    let mut descending = false;
    for component in target.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if descending => return false,
            b".." => climbed += 1,
            _ => descending = true,
        }
    }
    climbed < path.split(|&byte| byte == b'/').count()
}

#[cfg(test)]
mod tests {
    use super::stays_inside;

    #[test]
    fn only_links_inside_the_root_are_accepted() {
        for (path, target) in [
            (&b"a"[..], &b"b"[..]),
            (b"a", b"./b/c"),
            (b"d/a", b"../b"),
            (b"d/e/a", b"../../b"),
            (b"d/a", b".."),
            (b"data", b"..data/x"),
            (b"a", b"b/."),
        ] {
            assert!(stays_inside(path, target));
        }
        for (path, target) in [
            (&b"a"[..], &b"/etc/passwd"[..]),
            (b"a", b"../b"),
            (b"d/a", b"../../b"),
            (b"a", b""),
            // d may be a symlink to the root itself.
            (b"x/a", b"d/../../b"),
            (b"x/y/a", b"d/../b"),
        ] {
            assert!(!stays_inside(path, target));
        }
    }
}
