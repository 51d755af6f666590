//! Changed files.

use super::support::{copy, copy_cut, entry, hostile, random, receiving, sending};
use postern_wire::copy::{Compare, Compression, Fate, FromSource, Kind, ReceiveSpec, SendSpec};
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

/// Copies over older content and over nothing; at most `1/limit` of the content may be sent.
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
fn only_changes_are_sent() {
    const FEW: usize = 300_000;
    let old = random(8_000_000, 3);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut new = old.clone();
        change(&mut new);
        new
    };
    // In place: parts at the beginning, across a part boundary, at the end.
    over(&old, &changed(&|new| new[0] ^= 1), FEW);
    over(&old, &changed(&|new| new[1_000_000..1_100_000].fill(7)), FEW);
    over(&old, &changed(&|new| new[7_999_999] ^= 1), FEW);
    over(&old, &changed(&|new| new.extend_from_slice(&[1; 1_000])), FEW);
    over(&old, &changed(&|new| new.truncate(7_000_001)), FEW);
    over(&old, &changed(&|new| new.truncate(64 * 1024 * 100)), FEW);
    over(&old, &changed(&|new| new.extend_from_slice(&random(4_000_000, 4))), 4_000_000 + FEW);
    // Moved: an insertion moves everything after it.
    over(&old, &changed(&|new| drop(new.splice(4_000_000..4_000_000, *b"inserted"))), FEW);
    over(&old, &changed(&|new| drop(new.drain(..1_000_003))), FEW);
    // Unrelated content.
    over(&old, &random(8_000_000, 5), 8_000_000 + FEW);
    over(&[], &old, 8_000_000 + FEW);
    over(&old[..100], &old, 8_000_000 + FEW);
    over(&random(300_000, 6), &random(300_000, 7), 300_000 + FEW);
    // Large enough to get trailers while it is written.
    let large = random(20_000_000, 8);
    let mut other = large.clone();
    other[10_000_000] ^= 1;
    over(&large, &other, FEW);
}

#[test]
fn comparing_hashes_finds_equal_and_changed_files() {
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
fn chunks_are_sent_once() {
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
fn holes_are_kept_in_reused_content() {
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
    // Data at the source where the destination has a hole, and the other way round.
    for same_time in [false, true] {
        make(&to, &[(4 << 20, &one), (20 << 20, &other)]);
        make(&from, &[(4 << 20, &one), (12 << 20, &other)]);
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        for (path, later) in [(&from, 0), (&to, u64::from(!same_time))] {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(then + std::time::Duration::from_secs(later)).unwrap();
        }
        let spec = ReceiveSpec { delta: true, ..receiving(&to) };
        let report = copy(&sending(std::slice::from_ref(&from)), &spec);
        assert_eq!(report.fate("from"), Fate::Written, "{:?}", report.fates);
        assert!(fs::read(&to).unwrap() == fs::read(&from).unwrap());
        assert!(report.sent < 1_300_000, "{}", report.sent);
        let used = fs::metadata(&to).unwrap().blocks() * 512;
        assert!(used < 4 << 20, "{used}, {same_time}");
    }
}

#[test]
fn many_changed_files_are_processed_in_batches() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    for number in 0..40 {
        let old = random(400_000, number);
        fs::write(to.join(format!("{number}")), &old).unwrap();
        // In turn: changed in place, moved, entirely new.
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
fn an_interrupted_delta_keeps_the_old_file() {
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
