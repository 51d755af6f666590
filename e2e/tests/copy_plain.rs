//! `cp` and `sync` where no agent can run: by the container's own tar and shell.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::proxy::Cutter;
use e2e::tree::{random, seen, torture};
use e2e::{Outcome, apply, enabled, eventually, kubeconfig_by_way_of, kubectl, postern, server, with_stdin};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const NAMESPACE: &str = "postern-e2e-copy-plain";

static MADE: std::sync::Once = std::sync::Once::new();

/// The pods of the tests: with GNU's tools, with busybox's, with nothing, and one where nothing that is written runs.
fn ready() -> bool {
    if !enabled() {
        return false;
    }
    MADE.call_once(make);
    true
}

fn make() {
    kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s"]).ok();
    kubectl(&["create", "namespace", NAMESPACE]).ok();
    let pod = |name: &str, container: Value, volumes: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
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
    // What can be written there is /dev/shm, from where nothing is executed.
    let mut sealed = sleeping("busybox:1.35");
    sealed["securityContext"] =
        json!({"readOnlyRootFilesystem": true, "runAsUser": 1000, "runAsNonRoot": true});
    let items = json!([
        tools,
        pod("little", sleeping("busybox:1.35"), json!([])),
        pod("nothing", json!({"name": "app", "image": "scratch-static:1"}), json!([])),
        pod("sealed", sealed, json!([])),
    ]);
    apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "pod", "--all", "--timeout=90s"]).ok();
}

fn postern_in(folder: &Path, command: &str, way: &str, args: &[&str]) -> Outcome {
    let mut program = postern();
    program.current_dir(folder).args([command, "-n", NAMESPACE, "--via", way]).args(args);
    Outcome::of(&mut program)
}

fn cp(folder: &Path, way: &str, args: &[&str]) -> Outcome {
    postern_in(folder, "cp", way, args)
}

fn sync(folder: &Path, way: &str, args: &[&str]) -> Outcome {
    postern_in(folder, "sync", way, args)
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

/// A tree as tools see it that keep whole seconds.
fn by_seconds(tree: BTreeMap<Vec<u8>, String>) -> BTreeMap<Vec<u8>, String> {
    let cut = |text: String| {
        let (mode, rest) = text.split_once(' ').unwrap();
        let (time, rest) = rest.split_once(' ').unwrap();
        format!("{mode} {} {rest}", time.split('.').next().unwrap())
    };
    tree.into_iter().map(|(path, text)| (path, cut(text))).collect()
}

#[test]
fn a_tree_of_every_kind_goes_round_by_tar_and_by_shell() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    torture(&here.join("tree"), 300);
    for (pod, exact) in [("tools", true), ("little", false)] {
        let kept = |tree: BTreeMap<Vec<u8>, String>| if exact { tree } else { by_seconds(tree) };
        let want = kept(seen(&here.join("tree")));
        for way in ["tar", "shell"] {
            let there = format!("{pod}:/tmp/{way}");
            let up = cp(here, way, &["-v", "tree", &there]).ok();
            up.says(&[&format!("reached by {way}"), "311 files copied and verified"]);
            let back = format!("back-{pod}-{way}");
            cp(here, way, &[&there, &back]).ok();
            let got = kept(seen(&here.join(&back)));
            for (path, text) in &want {
                assert_eq!(got.get(path), Some(text), "{pod} {way}: {}", path.escape_ascii());
            }
            assert_eq!(got.len(), want.len(), "{pod} {way}");
            // Holes are holes there, too.
            let blocks = in_pod(pod, &["stat", "-c", "%b", &format!("/tmp/{way}/sparse")]).ok().stdout;
            assert!(blocks.trim().parse::<u64>().unwrap() * 512 < 5_000_000, "{blocks}");
            // Again: it is all there, by hash.
            let again = summary(&cp(here, way, &["-o", "json", "tree/.", &there]).ok());
            assert_eq!((&again["written"], &again["same"]), (&json!(0), &json!(311)), "{pod} {way}: {again}");
            let clean = cp(here, way, &["--clean", &there]).ok();
            assert!(clean.stderr.contains("0 unfinished files"), "{}", clean.stderr);
        }
        let left = in_pod(pod, &["sh", "-c", "find / -xdev -name '*postern*' 2>/dev/null"]).stdout;
        assert_eq!(left, "");
    }
    // From pod to pod, one with an agent and one without.
    cp(here, "shell", &["tools:/tmp/tar", "little:/tmp/third"]).ok();
    cp(here, "auto", &["little:/tmp/third", "third"]).ok();
    assert_eq!(by_seconds(seen(&here.join("third"))), by_seconds(seen(&here.join("tree"))));
}

