//! `postern job`: a command in a pod of its own, of which nothing stays.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::pods::apply;
use e2e::{Outcome, canary, enabled, eventually, get, kubectl, make_namespace, marker, postern, with_stdin};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

const NAMESPACE: &str = "e2e-job";
const SCRATCH: &str = "docker.io/library/scratch-static:1";
const BUSYBOX: &str = "docker.io/library/busybox:1.35";
const SOON: Duration = Duration::from_secs(20);

fn ready() -> bool {
    static READY: OnceLock<()> = OnceLock::new();
    if !enabled() {
        return false;
    }
    READY.get_or_init(|| make_namespace(NAMESPACE));
    true
}

fn command(args: &[&str]) -> Command {
    let mut command = postern();
    command.args(["job", "-n", NAMESPACE]).args(args);
    command
}

fn job(args: &[&str]) -> Outcome {
    Outcome::of(&mut command(args))
}

/// The Jobs, Pods and Secrets of the namespace.
fn objects() -> String {
    kubectl(&["get", "jobs,pods,secrets", "-n", NAMESPACE, "-o", "name"]).ok().stdout
}

#[track_caller]
fn nothing_stays() {
    eventually("nothing stays", SOON, || objects().is_empty());
}

#[test]
fn a_command_has_its_own_streams_exit_code_environment_and_files() {
    if !ready() {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "from here").unwrap();
    let file = format!("{}=/tmp/file", file.path().display());
    let script = "cat; cat /tmp/file; pwd; echo $NAME; echo err >&2; exit 7";
    let args = ["-i", "--file", &file, "--env", "NAME=value", "-w", "/tmp", "--", "sh", "-c", script];
    let outcome = with_stdin(&mut command(&args), b"stdin ").exits(7).says(&["err"]);
    assert_eq!(outcome.stdout, "stdin from here/tmp\nvalue\n");
    // A large output is complete.
    let outcome = job(&["--", "seq", "1", "200000"]).ok();
    assert!(outcome.stdout.ends_with("\n200000\n") && outcome.stdout.len() == 1_288_895);
    let report = job(&["-o", "json", "--", "true"]).ok();
    assert!(report.stderr.contains("\"exitCode\""), "{}", report.stderr);
    nothing_stays();
}

#[test]
fn an_image_without_a_shell_gets_the_agent() {
    if !ready() {
        return;
    }
    let outcome = job(&["--image", SCRATCH, "--", "/app", "echo", "a", "b"]).ok();
    assert_eq!(outcome.stdout, "a b\n");
    job(&["--image", SCRATCH, "--", "/app", "exit", "3"]).exits(3);
    job(&["--image", SCRATCH, "--", "no-such-tool"]).exits(127).says(&["no-such-tool"]);
    nothing_stays();
}

#[test]
fn what_cannot_start_is_said_early_with_the_fix() {
    if !ready() {
        return;
    }
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota", "namespace": NAMESPACE},
        "spec": {"hard": {"limits.memory": "2Gi"}},
    });
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--image", BUSYBOX, "--", "true"], &["runs as root", "--user UID"]),
        (&["--image", "registry.invalid/none:1", "--", "true"], &["cannot be pulled", "--image"]),
        (&["--image", "UPPER:1", "--", "true"], &["cannot be parsed"]),
        (&["--memory", "4Gi", "--", "true"], &["ResourceQuota", "--memory"]),
        (&["--service-account", "none", "--", "true"], &["ServiceAccount", "--service-account"]),
        (&["--selector", "none=none", "--", "true"], &["no node takes the pod", "--selector"]),
    ];
    apply(&[quota]);
    for (args, words) in cases {
        job(args).exits(127).says(words);
    }
    kubectl(&["delete", "resourcequota", "-n", NAMESPACE, "quota"]).ok();
    // The fix works.
    let fixed = job(&["--image", BUSYBOX, "--user", "65534:65534", "--", "id"]).ok();
    assert!(fixed.stdout.starts_with("uid=65534"), "{}", fixed.stdout);
    Outcome::of(postern().args(["job", "-n", "e2e-job-none", "--", "true"]))
        .exits(127)
        .says(&["e2e-job-none"]);
    nothing_stays();
}

#[test]
fn nothing_stays_of_a_job_that_is_interrupted_or_whose_client_is_killed() {
    if !ready() {
        return;
    }
    let pods = || kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "name"]).ok().stdout;
    // While it starts, and while it runs.
    for (args, is_begun) in [(&["--image", "registry.invalid/none:1"][..], false), (&[][..], true)] {
        for signal in ["-INT", "-KILL"] {
            let sleeps = marker();
            let all =
                [args, &["--start-timeout", "40s", "--timeout", "50s", "--", "sleep", &sleeps]].concat();
            let mut client = command(&all).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            eventually("there is a pod", SOON, || !pods().is_empty());
            if is_begun {
                eventually("the command runs", SOON, || {
                    let script =
                        format!("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q 'sleep {sleeps}'");
                    let pod = pods().trim().to_owned();
                    kubectl(&["exec", "-n", NAMESPACE, &pod, "--", "sh", "-c", &script]).code == 0
                });
            }
            Outcome::of(Command::new("kill").args([signal, &client.id().to_string()])).ok();
            let code = client.wait().unwrap().code();
            if signal == "-INT" {
                assert!(matches!(code, Some(130 | 137)), "{code:?}");
                nothing_stays();
            } else {
                // Nobody deletes it: the command ends with its client, and the Job has a deadline and a time to live.
                let job = get(&["-n", NAMESPACE, "jobs"])["items"][0].clone();
                assert!(job["spec"]["activeDeadlineSeconds"].as_u64() <= Some(150), "{job}");
                assert_eq!(job["spec"]["ttlSecondsAfterFinished"], 60);
                if is_begun {
                    eventually("the pod ends", Duration::from_secs(40), || {
                        get(&["-n", NAMESPACE, "jobs"])["items"][0]["status"]["failed"] == 1
                    });
                }
                kubectl(&["delete", "jobs", "-n", NAMESPACE, "--all"]).ok();
                nothing_stays();
            }
        }
    }
}

