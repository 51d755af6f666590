//! Both directions, with the shells of this machine.

mod support;

use postern_shell::TransferMode;
use postern_wire::copy::{Compare, CopyRequest, Delete, Fate, ReceiveSpec, SendSpec};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{Far, SHELL, Side, TAR, alike, copy, random, receive, send, shells, torture, tree};

#[test]
fn a_tree_round_trips_through_every_shell() {
    for shell in shells() {
        for way in [SHELL, TAR] {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            torture(&at("tree"));
            let far = || Side::There(Far::new(&shell, way));
            let (tally, seen) =
                copy(&Side::Here, &far(), &send(&[&at("tree")]), &receive(&at("up"))).unwrap();
            assert!(tally.is_whole() && tally.unverified == 0, "{:?}", seen.done);
            let (tally, seen) =
                copy(&far(), &Side::Here, &send(&[&at("up")]), &receive(&at("back"))).unwrap();
            assert!(tally.is_whole(), "{:?}", seen.done);
            // busybox sets whole seconds.
            let nanos = shell.len() == 1;
            alike(&tree(&at("tree"), nanos), &tree(&at("back"), nanos));
            assert!(fs::metadata(at("up/sparse")).unwrap().blocks() * 512 < 4_000_000);
            // The second time, nothing is written and little is sent.
            for (from, to) in [("tree", "up"), ("up", "back")] {
                let there = Far::new(&shell, way);
                let (source, destination) = match from {
                    "tree" => (Side::Here, Side::There(there.clone())),
                    _ => (Side::There(there.clone()), Side::Here),
                };
                let (from, to) = (at(from).join("."), at(to));
                let (tally, _) = copy(&source, &destination, &send(&[&from]), &receive(&to)).unwrap();
                assert_eq!((tally.written, tally.same), (0, 50), "{from:?}");
                assert!(there.sent.load(Ordering::Relaxed) < 100_000, "{:?}", there.sent);
            }
            alike(&tree(&at("tree"), nanos), &tree(&at("back"), nanos));
        }
    }
}

#[test]
fn shell_to_shell_works_without_a_hash_tool() {
    for way in [SHELL, TAR] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        torture(&at("tree"));
        let far = Far { sum: Some("-"), ..Far::by(way) };
        let sides = (Side::There(far.clone()), Side::There(far));
        let (tally, _) = copy(&sides.0, &sides.1, &send(&[&at("tree")]), &receive(&at("there"))).unwrap();
        assert!(tally.is_whole() && tally.written == 50 && tally.unverified == 0, "{tally:?}");
        alike(&tree(&at("tree"), true), &tree(&at("there"), true));
    }
}

#[test]
fn unverified_files_are_reported_as_unverified() {
    for tar in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        torture(&at("tree"));
        let far = Side::There(Far::by(TransferMode { tar, verify: false }));
        let (tally, seen) = copy(&Side::Here, &far, &send(&[&at("tree")]), &receive(&at("there"))).unwrap();
        assert_eq!((tally.written, tally.unverified, tally.is_whole()), (0, 50, true));
        let small = &seen.done[&b"tree/a/random"[..]];
        assert_eq!((small.hash, small.note.as_str()), (None, "not verified"));
    }
}

#[test]
fn unwritable_files_are_not_sent_to_the_end() {
    let full = "put() { dd bs=$1 count=1 iflag=fullblock 2>/dev/null | cat >/dev/null; x='No space left on device'; }\n";
    for shell in shells() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("big"), random(100_000_000)).unwrap();
        fs::write(at("small"), "small").unwrap();
        fs::create_dir(at("there")).unwrap();
        let far = Far { first: full, ..Far::new(&shell, TAR) };
        let sources = [&*at("big"), &*at("small")];
        let (tally, seen) =
            copy(&Side::Here, &Side::There(far.clone()), &send(&sources), &receive(&at("there"))).unwrap();
        let (fate, note) = seen.fate("big");
        assert!(fate == Fate::Failed && note.contains("No space left on device"), "{note}");
        assert_eq!((tally.failed, tally.written), (1, 1));
        assert!(left(&at("there")).is_empty() && !at("there/big").exists());
        let sent = far.sent.load(Ordering::Relaxed);
        assert!(sent < 40_000_000, "{sent} bytes were sent of what nobody keeps");
    }
}

