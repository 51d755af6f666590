use super::*;
use crate::Decoder;

fn entry(kind: Kind) -> FromSource<'static> {
    FromSource::Entry(Box::new(Entry {
        id: 7,
        path: b"a/\xff b".to_vec(),
        kind,
        stamp: Stamp { mode: 0o4755, user: 1, group: 2, seconds: -3, nanos: 999_999_999 },
        xattrs: vec![(b"user.a".to_vec(), vec![0, 1])],
        settled: true,
    }))
}

fn from_source() -> Vec<FromSource<'static>> {
    vec![
        FromSource::Begin(3),
        entry(Kind::File(u64::MAX)),
        entry(Kind::Directory),
        entry(Kind::Symlink(b"../x".to_vec())),
        entry(Kind::HardLink(b"a/b".to_vec())),
        entry(Kind::Fifo),
        entry(Kind::Device { block: true, major: 8, minor: 1 }),
        FromSource::Fault { path: b"a", message: "why".to_owned() },
        FromSource::DirectoryEnd(b""),
        FromSource::End,
        FromSource::From { id: 1, offset: 1 << 40 },
        FromSource::Data(b"bytes"),
        FromSource::Compressed { length: 9, bytes: b"fewer" },
        FromSource::Hole(5),
        FromSource::Reuse { offset: 1, length: 2 },
        FromSource::Cut(3),
        FromSource::FileEnd { id: 1, hash: [4; 32] },
        FromSource::FileFault { id: 1, message: "changed".to_owned() },
        FromSource::Fatal("no".to_owned()),
        FromSource::Heartbeat,
        FromSource::Ping,
    ]
}

fn from_destination() -> Vec<FromDestination<'static>> {
    vec![
        FromDestination::Target { directory: b"/d", name: Some(b"n") },
        FromDestination::Target { directory: b"/d", name: None },
        FromDestination::Want(Want { id: 1, have: 2, hash: [3; 32], partial: true, known: Known::Chunks }),
        FromDestination::Hashing(7),
        FromDestination::Blocks(&[2; 64]),
        FromDestination::Chunks(&[1; 40]),
        FromDestination::EntryResult(EntryResult {
            id: 1,
            fate: Fate::Refused,
            hash: [0; 32],
            note: "x".to_owned(),
        }),
        FromDestination::Deleted(b"gone"),
        FromDestination::NotDeleted { path: b"kept", message: "busy".to_owned() },
        FromDestination::Finished,
        FromDestination::Fatal("no".to_owned()),
        FromDestination::Heartbeat,
        FromDestination::Pong,
        FromDestination::Stop(9),
    ]
}

fn frame(bytes: &[u8]) -> (u8, Vec<u8>) {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    let (kind, payload) = decoder.next_frame().unwrap().unwrap();
    (kind, payload.to_vec())
}

#[test]
fn source_frames_round_trip_and_truncated_ones_fail() {
    for want in from_source() {
        let mut bytes = Vec::new();
        want.encode(&mut bytes);
        let (kind, payload) = frame(&bytes);
        assert_eq!(FromSource::decode(kind, &payload).unwrap(), want);
        let free = matches!(want, FromSource::Data(_) | FromSource::Compressed { .. });
        assert!(free || (0..payload.len()).all(|end| FromSource::decode(kind, &payload[..end]).is_err()));
        assert!(FromDestination::decode(kind, &payload).is_err(), "the directions have no kind in common");
    }
}

#[test]
fn destination_frames_round_trip_and_truncated_ones_fail() {
    for want in from_destination() {
        let mut bytes = Vec::new();
        want.encode(&mut bytes);
        let (kind, payload) = frame(&bytes);
        assert_eq!(FromDestination::decode(kind, &payload).unwrap(), want);
        let free = matches!(want, FromDestination::Chunks(_) | FromDestination::Blocks(_));
        assert!(
            free || (0..payload.len()).all(|end| FromDestination::decode(kind, &payload[..end]).is_err())
        );
        assert!(FromSource::decode(kind, &payload).is_err());
    }
}
