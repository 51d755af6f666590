//! Faults that users of other tools reported, on a cluster: kubeconfigs, streams, copies; those of buckets are in
//! `s3_field_faults.rs`, those without a cluster beside the program.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::pods::wait;
use e2e::{
    Outcome, apply, clean, enabled, eventually, get, install, kubectl, postern, run, testbed,
    whole_kubeconfig, with_stdin, write_kubeconfig,
};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

const NAMESPACE: &str = "postern-e2e-field";

/// A namespace with pods of busybox, until it is dropped.
struct Pods(&'static str);

impl Pods {
    fn new(name: &'static str, pods: &[(&str, Value)]) -> Self {
        kubectl(&["delete", "namespace", name, "--ignore-not-found", "--timeout=90s"]).ok();
        kubectl(&["create", "namespace", name]).ok();
        let made = Self(name);
        for (pod, more) in pods {
            let mut container =
                json!({"name": "app", "image": "busybox:1.35", "command": ["sleep", "infinity"]});
            let mut spec = json!({"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false});
            for (key, value) in more["container"].as_object().into_iter().flatten() {
                container[key] = value.clone();
            }
            for (key, value) in more["spec"].as_object().into_iter().flatten() {
                spec[key] = value.clone();
            }
            spec["containers"] = json!([container]);
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": name}, "spec": spec});
            apply(&pod.to_string());
        }
        for (pod, _) in pods {
            wait(name, &format!("pod/{pod}"), "condition=Ready");
        }
        made
    }

    fn sh(&self, pod: &str, script: &str) -> String {
        kubectl(&["exec", "-n", self.0, pod, "--", "sh", "-c", script]).ok().stdout
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        kubectl(&["delete", "namespace", self.0, "--wait=false"]);
    }
}

/// The kubeconfig in use, with a token in the place of its user's credentials.
fn with_token() -> (Value, String) {
    kubectl(&["create", "serviceaccount", "field", "-n", NAMESPACE]).ok();
    let subject = format!("--serviceaccount={NAMESPACE}:field");
    kubectl(&["create", "clusterrolebinding", "postern-e2e-field", "--clusterrole=cluster-admin", &subject]);
    let token = kubectl(&["create", "token", "field", "-n", NAMESPACE]).ok().stdout.trim().to_owned();
    (whole_kubeconfig(), token)
}

fn by(config: &Value, args: &[&str]) -> Command {
    // It has to stay until the command has ended.
    let file = write_kubeconfig(config).into_temp_path().keep().unwrap();
    let mut command = postern();
    command.env("KUBECONFIG", file).args(args);
    command
}

#[test]
fn credentials_are_taken_as_kubectl_takes_them() {
    if !enabled() {
        return;
    }
    let _pods = Pods::new(NAMESPACE, &[("app", json!({}))]);
    let folder = tempfile::tempdir().unwrap();
    let (mut config, token) = with_token();
    let fixed = config["users"][0]["user"].clone();
    let (runs, answer) = (folder.path().join("runs"), folder.path().join("answer"));
    fs::write(
        &answer,
        json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}})
            .to_string(),
    )
    .unwrap();
    let script = format!("echo >>{}; cat >/dev/null; cat {}", runs.display(), answer.display());
    let plugin = json!({"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "IfAvailable",
        "command": "sh", "args": ["-c", script]});
    config["users"][0]["user"] = json!({ "exec": plugin });

    // A plug-in that reads stdin does not get the command's.
    let exec = ["exec", "-i", "-n", NAMESPACE, "app", "--", "wc", "-c"];
    let counted = with_stdin(&mut by(&config, &exec), &vec![0; 100_000]).ok();
    assert_eq!(counted.stdout.trim(), "100000");
    assert_eq!(fs::read(&runs).unwrap().len(), 1, "it runs once for a command");
    config["users"][0]["user"]["exec"]["interactiveMode"] = "Always".into();
    with_stdin(&mut by(&config, &exec), b"x").exits(127).says(&["interactiveMode: Always", "which -i takes"]);

    // What is in the kubeconfig counts before the plug-in, which is not run.
    let mut both = fixed;
    both["exec"] = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "false"});
    config["users"][0]["user"] = both;
    let plain = ["exec", "-n", NAMESPACE, "app", "--", "true"];
    Outcome::of(&mut by(&config, &plain)).ok();

    // A token's file ends with a newline, and counts before a token; "" is nothing.
    let file = folder.path().join("token");
    fs::write(&file, format!("{token}\n")).unwrap();
    config["users"][0]["user"] = json!({"tokenFile": file, "token": "wrong", "client-certificate-data": "",
        "client-key": "", "username": ""});
    config["clusters"][0]["cluster"]["tls-server-name"] = "".into();
    config["clusters"][0]["cluster"]["proxy-url"] = "".into();
    Outcome::of(&mut by(&config, &plain)).ok();
    kubectl(&["delete", "clusterrolebinding", "postern-e2e-field", "--ignore-not-found"]);
}

/// A SOCKS5 proxy without a login, that counts its connections (RFC 1928).
fn socks() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || relay(client, &counted));
        }
    });
    (address, count)
}

