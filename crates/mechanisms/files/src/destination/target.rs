//! Resolves the target of a copy, as POSIX cp(1) does.

use super::error::{ReceiveError, explain};
use crate::beneath::{Base, Root};
use crate::cp_rules::{self, Found, TargetUse, no_directory, trimmed};
use crate::{name, resolve, stat};
use postern_wire::copy::{Entry, ReceiveSpec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// The directory that confines a copy.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) root: Root,
    /// The new name of a single source, if it does not keep its own.
    pub(super) rename: Option<Vec<u8>>,
    /// Whether the contents of a directory go into the root.
    pub(super) contents: bool,
    /// The path of the root, for messages.
    pub(super) shown: Vec<u8>,
    /// Whether the root is new.
    pub(super) created: bool,
    /// In a dry run: the root does not exist, and another directory is used in its place.
    pub(super) missing: bool,
}

impl Target {
    /// The path of an entry below the root.
    pub(super) fn path(&self, path: &[u8]) -> Vec<u8> {
        cp_rules::entry_path(self.rename.as_deref(), path)
    }
}

/// Resolves the target of a copy with this first entry.
pub(super) fn resolve(spec: &ReceiveSpec, sources: u32, first: &Entry) -> Result<Target, ReceiveError> {
    let fatal = |attempt: &str, error| ReceiveError::Fatal(explain(attempt, error));
    let base = Base::new(spec.root.as_deref()).map_err(|error| {
        fatal(&format!("opening {}", name::show(spec.root.as_deref().unwrap_or_default())), error)
    })?;
    let target = spec.target.as_slice();
    let shown = name::show(target);
    let contents = first.path.is_empty();
    if spec.named {
        return named(&base, target);
    }
    let found = match base.look(target, true).and_then(rustix::fs::fstat) {
        Ok(found) if stat::file_type(&found) == FileType::Directory => Found::Directory,
        Ok(_) => Found::Other,
        Err(Errno::NOENT) => Found::Missing,
        Err(error) => return Err(fatal(&format!("checking {shown}"), error)),
    };
    match cp_rules::target_use(spec, sources, first, found).map_err(ReceiveError::Fatal)? {
        TargetUse::Into => {
            let root = directory(&base, target).map_err(|error| fatal(&format!("opening {shown}"), error))?;
            Ok(Target {
                root,
                rename: None,
                contents,
                shown: target.to_vec(),
                created: false,
                missing: false,
            })
        }
        TargetUse::Create => {
            let root = create_directory(&base, spec, target)?;
            let shown = target.to_vec();
            Ok(Target { root, rename: None, contents, shown, created: !spec.dry_run, missing: spec.dry_run })
        }
        TargetUse::Rename => named(&base, target),
    }
}

/// Uses the target's own name in its parent directory.
fn named(base: &Base, target: &[u8]) -> Result<Target, ReceiveError> {
    let shown = name::show(target);
    match resolve::holder(base, target) {
        Ok((directory, name)) => {
            let shown = match name::split(target).0 {
                b"" if target.starts_with(b"/") => b"/".to_vec(),
                b"" => b".".to_vec(),
                parent => parent.to_vec(),
            };
            Ok(Target {
                root: Root::new(directory),
                rename: Some(name),
                contents: false,
                shown,
                created: false,
                missing: false,
            })
        }
        Err(Errno::NOENT) => {
            // The directory that a symlink points to may be missing.
            let led = resolve::through_links(base, target).unwrap_or_else(|_| target.to_vec());
            let missing = name::show(name::split(&led).0);
            Err(ReceiveError::Fatal(no_directory(&missing, (led != trimmed(target)).then_some(&*shown))))
        }
        Err(error) => Err(ReceiveError::Fatal(explain(&format!("opening the directory of {shown}"), error))),
    }
}

fn directory(base: &Base, path: &[u8]) -> Result<Root, Errno> {
    let opened = base.open(path, OFlags::RDONLY | OFlags::DIRECTORY).or_else(|error| match error {
        Errno::ACCESS => base.look(path, true), // searchable but not readable
        other => Err(other),
    });
    opened.map(Root::new)
}

/// Creates the directory and its missing parents.
fn create_directory(base: &Base, spec: &ReceiveSpec, path: &[u8]) -> Result<Root, ReceiveError> {
    let mut end = path.len();
    while path[..end].ends_with(b"/") {
        end -= 1;
    }
    let path = &path[..end];
    if spec.dry_run {
        // Uses the nearest existing directory in its place: nothing is written.
        let (parent, _) = name::split(path);
        let parent: &[u8] =
            if parent.is_empty() { if path.starts_with(b"/") { b"/" } else { b"." } } else { parent };
        return match directory(base, parent) {
            Err(Errno::NOENT) => create_directory(base, spec, parent),
            other => other.map_err(|error| {
                ReceiveError::Fatal(explain(&format!("opening {}", name::show(parent)), error))
            }),
        };
    }
    let (holder, last) = match resolve::holder(base, path) {
        Ok(found) => found,
        Err(Errno::NOENT) if spec.parents => {
            create_directory(base, spec, name::split(path).0)?;
            resolve::holder(base, path).map_err(|error| {
                ReceiveError::Fatal(explain(&format!("opening {}", name::show(path)), error))
            })?
        }
        Err(error) => {
            return Err(ReceiveError::Fatal(explain(
                &format!("creating the directory {}", name::show(path)),
                error,
            )));
        }
    };
    match rustix::fs::mkdirat(&holder, last.as_slice(), Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => {
            return Err(ReceiveError::Fatal(explain(
                &format!("creating the directory {}", name::show(path)),
                error,
            )));
        }
    }
    directory(base, path)
        .map_err(|error| ReceiveError::Fatal(explain(&format!("opening {}", name::show(path)), error)))
}
