//! `exec` and `run` over many targets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::{Outcome, apply, each_transport, enabled, eventually, install, kubectl, marker, postern};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

const NAMESPACE: &str = "postern-e2e-fanout";

/// A Deployment of three, a pod of two containers, one that has ended and one that never begins.
fn ready() -> bool {
    if !enabled() {
        return false;
    }
    kubectl(&["create", "namespace", NAMESPACE]);
    apply(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: postern-e2e-fanout}\n\
         spec: {replicas: 3, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}},\n\
         spec: {terminationGracePeriodSeconds: 0, containers: [{name: a, image: 'busybox:1.35', command: [sleep, infinity]}]}}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: two, namespace: postern-e2e-fanout, labels: {app: two}}\n\
         spec: {terminationGracePeriodSeconds: 0, containers: [{name: first, image: 'busybox:1.35', command: [sleep, infinity]},\n\
         {name: tools, image: 'debian-tools:12', command: [sleep, infinity]}]}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: over, namespace: postern-e2e-fanout, labels: {app: two}}\n\
         spec: {restartPolicy: Never, containers: [{name: a, image: 'busybox:1.35', command: ['true']}]}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: homeless, namespace: postern-e2e-fanout}\n\
         spec: {nodeSelector: {no: such}, containers: [{name: a, image: 'busybox:1.35'}]}\n",
    );
    kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/two", "--timeout=60s"]).ok();
    let over = "--for=jsonpath={.status.phase}=Succeeded";
    kubectl(&["wait", "-n", NAMESPACE, over, "pod/over", "--timeout=60s"]).ok();
    kubectl(&["rollout", "status", "-n", NAMESPACE, "deploy/web", "--timeout=60s"]).ok();
    true
}

fn exec(args: &[&str]) -> Outcome {
    Outcome::of(postern().args(["exec", "-n", NAMESPACE]).args(args))
}

