//! `cp` and `sync`: files in and out of pods, by every way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::proxy::Cutter;
use e2e::tree::{random, seen, torture};
use e2e::{Outcome, apply, enabled, eventually, kubeconfig_by_way_of, kubectl, postern, server, with_stdin};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const NAMESPACE: &str = "postern-e2e-copy";
const IMAGE: &str = "ghcr.io/postern-dev/postern-ops:dev";

static MADE: std::sync::Once = std::sync::Once::new();

/// The pods of the tests: with tools, with little, with nothing, and with the agent.
fn ready() -> bool {
    if !enabled() {
        return false;
    }
    MADE.call_once(make);
    true
}

/// New ones, as an earlier run may have left its files.
fn make() {
    kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s"]).ok();
    kubectl(&["create", "namespace", NAMESPACE]).ok();
    let pod = |name: &str, container: Value, volumes: Value| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "copy"},
                "annotations": if name == "agent" { json!({"postern.dev/agent": "/usr/local/bin/postern-agent"}) } else { json!({}) }},
            "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "containers": [container], "volumes": volumes}})
    };
    let sleeping = |image: &str| json!({"name": "app", "image": image, "command": ["sleep", "infinity"]});
    let mut tools = sleeping("debian-tools:12");
    tools["volumeMounts"] = json!([
        {"name": "small", "mountPath": "/small"},
        {"name": "config", "mountPath": "/etc/app.conf", "subPath": "app.conf"},
    ]);
    let volumes = json!([
        {"name": "small", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
        {"name": "config", "emptyDir": {}},
    ]);
    let init = json!([{"name": "init", "image": "busybox:1.35", "command": ["sh", "-c", "echo old > /v/app.conf"],
        "volumeMounts": [{"name": "config", "mountPath": "/v"}]}]);
    let mut tools = pod("tools", tools, volumes);
    tools["spec"]["initContainers"] = init;
    let agent = json!({"name": "app", "image": IMAGE, "command": ["/usr/local/bin/postern-agent", "serve"],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]});
    let items = json!([
        tools,
        pod("little", sleeping("busybox:1.35"), json!([])),
        pod("nothing", json!({"name": "app", "image": "scratch-static:1"}), json!([])),
        pod("agent", agent, json!([{"name": "tmp", "emptyDir": {}}])),
    ]);
    apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "pod", "--all", "--timeout=90s"]).ok();
}

fn cp(folder: &Path, args: &[&str]) -> Outcome {
    Outcome::of(postern().current_dir(folder).args(["cp", "-n", NAMESPACE]).args(args))
}

fn sync(folder: &Path, args: &[&str]) -> Outcome {
    Outcome::of(postern().current_dir(folder).args(["sync", "-n", NAMESPACE]).args(args))
}

/// A command in a pod.
fn in_pod(pod: &str, command: &[&str]) -> Outcome {
    kubectl(&[&["exec", "-n", NAMESPACE, pod, "-c", "app", "--"], command].concat())
}

/// The numbers of a summary.
fn summary(outcome: &Outcome) -> Value {
    let line = outcome.stdout.lines().last().unwrap_or_default();
    serde_json::from_str::<Value>(line).unwrap()["summary"].clone()
}

/// How many copies of small files `cargo xtask soak copy` asks for; nothing in a common run of the tests.
fn soak() -> Option<usize> {
    std::env::var("POSTERN_SOAK_COPIES").ok()?.parse().ok()
}

