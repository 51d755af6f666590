//! Whole trees, and their targets.

use super::support::{copy, copy_cut, random, receiving, seen, sending};
use postern_wire::copy::{Compare, Delete, Fate, Owner, ReceiveSpec, SendSpec};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

/// One of each type that a copy preserves.
fn torture(root: &Path) {
    let name = |bytes: &[u8]| root.join(std::ffi::OsString::from_vec(bytes.to_vec()));
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for (path, content) in [
        (&b"a/zero"[..], Vec::new()),
        (b"a/small", b"hello".to_vec()),
        (b"a/b/text", b"line after line\n".repeat(100_000)),
        (b"a/b/c/random", random(3_000_000, 1)),
        (b" -rf", b"1".to_vec()),
        (b"new\nline \x1b[2J", b"2".to_vec()),
        (b"not \xff utf-8", b"3".to_vec()),
        (&[b'n'; 255], b"4".to_vec()),
        (b".hidden", b"5".to_vec()),
    ] {
        fs::write(name(content_path(path)), content).unwrap();
    }
    for number in 0..3_000 {
        fs::write(root.join(format!("a/b/file-{number}")), format!("content of {number}")).unwrap();
    }
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    sparse.write_all_at(b"in the middle", 20_000_000).unwrap();
    symlink("small", root.join("a/link")).unwrap();
    symlink("../a/b", root.join("a/up")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    fs::hard_link(root.join("a/small"), root.join("other-name")).unwrap();
    fs::set_permissions(root.join("a/small"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o2555)).unwrap();
    fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o555)).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for path in ["a/small", "a/b", "a", "empty", ""] {
        fs::File::open(root.join(path)).unwrap().set_modified(old).unwrap();
    }
}

fn content_path(path: &[u8]) -> &[u8] {
    path
}

#[test]
fn a_tree_round_trips_and_a_second_copy_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    torture(&from);
    let spec = sending(std::slice::from_ref(&from));
    let first = copy(&spec, &receiving(&to));
    assert!(first.finished && first.faults.is_empty(), "{:?}", first.faults);
    let bad: Vec<_> =
        first.fates.iter().filter(|(_, (fate, _))| matches!(fate, Fate::Failed | Fate::Refused)).collect();
    assert!(bad.is_empty(), "{bad:?}");
    let (want, got) = (seen(&from), seen(&to));
    for (path, text) in &want {
        assert_eq!(got.get(path), Some(text), "{}", postern_files::name::show(path));
    }
    assert_eq!(want.len(), got.len());
    let holes = |path: &Path| path.join("sparse").metadata().unwrap().blocks();
    assert!(holes(&to) <= holes(&from) + 64, "{} {}", holes(&to), holes(&from));
    // Again, to the same target: the contents, because the directory exists now.
    let again = SendSpec { contents: true, ..spec.clone() };
    let second = copy(&again, &receiving(&to));
    assert_eq!((second.count(Fate::Written), second.finished), (0, true));
    assert!(
        second.count(Fate::Same) > 3_000 && second.sent < first.sent / 4,
        "{} {}",
        second.sent,
        first.sent
    );
    assert_eq!(seen(&to), got);
    let third = copy(&again, &ReceiveSpec { compare: Compare::Times, ..receiving(&to) });
    assert_eq!((third.count(Fate::Written), third.count(Fate::Unchanged)), (0, second.count(Fate::Same)));
    assert!(!got.keys().any(|path| path.ends_with(b"postern-partial")));
}

