//! A source and a destination, joined by two pipes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use postern_files::link::{Arrived, Descriptor, Incoming, LinkError, Outbox};
use postern_files::{destination, source};
use postern_wire::Decoder;
use postern_wire::copy::{
    Compare, Compression, Entry, Fate, FromDestination, FromSource, Kind, Known, Limits, Owner, ReceiveSpec,
    SendSpec, Stamp, Want,
};
use rustix::fs::{CWD, Mode, OFlags};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn sending(sources: &[PathBuf]) -> SendSpec {
    SendSpec {
        root: None,
        sources: sources.iter().map(|path| bytes(path)).collect(),
        glob: true,
        contents: false,
        rules: Vec::new(),
        dereference: false,
        compression: Compression::Auto,
        limits: Limits::default(),
    }
}

fn receiving(target: &Path) -> ReceiveSpec {
    ReceiveSpec {
        root: None,
        target: bytes(target),
        directory: false,
        named: false,
        parents: false,
        compare: Compare::Verify,
        delta: false,
        update: false,
        delete: false,
        dry_run: false,
        inplace: false,
        preserve: false,
        owner: Owner::default(),
        unsafe_links: false,
        specials: false,
        clean: false,
        rules: Vec::new(),
        limits: Limits::default(),
    }
}

/// Keeps what passes on its way to a pipe.
struct Tee(std::io::PipeWriter, std::sync::Arc<std::sync::Mutex<Vec<u8>>>, usize);

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.2 == 0 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        let count = self.0.write(&bytes[..bytes.len().min(self.2)])?;
        self.2 -= count;
        self.1.lock().unwrap().extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Report {
    /// What became of each path.
    fates: BTreeMap<Vec<u8>, (Fate, String)>,
    faults: Vec<(Vec<u8>, String)>,
    deleted: Vec<Vec<u8>>,
    fatal: Option<String>,
    finished: bool,
    /// Bytes that the source sent.
    sent: usize,
}

impl Report {
    fn fate(&self, path: &str) -> Fate {
        self.fates.get(path.as_bytes()).unwrap_or_else(|| panic!("{path}: {:?}", self.fatal)).0
    }

    fn count(&self, fate: Fate) -> usize {
        self.fates.values().filter(|(own, _)| *own == fate).count()
    }
}

/// Copies, with the source cut off after so many bytes.
fn copy_cut(from: &SendSpec, to: &ReceiveSpec, cut: usize) -> Report {
    let said = [std::sync::Arc::default(), std::sync::Arc::default()];
    let (to_destination, from_source) = {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader, Tee(writer, std::sync::Arc::clone(&said[0]), cut))
    };
    let (to_source, from_destination) = {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader, Tee(writer, std::sync::Arc::clone(&said[1]), usize::MAX))
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let out = Outbox::new(from_source);
            let input = Descriptor::new(to_source);
            let _ = source::send(from, input, Decoder::default(), &out, None, || ());
        });
        scope.spawn(move || {
            let out = Outbox::new(from_destination);
            let mut input = Descriptor::new(to_destination);
            let _ = destination::receive(to, &mut input, Decoder::default(), &out, None);
        });
    });
    let [from_source, from_destination] = said.map(|said| std::mem::take(&mut *said.lock().unwrap()));
    report(&from_source, &from_destination)
}

fn copy(from: &SendSpec, to: &ReceiveSpec) -> Report {
    copy_cut(from, to, usize::MAX)
}

fn report(from_source: &[u8], from_destination: &[u8]) -> Report {
    let mut report = Report { sent: from_source.len(), ..Report::default() };
    let mut paths = BTreeMap::new();
    let mut decoder = Decoder::default();
    decoder.push(from_source);
    while let Some((kind, payload)) = decoder.next_frame().unwrap() {
        match FromSource::decode(kind, payload).unwrap() {
            FromSource::Entry(entry) => drop(paths.insert(entry.id, entry.path)),
            FromSource::Fault { path, message } => report.faults.push((path.to_vec(), message)),
            FromSource::Fatal(message) => report.fatal = Some(message),
            _ => {}
        }
    }
    let mut decoder = Decoder::default();
    decoder.push(from_destination);
    while let Some((kind, payload)) = decoder.next_frame().unwrap() {
        match FromDestination::decode(kind, payload).unwrap() {
            FromDestination::Settled(settled) => {
                report.fates.insert(paths[&settled.id].clone(), (settled.fate, settled.note));
            }
            FromDestination::Deleted(path) => report.deleted.push(path.to_vec()),
            FromDestination::Fatal(message) => report.fatal = Some(message),
            FromDestination::Finished => report.finished = true,
            _ => {}
        }
    }
    report
}

