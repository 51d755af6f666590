//! `cargo xtask test --changed`: the crates that a change reaches, for developers. CI runs everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{paths, sh, test};

/// A crate of the workspace.
struct Package {
    name: String,
    folder: PathBuf,
    /// Of the workspace's crates those that it depends on, in tests too.
    uses: BTreeSet<String>,
}

/// The crates with changes since `base`, in commits or not, and all that depend on them. `None` stands for all of the
/// workspace: a change outside the crates may reach any of them.
pub(crate) fn packages(base: &str) -> Result<Option<BTreeSet<String>>> {
    let root = paths::root();
    let git = |args: &[&str]| sh::output(sh::command("git", args).current_dir(&root));
    let mut files = git(&["diff", "--name-only", base]).with_context(|| format!("compare with {base}"))?;
    files.push_str(&git(&["ls-files", "--others", "--exclude-standard"])?);
    let files: Vec<&Path> = files.lines().map(Path::new).collect();
    Ok(reached(&workspace(&root)?, &files))
}

fn workspace(root: &Path) -> Result<Vec<Package>> {
    let metadata = sh::output(&mut test::cargo(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("read Cargo's metadata")?;
    let packages = metadata["packages"].as_array().into_iter().flatten().filter_map(|package| {
        let manifest = Path::new(package["manifest_path"].as_str()?);
        let dependencies = package["dependencies"].as_array()?.iter();
        let uses = dependencies.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned));
        Some(Package {
            name: package["name"].as_str()?.to_owned(),
            folder: manifest.parent()?.strip_prefix(root).ok()?.to_owned(),
            uses: uses.collect(),
        })
    });
    Ok(packages.collect())
}

/// Files that no crate is made of.
fn is_document(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "md") || file.starts_with("docs")
}

fn reached(workspace: &[Package], files: &[&Path]) -> Option<BTreeSet<String>> {
    let mut changed = BTreeSet::new();
    for file in files.iter().filter(|file| !is_document(file)) {
        let owner = workspace.iter().find(|package| file.starts_with(&package.folder))?;
        changed.insert(owner.name.clone());
    }
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in workspace {
        for used in &package.uses {
            users.entry(used).or_default().push(&package.name);
        }
    }
    let mut next: Vec<String> = changed.iter().cloned().collect();
    while let Some(package) = next.pop() {
        for user in users.get(package.as_str()).into_iter().flatten() {
            if changed.insert((*user).to_owned()) {
                next.push((*user).to_owned());
            }
        }
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reaches_what_depends_on_it() {
        let package = |name: &str, folder: &str, uses: &[&str]| Package {
            name: name.to_owned(),
            folder: folder.into(),
            uses: uses.iter().map(|name| (*name).to_owned()).collect(),
        };
        let workspace = [
            package("low", "crates/ground/low", &["serde"]),
            package("middle", "crates/mechanisms/middle", &["low"]),
            package("high", "crates/programs/high", &["middle"]),
            package("other", "crates/programs/other", &[]),
        ];
        let of = |files: &[&str]| {
            let files: Vec<&Path> = files.iter().map(Path::new).collect();
            reached(&workspace, &files).map(|names| names.into_iter().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(of(&["crates/ground/low/src/lib.rs"]).unwrap(), "high low middle");
        assert_eq!(of(&["crates/programs/other/src/main.rs", "README.md"]).unwrap(), "other");
        assert_eq!(of(&["docs/src/copy.md"]).unwrap(), "");
        assert_eq!(of(&["Cargo.toml"]), None);
    }
}
