//! What copies cost in memory, and what becomes of one whose client or pod dies. `cargo xtask soak copy` runs the full
//! counts.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "these are tests")]

use e2e::{Outcome, apply, enabled, eventually, kubectl, postern, testbed};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

const NAMESPACE: &str = "postern-e2e-copy-proofs";

static MADE: std::sync::Once = std::sync::Once::new();

/// A pod whose container can be ended from inside and is then started again, with a volume that outlives it.
fn ready() -> bool {
    if !enabled() {
        return false;
    }
    MADE.call_once(|| {
        kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s"]).ok();
        kubectl(&["create", "namespace", NAMESPACE]).ok();
        let waits = "trap 'exit 0' TERM; sleep infinity & wait";
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mortal", "namespace": NAMESPACE},
            "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "containers": [{"name": "app", "image": "busybox:1.35", "command": ["sh", "-c", waits],
                    "volumeMounts": [{"name": "kept", "mountPath": "/kept"}]}],
                "volumes": [{"name": "kept", "emptyDir": {}}]}});
        apply(&pod.to_string());
        kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/mortal", "--timeout=90s"]).ok();
    });
    true
}

/// Whether `cargo xtask soak copy` asks for the full counts.
fn soak() -> bool {
    std::env::var_os("POSTERN_SOAK_COPIES").is_some()
}

fn in_pod(script: &str) -> Outcome {
    kubectl(&["exec", "-n", NAMESPACE, "mortal", "--", "sh", "-c", script])
}

fn cp(folder: &Path, args: &[&str]) -> std::process::Command {
    let mut command = postern();
    command.current_dir(folder).args(["cp", "-n", NAMESPACE, "-o", "json"]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn summary(outcome: &Outcome) -> Value {
    let line = outcome.stdout.lines().last().unwrap_or_default();
    serde_json::from_str::<Value>(line).unwrap()["summary"].clone()
}

fn random(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for eight in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        eight.copy_from_slice(&state.to_le_bytes()[..eight.len()]);
    }
    bytes
}

/// Waits until so many bytes of an unfinished file have reached the pod's disk.
fn arrived(name: &str, bytes: u64) {
    let script = format!("stat -c %b /kept/.{name}.postern-partial 2>/dev/null || echo 0");
    eventually("a part has arrived", Duration::from_secs(60), || {
        in_pod(&script).stdout.trim().parse::<u64>().unwrap_or(0) * 512 > bytes
    });
}

#[test]
fn proof_2_a_client_that_is_killed_at_any_point_goes_on() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (size, points): (usize, u64) = if soak() { (1 << 30, 10) } else { (48 << 20, 2) };
    fs::write(folder.path().join("big"), random(size)).unwrap();
    let slowly = (size / 8).to_string(); // so that it is seen where it is
    for point in 1..=points {
        let args = ["--bwlimit", &slowly, "big", "mortal:/kept/killed"];
        let mut child = cp(folder.path(), &args).spawn().unwrap();
        arrived("killed", size as u64 * point / (points + 1));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_ne!(in_pod("test -e /kept/killed").code, 0, "nothing half-written has the name");
    let rest = Outcome::of(&mut cp(folder.path(), &["big", "mortal:/kept/killed"])).ok();
    let sent = summary(&rest)["sentBytes"].as_u64().unwrap();
    // What had reached the disk was not sent again, but for what came after the last note behind it.
    let left = size as u64 / (points + 1);
    assert!(sent < left + size as u64 / 10 + 16 * 1024 * 1024, "{sent}");
    Outcome::of(&mut cp(folder.path(), &["mortal:/kept/killed", "back"])).ok();
    assert!(fs::read(folder.path().join("back")).unwrap() == fs::read(folder.path().join("big")).unwrap());
    in_pod("rm /kept/killed").ok();
}

#[test]
fn proof_2_a_container_that_starts_again_gets_the_rest() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let content = random(64 << 20);
    fs::write(folder.path().join("big"), &content).unwrap();
    let args = ["--bwlimit", "10M", "--retries", "10", "big", "mortal:/kept/restarted"];
    let child = cp(folder.path(), &args).spawn().unwrap();
    arrived("restarted", 25_000_000);
    in_pod("kill 1");
    let outcome = ended(child).ok();
    let numbers = summary(&outcome);
    assert_eq!(numbers["written"], 1, "{numbers}");
    assert!(numbers["retries"].as_u64().unwrap() >= 1, "{numbers}");
    // What was on its way is lost, and what had reached the disk is not sent again.
    assert!(numbers["sentBytes"].as_u64().unwrap() < 96 << 20, "{numbers}");
    Outcome::of(&mut cp(folder.path(), &["mortal:/kept/restarted", "back"])).ok();
    assert!(fs::read(folder.path().join("back")).unwrap() == content);
    in_pod("rm /kept/restarted").ok();
}