/// Everything that a copy keeps of a tree, by path.
fn seen(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn walk(root: &Path, path: &Path, seen: &mut BTreeMap<Vec<u8>, String>) {
        let meta = path.symlink_metadata().unwrap();
        let kind = if meta.is_dir() {
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("-> {}", path.read_link().unwrap().display())
        } else {
            format!("{} {}", meta.nlink(), blake3::hash(&fs::read(path).unwrap()).to_hex())
        };
        let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o7777 };
        let text = format!("{mode:o} {}.{} {kind}", meta.mtime(), meta.mtime_nsec());
        seen.insert(bytes(path.strip_prefix(root).unwrap()), text);
        if meta.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                walk(root, &entry.unwrap().path(), seen);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(root, root, &mut all);
    all
}

fn random(count: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// One of each kind that a copy keeps.
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
fn a_tree_of_every_kind_arrives_as_it_was_and_costs_nothing_the_second_time() {
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
    // Again, to the same place: contents, as the directory is there now.
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
fn a_copy_that_is_cut_off_is_taken_up_and_sends_little_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("big"), folder.path().join("to"));
    let size = 60_000_000;
    fs::write(&from, random(size, 2)).unwrap();
    let spec = sending(std::slice::from_ref(&from));
    let mut sent = 0;
    for cut in [9_000_000, 11_000_000, 14_000_000, 9_500_000] {
        let report = copy_cut(&spec, &receiving(&to), cut);
        sent += report.sent;
        assert!(!report.finished && !to.exists());
    }
    let last = copy(&spec, &receiving(&to));
    sent += last.sent;
    assert_eq!((last.fate("big"), last.finished), (Fate::Written, true));
    assert_eq!(fs::read(&to).unwrap(), fs::read(&from).unwrap());
    assert!(sent < size * 11 / 10, "{sent}");
    // Begun from one content and gone on with another: never.
    let other = folder.path().join("other");
    copy_cut(&spec, &receiving(&other), 20_000_000);
    fs::File::options().write(true).open(&from).unwrap().write_all_at(b"x", 0).unwrap();
    let stale = copy(&spec, &receiving(&other));
    assert_eq!(stale.fate("big"), Fate::Failed, "{stale:?}");
    assert!(stale.fates[&b"big"[..]].1.contains("has changed since") && !other.exists());
}

/// Neither size nor time says that it is another content: the hash of the whole does, as the beginning is hashed anew.
#[test]
fn a_beginning_of_another_content_is_found_out_by_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("big"), folder.path().join("to"));
    fs::write(&from, random(20_000_000, 5)).unwrap();
    let spec = sending(std::slice::from_ref(&from));
    copy_cut(&spec, &receiving(&to), 12_000_000);
    let time = fs::metadata(&from).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&from).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.set_modified(time).unwrap();
    let failed = copy(&spec, &receiving(&to));
    assert_eq!(failed.fate("big"), Fate::Failed, "{failed:?}");
    assert!(failed.sent < 15_000_000, "it was gone on from");
    assert!(failed.fates[&b"big"[..]].1.contains("is of another content"), "{failed:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing of it is left");
    assert_eq!(copy(&spec, &receiving(&to)).fate("big"), Fate::Written);
    assert_eq!(fs::read(&to).unwrap(), fs::read(&from).unwrap());
}