#[test]
fn targets_are_resolved_as_by_cp() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    fs::create_dir_all(at("d/sub")).unwrap();
    fs::write(at("d/sub/x"), "x").unwrap();
    fs::write(at("f"), "f").unwrap();
    fs::write(at("g"), "g").unwrap();
    fs::create_dir(at("into")).unwrap();
    symlink("into", at("link")).unwrap();
    let run = |sources: &[&str], target: &str| {
        let sources: Vec<_> = sources.iter().map(|source| at(source)).collect();
        copy(&sending(&sources), &receiving(&at(target)))
    };
    assert_eq!(run(&["f"], "into").fate("f"), Fate::Written);
    assert!(at("into/f").exists());
    run(&["f"], "new-name");
    assert_eq!(fs::read_to_string(at("new-name")).unwrap(), "f");
    run(&["d"], "new-directory");
    assert!(at("new-directory/sub/x").exists());
    run(&["d"], "link/");
    assert!(at("into/d/sub/x").exists());
    run(&["d/."], "contents");
    assert!(at("contents/sub/x").exists());
    run(&["d/s*", "[fg]"], "into");
    assert!(at("into/sub/x").exists() && at("into/g").exists());
    // A symlink to a file is followed for writing.
    symlink("into/f", at("to-f")).unwrap();
    run(&["g"], "to-f");
    assert_eq!(fs::read_to_string(at("into/f")).unwrap(), "g");
    assert!(at("to-f").is_symlink());
    for (sources, target, why) in [
        (&["f", "g"][..], "nowhere", "there is no directory"),
        (&["f", "g"], "new-name", "is not a directory"),
        (&["f"], "nowhere/f", "there is no directory"),
        (&["f"], "nowhere/", "there is no directory"),
        (&["d"], "f", "a directory cannot replace it"),
        (&["missing"], "into", "No such file or directory"),
        (&["none*"], "into", "nothing matches"),
        (&["f", "into/f"], "contents", "two of the sources are called f"),
    ] {
        let report = run(sources, target);
        let fatal = report.fatal.unwrap_or_default();
        assert!(fatal.contains(why), "{sources:?} {target}: {fatal:?}");
        assert!(!at("nowhere").exists());
    }
}

#[test]
fn sync_deletes_extra_entries_and_keeps_excluded_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir_all(from.join("keep")).unwrap();
    fs::write(from.join("keep/a"), "a").unwrap();
    fs::write(from.join("skip.log"), "s").unwrap();
    fs::create_dir_all(to.join("gone/deep")).unwrap();
    fs::create_dir_all(to.join("keep")).unwrap();
    fs::create_dir_all(to.join("half/deep")).unwrap();
    for path in ["gone/deep/x", "keep/old", "own.log", ".keep.postern-partial", "half/x", "half/deep/own.log"]
    {
        fs::write(to.join(path), "x").unwrap();
    }
    let precious = folder.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("x"), "x").unwrap();
    symlink(&precious, to.join("gone/deep/out")).unwrap();
    let rules = vec![postern_wire::copy::Rule { include: false, pattern: b"*.log".to_vec() }];
    let send = SendSpec { contents: true, rules: rules.clone(), ..sending(std::slice::from_ref(&from)) };
    let plan = ReceiveSpec {
        delete: Delete::Extra,
        dry_run: true,
        rules,
        compare: Compare::Times,
        ..receiving(&to)
    };
    let before = seen(&to);
    let planned = copy(&send, &plan);
    assert_eq!(seen(&to), before, "a dry run changes nothing");
    let done = copy(&send, &ReceiveSpec { dry_run: false, ..plan });
    for report in [&planned, &done] {
        let mut deleted = report.deleted.clone();
        deleted.sort();
        assert_eq!(deleted, [b"gone".to_vec(), b"half/x".to_vec(), b"keep/old".to_vec()]);
    }
    assert_eq!((planned.fate("keep/a"), done.fate("keep/a")), (Fate::Planned, Fate::Written));
    // Excluded entries stay everywhere, and so do their directories.
    assert!(to.join("half/deep/own.log").exists() && !to.join("half/x").exists());
    assert!(to.join("own.log").exists() && !to.join("skip.log").exists() && !to.join("gone").exists());
    assert!(to.join(".keep.postern-partial").exists() && precious.join("x").exists());
}

