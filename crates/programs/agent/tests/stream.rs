//! The stream listener, as seen by operators and by hostile processes: an agent that listens on a port of its
//! own.
//!
//! All connections come from the agent's own user, like those of a hostile process in the pod, so they also
//! have that user's lower limits.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and reads better so")]

use ed25519_dalek::{Signer as _, SigningKey};
use postern_wire::stream::{Challenge, Proof, StreamHello, Verdict, openssh, signed};
use postern_wire::{Decoder, FromAgent, Mux, Outcome, Request, SESSION_CREDIT, ToAgent};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const AUDIENCE: &str = "postern-ops/postern-ops/test";

struct Agent {
    process: Child,
    port: u16,
    keys: tempfile::TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

impl Agent {
    /// Starts the agent; key 1 is authorized.
    fn start() -> Self {
        let keys = tempfile::tempdir().unwrap();
        std::fs::write(keys.path().join("audience"), format!("{AUDIENCE}\n")).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_postern-agent"))
            .args(["serve", "--stream", "0"])
            .arg(keys.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let serving = lines.find_map(|line| Some(line.unwrap().split_once("\"streamPort\":")?.1.to_owned()));
        let port = serving.unwrap().trim_end_matches('}').parse().unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let agent = Self { process, port, keys };
        agent.authorize(&[1]);
        agent
    }

    fn authorize(&self, seeds: &[u8]) {
        let line = |seed: &u8| format!("ssh-ed25519 {} jo\n", openssh(key(*seed).verifying_key().as_bytes()));
        let lines: String = seeds.iter().map(line).collect();
        std::fs::write(self.keys.path().join("authorized_keys"), lines).unwrap();
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn hello(&self, seed: u8) -> (TcpStream, StreamHello, Challenge) {
        // Earlier connections may still occupy the slots.
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let mut stream = self.connect();
            let hello = StreamHello { key: *key(seed).verifying_key().as_bytes(), nonce: [seed; 32] };
            let mut challenge = [0; Challenge::SIZE];
            let answered = stream.write_all(&hello.encode()).and_then(|()| stream.read_exact(&mut challenge));
            match answered {
                Ok(()) => return (stream, hello, Challenge::decode(&challenge).unwrap()),
                Err(_) if Instant::now() < end => {}
                Err(error) => panic!("no challenge: {error}"),
            }
        }
    }

    fn prove(&self, seed: u8, audience: &str) -> (TcpStream, Option<Verdict>) {
        let (mut stream, hello, challenge) = self.hello(seed);
        let proof: Proof = key(seed).sign(&signed(audience, &hello, &challenge)).to_bytes();
        stream.write_all(&proof).unwrap();
        let verdict = verdict(&mut stream);
        (stream, verdict)
    }

    fn open(&self) -> Client {
        let (stream, verdict) = self.prove(1, AUDIENCE);
        assert_eq!(verdict, Some(Verdict::Welcome));
        Client { stream, decoder: Decoder::default(), sessions: HashMap::new() }
    }
}

fn verdict(stream: &mut TcpStream) -> Option<Verdict> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    Verdict::decode(byte[0])
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}: not in time");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[derive(Default)]
struct Session {
    decoder: Decoder,
    stdout: Vec<u8>,
    pid: Option<u32>,
    outcome: Option<Outcome>,
    closed: bool,
}

struct Client {
    stream: TcpStream,
    decoder: Decoder,
    sessions: HashMap<u32, Session>,
}

impl Client {
    fn send(&mut self, message: Mux<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    fn frame(&mut self, id: u32, frame: &ToAgent<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.send(Mux::Data(id, &bytes));
    }

    fn begin(&mut self, id: u32, argv: &[&str]) {
        let argv = argv.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        self.send(Mux::Open(id));
        self.frame(id, &ToAgent::Request(Box::new(Request { argv, ..Request::default() })));
        self.sessions.insert(id, Session::default());
    }

    /// Reads until `done`; sends heartbeats for every session.
    fn until(&mut self, mut done: impl FnMut(&HashMap<u32, Session>) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        self.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        while !done(&self.sessions) {
            assert!(Instant::now() < end, "not in time");
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the agent closed the connection"),
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    for id in self.sessions.keys().copied().collect::<Vec<_>>() {
                        self.frame(id, &ToAgent::Heartbeat);
                    }
                }
                Err(error) => panic!("{error}"),
            }
            while let Some((kind, payload)) = self.decoder.next_frame().unwrap() {
                match Mux::decode(kind, payload).unwrap() {
                    Mux::Data(id, bytes) => take(self.sessions.get_mut(&id).unwrap(), bytes),
                    Mux::Close(id) => self.sessions.entry(id).or_default().closed = true,
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

fn take(session: &mut Session, bytes: &[u8]) {
    session.decoder.push(bytes);
    while let Some((kind, payload)) = session.decoder.next_frame().unwrap() {
        match FromAgent::decode(kind, payload).unwrap() {
            FromAgent::Started(pid) => session.pid = Some(pid),
            FromAgent::Stdout(data) => session.stdout.extend_from_slice(data),
            FromAgent::Trailer(trailer) => session.outcome = Some(trailer.outcome),
            _ => {}
        }
    }
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn a_proved_key_runs_commands_side_by_side_on_one_connection() {
    let agent = Agent::start();
    let mut client = agent.open();
    client.begin(1, &["sh", "-c", "echo one; exit 3"]);
    client.begin(2, &["sh", "-c", "echo two"]);
    client.until(|all| all.values().all(|session| session.outcome.is_some()));
    assert_eq!(client.sessions[&1].stdout, b"one\n");
    assert_eq!(client.sessions[&1].outcome, Some(Outcome::Exited(3)));
    assert_eq!(client.sessions[&2].outcome, Some(Outcome::Exited(0)));
    [1, 2].into_iter().for_each(|id| client.frame(id, &ToAgent::Done));
    client.until(|all| all.values().all(|session| session.closed));
}

#[test]
fn a_session_that_is_not_read_stops_itself_and_no_other() {
    let agent = Agent::start();
    let mut client = agent.open();
    client.begin(1, &["sh", "-c", "yes"]);
    // No credit is granted: it stops within its initial credit.
    client.until(|all| all[&1].stdout.len() > SESSION_CREDIT / 2);
    client.begin(2, &["echo", "through"]);
    client.until(|all| all[&2].outcome.is_some());
    assert_eq!(client.sessions[&2].stdout, b"through\n");
    assert!(client.sessions[&1].stdout.len() <= SESSION_CREDIT);
    let before = client.sessions[&1].stdout.len();
    client.send(Mux::Credit(1, 256 * 1024));
    client.until(|all| all[&1].stdout.len() > before);
}

#[test]
fn a_lost_connection_or_a_closed_session_ends_what_it_started() {
    let agent = Agent::start();
    let mut client = agent.open();
    for id in [1, 2] {
        client.begin(id, &["sleep", "100"]);
    }
    client.until(|all| all.values().all(|session| session.pid.is_some()));
    let pid = |client: &Client, id| client.sessions[&id].pid.unwrap();
    let (first, second) = (pid(&client, 1), pid(&client, 2));
    client.send(Mux::Close(1));
    eventually("the closed session's command ends", || !is_running(first));
    assert!(is_running(second), "the other session goes on");
    drop(client);
    eventually("the lost connection's command ends", || !is_running(second));
}

#[test]
fn another_key_another_audience_and_a_replayed_proof_are_refused() {
    let agent = Agent::start();
    assert_eq!(agent.prove(2, AUDIENCE).1, Some(Verdict::Refused));
    assert_eq!(agent.prove(1, "postern-ops/postern-ops/other").1, Some(Verdict::Refused));
    // A valid proof of one connection, replayed on the next.
    let (mut first, hello, challenge) = agent.hello(1);
    let proof = key(1).sign(&signed(AUDIENCE, &hello, &challenge)).to_bytes();
    first.write_all(&proof).unwrap();
    assert_eq!(verdict(&mut first), Some(Verdict::Welcome));
    let (mut second, _, again) = agent.hello(1);
    assert_ne!(again, challenge);
    second.write_all(&proof).unwrap();
    assert_eq!(verdict(&mut second), Some(Verdict::Refused));
}

#[test]
fn a_rotated_key_counts_at_once() {
    let agent = Agent::start();
    agent.authorize(&[2]);
    assert_eq!(agent.prove(1, AUDIENCE).1, Some(Verdict::Refused));
    assert_eq!(agent.prove(2, AUDIENCE).1, Some(Verdict::Welcome));
    std::fs::remove_file(agent.keys.path().join("authorized_keys")).unwrap();
    assert_eq!(agent.prove(2, AUDIENCE).1, Some(Verdict::Refused));
}

#[test]
fn invalid_hellos_are_closed_silently() {
    let agent = Agent::start();
    for garbage in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4), vec![0; 4096], vec![0xff; 72]] {
        let mut stream = agent.connect();
        let _ = stream.write_all(&garbage);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{answer:?}");
    }
    // Before the verdict nothing is a frame: a request that comes too early is treated as an invalid proof.
    let (mut stream, ..) = agent.hello(1);
    let mut early = Vec::new();
    Mux::Open(1).encode(&mut early);
    Mux::Data(1, &[0; 100]).encode(&mut early);
    stream.write_all(&early).unwrap();
    assert_eq!(verdict(&mut stream), Some(Verdict::Refused));
}

#[test]
fn the_pods_own_processes_have_a_separate_limit() {
    let mut agent = Agent::start();
    let held: Vec<_> = (0..200).map(|_| TcpStream::connect(("127.0.0.1", agent.port))).collect();
    // All but a few are closed at once, some before they are established; those few are when their time is up.
    let mut closed = held.iter().filter(|stream| stream.is_err()).count();
    for mut stream in held.into_iter().flatten() {
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let open =
            |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        closed += usize::from(!stream.read(&mut [0]).is_err_and(|error| open(&error)));
    }
    assert!(closed >= 190, "{closed} of 200 closed");
    let (_, verdict) = agent.prove(1, AUDIENCE);
    assert_eq!(verdict, Some(Verdict::Welcome));
    assert!(agent.process.try_wait().unwrap().is_none(), "it still serves");
}

#[test]
fn a_broken_protocol_ends_its_own_connection_only() {
    let agent = Agent::start();
    let mut good = agent.open();
    let mut bad = agent.open();
    bad.stream.write_all(&[200, 0, 0, 0, 4, 0, 0, 0, 1]).unwrap();
    let mut rest = Vec::new();
    let _ = bad.stream.read_to_end(&mut rest);
    // Session numbers only grow.
    let mut again = agent.open();
    again.begin(5, &["true"]);
    again.send(Mux::Open(5));
    let _ = again.stream.read_to_end(&mut rest);
    good.begin(1, &["true"]);
    good.until(|all| all[&1].outcome.is_some());
}
