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

/// Circles between files that are there today: they may go, and no other may come.
const KNOWN_CIRCLES: [&str; 0] = [];

/// A module's path below its crate; empty for the crate's root.
type Module = Vec<String>;

/// The modules of a crate and what each uses of the others. A module may use what is in the modules that hold it: their
/// paths are not counted.
fn uses_of(source: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut files = Vec::new();
    collect(source, source, &mut files);
    let modules: BTreeSet<Module> = files.iter().map(|(module, _)| module.clone()).collect();
    let mut uses = BTreeMap::new();
    for (module, text) in files {
        let mut found: BTreeSet<Module> = paths_in(&text)
            .into_iter()
            .filter_map(|path| resolve(&module, &path, &modules))
            .filter(|used| !module.starts_with(used))
            .collect();
        // A child by its name alone.
        for child in
            modules.iter().filter(|child| child.len() == module.len() + 1 && child.starts_with(&module))
        {
            if text.contains(&format!("{}::", child[module.len()])) {
                found.insert(child.clone());
            }
        }
        uses.insert(module, found);
    }
    uses
}

/// The files of a crate by their module, without tests.
fn collect(root: &Path, folder: &Path, files: &mut Vec<(Module, String)>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(root, &path, files);
            continue;
        }
        let relative = path.strip_prefix(root).unwrap().with_extension("");
        let mut module: Module = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if path.extension().is_none_or(|extension| extension != "rs")
            || module.iter().any(|part| part == "tests")
        {
            continue;
        }
        if module.last().is_some_and(|last| matches!(last.as_str(), "lib" | "main" | "mod")) {
            module.pop();
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let code: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        files.push((module, code.join("\n")));
    }
}

/// Every path in a text that begins with `crate` or `super`, braces taken apart.
fn paths_in(text: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in text.match_indices(start) {
            let begins =
                text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !":_$".contains(c));
            if begins {
                read_path(&mut text[at..].chars().peekable(), &[], &mut paths);
            }
        }
    }
    paths
}

/// Reads one path, or several in braces, and puts them behind `before`.
fn read_path(
    text: &mut std::iter::Peekable<std::str::Chars<'_>>,
    before: &[String],
    paths: &mut Vec<Vec<String>>,
) {
    let mut path = before.to_vec();
    let mut name = String::new();
    while let Some(c) = text.peek().copied() {
        match c {
            '{' => {
                text.next();
                loop {
                    read_path(text, &path, paths);
                    while text.peek().is_some_and(|c| c.is_whitespace()) {
                        text.next();
                    }
                    match text.next() {
                        Some(',') => {}
                        _ => return,
                    }
                }
            }
            ':' => {
                text.next();
                if text.next_if_eq(&':').is_none() {
                    break;
                }
                path.push(std::mem::take(&mut name));
            }
            c if c.is_alphanumeric() || c == '_' => {
                name.push(c);
                text.next();
            }
            c if c.is_whitespace() && name.is_empty() => drop(text.next()),
            _ => break,
        }
    }
    if !name.is_empty() {
        path.push(name);
    }
    paths.push(path);
}

/// The module that a path leads into.
fn resolve(from: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let (mut at, rest) = match path.first()?.as_str() {
        "crate" => (Module::new(), &path[1..]),
        _ => (from[..from.len().checked_sub(supers)?].to_vec(), &path[supers..]),
    };
    for part in rest {
        let mut deeper = at.clone();
        deeper.push(part.clone());
        if !modules.contains(&deeper) {
            break;
        }
        at = deeper;
    }
    modules.contains(&at).then_some(at)
}

/// All that a module reaches.
fn reach<'a>(uses: &'a BTreeMap<Module, BTreeSet<Module>>, from: &'a Module) -> BTreeSet<&'a Module> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        for used in uses.get(module).into_iter().flatten() {
            if reached.insert(used) {
                next.push(used);
            }
        }
    }
    reached
}

#[test]
fn files_use_each_other_in_no_circle() {
    let mut circles = BTreeSet::new();
    for Crate { name: _, folder, uses: _ } in crates() {
        let uses = uses_of(&paths::root().join("crates").join(&folder).join("src"));
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            uses.keys().map(|module| (module, reach(&uses, module))).collect();
        for (module, of_module) in &reached {
            let circle: Vec<String> = reached
                .iter()
                .filter(|(other, of_other)| of_module.contains(**other) && of_other.contains(*module))
                .map(|(other, _)| other.join("::"))
                .collect();
            if circle.len() > 1 {
                let room = folder.file_name().unwrap().to_string_lossy();
                circles.insert(format!("{room}: {}", circle.join(" ")));
            }
        }
    }
    let known: BTreeSet<String> = KNOWN_CIRCLES.map(str::to_owned).into();
    let new: Vec<&String> = circles.difference(&known).collect();
    assert!(new.is_empty(), "files use each other in a circle; move what they share below both: {new:#?}");
    let gone: Vec<&String> = known.difference(&circles).collect();
    assert!(gone.is_empty(), "take these out of KNOWN_CIRCLES: {gone:#?}");
}
