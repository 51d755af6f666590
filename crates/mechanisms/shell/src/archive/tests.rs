use super::*;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

fn all(bytes: &[u8], piece: usize) -> Result<Vec<Part>, ArchiveError> {
    let (mut reader, mut parts) = (Reader::default(), Vec::<Part>::new());
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        while let Some(part) = reader.next_part()? {
            match (parts.last_mut(), part) {
                (Some(Part::Data(before)), Part::Data(more)) => {
                    *before = [&before[..], &more[..]].concat().into();
                }
                (_, part) => parts.push(part),
            }
        }
    }
    assert_eq!(reader.is_whole(), parts.last() == Some(&Part::End));
    Ok(parts)
}

fn archive() -> Vec<u8> {
    let stamp = Stamp { mode: 0, user: 0, group: 0, seconds: 1_000_000_000, nanos: 5 };
    let mut archive = Vec::new();
    put(&mut archive, b"a", 0o640, stamp, b"content");
    put(&mut archive, &[b'n'; 255], 0o640, stamp, &[7; 1_024]);
    put(&mut archive, b"empty\n\xff", 0o640, stamp, b"");
    end(&mut archive);
    archive
}

#[test]
fn archives_round_trip_however_they_are_split() {
    let long = [&b"./"[..], &[b'n'; 255]].concat();
    let file = |name: &[u8], size| Part::File { name: name.to_vec(), size };
    let want = vec![
        file(b"./a", 7),
        Part::Data(Bytes::from_static(b"content")),
        file(&long, 1_024),
        Part::Data(vec![7; 1_024].into()),
        file(b"./empty\n\xff", 0),
        Part::End,
    ];
    for piece in [1, 7, 511, 512, 513, 100_000] {
        assert_eq!(all(&archive(), piece).unwrap(), want, "{piece}");
    }
}

#[test]
fn archives_are_compatible_with_tar() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("tar")
        .args(["-xpof", "-"])
        .current_dir(folder.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &archive()).unwrap();
    assert!(child.wait().unwrap().success());
    let meta = std::fs::metadata(folder.path().join("a")).unwrap();
    assert_eq!(
        (meta.mtime(), meta.mtime_nsec(), meta.permissions().mode() & 0o777),
        (1_000_000_000, 5, 0o640)
    );
    assert_eq!(std::fs::read(folder.path().join("n".repeat(255))).unwrap(), [7; 1_024]);
    for format in ["gnu", "posix", "ustar"] {
        let name = if format == "ustar" { "n".repeat(90) } else { "n".repeat(255) };
        std::fs::write(folder.path().join(&name), [7; 1_000]).unwrap();
        let output = std::process::Command::new("tar")
            .args([&format!("--format={format}"), "-cf", "-", "a", &name])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let parts = all(&output.stdout, 1_000).unwrap();
        assert_eq!(parts.len(), 5, "{format}: {parts:?}");
        assert_eq!(parts[2], Part::File { name: name.into_bytes(), size: 1_000 }, "{format}");
    }
}

#[test]
fn a_hostile_archive_fails_or_is_truncated_and_not_buffered() {
    let good = archive();
    // Truncated anywhere, it has no end.
    for cut in (0..good.len() - 20 * BLOCK).step_by(97) {
        let parts = all(&good[..cut], 4_096).unwrap();
        assert_ne!(parts.last(), Some(&Part::End), "{cut}");
    }
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bad = good[1_024..].to_vec(); // the file's own header
        change(&mut bad);
        bad[148..156].copy_from_slice(b"        ");
        let sum: u32 = bad[..512].iter().map(|byte| u32::from(*byte)).sum();
        bad[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        all(&bad, 4_096)
    };
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    assert_eq!(all(&flipped, 512), Err(ArchiveError::Checksum));
    assert_eq!(with(&|bad| bad[124] = b'9'), Err(ArchiveError::Number));
    assert_eq!(with(&|bad| bad[124..136].fill(0xff)), Err(ArchiveError::Number));
    assert_eq!(with(&|bad| bad[156] = b'S'), Err(ArchiveError::Sparse));
    let huge = |bad: &mut Vec<u8>| {
        bad[156] = b'L';
        bad[124..136].copy_from_slice(b"77777777777\0");
    };
    assert_eq!(with(&huge), Err(ArchiveError::Long));
    // An endless file is announced by its size and returned as it arrives.
    let endless =
        |bad: &mut Vec<u8>| bad[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0]);
    let parts = with(&endless).unwrap();
    assert_eq!(parts[0], Part::File { name: b"./a".to_vec(), size: 0x7f00_0000_0000_0000 });
    let mut behind = good.clone();
    behind.extend_from_slice(&good);
    assert_eq!(all(&behind, good.len()), Err(ArchiveError::Behind));
    let pax = |text: &[u8]| {
        let mut bad = Vec::new();
        header(&mut bad, b"x", 0, 0, text.len(), b'x');
        fill(&mut bad, text);
        all(&bad, 512)
    };
    for odd in
        [&b"5 a"[..], b"999 a=b\n", b"0 a=b\n", b"x", b"6 a=bc", b"18446744073709551616 a=b\n", b"6 ab\n\n"]
    {
        assert_eq!(pax(odd), Err(ArchiveError::Extended), "{odd:?}");
    }
    assert_eq!(pax(b"22 GNU.sparse.major=1\n"), Err(ArchiveError::Sparse));
    assert_eq!(pax(b"11 size=-1\n"), Err(ArchiveError::Number));
}
