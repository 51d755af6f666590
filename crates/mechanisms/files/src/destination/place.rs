//! Where things go, as POSIX cp(1) has it.

use super::trouble::{Trouble, explain};
use crate::beneath::{Base, Root};
use crate::{name, resolve, stat, verdict};
use postern_wire::copy::{Entry, Kind, ReceiveSpec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// The directory that everything stays beneath.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) root: Root,
    /// What the one thing that was asked for is called, where not by its own name.
    pub(super) rename: Option<Vec<u8>>,
    /// A directory's content goes into the root.
    pub(super) contents: bool,
    /// The root's path, for people.
    pub(super) shown: Vec<u8>,
    /// The root is new.
    pub(super) made: bool,
    /// In a dry run: it would have to be made, and another directory stands for it.
    pub(super) missing: bool,
}

impl Placed {
    /// Where an entry lies below the root.
    pub(super) fn path(&self, path: &[u8]) -> Vec<u8> {
        let Some(rename) = &self.rename else { return path.to_vec() };
        match path.iter().position(|&byte| byte == b'/') {
            Some(slash) => name::join(rename, &path[slash + 1..]),
            None => rename.clone(),
        }
    }
}

/// Finds the place for a copy whose first entry is this one.
pub(super) fn place(spec: &ReceiveSpec, tops: u32, first: &Entry) -> Result<Placed, Trouble> {
    let fatal = |attempt: &str, error| Trouble::Fatal(explain(attempt, error));
    let base = Base::new(spec.root.as_deref()).map_err(|error| {
        fatal(&format!("opening {}", name::show(spec.root.as_deref().unwrap_or_default())), error)
    })?;
    let target = spec.target.as_slice();
    let shown = name::show(target);
    let contents = first.path.is_empty();
    let into_directory = spec.directory || tops > 1 || contents;
    let slash = target.ends_with(b"/");
    if spec.named {
        return named(&base, target);
    }
    match base.look(target, true).and_then(rustix::fs::fstat) {
        Ok(found) if stat::file_type(&found) == FileType::Directory => {
            let root = directory(&base, target).map_err(|error| fatal(&format!("opening {shown}"), error))?;
            Ok(Placed { root, rename: None, contents, shown: target.to_vec(), made: false, missing: false })
        }
        Ok(_) if into_directory || slash => Err(Trouble::Fatal(format!(
            "{shown} is no directory, and only a directory can hold what is copied"
        ))),
        Ok(_) if first.kind == Kind::Directory => {
            Err(Trouble::Fatal(format!("{shown} is no directory: a directory cannot take its place")))
        }
        Err(Errno::NOENT) if into_directory && (spec.parents || contents) => {
            let root = made(&base, spec, target)?;
            let shown = target.to_vec();
            Ok(Placed { root, rename: None, contents, shown, made: !spec.dry_run, missing: spec.dry_run })
        }
        Err(Errno::NOENT) if into_directory => {
            Err(Trouble::Fatal(format!("there is no directory {shown} to copy into; make it first")))
        }
        Err(Errno::NOENT) if slash && first.kind != Kind::Directory => Err(Trouble::Fatal(format!(
            "there is no directory {shown}; without the last slash a file of that name is made"
        ))),
        Ok(_) | Err(Errno::NOENT) => named(&base, target),
        Err(error) => Err(fatal(&format!("looking at {shown}"), error)),
    }
}

/// By a name of its own in the directory that holds the target.
fn named(base: &Base, target: &[u8]) -> Result<Placed, Trouble> {
    let shown = name::show(target);
    match resolve::holder(base, target) {
        Ok((directory, name)) => {
            let shown = match name::split(target).0 {
                b"" if target.starts_with(b"/") => b"/".to_vec(),
                b"" => b".".to_vec(),
                parent => parent.to_vec(),
            };
            Ok(Placed {
                root: Root::new(directory),
                rename: Some(name),
                contents: false,
                shown,
                made: false,
                missing: false,
            })
        }
        Err(Errno::NOENT) => {
            // Where a symlink leads may be what is missing.
            let led = resolve::through_links(base, target).unwrap_or_else(|_| target.to_vec());
            let missing = name::show(name::split(&led).0);
            Err(Trouble::Fatal(verdict::no_directory(
                &missing,
                (led != resolve::trimmed(target)).then_some(&*shown),
            )))
        }
        Err(error) => Err(Trouble::Fatal(explain(&format!("opening the directory of {shown}"), error))),
    }
}

fn directory(base: &Base, path: &[u8]) -> Result<Root, Errno> {
    let opened = base.open(path, OFlags::RDONLY | OFlags::DIRECTORY).or_else(|error| match error {
        Errno::ACCESS => base.look(path, true), // it may be entered and not listed
        other => Err(other),
    });
    opened.map(Root::new)
}

/// Makes the directory, and those that are missing on the way to it.
fn made(base: &Base, spec: &ReceiveSpec, path: &[u8]) -> Result<Root, Trouble> {
    let mut end = path.len();
    while path[..end].ends_with(b"/") {
        end -= 1;
    }
    let path = &path[..end];
    if spec.dry_run {
        // The nearest directory that is there stands for it: nothing is written.
        let (parent, _) = name::split(path);
        let parent: &[u8] =
            if parent.is_empty() { if path.starts_with(b"/") { b"/" } else { b"." } } else { parent };
        return match directory(base, parent) {
            Err(Errno::NOENT) => made(base, spec, parent),
            other => other
                .map_err(|error| Trouble::Fatal(explain(&format!("opening {}", name::show(parent)), error))),
        };
    }
    let (holder, last) = match resolve::holder(base, path) {
        Ok(found) => found,
        Err(Errno::NOENT) if spec.parents => {
            made(base, spec, name::split(path).0)?;
            resolve::holder(base, path)
                .map_err(|error| Trouble::Fatal(explain(&format!("opening {}", name::show(path)), error)))?
        }
        Err(error) => {
            return Err(Trouble::Fatal(explain(
                &format!("making the directory {}", name::show(path)),
                error,
            )));
        }
    };
    match rustix::fs::mkdirat(&holder, last.as_slice(), Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => {
            return Err(Trouble::Fatal(explain(
                &format!("making the directory {}", name::show(path)),
                error,
            )));
        }
    }
    directory(base, path)
        .map_err(|error| Trouble::Fatal(explain(&format!("opening {}", name::show(path)), error)))
}
