//! Connections that are cut and clients that are killed during a run: no lie, no orphan.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::proxy::{Fault, Proxy};
use e2e::{Outcome, each_transport, eventually, install, marker, postern, runs_in_pod, server};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::Duration;

/// Bytes of `seq 1 200000`.
const OUTPUT: usize = 1_288_895;

fn cuts() -> i64 {
    std::env::var("POSTERN_SOAK_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(8)
}

/// One run over a failing connection; the command never ends by itself.
fn over(fault: Fault, after: i64) -> (Outcome, String) {
    let proxy = Proxy::start(&server(), fault, after);
    let kubeconfig = e2e::kubeconfig_by_way_of(&proxy.server);
    let sleep = marker();
    let script = format!("seq 1 200000; sleep {sleep}");
    let seen =
        Outcome::of(postern().env("KUBECONFIG", kubeconfig.path()).args(["run", "--", "sh", "-c", &script]));
    (seen, sleep)
}

#[test]
fn proof_2_a_cut_or_black_holed_connection_is_never_a_success_and_leaves_no_orphan() {
    each_transport(|| {
        install(&[]).ok();
        // Spread over the handshake, the upgrade and the output; a small generator makes them other points each time.
        let mut state = u64::from(std::process::id()) | 1;
        let mut points: Vec<(Fault, i64)> = (0..cuts())
            .map(|at| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let point = i64::try_from(state >> 33).unwrap() % (i64::try_from(OUTPUT).unwrap() + 4_000);
                (if at % 2 == 0 { Fault::Cut } else { Fault::BlackHole }, point.max(1))
            })
            .collect();
        points.push((Fault::Cut, 10_000_000));
        // A black hole takes the client ten seconds to see: eight at a time.
        for batch in points.chunks(8) {
            let threads: Vec<_> = batch
                .iter()
                .filter(|(_, after)| *after < 10_000_000)
                .map(|&(fault, after)| std::thread::spawn(move || (fault, after, over(fault, after))))
                .collect();
            for thread in threads {
                let (fault, after, (seen, sleep)) = thread.join().unwrap();
                assert!(
                    [126, 127].contains(&seen.code),
                    "{fault:?} after {after} bytes: exit {}\n{}",
                    seen.code,
                    seen.stderr
                );
                // On a busy machine a notice comes first.
                let is_said = seen.stderr.lines().any(|line| line.starts_with("error: "));
                assert!(is_said, "{}", seen.stderr);
                eventually("no orphan", Duration::from_secs(15), || !runs_in_pod(&sleep));
            }
        }
    });
}

#[test]
fn a_cut_after_the_trailer_changes_nothing() {
    each_transport(|| {
        install(&[]).ok();
        let proxy = Proxy::start(&server(), Fault::Cut, i64::MAX / 2);
        let kubeconfig = e2e::kubeconfig_by_way_of(&proxy.server);
        let seen = Outcome::of(
            postern().env("KUBECONFIG", kubeconfig.path()).args(["run", "--", "seq", "1", "200000"]),
        );
        assert_eq!(seen.ok().stdout.len(), OUTPUT);
    });
}

#[test]
fn a_killed_client_leaves_no_orphan() {
    each_transport(|| {
        install(&[]).ok();
        let sleep = marker();
        let script = format!(
            "trap '' TERM; command -v setsid >/dev/null || exit 99; (setsid sleep {sleep} &); echo up; sleep {sleep}"
        );
        let mut client =
            postern().args(["run", "--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        assert!(runs_in_pod(&sleep));
        client.kill().unwrap();
        client.wait().unwrap();
        eventually("no orphan", Duration::from_secs(15), || !runs_in_pod(&sleep));
    });
}

#[test]
fn interrupts_are_the_tools_first_and_ours_second() {
    each_transport(|| {
        install(&[]).ok();
        let start = |script: &str| {
            let mut client = postern()
                .args(["run", "--", "sh", "-c", script])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut out = BufReader::new(client.stdout.take().unwrap());
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            assert_eq!(line, "up\n");
            (client, out)
        };
        let interrupt = |pid: u32| {
            Outcome::of(std::process::Command::new("kill").args(["-INT", &pid.to_string()])).ok();
        };
        let (mut client, mut out) = start("trap 'echo caught; exit 7' INT; echo up; while :; do :; done");
        interrupt(client.id());
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), client.wait().unwrap().code()), ("caught\n", Some(7)));

        let (mut client, mut out) = start("trap 'echo ignored' INT; echo up; while :; do :; done");
        interrupt(client.id());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ignored\n");
        interrupt(client.id());
        assert_eq!(client.wait().unwrap().code(), Some(137));
    });
}

#[test]
fn a_slow_reader_gets_everything_and_costs_no_memory() {
    each_transport(|| {
        install(&[]).ok();
        // More than everything on the way can hold; and so little that the tool has ended long before it is read.
        let readers = [40_000_000, 3_000_000].map(|bytes| {
            let mut client = postern()
                .args(["run", "--", "head", "-c", &bytes.to_string(), "/dev/zero"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut out = client.stdout.take().unwrap();
            out.read_exact(&mut vec![0; 1_000_000]).unwrap();
            (bytes, client, out)
        });
        // Longer than the agent's patience with a silent client: only heartbeats keep the runs alive.
        std::thread::park_timeout(Duration::from_secs(8));
        for (bytes, mut client, mut out) in readers {
            let status = std::fs::read_to_string(format!("/proc/{}/status", client.id())).unwrap();
            // Of its own, without the pages of the program, which is larger when it is built for tests.
            let own: u64 = status
                .lines()
                .find_map(|line| {
                    line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.trim().parse().ok()
                })
                .unwrap();
            assert!(own < 12_000, "the client grew to {own} kB");
            let mut rest = Vec::new();
            out.read_to_end(&mut rest).unwrap();
            assert_eq!((client.wait().unwrap().code(), rest.len() + 1_000_000), (Some(0), bytes));
        }
    });
}

#[test]
fn a_reader_that_leaves_ends_the_tool() {
    each_transport(|| {
        install(&[]).ok();
        let sleep = marker();
        let mut client = postern()
            .args(["run", "--", "sh", "-c", &format!("yes & exec sleep {sleep}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut first = [0; 10];
        client.stdout.take().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(client.wait().unwrap().code(), Some(141));
        eventually("no orphan", Duration::from_secs(15), || !runs_in_pod(&sleep));
    });
}
