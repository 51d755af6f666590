//! Proof 4: the credential is where it belongs, and nowhere else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::{Outcome, canary, each_transport, eventually, install, kubectl, marker, ops, postern, sh, testbed};
use std::process::Stdio;
use std::time::Duration;

/// A part of the canary that is in no encoding of anything else, and its base64 forms.
const PARTS: [&str; 4] = ["Zq7/hJ2+w9", "Zq7%2FhJ2", "cTcvaEoyK3c5", "enE3L2hKMit3OS"];

fn clean_of(what: &str, text: &str) {
    for part in PARTS.into_iter().chain([canary(), encoded().as_str()]) {
        let at = text.find(part);
        assert!(
            at.is_none(),
            "{what} holds {part:?}: …{}…",
            &text[at.unwrap().saturating_sub(200)..at.unwrap()]
        );
    }
}

/// What the Secret's data has, by the shell's own base64.
fn encoded() -> String {
    let mut command = std::process::Command::new("base64");
    e2e::with_stdin(command.arg("-w0"), canary().as_bytes()).stdout
}

fn with_key(args: &[&str]) -> Outcome {
    Outcome::of(postern().env("IBMCLOUD_API_KEY", canary()).args(args))
}

#[test]
fn proof_4_the_canary_is_in_the_secret_and_nowhere_else() {
    each_transport(|| {
        let audit_begin = e2e::audit_length();
        e2e::clean();
        clean_of("install -vv", &format!("{:?}", install(&["-vv"]).ok()));

        // First of all: it does reach the tool.
        let sum = sh("printf %s \"$IBMCLOUD_API_KEY\" | sha256sum").ok().stdout;
        let mut command = std::process::Command::new("sha256sum");
        assert_eq!(sum, e2e::with_stdin(&mut command, canary().as_bytes()).ok().stdout);

        // Every way to succeed and to fail, with the key at hand.
        let long = marker();
        let tries: [&[&str]; 12] = [
            &[
                "run",
                "-vv",
                "--",
                "sh",
                "-c",
                "env; echo $IC_API_KEY >&2; printf %s $IC_API_KEY | base64 -w0",
            ],
            &["run", "-vv", "--", "no-such-tool"],
            &["run", "-vv", "--", "echo", canary()],
            &["run", "-vv", "--", canary()],
            &["run", "-vv", "-w", canary(), "--", "true"],
            &["run", "-vv", "--timeout", "300ms", "--", "sh", "-c", "echo $IC_API_KEY; sleep 50"],
            &["run", "-vv", "-o", "json", "--", "sh", "-c", "echo $IC_API_KEY; kill -9 $$"],
            &["run", "-vv", "--backend", "local", "--", "sh", "-c", "env | grep KEY; exit 3"],
            &["ops", "install", "-vv", "--force"],
            &["ops", "install", "-vv", "--dry-run", "-o", "yaml"],
            &["ops", "install", "-vv", "--image", "registry.invalid/none:1", "--timeout", "20s"],
            &["ops", "show", "-vv", "--check", "-o", "json"],
        ];
        for args in tries {
            let seen = with_key(args);
            // What the user typed is theirs to see again.
            if !args.contains(&canary()) {
                clean_of(&format!("{args:?}"), &format!("{}{}", seen.stdout, seen.stderr));
            }
        }
        install(&[]).ok();
        with_key(&["run", "--", "echo", canary()]).ok();

        // While one runs: no argv on either side, no file outside the mount.
        let mut client = postern().args(["run", "--", "sleep", &long]).stdout(Stdio::null()).spawn().unwrap();
        eventually("it runs", Duration::from_secs(10), || e2e::runs_in_pod(&long));
        clean_of("the argv of the pod", &e2e::processes());
        if testbed() {
            let mut argvs = String::new();
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let argv = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                argvs.push_str(&String::from_utf8_lossy(&argv));
            }
            clean_of("the argv of this machine", &argvs);
        }
        let files = kubectl(&[
            "exec",
            "-n",
            ops(),
            "postern-ops",
            "--",
            "sh",
            "-c",
            "grep -rl 'Zq7/h[J]2' /home/ops /tmp /run/postern /etc /var/log 2>/dev/null; ls /proc/1/environ >/dev/null && tr '\\0' '\\n' </proc/1/environ",
        ]);
        clean_of("files and PID 1's environment", &files.stdout);
        assert!(!files.stdout.lines().any(|line| line.starts_with('/')), "{}", files.stdout);
        client.kill().unwrap();
        client.wait().unwrap();

        clean_of("the pod's log", &kubectl(&["logs", "-n", ops(), "postern-ops"]).ok().stdout);
        let kinds = kubectl(&["api-resources", "--verbs=list", "-o", "name"]).ok().stdout;
        let kinds: Vec<_> = kinds.lines().filter(|kind| *kind != "secrets").collect();
        let objects = kubectl(&["get", &kinds.join(","), "-A", "-o", "json", "--show-managed-fields"]);
        assert!(objects.stdout.len() > 10_000, "{}", objects.stderr);
        clean_of("an object or event", &objects.stdout);
        let secret = kubectl(&["get", "secrets", "-A", "-o", "json", "--show-managed-fields"]).ok().stdout;
        assert_eq!(secret.matches(&encoded()).count(), 2, "once under each of its two names");

        if testbed() {
            let text = e2e::audit_since(audit_begin);
            assert!(text.contains("postern-ops"), "the API audit log was read");
            clean_of("the API audit log", &text);
        }
    });
}
