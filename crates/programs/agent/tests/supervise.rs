//! The supervisor, as seen by its client: a process connected to two pipes.
#![allow(
    clippy::unwrap_used,
    clippy::wrong_self_convention,
    reason = "a test may panic, and reads better so"
)]

use postern_wire::{
    Decoder, Failure, FailureKind, FileSpec, FromAgent, Outcome, Request, STDIN_WINDOW, TerminalSize,
    ToAgent, Trailer,
};
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

struct Agent {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    decoder: Decoder,
}

#[derive(Debug, Default)]
struct Seen {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    pid: Option<u32>,
    window: usize,
    trailer: Option<Trailer>,
    failure: Option<Failure>,
}

/// The agent under test: ours, or a build for another architecture.
fn program() -> OsString {
    std::env::var_os("POSTERN_TEST_AGENT").unwrap_or_else(|| env!("CARGO_BIN_EXE_postern-agent").into())
}

impl Agent {
    /// Starts an agent; sends nothing yet.
    fn spawn() -> Self {
        let mut process =
            Command::new(program()).arg("run").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take().unwrap());
        Self { process, stdin, stdout, decoder: Decoder::default() }
    }

    fn start(request: &Request) -> Self {
        let mut agent = Self::spawn();
        agent.send(&ToAgent::Request(Box::new(request.clone())));
        agent
    }

    fn send(&mut self, frame: &ToAgent<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.stdin.as_mut().unwrap().write_all(&bytes).unwrap();
    }

    /// Reads until `done` returns true, or the agent's output ends.
    fn read(&mut self, seen: &mut Seen, mut done: impl FnMut(&Seen) -> bool) {
        let mut buffer = vec![0; 32 * 1024];
        while !done(seen) {
            while let Some((kind, payload)) = self.decoder.next_frame().unwrap() {
                match FromAgent::decode(kind, payload).unwrap() {
                    FromAgent::Hello(_) | FromAgent::Heartbeat | FromAgent::Notice(_) => {}
                    FromAgent::Started(pid) => seen.pid = Some(pid),
                    FromAgent::Stdout(data) => seen.stdout.extend_from_slice(data),
                    FromAgent::Stderr(data) => seen.stderr.extend_from_slice(data),
                    FromAgent::Window(bytes) => seen.window += bytes as usize,
                    FromAgent::Trailer(trailer) => seen.trailer = Some(trailer),
                    FromAgent::Failure(failure) => seen.failure = Some(failure),
                }
            }
            if done(seen) {
                break;
            }
            match self.stdout.read(&mut buffer).unwrap() {
                0 => break,
                count => self.decoder.push(&buffer[..count]),
            }
        }
    }

    fn to_the_end(mut self) -> Seen {
        let mut seen = Seen::default();
        self.read(&mut seen, |seen| seen.trailer.is_some() || seen.failure.is_some());
        self.send(&ToAgent::Done);
        self.process.wait().unwrap();
        seen
    }
}

fn request(argv: &[&str]) -> Request {
    Request { argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(), ..Request::default() }
}

fn run(argv: &[&str]) -> Seen {
    Agent::start(&request(argv)).to_the_end()
}

/// Processes with `marker` in their argv.
fn running(marker: &str) -> Vec<u32> {
    let own = std::process::id();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let argv = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&argv).split('\0').any(|argument| argument == marker)
        })
        .collect()
}