fn records(outcome: &Outcome) -> Vec<Value> {
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn words(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

#[test]
fn every_pod_of_a_workload_answers_with_its_name() {
    if !ready() {
        return;
    }
    for targets in [&["deploy/web", "--all"][..], &["-l", "app=web", "--all"]] {
        let script = "echo $HOSTNAME; echo err >&2; printf unended";
        let seen = exec(&[targets, &["--", "sh", "-c", script]].concat()).ok().says(&["3 targets: 3 ok"]);
        assert_eq!(seen.stdout.lines().count(), 6, "{}", seen.stdout);
        for line in seen.stdout.lines() {
            let (name, said) = line.strip_prefix('[').unwrap().split_once("/a] ").unwrap();
            assert!(said == name || said == "unended", "{line}");
        }
        assert_eq!(
            seen.stderr.lines().filter(|line| line.ends_with("/a] err")).count(),
            3,
            "{}",
            seen.stderr
        );
        assert!(!seen.stdout.contains('\x1b'));
    }
    // Without --all it is one, as ever; with another option of a fan-out it is one with its name.
    assert!(exec(&["-l", "app=web", "--", "echo", "one"]).ok().stdout == "one\n");
    assert!(exec(&["deploy/web", "--parallel", "2", "--", "echo", "one"]).ok().stdout.ends_with("/a] one\n"));
}

#[test]
fn output_is_grouped_or_a_record() {
    if !ready() {
        return;
    }
    let pods = ["two", "two", "deploy/web"];
    let script = "for i in 1 2 3; do echo $i; done; exit 4";
    let seen = exec(&[&pods, &["--group", "--", "sh", "-c", script][..]].concat()).exits(4);
    let groups: Vec<_> = seen.stdout.split("==> ").skip(1).collect();
    assert_eq!(groups.len(), 3, "{}", seen.stdout);
    assert!(groups.iter().all(|group| group.ends_with(": exit 4 <==\n1\n2\n3\n")), "{}", seen.stdout);

    // More than is held in memory comes out whole, in groups, and in part, in records.
    let big = ["--", "sh", "-c", "yes 0123456789abcde | head -c 3000000"];
    let seen = exec(&[&pods, &["--group"][..], &big].concat()).ok();
    for group in seen.stdout.split("==> ").skip(1) {
        let (_, content) = group.split_once(" <==\n").unwrap();
        assert_eq!(content.len(), 3_000_000);
        assert!(content.lines().all(|line| line == "0123456789abcde"));
    }
    let seen = exec(&[&["two", "two", "-o", "json"][..], &big].concat()).ok();
    for record in records(&seen) {
        assert_eq!(record["stdoutBytes"], 3_000_000);
        assert_eq!((record["stdout"].as_str().unwrap().len(), &record["truncated"]), (1 << 20, &true.into()));
    }

    let seen =
        exec(&["two", "nobody", "-o", "json", "--", "sh", "-c", "printf out; printf err >&2"]).exits(127);
    let of = |name: &str| {
        records(&seen).into_iter().find(|record| record["target"] == name).unwrap_or_else(|| panic!("{name}"))
    };
    let two = of("two/first");
    assert_eq!((&two["exitCode"], &two["outcome"]), (&0.into(), &"exited".into()));
    assert_eq!(
        (&two["stdout"], &two["stderr"], &two["truncated"]),
        (&"out".into(), &"err".into(), &false.into())
    );
    assert_eq!((&two["stdoutBytes"], &two["stderrBytes"]), (&3.into(), &3.into()));
    assert!(two["durationMs"].is_u64() && two["error"].is_null());
    let nobody = of("nobody");
    assert_eq!((&nobody["exitCode"], &nobody["error"]["kind"]), (&127.into(), &"never-reached".into()));
    let summary: Value = serde_json::from_str(seen.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["summary"]["ok"], &summary["summary"]["notReached"]), (&1.into(), &1.into()));
    assert!(exec(&["two", "two", "-o", "yaml", "--", "true"]).ok().stdout.starts_with("---\n"));
}

#[test]
fn a_dead_target_blocks_no_other_and_is_named() {
    if !ready() {
        return;
    }
    let targets = ["over", "homeless", "nobody", "deploy/none", "two", "deploy/web"];
    let seen = exec(&[&targets, &["--parallel", "1", "--", "sh", "-c", "echo in; exit 5"][..]].concat());
    let seen = seen.exits(127).says(&[
        "6 targets: 0 ok, 2 failed (exit codes 5 ×2), 4 not reached",
        "has ended (Succeeded)",
        "is not running (Pending)",
        "there is no pod nobody",
        "deployment/none: not reached: ",
    ]);
    assert_eq!(seen.stdout.lines().filter(|line| line.ends_with("] in")).count(), 2, "{}", seen.stdout);
    // Of a selector too: what does not run is no reason to be silent.
    exec(&["-l", "app=two", "--all", "--", "true"])
        .exits(127)
        .says(&["2 targets: 1 ok, 1 not reached", "over"]);
    exec(&["-l", "app=none", "--all", "--", "true"]).exits(127).says(&["no pod in namespace"]);
    exec(&["two", "over", "--timeout", "500ms", "--", "sleep", "30"])
        .exits(137)
        .says(&["1 failed (exit code 137)"]);
}

#[test]
fn every_container_is_one() {
    if !ready() {
        return;
    }
    let seen = exec(&[
        "two",
        "--all-containers",
        "--",
        "sh",
        "-c",
        "test -x /usr/bin/bash && echo bash || echo none",
    ]);
    assert_eq!(words(&seen.ok().stdout), BTreeSet::from(["[two/first] none", "[two/tools] bash"]));
    // With the agent put there, output is proven and options are honoured.
    let seen = exec(&["two", "--all-containers", "--inject", "-e", "A=1", "--", "sh", "-c", "echo $A"]).ok();
    assert_eq!(words(&seen.stdout), BTreeSet::from(["[two/first] 1", "[two/tools] 1"]));
    let seen = exec(&["two", "--all-containers", "-e", "A=1", "--", "true"]).exits(127);
    seen.says(&["2 targets: 0 ok, 2 not reached", "--env needs the agent"]);
}

fn runs(argument: &str) -> usize {
    let script = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'";
    exec(&["two", "-c", "tools", "--", "sh", "-c", script])
        .stdout
        .lines()
        .filter(|line| *line == argument)
        .count()
}

/// A client whose every target sleeps with this marker.
fn sleeping(options: &[&str], sleep: &str) -> Child {
    let mut command = postern();
    command.args(["exec", "-n", NAMESPACE, "two", "two", "-c", "tools", "--inject"]).args(options);
    command.args(["--", "sleep", sleep]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn the_first_failure_and_a_signal_end_all() {
    if !ready() {
        return;
    }
    // The first comes when the others sleep in earnest.
    let script = "test -e /usr/bin/bash && exec sleep 1000; sleep 1; exit 3";
    let fail_fast =
        ["two", "--all-containers", "--parallel", "2", "--fail-fast", "-o", "json", "--", "sh", "-c", script];
    let seen = exec(&fail_fast).exits(137);
    let ends: BTreeSet<_> = records(&seen).iter().map(|record| record["outcome"].to_string()).collect();
    assert_eq!(ends, BTreeSet::from(["\"cancelled\"".to_owned(), "\"exited\"".to_owned()]));
    let never =
        exec(&["nobody", "two", "two", "--parallel", "1", "--fail-fast", "--", "echo", "in"]).exits(137);
    assert_eq!(never.stdout, "");
    never.says(&["3 targets: 0 ok, 1 not reached, 2 cancelled"]);

    let sleep = marker();
    let client = sleeping(&[], &sleep);
    eventually("both run", Duration::from_secs(30), || runs(&sleep) == 2);
    let pid = client.id().to_string();
    Outcome::of(std::process::Command::new("kill").args(["-INT", &pid])).ok();
    let seen = Outcome::from(client.wait_with_output().unwrap()).exits(130);
    seen.says(&["2 targets: 0 ok, 2 failed (exit codes 130 ×2)", "ended by signal 2"]);
    eventually("none is left", Duration::from_secs(15), || runs(&sleep) == 0);
}

/// What `seq` prints.
fn numbers(first: u64, last: u64) -> String {
    (first..=last).map(|number| number.to_string() + "\n").collect()
}

#[test]
fn a_run_for_each_value() {
    each_transport(|| {
        install(&[]).ok();
        let run = |args: &[&str]| Outcome::of(postern().args(["run"]).args(args));
        let seen =
            run(&["--each", "a", "--each", "b c", "--", "sh", "-c", "echo \"<{}>\"; echo {} >&2"]).ok();
        assert_eq!(words(&seen.stdout), BTreeSet::from(["[a] <a>", "[b c] <b c>"]));
        seen.says(&["[a] a\n", "[b c] b c\n", "2 targets: 2 ok"]);
        // Values from stdin, more of them than fit at a time, each with its own end.
        let mut many = postern();
        many.args([
            "run",
            "--each",
            "-",
            "--parallel",
            "20",
            "-o",
            "json",
            "--",
            "sh",
            "-c",
            "seq {} 1000; exit {}",
        ]);
        let values = numbers(1, 40);
        let seen = e2e::with_stdin(&mut many, values.as_bytes()).exits(40);
        let records = records(&seen);
        assert_eq!(records.len(), 40);
        for record in records {
            assert_eq!(record["target"], record["exitCode"].to_string());
            let first = record["exitCode"].as_u64().unwrap();
            let whole = numbers(first, 1_000);
            assert_eq!(record["stdout"], whole);
        }
        let seen =
            run(&["--each", "0", "--each", "30", "--timeout", "700ms", "--", "sleep", "{}"]).exits(137);
        seen.says(&["2 targets: 1 ok, 1 failed (exit code 137)", "did not end within"]);
    });
}

/// The client's peak memory in KiB, read while it waits for nothing but us.
fn peak(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_targets() {
    if !ready() {
        return;
    }
    // 1,000 in `cargo xtask bench fanout`; here so many as are quickly done.
    let mut command = postern();
    command.args(["exec", "-n", NAMESPACE, "-c", "tools", "--group"]).args(["two"; 100]);
    command.args(["--", "sh", "-c", "head -c 300000 /dev/zero"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut headings, mut highest) = (0, 0);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).unwrap() > 0 {
        if line.ends_with(b" <==\n") {
            headings += 1;
            highest = highest.max(peak(&child));
        }
        line.clear();
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(headings, 100);
    assert!(highest <= 64 * 1024, "{highest} KiB");
}