#[test]
fn concurrent_copies_to_one_name_are_each_complete() {
    for (way, size) in [(SHELL, 3_000_000), (SHELL, 12_000_000), (TAR, 300_000)] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (one, two) = (random(size), [random(size), vec![7]].concat());
        fs::write(at("one"), &one).unwrap();
        fs::write(at("two"), &two).unwrap();
        // The first copy has verified its hash, and waits with its rename for the second.
        let wait = format!(
            "place() {{ : >{0}/ready; until [ -e {0}/go ]; do sleep 0.05; done; e=$(mv $M \"$p\" \"$q\" 2>&1) || x=$e; }}\n",
            folder.path().display()
        );
        let first = Far { first: wait.leak(), ..Far::by(way) };
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| {
                copy(&Side::Here, &Side::There(first), &send(&[&at("one")]), &receive(&at("there")))
                    .unwrap()
                    .0
            });
            let end = std::time::Instant::now() + Duration::from_secs(20);
            while !at("ready").exists() {
                assert!(std::time::Instant::now() < end, "it is not ready");
                std::thread::yield_now();
            }
            let far = Side::There(Far::by(way));
            let (tally, seen) =
                copy(&Side::Here, &far, &send(&[&at("two")]), &receive(&at("there"))).unwrap();
            assert_eq!(tally.written, 1, "{:?}", seen.done);
            assert!(fs::read(at("there")).unwrap() == two);
            fs::write(at("go"), "").unwrap();
            assert_eq!(slow.join().unwrap().written, 1);
        });
        assert!(fs::read(at("there")).unwrap() == one);
        assert!(left(folder.path()).is_empty());
    }
}

/// The shell of a lost connection may still be running.
#[test]
fn small_files_of_another_connection_do_not_interfere() {
    for shell in shells() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "new").unwrap();
        let theirs = at("there/.a.postern-partial/theirs");
        fs::create_dir_all(&theirs).unwrap();
        let far = Side::There(Far::new(&shell, TAR));
        let (tally, seen) = copy(&Side::Here, &far, &send(&[&at("a")]), &receive(&at("there"))).unwrap();
        assert_eq!(tally.written, 1, "{:?}", seen.done);
        assert_eq!(fs::read(at("there/a")).unwrap(), b"new");
        assert!(theirs.exists());
    }
}

/// Files of ours that are left in a directory.
fn left(folder: &Path) -> Vec<OsString> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    all.filter(|name| name.as_bytes().ends_with(b".postern-partial")).collect()
}

#[test]
fn corrupted_files_are_not_renamed() {
    // Content is lost, the hash differs, the archive is not unpacked, renaming fails.
    for (way, first, says) in [
        (SHELL, "put() { dd bs=$1 count=1 iflag=fullblock >/dev/null 2>&1; }\n", "hash differs"),
        (SHELL, "sum() { h=0; }\n", "hash differs"),
        (
            TAR,
            "tar() { cat >/dev/null; echo tar: No space left on device >&2; return 1; }\n",
            "No space left",
        ),
        (TAR, "mv() { echo mv: Read-only file system >&2; return 1; }\n", "Read-only file system as uid"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("there")).unwrap();
        fs::write(at("a"), "new").unwrap();
        fs::write(at("b"), "more").unwrap();
        fs::write(at("there/b"), "old").unwrap();
        let far = Side::There(Far { first, ..Far::by(way) });
        let (tally, seen) =
            copy(&Side::Here, &far, &send(&[&at("a"), &at("b")]), &receive(&at("there"))).unwrap();
        assert_eq!((tally.failed, tally.written), (2, 0), "{first}");
        let (fate, note) = seen.fate("a");
        assert!(fate == Fate::Failed && note.contains(says), "{first}: {note}");
        assert!(!at("there/a").exists() && left(&at("there")).is_empty());
        assert_eq!(fs::read(at("there/b")).unwrap(), b"old");
    }
    // The other direction.
    for way in [SHELL, TAR] {
        let first = "S=lie; lie() { echo 0; }\n";
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "new").unwrap();
        let far = Side::There(Far { first, ..Far::by(way) });
        let (tally, seen) = copy(&far, &Side::Here, &send(&[&at("a")]), &receive(&at("b"))).unwrap();
        assert_eq!((tally.failed, seen.fate("a").0), (1, Fate::Failed));
        assert!(seen.fate("a").1.contains("hash differs") && !at("b").exists());
    }
}