fn relay(mut client: TcpStream, counted: &AtomicUsize) -> Option<()> {
    let exactly = |count: usize, client: &mut TcpStream| {
        let mut bytes = vec![0; count];
        client.read_exact(&mut bytes).ok().map(|()| bytes)
    };
    let methods = exactly(2, &mut client)?[1];
    exactly(methods.into(), &mut client)?;
    client.write_all(&[5, 0]).ok()?;
    let host = match exactly(4, &mut client)?[3] {
        1 => exactly(4, &mut client)?.iter().map(ToString::to_string).collect::<Vec<_>>().join("."),
        3 => {
            let length = exactly(1, &mut client)?[0];
            String::from_utf8(exactly(length.into(), &mut client)?).ok()?
        }
        _ => return None,
    };
    let port = exactly(2, &mut client)?;
    let server = TcpStream::connect((host, u16::from_be_bytes([port[0], port[1]]))).ok()?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
    counted.fetch_add(1, Ordering::Relaxed);
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    std::io::copy(&mut &server, &mut client).ok().map(|_| ())
}

#[test]
fn a_cluster_is_reached_by_socks_and_by_its_own_certificate() {
    if !enabled() {
        return;
    }
    let _pods = Pods::new(NAMESPACE, &[("app", json!({}))]);
    let exec = ["exec", "-n", NAMESPACE, "app", "--", "true"];
    let mut config = whole_kubeconfig();
    let (proxy, count) = socks();
    config["clusters"][0]["cluster"]["proxy-url"] = format!("socks5://{proxy}").into();
    Outcome::of(&mut by(&config, &exec)).ok();
    assert!(count.load(Ordering::Relaxed) > 0);
    if testbed() {
        // The leaf alone, which may sign nothing.
        let mut config = whole_kubeconfig();
        let pem = fs::read(e2e::kubeconfig().with_file_name("pki").join("apiserver.crt")).unwrap();
        let encoded = with_stdin(Command::new("base64").arg("-w0"), &pem).ok().stdout;
        config["clusters"][0]["cluster"]["certificate-authority-data"] = encoded.into();
        Outcome::of(&mut by(&config, &exec)).ok();
        // And another certificate is no pin.
        let pem =
            fs::read(e2e::kubeconfig().with_file_name("pki").join("kubelet-server-node-1.crt")).unwrap();
        let encoded = with_stdin(Command::new("base64").arg("-w0"), &pem).ok().stdout;
        config["clusters"][0]["cluster"]["certificate-authority-data"] = encoded.into();
        Outcome::of(&mut by(&config, &exec)).exits(127).says(&["signed by an authority that is not trusted"]);
    }
}

#[test]
fn a_burst_leaves_the_ops_pod_as_it_was() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    // `cargo xtask soak burst` gives more.
    let count = std::env::var("POSTERN_SOAK_BURST").ok().and_then(|text| text.parse().ok()).unwrap_or(80);
    let values: Vec<String> = (1..=count).map(|number: usize| number.to_string()).collect();
    let values = values.join("\n");
    let mut each = postern();
    each.args(["run", "--each", "-", "--parallel", "64", "--", "sh", "-c", "echo {}"]);
    let done = with_stdin(&mut each, values.as_bytes()).ok().says(&[&format!("{count} targets: {count} ok")]);
    assert_eq!(done.stdout.lines().count(), count);
    // Many processes at once, each with an exec of its own.
    let (processes, at_once) = (count * 3 / 10, (count * 3 / 10).min(64));
    let (together, begun) = (Barrier::new(at_once), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                together.wait();
                while begun.fetch_add(1, Ordering::Relaxed) < processes {
                    run(&["run", "--", "true"]).ok();
                }
            });
        }
    });
    run(&["run", "--", "true"]).ok();
    // One that is given up says so, and leaves nothing running.
    let marker = e2e::marker();
    run(&["run", "--timeout", "1s", "--", "sleep", &marker]).exits(137);
    eventually("it is gone", Duration::from_secs(30), || !e2e::runs_in_pod(&marker));
    clean();
}

#[test]
fn a_pod_that_goes_below_a_command_is_said_to() {
    if !enabled() {
        return;
    }
    let pods = Pods::new(NAMESPACE, &[("app", json!({}))]);
    let mut exec = postern();
    exec.args(["exec", "-n", NAMESPACE, "app", "--", "sleep", "600"]);
    let child = exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it runs", Duration::from_secs(30), || pods.sh("app", "ps").contains("sleep 600"));
    kubectl(&["delete", "pod", "-n", NAMESPACE, "app", "--grace-period=0", "--force", "--wait=false"]);
    let ended = Outcome::from(child.wait_with_output().unwrap());
    ended.exits(126).says(&["pod postern-e2e-field/app was deleted while the command ran"]);
}

