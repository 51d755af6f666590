//! Interrupted copies.

use super::support::{copy, copy_cut, entry, hostile, random, receiving, sending};
use postern_files::link::{Arrived, Descriptor, Incoming as _, Outbox};
use postern_files::policy::STOPPED;
use postern_files::source;
use postern_wire::Decoder;
use postern_wire::copy::{Fate, FromDestination, FromSource, Kind, Known, SendSpec, Want};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

#[test]
fn an_interrupted_copy_resumes_and_resends_little() {
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
    // A partial file of one content is never continued with another.
    let other = folder.path().join("other");
    copy_cut(&spec, &receiving(&other), 20_000_000);
    fs::File::options().write(true).open(&from).unwrap().write_all_at(b"x", 0).unwrap();
    let stale = copy(&spec, &receiving(&other));
    assert_eq!(stale.fate("big"), Fate::Failed, "{stale:?}");
    assert!(stale.fates[&b"big"[..]].1.contains("has changed since") && !other.exists());
}

/// Most files are smaller than the interval of trailers: the received part of an interrupted file is kept,
/// whether it had a name or not.
#[test]
fn an_interrupted_smaller_file_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let (size, cut) = (3_000_000, 2_500_000);
    fs::create_dir_all(&from).unwrap();
    fs::create_dir(&to).unwrap();
    for (name, seed) in [("new", 11), ("replaced", 12)] {
        fs::write(from.join(name), random(size, seed)).unwrap();
        let spec = sending(&[from.join(name)]);
        let place = to.join(name);
        if name == "replaced" {
            fs::write(&place, "old").unwrap();
        }
        let lost = copy_cut(&spec, &receiving(&place), cut);
        assert!(!lost.finished && fs::read(&place).is_ok_and(|now| now == b"old") == (name == "replaced"));
        assert!(to.join(format!(".{name}.postern-partial")).exists());
        let rest = copy(&spec, &receiving(&place));
        assert_eq!(rest.fate(name), Fate::Written);
        assert!(lost.sent + rest.sent < size + 400_000, "{} and {}", lost.sent, rest.sent);
        assert!(fs::read(&place).unwrap() == fs::read(from.join(name)).unwrap());
    }
    // Nothing remains of smaller files.
    fs::write(from.join("small"), random(200_000, 13)).unwrap();
    let small = copy_cut(&sending(&[from.join("small")]), &receiving(&to.join("small")), 150_000);
    assert!(!small.finished);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 2);
}

/// Neither size nor time shows that the content differs. The hash of the whole file does, because the prefix
/// is hashed again.
#[test]
fn a_prefix_of_other_content_is_detected_by_its_hash() {
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
    assert!(failed.fates[&b"big"[..]].1.contains("had other content"), "{failed:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing of it is left");
    assert_eq!(copy(&spec, &receiving(&to)).fate("big"), Fate::Written);
    assert_eq!(fs::read(&to).unwrap(), fs::read(&from).unwrap());
}

/// A destination may claim to have any prefix. The source continues after whole parts only.
#[test]
fn an_impossible_prefix_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("big");
    fs::write(&from, random(1_000_000, 6)).unwrap();
    let spec = sending(std::slice::from_ref(&from));
    for (have, fine) in [(64 * 1024, true), (64 * 1024 + 1, false), (2_000_000, false)] {
        let mut want = Want::all(0);
        (want.have, want.partial, want.known) = (have, true, Known::Prefix);
        let (ended, _) = asked(&spec, &[FromDestination::Want(want), FromDestination::Finished]);
        let hash = *blake3::hash(&fs::read(&from).unwrap()).as_bytes();
        assert_eq!(ended.as_ref().ok(), fine.then_some(&hash), "{have}: {ended:?}");
    }
}

/// Content that the destination stopped is not sent to its end.
#[test]
fn stopped_content_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("big");
    fs::write(&from, random(4_000_000, 6)).unwrap();
    let spec = sending(std::slice::from_ref(&from));
    let want = FromDestination::Want(Want::all(0));
    let (ended, bytes) = asked(&spec, &[FromDestination::Stop(0), want.clone(), FromDestination::Finished]);
    assert_eq!((ended, bytes), (Err(STOPPED.to_owned()), 0));
    let (ended, bytes) = asked(&spec, &[FromDestination::Stop(1), want, FromDestination::Finished]);
    assert!(ended.is_ok() && bytes == 4_000_000, "it was another that was stopped: {ended:?}");
}