#[test]
fn a_dry_run_reports_differences_and_discards_content() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    for side in [&from, &to] {
        fs::create_dir(side).unwrap();
        for (name, bytes) in [("same", 3_000_000), ("big", 40_000_000), ("small", 3_000), ("new", 5_000)] {
            fs::write(side.join(name), random(bytes, 7)).unwrap();
        }
    }
    fs::remove_file(to.join("new")).unwrap();
    fs::write(to.join("big"), random(40_000_000, 8)).unwrap();
    fs::write(to.join("small"), random(3_000, 8)).unwrap();
    let send = SendSpec { contents: true, ..sending(std::slice::from_ref(&from)) };
    for delta in [false, true] {
        let plan =
            ReceiveSpec { dry_run: true, delta, preserve: true, compare: Compare::Hash, ..receiving(&to) };
        let before = seen(&to);
        let report = copy(&send, &plan);
        assert!(report.finished);
        assert_eq!(seen(&to), before);
        assert_eq!(report.fate("same"), Fate::Same);
        for name in ["big", "small", "new"] {
            assert_eq!(report.fate(name), Fate::Planned, "{name}");
        }
        assert!(report.sent < 20_000_000, "{} bytes were sent of what is not written", report.sent);
    }
}

#[test]
fn an_interrupted_directory_keeps_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).unwrap();
    for number in 0..200 {
        fs::write(from.join(format!("f{number}")), random(20_000, number)).unwrap();
    }
    let spec = sending(std::slice::from_ref(&from));
    assert!(!copy_cut(&spec, &receiving(&to), 2_000_000).finished && to.is_dir());
    // The request of a client that knows that the first connection created it.
    let second = copy(&spec, &ReceiveSpec { named: true, ..receiving(&to) });
    assert!(second.finished && second.count(Fate::Same) > 20, "{}", second.count(Fate::Same));
    assert!(!to.join("from").exists());
    assert_eq!(fs::read_dir(&to).unwrap().count(), 200);
}

#[test]
fn an_existing_directory_keeps_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::create_dir_all(to.join("sub")).unwrap();
    fs::set_permissions(&to, fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(to.join("sub"), fs::Permissions::from_mode(0o1755)).unwrap();
    let spec = SendSpec { contents: true, ..sending(std::slice::from_ref(&from)) };
    assert!(copy(&spec, &ReceiveSpec { parents: true, ..receiving(&to) }).finished);
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode(&to), mode(&to.join("sub"))), (0o1777, 0o1755));
    // A directory that the copy creates has the source's mode.
    fs::set_permissions(&from, fs::Permissions::from_mode(0o750)).unwrap();
    let new = folder.path().join("new");
    assert!(copy(&spec, &ReceiveSpec { parents: true, ..receiving(&new) }).finished);
    assert_eq!(mode(&new), 0o750);
}

#[test]
fn a_replaced_file_keeps_its_mode_and_a_reader_sees_old_or_new() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, random(2_000_000, 4)).unwrap();
    fs::write(&to, b"old").unwrap();
    fs::set_permissions(&to, fs::Permissions::from_mode(0o640)).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let new = fs::read(&from).unwrap();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let now = fs::read(&to).unwrap();
                assert!(now == b"old" || now == new, "{} bytes of a mix", now.len());
            }
        });
        let report = copy(&sending(std::slice::from_ref(&from)), &receiving(&to));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(report.fate("from"), Fate::Written);
    });
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o640);
    // An identical file is not written, but gets the source's mode if requested.
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    for (bits, compare, fate) in
        [(0o750, Compare::Hash, Fate::Same), (0o704, Compare::Times, Fate::Unchanged)]
    {
        fs::set_permissions(&from, fs::Permissions::from_mode(bits)).unwrap();
        let report = copy(
            &sending(std::slice::from_ref(&from)),
            &ReceiveSpec { preserve: true, compare, ..receiving(&to) },
        );
        assert_eq!((report.fate("from"), mode(&to)), (fate, bits));
        fs::set_permissions(&from, fs::Permissions::from_mode(0o600)).unwrap();
        let dry = ReceiveSpec { preserve: true, compare, dry_run: true, ..receiving(&to) };
        copy(&sending(std::slice::from_ref(&from)), &dry);
        copy(&sending(std::slice::from_ref(&from)), &ReceiveSpec { compare, ..receiving(&to) });
        assert_eq!(mode(&to), bits);
        if fs::metadata(&to).unwrap().uid() == 0 {
            let to_user = Owner { user: Some(12_345), group: None };
            let given = ReceiveSpec { owner: to_user, compare, ..receiving(&to) };
            assert_eq!(copy(&sending(std::slice::from_ref(&from)), &given).fate("from"), fate);
            assert_eq!((fs::metadata(&to).unwrap().uid(), mode(&to)), (12_345, bits));
            std::os::unix::fs::chown(&to, Some(0), None).unwrap();
        }
    }
}

