//! Compares the crates with what ARCHITECTURE.md, README.md and CONTRIBUTING.md say of them. Tests only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{paths, sh};

/// A row of the table of rooms.
struct Room {
    floor: String,
    folder: String,
    /// Whether the crate exists.
    built: bool,
    may_use: BTreeSet<String>,
}

/// The table in ARCHITECTURE.md: `| Floor | Room | Package | Its one job | May depend on |`.
fn table() -> BTreeMap<String, Room> {
    let text = fs::read_to_string(paths::root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| Floor |")).skip(2);
    let mut rooms = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [floor, folder, package, _, may_use] = cells[..] else { panic!("not five columns: {row}") };
        let may_use = may_use.split(", ").filter(|name| *name != "none").map(package_of).collect();
        let built = !package.starts_with('*');
        let (floor, folder) = (floor.to_owned(), folder.to_owned());
        rooms.insert(package.trim_matches('*').to_owned(), Room { floor, folder, built, may_use });
    }
    assert!(rooms.len() > 20, "the table of rooms was not found");
    rooms
}

fn package_of(room: &str) -> String {
    format!("postern-{room}")
}

/// A crate as its `Cargo.toml` has it.
struct Crate {
    name: String,
    /// Its folder, below `crates`.
    folder: PathBuf,
    /// What of ours it depends on, on any platform. Tests may use what they like.
    uses: BTreeSet<String>,
}

/// Every crate below `crates`.
fn crates() -> Vec<Crate> {
    let mut cargo = crate::test::cargo(["metadata", "--no-deps", "--format-version", "1", "--locked"]);
    let metadata: Value = serde_json::from_str(&sh::output(&mut cargo).unwrap()).unwrap();
    let root = paths::root().join("crates");
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .filter_map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?);
            let folder = manifest.parent()?.strip_prefix(&root).ok()?.to_owned();
            let dependencies = package["dependencies"].as_array()?.iter();
            let uses = dependencies
                .filter(|dependency| dependency["kind"] != "dev")
                .filter_map(|dependency| dependency["name"].as_str())
                .filter(|name| name.starts_with("postern"));
            let uses = uses.map(str::to_owned).collect();
            Some(Crate { name: package["name"].as_str()?.to_owned(), folder, uses })
        })
        .collect()
}

#[test]
fn every_crate_is_in_the_table_and_depends_only_on_what_the_table_allows() {
    let rooms = table();
    let mut seen = BTreeSet::new();
    for Crate { name: package, folder, uses } in crates() {
        let room = rooms.get(&package).unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for {package}"));
        assert!(room.built, "ARCHITECTURE.md says that {package} does not exist yet");
        assert_eq!(folder, Path::new(&room.floor).join(&room.folder), "{package} lies elsewhere");
        for used in uses {
            assert!(room.may_use.contains(&used), "{package} may not depend on {used} (see ARCHITECTURE.md)");
        }
        seen.insert(package);
    }
    for (package, room) in &rooms {
        assert_eq!(room.built, seen.contains(package), "ARCHITECTURE.md, row of {package}");
    }
}

#[test]
fn the_table_allows_arrows_downwards_only() {
    let rooms = table();
    let height = |room: &Room| {
        ["ground", "mechanisms", "capabilities", "programs"].iter().position(|f| *f == room.floor)
    };
    for (package, room) in &rooms {
        for used in &room.may_use {
            let other =
                rooms.get(used).unwrap_or_else(|| panic!("{package} may use {used}, which has no row"));
            assert!(height(other) <= height(room), "{package} may not use {used}, which is above it");
        }
    }
    // No room reaches itself, by whatever way.
    for package in rooms.keys() {
        let (mut reached, mut next) = (BTreeSet::new(), vec![package]);
        while let Some(one) = next.pop() {
            for used in &rooms[one].may_use {
                assert_ne!(used, package, "a circle through {one}");
                if reached.insert(used) {
                    next.push(used);
                }
            }
        }
    }
}

#[test]
fn the_readme_names_every_crate() {
    let readme = fs::read_to_string(paths::root().join("README.md")).unwrap();
    for (package, room) in table().into_iter().filter(|(_, room)| room.built) {
        let named = [package.as_str(), room.folder.as_str()].iter().any(|name| {
            readme.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == *name)
        });
        assert!(named, "README.md does not name {package}");
    }
}

#[test]
fn contributing_lists_every_fuzz_target() {
    let text = fs::read_to_string(paths::root().join("CONTRIBUTING.md")).unwrap();
    let row = text.lines().find(|line| line.starts_with("| `fuzz/`")).unwrap();
    for target in fs::read_dir(paths::root().join("fuzz/fuzz_targets")).unwrap() {
        let name = target.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        assert!(row.contains(&format!("`{name}`")), "CONTRIBUTING.md does not list the fuzz target {name}");
    }
}
