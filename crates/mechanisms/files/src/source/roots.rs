//! Resolves typed source paths: wildcards, symlinks and names.

use crate::beneath::Base;
use crate::name;
use crate::pattern::{Glob, Rules, Step, is_special, matches, unquoted};
use crate::{policy, stat};
use postern_wire::copy::SendSpec;
use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;

/// One source.
pub(super) struct SourceRoot {
    /// The path, after expanding wildcards.
    pub(super) typed: Vec<u8>,
    /// Its name at the destination; empty if its contents were requested.
    pub(super) name: Vec<u8>,
    /// It is one of several sources or was found by a wildcard. If it cannot be copied, the others still are,
    /// as by `cp`.
    pub(super) optional: bool,
}

/// Expands the paths in order. The error, for users, names a path that matches nothing.
pub(super) fn expand(base: &Base, spec: &SendSpec, rules: &Rules) -> Result<Vec<SourceRoot>, String> {
    let mut roots = Vec::new();
    let optional = spec.sources.len() > 1;
    for source in &spec.sources {
        // An existing path is taken literally, whatever characters it has: a shell may have expanded it
        // already.
        if !spec.glob || !is_special(source) || base.look(source, false).is_ok() {
            roots.push(SourceRoot { typed: source.clone(), name: source_name(source), optional });
            continue;
        }
        if let Some(plain) = unquoted(source) {
            roots.push(SourceRoot { name: source_name(&plain), typed: plain, optional });
            continue;
        }
        let glob = Glob::parse(source).map_err(|error| error.to_string())?;
        let start: &[u8] = if glob.absolute() { b"/" } else { b"" };
        let mut found = Vec::new();
        follow(base, start, glob.steps(), &mut found, 0)?;
        if glob.directories() {
            found.retain(|path| is_directory(base, path, true));
        }
        if found.is_empty() {
            return Err(format!("nothing matches {}", name::show(source)));
        }
        if !rules.is_empty() {
            found.retain(|path| !rules.leave_out(glob.below(path), is_directory(base, path, false)));
        }
        if found.is_empty() {
            return Err(format!("everything that matches {} is left out", name::show(source)));
        }
        found.sort();
        found.dedup();
        roots.extend(found.into_iter().map(|typed| SourceRoot {
            name: source_name(&typed),
            typed,
            optional: true,
        }));
    }
    // A source without a name of its own determines the target, and comes first.
    roots.sort_by_key(|top| !top.name.is_empty());
    let mut names: Vec<&[u8]> = roots.iter().map(|top| top.name.as_slice()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(policy::duplicate_source(twice[0]));
    }
    Ok(roots)
}

/// The name of a typed path: `a/b/` has the name `b`; `a/.`, `..` and `/` have none, and stand for their
/// contents.
fn source_name(typed: &[u8]) -> Vec<u8> {
    let trimmed = typed.strip_suffix(b"/").map_or(typed, |mut rest| {
        while let Some(less) = rest.strip_suffix(b"/") {
            rest = less;
        }
        rest
    });
    match name::split(trimmed).1 {
        b"" | b"." | b".." => Vec::new(),
        name => name.to_vec(),
    }
}

/// Maximum depth of directories searched for wildcards.
const DEEP: usize = 64;

fn follow(
    base: &Base,
    at: &[u8],
    steps: &[Step],
    found: &mut Vec<Vec<u8>>,
    depth: usize,
) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        found.push(at.to_vec());
        return Ok(());
    };
    match step {
        Step::Literal(component) => {
            let path = name::join(at, component);
            match base.look(&path, !rest.is_empty()) {
                Ok(_) => follow(base, &path, rest, found, depth),
                Err(_) => Ok(()),
            }
        }
        Step::Pattern(pattern) => {
            for (component, kind) in list(base, at)? {
                let enterable = rest.is_empty()
                    || matches!(kind, FileType::Directory | FileType::Symlink | FileType::Unknown);
                if enterable && matches(pattern, &component, false) {
                    let path = name::join(at, &component);
                    if rest.is_empty() || is_directory(base, &path, true) {
                        follow(base, &path, rest, found, depth)?;
                    }
                }
            }
            Ok(())
        }
        Step::Any => {
            if !rest.is_empty() {
                follow(base, at, rest, found, depth)?;
            }
            if depth >= DEEP {
                return Err(format!("** goes deeper than {DEEP} directories at {}", name::show(at)));
            }
            for (component, kind) in list(base, at)? {
                if component.starts_with(b".") {
                    continue;
                }
                let path = name::join(at, &component);
                if rest.is_empty() {
                    found.push(path.clone());
                } else if kind == FileType::Directory
                    || kind == FileType::Unknown && is_directory(base, &path, false)
                {
                    follow(base, &path, steps, found, depth + 1)?;
                }
            }
            Ok(())
        }
    }
}

fn is_directory(base: &Base, path: &[u8], follow: bool) -> bool {
    let stat = base.look(path, follow).and_then(rustix::fs::fstat);
    stat.is_ok_and(|stat| stat::file_type(&stat) == FileType::Directory)
}

/// The entries of a directory. Empty if it cannot be listed, as in a shell, except for a lack of permission.
fn list(base: &Base, path: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>, String> {
    let shown: &[u8] = if path.is_empty() { b"." } else { path };
    let opened = match base.open(shown, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(opened) => opened,
        Err(error @ (Errno::ACCESS | Errno::PERM)) => {
            return Err(format!("listing {} for the wildcard: {error}", name::show(shown)));
        }
        Err(_) => return Ok(Vec::new()),
    };
    let entries = Dir::new(opened).map_err(|error| format!("listing {}: {error}", name::show(shown)))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("listing {}: {error}", name::show(shown)))?;
        let component = entry.file_name().to_bytes();
        if component != b"." && component != b".." {
            found.push((component.to_vec(), entry.file_type()));
        }
    }
    Ok(found)
}
