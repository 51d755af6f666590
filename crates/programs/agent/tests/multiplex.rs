//! Many runs for one client: an agent connected to two pipes, as started by one exec.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic, and reads better so")]

use postern_wire::{Decoder, FromAgent, Mux, Outcome, Request, ToAgent};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

fn agent() -> (Child, ChildStdin, ChildStdout) {
    let program =
        std::env::var_os("POSTERN_TEST_AGENT").unwrap_or_else(|| env!("CARGO_BIN_EXE_postern-agent").into());
    let mut process =
        Command::new(program).arg("multiplex").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
    (process, stdin, stdout)
}

fn begin(id: u32, script: &str) -> Vec<u8> {
    let argv = ["sh", "-c", script].map(|word| word.as_bytes().to_vec()).to_vec();
    let mut frame = Vec::new();
    ToAgent::Request(Box::new(Request { argv, ..Request::default() })).encode(&mut frame);
    let mut message = Vec::new();
    Mux::Open(id).encode(&mut message);
    Mux::Data(id, &frame).encode(&mut message);
    message
}

/// Reads once.
fn more(stdout: &mut ChildStdout, decoder: &mut Decoder) {
    let mut bytes = [0; 8_192];
    let count = stdout.read(&mut bytes).unwrap();
    assert!(count > 0, "the agent ended");
    decoder.push(&bytes[..count]);
}

fn hello(stdout: &mut ChildStdout) -> Decoder {
    let mut decoder = Decoder::default();
    loop {
        if let Some((kind, payload)) = decoder.next_frame().unwrap() {
            assert!(matches!(FromAgent::decode(kind, payload).unwrap(), FromAgent::Hello(_)));
            return decoder;
        }
        more(stdout, &mut decoder);
    }
}

#[test]
fn one_agent_serves_many_runs() {
    let (mut process, mut stdin, mut stdout) = agent();
    let mut decoder = hello(&mut stdout);
    let all = 40;
    for id in 1..=all {
        stdin.write_all(&begin(id, &format!("echo {id}; exit {}", id % 7))).unwrap();
    }
    let mut frames: BTreeMap<u32, Decoder> = BTreeMap::new();
    let mut ended = BTreeMap::new();
    let mut said: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    while ended.len() < all as usize {
        let mut done = Vec::new();
        while let Some((kind, payload)) = decoder.next_frame().unwrap() {
            let Mux::Data(id, bytes) = Mux::decode(kind, payload).unwrap() else { continue };
            let session = frames.entry(id).or_default();
            session.push(bytes);
            while let Some((kind, payload)) = session.next_frame().unwrap() {
                match FromAgent::decode(kind, payload).unwrap() {
                    FromAgent::Stdout(bytes) => said.entry(id).or_default().extend(bytes),
                    FromAgent::Trailer(trailer) => {
                        ended.insert(id, trailer.outcome);
                        done.push(id);
                    }
                    _ => {}
                }
            }
        }
        for id in done {
            let (mut frame, mut message) = (Vec::new(), Vec::new());
            ToAgent::Done.encode(&mut frame);
            Mux::Data(id, &frame).encode(&mut message);
            stdin.write_all(&message).unwrap();
        }
        if ended.len() < all as usize {
            more(&mut stdout, &mut decoder);
        }
    }
    for id in 1..=all {
        assert_eq!(ended[&id], Outcome::Exited(u8::try_from(id % 7).unwrap()));
        assert_eq!(said[&id], format!("{id}\n").into_bytes());
    }
    drop(stdin);
    assert!(process.wait().unwrap().success());
}

#[test]
fn a_lost_client_ends_all_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (mut process, mut stdin, mut stdout) = agent();
    hello(&mut stdout);
    let file = |id: u32| folder.path().join(id.to_string());
    for id in 1..=3 {
        // After exec the shell's PID stays the same.
        stdin.write_all(&begin(id, &format!("echo $$ >{}; exec sleep 600", file(id).display()))).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(30);
    let pid = |id| loop {
        if let Ok(text) = std::fs::read_to_string(file(id))
            && text.ends_with('\n')
        {
            break text.trim().to_owned();
        }
        assert!(Instant::now() < until, "{id} was not started");
        std::thread::yield_now();
    };
    let pids: Vec<String> = (1..=3).map(pid).collect();
    drop(stdin);
    assert!(process.wait().unwrap().success());
    for pid in pids {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!command.starts_with(b"sleep"), "{pid} runs on");
    }
}
