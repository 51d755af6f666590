//! The stream transport: who may use it, what keeps others out, and that nothing falls back in silence.
//!
//! That it makes the promises of an exec is proved by `faults`, `leak` and `run`, which go both ways.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::{Outcome, enabled, eventually, get, install, kubectl, ops, policed, postern, run};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

/// `run --transport stream -- sh -c SCRIPT`.
fn stream(script: &str) -> Outcome {
    run(&["run", "--transport", "stream", "--", "sh", "-c", script])
}

fn secret_key() -> String {
    get(&["-n", ops(), "secret/postern-ops-stream"])["data"]["key.der"].as_str().unwrap().to_owned()
}

#[test]
fn it_is_off_unless_installed_and_nothing_falls_back_in_silence() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    stream("true").exits(127).says(&["not installed with --stream", "postern ops install --stream"]);
    let auto = run(&["run", "-v", "--transport", "auto", "--", "echo", "by exec"]).ok();
    assert_eq!(auto.stdout, "by exec\n");
    auto.says(&["by exec: the ops pod was not installed with --stream"]);
    // Nothing listens in the pod.
    let listens = "! (echo > /dev/tcp/127.0.0.1/7483) 2>/dev/null";
    run(&["run", "--", "bash", "-c", listens]).ok();

    install(&["--stream"]).ok();
    assert_eq!(stream("echo through; exit 4").exits(4).stdout, "through\n");
    run(&["run", "-v", "--transport", "auto", "--", "true"]).ok().says(&["by stream"]);
    // The agent says which way it came and which key was proved.
    let line = run(&["ops", "logs", "-o", "json"]).ok().json();
    let line = line.as_array().unwrap().iter().rfind(|line| line["transport"] == "stream").unwrap().clone();
    let keys =
        get(&["-n", ops(), "configmap/postern-ops-stream-keys"])["data"]["authorized_keys"].to_string();
    assert!(keys.contains(line["key"].as_str().unwrap()), "{line} of {keys}");
    assert!(line["claimedUser"].is_string());

    // What is missing is named, and is not taken for what was never there.
    let checked = || run(&["ops", "show", "--check"]);
    assert!(checked().ok().stdout.contains("✓ stream: opens"));
    kubectl(&["delete", "-n", ops(), "secret/postern-ops-stream"]).ok();
    let missing =
        format!("Secret {}/postern-ops-stream is not as an install leaves it: it is missing", ops());
    stream("true").exits(127).says(&[&missing, "postern ops install --stream"]);
    run(&["run", "--transport", "auto", "--", "true"]).ok().says(&[&missing, "going on by exec"]);
    let seen = checked().exits(1).stdout;
    assert!(seen.contains("✗ stream: ") && seen.contains(&missing), "{seen}");

    // And off again, with its keys.
    install(&[]).ok();
    for gone in ["secret/postern-ops-stream", "configmap/postern-ops-stream-keys"] {
        kubectl(&["get", "-n", ops(), gone]).exits(1).says(&["NotFound"]);
    }
    stream("true").exits(127);
}

#[test]
fn where_admission_refuses_a_stream_auto_goes_on_by_exec() {
    if !enabled() {
        return;
    }
    install(&["--stream"]).ok();
    let forwards =
        r#"{apiGroups: [""], apiVersions: [v1], operations: [CONNECT], resources: [pods/portforward]}"#;
    policed(
        "no-forwards",
        forwards,
        &format!("request.namespace != \"{}\"", ops()),
        || stream("true").code == 127,
        || {
            stream("true").exits(127).says(&["no-forwards"]);
            run(&["run", "-v", "--transport", "auto", "--", "true"]).ok().says(&["by exec: ", "no-forwards"]);
        },
    );
}

#[test]
fn the_pod_mounts_the_public_half_only_and_an_install_rotates_both() {
    if !enabled() {
        return;
    }
    install(&["--stream"]).ok();
    let (before, uid) = (secret_key(), get(&["-n", ops(), "pod/postern-ops"])["metadata"]["uid"].clone());
    stream("true").ok();
    let mounted = run(&["run", "--", "ls", "/etc/postern/stream"]).ok().stdout;
    assert_eq!(mounted, "audience\nauthorized_keys\n");
    let old = tempfile::NamedTempFile::new().unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{before}\n-----END PRIVATE KEY-----\n");
    std::fs::write(old.path(), pem).unwrap();

    install(&["--stream"]).ok();
    assert_ne!(secret_key(), before);
    // The pod stays, and takes the new key as soon as the kubelet has brought it.
    assert_eq!(get(&["-n", ops(), "pod/postern-ops"])["metadata"]["uid"], uid);
    stream("true").ok();
    let stale =
        run(&["run", "--transport", "auto", "--stream-key", old.path().to_str().unwrap(), "--", "true"]);
    stale.ok().says(&["refused the key", "going on by exec"]);
}

#[test]
fn an_operator_authorizes_a_key_of_their_own_and_revokes_it() {
    if !enabled() {
        return;
    }
    install(&["--stream"]).ok();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("stream.key");
    let path = path.to_str().unwrap();
    let plan = run(&["ops", "authorize", "--generate", path, "--comment", "jo", "--dry-run"]).ok();
    assert!(plan.stdout.contains("Nothing was changed"), "{}", plan.stdout);
    assert!(!std::path::Path::new(path).exists());
    run(&["ops", "authorize", "--generate", path, "--comment", "jo"]).ok();
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    run(&["ops", "authorize", "--generate", path]).exits(2).says(&["File exists"]);
    let listed = run(&["ops", "authorize", "--list", "-o", "json"]).ok().json();
    assert!(listed["keys"][0].as_str().unwrap().ends_with(" jo"), "{listed}");

    let own = ["run", "--transport", "stream", "--stream-key", path, "--", "echo", "mine"];
    eventually("the pod has the key", Duration::from_secs(150), || run(&own).code == 0);
    // It outlives a re-install, and needs no Secret.
    install(&["--stream"]).ok();
    assert_eq!(run(&own).ok().stdout, "mine\n");

    run(&["ops", "authorize", "--revoke", "jo"]).ok();
    run(&["ops", "authorize", "--revoke", "jo"]).exits(1).says(&["no authorized key"]);
    let quick = ["run", "--transport", "auto", "--stream-key", path, "--", "true"];
    eventually("the pod has dropped it", Duration::from_secs(150), || {
        run(&quick).stderr.contains("refused the key")
    });
}

#[test]
fn a_hostile_process_in_the_pod_neither_gets_in_nor_locks_anyone_out() {
    if !enabled() {
        return;
    }
    install(&["--stream"]).ok();
    let sleep = e2e::marker();
    // Holds what it can get open, throws away the rest, and speaks nonsense on some, without a pause.
    let flood = format!(
        "echo up; end=$((SECONDS+25)); while [ $SECONDS -lt $end ]; do for i in $(seq 40); do \
         exec {{fd}}<>/dev/tcp/127.0.0.1/7483 && [ $((i % 3)) = 0 ] && head -c 100 /dev/urandom >&$fd; done \
         2>/dev/null; done; sleep {sleep}"
    );
    let mut hostile = postern()
        .args(["run", "--", "bash", "-c", &flood])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = [0; 3];
    std::io::Read::read_exact(hostile.stdout.as_mut().unwrap(), &mut line).unwrap();
    for _ in 0..5 {
        assert_eq!(stream("echo in").ok().stdout, "in\n");
    }
    hostile.kill().unwrap();
    hostile.wait().unwrap();
    eventually("the agent ends it", Duration::from_secs(15), || !e2e::runs_in_pod(&sleep));
    stream("true").ok();
}
