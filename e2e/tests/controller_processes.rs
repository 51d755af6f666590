//! The controller outside a cluster: processes that the test kills, an API server that it stops, and traces.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use base64::Engine as _;
use e2e::control_plane::{ControlPlane, end};
use e2e::controller::{PLATFORM, SYSTEM, account, for_case, namespace};
use e2e::registry::{A1, A2, B1, docker_config, pull_secret};
use e2e::{Outcome, enabled, eventually, postern};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Everything is as it is to be within this time, a new leader included.
const CONVERGES: Duration = Duration::from_secs(60);
const NAMESPACES: usize = 20;

/// A cluster with controllers, namespaces and one source for all of them.
struct Scene {
    plane: ControlPlane,
    replicas: BTreeMap<String, Child>,
    started: usize,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.replicas.values_mut().for_each(end);
    }
}

fn name_of(number: usize) -> String {
    format!("team-{number}")
}

impl Scene {
    fn start(replicas: usize) -> Self {
        let plane = ControlPlane::start();
        let manifests = Outcome::of(postern().args(["controller", "manifests", "-o", "json"])).ok().json();
        let is_definition = |one: &&Value| one["kind"] == "CustomResourceDefinition";
        let definitions: Vec<_> =
            manifests["items"].as_array().unwrap().iter().filter(is_definition).cloned().collect();
        assert!(!definitions.is_empty());
        plane.apply(&definitions);
        plane.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).ok();
        plane.apply(&[namespace(SYSTEM, "none"), namespace(PLATFORM, "none")]);
        plane.apply(&[pull_secret(PLATFORM, "vendor", A1), for_case("chaos", &json!({}))]);
        let mut scene = Self { plane, replicas: BTreeMap::new(), started: 0 };
        (0..NAMESPACES).for_each(|number| scene.add(number));
        (0..replicas).for_each(|_| scene.start_replica());
        scene
    }

    /// A namespace with an account that has an entry of its own.
    fn add(&self, number: usize) {
        let name = name_of(number);
        let mut app = account(&name, "app");
        app["imagePullSecrets"] = json!([{"name": "of-the-user"}]);
        self.plane.apply(&[namespace(&name, "chaos"), app]);
    }

    fn start_replica(&mut self) {
        self.start_replica_with(&[]);
    }

    fn start_replica_with(&mut self, args: &[&str]) {
        self.started += 1;
        let name = format!("controller-{}", self.started);
        let mut command = Command::new(std::env::var_os("POSTERN_CONTROLLER").unwrap());
        command.args(["run", "--name", &name, "--kubeconfig"]).arg(self.plane.kubeconfig());
        command.args(args).args(["--webhook-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0"]);
        let child = self.plane.spawn(&mut command, &name);
        self.replicas.insert(name, child);
    }

    /// The replica that holds the Lease, if it lives.
    fn leader(&self) -> Option<String> {
        let found = self.plane.kubectl(&["get", "-n", SYSTEM, "lease/postern-controller", "-o", "json"]);
        let holder = (found.code == 0).then(|| found.json()["spec"]["holderIdentity"].clone())?;
        holder.as_str().filter(|name| self.replicas.contains_key(*name)).map(str::to_owned)
    }

    /// What differs from what it is to be; empty if nothing does.
    fn differences(&self, count: usize, login: (&str, &str)) -> Vec<String> {
        let copies = self.plane.list(&["secrets", "-A", "-l", "postern.dev/pull-secret-copy=true"]);
        let accounts = self.plane.list(&["serviceaccounts", "-A", "--field-selector=metadata.name=app"]);
        let data = base64::engine::general_purpose::STANDARD.encode(docker_config(login));
        let in_namespace = |list: &[Value], name: &str| -> Vec<Value> {
            list.iter().filter(|one| one["metadata"]["namespace"] == name).cloned().collect()
        };
        let mut differences = Vec::new();
        for name in (0..count).map(name_of) {
            let (copy, account) = (in_namespace(&copies, &name), in_namespace(&accounts, &name));
            if copy.len() != 1 || copy[0]["data"][".dockerconfigjson"] != data {
                differences.push(format!("{name} has {} copies", copy.len()));
                continue;
            }
            let wanted = json!([{"name": "of-the-user"}, {"name": copy[0]["metadata"]["name"]}]);
            if account.len() != 1 || account[0]["imagePullSecrets"] != wanted {
                differences.push(format!("{name}: {}", account[0]["imagePullSecrets"]));
            }
        }
        differences
    }

    #[track_caller]
    fn converges(&self, count: usize, login: (&str, &str)) {
        let mut last = Vec::new();
        eventually("everything is as it is to be", CONVERGES, || {
            last = self.differences(count, login);
            last.is_empty()
        });
    }

    /// Deletes a copy, and takes the copy's name out of another namespace's account.
    fn disturb(&self, number: usize) {
        let label = "postern.dev/pull-secret-copy=true";
        self.plane.kubectl(&["delete", "secrets", "-n", &name_of(number), "-l", label]).ok();
        let patch = json!({"imagePullSecrets": [{"name": "of-the-user"}]}).to_string();
        let name = name_of(number + 1);
        self.plane
            .kubectl(&["patch", "serviceaccount", "-n", &name, "app", "--type=merge", "-p", &patch])
            .ok();
    }

    fn logs(&self) -> String {
        let paths = (1..=self.started).map(|number| self.plane.log(&format!("controller-{number}")));
        paths.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}

