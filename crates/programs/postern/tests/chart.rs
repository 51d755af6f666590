//! The Helm chart and the Kustomize base in the repository are those that the program writes.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn files(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_owned();
                found.insert(name, std::fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

/// `POSTERN_UPDATE_CHART=1 cargo test -p postern --test chart` writes them.
#[test]
fn the_chart_and_the_base_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap();
    for (flag, directory) in [("--helm", "charts/postern-controller"), ("--kustomize", "deploy/controller")] {
        let directory = root.join(directory);
        let folder = tempfile::tempdir().unwrap();
        let is_update = std::env::var_os("POSTERN_UPDATE_CHART").is_some();
        if is_update {
            let _ = std::fs::remove_dir_all(&directory);
        }
        let target = if is_update { directory.as_path() } else { folder.path() };
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command.args(["controller", "manifests", flag]).arg(target);
        command.env_clear().env("HOME", "/nonexistent");
        assert!(command.status().unwrap().success());
        let (found, want) = (files(&directory), files(target));
        let names = |files: &BTreeMap<PathBuf, String>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&want), "{}", directory.display());
        for (name, text) in want {
            assert_eq!(found[&name], text, "{}", name.display());
        }
    }
}