#[test]
fn where_no_agent_can_run_tar_or_the_shell_is_taken_by_itself() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("a file"), "content").unwrap();
    let up = cp(here, "auto", &["-v", "a file", "sealed:/dev/shm/it's"]).ok();
    up.says(&["not by inject", "writable and executable", "reached by tar"]);
    assert_eq!(in_pod("sealed", &["cat", "/dev/shm/it's"]).ok().stdout, "content");
    cp(here, "auto", &["sealed:/dev/shm/it's", "back"]).ok();
    assert_eq!(fs::read_to_string(here.join("back")).unwrap(), "content");
    assert_eq!(in_pod("sealed", &["ls", "-A", "/dev/shm"]).ok().stdout, "it's\n");
    // Who may not, and where, is said.
    let denied = cp(here, "shell", &["a file", "sealed:/etc/x"]).exits(1);
    denied.says(&["a file: failed", "Read-only file system as uid 1000", "; writable here: "]);
    // Where there is no shell the error says so.
    for way in ["tar", "shell"] {
        cp(here, way, &["a file", "nothing:/tmp/"]).exits(127).says(&["sh"]);
    }
}

#[test]
fn what_is_not_verified_is_not_called_so() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("file"), "content").unwrap();
    for way in ["tar", "shell"] {
        let there = format!("little:/tmp/unverified-{way}");
        let text = cp(here, way, &["--no-verify", "file", &there]).ok();
        text.says(&["1 file copied and not verified"]);
        for (from, to) in [(there.as_str(), format!("back-{way}")), ("file", format!("{there}-2"))] {
            let done = cp(here, way, &["--no-verify", "-o", "json", from, &to]).ok();
            let first: Value = serde_json::from_str(done.stdout.lines().next().unwrap()).unwrap();
            let told = (&first["fate"], &first["blake3"], &first["note"]);
            assert_eq!(told, (&json!("written"), &Value::Null, &json!("not verified")), "{from}");
            assert_eq!((&summary(&done)["unverified"], &summary(&done)["written"]), (&json!(1), &json!(0)));
        }
    }
}

#[test]
fn what_cannot_be_written_is_told_with_its_cause_and_spares_the_rest() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::create_dir(here.join("set")).unwrap();
    fs::write(here.join("set/big"), random(6_000_000, 4)).unwrap();
    fs::write(here.join("set/small"), "fits").unwrap();
    fs::write(here.join("app.conf"), "new\n").unwrap();
    for way in ["tar", "shell"] {
        let full = cp(here, way, &["set", &format!("tools:/small/{way}")]).exits(1);
        let full = full.says(&[&format!("its place is /small/{way}/big")]);
        full.says(&["set/big: failed", "No space left on device", "1 file copied and verified", "1 failed"]);
        assert_eq!(in_pod("tools", &["ls", "-A", &format!("/small/{way}")]).ok().stdout, "small\n");
        // A file that is a mount of its own.
        cp(here, way, &["app.conf", "tools:/etc/app.conf"]).exits(1).says(&["app.conf: failed", "--inplace"]);
        assert_eq!(in_pod("tools", &["cat", "/etc/app.conf"]).ok().stdout, "old\n");
        cp(here, way, &["--inplace", "app.conf", "tools:/etc/app.conf"]).ok();
        assert_eq!(in_pod("tools", &["cat", "/etc/app.conf"]).ok().stdout, "new\n");
        in_pod("tools", &["sh", "-c", "echo old > /etc/app.conf; rm -f /etc/.app*; rm -rf /small/*"]).ok();
        cp(here, way, &["set", "tools:/nowhere/set"])
            .exits(1)
            .says(&["there is no directory /nowhere to copy into"]);
        // A file that is replaced keeps its owner, and a directory gets the one that is asked for.
        in_pod(
            "tools",
            &["sh", "-c", "mkdir -p /tmp/own; echo old > /tmp/own/small; chown 5:6 /tmp/own/small"],
        )
        .ok();
        cp(here, way, &["set/small", "tools:/tmp/own/small"]).ok();
        assert_eq!(in_pod("tools", &["stat", "-c", "%u:%g", "/tmp/own/small"]).ok().stdout, "5:6\n");
        cp(here, way, &["--chown", "7:8", "set/.", "tools:/tmp/own"]).ok();
        let owners = in_pod("tools", &["stat", "-c", "%u:%g", "/tmp/own", "/tmp/own/small"]).ok().stdout;
        assert_eq!(owners, "7:8\n7:8\n", "{way}");
        in_pod("tools", &["rm", "-r", "/tmp/own"]).ok();
        let unowned = cp(here, way, &["--chown", "0:0", "set/small", "sealed:/dev/shm/unowned"]).exits(1);
        unowned.says(&["its owner could not be set", "1 not of the owner that was asked for"]);
        in_pod("sealed", &["rm", "/dev/shm/unowned"]).ok();
        cp(here, way, &["tools:/tmp/none", "."]).exits(1).says(&["/tmp/none: No such file or directory"]);
    }
}