fn ended(child: Child) -> Outcome {
    Outcome::from(child.wait_with_output().unwrap())
}

/// Peak memory of a process so far, in KiB; nothing where it has ended.
fn peak(pid: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The peak of any agent that copies, as this machine's kernel runs the testbed's pods.
fn agents() -> u64 {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    let agents = processes.filter_map(|pid| {
        let pid = pid.to_str()?.to_owned();
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        (line.contains("postern-agent") && line.contains("\0copy")).then(|| peak(&pid)).flatten()
    });
    agents.max().unwrap_or(0)
}

/// Runs a copy to its end; the peak memory of the client and of the agent, in MiB.
fn measured(folder: &Path, args: &[&str]) -> (Outcome, u64, u64) {
    let mut command = cp(folder, args);
    // A pipe that nobody reads would fill.
    let out = folder.join("out");
    command.stdout(fs::File::create(&out).unwrap());
    let mut child = command.spawn().unwrap();
    let (pid, mut client, mut agent) = (child.id().to_string(), 0, 0);
    eventually("the copy has ended", Duration::from_secs(3_600), || {
        client = client.max(peak(&pid).unwrap_or(0));
        agent = agent.max(agents());
        child.try_wait().unwrap().is_some()
    });
    let mut outcome = ended(child);
    let text = fs::read_to_string(&out).unwrap();
    text.lines().last().unwrap_or_default().clone_into(&mut outcome.stdout);
    (outcome.ok(), client / 1024, agent / 1024)
}

#[test]
fn proof_5_both_ends_stay_small_whatever_the_size() {
    if !ready() || !testbed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (size, directories): (u64, u32) = if soak() { (10 << 30, 1_000) } else { (1 << 30, 10) };
    let mut sparse = fs::File::create(here.join("sparse")).unwrap();
    sparse.set_len(size).unwrap();
    sparse.write_all(b"beginning").unwrap();
    for directory in 0..directories {
        let directory = here.join(format!("many/{directory}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..1_000 {
            fs::write(directory.join(format!("{file}")), "").unwrap();
        }
    }
    for (from, to) in [
        ("sparse", "mortal:/kept/sparse"),
        ("mortal:/kept/sparse", "sparse-back"),
        ("many", "mortal:/kept/many"),
        ("mortal:/kept/many", "many-back"),
    ] {
        let (outcome, client, agent) = measured(here, &[from, to]);
        eprintln!("{from} to {to}: client {client} MiB, agent {agent} MiB, {}", outcome.stdout);
        assert!(client > 0 && client < 64, "{from} to {to}: the client took {client} MiB");
        assert!(agent > 0 && agent < 64, "{from} to {to}: the agent took {agent} MiB");
    }
    let back = fs::metadata(here.join("sparse-back")).unwrap();
    assert!(back.len() == size && back.blocks() * 512 < 1_000_000);
    in_pod("rm -rf /kept/sparse /kept/many").ok();
}