/// A destination may say that it has any beginning: it gets what follows whole parts, and nothing after what is none.
#[test]
fn a_beginning_that_cannot_be_is_gone_on_from_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("big");
    fs::write(&from, random(1_000_000, 6)).unwrap();
    let spec = sending(std::slice::from_ref(&from));
    for (have, fine) in [(64 * 1024, true), (64 * 1024 + 1, false), (2_000_000, false)] {
        let (mut want, mut said) = (Want::all(0), Vec::new());
        (want.have, want.partial, want.known) = (have, true, Known::Beginning);
        FromDestination::Want(want).encode(&mut said);
        FromDestination::Finished.encode(&mut said);
        let (reader, mut to_source) = std::io::pipe().unwrap();
        let (from_source, out) = std::io::pipe().unwrap();
        let (mut decoder, mut input) = (Decoder::default(), Descriptor::new(from_source));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                source::send(
                    &spec,
                    Descriptor::new(reader),
                    Decoder::default(),
                    &Outbox::new(out),
                    None,
                    || (),
                )
            });
            while decoder.pending().is_empty() {
                input.read(&mut decoder, None).unwrap(); // it has told of its file
            }
            to_source.write_all(&said).unwrap();
            while input.read(&mut decoder, None).unwrap() != Arrived::Ended {}
        });
        let mut ended = None;
        while let Some((kind, payload)) = decoder.next_frame().unwrap() {
            match FromSource::decode(kind, payload).unwrap() {
                FromSource::FileEnd { id: 0, hash } => ended = Some(Ok(hash)),
                FromSource::FileFault { id: 0, message } => ended = Some(Err(message)),
                _ => {}
            }
        }
        let hash = *blake3::hash(&fs::read(&from).unwrap()).as_bytes();
        assert_eq!(ended.as_ref().unwrap().as_ref().ok(), fine.then_some(&hash), "{have}: {ended:?}");
    }
}

#[test]
fn places_are_found_as_cp_finds_them() {
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
    // A file that is a symlink is written to where it leads.
    symlink("into/f", at("to-f")).unwrap();
    run(&["g"], "to-f");
    assert_eq!(fs::read_to_string(at("into/f")).unwrap(), "g");
    assert!(at("to-f").is_symlink());
    for (sources, target, why) in [
        (&["f", "g"][..], "nowhere", "there is no directory"),
        (&["f", "g"], "new-name", "is no directory"),
        (&["f"], "nowhere/f", "there is no directory"),
        (&["f"], "nowhere/", "there is no directory"),
        (&["d"], "f", "a directory cannot take its place"),
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
fn sync_deletes_what_the_source_has_not_and_nothing_that_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir_all(from.join("keep")).unwrap();
    fs::write(from.join("keep/a"), "a").unwrap();
    fs::write(from.join("skip.log"), "s").unwrap();
    fs::create_dir_all(to.join("gone/deep")).unwrap();
    fs::create_dir_all(to.join("keep")).unwrap();
    for path in ["gone/deep/x", "keep/old", "own.log", ".keep.postern-partial"] {
        fs::write(to.join(path), "x").unwrap();
    }
    let precious = folder.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("x"), "x").unwrap();
    symlink(&precious, to.join("gone/deep/out")).unwrap();
    let rules = vec![postern_wire::copy::Rule { include: false, pattern: b"*.log".to_vec() }];
    let send = SendSpec { contents: true, rules: rules.clone(), ..sending(std::slice::from_ref(&from)) };
    let plan = ReceiveSpec { delete: true, dry_run: true, rules, compare: Compare::Times, ..receiving(&to) };
    let before = seen(&to);
    let planned = copy(&send, &plan);
    assert_eq!(seen(&to), before, "a dry run changes nothing");
    let done = copy(&send, &ReceiveSpec { dry_run: false, ..plan });
    for report in [&planned, &done] {
        let mut deleted = report.deleted.clone();
        deleted.sort();
        assert_eq!(deleted, [b"gone".to_vec(), b"keep/old".to_vec()]);
    }
    assert_eq!((planned.fate("keep/a"), done.fate("keep/a")), (Fate::Planned, Fate::Written));
    assert!(to.join("own.log").exists() && !to.join("skip.log").exists() && !to.join("gone").exists());
    assert!(to.join(".keep.postern-partial").exists() && precious.join("x").exists());
}

