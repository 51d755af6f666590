//! `postern-agent own` on real trees. Only root can change owners, so without root the tests are skipped.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

fn own(arguments: &[&str], tree: &Path) -> Output {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_postern-agent"));
    agent.arg("own").args(arguments).arg(tree).output().unwrap()
}

/// The exit code and the log.
fn result(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn owner(path: &Path) -> (u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid())
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can change owners");
    }
    root
}

fn all(tree: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![tree.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn everything_below_gets_the_owner_and_the_second_run_changes_nothing() {
    if !is_root() {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    // More directories and more entries than one thread takes at a time.
    for directory in 0..40 {
        let path = tree.path().join(format!("d{directory}/e"));
        fs::create_dir_all(&path).unwrap();
        (0..10).for_each(|file| fs::write(path.join(format!("f{file}")), "x").unwrap());
    }
    (0..3000).for_each(|file| fs::write(tree.path().join(format!("f{file}")), "x").unwrap());
    symlink("/etc/passwd", tree.path().join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, tree.path().join("fifo"), rustix::fs::Mode::RUSR).unwrap();
    let before = owner(Path::new("/etc/passwd"));
    let entries = all(tree.path()).len();
    let (code, log) = result(&own(&["1234:5678"], tree.path()));
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(&format!("{entries} entries, {entries} changed to 1234:5678")), "{log}");
    assert!(all(tree.path()).iter().all(|path| owner(path) == (1234, 5678)));
    assert_eq!(owner(Path::new("/etc/passwd")), before);
    let (code, log) = result(&own(&["1234:5678"], tree.path()));
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(&format!("{entries} entries, 0 changed")), "{log}");
    let (_, log) = result(&own(&["--on-root-mismatch", "1234:5678"], tree.path()));
    assert!(log.contains(": 1 entries, 0 changed"), "{log}");
}

#[test]
fn a_file_with_another_name_is_refused_and_the_root_is_left() {
    if !is_root() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let tree = tempfile::tempdir_in(outside.path()).unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "x").unwrap();
    fs::hard_link(&secret, tree.path().join("inside")).unwrap();
    fs::write(tree.path().join("other"), "x").unwrap();
    let (code, log) = result(&own(&["1234:5678"], tree.path()));
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("/inside: it has several hard links"), "{log}");
    assert!(log.contains("1 could not be changed, so the root was not changed"), "{log}");
    assert_eq!(owner(&secret), (0, 0));
    assert_eq!(owner(tree.path()), (0, 0));
    assert_eq!(owner(&tree.path().join("other")), (1234, 5678));
    let (code, log) = result(&own(&["--allow-hard-links", "1234:5678"], tree.path()));
    assert_eq!(code, Some(0), "{log}");
    assert_eq!((owner(&secret), owner(tree.path())), ((1234, 5678), (1234, 5678)));
}

#[test]
fn a_root_that_is_a_symlink_is_refused() {
    if !is_root() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let (target, link) = (outside.path().join("target"), outside.path().join("link"));
    fs::create_dir(&target).unwrap();
    symlink(&target, &link).unwrap();
    for root in [link.clone(), format!("{}/", link.display()).into()] {
        let (code, log) = result(&own(&["1234:5678"], &root));
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("neither a directory nor a regular file"), "{log}");
        assert_eq!(owner(&target), (0, 0));
    }
    let (code, log) = result(&own(&["1234:5678"], &outside.path().join("missing")));
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("missing: No such file or directory"), "{log}");
}

#[test]
fn a_single_file_is_changed() {
    if !is_root() {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let file = tree.path().join("file");
    fs::write(&file, "x").unwrap();
    let (code, log) = result(&own(&["1234:5678"], &file));
    assert_eq!((code, owner(&file)), (Some(0), (1234, 5678)), "{log}");
    assert_eq!(owner(tree.path()), (0, 0));
}

#[test]
fn setuid_bits_are_cleared_unless_they_are_kept() {
    if !is_root() {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let file = tree.path().join("file");
    fs::write(&file, "x").unwrap();
    let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
    for (flags, want) in [(&["1:1"][..], 0o755), (&["--keep-setuid", "2:2"], 0o6755)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o6755)).unwrap();
        let (code, log) = result(&own(flags, tree.path()));
        assert_eq!((code, mode()), (Some(0), want), "{log}");
    }
}

#[test]
fn a_device_node_is_left_as_it_is() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    if !is_root() {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let (device, whiteout) = (tree.path().join("null"), tree.path().join("whiteout"));
    if mknodat(CWD, &device, FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)).is_err() {
        eprintln!("skipped: device nodes cannot be made here");
        return;
    }
    mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::RUSR, 0).unwrap();
    let (code, log) = result(&own(&["1:1"], tree.path()));
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("1 device nodes left as they are"), "{log}");
    assert_eq!((owner(&device), owner(&whiteout)), ((0, 0), (1, 1)));
}

#[test]
fn what_is_exchanged_for_a_symlink_during_the_walk_is_not_followed() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::sync::atomic::{AtomicBool, Ordering};
    if !is_root() {
        return;
    }
    let (tree, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("file"), "x").unwrap();
    fs::create_dir(outside.path().join("sub")).unwrap();
    let path = |name: &str| tree.path().join(name);
    for number in 0..20 {
        fs::create_dir_all(path(&format!("d{number}/sub"))).unwrap();
        fs::write(path(&format!("d{number}/file")), "x").unwrap();
        fs::write(path(&format!("f{number}")), "x").unwrap();
    }
    symlink(outside.path(), path("to-directory")).unwrap();
    symlink(outside.path().join("file"), path("to-file")).unwrap();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let exchanges = scope.spawn(|| {
            let exchange = |one: &str, other: &str| {
                renameat_with(CWD, path(one), CWD, path(other), RenameFlags::EXCHANGE).unwrap();
            };
            let mut count = 0;
            while !ends.load(Ordering::Relaxed) {
                // There and back.
                for _ in 0..2 {
                    exchange(&format!("d{}", count % 20), "to-directory");
                    exchange(&format!("f{}", count % 20), "to-file");
                }
                count += 1;
            }
            count
        });
        for round in 1..=100 {
            own(&[&format!("{round}:{round}")], tree.path());
            assert!(all(outside.path()).iter().all(|path| owner(path) == (0, 0)), "round {round}");
        }
        ends.store(true, Ordering::Relaxed);
        assert!(exchanges.join().unwrap() > 100);
    });
    let (code, log) = result(&own(&["7:7"], tree.path()));
    assert_eq!((code, owner(&path("d0/file"))), (Some(0), (7, 7)), "{log}");
}

#[test]
fn a_deep_tree_is_walked() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    if !is_root() {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let mut directory = rustix::fs::open(tree.path(), OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..3000 {
        mkdirat(&directory, "d", Mode::RWXU).unwrap();
        directory = openat(&directory, "d", OFlags::PATH, Mode::empty()).unwrap();
    }
    let (code, log) = result(&own(&["7:7"], tree.path()));
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("3001 entries, 3001 changed"), "{log}");
    assert_eq!(rustix::fs::fstat(&directory).unwrap().st_uid, 7);
}

#[test]
fn wrong_arguments_exit_with_2() {
    let agent =
        Command::new(env!("CARGO_BIN_EXE_postern-agent")).args(["own", "root", "/tmp"]).output().unwrap();
    let (code, log) = result(&agent);
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("usage: postern-agent own"), "{log}");
}
