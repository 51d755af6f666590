//! `postern run`: tools in the ops pod as if they were local.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::{Outcome, canary, each_transport, enabled, install, kubectl, postern, run, sh, with_stdin};
use std::time::{Duration, Instant};

fn ready() -> bool {
    enabled() && {
        install(&[]).ok();
        true
    }
}

#[test]
fn streams_and_codes_are_the_tools_own() {
    each_transport(|| {
        install(&[]).ok();
        let seen = sh("printf out; printf err >&2; exit 3").exits(3);
        assert_eq!((seen.stdout.as_str(), seen.stderr.as_str()), ("out", "err"));
        for code in [0, 1, 2, 126, 127, 137, 255] {
            assert_eq!(sh(&format!("exit {code}")).exits(code).stderr, "");
        }
        sh("kill -TERM $$").exits(143);
    });
}

#[test]
fn what_never_ran_is_told_from_what_broke() {
    each_transport(|| {
        install(&[]).ok();
        run(&["run", "--", "no-such-tool"]).exits(127).says(&["no-such-tool: no such program in PATH"]);
        run(&["run", "--", "/etc/passwd"]).exits(127).says(&["permission denied"]);
        run(&["run", "-w", "/nonexistent", "--", "true"])
            .exits(127)
            .says(&["working directory /nonexistent"]);
        let start = Instant::now();
        run(&["run", "--timeout", "500ms", "--", "sleep", "100"]).exits(137).says(&["did not end within"]);
        assert!(start.elapsed() < Duration::from_secs(8));
        let seen = run(&["run", "-o", "json", "--", "no-such-tool"]).exits(127);
        let error: serde_json::Value = serde_json::from_str(&seen.stderr).unwrap();
        assert_eq!(error["error"]["kind"], "never-reached");
        let seen = run(&["run", "-o", "json", "--", "sh", "-c", "echo x; exit 126"]).exits(126);
        let report: serde_json::Value = serde_json::from_str(&seen.stderr).unwrap();
        assert_eq!(
            (&report["exitCode"], &report["outcome"], &report["stdoutBytes"]),
            (&126.into(), &"exited".into(), &2.into())
        );
    });
}

#[test]
fn stdin_of_any_size_passes_both_ways_at_once() {
    each_transport(|| {
        install(&[]).ok();
        let data: Vec<u8> =
            (0..6_000_000_u32).flat_map(|at| [b"0123456789abcdef"[(at % 16) as usize]]).collect();
        let seen = with_stdin(postern().args(["run", "-i", "--", "cat"]), &data).ok();
        assert!(seen.stdout.as_bytes() == data, "{} of {} bytes came back", seen.stdout.len(), data.len());
        let seen =
            with_stdin(postern().args(["run", "-i", "--", "sh", "-c", "head -c 5; exit 4"]), &data).exits(4);
        assert_eq!(seen.stdout, "01234");
        assert_eq!(with_stdin(postern().args(["run", "--", "cat"]), b"not passed").ok().stdout, "");
        // What cannot be read is no end of it.
        let directory = std::fs::File::open("/").unwrap();
        let unread = Outcome::of(postern().args(["run", "-i", "--", "cat"]).stdin(directory)).exits(126);
        unread.says(&["reading our own standard input", "Is a directory"]);
    });
}

#[test]
fn proof_1_every_output_is_whole_or_the_exit_is_not_zero() {
    each_transport(|| {
        install(&[]).ok();
        let count: u32 =
            std::env::var("POSTERN_SOAK_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
        let mut whole = 0;
        for _ in 0..count {
            let seen = run(&["run", "--", "seq", "1", "2000000"]);
            let complete = seen.stdout.len() == 14_888_896 && seen.stdout.ends_with("\n2000000\n");
            assert!(complete || seen.code != 0, "exit 0 with {} bytes", seen.stdout.len());
            whole += u32::from(complete && seen.code == 0);
        }
        assert_eq!(whole, count, "on a healthy connection every output is whole");
    });
}

#[test]
fn the_credential_reaches_the_tool_and_not_the_screen() {
    each_transport(|| {
        install(&[]).ok();
        let seen =
            sh("test \"$IBMCLOUD_API_KEY\" = \"$IC_API_KEY\" && printf %s \"$IC_API_KEY\" | wc -c").ok();
        assert_eq!(seen.stdout.trim(), canary().len().to_string());
        let (first, rest) = canary().split_at("canary-Zq7".len());
        let encoded = canary().replace('/', "%2F").replace('+', "%2B");
        let forms = format!(
            "echo $IC_API_KEY; echo $IC_API_KEY >&2; printf %s \"x$IC_API_KEY\" | base64; \
             printf '{first}'; sleep 0.02; printf '{rest}\\n'; echo {encoded}"
        );
        let seen = sh(&forms).ok();
        let masked = seen.stdout.matches("[REDACTED]").count();
        assert_eq!((masked, seen.stderr.as_str()), (4, "[REDACTED]\n"), "{}", seen.stdout);
        assert!(!seen.stdout.contains("Zq7") || !seen.stdout.contains("4d1e"));
    });
}

#[test]
fn env_workdir_and_files_are_given_and_files_are_removed() {
    each_transport(|| {
        install(&[]).ok();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "content").unwrap();
        let staged = format!("{}=/tmp/staged", file.path().display());
        let args = ["run", "-e", "A=1 2", "-w", "/tmp", "--file", &staged, "--"];
        let script = "echo \"$A\"; pwd; cat staged; stat -c %a staged";
        let seen = Outcome::of(postern().args(args).args(["sh", "-c", script])).ok();
        assert_eq!(seen.stdout, "1 2\n/tmp\ncontent600\n");
        sh("test ! -e /tmp/staged").ok();
        run(&["run", "--file", "/nonexistent=/tmp/x", "--", "true"]).exits(127).says(&["/nonexistent"]);
        run(&["run", "--file", &staged.replace("/tmp/staged", "/proc/x"), "--", "true"])
            .exits(127)
            .says(&["/proc/x"]);
    });
}

