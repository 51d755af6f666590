//! The rules of POSIX cp(1) for the target of a copy. Every end that writes to a file system shares them.

use crate::name;
use postern_wire::copy::{Entry, Kind, ReceiveSpec};

/// What exists at the target, after following symlinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A directory.
    Directory,
    /// An entry of another type.
    Other,
    /// Nothing.
    Missing,
}

/// How a copy uses its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetUse {
    /// It copies into the existing directory.
    Into,
    /// It creates the directory, then copies into it.
    Create,
    /// The source gets the target's own name, in the target's parent directory.
    Rename,
}

/// Decides how a copy of this many sources, with this first entry, uses its target. The error is for users.
pub fn target_use(
    spec: &ReceiveSpec,
    sources: u32,
    first: &Entry,
    found: Found,
) -> Result<TargetUse, String> {
    let target = spec.target.as_slice();
    let shown = name::show(target);
    let contents = first.path.is_empty();
    let into_directory = spec.directory || sources > 1 || contents;
    let slash = target.ends_with(b"/");
    let directory = first.kind == Kind::Directory;
    match found {
        Found::Directory => Ok(TargetUse::Into),
        Found::Other if into_directory || slash => {
            Err(format!("{shown} is not a directory, and this copy needs one"))
        }
        Found::Other if directory => {
            Err(format!("{shown} is not a directory, and a directory cannot replace it"))
        }
        Found::Missing if into_directory && (spec.parents || contents) => Ok(TargetUse::Create),
        Found::Missing if into_directory => Err(no_directory(&shown, None)),
        Found::Missing if slash && !directory => Err(format!(
            "there is no directory {shown}; without the trailing slash, a file of that name is created"
        )),
        Found::Other | Found::Missing => Ok(TargetUse::Rename),
    }
}

/// Why nothing can be created: the directory `missing`, to which the symlink `link` points if given, does not
/// exist.
pub fn no_directory(missing: &str, link: Option<&str>) -> String {
    match link {
        Some(link) => {
            format!("{link} is a symlink that points into {missing}, which does not exist; create it first")
        }
        None => format!("there is no directory {missing} to copy into; create it first"),
    }
}

/// The path of an entry below the target's directory, with the new name of the source if it gets one.
pub fn entry_path(rename: Option<&[u8]>, path: &[u8]) -> Vec<u8> {
    let Some(rename) = rename else { return path.to_vec() };
    match path.iter().position(|&byte| byte == b'/') {
        Some(slash) => name::join(rename, &path[slash + 1..]),
        None => rename.to_vec(),
    }
}

/// A path without trailing slashes.
pub fn trimmed(mut path: &[u8]) -> &[u8] {
    while path.len() > 1 && path.ends_with(b"/") {
        path = &path[..path.len() - 1];
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_component_is_replaced_by_a_new_name() {
        assert_eq!(entry_path(None, b"a/b"), b"a/b");
        assert_eq!(entry_path(Some(b"x"), b"a"), b"x");
        assert_eq!(entry_path(Some(b"x"), b"a/b/c"), b"x/b/c");
    }

    #[test]
    fn trailing_slashes_are_removed_except_of_the_root() {
        assert_eq!(trimmed(b"a//"), b"a");
        assert_eq!(trimmed(b"//"), b"/");
        assert_eq!(trimmed(b""), b"");
    }
}
