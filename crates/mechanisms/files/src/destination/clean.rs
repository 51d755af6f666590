//! Removes the partial files of interrupted copies.

use super::error::explain;
use crate::beneath::{Base, Root};
use crate::link::{LinkError, Outbox};
use crate::{name, resolve, stat};
use postern_wire::copy::{FromDestination, ReceiveSpec};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Removes partial files at and below the destination, and reports each.
pub(super) fn clean(spec: &ReceiveSpec, out: &Outbox) -> Result<(), LinkError> {
    let said = match places(spec) {
        Ok((mut root, only)) => below(spec, &mut root, only.as_deref(), out)?,
        Err(error) => Some((spec.target.clone(), error)),
    };
    match said {
        None => out.put(|buffer| FromDestination::Finished.encode(buffer))?,
        Some((path, error)) => {
            let message = explain(&format!("looking below {}", name::show(&path)), error);
            out.put(|buffer| FromDestination::Fatal(message).encode(buffer))?;
        }
    }
    out.flush()
}

/// The destination directory; or its parent and the name of the destination's partial file.
fn places(spec: &ReceiveSpec) -> Result<(Root, Option<Vec<u8>>), Errno> {
    let base = Base::new(spec.root.as_deref())?;
    let found = base.look(&spec.target, true).and_then(rustix::fs::fstat);
    if found.is_ok_and(|found| stat::file_type(&found) == FileType::Directory) {
        return Ok((Root::new(base.open(&spec.target, OFlags::RDONLY | OFlags::DIRECTORY)?), None));
    }
    let (directory, last) = resolve::holder(&base, &spec.target)?;
    Ok((Root::new(directory), Some(name::partial(&last))))
}

type Said = Option<(Vec<u8>, Errno)>;

fn below(spec: &ReceiveSpec, root: &mut Root, only: Option<&[u8]>, out: &Outbox) -> Result<Said, LinkError> {
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let opened = root.open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let entries = match opened.and_then(Dir::new) {
            Ok(entries) => entries,
            Err(error) => return Ok(Some((path, error))),
        };
        for entry in entries.flatten() {
            let last = entry.file_name().to_bytes();
            let at = name::join(&path, last);
            if entry.file_type() == FileType::Directory && only.is_none() && last != b"." && last != b".." {
                waiting.push(at);
            } else if name::is_partial(last)
                && only.is_none_or(|only| only == last)
                && entry.file_type() != FileType::Directory
                && !busy(root, &at)
            {
                let removed = match spec.dry_run {
                    true => Ok(()),
                    false => root.parent(&at).and_then(|(directory, last)| {
                        rustix::fs::unlinkat(directory, last, AtFlags::empty())
                    }),
                };
                match removed {
                    Ok(()) => out.put(|buffer| FromDestination::Deleted(&at).encode(buffer))?,
                    Err(error) => return Ok(Some((at, error))),
                }
            }
        }
    }
    Ok(None)
}

/// Whether a copy is currently writing it.
fn busy(root: &mut Root, path: &[u8]) -> bool {
    let opened = root.open(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty());
    opened.is_ok_and(|file| {
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            == Err(Errno::WOULDBLOCK)
    })
}