#[test]
fn partial_files_are_resumed_and_not_sent_again() {
    const MIB: usize = 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let content = random(20 * MIB + 5);
    fs::write(at("big"), &content).unwrap();
    // Two blocks and a part of the third are valid.
    fs::write(at(".there.postern-partial"), &content[..18 * MIB]).unwrap();
    let far = Far::by(SHELL);
    let (tally, _) =
        copy(&Side::Here, &Side::There(far.clone()), &send(&[&at("big")]), &receive(&at("there"))).unwrap();
    let sent = usize::try_from(far.sent.load(Ordering::Relaxed)).unwrap();
    assert!(tally.written == 1 && sent < 5 * MIB, "{sent}");
    // Compared content is not counted as sent.
    assert!(tally.sent.abs_diff(sent as u64) < 10_000, "{} of {sent}", tally.sent);
    assert!(fs::read(at("there")).unwrap() == content && left(folder.path()).is_empty());
    // A partial file that differs from its second block on is not mixed with new content.
    let mut other = content[..18 * MIB].to_vec();
    other[9 * MIB] ^= 1;
    fs::write(at(".again.postern-partial"), &other).unwrap();
    copy(&Side::Here, &Side::There(far), &send(&[&at("big")]), &receive(&at("again"))).unwrap();
    assert!(fs::read(at("again")).unwrap() == content);
    // The same size and time with other content: equal blocks are reused.
    let mut changed = content.clone();
    changed[17 * MIB] ^= 1;
    fs::write(at("again"), &changed).unwrap();
    let time = fs::metadata(at("big")).unwrap().modified().unwrap();
    fs::File::options().write(true).open(at("again")).unwrap().set_modified(time).unwrap();
    let far = Far::by(TAR);
    let (tally, _) =
        copy(&Side::Here, &Side::There(far.clone()), &send(&[&at("big")]), &receive(&at("again"))).unwrap();
    let sent = usize::try_from(far.sent.load(Ordering::Relaxed)).unwrap();
    assert!(tally.written == 1 && sent < 5 * MIB, "{sent}");
    // Compared content is not counted as sent.
    assert!(tally.sent.abs_diff(sent as u64) < 10_000, "{} of {sent}", tally.sent);
    assert!(fs::read(at("again")).unwrap() == content);
}

#[test]
fn resumed_reads_skip_what_was_read() {
    const MIB: u64 = 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let content = random(30_000_000);
    fs::write(at("big"), &content).unwrap();
    let cut = Far { first: "get() { dd bs=65536 count=300 2>/dev/null <\"$a\"; exit; }\n", ..Far::by(SHELL) };
    let (asked, into) = (send(&[&at("big")]), receive(&at("here")));
    let lost = copy(&Side::There(cut.clone()), &Side::Here, &asked, &into).err().unwrap();
    assert_eq!(lost, "lost: the shell ended");
    assert!(!at("here").exists() && left(folder.path()).len() == 1);
    let again = Far { first: "", came: Arc::default(), ..cut.clone() };
    let (tally, _) = copy(&Side::There(again.clone()), &Side::Here, &asked, &into).unwrap();
    let came = again.came.load(Ordering::Relaxed);
    assert!(tally.written == 1 && came < 30_000_000 - 18 * MIB, "{came}");
    assert!(fs::read(at("here")).unwrap() == content);
    // Another client has no marks, and reads everything.
    fs::remove_file(at("here")).unwrap();
    copy(&Side::There(cut), &Side::Here, &asked, &into).err().unwrap();
    let fresh = Far::by(SHELL);
    copy(&Side::There(fresh.clone()), &Side::Here, &asked, &into).unwrap();
    assert!(fresh.came.load(Ordering::Relaxed) > 30_000_000);
    assert!(fs::read(at("here")).unwrap() == content);
}

