//! `postern exec`: any pod, with and without the agent.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::{Outcome, apply, enabled, eventually, kubectl, marker, postern, run, with_stdin};
use std::process::Stdio;
use std::time::Duration;

const NAMESPACE: &str = "postern-e2e-exec";

/// A pod of two containers, a Deployment, and one without a shell.
fn ready() -> bool {
    if !enabled() {
        return false;
    }
    kubectl(&["create", "namespace", NAMESPACE]);
    apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: two, namespace: postern-e2e-exec, labels: {app: two},\n\
         annotations: {kubectl.kubernetes.io/default-container: tools}}\n\
         spec: {terminationGracePeriodSeconds: 0, containers: [{name: first, image: 'busybox:1.35', command: [sleep, infinity]},\n\
         {name: tools, image: 'debian-tools:12', command: [sleep, infinity]}]}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: bare, namespace: postern-e2e-exec}\n\
         spec: {terminationGracePeriodSeconds: 0, containers: [{name: app, image: 'scratch-static:1'}]}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: postern-e2e-exec}\n\
         spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}},\n\
         spec: {terminationGracePeriodSeconds: 0, containers: [{name: a, image: 'busybox:1.35', command: [sleep, infinity]}]}}}\n---\n\
         apiVersion: batch/v1\nkind: Job\nmetadata: {name: work, namespace: postern-e2e-exec}\n\
         spec: {template: {spec: {restartPolicy: Never, terminationGracePeriodSeconds: 0,\n\
         containers: [{name: a, image: 'busybox:1.35', command: [sleep, infinity]}]}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: postern-e2e-exec}\n\
         spec: {selector: {app: web}, ports: [{port: 80}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: all, namespace: postern-e2e-exec}\nspec: {clusterIP: None}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: wrong, namespace: postern-e2e-exec,\n\
         annotations: {postern.dev/agent: /nowhere}}\n\
         spec: {terminationGracePeriodSeconds: 0, containers: [{name: a, image: 'busybox:1.35', command: [sleep, infinity]}]}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: never, namespace: postern-e2e-exec}\n\
         spec: {containers: [{name: a, image: 'no-such-image:1', imagePullPolicy: Never}]}\n",
    );
    kubectl(&[
        "wait",
        "-n",
        NAMESPACE,
        "--for=condition=Ready",
        "pod/two",
        "pod/bare",
        "pod/wrong",
        "--timeout=60s",
    ])
    .ok();
    kubectl(&["wait", "-n", NAMESPACE, "--for=jsonpath={.status.ready}=1", "job/work", "--timeout=60s"]).ok();
    kubectl(&["rollout", "status", "-n", NAMESPACE, "deploy/web", "--timeout=60s"]).ok();
    true
}

fn exec(args: &[&str]) -> Outcome {
    Outcome::of(postern().args(["exec", "-n", NAMESPACE]).args(args))
}

#[test]
fn targets_and_containers_are_chosen_as_kubectl_does() {
    if !ready() {
        return;
    }
    assert!(exec(&["two", "--", "cat", "/etc/os-release"]).ok().stdout.contains("Debian"));
    assert!(exec(&["pod/two", "-c", "first", "--", "busybox"]).ok().stdout.contains("BusyBox"));
    exec(&["two", "-c", "none", "--", "true"])
        .exits(127)
        .says(&["no container \"none\"; it has: first, tools"]);
    assert!(exec(&["deploy/web", "--", "cat", "/etc/hostname"]).ok().stdout.starts_with("web-"));
    assert_eq!(exec(&["-l", "app=two", "--", "cat", "/etc/hostname"]).ok().stdout, "two\n");
    exec(&["-l", "app=none", "--", "true"]).exits(127).says(&["no running pod"]);
    exec(&["nobody", "--", "true"]).exits(127).says(&["there is no pod nobody"]);
    exec(&["cm/x", "--", "true"]).exits(2).says(&["not a kind with pods"]);
    exec(&["deploy/none", "--", "true"]).exits(127).says(&["none"]);
    assert!(exec(&["svc/web", "--", "cat", "/etc/hostname"]).ok().stdout.starts_with("web-"));
    assert!(exec(&["job/work", "--", "cat", "/etc/hostname"]).ok().stdout.starts_with("work-"));
    // A Service without a selector is not one of all pods.
    exec(&["svc/all", "--", "true"]).exits(127).says(&["has no selector, and so no pods"]);
    exec(&["never", "--", "true"]).exits(127).says(&["is not running ("]);
    let wrong = exec(&["wrong", "--", "true"]).exits(127);
    wrong.says(&[
        "starting /nowhere, which is the agent by the annotation postern.dev/agent",
        "correct the annotation",
    ]);
}