/// `POSTERN_SOAK_KILLS` of them, else 3: each two seconds after it began to lead.
#[test]
fn leaders_that_are_killed_lose_nothing() {
    if !enabled() {
        return;
    }
    let kills: usize = std::env::var("POSTERN_SOAK_KILLS").map_or(3, |count| count.parse().unwrap());
    let mut scene = Scene::start(3);
    for round in 0..kills {
        let mut leader = None;
        eventually("a replica leads", CONVERGES, || {
            leader = scene.leader();
            leader.is_some()
        });
        let login = if round % 2 == 0 { A2 } else { B1 };
        scene.plane.apply(&[pull_secret(PLATFORM, "vendor", login)]);
        scene.disturb(round % (NAMESPACES - 1));
        std::thread::sleep(Duration::from_secs(2));
        end(&mut scene.replicas.remove(&leader.unwrap()).unwrap());
        scene.add(NAMESPACES + round);
        scene.start_replica();
    }
    scene.plane.apply(&[pull_secret(PLATFORM, "vendor", A1)]);
    scene.converges(NAMESPACES + kills, A1);
}

#[test]
fn an_api_server_that_restarts_is_followed() {
    if !enabled() {
        return;
    }
    let mut scene = Scene::start(2);
    scene.converges(NAMESPACES, A1);
    scene.plane.kill_api_server();
    eventually("the controllers notice", CONVERGES, || scene.logs().contains("watching failed"));
    scene.plane.start_api_server();
    scene.plane.apply(&[pull_secret(PLATFORM, "vendor", A2)]);
    scene.disturb(0);
    scene.add(NAMESPACES);
    scene.converges(NAMESPACES + 1, A2);
}

#[test]
fn watches_that_expired_begin_anew() {
    if !enabled() {
        return;
    }
    let mut scene = Scene::start(1);
    scene.converges(NAMESPACES, A1);
    let signal = |scene: &Scene, name: &str| {
        let id = scene.replicas.values().next().unwrap().id().to_string();
        Outcome::of(Command::new("kill").args([name, &id])).ok();
    };
    // It misses these changes, and an API server that starts knows only what comes after.
    signal(&scene, "-STOP");
    scene.plane.apply(&[pull_secret(PLATFORM, "vendor", B1)]);
    scene.disturb(3);
    scene.add(NAMESPACES);
    scene.plane.kubectl(&["delete", "serviceaccount", "-n", &name_of(7), "app"]).ok();
    scene.plane.kill_api_server();
    scene.plane.start_api_server();
    scene.add(7);
    assert!(!scene.logs().contains("too old resource version"));
    signal(&scene, "-CONT");
    scene.converges(NAMESPACES + 1, B1);
    assert!(scene.logs().contains("too old resource version"), "{}", scene.logs());
}

/// Takes what is sent to it, and hands on the bodies.
fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let taken_by = taken.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let taken = taken_by.clone();
            std::thread::spawn(move || collect(&mut BufReader::new(stream.unwrap()), &taken));
        }
    });
    (url, taken)
}

fn collect(stream: &mut BufReader<TcpStream>, taken: &Mutex<Vec<u8>>) {
    loop {
        let (mut length, mut line) = (0, String::new());
        while stream.read_line(&mut line).unwrap_or(0) > 2 {
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        if length == 0 || stream.read_exact(&mut body).is_err() {
            return;
        }
        taken.lock().unwrap().extend(body);
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
    }
}

#[test]
fn traces_reach_a_collector_and_hold_no_credential() {
    if !enabled() {
        return;
    }
    let (url, taken) = collector();
    let mut scene = Scene::start(0);
    scene.start_replica_with(&["--trace-endpoint", &url]);
    scene.converges(NAMESPACES, A1);
    // Texts are in Protobuf as they are.
    let has = |text: &str| {
        let taken = taken.lock().unwrap();
        taken.windows(text.len()).any(|window| window == text.as_bytes())
    };
    eventually("the spans arrive", Duration::from_secs(20), || {
        ["postern-controller", "controller-1", "reconcile", "team-7"].iter().all(|text| has(text))
    });
    assert!(!has(A1.1), "the spans hold the password");
}