/// Their size is 0 or a page, whatever they contain.
#[cfg(target_os = "linux")]
#[test]
fn generated_files_are_copied_completely() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/cpuinfo"] {
        let (from, to) = (std::path::PathBuf::from(name), folder.path().join("to"));
        if !from.exists() {
            continue; // not in this kernel
        }
        let report = copy(&sending(std::slice::from_ref(&from)), &receiving(&to));
        let last = name.rsplit('/').next().unwrap();
        assert_eq!(report.fate(last), Fate::Written, "{name}");
        let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
        assert_eq!(lines(&to), lines(&from), "{name}");
        assert!(lines(&to) > 0, "{name}");
    }
}

#[test]
fn entries_of_another_type_are_replaced_with_delete() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir_all(from.join("was-file/sub")).unwrap();
    fs::create_dir_all(from.join("was-link")).unwrap();
    fs::write(from.join("was-file/sub/new"), "new").unwrap();
    fs::write(from.join("was-directory"), "new").unwrap();
    fs::write(from.join("holds"), "new").unwrap();
    symlink("holds", from.join("link")).unwrap();
    for name in ["was-directory/deep", "link/deep"] {
        fs::create_dir_all(to.join(name)).unwrap();
    }
    fs::create_dir_all(to.join("holds")).unwrap();
    fs::write(to.join("was-directory/deep/old"), "old").unwrap();
    fs::write(to.join("holds/a.keep"), "kept").unwrap();
    fs::write(to.join("was-file"), "old").unwrap();
    fs::write(folder.path().join("elsewhere"), "old").unwrap();
    symlink("../elsewhere", to.join("was-link")).unwrap();
    let rules = vec![postern_wire::copy::Rule { include: false, pattern: b"*.keep".to_vec() }];
    let spec = SendSpec { contents: true, rules: rules.clone(), ..sending(std::slice::from_ref(&from)) };
    let plain = ReceiveSpec { rules, ..receiving(&to) };
    // Only with `delete`.
    let report = copy(&spec, &plain);
    assert_eq!(report.fate("was-directory"), Fate::Failed);
    assert_eq!((report.fate("was-file"), report.fate("link")), (Fate::Failed, Fate::Failed));
    assert!(to.join("link/deep").is_dir());
    assert_eq!(fs::read(to.join("was-directory/deep/old")).unwrap(), b"old");
    let delete = ReceiveSpec { delete: Delete::Extra, ..plain };
    let report = copy(&spec, &ReceiveSpec { dry_run: true, ..delete.clone() });
    assert_eq!((report.fate("was-directory"), report.fate("was-file")), (Fate::Planned, Fate::Planned));
    assert_eq!(report.fate("link"), Fate::Planned);
    assert_eq!(fs::read(to.join("was-file")).unwrap(), b"old");
    assert!(to.join("link/deep").is_dir());
    let report = copy(&spec, &delete);
    assert_eq!(report.fate("link"), Fate::Made);
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("holds"));
    assert_eq!(report.fate("was-directory"), Fate::Written);
    assert_eq!(fs::read(to.join("was-directory")).unwrap(), b"new");
    assert_eq!(fs::read(to.join("was-file/sub/new")).unwrap(), b"new");
    assert!(to.join("was-link").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read(folder.path().join("elsewhere")).unwrap(), b"old");
    // A kept entry is in the way.
    assert_eq!(report.fate("holds"), Fate::Failed);
    assert_eq!(fs::read(to.join("holds/a.keep")).unwrap(), b"kept");
}