#[test]
fn proof_1_a_tree_of_every_kind_goes_round_by_every_way() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let files = if soak().is_some() { 10_000 } else { 1_500 };
    torture(&folder.path().join("tree"), files);
    let want = seen(&folder.path().join("tree"));
    for (pod, way) in
        [("tools", "inject"), ("little", "inject"), ("agent", "agent"), ("nothing", "ephemeral")]
    {
        let there = format!("{pod}:/tmp/tree");
        let up = cp(folder.path(), &["-v", "tree", &there]).ok();
        assert!(up.stderr.contains(&format!("reached by {way}")), "{}", up.stderr);
        let back = format!("back-{pod}");
        cp(folder.path(), &[&there, &back]).ok();
        let got = seen(&folder.path().join(&back));
        for (path, text) in &want {
            assert_eq!(got.get(path), Some(text), "{pod}: {}", String::from_utf8_lossy(path).escape_debug());
        }
        assert_eq!(got.len(), want.len(), "{pod}");
        // Nothing of ours is left there.
        let again = cp(folder.path(), &["--clean", &there]).ok();
        assert!(again.stderr.contains("0 unfinished files"), "{}", again.stderr);
    }
    assert!(!in_pod("tools", &["ls", "-a", "/tmp"]).ok().stdout.contains("postern"));
    // From pod to pod, through us.
    cp(folder.path(), &["tools:/tmp/tree", "little:/tmp/second"]).ok();
    cp(folder.path(), &["little:/tmp/second", "third"]).ok();
    assert_eq!(seen(&folder.path().join("third")), want);
    // Again: nothing is sent.
    let second = sync(folder.path(), &["-o", "json", "tree", "tools:/tmp/tree"]).ok();
    let numbers = summary(&second);
    assert_eq!((&numbers["written"], &numbers["unchanged"]), (&json!(0), &json!(files + 11)), "{numbers}");
}