#[test]
fn the_agent_goes_where_something_can_be_written() {
    if !enabled() {
        return;
    }
    let pod = json!({
        "container": {"securityContext": {"readOnlyRootFilesystem": true, "runAsUser": 1000},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        "spec": {"volumes": [{"name": "data", "emptyDir": {}}]}
    });
    let pods = Pods::new(NAMESPACE, &[("app", pod)]);
    // /dev/shm would do, so that it has to be asked for by another.
    let env = ["exec", "--inject", "-n", NAMESPACE, "app", "--env", "A=there", "--", "sh", "-c", "echo $A"];
    assert_eq!(run(&env).ok().stdout, "there\n");
    assert_eq!(pods.sh("app", "ls -A /data"), "", "it has removed itself");
}

fn tree(root: &Path) {
    fs::create_dir_all(root.join("tree/sub")).unwrap();
    fs::write(root.join("tree/sub/f"), "x").unwrap();
    fs::write(root.join("tree/late"), "x").unwrap();
    let late = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(10_000_000_000);
    fs::File::open(root.join("tree/late")).unwrap().set_modified(late).unwrap();
}

#[test]
fn copies_do_in_pods_what_they_do_here() {
    if !enabled() {
        return;
    }
    let pod = json!({"container": {"workingDir": "/srv"}});
    let pods = Pods::new(NAMESPACE, &[("app", pod)]);
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    tree(here);
    let postern = |args: &[&str]| Outcome::of(postern().current_dir(here).args(args));
    let at = |path: &str| format!("{NAMESPACE}/app:{path}");

    // Nothing after the colon: the working directory, as by scp.
    postern(&["cp", "tree/sub/f", &at("")]).ok();
    assert_eq!(pods.sh("app", "cat /srv/f"), "x");
    fs::create_dir(here.join("got")).unwrap();
    postern(&["cp", &at(""), "got"]).ok();
    assert!(here.join("got/f").exists());

    // An inherited group stays, and a late time is what it was, by every way.
    for way in ["inject", "tar", "shell"] {
        pods.sh("app", "rm -rf /srv/* && mkdir /srv/v && chown 0:2000 /srv/v && chmod 2775 /srv/v");
        postern(&["cp", "--via", way, "tree", &at("/srv/v/")]).ok();
        assert_eq!(pods.sh("app", "stat -c '%a %g' /srv/v/tree/sub").trim(), "2755 2000", "{way}");
        assert_eq!(pods.sh("app", "stat -c %Y /srv/v/tree/late").trim(), "10000000000", "{way}");
    }

    // What is called just so is meant.
    pods.sh("app", "cd /srv && rm -rf * && echo exact >'r[1].txt' && echo other >r1.txt");
    for way in ["inject", "tar", "shell"] {
        postern(&["cp", "--via", way, &at("/srv/r[1].txt"), way]).ok();
        assert_eq!(fs::read_to_string(here.join(way)).unwrap(), "exact\n", "{way}");
    }

    // An empty source removes nothing, whoever the destination is.
    pods.sh("app", "mkdir /srv/empty /srv/full && touch /srv/full/a /srv/full/b");
    fs::create_dir(here.join("empty")).unwrap();
    postern(&["sync", "--delete", &at("/srv/empty/"), "tree"]).exits(1).says(&["the source is empty"]);
    assert!(here.join("tree/sub/f").exists());
    for way in ["inject", "tar", "shell"] {
        let to = at("/srv/full");
        postern(&["sync", "--via", way, "--delete", "empty", &to]).exits(1).says(&["the source is empty"]);
        let limited = ["sync", "--via", way, "--delete", "--max-delete", "1", "empty", &to];
        postern(&limited).exits(1).says(&["would remove 2 of the 2"]);
        // Of what was there before.
        let part = ["sync", "--via", way, "--delete", "--max-delete", "60%", "tree", &to];
        postern(&part).exits(1).says(&["would remove 2 of the 2"]);
        pods.sh("app", "cd /srv/full && rm -r sub late");
        assert_eq!(pods.sh("app", "ls /srv/full"), "a\nb\n", "{way}");
    }

    // Below a directory that cannot be made there is one cause, and a link's place that a directory has is seen.
    pods.sh("app", "mkdir -p /srv/x/tree && touch /srv/x/tree/sub && mkdir /srv/x/tree/late");
    fs::create_dir(here.join("links")).unwrap();
    std::os::unix::fs::symlink("f", here.join("links/l")).unwrap();
    pods.sh("app", "mkdir -p /srv/x/l");
    for way in ["tar", "shell"] {
        let failed = postern(&["cp", "--via", way, "--dry-run", "links/.", &at("/srv/x")]).exits(1);
        failed.says(&["a directory exists at this path"]);
    }
    let gone = at("/srv/none/deep/f");
    pods.sh("app", "ln -s none/deep /srv/link");
    for way in ["inject", "tar"] {
        postern(&["cp", "--via", way, "tree/sub/f", &gone])
            .exits(1)
            .says(&["there is no directory /srv/none/deep"]);
        let link = at("/srv/link");
        postern(&["cp", "--via", way, "tree/sub/f", &link])
            .exits(1)
            .says(&["/srv/link is a symlink", "none"]);
    }
    assert!(get(&["pod", "-n", NAMESPACE, "app"])["spec"].get("ephemeralContainers").is_none());
}