/// How a source ends its first file when a destination sends these frames, and the number of content bytes.
fn asked(spec: &SendSpec, frames: &[FromDestination<'_>]) -> (Result<[u8; 32], String>, usize) {
    let mut said = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut said));
    let (reader, mut to_source) = std::io::pipe().unwrap();
    let (from_source, out) = std::io::pipe().unwrap();
    let (mut decoder, mut input) = (Decoder::default(), Descriptor::new(from_source));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            source::send(spec, Descriptor::new(reader), Decoder::default(), &Outbox::new(out), None, || ())
        });
        while decoder.pending().is_empty() {
            input.read(&mut decoder, None).unwrap(); // it has announced its file
        }
        to_source.write_all(&said).unwrap();
        while input.read(&mut decoder, None).unwrap() != Arrived::Ended {}
    });
    let (mut ended, mut bytes) = (None, 0);
    while let Some((kind, payload)) = decoder.next_frame().unwrap() {
        match FromSource::decode(kind, payload).unwrap() {
            FromSource::FileEnd { id: 0, hash } => ended = Some(Ok(hash)),
            FromSource::FileFault { id: 0, message } => ended = Some(Err(message)),
            FromSource::Data(data) => bytes += data.len(),
            _ => {}
        }
    }
    (ended.unwrap(), bytes)
}

/// A source that cannot resume, such as one without an agent, starts over.
#[test]
fn a_source_may_restart_a_partial_file() {
    let folder = tempfile::tempdir().unwrap();
    let spec = receiving(folder.path());
    let bytes: &'static [u8] = Box::leak(random(20_000_000, 9).into_boxed_slice());
    let mut frames = vec![FromSource::Begin(1), entry(0, b"f", Kind::File(20_000_000))];
    frames.push(FromSource::From { id: 0, offset: 0 });
    frames.extend(bytes.chunks(100_000).map(FromSource::Data));
    frames.push(FromSource::FileEnd { id: 0, hash: blake3::hash(bytes).into() });
    frames.push(FromSource::End);
    assert!(!hostile(&spec, &frames[..150]).finished);
    assert!(folder.path().join(".f.postern-partial").exists());
    let report = hostile(&spec, &frames);
    assert_eq!((report.fate("f"), report.finished), (Fate::Written, true));
    assert!(fs::read(folder.path().join("f")).unwrap() == bytes);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn holes_are_kept_in_resumed_files() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("big"), folder.path().join("to"));
    let file = fs::File::create(&from).unwrap();
    file.set_len(64 << 20).unwrap();
    for at in [1 << 20, 30 << 20, 60 << 20] {
        file.write_all_at(&random(3_000_000, 7), at).unwrap();
    }
    let spec = sending(std::slice::from_ref(&from));
    let cut = copy_cut(&spec, &receiving(&to), 5_000_000);
    assert!(!cut.finished && folder.path().join(".to.postern-partial").exists());
    let last = copy(&spec, &receiving(&to));
    assert_eq!(last.fate("big"), Fate::Written);
    assert!(last.sent < 5_000_000, "it was taken up: {}", last.sent);
    assert!(fs::read(&to).unwrap() == fs::read(&from).unwrap());
    assert!(fs::metadata(&to).unwrap().blocks() * 512 < 12_000_000);
}

/// The partial file of a large file neither outlives the small file that replaced it nor blocks the next
/// copy.
#[test]
fn a_small_copy_removes_an_old_partial_file() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir_all(&from).unwrap();
    fs::create_dir_all(&to).unwrap();
    fs::write(from.join("log"), random(20_000_000, 3)).unwrap();
    let spec = SendSpec { contents: true, ..sending(std::slice::from_ref(&from)) };
    copy_cut(&spec, &receiving(&to), 12_000_000);
    assert!(to.join(".log.postern-partial").exists());
    fs::write(from.join("a"), "first, and so without a name").unwrap();
    fs::write(from.join("log"), "rotated").unwrap();
    let report = copy(&spec, &receiving(&to));
    assert_eq!((report.fate("log"), report.fate("a")), (Fate::Written, Fate::Written), "{report:?}");
    assert!(!to.join(".log.postern-partial").exists());
}