/// Copies over an older content, and over nothing; what of it was sent, in parts of the whole, is at most `limit`.
#[track_caller]
fn over(older: &[u8], newer: &[u8], limit: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&to, older).unwrap();
    fs::write(&from, newer).unwrap();
    let spec = ReceiveSpec { delta: true, ..receiving(&to) };
    let report = copy(&sending(std::slice::from_ref(&from)), &spec);
    assert_eq!(report.fate("from"), Fate::Written, "{:?}", report.fates);
    assert!(fs::read(&to).unwrap() == newer);
    assert!(report.sent <= limit, "{} bytes were sent", report.sent);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn what_changed_is_all_that_is_sent_again() {
    const FEW: usize = 300_000;
    let old = random(8_000_000, 3);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut new = old.clone();
        change(&mut new);
        new
    };
    // Where it was: parts at the beginning, across an edge of two, at the end.
    over(&old, &changed(&|new| new[0] ^= 1), FEW);
    over(&old, &changed(&|new| new[1_000_000..1_100_000].fill(7)), FEW);
    over(&old, &changed(&|new| new[7_999_999] ^= 1), FEW);
    over(&old, &changed(&|new| new.extend_from_slice(&[1; 1_000])), FEW);
    over(&old, &changed(&|new| new.truncate(7_000_001)), FEW);
    over(&old, &changed(&|new| new.truncate(64 * 1024 * 100)), FEW);
    over(&old, &changed(&|new| new.extend_from_slice(&random(4_000_000, 4))), 4_000_000 + FEW);
    // Elsewhere: an insertion moves all that follows.
    over(&old, &changed(&|new| drop(new.splice(4_000_000..4_000_000, *b"inserted"))), FEW);
    over(&old, &changed(&|new| drop(new.drain(..1_000_003))), FEW);
    // Nowhere.
    over(&old, &random(8_000_000, 5), 8_000_000 + FEW);
    over(&[], &old, 8_000_000 + FEW);
    over(&old[..100], &old, 8_000_000 + FEW);
    over(&random(300_000, 6), &random(300_000, 7), 300_000 + FEW);
    // Large enough to be noted down on its way.
    let large = random(20_000_000, 8);
    let mut other = large.clone();
    other[10_000_000] ^= 1;
    over(&large, &other, FEW);
}

#[test]
fn a_comparison_by_content_finds_what_is_the_same_and_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let mut content = random(3_000_000, 1);
    fs::write(&to, &content).unwrap();
    fs::write(&from, &content).unwrap();
    let spec = ReceiveSpec { delta: true, compare: Compare::Hash, ..receiving(&to) };
    let send = sending(std::slice::from_ref(&from));
    let same = copy(&send, &spec);
    assert_eq!((same.fate("from"), same.sent < 1_000), (Fate::Same, true), "{}", same.sent);
    let time = fs::metadata(&from).unwrap().modified().unwrap();
    assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), time);
    content[1_500_000] ^= 1;
    fs::write(&from, &content).unwrap();
    fs::File::open(&from).unwrap().set_modified(time).unwrap();
    let other = copy(&send, &spec);
    assert_eq!((other.fate("from"), other.sent < 200_000), (Fate::Written, true), "{}", other.sent);
    assert!(fs::read(&to).unwrap() == content);
}

#[test]
fn chunks_are_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("f"), random(300_000, 1)).unwrap();
    let spec = ReceiveSpec { delta: true, ..receiving(&to) };
    let cut = |frames: &[FromSource<'static>]| {
        let file = entry(0, b"f", Kind::File(400_000));
        hostile(&spec, &[&[FromSource::Begin(1), file], frames].concat())
    };
    let content: &'static [u8] = Box::leak(random(400_000, 2).into_boxed_slice());
    let mut whole = vec![FromSource::Cut(0), FromSource::From { id: 0, offset: 0 }];
    whole.extend(content.chunks(100_000).map(FromSource::Data));
    whole.push(FromSource::FileEnd { id: 0, hash: blake3::hash(content).into() });
    whole.push(FromSource::End);
    assert!(!cut(&[FromSource::Cut(0), FromSource::Cut(0)]).finished);
    assert!(!cut(&[FromSource::Cut(1)]).finished);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1, "what was begun is gone");
    let report = cut(&whole);
    assert!(report.finished && fs::read(to.join("f")).unwrap() == content, "{:?}", report.fates);
}

