//! Hostile ends, and what they cannot do.

use super::support::{content, copy, entry, hostile, receiving, sending};
use postern_files::policy::STOPPED;
use postern_wire::copy::{Fate, FromSource, Kind, SendSpec};
use rustix::fs::{CWD, Mode, OFlags};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

#[test]
fn a_hostile_source_cannot_write_outside_or_exceed_sizes() {
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
    // The link is replaced by the file, not followed, so the hard link to it becomes one of the file.
    assert_eq!(report.fate("hard3"), Fate::Made);
    assert_eq!(fs::read_to_string(to.join("planted-file")).unwrap(), "new");
    assert!(!to.join("planted-file").is_symlink());
    assert_eq!(fs::metadata(to.join("suid")).unwrap().mode() & 0o7777, 0o777);
    assert!(to.join("good").is_symlink());
}

#[test]
fn protocol_violations_end_the_copy_and_leave_nothing() {
    let good = |id| entry(id, b"f", Kind::File(4));
    let from = |id, offset| FromSource::From { id, offset };
    let cases: Vec<(&str, Vec<FromSource<'_>>)> = vec![
        ("content of nothing", vec![FromSource::Data(b"x")]),
        ("content that was not asked for", vec![good(0), from(7, 0)]),
        ("an offset of its own", vec![good(0), from(0, 3)]),
        ("a file in a file", vec![good(0), entry(1, b"g", Kind::File(1)), from(0, 0), from(1, 0)]),
        ("the end of another", vec![good(0), from(0, 0), FromSource::FileEnd { id: 9, hash: [0; 32] }]),
        ("a directory outside", vec![good(0), FromSource::DirectoryEnd(b"../..")]),
        ("a bomb", vec![good(0), from(0, 0), FromSource::Compressed { length: u32::MAX, bytes: b"xx" }]),
    ];
    for (what, frames) in cases {
        let folder = tempfile::tempdir().unwrap();
        let frames = [vec![FromSource::Begin(2)], frames, vec![FromSource::End]].concat();
        let report = hostile(&receiving(folder.path()), &frames);
        assert!(!report.finished, "{what}: {:?}", report.fatal);
        assert!(!folder.path().join("f").exists(), "{what}");
    }
    // Content that differs from the announcement fails its file and no other.
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
fn links_stay_inside_a_renamed_destination() {
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
fn hard_links_to_failed_files_are_not_created() {
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
fn directories_replaced_by_symlinks_are_not_followed() {
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
                    let _ = symlink(&outside, to.join(&name)); // the copy may have been faster
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

/// A full disk is not reported for a file whose end was already sent, as with a small one.
#[test]
fn a_source_is_stopped_once_and_the_destinations_error_is_reported() {
    let bad = FromSource::Reuse { offset: 0, length: 4 }; // refers to a file that does not exist
    for (size, stops) in [(1 << 30, vec![0]), (1 << 10, Vec::new())] {
        let folder = tempfile::tempdir().unwrap();
        let frames = [
            vec![FromSource::Begin(2), entry(0, b"f", Kind::File(size)), entry(1, b"g", Kind::File(2))],
            vec![FromSource::From { id: 0, offset: 0 }, bad.clone(), FromSource::Data(b"more")],
            vec![FromSource::FileFault { id: 0, message: STOPPED.to_owned() }],
            content(1, b"ok").to_vec(),
            vec![FromSource::End],
        ];
        let report = hostile(&receiving(folder.path()), &frames.concat());
        assert_eq!((report.fate("f"), report.fate("g")), (Fate::Failed, Fate::Written));
        assert_eq!(report.stopped, stops, "{size}");
        let why = &report.fates[&b"f"[..]].1;
        assert_eq!(why, "the existing file changed meanwhile");
    }
}