#[test]
fn proof_2_cut_connections_and_killed_clients_cost_little_and_nothing_is_lost() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // As many cuts as there are have to fit into it.
    let (size, cuts, after): (usize, i64, fn(i64) -> i64) = match soak() {
        Some(_) => (1 << 30, 200, |number| 4_000_000 + number % 7 * 500_000),
        None => (48 << 20, 4, |number| 9_000_000 + number % 7 * 1_300_000),
    };
    let content = random(size, 2);
    fs::write(folder.path().join("big"), &content).unwrap();
    let sent = |outcome: &Outcome| usize::try_from(summary(outcome)["sentBytes"].as_u64().unwrap()).unwrap();
    // Cut again and again: one command sees it through, each way.
    for (from, to) in [("big", "tools:/tmp/cut"), ("tools:/tmp/cut", "cut")] {
        let proxy = Cutter::start(&server(), cuts, after);
        let config = kubeconfig_by_way_of(&proxy.server);
        let mut command = postern();
        command.current_dir(folder.path()).env("KUBECONFIG", config.path());
        let outcome = Outcome::of(command.args(["cp", "-n", NAMESPACE, "-o", "json", from, to])).ok();
        assert!(proxy.cuts() >= cuts / 2, "{}", proxy.cuts());
        let bytes = sent(&outcome);
        eprintln!("{from} to {to}: {} cuts, {}", proxy.cuts(), summary(&outcome));
        assert!(bytes < size + size / 10 + 8 * 1024 * 1024, "{bytes}: {}", outcome.stderr);
        assert_eq!(summary(&outcome)["written"], 1);
    }
    assert!(fs::read(folder.path().join("cut")).unwrap() == content);
    // Killed: the same command goes on.
    let mut child = postern()
        .current_dir(folder.path())
        .args(["cp", "-n", NAMESPACE, "--bwlimit", "16M", "big", "tools:/tmp/killed"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let partial = "/tmp/.killed.postern-partial";
    eventually("a part has arrived", Duration::from_secs(30), || {
        // Its blocks, as its length is that of the whole from the beginning.
        let blocks =
            in_pod("tools", &["sh", "-c", &format!("stat -c %b {partial} 2>/dev/null || echo 0")]).stdout;
        blocks.trim().parse::<u64>().unwrap_or(0) * 512 > 20_000_000
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(in_pod("tools", &["test", "-e", "/tmp/killed"]).code, 0, "nothing half-written has the name");
    let rest = cp(folder.path(), &["-o", "json", "big", "tools:/tmp/killed"]).ok();
    assert!(sent(&rest) < size - 13_000_000, "{}", sent(&rest));
    cp(folder.path(), &["tools:/tmp/killed", "killed"]).ok();
    assert!(fs::read(folder.path().join("killed")).unwrap() == content);
}

#[test]
fn proof_3_copies_of_many_small_files_do_not_hang() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::create_dir(here.join("many")).unwrap();
    for number in 0..5_500 {
        fs::write(here.join(format!("many/{number}")), format!("{number}")).unwrap();
    }
    for round in 0..soak().unwrap_or(2) {
        in_pod("little", &["rm", "-rf", "/tmp/many"]).ok();
        let up = summary(&cp(here, &["-o", "json", "many", "little:/tmp/many"]).ok());
        assert_eq!(up["written"], 5_500, "{round}: {up}");
        let down = summary(&cp(here, &["-o", "json", "little:/tmp/many", "back"]).ok());
        assert_eq!(down["written"], 5_500, "{round}: {down}");
        fs::remove_dir_all(here.join("back")).unwrap();
    }
}

#[test]
fn streams_wildcards_and_many_pods_are_as_users_of_a_shell_expect() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    in_pod(
        "little",
        &[
            "sh",
            "-c",
            "mkdir -p /tmp/w/d && cd /tmp/w && echo 1 > a.log; echo 2 > b.log; echo 3 > d/c.log; echo 4 > x",
        ],
    )
    .ok();
    cp(here, &["little:/tmp/w/*.log", "."]).ok();
    assert!(here.join("a.log").exists() && here.join("b.log").exists() && !here.join("x").exists());
    fs::create_dir(here.join("all")).unwrap();
    cp(here, &["little:/tmp/w/**/[c-d].log", "all/"]).ok();
    assert_eq!(fs::read_to_string(here.join("all/c.log")).unwrap(), "3\n");
    cp(here, &["little:/tmp/w/*.none", "."]).exits(1).says(&["nothing matches /tmp/w/*.none"]);
    cp(here, &["little:/tmp/none", "."]).exits(1).says(&["/tmp/none: No such file or directory"]);
    // One of several that is not there: the others are copied, as by cp(1).
    for there in ["part", "little:/tmp/part"] {
        cp(here, &["a.log", "none", "b.log", there])
            .exits(1)
            .says(&["there is no directory", "to copy into"]);
    }
    fs::create_dir(here.join("part")).unwrap();
    cp(here, &["a.log", "none", "part"])
        .exits(1)
        .says(&["none: failed (No such file or directory", "1 file copied"]);
    assert!(here.join("part/a.log").exists());
    cp(here, &["little:/tmp/none", "little:/tmp/w/x", "part"])
        .exits(1)
        .says(&["none: failed (No such file or directory", "1 file copied"]);
    let dry = cp(here, &["--dry-run", "-o", "json", "part/.", "little:/tmp/not-yet"]).ok();
    assert!(
        dry.stdout.contains(r#""made":0"#) && dry.stdout.contains(r#""fate":"planned""#),
        "{}",
        dry.stdout
    );
    cp(here, &["--exclude", "*.log", "--include", "b.log", "little:/tmp/w", "some"]).ok();
    assert!(
        here.join("some/b.log").exists() && !here.join("some/a.log").exists() && here.join("some/x").exists()
    );
    // What a wildcard finds may be left out; a file that is called like one is meant, and no other.
    fs::create_dir(here.join("found")).unwrap();
    cp(here, &["little:/tmp/w/*.log", "found", "--exclude", "b.*"]).ok();
    let found = |name: &str| here.join("found").join(name).exists();
    assert!(found("a.log") && !found("b.log"));
    cp(here, &["little:/tmp/w/*.log", "found", "--exclude", "*"]).exits(1).says(&["is left out"]);
    in_pod("little", &["sh", "-c", "cd /tmp/w && echo 5 > '*.log'"]).ok();
    fs::create_dir(here.join("just")).unwrap();
    cp(here, &["little:/tmp/w/*.log", "just"]).ok();
    assert_eq!(fs::read_dir(here.join("just")).unwrap().count(), 1);
    assert!(here.join("just/*.log").exists());
    in_pod("little", &["sh", "-c", "rm '/tmp/w/*.log'; echo 7 > '/tmp/w/odd[name'"]).ok();
    for way in ["auto", "tar", "shell"] {
        cp(here, &["--via", way, "little:/tmp/w/odd[name", "odd"]).ok();
        assert_eq!(fs::read_to_string(here.join("odd")).unwrap(), "7\n");
        fs::remove_file(here.join("odd")).unwrap();
    }
    // Contents of a directory, and more, in any order.
    fs::create_dir_all(here.join("contents/deep")).unwrap();
    fs::write(here.join("contents/deep/f"), "6").unwrap();
    in_pod("little", &["mkdir", "-p", "/tmp/both"]).ok();
    cp(here, &["a.log", "contents/.", "little:/tmp/both"]).ok();
    in_pod("little", &["test", "-f", "/tmp/both/deep/f", "-a", "-f", "/tmp/both/a.log"]).ok();
    let twice = ["contents/.", "all/.", "little:/tmp/both"];
    cp(here, &twice).exits(1).says(&["the contents of several directories are not copied at once"]);
    // One file through our own streams.
    let mut up = postern();
    with_stdin(up.args(["cp", "-n", NAMESPACE, "-", "little:/tmp/piped"]), &random(3_000_000, 3)).ok();
    let mut down = postern();
    let out = down.args(["cp", "-n", NAMESPACE, "little:/tmp/piped", "-"]).output().unwrap();
    assert!(out.status.success() && out.stdout == random(3_000_000, 3));
    cp(here, &["little:/tmp/w", "-"]).exits(1).says(&["stdout takes one file, and no directory"]);
    // Many pods.
    fs::write(here.join("conf"), "for all").unwrap();
    cp(here, &["-l", "app=copy", "conf", ":/tmp/conf"]).ok();
    cp(here, &["-l", "app=copy", ":/tmp/conf", "conf-{pod}"]).ok();
    for pod in ["tools", "little", "nothing", "agent"] {
        assert_eq!(fs::read_to_string(here.join(format!("conf-{pod}"))).unwrap(), "for all");
    }
    // One that cannot be reached is named, and counted beside what came of the others.
    let by_tar = ["--via", "tar", "-l", "app=copy", "conf", ":/tmp/conf-2"];
    let partly = cp(here, &by_tar);
    assert_ne!(partly.code, 0);
    partly.says(&["3 files copied and verified, 1 pod given up", "nothing: "]);
    let json = cp(here, &[&["-o", "json"], &by_tar[..]].concat());
    let errors = json.stderr.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let pods: Vec<_> = errors.map(|error| error["error"]["pod"].clone()).collect();
    assert_eq!(pods, ["nothing"]);
    assert!(json.stdout.contains("\"podsFailed\":1"), "{}", json.stdout);
    // A dry run compares.
    let planned = |more: &[&str]| cp(here, &[&["--dry-run", "conf", "little:/tmp/conf"], more].concat()).ok();
    planned(&[]).says(&["0 would be written, 1 already there, verified"]);
    in_pod("little", &["sh", "-c", "printf other--- >/tmp/conf-3 && touch -r /tmp/conf /tmp/conf-3"]).ok();
    let differs = cp(here, &["--dry-run", "conf", "little:/tmp/conf-3"]).ok();
    assert_eq!(differs.stdout, "would write conf\n");
    cp(here, &["-l", "app=copy", ":/tmp/conf", "one"])
        .exits(2)
        .says(&["all pods would write to the same DST", "{pod}"]);
    // A symlink that was typed is followed inside of the container's root.
    in_pod("little", &["sh", "-c", "ln -sfn /tmp/w /tmp/absolute"]).ok();
    cp(here, &["little:/tmp/absolute/x", "through"]).ok();
    assert_eq!(fs::read_to_string(here.join("through")).unwrap(), "4\n");
}

#[test]
fn what_cannot_be_written_is_told_with_its_cause_and_spares_the_rest() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::create_dir(here.join("set")).unwrap();
    fs::write(here.join("set/big"), random(12_000_000, 4)).unwrap();
    fs::write(here.join("set/small"), "fits").unwrap();
    let full = cp(here, &["set", "tools:/small/set"]).exits(1);
    let full = full.says(&["its place is /small/set/big"]);
    full.says(&["set/big: failed", "No space left on device", "1 file copied and verified", "1 failed"]);
    // Nobody wants to find a volume full because of a copy that failed.
    let left = in_pod("tools", &["ls", "-A", "/small/set"]).ok().stdout;
    assert_eq!(left, "small\n");
    assert_eq!(in_pod("tools", &["cat", "/small/set/small"]).ok().stdout, "fits");
    assert_ne!(in_pod("tools", &["test", "-e", "/small/set/big"]).code, 0);
    // Nor to wait for the rest of it, which is of no use: it is not sent.
    fs::write(here.join("huge"), random(48_000_000, 5)).unwrap();
    let full = cp(here, &["-o", "json", "--bwlimit", "12M", "huge", "tools:/small/huge"]).exits(1);
    assert!(full.stdout.contains("No space left on device"), "{}", full.stdout);
    let sent = summary(&full)["sentBytes"].as_u64().unwrap();
    assert!(sent < 24_000_000, "{sent}");
    // Least of all where there is no end to it.
    let mut yes = std::process::Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
    let mut endless = postern();
    endless.args(["cp", "-n", NAMESPACE, "-", "tools:/small/endless"]).stdin(yes.stdout.take().unwrap());
    Outcome::of(&mut endless).exits(1).says(&["No space left on device"]);
    drop(endless); // it holds the pipe as well
    yes.wait().unwrap();
    assert_eq!(in_pod("tools", &["ls", "-A", "/small"]).ok().stdout, "set\n");
    // A file that is a mount of its own.
    fs::write(here.join("app.conf"), "new\n").unwrap();
    cp(here, &["app.conf", "tools:/etc/app.conf"]).exits(1).says(&["app.conf: failed", "--inplace"]);
    assert_eq!(in_pod("tools", &["cat", "/etc/app.conf"]).ok().stdout, "old\n");
    cp(here, &["--inplace", "app.conf", "tools:/etc/app.conf"]).ok();
    assert_eq!(in_pod("tools", &["cat", "/etc/app.conf"]).ok().stdout, "new\n");
    // From an ephemeral container the kernel would take such a mount away.
    for command in ["cp", "sync"] {
        let by = [
            command,
            "-n",
            NAMESPACE,
            "--via",
            "ephemeral",
            "--image",
            IMAGE,
            "set/small",
            "tools:/etc/app.conf",
        ];
        Outcome::of(postern().current_dir(here).args(by)).exits(1).says(&["--inplace"]);
    }
    fs::create_dir(here.join("empty")).unwrap();
    let only = ["--delete=all", "--exclude", "*", "--include", "/app.conf", "empty", "tools:/etc"];
    sync(here, &[&["--via", "ephemeral", "--image", IMAGE], &only[..]].concat()).exits(1).says(&["app.conf"]);
    assert_eq!(in_pod("tools", &["cat", "/etc/app.conf"]).ok().stdout, "new\n");
    in_pod("tools", &["grep", "-q", " /etc/app.conf ", "/proc/self/mountinfo"]).ok();
    // As a user who may not.
    let denied = cp(here, &["app.conf", "agent:/etc/app.conf"]).exits(1);
    denied.says(&["as uid ", "writable here: ", "/tmp"]);
    // It is said of the target, and not of who stands beside it.
    let beside = cp(here, &["--image", IMAGE, "app.conf", "nothing:/app.conf"]).exits(1);
    beside.says(&["as uid ", "writable here: /tmp"]);
    // An owner that cannot be given: what was asked for is not done, though the content is there.
    for again in ["copied and verified", "already there, verified"] {
        let unowned = cp(here, &["--chown", "0:0", "set/small", "agent:/tmp/unowned"]).exits(1);
        unowned.says(&["its owner could not be set", again, "1 not of the owner that was asked for"]);
    }
    cp(here, &["set", "tools:/nowhere/set"]).exits(1).says(&["there is no directory /nowhere to copy into"]);
    cp(here, &["set", "missing:/tmp"]).exits(127).says(&["there is no pod missing"]);
    cp(here, &["--via", "agent", "set", "tools:/tmp"]).exits(127).says(&["--via agent needs the agent"]);
}

#[test]
fn sync_sends_what_changed_and_removes_what_is_gone() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let site = here.join("site");
    fs::create_dir_all(site.join("sub")).unwrap();
    fs::write(site.join("big"), random(16_000_000, 5)).unwrap();
    fs::write(site.join("sub/old"), "old").unwrap();
    sync(here, &["site", "tools:/tmp/site"]).ok();
    let mut content = random(16_000_000, 5);
    content.splice(8_000_000..8_000_000, *b"inserted");
    fs::write(site.join("big"), &content).unwrap();
    fs::remove_file(site.join("sub/old")).unwrap();
    fs::write(site.join("sub/new"), "new").unwrap();
    in_pod("tools", &["sh", "-c", "echo x > /tmp/site/extra; echo x > /tmp/site/kept.tmp"]).ok();
    let args = ["--delete", "--exclude", "*.tmp", "site", "tools:/tmp/site"];
    let planned = sync(here, &[&["--dry-run"], &args[..]].concat()).ok();
    for line in ["would write big", "would write sub/new", "would remove extra", "would remove sub/old"] {
        assert!(planned.stdout.lines().any(|own| own == line), "{line}: {}", planned.stdout);
    }
    assert_eq!(in_pod("tools", &["cat", "/tmp/site/extra"]).ok().stdout, "x\n");
    let done = summary(&sync(here, &[&["-o", "json"], &args[..]].concat()).ok());
    assert_eq!((&done["written"], &done["deleted"]), (&json!(2), &json!(2)), "{done}");
    assert!(done["sentBytes"].as_u64().unwrap() < 1_000_000, "{done}");
    let files = in_pod("tools", &["sh", "-c", "cd /tmp/site && find . -type f | sort"]).ok().stdout;
    assert_eq!(files, "./big\n./kept.tmp\n./sub/new\n");
    sync(here, &["tools:/tmp/site/big", "big"]).ok();
    assert!(fs::read(here.join("big")).unwrap() == content);
    let again = summary(&sync(here, &["-o", "json", "--checksum", "site", "tools:/tmp/site"]).ok());
    assert_eq!((&again["written"], &again["same"]), (&json!(0), &json!(2)), "{again}");
}

