use super::*;
use crate::exec::ExecEnd;
use crate::spdy::{RST_STREAM, SYN_REPLY};
use bytes::BufMut as _;
use std::time::Duration;
use tokio::io::{DuplexStream, duplex};

fn frame(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    control(&mut out, kind, payload);
    out.to_vec()
}

fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    crate::spdy::data(&mut out, stream, 0, bytes);
    out.to_vec()
}

fn reply(stream: u32) -> Vec<u8> {
    frame(SYN_REPLY, &[stream.to_be_bytes().as_slice(), &[0; 4]].concat())
}

/// Open streams: status 1, stdin 3, stdout 5, stderr 7.
async fn opened(room: usize) -> (Reader<DuplexStream>, Writer<DuplexStream>, DuplexStream) {
    let (ours, mut theirs) = duplex(room);
    let server = async {
        let mut asked = vec![0; streams(true, false).2.len()];
        theirs.read_exact(&mut asked).await.unwrap();
        for stream in [1, 3, 5, 7] {
            theirs.write_all(&reply(stream)).await.unwrap();
        }
    };
    let (made, ()) = tokio::join!(open(ours, true, false), server);
    let (reader, writer) = made.unwrap();
    (reader, writer, theirs)
}

async fn all(reader: &mut Reader<DuplexStream>) -> Result<Vec<ExecEvent>, StreamBroke> {
    let mut events: Vec<ExecEvent> = Vec::new();
    while let Some(event) = reader.next().await? {
        events.push(event);
    }
    Ok(events)
}

#[test]
fn streams_are_asked_for_as_the_far_side_reads_them() {
    let (numbers, count, out) = streams(true, true);
    assert_eq!(numbers, Numbers { status: 1, stdin: 3, stdout: 5, stderr: 0, resize: 7 });
    assert_eq!(count, 4);
    let mut rest = &out[..];
    let mut names = Vec::new();
    for number in [1, 3, 5, 7_u8] {
        assert_eq!(rest[..4], [0x80, 3, 0, 1]);
        let length = usize::from(rest[7]);
        let (payload, next) = rest[8..].split_at(length);
        assert_eq!(payload[..10], [0, 0, 0, number, 0, 0, 0, 0, 0, 0]);
        let block = payload[10..].strip_prefix(&ZLIB).unwrap_or(&payload[10..]);
        assert_eq!(block.len() == payload.len() - 10, number > 1, "only the first begins the stream");
        let pairs = block[5..].strip_suffix(&SYNC).unwrap();
        assert_eq!(u16::from_le_bytes([block[1], block[2]]), u16::try_from(pairs.len()).unwrap());
        assert_eq!(u16::from_le_bytes([block[3], block[4]]), !u16::try_from(pairs.len()).unwrap());
        assert_eq!(pairs[..18], *b"\0\0\0\x01\0\0\0\x0astreamtype");
        names.push(String::from_utf8_lossy(&pairs[22..]).into_owned());
        rest = next;
    }
    assert_eq!((names.join(" ").as_str(), rest.len()), ("error stdin stdout resize", 0));
    assert_eq!(streams(false, false).0, Numbers { status: 1, stdin: 0, stdout: 3, stderr: 5, resize: 0 });
}