fn gone_within(marker: &str, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while !running(marker).is_empty() {
        if Instant::now() > end {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// A `sleep` argument that no other test uses.
fn marker(number: u32) -> String {
    format!("{}.{number}", 90_000 + std::process::id() % 9_000)
}

#[test]
fn both_streams_the_code_the_counts_and_the_hashes_come() {
    let seen = run(&["sh", "-c", "printf out; printf err >&2; exit 7"]);
    let trailer = seen.trailer.unwrap();
    assert_eq!((seen.stdout.as_slice(), seen.stderr.as_slice()), (b"out".as_slice(), b"err".as_slice()));
    assert_eq!(trailer.outcome, Outcome::Exited(7));
    assert_eq!((trailer.stdout_bytes, trailer.stderr_bytes, trailer.left_behind), (3, 3, 0));
    assert_eq!(trailer.stdout_hash, *blake3::hash(b"out").as_bytes());
    assert_eq!(trailer.stderr_hash, *blake3::hash(b"err").as_bytes());
}

#[test]
fn signals_and_exit_codes_are_distinguished() {
    let seen = run(&["sh", "-c", "kill -KILL $$"]);
    assert_eq!(seen.trailer.unwrap().outcome, Outcome::Signaled(9));
}

#[test]
fn much_output_is_whole() {
    let seen = run(&["seq", "1", "300000"]);
    let last = seen.stdout.rsplit(|byte| *byte == b'\n').nth(1).unwrap();
    assert_eq!((seen.stdout.len(), last), (1_988_895, b"300000".as_slice()));
    assert_eq!(seen.trailer.unwrap().stdout_hash, *blake3::hash(&seen.stdout).as_bytes());
}

#[test]
fn stdin_flows_both_ways_at_once_within_its_window() {
    let mut agent = Agent::start(&Request { stdin: true, ..request(&["cat"]) });
    let data: Vec<u8> =
        (0..3 * 1024 * 1024_u32).map(|at| at.to_le_bytes()[usize::from(at % 3 == 0)]).collect();
    let (mut seen, mut sent) = (Seen::default(), 0);
    while sent < data.len() {
        let window = STDIN_WINDOW + seen.window - sent;
        let take = window.min(data.len() - sent).min(32 * 1024);
        if take == 0 {
            let before = seen.window;
            agent.read(&mut seen, |seen| seen.window > before);
        } else {
            agent.send(&ToAgent::Stdin(&data[sent..sent + take]));
            sent += take;
        }
    }
    agent.send(&ToAgent::StdinEnd);
    agent.read(&mut seen, |seen| seen.trailer.is_some());
    assert!(seen.stdout == data, "{} bytes came back of {}", seen.stdout.len(), data.len());
    assert_eq!(seen.trailer.unwrap().outcome, Outcome::Exited(0));
    agent.send(&ToAgent::Done);
}

#[test]
fn a_command_that_ignores_stdin_is_not_delayed() {
    let mut agent = Agent::start(&Request { stdin: true, ..request(&["true"]) });
    agent.send(&ToAgent::Stdin(&[0; 1024]));
    agent.send(&ToAgent::StdinEnd);
    assert_eq!(agent.to_the_end().trailer.unwrap().outcome, Outcome::Exited(0));
}

#[test]
fn without_stdin_the_command_reads_an_empty_one() {
    assert_eq!(run(&["cat"]).trailer.unwrap().outcome, Outcome::Exited(0));
}

#[test]
fn start_failures_have_a_kind() {
    let kind = |request: &Request| Agent::start(request).to_the_end().failure.unwrap().kind;
    assert_eq!(kind(&request(&["postern-no-such-program"])), FailureKind::NotFound);
    assert_eq!(kind(&request(&["/etc/passwd"])), FailureKind::PermissionDenied);
    let workdir = |path: &[u8]| Request { workdir: Some(path.to_vec()), ..request(&["true"]) };
    assert_eq!(kind(&workdir(b"/nonexistent")), FailureKind::Workdir);
    assert_eq!(kind(&workdir(b"/etc/passwd")), FailureKind::Workdir);
    let short = Request { secret_env: vec![(b"KEY".to_vec(), b"short".to_vec())], ..request(&["true"]) };
    assert_eq!(kind(&short), FailureKind::Credential);
}

#[test]
fn invalid_requests_are_answered_and_not_executed() {
    let sleep = marker(6);
    let mut agent = Agent::start(&request(&["sleep", &sleep]));
    // A second request violates the protocol: the client is treated as lost.
    agent.send(&ToAgent::Request(Box::new(request(&["true"]))));
    assert!(!agent.process.wait().unwrap().success());
    assert!(running(&sleep).is_empty());
    let mut other = Agent::spawn();
    other.stdin.take().unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut seen = Seen::default();
    other.read(&mut seen, |_| false);
    assert!(!other.process.wait().unwrap().success());
    assert_eq!((seen.pid, seen.trailer), (None, None));
}

#[test]
fn a_secret_reaches_the_command_and_not_the_client() {
    let secret = b"correct-horse-battery".to_vec();
    let script = "printf %s \"$KEY\" | wc -c; echo \"$KEY\"; echo \"$KEY\" >&2; printf 'corr'; printf 'ect-horse-battery'";
    let request = Request { secret_env: vec![(b"KEY".to_vec(), secret)], ..request(&["sh", "-c", script]) };
    let seen = Agent::start(&request).to_the_end();
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "21\n[REDACTED]\n[REDACTED]");
    assert_eq!(String::from_utf8_lossy(&seen.stderr), "[REDACTED]\n");
}

#[test]
fn a_prompt_that_begins_like_a_secret_is_not_held_back() {
    let secret_env = vec![(b"KEY".to_vec(), b"> the secret".to_vec())];
    let mut agent =
        Agent::start(&Request { secret_env, stdin: true, ..request(&["sh", "-c", "printf '> '; read x"]) });
    let mut seen = Seen::default();
    let start = Instant::now();
    agent.read(&mut seen, |seen| seen.stdout == b"> ");
    assert!(start.elapsed() < Duration::from_secs(5));
    agent.send(&ToAgent::StdinEnd);
    agent.to_the_end();
}

#[test]
fn a_lost_client_ends_everything() {
    let (one, two) = (marker(1), marker(2));
    // One process ignores SIGTERM, and one left the session and its parent.
    let script = format!("(setsid sleep {one} &) ; trap '' TERM; echo up; sleep {two}; sleep {two}");
    let mut agent = Agent::start(&Request { stdin: true, ..request(&["sh", "-c", &script]) });
    let mut seen = Seen::default();
    agent.read(&mut seen, |seen| seen.stdout == b"up\n");
    drop(agent.stdin.take());
    assert!(gone_within(&one, Duration::from_secs(5)), "the daemon outlived its client");
    assert!(gone_within(&two, Duration::from_secs(15)), "SIGKILL did not come");
    assert!(!agent.process.wait().unwrap().success());
}

#[test]
fn a_silent_client_ends_everything() {
    let sleep = marker(3);
    let mut agent = Agent::start(&Request { stdin: true, ..request(&["sleep", &sleep]) });
    let mut seen = Seen::default();
    agent.read(&mut seen, |seen| seen.pid.is_some());
    assert!(gone_within(&sleep, Duration::from_secs(15)));
    agent.process.wait().unwrap();
}

#[test]
fn heartbeats_keep_it_alive() {
    let mut agent =
        Agent::start(&Request { stdin: true, ..request(&["sh", "-c", "read x; sleep 6; echo done"]) });
    agent.send(&ToAgent::Stdin(b"\n"));
    let mut stdin = agent.stdin.take().unwrap();
    std::thread::spawn(move || {
        let mut frame = Vec::new();
        ToAgent::Heartbeat.encode(&mut frame);
        while stdin.write_all(&frame).is_ok() {
            std::thread::park_timeout(Duration::from_secs(1));
        }
    });
    let mut seen = Seen::default();
    agent.read(&mut seen, |seen| seen.trailer.is_some());
    assert_eq!(seen.stdout, b"done\n");
}

#[test]
fn left_behind_processes_are_ended() {
    let sleep = marker(4);
    let seen = run(&["sh", "-c", &format!("sleep {sleep} & echo started")]);
    assert_eq!(seen.stdout, b"started\n");
    let trailer = seen.trailer.unwrap();
    assert_eq!((trailer.outcome, trailer.left_behind), (Outcome::Exited(0), 1));
    assert!(running(&sleep).is_empty());
}

#[test]
fn a_time_out_ends_it() {
    let start = Instant::now();
    let seen = Agent::start(&Request { timeout_ms: 200, ..request(&["sleep", &marker(5)]) }).to_the_end();
    assert_eq!(seen.trailer.unwrap().outcome, Outcome::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn signals_are_passed_on_and_a_kill_ends_all() {
    // Without a child: dash loses a signal that arrives while it starts one by vfork.
    let script = "trap 'echo caught; exit 5' INT; echo up; while :; do :; done";
    let mut agent = Agent::start(&Request { stdin: true, ..request(&["sh", "-c", script]) });
    let mut seen = Seen::default();
    agent.read(&mut seen, |seen| seen.stdout == b"up\n");
    agent.send(&ToAgent::Signal(2));
    agent.read(&mut seen, |seen| seen.trailer.is_some());
    let Trailer { outcome, stdout_bytes, .. } = seen.trailer.unwrap();
    let said = String::from_utf8(seen.stdout).unwrap();
    assert_eq!((outcome, stdout_bytes, said.as_str()), (Outcome::Exited(5), 10, "up\ncaught\n"));

    let script = "trap '' INT TERM; echo up; while :; do sleep 0.05; done";
    let mut agent = Agent::start(&Request { stdin: true, ..request(&["sh", "-c", script]) });
    let mut seen = Seen::default();
    agent.read(&mut seen, |seen| seen.stdout == b"up\n");
    agent.send(&ToAgent::Signal(9));
    agent.read(&mut seen, |seen| seen.trailer.is_some());
    assert_eq!(seen.trailer.unwrap().outcome, Outcome::Signaled(9));
}

#[test]
fn a_terminal_is_allocated_and_resized() {
    let terminal = Some(TerminalSize { rows: 30, columns: 100 });
    let script = "tty; stty size; read x; stty size";
    let mut agent = Agent::start(&Request { terminal, stdin: true, ..request(&["sh", "-c", script]) });
    let mut seen = Seen::default();
    let text = |seen: &Seen| String::from_utf8_lossy(&seen.stdout).replace('\r', "");
    agent.read(&mut seen, |seen| text(seen).contains("30 100\n"));
    assert!(text(&seen).starts_with("/dev/pts/"), "{}", text(&seen));
    agent.send(&ToAgent::Resize(TerminalSize { rows: 40, columns: 120 }));
    agent.send(&ToAgent::Stdin(b"\n"));
    agent.read(&mut seen, |seen| seen.trailer.is_some());
    assert!(text(&seen).contains("40 120"), "{}", text(&seen));
    assert_eq!(seen.trailer.unwrap().outcome, Outcome::Exited(0));
}

#[test]
fn staged_files_are_private_and_removed() {
    let path = std::env::temp_dir().join(format!("postern-staged-{}", std::process::id()));
    let files = vec![FileSpec { path: path.to_str().unwrap().into(), size: 5 }];
    let script = format!("stat -c %a {0}; cat {0}", path.display());
    let staged = Request { files: files.clone(), ..request(&["sh", "-c", &script]) };
    let mut agent = Agent::start(&staged);
    agent.send(&ToAgent::File(b"he"));
    agent.send(&ToAgent::File(b"llo"));
    assert_eq!(agent.to_the_end().stdout, b"600\nhello");
    assert!(!path.exists());

    std::fs::write(&path, "mine").unwrap();
    let failure = Agent::start(&staged).to_the_end().failure.unwrap();
    assert_eq!(failure.kind, FailureKind::File);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn an_environment_and_a_directory_are_given() {
    let request = Request {
        env: vec![(b"GREETING".to_vec(), b"hello \xff".to_vec())],
        workdir: Some(b"/usr".to_vec()),
        ..request(&["sh", "-c", "printf %s \"$GREETING\"; pwd"])
    };
    assert_eq!(Agent::start(&request).to_the_end().stdout, b"hello \xff/usr\n");
}

#[test]
fn a_client_that_reads_slowly_still_gets_everything() {
    let mut agent = Agent::start(&Request { stdin: true, ..request(&["seq", "1", "200000"]) });
    let mut seen = Seen::default();
    agent.read(&mut seen, |seen| seen.stdout.len() > 100_000);
    // The test stops reading for longer than the command runs, and keeps sending heartbeats.
    for _ in 0..3 {
        agent.send(&ToAgent::Heartbeat);
        std::thread::park_timeout(Duration::from_millis(700));
    }
    agent.read(&mut seen, |seen| seen.trailer.is_some());
    assert_eq!(seen.stdout.len(), 1_288_895);
    assert_eq!(seen.trailer.unwrap().stdout_hash, *blake3::hash(&seen.stdout).as_bytes());
}