#[test]
fn holes_stay_holes_where_content_is_used_again() {
    const SIZE: u64 = 32 << 20;
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let make = |path: &Path, data: &[(u64, &[u8])]| {
        let file = fs::File::create(path).unwrap();
        file.set_len(SIZE).unwrap();
        data.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
        file.sync_all().unwrap();
    };
    let (one, other) = (random(1 << 20, 1), random(1 << 20, 2));
    // What is data there is a hole here, and the other way round.
    make(&to, &[(4 << 20, &one), (20 << 20, &other)]);
    make(&from, &[(4 << 20, &one), (12 << 20, &other)]);
    let spec = ReceiveSpec { delta: true, ..receiving(&to) };
    let report = copy(&sending(std::slice::from_ref(&from)), &spec);
    assert_eq!(report.fate("from"), Fate::Written, "{:?}", report.fates);
    assert!(fs::read(&to).unwrap() == fs::read(&from).unwrap());
    assert!(report.sent < 1_300_000, "{}", report.sent);
    assert!(fs::metadata(&to).unwrap().blocks() * 512 < 4 << 20, "{:?}", fs::metadata(&to).unwrap());
}

#[test]
fn many_files_that_changed_are_told_of_a_few_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    for number in 0..40 {
        let old = random(400_000, number);
        fs::write(to.join(format!("{number}")), &old).unwrap();
        // One after the other: in its place, moved, wholly new.
        let new = match number % 3 {
            0 => [&old[..399_999], b"x"].concat(),
            1 => [b"moved", &old[..]].concat(),
            _ => random(400_000, number + 100),
        };
        fs::write(from.join(format!("{number}")), new).unwrap();
    }
    let spec = ReceiveSpec { delta: true, ..receiving(&to) };
    let report = copy(&SendSpec { contents: true, ..sending(std::slice::from_ref(&from)) }, &spec);
    assert_eq!(report.count(Fate::Written), 40, "{:?}", report.fates);
    for number in 0..40 {
        let name = format!("{number}");
        assert!(fs::read(to.join(&name)).unwrap() == fs::read(from.join(&name)).unwrap(), "{name}");
    }
    assert_eq!(fs::read_dir(&to).unwrap().count(), 40);
}

#[test]
fn a_copy_that_began_with_the_older_content_and_was_cut_off_leaves_it() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let (old, mut new) = (random(20_000_000, 1), random(20_000_000, 1));
    new[9_000_000..10_000_000].fill(3);
    fs::write(&to, &old).unwrap();
    fs::write(&from, &new).unwrap();
    let spec = ReceiveSpec { delta: true, ..receiving(&to) };
    let send = SendSpec { compression: Compression::Off, ..sending(std::slice::from_ref(&from)) };
    for cut in [150, 200_000, 900_000] {
        copy_cut(&send, &spec, cut);
        assert!(fs::read(&to).unwrap() == old, "{cut}");
    }
    assert_eq!(copy(&send, &spec).fate("from"), Fate::Written);
    assert!(fs::read(&to).unwrap() == new);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// A source that says what a test makes it say, and hears whatever is answered.
fn hostile(to: &ReceiveSpec, frames: &[FromSource<'_>]) -> Report {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (answers, answering) = std::io::pipe().unwrap();
    let mut said = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut said));
    let spoken = said.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = writer.write_all(&spoken); // it may have heard enough
        });
        scope.spawn(move || {
            let out = Outbox::new(answering);
            let _: Result<(), LinkError> =
                destination::receive(to, &mut Descriptor::new(reader), Decoder::default(), &out, None);
        });
        let mut decoder = Decoder::default();
        let mut answers = Descriptor::new(answers);
        while answers.read(&mut decoder, None).unwrap() != Arrived::Ended {}
        report(&said, decoder.pending())
    })
}

fn entry(id: u32, path: &[u8], kind: Kind) -> FromSource<'static> {
    let stamp = Stamp { mode: 0o6777, user: 0, group: 0, seconds: 1, nanos: 0 };
    FromSource::Entry(Box::new(Entry {
        id,
        path: path.to_vec(),
        kind,
        stamp,
        xattrs: Vec::new(),
        settled: false,
    }))
}

fn content(id: u32, bytes: &'static [u8]) -> [FromSource<'static>; 3] {
    [
        FromSource::From { id, offset: 0 },
        FromSource::Data(bytes),
        FromSource::FileEnd { id, hash: blake3::hash(bytes).into() },
    ]
}

