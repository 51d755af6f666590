//! Resolves a typed path to the directory that contains its target.

use crate::beneath::Base;
use crate::cp_rules::trimmed;
use crate::name;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Maximum length of a chain of symlinks.
const MAX_LINKS: usize = 40;

/// Follows symlinks at the last component. The result may not exist.
pub(crate) fn through_links(base: &Base, typed: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut path = trimmed(typed).to_vec();
    for _ in 0..MAX_LINKS {
        let seen = match base.look(&path, false) {
            Ok(seen) => seen,
            Err(Errno::NOENT) => return Ok(path),
            Err(error) => return Err(error),
        };
        let target = match rustix::fs::readlinkat(&seen, c"", Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::NOENT | Errno::INVAL | Errno::NOTDIR) => return Ok(path), // not a symlink
            Err(error) => return Err(error),
        };
        path = match target.starts_with(b"/") {
            true => target,
            false => {
                let parent = if path.contains(&b'/') { holder_path(&path) } else { b"".to_vec() };
                name::join(&parent, &target)
            }
        };
    }
    Err(Errno::LOOP)
}

fn holder_path(path: &[u8]) -> Vec<u8> {
    match name::split(path).0 {
        b"" => b"/".to_vec(),
        parent => parent.to_vec(),
    }
}

/// The directory that contains the target of a path, and the target's name in it. The target need not exist.
pub(crate) fn holder(base: &Base, typed: &[u8]) -> Result<(OwnedFd, Vec<u8>), Errno> {
    let path = through_links(base, typed)?;
    let (parent, name) = match path.contains(&b'/') {
        true => (holder_path(&path), name::split(&path).1.to_vec()),
        false => (b".".to_vec(), path),
    };
    if name.is_empty() || name == b"." || name == b".." {
        return Err(Errno::ISDIR);
    }
    let directory = base.open(&parent, OFlags::RDONLY | OFlags::DIRECTORY).or_else(|error| match error {
        Errno::ACCESS => base.look(&parent, true), // searchable but not readable
        other => Err(other),
    })?;
    Ok((directory, name))
}