#[test]
fn ends_are_told_apart() {
    if !ready() {
        return;
    }
    job(&["--timeout", "2s", "--", "sleep", "60"]).exits(137).says(&["2 s"]);
    let eats = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
    job(&[&["--memory", "32Mi", "--"], &eats[..]].concat()).exits(126).says(&["32Mi", "--memory"]);
    // What the command does to itself is its own end.
    job(&["--", "sh", "-c", "kill -9 $$"]).exits(137);
    // Somebody deletes the Job.
    let client =
        command(&["--", "sleep", "60"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the pod runs", SOON, || {
        let args = ["get", "pods", "-n", NAMESPACE, "--field-selector=status.phase=Running", "-o", "name"];
        !kubectl(&args).ok().stdout.is_empty()
    });
    kubectl(&["delete", "jobs", "-n", NAMESPACE, "--all", "--wait=false"]).ok();
    let outcome = Outcome::from(client.wait_with_output().unwrap());
    assert!(matches!(outcome.code, 126 | 127), "{outcome:?}");
    outcome.says(&["deleted"]);
    nothing_stays();
}

#[test]
fn a_kept_job_says_how_it_ended_and_a_dry_run_creates_nothing() {
    if !ready() {
        return;
    }
    job(&["--keep", "--", "sh", "-c", "exit 5"]).exits(5).says(&["stays"]);
    eventually("the Job has ended", SOON, || {
        get(&["-n", NAMESPACE, "jobs"])["items"][0]["status"]["failed"] == 1
    });
    let pods = get(&["-n", NAMESPACE, "pods"]);
    assert_eq!(pods["items"][0]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 5);
    kubectl(&["delete", "jobs", "-n", NAMESPACE, "--all"]).ok();
    nothing_stays();
    let planned = job(&["--dry-run", "-o", "json", "--cpu", "2", "--", "true"]).ok().json();
    assert_eq!(planned["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
    assert!(objects().is_empty());
    job(&["--dry-run", "--cpu", "two", "--", "true"]).exits(2).says(&["--cpu", "\"two\""]);
}

/// The command, its environment and its files are in no object and no log.
#[test]
fn nothing_of_a_command_is_in_an_object_or_log() {
    if !ready() {
        return;
    }
    let begin = e2e::audit_length();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), canary()).unwrap();
    let file = format!("{}=/tmp/key", file.path().display());
    let key = format!("KEY={}", canary());
    let mut with_key =
        command(&["--keep", "--credential", "IBMCLOUD_API_KEY", "--file", &file, "--env", &key]);
    with_key.args(["--", "sh", "-c", "printf %s \"$IBMCLOUD_API_KEY\" | sha256sum; sha256sum </tmp/key"]);
    let outcome = Outcome::of(with_key.env("IBMCLOUD_API_KEY", canary())).ok();
    let sums: Vec<_> = outcome.stdout.lines().collect();
    assert!(sums.len() == 2 && sums[0] == sums[1], "{}", outcome.stdout);
    let mut seen = vec![
        kubectl(&["get", "jobs,pods,secrets,configmaps,events", "-n", NAMESPACE, "-o", "json"]).ok().stdout,
    ];
    let pod = get(&["-n", NAMESPACE, "pods"])["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    seen.push(kubectl(&["logs", "-n", NAMESPACE, &pod, "--all-containers"]).ok().stdout);
    assert!(seen[1].contains("sha256sum"), "the audit line names the command");
    if e2e::testbed() {
        seen.push(e2e::audit_since(begin));
    }
    for text in seen {
        assert!(!text.contains(canary()) && !text.contains("Zq7%2FhJ2"), "{text}");
    }
    kubectl(&["delete", "jobs", "-n", NAMESPACE, "--all"]).ok();
    nothing_stays();
}

/// `POSTERN_SOAK_JOBS` of them, 20 at a time; else 20, 5 at a time.
#[test]
fn many_jobs_lose_no_output_and_leave_nothing() {
    if !ready() {
        return;
    }
    let chosen: Option<usize> = std::env::var("POSTERN_SOAK_JOBS").ok().map(|count| count.parse().unwrap());
    let (count, at_a_time) = chosen.map_or((20, 5), |count| (count, 20));
    let numbers: Vec<usize> = (0..count).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while let Some(number) = numbers.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    let last = (1_000 + number).to_string();
                    let outcome = job(&["--start-timeout", "5m", "--", "seq", "1", &last]).ok();
                    assert_eq!(outcome.stdout.lines().count(), 1_000 + number);
                    assert!(outcome.stdout.ends_with(&format!("\n{last}\n")));
                }
            });
        }
    });
    eventually("nothing stays", Duration::from_secs(60), || objects().is_empty());
}

/// The server's own objects of a Job, as a check that the plan is what the API server stores.
#[test]
fn the_api_server_stores_the_plan() {
    if !ready() {
        return;
    }
    let args = [
        "--dry-run",
        "-o",
        "json",
        "--node",
        "node-1",
        "--tolerate",
        "*",
        "--selector",
        "a=b",
        "--user",
        "7:8",
    ];
    let stored: Value = job(&[&args[..], &["--", "true"]].concat()).ok().json();
    let pod = &stored["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({"a": "b"}));
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(pod["securityContext"]["runAsUser"], 7);
    assert_eq!(stored["spec"]["backoffLimit"], 0);
}
