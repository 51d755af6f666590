use super::*;
use crate::Decoder;

fn request() -> Request {
    Request {
        argv: vec![b"tool".to_vec(), b"\xff not utf-8".to_vec(), Vec::new()],
        env: vec![(b"A".to_vec(), b"1".to_vec())],
        secret_env: vec![(b"KEY".to_vec(), b"s3cret".to_vec())],
        credentials: true,
        login: Some(Login { provider: Some("ibm".to_owned()), attempts: 3, interval_ms: 20_000 }),
        workdir: Some(b"/tmp".to_vec()),
        files: vec![FileSpec { path: b"/tmp/f".to_vec(), size: 3 }],
        stdin: true,
        terminal: Some(TerminalSize { rows: 24, columns: 80 }),
        timeout_ms: 1_000,
        claimed_user: "jo".to_owned(),
    }
}

fn trailer(outcome: Outcome) -> Trailer {
    Trailer {
        outcome,
        stdout_bytes: u64::MAX,
        stderr_bytes: 1,
        stdout_hash: [1; 32],
        stderr_hash: [2; 32],
        left_behind: 3,
    }
}

#[test]
fn frames_to_the_agent_round_trip() {
    let frames = [
        ToAgent::Request(Box::new(request())),
        ToAgent::Request(Box::new(Request { argv: vec![b"x".to_vec()], ..Request::default() })),
        ToAgent::Request(Box::new(Request {
            login: Some(Login { provider: None, attempts: 1, interval_ms: 0 }),
            ..request()
        })),
        ToAgent::File(b"abc"),
        ToAgent::Stdin(b""),
        ToAgent::StdinEnd,
        ToAgent::Signal(15),
        ToAgent::Resize(TerminalSize { rows: 1, columns: u16::MAX }),
        ToAgent::Heartbeat,
        ToAgent::Done,
    ];
    let mut bytes = Vec::new();
    for frame in &frames {
        frame.encode(&mut bytes);
    }
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    for frame in &frames {
        let (kind, payload) = decoder.next_frame().unwrap().unwrap();
        assert_eq!(&ToAgent::decode(kind, payload).unwrap(), frame);
    }
}

#[test]
fn frames_from_the_agent_round_trip() {
    let mut frames = vec![
        FromAgent::Hello(Hello { agent_version: "1.2.3".to_owned() }),
        FromAgent::Started(42),
        FromAgent::Notice("logging in"),
        FromAgent::Stdout(b"out"),
        FromAgent::Stderr(b"err"),
        FromAgent::Window(7),
        FromAgent::Heartbeat,
        FromAgent::Trailer(trailer(Outcome::Exited(3))),
        FromAgent::Trailer(trailer(Outcome::Signaled(9))),
        FromAgent::Trailer(trailer(Outcome::TimedOut)),
    ];
    frames.extend(FAILURES.map(|kind| FromAgent::Failure(Failure { kind, message: "why".to_owned() })));
    let mut bytes = Vec::new();
    for frame in &frames {
        frame.encode(&mut bytes);
    }
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    for frame in &frames {
        let (kind, payload) = decoder.next_frame().unwrap().unwrap();
        assert_eq!(&FromAgent::decode(kind, payload).unwrap(), frame);
    }
}

#[test]
fn a_request_cut_anywhere_is_an_error() {
    let mut bytes = Vec::new();
    put_request(&mut bytes, &request());
    for end in 0..bytes.len() {
        assert!(get_request(&bytes[..end]).is_err(), "cut at {end}");
    }
    bytes.push(0);
    assert_eq!(get_request(&bytes), Err(WireError::Trailing("request", 1)));
}

#[test]
fn a_request_without_a_command_or_with_a_nul_is_refused() {
    for argv in [vec![], vec![Vec::new()], vec![b"a\0b".to_vec()]] {
        let mut bytes = Vec::new();
        put_request(&mut bytes, &Request { argv, ..request() });
        assert!(matches!(get_request(&bytes), Err(WireError::Invalid { .. })));
    }
    let mut bytes = Vec::new();
    put_request(&mut bytes, &Request { env: vec![(b"A=B".to_vec(), Vec::new())], ..request() });
    assert!(get_request(&bytes).is_err());
}

#[test]
fn other_programs_and_other_versions_are_distinguished() {
    let mut hello = b"HTTP\x00\x01".to_vec();
    put_bytes(&mut hello, b"x");
    assert_eq!(FromAgent::decode(64, &hello), Err(WireError::NotAnAgent("HTTP".to_owned())));
    let mut hello = MAGIC.to_vec();
    hello.extend([0, 99]);
    put_bytes(&mut hello, b"x");
    assert_eq!(FromAgent::decode(64, &hello), Err(WireError::Version(99)));
}

#[test]
fn signals_outside_the_range_are_refused() {
    assert!(ToAgent::decode(5, &[0]).is_err());
    assert!(ToAgent::decode(5, &[65]).is_err());
}