#[test]
fn cut_connections_are_made_again_and_nothing_is_lost() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let size: usize = 48 << 20;
    let content = random(size, 6);
    fs::write(here.join("big"), &content).unwrap();
    for (pod, way) in [("tools", "tar"), ("little", "shell")] {
        for (from, to) in
            [("big".to_owned(), format!("{pod}:/tmp/cut")), (format!("{pod}:/tmp/cut"), format!("cut-{way}"))]
        {
            let proxy = Cutter::start(&server(), 3, |number| 11_000_000 + number % 7 * 1_300_000);
            let config = kubeconfig_by_way_of(&proxy.server);
            let mut command = postern();
            command.current_dir(here).env("KUBECONFIG", config.path());
            let args = ["cp", "-n", NAMESPACE, "--via", way, "-o", "json", &from, &to];
            let outcome = Outcome::of(command.args(args)).ok();
            assert!(proxy.cuts() >= 2, "{}", proxy.cuts());
            let numbers = summary(&outcome);
            assert_eq!(numbers["written"], 1, "{numbers}");
            // What had come from there is not read again.
            let sent = usize::try_from(numbers["sentBytes"].as_u64().unwrap()).unwrap();
            assert!(from == "big" || sent < size + size / 10 + 8 * 1024 * 1024, "{sent}: {}", outcome.stderr);
        }
        assert!(fs::read(here.join(format!("cut-{way}"))).unwrap() == content);
    }
}

#[test]
fn a_killed_client_leaves_no_process_and_what_it_left_is_taken_up() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let content = random(48 << 20, 2);
    fs::write(here.join("big"), &content).unwrap();
    for pod in ["tools", "little"] {
        let there = format!("{pod}:/tmp/killed");
        let mut child = postern()
            .current_dir(here)
            // Slow enough that it is not all there when a busy machine comes to kill it.
            .args(["cp", "-n", NAMESPACE, "--via", "shell", "--bwlimit", "5M", "big", &there])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let size = || {
            // Under a name of its connection's own, until that ends.
            let script = "cat /tmp/.killed.*postern-partial 2>/dev/null | wc -c";
            in_pod(pod, &["sh", "-c", script]).stdout.trim().parse::<u64>().unwrap_or(0)
        };
        eventually("a part has arrived", Duration::from_secs(60), || size() > 20_000_000);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_ne!(in_pod(pod, &["test", "-e", "/tmp/killed"]).code, 0, "nothing half-written has the name");
        eventually("its shell is gone", Duration::from_secs(30), || {
            let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null";
            !in_pod(pod, &["sh", "-c", script]).stdout.contains("read -r l")
        });
        let rest = cp(here, "shell", &["-v", "big", &there]).ok();
        let theirs = in_pod(pod, &["sh", "-c", "sha256sum < /tmp/killed"]).ok().stdout;
        let ours = Outcome::of(std::process::Command::new("sha256sum").arg(here.join("big"))).ok().stdout;
        assert_eq!(theirs.split(' ').next(), ours.split(' ').next());
        assert!(rest.stderr.contains("1 file copied and verified"), "{}", rest.stderr);
        assert_eq!(size(), 0);
    }
}