#[test]
fn many_runs_at_once_do_not_mix() {
    each_transport(|| {
        install(&[]).ok();
        let threads: Vec<_> = (0..8)
            .map(|at| std::thread::spawn(move || (at, sh(&format!("seq {at}00000 {at}20000; exit {at}")))))
            .collect();
        for thread in threads {
            let (at, seen) = thread.join().unwrap();
            let seen = seen.exits(at);
            assert!(
                seen.stdout.starts_with(&format!("{}\n", at * 100_000))
                    && seen.stdout.lines().count() == 20_001
            );
        }
    });
}

#[test]
fn the_local_backend_makes_the_same_promises() {
    if !enabled() {
        return;
    }
    let local = |args: &[&str]| {
        let mut command = postern();
        command.env("IBMCLOUD_API_KEY", canary()).args(["run", "--backend", "local"]).args(args);
        Outcome::of(&mut command)
    };
    let seen =
        local(&["--", "sh", "-c", "printf %s $IC_API_KEY | wc -c; echo $IC_API_KEY; echo e >&2; exit 9"])
            .exits(9);
    assert_eq!(seen.stdout, format!("{}\n[REDACTED]\n", canary().len()));
    assert_eq!(seen.stderr, "e\n");
    local(&["--", "no-such-tool"]).exits(127);
    local(&["--timeout", "300ms", "--", "sleep", "50"]).exits(137);
    let piped = with_stdin(postern().args(["run", "--backend", "local", "-i", "--", "cat"]), b"through").ok();
    assert_eq!(piped.stdout, "through");
}

#[test]
fn the_audit_log_says_who_ran_what_and_how_it_ended() {
    each_transport(|| {
        install(&[]).ok();
        sh("echo audited; echo $IC_API_KEY; exit 5").exits(5);
        run(&["run", "--", "echo", canary()]).ok();
        let lines = run(&["ops", "logs", "-o", "json"]).ok().json();
        let of = |word: &str| {
            let found =
                lines.as_array().unwrap().iter().rfind(|line| line["argv"].to_string().contains(word));
            found.unwrap_or_else(|| panic!("no line with {word}: {lines}")).clone()
        };
        let line = of("echo audited");
        assert_eq!(
            (&line["outcome"], &line["code"], &line["stdoutBytes"]),
            (&"exited".into(), &5.into(), &19.into())
        );
        assert_ne!(line["claimedUser"], "");
        assert_eq!(of("[REDACTED]")["argv"][1], "[REDACTED]");
    });
}

#[test]
fn nothing_is_left_of_what_a_command_started() {
    each_transport(|| {
        install(&[]).ok();
        let sleep = e2e::marker();
        sh(&format!("command -v setsid && (setsid sleep {sleep} >/dev/null 2>&1 &)")).ok();
        assert!(!e2e::runs_in_pod(&sleep));
        // Also when it came by another door, without a supervisor.
        let daemon = format!("nohup setsid sleep {sleep} >/dev/null 2>&1 &");
        kubectl(&["exec", "-n", e2e::ops(), "postern-ops", "--", "sh", "-c", &daemon]).ok();
        e2e::eventually("the daemon ends", Duration::from_secs(10), || !e2e::runs_in_pod(&sleep));
    });
}

#[test]
fn per_tool_defaults_come_from_the_config() {
    if !ready() {
        return;
    }
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        config.path(),
        "tools: {sh: {env: {FROM: config, B: config}, workdir: /tmp, timeout: 1s}}",
    )
    .unwrap();
    let with = |args: &[&str]| Outcome::of(postern().arg("--config").arg(config.path()).args(args));
    let seen = with(&["run", "-e", "B=flag", "--", "sh", "-c", "echo $FROM $B; pwd"]).ok();
    assert_eq!(seen.stdout, "config flag\n/tmp\n");
    with(&["run", "--", "sh", "-c", "sleep 30"]).exits(137);
}
