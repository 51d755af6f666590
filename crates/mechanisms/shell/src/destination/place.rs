//! Where things go in the container, as POSIX cp(1) has it.

use crate::Trouble;
use crate::listing::Type;
use crate::quoting::{assign_path, cause};
use crate::session::Session;
use crate::source::walk::{link, look};
use postern_files::{name, verdict};
use postern_wire::copy::{Entry, Kind, ReceiveSpec};

/// The directory that everything stays beneath.
#[derive(Debug)]
pub(super) struct Placed {
    /// Its path; empty for where the shell is.
    pub(super) root: Vec<u8>,
    /// What the one thing that was asked for is called, where not by its own name.
    pub(super) rename: Option<Vec<u8>>,
    pub(super) contents: bool,
    pub(super) shown: Vec<u8>,
    /// The root is new.
    pub(super) made: bool,
    /// In a dry run: it would have to be made.
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

/// Nothing is there, in what a tool said.
fn absent(why: &[u8]) -> bool {
    cause(why) == "No such file or directory"
}

/// Finds the place for a copy whose first entry is this one.
pub(super) async fn place(
    spec: &ReceiveSpec,
    session: &mut Session,
    tops: u32,
    first: &Entry,
) -> Result<Placed, Trouble> {
    let target = spec.target.as_slice();
    let shown = name::show(target);
    let contents = first.path.is_empty();
    let into_directory = spec.directory || tops > 1 || contents;
    let slash = target.ends_with(b"/");
    if spec.named {
        return named(session, target).await;
    }
    let within = |made, missing| Placed {
        root: trimmed(target).to_vec(),
        rename: None,
        contents,
        shown: target.to_vec(),
        made,
        missing,
    };
    match look(session, target, true).await? {
        Ok(found) if found.kind() == Type::Directory => Ok(within(false, false)),
        Ok(_) if into_directory || slash => Err(Trouble::Fatal(format!(
            "{shown} is no directory, and only a directory can hold what is copied"
        ))),
        Ok(_) if first.kind == Kind::Directory => {
            Err(Trouble::Fatal(format!("{shown} is no directory: a directory cannot take its place")))
        }
        Err(why) if into_directory && (spec.parents || contents) && absent(&why) => {
            if spec.dry_run {
                return Ok(within(false, true));
            }
            let mut line = Vec::new();
            assign_path(&mut line, 'a', trimmed(target));
            line.extend_from_slice(if spec.parents { b"parents\n" } else { b"make\n" });
            match session.ask(&line).await? {
                Ok(_) => Ok(within(true, false)),
                Err(why) => {
                    let attempt = format!("making the directory {shown}");
                    Err(Trouble::Fatal(session.tools.explain(&attempt, &why)))
                }
            }
        }
        Err(why) if into_directory && absent(&why) => {
            Err(Trouble::Fatal(format!("there is no directory {shown} to copy into; make it first")))
        }
        Err(why) if slash && first.kind != Kind::Directory && absent(&why) => Err(Trouble::Fatal(format!(
            "there is no directory {shown}; without the last slash a file of that name is made"
        ))),
        Err(why) if !absent(&why) => {
            let attempt = format!("looking at {shown}");
            Err(Trouble::Fatal(session.tools.explain(&attempt, &why)))
        }
        Ok(_) | Err(_) => named(session, target).await,
    }
}

fn trimmed(mut path: &[u8]) -> &[u8] {
    while path.len() > 1 && path.ends_with(b"/") {
        path = &path[..path.len() - 1];
    }
    path
}

/// By a name of its own in the directory that holds the target, or what a symlink there leads to.
async fn named(session: &mut Session, target: &[u8]) -> Result<Placed, Trouble> {
    let mut path = trimmed(target).to_vec();
    if look(session, &path, false).await?.is_ok_and(|found| found.kind() == Type::Symlink) {
        let shown = name::show(target);
        path = match link(session, &path, "-nf").await? {
            Ok(led) => led,
            Err(why) => {
                let Ok(led) = link(session, &path, "-n").await? else {
                    return Err(Trouble::Fatal(format!("following the symlink {shown}: {why}")));
                };
                let led = if led.starts_with(b"/") { led } else { name::join(name::split(&path).0, &led) };
                let missing = name::show(name::split(&led).0).into_owned();
                return Err(Trouble::Fatal(verdict::no_directory(&missing, Some(&*shown))));
            }
        };
    }
    let (parent, last) = name::split(&path);
    if last.is_empty() || last == b"." || last == b".." {
        return Err(Trouble::Fatal(format!("{} is a directory", name::show(target))));
    }
    let root: &[u8] = match parent {
        b"" if path.starts_with(b"/") => b"/",
        parent => parent,
    };
    match look(session, root, true).await? {
        Ok(found) if found.kind() == Type::Directory => {}
        Ok(_) => return Err(Trouble::Fatal(format!("{} is no directory", name::show(root)))),
        Err(why) if absent(&why) => {
            let shown = name::show(target);
            let link = (path != trimmed(target)).then_some(&*shown);
            return Err(Trouble::Fatal(verdict::no_directory(&name::show(root), link)));
        }
        Err(why) => {
            let attempt = format!("opening the directory of {}", name::show(target));
            return Err(Trouble::Fatal(session.tools.explain(&attempt, &why)));
        }
    }
    let shown = if root.is_empty() { b".".to_vec() } else { root.to_vec() };
    Ok(Placed {
        root: root.to_vec(),
        rename: Some(last.to_vec()),
        contents: false,
        shown,
        made: false,
        missing: false,
    })
}