#[test]
fn nothing_is_written_through_a_symlink_in_the_destination() {
    for way in [SHELL, TAR] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("tree/d")).unwrap();
        fs::create_dir(at("outside")).unwrap();
        fs::create_dir(at("there")).unwrap();
        fs::write(at("tree/d/file"), "x").unwrap();
        fs::write(at("tree/plain"), "x").unwrap();
        fs::write(at("outside/victim"), "mine").unwrap();
        symlink(at("outside"), at("there/d")).unwrap();
        symlink(at("outside/victim"), at("there/plain")).unwrap();
        symlink(at("outside/victim"), at("there/.plain.postern-partial")).unwrap();
        symlink("../../outside", at("tree/up")).unwrap();
        let far = Side::There(Far::by(way));
        let (tally, seen) =
            copy(&Side::Here, &far, &send(&[&at("tree").join(".")]), &receive(&at("there"))).unwrap();
        assert_eq!((tally.failed, tally.refused, tally.written), (2, 1, 1), "{:?}", seen.done);
        assert_eq!(seen.fate("d"), (Fate::Failed, "the existing entry is not a directory"));
        assert_eq!(fs::read_dir(at("outside")).unwrap().count(), 1);
        assert_eq!(fs::read(at("outside/victim")).unwrap(), b"mine");
        assert_eq!(fs::read(at("there/plain")).unwrap(), b"x");
    }
}

#[test]
fn hostile_names_from_a_container_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("tree")).unwrap();
    fs::create_dir(at("into")).unwrap();
    let record = "printf '%s %s|%s/\\n' $N '81a4 1 0 0 0 1970-01-01 00:00:00.0 +0000|1:2 1 8 0 0'";
    let lie: &'static str = Box::leak(
        format!(
            "list() {{ {record} 'x/..'; {record} 'x/.'; {record} 'x/'; {record} 'x/ok'; e=; end ok; }}\n"
        )
        .into_boxed_str(),
    );
    for way in [SHELL, TAR] {
        let far = Side::There(Far { first: lie, ..Far::by(way) });
        let (tally, seen) = copy(&far, &Side::Here, &send(&[&at("tree")]), &receive(&at("into"))).unwrap();
        // None of the four counts as an existing file either.
        assert_eq!((tally.failed, tally.written), (4, 0), "{:?}", seen.done);
        assert_eq!(fs::read_dir(at("into/tree")).unwrap().count(), 0);
    }
    // An unexpected answer ends the connection and is not treated as a file.
    let far = Side::There(Far { first: "look() { echo odd; }\n", ..Far::by(SHELL) });
    let why = copy(&far, &Side::Here, &send(&[&at("tree")]), &receive(&at("into"))).err().unwrap();
    assert!(why.contains("unexpected answer of the shell: odd"), "{why}");
}