#[test]
fn proof_4_a_reader_in_the_pod_sees_old_or_new() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (old, new) = ("a".repeat(2_000_000), "b".repeat(2_000_000));
    fs::write(here.join("old"), &old).unwrap();
    fs::write(here.join("new"), &new).unwrap();
    cp(here, &["old", "tools:/tmp/seen"]).ok();
    // Ends by itself when it has seen the last version.
    let script = "while :; do set -- $(tr -d '\\n' < /tmp/seen | fold -w 1 | sort -u | tr '\\n' ' '); \
                  [ $# = 1 ] || { echo \"a mix: $*\"; exit 1; }; [ -e /tmp/stop ] && exit 0; done";
    let mut watching =
        kubectl_child(&["exec", "-n", NAMESPACE, "tools", "-c", "app", "--", "sh", "-c", script]);
    for round in 0..6 {
        cp(here, &[if round % 2 == 0 { "new" } else { "old" }, "tools:/tmp/seen"]).ok();
    }
    in_pod("tools", &["touch", "/tmp/stop"]).ok();
    assert!(watching.wait().unwrap().success());
}

fn kubectl_child(args: &[&str]) -> std::process::Child {
    e2e::kubectl_command(args).stdout(Stdio::inherit()).spawn().unwrap()
}

#[test]
fn a_hostile_pods_tree_writes_nothing_outside() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("victim"), "mine").unwrap();
    let victim = here.join("victim");
    // CVE-2019-1002101, -11246, -11249, -11251: symlinks out, and a file through one.
    let script = format!(
        "rm -rf /tmp/evil && mkdir -p /tmp/evil/d && cd /tmp/evil && ln -s {} abs && ln -s ../../victim up && ln -s ../.. dir && \
         ln -s d/../../victim sly && mkfifo fifo && mknod null c 1 3; ln -s ok fine; echo ok > ok; chmod 4755 ok",
        victim.display()
    );
    in_pod("tools", &["sh", "-c", &script]).ok();
    fs::create_dir(here.join("into")).unwrap();
    let outcome = cp(here, &["tools:/tmp/evil", "into"]).exits(1);
    outcome.says(&[
        "evil/abs: refused",
        "evil/up: refused",
        "evil/sly: refused",
        "evil/dir: refused",
        "evil/fifo: refused",
    ]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    let ok = here.join("into/evil/ok").symlink_metadata().unwrap();
    assert_eq!(ok.mode() & 0o7777, 0o755, "no setuid bit unless asked for");
    assert!(here.join("into/evil/fine").is_symlink() && !here.join("into/evil/abs").is_symlink());
    // A destination with a planted symlink: it is replaced or refused, never followed.
    let to = here.join("planted");
    fs::create_dir_all(to.join("evil")).unwrap();
    symlink(here, to.join("evil/d")).unwrap();
    symlink(&victim, to.join("evil/ok")).unwrap();
    cp(here, &["tools:/tmp/evil", "planted"]).exits(1).says(&["evil/d: failed"]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    assert_eq!(fs::read_to_string(to.join("evil/ok")).unwrap(), "ok\n");
}
