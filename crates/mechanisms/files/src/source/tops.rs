//! From paths as typed to what they mean: wildcards, symlinks and names.

use crate::beneath::Base;
use crate::name;
use crate::pattern::{Glob, Rules, Step, is_special, matches, unquoted};
use crate::{stat, verdict};
use postern_wire::copy::SendSpec;
use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;

/// One thing that was asked for.
pub(super) struct Top {
    /// Its path as resolved from what was typed.
    pub(super) typed: Vec<u8>,
    /// What it is called in the destination; empty where its content was asked for.
    pub(super) name: Vec<u8>,
    /// It is one of several, or was found by a wildcard: where it cannot be copied, the others still can, as by `cp`.
    pub(super) among: bool,
}

/// Everything that the paths mean, in their order; an error for people when one means nothing.
pub(super) fn expand(base: &Base, spec: &SendSpec, rules: &Rules) -> Result<Vec<Top>, String> {
    let mut tops = Vec::new();
    let among = spec.sources.len() > 1;
    for source in &spec.sources {
        // What is called just so is meant, whatever characters its name has: a shell may have expanded it before.
        if !spec.glob || !is_special(source) || base.look(source, false).is_ok() {
            tops.push(Top { typed: source.clone(), name: called(source), among });
            continue;
        }
        if let Some(plain) = unquoted(source) {
            tops.push(Top { name: called(&plain), typed: plain, among });
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
        tops.extend(found.into_iter().map(|typed| Top { name: called(&typed), typed, among: true }));
    }
    // What has no name of its own says where things go, and comes first.
    tops.sort_by_key(|top| !top.name.is_empty());
    let mut names: Vec<&[u8]> = tops.iter().map(|top| top.name.as_slice()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(verdict::twice_told(twice[0]));
    }
    Ok(tops)
}

/// The name that something typed like this has: `a/b/` is `b`; `a/.`, `..` and `/` have none but their content.
fn called(typed: &[u8]) -> Vec<u8> {
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

/// Most directories that wildcards are looked for in, one below the other.
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

/// What a directory holds; nothing where it cannot be listed, as a shell has it, but for a lack of rights.
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