#[test]
fn sync_updates_deletes_and_keeps_as_requested() {
    for shell in shells() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("site/sub")).unwrap();
        fs::write(at("site/one"), "one").unwrap();
        fs::write(at("site/sub/two"), "two").unwrap();
        let asked = SendSpec { contents: true, glob: false, ..send(&[&at("site")]) };
        let plain = ReceiveSpec { parents: true, compare: Compare::Times, ..receive(&at("new/there")) };
        let far = || Side::There(Far::new(&shell, SHELL));
        copy(&Side::Here, &far(), &asked, &plain).unwrap();
        fs::write(at("new/there/sub/extra"), "x").unwrap();
        fs::create_dir_all(at("new/there/-gone\n/deep")).unwrap();
        fs::write(at("site/one"), "changed").unwrap();
        let delete = ReceiveSpec { delete: Delete::Extra, ..plain.clone() };
        let dry = ReceiveSpec { dry_run: true, ..delete.clone() };
        let (tally, seen) = copy(&Side::Here, &far(), &asked, &dry).unwrap();
        assert_eq!((tally.planned, tally.deleted, tally.unchanged), (1, 2, 1), "{:?}", seen.done);
        assert!(at("new/there/sub/extra").exists());
        let (tally, seen) = copy(&Side::Here, &far(), &asked, &delete).unwrap();
        assert_eq!((tally.written, tally.deleted, tally.unchanged), (1, 2, 1), "{:?}", seen.done);
        assert_eq!(fs::read(at("new/there/one")).unwrap(), b"changed");
        assert!(!at("new/there/sub/extra").exists() && !at("new/there/-gone\n").exists());
        let checked = ReceiveSpec { compare: Compare::Hash, ..plain.clone() };
        let (tally, _) = copy(&Side::Here, &far(), &asked, &checked).unwrap();
        assert_eq!((tally.same, tally.written), (2, 0));
        // With `--preserve`, a kept file gets the requested mode.
        for (bits, compare, fate) in [(0o751, Compare::Times, "unchanged"), (0o715, Compare::Hash, "same")] {
            fs::set_permissions(at("site/one"), fs::Permissions::from_mode(bits)).unwrap();
            copy(&Side::Here, &far(), &asked, &ReceiveSpec { compare, ..plain.clone() }).unwrap();
            assert_ne!(fs::metadata(at("new/there/one")).unwrap().mode() & 0o7777, bits);
            let kept = ReceiveSpec { compare, preserve: true, ..plain.clone() };
            let (tally, seen) = copy(&Side::Here, &far(), &asked, &kept).unwrap();
            assert_eq!((tally.unchanged + tally.same, tally.written), (2, 0), "{fate}: {:?}", seen.done);
            assert_eq!(fs::metadata(at("new/there/one")).unwrap().mode() & 0o7777, bits, "{fate}");
        }
        // The other direction: newer files here are kept, and wildcards are expanded there.
        let newer = ReceiveSpec { update: true, ..receive(&at("here")) };
        fs::create_dir(at("here")).unwrap();
        fs::write(at("here/one"), "mine, and newer").unwrap();
        let globbed = send(&[&at("new/there/**/[ot]*")]);
        let (tally, _) = copy(&far(), &Side::Here, &globbed, &newer).unwrap();
        assert_eq!((tally.skipped, tally.written), (1, 1));
        let none = copy(&far(), &Side::Here, &send(&[&at("new/*.none")]), &newer).err().unwrap();
        assert!(none.starts_with("nothing matches ") && none.ends_with("*.none"), "{none}");
        let none = copy(&far(), &Side::Here, &send(&[&at("none")]), &newer).err().unwrap();
        assert!(none.ends_with("/none: No such file or directory"), "{none}");
    }
}

#[test]
fn a_lost_connection_leaves_only_resumable_files() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (size, tar, stays) in [(1_000_000, false, false), (20_000_000, false, true), (1_000, true, false)] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let content = random(size);
        runtime.block_on(async {
            let far =
                Far { first: "place() { sleep 100; }\n", ..Far::by(TransferMode { tar, verify: true }) };
            let request = CopyRequest::Receive(receive(&at("there")));
            let mut destination = far.open(&request).await;
            let frames = frames(&content, size as u64);
            destination.to.send(&frames).await.unwrap();
            if !tar {
                // An archive is not sent before it is complete.
                let large =
                    |name: &OsString| fs::metadata(folder.path().join(name)).is_ok_and(|m| m.len() > 200_000);
                let arrived = || left(folder.path()).iter().any(large);
                until("some of it has arrived", arrived).await;
            }
            destination.close().await;
            let expected = if stays { vec![OsString::from(".there.postern-partial")] } else { Vec::new() };
            until("what is of use stays, and no more", || left(folder.path()) == expected).await;
        });
        assert!(!at("there").exists());
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect(what);
}

/// A file that begins and never ends.
fn frames(content: &[u8], size: u64) -> Vec<u8> {
    use postern_wire::copy::{Entry, FromSource, Kind, Stamp};
    let mut out = Vec::new();
    FromSource::Begin(1).encode(&mut out);
    let entry = Entry {
        id: 0,
        path: b"there".to_vec(),
        kind: Kind::File(size + 1),
        stamp: Stamp::default(),
        xattrs: Vec::new(),
        settled: false,
    };
    FromSource::Entry(Box::new(entry)).encode(&mut out);
    FromSource::From { id: 0, offset: 0 }.encode(&mut out);
    for block in content.chunks(100_000) {
        FromSource::Data(block).encode(&mut out);
    }
    out
}
