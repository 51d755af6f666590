//! Resolves the target of a copy in the container, as POSIX cp(1) does.

use crate::TranslatorError;
use crate::inspect::{read_link, stat_path};
use crate::listing::Type;
use crate::quoting::{assign_path, cause};
use crate::session::Session;
use postern_files::cp_rules::{self, Found, TargetUse, no_directory, trimmed};
use postern_files::name;
use postern_wire::copy::{Entry, ReceiveSpec};

/// The directory that confines a copy.
#[derive(Debug)]
pub(super) struct RemoteTarget {
    /// Its path; empty for the shell's working directory.
    pub(super) root: Vec<u8>,
    /// The new name of a single source, if it does not keep its own.
    pub(super) rename: Option<Vec<u8>>,
    pub(super) contents: bool,
    pub(super) shown: Vec<u8>,
    /// Whether the root is new.
    pub(super) created: bool,
    /// In a dry run: the root does not exist.
    pub(super) missing: bool,
}

impl RemoteTarget {
    /// The path of an entry below the root.
    pub(super) fn path(&self, path: &[u8]) -> Vec<u8> {
        cp_rules::entry_path(self.rename.as_deref(), path)
    }
}

/// Whether a tool's message says that the path does not exist.
fn absent(why: &[u8]) -> bool {
    cause(why) == "No such file or directory"
}

/// Resolves the target of a copy with this first entry.
pub(super) async fn resolve(
    spec: &ReceiveSpec,
    session: &mut Session,
    sources: u32,
    first: &Entry,
) -> Result<RemoteTarget, TranslatorError> {
    let target = spec.target.as_slice();
    let shown = name::show(target);
    let contents = first.path.is_empty();
    if spec.named {
        return named(session, target).await;
    }
    let found = match stat_path(session, target, true).await? {
        Ok(found) if found.kind() == Type::Directory => Found::Directory,
        Ok(_) => Found::Other,
        Err(why) if absent(&why) => Found::Missing,
        Err(why) => {
            let attempt = format!("checking {shown}");
            return Err(TranslatorError::Fatal(session.tools.explain(&attempt, &why)));
        }
    };
    let within = |created, missing| RemoteTarget {
        root: trimmed(target).to_vec(),
        rename: None,
        contents,
        shown: target.to_vec(),
        created,
        missing,
    };
    match cp_rules::target_use(spec, sources, first, found).map_err(TranslatorError::Fatal)? {
        TargetUse::Into => Ok(within(false, false)),
        TargetUse::Create if spec.dry_run => Ok(within(false, true)),
        TargetUse::Create => {
            let mut line = Vec::new();
            assign_path(&mut line, 'a', trimmed(target));
            line.extend_from_slice(if spec.parents { b"parents\n" } else { b"make\n" });
            match session.ask(&line).await? {
                Ok(_) => Ok(within(true, false)),
                Err(why) => {
                    let attempt = format!("creating the directory {shown}");
                    Err(TranslatorError::Fatal(session.tools.explain(&attempt, &why)))
                }
            }
        }
        TargetUse::Rename => named(session, target).await,
    }
}

/// Uses the target's own name in its parent directory, or the name of a symlink's target.
async fn named(session: &mut Session, target: &[u8]) -> Result<RemoteTarget, TranslatorError> {
    let mut path = trimmed(target).to_vec();
    if stat_path(session, &path, false).await?.is_ok_and(|found| found.kind() == Type::Symlink) {
        let shown = name::show(target);
        path = match read_link(session, &path, "-nf").await? {
            Ok(led) => led,
            Err(why) => {
                let Ok(led) = read_link(session, &path, "-n").await? else {
                    return Err(TranslatorError::Fatal(format!("following the symlink {shown}: {why}")));
                };
                let led = if led.starts_with(b"/") { led } else { name::join(name::split(&path).0, &led) };
                let missing = name::show(name::split(&led).0).into_owned();
                return Err(TranslatorError::Fatal(no_directory(&missing, Some(&*shown))));
            }
        };
    }
    let (parent, last) = name::split(&path);
    if last.is_empty() || last == b"." || last == b".." {
        return Err(TranslatorError::Fatal(format!("{} is a directory", name::show(target))));
    }
    let root: &[u8] = match parent {
        b"" if path.starts_with(b"/") => b"/",
        parent => parent,
    };
    match stat_path(session, root, true).await? {
        Ok(found) if found.kind() == Type::Directory => {}
        Ok(_) => return Err(TranslatorError::Fatal(format!("{} is not a directory", name::show(root)))),
        Err(why) if absent(&why) => {
            let shown = name::show(target);
            let link = (path != trimmed(target)).then_some(&*shown);
            return Err(TranslatorError::Fatal(no_directory(&name::show(root), link)));
        }
        Err(why) => {
            let attempt = format!("opening the directory of {}", name::show(target));
            return Err(TranslatorError::Fatal(session.tools.explain(&attempt, &why)));
        }
    }
    let shown = if root.is_empty() { b".".to_vec() } else { root.to_vec() };
    Ok(RemoteTarget {
        root: root.to_vec(),
        rename: Some(last.to_vec()),
        contents: false,
        shown,
        created: false,
        missing: false,
    })
}