#[test]
fn a_plain_exec_needs_a_status_and_passes_the_code() {
    if !ready() {
        return;
    }
    let seen = exec(&["two", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]).exits(42);
    assert_eq!((seen.stdout.as_str(), seen.stderr.as_str()), ("out\n", "err\n"));
    exec(&["two", "--", "no-such-tool"]).exits(127).says(&["container runtime could not start"]);
    let data = vec![b'x'; 3_000_000];
    let mut command = postern();
    command.args(["exec", "-n", NAMESPACE, "two", "-i", "--", "cat"]);
    assert_eq!(with_stdin(&mut command, &data).ok().stdout.len(), data.len());
    assert!(exec(&["-v", "two", "--", "true"]).ok().stderr.contains("no agent in this container"));
    exec(&["two", "--timeout", "500ms", "--", "sleep", "30"]).exits(137).says(&["may run on"]);
    // Whatever needs the agent, its absence is one class.
    let cases: [(&[&str], &str); 4] = [
        (&["--require-agent"], "--require-agent"),
        (&["-e", "A=1"], "--env"),
        (&["-w", "/tmp"], "--workdir"),
        (&["-w", "/tmp", "-e", "A=1"], "--env, --workdir"),
    ];
    for (options, named) in cases {
        let words = format!("{named} needs the agent, and container tools of pod {NAMESPACE}/two has none");
        exec(&[&["two"], options, &["--", "true"]].concat()).exits(127).says(&[&words, "--inject"]);
        let seen = exec(&[&["two", "-o", "json"], options, &["--", "true"]].concat()).exits(127);
        assert!(seen.stderr.contains(r#""kind":"never-reached""#), "{}", seen.stderr);
    }
    assert_eq!(exec(&["bare", "--", "/app", "echo", "hi"]).ok().stdout, "hi\n");
    exec(&["bare", "--", "/app", "exit", "11"]).exits(11);
}

#[test]
fn an_injected_agent_makes_its_promises_and_leaves_nothing() {
    if !ready() {
        return;
    }
    for container in ["tools", "first"] {
        let seen = exec(&[
            "two",
            "-c",
            container,
            "--inject",
            "-e",
            "A=1",
            "-w",
            "/tmp",
            "--",
            "sh",
            "-c",
            "echo $A; pwd; exit 6",
        ]);
        assert_eq!(seen.exits(6).stdout, "1\n/tmp\n");
        let seen = exec(&["two", "-c", container, "--inject", "-o", "json", "--", "seq", "1", "100000"]).ok();
        assert_eq!(seen.stdout.len(), 588_895);
        assert!(seen.stderr.contains("\"stdoutBytes\":588895"), "{}", seen.stderr);
        let left =
            exec(&["two", "-c", container, "--", "sh", "-c", "ls -A /tmp /dev/shm /var/tmp 2>/dev/null"])
                .stdout;
        assert!(!left.contains("postern"), "{left}");
    }
    exec(&["bare", "--inject", "--", "/app"]).exits(127).says(&["has no shell"]);

    let sleep = marker();
    let mut client = postern()
        .args(["exec", "-n", NAMESPACE, "two", "--inject", "--", "sleep", &sleep])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let runs = || {
        let script = "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'";
        exec(&["two", "--", "sh", "-c", script]).stdout.lines().any(|line| line == sleep)
    };
    eventually("it runs", Duration::from_secs(15), runs);
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("no orphan", Duration::from_secs(15), || !runs());
}

#[test]
fn an_injected_agent_that_cannot_run_is_removed_or_named() {
    if !ready() {
        return;
    }
    // One of an earlier run of the tests has another `rm`.
    kubectl(&["delete", "pod", "spoilt", "-n", NAMESPACE, "--ignore-not-found"]).ok();
    // A `head` before the real one spoils what is uploaded, so that the kernel does not take it for a program.
    apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: spoilt, namespace: postern-e2e-exec}\n\
         spec: {terminationGracePeriodSeconds: 0, volumes: [{name: fake, emptyDir: {}}],\n\
         initContainers: [{name: fake, image: 'busybox:1.35', volumeMounts: [{name: fake, mountPath: /fake}], command: [sh, -c,\n\
         'printf \"#!/bin/sh\\n/usr/bin/head \\\"\\$@\\\" | tr E X\\n\" >/fake/head && chmod 755 /fake/head']}],\n\
         containers: [{name: a, image: 'debian-tools:12', command: [sleep, infinity], env: [{name: PATH, value: '/fake:/usr/bin:/bin'}],\n\
         volumeMounts: [{name: fake, mountPath: /fake}]}]}\n",
    );
    kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/spoilt", "--timeout=60s"]).ok();
    let left = || {
        let list = ["spoilt", "--", "sh", "-c", "ls -A /tmp /dev/shm /var/tmp /run / 2>/dev/null; true"];
        exec(&list).ok().stdout.lines().filter(|line| line.contains("postern")).count()
    };
    let seen = exec(&["spoilt", "--inject", "--", "true"]).exits(127);
    assert!(seen.stderr.contains("what arrived is not the agent"), "{}", seen.stderr);
    assert_eq!(left(), 0, "{}", seen.stderr);
    exec(&["spoilt", "--", "sh", "-c", "printf '#!/bin/sh\\nexit 0\\n' >/fake/rm; chmod 755 /fake/rm"]).ok();
    exec(&["spoilt", "--inject", "--", "true"]).exits(127).says(&[
        "the agent's file /",
        "may still be in container a of pod postern-e2e-exec/spoilt; remove it by hand",
        "is still there",
    ]);
    assert_eq!(left(), 1);
}