#[test]
fn a_hostile_source_writes_nothing_outside_and_no_more_than_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let (to, outside) = (folder.path().join("to"), folder.path().join("outside"));
    fs::create_dir(&to).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "mine").unwrap();
    symlink(&outside, to.join("planted")).unwrap();
    symlink(outside.join("file"), to.join("planted-file")).unwrap();
    let link = |id, path: &[u8], target: &[u8]| entry(id, path, Kind::Symlink(target.to_vec()));
    // CVE-2018-1002100 (..), CVE-2019-1002101 and CVE-2019-11246, -11249, -11251 (a symlink, then a file through it).
    let mut frames = vec![FromSource::Begin(2)];
    let names: [&[u8]; 9] =
        [b"../up", b"/abs", b"a/../../up", b"a//b", b"a/", b"nul\0", b"planted/new", b".", b"x/./y"];
    for (id, path) in names.iter().enumerate() {
        frames.push(entry(u32::try_from(id).unwrap(), path, Kind::File(1)));
    }
    frames.push(link(20, b"abs-link", b"/etc"));
    frames.push(link(21, b"up-link", b"../outside"));
    frames.push(link(22, b"good", b"planted-not"));
    frames.push(link(23, b"planted/x", b"y"));
    frames.push(entry(24, b"hard", Kind::HardLink(b"planted/file".to_vec())));
    frames.push(entry(25, b"hard2", Kind::HardLink(b"../outside/file".to_vec())));
    frames.push(entry(26, b"hard3", Kind::HardLink(b"planted-file".to_vec())));
    frames.push(entry(27, b"dev", Kind::Device { block: false, major: 1, minor: 3 }));
    frames.push(entry(28, b"planted", Kind::Directory));
    frames.push(entry(29, b"suid", Kind::File(2)));
    frames.push(entry(30, b"suid", Kind::File(2)));
    frames.push(entry(31, b"planted-file", Kind::File(3)));
    frames.extend(content(29, b"hi"));
    frames.extend(content(31, b"new"));
    frames.push(FromSource::End);
    let report = hostile(&receiving(&to), &frames);
    assert!(report.finished, "{report:?}");
    for path in ["../up", "/abs", "a/../../up", "a//b", "a/", "nul\0", "x/./y", "abs-link", "up-link", "dev"]
    {
        assert_eq!(report.fate(path), Fate::Refused, "{path}");
    }
    for path in ["planted/new", "planted/x", "hard", "planted"] {
        assert_eq!(report.fate(path), Fate::Failed, "{path}");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "mine");
    assert_eq!(fs::metadata(outside.join("file")).unwrap().nlink(), 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    // The link is replaced by the file, not followed; so what was to be another name of it is one of the file.
    assert_eq!(report.fate("hard3"), Fate::Made);
    assert_eq!(fs::read_to_string(to.join("planted-file")).unwrap(), "new");
    assert!(!to.join("planted-file").is_symlink());
    assert_eq!(fs::metadata(to.join("suid")).unwrap().mode() & 0o7777, 0o777);
    assert!(to.join("good").is_symlink());
}

#[test]
fn what_a_source_must_not_say_ends_the_copy_and_leaves_nothing() {
    let good = |id| entry(id, b"f", Kind::File(4));
    let from = |id, offset| FromSource::From { id, offset };
    let cases: Vec<(&str, Vec<FromSource<'_>>)> = vec![
        ("content of nothing", vec![FromSource::Data(b"x")]),
        ("content that was not asked for", vec![good(0), from(7, 0)]),
        ("an offset of its own", vec![good(0), from(0, 3)]),
        ("a file in a file", vec![good(0), entry(1, b"g", Kind::File(1)), from(0, 0), from(1, 0)]),
        ("the end of another", vec![good(0), from(0, 0), FromSource::FileEnd { id: 9, hash: [0; 32] }]),
        ("a directory outside", vec![good(0), FromSource::DirectoryEnd(b"../..")]),
        ("a bomb", vec![good(0), from(0, 0), FromSource::Packed { length: u32::MAX, bytes: b"xx" }]),
    ];
    for (what, frames) in cases {
        let folder = tempfile::tempdir().unwrap();
        let frames = [vec![FromSource::Begin(2)], frames, vec![FromSource::End]].concat();
        let report = hostile(&receiving(folder.path()), &frames);
        assert!(!report.finished, "{what}: {:?}", report.fatal);
        assert!(!folder.path().join("f").exists(), "{what}");
    }
    // Content that is not what was announced fails its file, and no other.
    for (what, middle, hash) in [
        ("too much", vec![FromSource::Data(b"hello, you")], blake3::hash(b"hello, you").into()),
        ("too little", vec![FromSource::Data(b"he")], blake3::hash(b"he").into()),
        ("another hash", vec![FromSource::Data(b"hell")], [1; 32]),
        ("a hole too far", vec![FromSource::Hole(u64::MAX)], [1; 32]),
        ("bytes of no file", vec![FromSource::Reuse { offset: 0, length: 4 }], [1; 32]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let begin = vec![FromSource::Begin(2), good(0), entry(1, b"g", Kind::File(2)), from(0, 0)];
        let end = vec![FromSource::FileEnd { id: 0, hash }];
        let frames = [begin, middle, end, content(1, b"ok").to_vec(), vec![FromSource::End]].concat();
        let report = hostile(&receiving(folder.path()), &frames);
        assert_eq!(
            (report.fate("f"), report.fate("g")),
            (Fate::Failed, Fate::Written),
            "{what}: {:?}",
            report.fatal
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{what}");
    }
}

#[test]
fn a_directory_that_is_cut_off_keeps_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).unwrap();
    for number in 0..200 {
        fs::write(from.join(format!("f{number}")), random(20_000, number)).unwrap();
    }
    let spec = sending(std::slice::from_ref(&from));
    assert!(!copy_cut(&spec, &receiving(&to), 2_000_000).finished && to.is_dir());
    // As the client asks once it knows that the first connection made it.
    let second = copy(&spec, &ReceiveSpec { named: true, ..receiving(&to) });
    assert!(second.finished && second.count(Fate::Same) > 20, "{}", second.count(Fate::Same));
    assert!(!to.join("from").exists());
    assert_eq!(fs::read_dir(&to).unwrap().count(), 200);
}