#[tokio::test]
async fn events_come_however_the_bytes_are_cut() {
    let status = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
    let said = [
        data(5, b"out"),
        frame(PING, &2_u32.to_be_bytes()),
        data(7, b"err"),
        data(5, b""),
        frame(9, &[0; 8]),
        data(9, b"of no stream of ours"),
        frame(PING, &1_u32.to_be_bytes()),
        frame(RST_STREAM, &[0, 0, 0, 3, 0, 0, 0, 5]),
        data(1, &status[..20]),
        data(1, &status[20..]),
        frame(7, &[0; 8]),
    ]
    .concat();
    for size in [1, 7, 4096] {
        let (mut reader, mut writer, mut theirs) = opened(64 * 1024).await;
        for piece in said.chunks(size) {
            theirs.write_all(piece).await.unwrap();
        }
        theirs.shutdown().await.unwrap();
        let (mut out, mut err, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for event in all(&mut reader).await.unwrap() {
            match event {
                ExecEvent::Stdout(bytes) => out.extend_from_slice(&bytes),
                ExecEvent::Stderr(bytes) => err.extend_from_slice(&bytes),
                other => rest.push(other),
            }
        }
        assert_eq!((out.as_slice(), err.as_slice()), (b"out".as_slice(), b"err".as_slice()));
        assert_eq!(rest, [ExecEvent::Alive, ExecEvent::End(ExecEnd::Exited(7))]);
        writer.stdin(b"x").await.unwrap();
        writer.end_stdin().await.unwrap();
        let mut heard = Vec::new();
        let wanted =
            [data(3, b"x"), frame(PING, &2_u32.to_be_bytes()), vec![0, 0, 0, 3, FIN, 0, 0, 0]].concat();
        heard.resize(wanted.len(), 0);
        theirs.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, wanted);
    }
}

#[tokio::test]
async fn a_stream_that_was_given_up_in_the_middle_of_a_frame_goes_on_there() {
    let (_reader, mut writer, mut theirs) = opened(1024).await;
    let first = vec![1; 3 * FRAME + 5];
    let late = tokio::time::timeout(Duration::from_millis(10), writer.stdin(&first)).await;
    assert!(late.is_err(), "nobody reads");
    let wanted: Vec<u8> =
        first.chunks(FRAME).flat_map(|piece| data(3, piece)).chain(data(3, b"next")).collect();
    let mut heard = vec![0; wanted.len()];
    let (sent, read) = tokio::join!(writer.stdin(b"next"), theirs.read_exact(&mut heard));
    sent.unwrap();
    read.unwrap();
    assert!(heard == wanted);
}

#[tokio::test]
async fn what_does_not_speak_it_has_started_nothing() {
    for said in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let (ours, mut theirs) = duplex(64 * 1024);
        theirs.write_all(said).await.unwrap();
        theirs.shutdown().await.unwrap();
        assert!(matches!(open(ours, true, false).await, Err(OpenError::Unknown)));
    }
    let (ours, mut theirs) = duplex(64 * 1024);
    theirs.write_all(&reply(1)).await.unwrap();
    theirs.shutdown().await.unwrap();
    assert!(matches!(open(ours, true, false).await, Err(OpenError::Broke(_))));
}

#[tokio::test]
async fn what_does_not_keep_to_the_protocol_is_an_error() {
    for said in [
        frame(RST_STREAM, &[0, 0, 0, 5, 0, 0, 0, 5]),
        vec![0x80, 2, 0, 1, 0, 0, 0, 0],
        vec![0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
        data(1, b"no status"),
        data(1, &vec![b' '; LONGEST + 1]),
        data(5, b"cut")[..9].to_vec(),
    ] {
        let (mut reader, _writer, mut theirs) = opened(256 * 1024).await;
        theirs.write_all(&said).await.unwrap();
        theirs.shutdown().await.unwrap();
        assert!(all(&mut reader).await.is_err(), "{said:?}");
    }
}

#[test]
fn no_bytes_are_too_odd_to_be_read() {
    let mut state = 1_u64;
    for _ in 0..20_000 {
        let mut frames = Frames::default();
        for _ in 0..60 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Mostly bytes that occur in headers.
            let byte =
                [0, 0, 0, 1, 3, 5, 6, 0x80, state.to_be_bytes()[1]][usize::from(state.to_be_bytes()[0]) % 9];
            frames.buffer.put_u8(byte);
        }
        let all = frames.buffer.len();
        let mut given = 0;
        while let Ok(Some(piece)) = frames.next_piece() {
            if let Piece::Data(_, bytes) = piece {
                given += bytes.len();
            }
        }
        assert!(given <= all);
    }
}