#[test]
fn a_pod_that_has_ended_is_said_to_have() {
    if !ready() {
        return;
    }
    apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: over, namespace: postern-e2e-exec}\n\
         spec: {restartPolicy: Never, containers: [{name: a, image: 'busybox:1.35', command: ['true']}]}\n",
    );
    kubectl(&[
        "wait",
        "-n",
        NAMESPACE,
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/over",
        "--timeout=60s",
    ])
    .ok();
    exec(&["over", "--", "true"]).exits(127).says(&["has ended"]);
}

#[test]
fn the_program_itself_runs_in_a_scratch_image_and_resolves_names() {
    if !ready() {
        return;
    }
    // The static binary is carried into a container that has nothing but /app, and finds the API by name.
    let program = std::env::var("POSTERN_BIN").unwrap_or_default();
    if program.is_empty() || !e2e::testbed() {
        return;
    }
    kubectl(&[
        "create",
        "clusterrolebinding",
        "postern-e2e-dns",
        "--clusterrole=view",
        "--serviceaccount=postern-e2e-exec:default",
    ]);
    apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: dns, namespace: postern-e2e-exec}\n\
         spec: {terminationGracePeriodSeconds: 0, containers: [{name: app, image: 'scratch-static:1',\n\
         env: [{name: KUBERNETES_SERVICE_HOST, value: kubernetes.default.svc}],\n\
         volumeMounts: [{name: bin, mountPath: /bin-here}]},\n\
         {name: loader, image: 'busybox:1.35', command: [sleep, infinity], volumeMounts: [{name: bin, mountPath: /bin-here}]}],\n\
         volumes: [{name: bin, emptyDir: {}}]}\n",
    );
    kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/dns", "--timeout=60s"]).ok();
    let mut load = postern();
    load.args([
        "exec",
        "-n",
        NAMESPACE,
        "dns",
        "-c",
        "loader",
        "-i",
        "--",
        "sh",
        "-c",
        "cat >/bin-here/postern && chmod 755 /bin-here/postern",
    ]);
    with_stdin(&mut load, &std::fs::read(&program).unwrap()).ok();
    let seen = exec(&["dns", "-c", "app", "--", "/bin-here/postern", "ops", "show", "-o", "json"]).ok();
    assert!(seen.json()["namespace"] == "postern-ops", "{}", seen.stdout);
    kubectl(&["delete", "clusterrolebinding", "postern-e2e-dns"]).ok();
    run(&["--version"]).ok();
}

#[test]
fn either_protocol_carries_both_directions_and_the_code() {
    if !ready() {
        return;
    }
    let input = "0123456789abcdef\n".repeat(64 * 1024);
    for protocol in ["spdy", "websocket"] {
        let mut command = postern();
        command.env("POSTERN_EXEC_PROTOCOL", protocol);
        command.args(["exec", "-n", NAMESPACE, "-i", "two", "--", "sh", "-c", "cat; echo end >&2; exit 3"]);
        let seen = with_stdin(&mut command, input.as_bytes()).exits(3);
        assert_eq!((seen.stdout.len(), seen.stderr.as_str()), (input.len(), "end\n"), "{protocol}");
        assert!(seen.stdout == input, "{protocol}");
    }
    let mut command = postern();
    command.env("POSTERN_EXEC_PROTOCOL", "http").args(["exec", "-n", NAMESPACE, "two", "--", "true"]);
    let seen = Outcome::of(&mut command);
    assert!(
        seen.stderr.contains("POSTERN_EXEC_PROTOCOL") && seen.stderr.contains("\"http\""),
        "{}",
        seen.stderr
    );
    assert_eq!(seen.stdout, "");
}
