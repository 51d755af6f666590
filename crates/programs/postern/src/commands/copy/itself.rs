//! Refuses to copy a directory into itself: the copy would be found and copied too.

use super::plan::{Place, Plan, same};
use crate::failure::Failure;
use postern_files::name::show;
use postern_files::pattern::is_glob;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// Refuses copies whose destination is in one of their sources, unless patterns may exclude it.
pub(super) fn check(plans: &[Plan], patterns: bool) -> Result<(), Failure> {
    if patterns {
        return Ok(());
    }
    for Plan { name: _, source, sources, destination, target, directory: _ } in plans {
        if !same(source, destination) {
            continue;
        }
        let inside = match source {
            Place::Local => inside_here,
            Place::Pod(_) => inside_there,
            Place::Stream | Place::S3(_) => continue,
        };
        if let Some(source) = sources.iter().find(|source| inside(source, target)) {
            let (source, target) = (show(source), show(target));
            return Err(Failure::usage(
                format!("the directory {source} cannot be copied into itself, {target}"),
                Some(format!("copy it beside {source}, or leave the destination out by --exclude")),
            ));
        }
    }
    Ok(())
}

/// Compares resolved local paths.
fn inside_here(source: &[u8], target: &[u8]) -> bool {
    let path = |bytes| Path::new(OsStr::from_bytes(bytes));
    let Ok(source) = path(source).canonicalize() else { return false };
    source.is_dir() && existing(path(target)).is_some_and(|target| target.starts_with(source))
}

/// The resolved path, or that of its nearest existing parent.
fn existing(path: &Path) -> Option<PathBuf> {
    let mut ways = path.ancestors().map(|way| if way.as_os_str().is_empty() { Path::new(".") } else { way });
    ways.find_map(|way| way.canonicalize().ok())
}

/// Compares paths in a pod as text: whether one is strictly below the other. Paths with wildcards are not compared.
fn inside_there(source: &[u8], target: &[u8]) -> bool {
    if is_glob(source) {
        return false;
    }
    match (plain(source), plain(target)) {
        (Some(source), Some(target)) => source != target && target.starts_with(&source),
        _ => false,
    }
}

/// A normalized absolute path; `None` if it contains `..`.
fn plain(path: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(path));
    let up = path.components().any(|part| part == Component::ParentDir);
    (path.is_absolute() && !up).then(|| path.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_in_a_source_is_found_by_what_paths_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |below: &str| folder.path().join(below).as_os_str().as_bytes().to_vec();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("f"), "").unwrap();
        std::os::unix::fs::symlink("a/b", folder.path().join("link")).unwrap();
        for (source, target, inside) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "a/new", true),
            ("a", "a/new/below", true),
            ("a", "link", true),
            ("a", "ab", false),
            ("a/b", "a", false),
            ("a", "", false),
            ("f", "f", false),
            ("none", "none/x", false),
        ] {
            assert_eq!(inside_here(&at(source), &at(target)), inside, "{source} to {target}");
        }
    }

    #[test]
    fn in_a_pod_paths_alone_are_compared() {
        for (source, target, inside) in [
            ("/a", "/a/b", true),
            ("/a/", "//a/./b/", true),
            ("/", "/a", true),
            ("/a", "/a", false), // it may be a file
            ("/a", "/ab", false),
            ("a", "a/b", false),
            ("/a", "/a/../b", false),
        ] {
            assert_eq!(inside_there(source.as_bytes(), target.as_bytes()), inside, "{source} to {target}");
        }
    }
}