#[test]
fn a_directory_that_was_there_keeps_its_mode() {
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
    // One that the copy makes has the source's.
    fs::set_permissions(&from, fs::Permissions::from_mode(0o750)).unwrap();
    let new = folder.path().join("new");
    assert!(copy(&spec, &ReceiveSpec { parents: true, ..receiving(&new) }).finished);
    assert_eq!(mode(&new), 0o750);
}

#[test]
fn links_stay_inside_of_a_destination_with_a_name_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::create_dir_all(from.join("deep")).unwrap();
    fs::write(folder.path().join("secret"), "x").unwrap();
    symlink("../secret", from.join("out")).unwrap();
    symlink("../in", from.join("deep/in")).unwrap();
    let report = copy(&sending(std::slice::from_ref(&from)), &receiving(&folder.path().join("to")));
    assert_eq!((report.fate("from/out"), report.fate("from/deep/in")), (Fate::Refused, Fate::Made));
}

#[test]
fn another_name_of_a_file_that_failed_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("a"), "old").unwrap();
    let fault = FromSource::FileFault { id: 0, message: "it changed while it was copied".to_owned() };
    let link = entry(1, b"b", Kind::HardLink(b"a".to_vec()));
    let frames = [FromSource::Begin(2), entry(0, b"a", Kind::File(3)), link, fault, FromSource::End];
    let report = hostile(&receiving(&to), &frames);
    assert_eq!((report.fate("a"), report.fate("b")), (Fate::Failed, Fate::Failed));
    assert!(!to.join("b").exists());
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
    copy(
        &sending(std::slice::from_ref(&from)),
        &ReceiveSpec { preserve: true, compare: Compare::Hash, ..receiving(&to) },
    );
    // What is the same is not written, and so not dressed either.
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn directories_that_turn_into_symlinks_meanwhile_lead_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to, outside) =
        (folder.path().join("from"), folder.path().join("to"), folder.path().join("outside"));
    for directory in 0..20 {
        let directory = from.join(format!("d{directory}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..40 {
            fs::write(directory.join(format!("f{file}")), "new").unwrap();
        }
    }
    fs::create_dir(&to).unwrap();
    fs::create_dir(&outside).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let out =
                rustix::fs::openat(CWD, &to, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            for round in 0.. {
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                let name = format!("d{}", round % 20);
                let aside = format!("aside-{round}");
                if rustix::fs::renameat(&out, name.as_str(), &out, aside.as_str()).is_ok() {
                    let _ = symlink(&outside, to.join(&name)); // the copy may have been quicker
                }
            }
        });
        for _ in 0..5 {
            copy(&SendSpec { contents: true, ..sending(std::slice::from_ref(&from)) }, &receiving(&to));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
