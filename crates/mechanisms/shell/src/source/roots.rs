//! Resolves typed source paths in the container: wildcards, symlinks and names.

use crate::TranslatorError;
use crate::inspect::{list, stat_path};
use crate::listing::{Stat, Type};
use crate::quoting::cause;
use crate::session::Session;
use postern_files::pattern::{Glob, Rules, Step, is_special, matches, unquoted};
use postern_files::{name, policy};
use postern_wire::copy::SendSpec;

/// One source.
#[derive(Debug)]
pub(super) struct SourceRoot {
    pub(super) real: Vec<u8>,
    /// Its name at the destination; empty if its contents were requested.
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
}

/// All sources, and matches of wildcards that cannot be inspected.
pub(super) type Expanded = (Vec<SourceRoot>, Vec<(Vec<u8>, String)>);

/// Expands the paths in order.
pub(super) async fn expand(
    session: &mut Session,
    spec: &SendSpec,
    rules: &Rules,
) -> Result<Expanded, TranslatorError> {
    let (mut roots, mut faults) = (Vec::new(), Vec::new());
    for source in &spec.sources {
        let shown = name::show(source);
        // An existing path is taken literally, whatever characters it has: a shell may have expanded it
        // already.
        let special = spec.glob && is_special(source);
        let plain = match special && stat_path(session, source, false).await?.is_err() {
            true => unquoted(source),
            false => Some(source.clone()),
        };
        if let Some(source) = plain {
            match stat_path(session, &source, true).await? {
                Ok(stat) => roots.push(top(source, stat)),
                // With several sources, the others are still copied, as by `cp`.
                Err(why) if spec.sources.len() > 1 && !source_name(&source).is_empty() => {
                    faults.push((source_name(&source), cause(&why)));
                }
                Err(why) => {
                    return Err(TranslatorError::Fatal(format!("{}: {}", name::show(&source), cause(&why))));
                }
            }
            continue;
        }
        let glob = Glob::parse(source).map_err(|error| TranslatorError::Fatal(error.to_string()))?;
        let mut found = follow(session, &glob).await?;
        found.sort();
        found.dedup();
        if found.is_empty() {
            return Err(TranslatorError::Fatal(format!("nothing matches {shown}")));
        }
        let mut left_out = 0;
        let matched = found.len();
        for path in found {
            match stat_path(session, &path, true).await? {
                Ok(stat) if rules.leave_out(glob.below(&path), stat.kind() == Type::Directory) => {
                    left_out += 1;
                }
                Ok(stat) => roots.push(top(path, stat)),
                Err(why) => faults.push((source_name(&path), cause(&why))),
            }
        }
        if left_out == matched {
            return Err(TranslatorError::Fatal(format!("everything that matches {shown} is left out")));
        }
    }
    // A source without a name of its own determines the target, and comes first.
    roots.sort_by_key(|top| !top.name.is_empty());
    let mut names: Vec<&[u8]> = roots.iter().map(|top| top.name.as_slice()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(TranslatorError::Fatal(policy::duplicate_source(twice[0])));
    }
    Ok((roots, faults))
}

fn top(real: Vec<u8>, stat: Stat) -> SourceRoot {
    let name = source_name(&real);
    let mut real = real;
    while real.len() > 1 && real.ends_with(b"/") {
        real.pop();
    }
    SourceRoot { real, name, stat }
}

/// The name of a typed path: `a/b/` has the name `b`; `a/.`, `..` and `/` have none, and stand for their
/// contents.
fn source_name(typed: &[u8]) -> Vec<u8> {
    let mut trimmed = typed;
    while let Some(less) = trimmed.strip_suffix(b"/") {
        trimmed = less;
    }
    match name::split(trimmed).1 {
        b"" | b"." | b".." => Vec::new(),
        name => name.to_vec(),
    }
}

/// Maximum depth of directories searched for wildcards.
const DEEP: usize = 64;

/// Walks the steps of a wildcard. A queue item is a path, the number of its steps, and its depth.
async fn follow(session: &mut Session, glob: &Glob) -> Result<Vec<Vec<u8>>, TranslatorError> {
    let start: &[u8] = if glob.absolute() { b"/" } else { b"" };
    let (mut waiting, mut found) = (vec![(start.to_vec(), 0, 0)], Vec::new());
    while let Some((at, taken, depth)) = waiting.pop() {
        let Some(step) = glob.steps().get(taken) else {
            if !glob.directories() || is_directory(session, &at).await? {
                found.push(at);
            }
            continue;
        };
        let last = taken + 1 == glob.steps().len();
        match step {
            Step::Literal(component) => {
                let path = name::join(&at, component);
                if stat_path(session, &path, !last).await?.is_ok() {
                    waiting.push((path, taken + 1, depth));
                }
            }
            Step::Pattern(pattern) => {
                for (component, stat) in listed(session, &at).await? {
                    let path = name::join(&at, &component);
                    if !matches(pattern, &component, false) {
                        continue;
                    }
                    let enters = match stat.kind() {
                        Type::Symlink if !last => is_directory(session, &path).await?,
                        kind => last || kind == Type::Directory,
                    };
                    if enters {
                        waiting.push((path, taken + 1, depth));
                    }
                }
            }
            Step::Any => {
                if !last {
                    waiting.push((at.clone(), taken + 1, depth));
                }
                if depth >= DEEP {
                    let shown = name::show(&at);
                    return Err(TranslatorError::Fatal(format!(
                        "** goes deeper than {DEEP} directories at {shown}"
                    )));
                }
                for (component, stat) in listed(session, &at).await? {
                    if component.starts_with(b".") {
                        continue;
                    }
                    let path = name::join(&at, &component);
                    if last {
                        found.push(path);
                    } else if stat.kind() == Type::Directory {
                        waiting.push((path, taken, depth + 1));
                    }
                }
            }
        }
    }
    Ok(found)
}

async fn is_directory(session: &mut Session, path: &[u8]) -> Result<bool, TranslatorError> {
    Ok(stat_path(session, path, true).await?.is_ok_and(|stat| stat.kind() == Type::Directory))
}

/// The entries of a directory. Empty if it cannot be listed, as in a shell, except for a lack of permission.
async fn listed(session: &mut Session, path: &[u8]) -> Result<Vec<(Vec<u8>, Stat)>, TranslatorError> {
    match list(session, path).await? {
        Ok(found) => Ok(found),
        Err(why) if why == "Permission denied" => {
            Err(TranslatorError::Fatal(format!("listing {} for the wildcard: {why}", name::show(path))))
        }
        Err(_) => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::source_name;

    #[test]
    fn source_names_are_the_last_component() {
        for (typed, name) in
            [(&b"/a/b"[..], &b"b"[..]), (b"a/b//", b"b"), (b"a/.", b""), (b"..", b""), (b"/", b"")]
        {
            assert_eq!(source_name(typed), name);
        }
    }
}