#[test]
fn streams_wildcards_and_sync_are_as_with_an_agent() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (pod, way) in [("tools", "tar"), ("little", "shell")] {
        let script =
            "mkdir -p /tmp/w/d && cd /tmp/w && echo 1 > a.log; echo 2 > b.log; echo 3 > d/c.log; echo 4 > x";
        in_pod(pod, &["sh", "-c", script]).ok();
        let at = |path: &str| format!("{pod}:{path}");
        fs::create_dir(here.join(way)).unwrap();
        cp(here, way, &[&at("/tmp/w/**/[b-c].log"), way]).ok();
        let mut names: Vec<_> =
            fs::read_dir(here.join(way)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["b.log", "c.log"]);
        cp(here, way, &[&at("/tmp/w/*.none"), "."]).exits(1).says(&["nothing matches /tmp/w/*.none"]);
        cp(here, way, &["--exclude", "*.log", "--include", "b.log", &at("/tmp/w"), &format!("{way}/some")])
            .ok();
        assert!(
            here.join(format!("{way}/some/b.log")).exists()
                && !here.join(format!("{way}/some/a.log")).exists()
        );
        let mut up = postern();
        up.args(["cp", "-n", NAMESPACE, "--via", way, "-", &at("/tmp/piped")]);
        with_stdin(&mut up, &random(3_000_000, 3)).ok();
        let mut down = postern();
        let out = down.args(["cp", "-n", NAMESPACE, "--via", way, &at("/tmp/piped"), "-"]).output().unwrap();
        assert!(out.status.success() && out.stdout == random(3_000_000, 3));
        // Sync.
        let site = here.join(format!("site-{way}"));
        fs::create_dir_all(site.join("sub")).unwrap();
        fs::write(site.join("big"), random(4_000_000, 5)).unwrap();
        fs::write(site.join("sub/old"), "old").unwrap();
        let (from, to) = (format!("site-{way}"), at("/tmp/deep/site"));
        sync(here, way, &[&from, &to]).ok();
        fs::remove_file(site.join("sub/old")).unwrap();
        fs::write(site.join("sub/new"), "new").unwrap();
        in_pod(pod, &["sh", "-c", "echo x > /tmp/deep/site/extra; echo x > /tmp/deep/site/kept.tmp"]).ok();
        let args = ["--delete", "--exclude", "*.tmp", &from, &to];
        let planned = sync(here, way, &[&["--dry-run"], &args[..]].concat()).ok();
        for line in ["would write sub/new", "would remove extra", "would remove sub/old"] {
            assert!(planned.stdout.lines().any(|own| own == line), "{line}: {}", planned.stdout);
        }
        let done = summary(&sync(here, way, &[&["-o", "json"], &args[..]].concat()).ok());
        assert_eq!(
            (&done["written"], &done["deleted"], &done["unchanged"]),
            (&json!(1), &json!(2), &json!(1)),
            "{done}"
        );
        let files = in_pod(pod, &["sh", "-c", "cd /tmp/deep/site && find . -type f | sort"]).ok().stdout;
        assert_eq!(files, "./big\n./kept.tmp\n./sub/new\n");
        let again = summary(&sync(here, way, &["-o", "json", "--checksum", &from, &to]).ok());
        assert_eq!((&again["written"], &again["same"]), (&json!(0), &json!(2)), "{again}");
    }
}

#[test]
fn a_hostile_pods_tree_writes_nothing_outside() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let victim = here.join("victim");
    fs::write(&victim, "mine").unwrap();
    let script = format!(
        "rm -rf /tmp/evil && mkdir -p /tmp/evil/d && cd /tmp/evil && ln -s {} abs && ln -s ../../victim up && ln -s ../.. dir && \
         ln -s d/../../victim sly && mkfifo fifo && mknod null c 1 3; ln -s ok fine; echo ok > ok; chmod 4755 ok; \
         ln -s /etc/passwd 'a
b'",
        victim.display()
    );
    for pod in ["tools", "little"] {
        in_pod(pod, &["sh", "-c", &script]).ok();
        for way in ["tar", "shell"] {
            let into = format!("into-{pod}-{way}");
            fs::create_dir(here.join(&into)).unwrap();
            let outcome = cp(here, way, &[&format!("{pod}:/tmp/evil"), &into]).exits(1);
            outcome.says(&[
                "evil/abs: refused",
                "evil/up: refused",
                "evil/sly: refused",
                "evil/dir: refused",
                "evil/fifo: refused",
            ]);
            assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
            let ok = here.join(&into).join("evil/ok").symlink_metadata().unwrap();
            assert_eq!(ok.mode() & 0o7777, 0o755, "no setuid bit unless asked for");
            assert!(here.join(&into).join("evil/fine").is_symlink());
            // A destination with a planted symlink: it is replaced or refused, never followed.
            let planted = here.join(format!("planted-{pod}-{way}"));
            fs::create_dir_all(planted.join("evil")).unwrap();
            symlink(here, planted.join("evil/d")).unwrap();
            symlink(&victim, planted.join("evil/ok")).unwrap();
            cp(here, way, &[&format!("{pod}:/tmp/evil"), planted.to_str().unwrap()])
                .exits(1)
                .says(&["evil/d: failed"]);
            assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
            assert_eq!(fs::read_to_string(planted.join("evil/ok")).unwrap(), "ok\n");
        }
    }
    // The same in the pod.
    fs::create_dir_all(here.join("tree/d")).unwrap();
    fs::write(here.join("tree/d/file"), "x").unwrap();
    for way in ["tar", "shell"] {
        let script =
            "rm -rf /tmp/planted /tmp/out; mkdir -p /tmp/planted /tmp/out; ln -s /tmp/out /tmp/planted/d";
        in_pod("little", &["sh", "-c", script]).ok();
        let outcome = cp(here, way, &["tree/.", "little:/tmp/planted"]).exits(1);
        outcome.says(&["d: failed", "is not a directory"]);
        assert_eq!(in_pod("little", &["ls", "-A", "/tmp/out"]).ok().stdout, "");
    }
}
