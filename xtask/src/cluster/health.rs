//! Whether the cluster is well: every process alive, every component answering.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::components;
use super::host;
use super::layout::{API_PORT, Cluster};
use super::process;
use super::state::State;
use crate::sh;

/// One line of `cluster status`.
#[derive(Serialize)]
pub(super) struct Component {
    pub(super) name: String,
    pub(super) healthy: bool,
    pub(super) detail: String,
}

#[derive(Deserialize)]
struct Answer {
    name: String,
    status: u16,
    body: String,
    error: String,
}

impl Answer {
    fn ok(&self) -> bool {
        self.status == 200
    }

    fn why(&self) -> String {
        let text = if self.error.is_empty() { &self.body } else { &self.error };
        let text = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().trim();
        format!("{} {}", self.status, text.chars().take(160).collect::<String>())
    }
}

/// Objects without which a cluster is of little use, and where they are.
const OBJECTS: [(&str, &str); 3] = [
    ("default ServiceAccount", "/api/v1/namespaces/default/serviceaccounts/default"),
    ("StorageClass local-path", "/apis/storage.k8s.io/v1/storageclasses/local-path"),
    ("Service kube-dns", "/api/v1/namespaces/kube-system/services/kube-dns"),
];

/// Everything that is looked at, in the order of starting.
pub(super) fn report(cluster: &Cluster, state: &State) -> Vec<Component> {
    if !state.of_this_boot() {
        let detail = "the machine was restarted since; `cargo xtask cluster up`".to_owned();
        return vec![Component { name: "cluster".to_owned(), healthy: false, detail }];
    }
    let answers = ask(cluster, &inside(cluster), true).unwrap_or_default();
    let outside = [("forward".to_owned(), format!("https://127.0.0.1:{}/readyz", state.port))];
    let outside = ask(cluster, &outside, false).unwrap_or_default();
    let answer = |name: &str| answers.iter().chain(&outside).find(|a| a.name == name);
    let mut list = Vec::new();
    for daemon in components::all(cluster, state) {
        let running = process::running(cluster, &daemon.name);
        let said = answer(&daemon.name);
        let (healthy, detail) = match (running, said) {
            (None, _) => (false, "not running".to_owned()),
            (Some(p), Some(a)) if !a.ok() => (false, format!("pid {}, answers {}", p.pid, a.why())),
            (Some(p), _) => (true, format!("pid {}", p.pid)),
        };
        list.push(Component { name: daemon.name, healthy, detail });
    }
    for node in &cluster.nodes {
        let name = format!("node {}", node.name);
        let said = answer(&name);
        let ready = said.is_some_and(|a| a.ok() && node_ready(&a.body));
        let healthy = ready && host::netns_exists(node);
        let detail = match said {
            _ if healthy => "Ready".to_owned(),
            Some(a) if !a.ok() => a.why(),
            _ => "not Ready".to_owned(),
        };
        list.push(Component { name, healthy, detail });
    }
    for (name, _) in OBJECTS {
        let said = answer(name);
        list.push(Component {
            name: name.to_owned(),
            healthy: said.is_some_and(Answer::ok),
            detail: said.filter(|a| !a.ok()).map(Answer::why).unwrap_or_default(),
        });
    }
    list
}

/// Health addresses in the control plane's namespace, by component.
fn inside(cluster: &Cluster) -> Vec<(String, String)> {
    let api = format!("https://127.0.0.1:{API_PORT}");
    let mut urls = vec![
        ("etcd".to_owned(), "http://127.0.0.1:2379/health".to_owned()),
        ("kube-apiserver".to_owned(), format!("{api}/readyz")),
        ("kube-controller-manager".to_owned(), "https://127.0.0.1:10257/healthz".to_owned()),
        ("kube-scheduler".to_owned(), "https://127.0.0.1:10259/healthz".to_owned()),
        ("coredns".to_owned(), "http://127.0.0.1:8181/ready".to_owned()),
        ("kubelet".to_owned(), "http://127.0.0.1:10248/healthz".to_owned()),
        ("kube-proxy".to_owned(), "http://127.0.0.1:10256/livez".to_owned()),
    ];
    urls.extend(OBJECTS.map(|(name, path)| (name.to_owned(), format!("{api}{path}"))));
    for node in &cluster.nodes {
        urls.push((format!("node {}", node.name), format!("{api}/api/v1/nodes/{}", node.name)));
    }
    urls
}

fn ask(cluster: &Cluster, urls: &[(String, String)], inside: bool) -> Result<Vec<Answer>> {
    let pairs = urls.iter().map(|(name, url)| format!("{name}={url}"));
    let probe = cluster.bin("testctl");
    let mut command = if inside {
        let netns = format!("--net={}", cluster.first().netns_path().display());
        let mut command = sh::command("nsenter", [&netns, "--"]);
        command.arg(probe);
        command
    } else {
        sh::command(probe, Vec::<String>::new())
    };
    command
        .args(["probe", "--cert", &cluster.pki("admin.crt"), "--key", &cluster.pki("admin.key")])
        .args(pairs);
    // A caller's proxy knows nothing of these addresses.
    Ok(serde_json::from_str(&sh::output(command.env_clear().env("PATH", sh::SYSTEM_PATH))?)?)
}

/// Waits until every node's kubelet knows the pods it should: right after its start it knows none, and
/// refuses `exec` and `logs`.
pub(super) fn wait_pods(cluster: &Cluster, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    let ids = |answer: &Answer| {
        let list: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let id = |pod: Value| pod["metadata"]["uid"].as_str().map(str::to_owned);
        items.into_iter().filter_map(id).collect::<BTreeSet<String>>()
    };
    for node in &cluster.nodes {
        let here = format!("spec.nodeName={},status.phase=Running", node.name);
        let urls = [
            ("api", format!("https://127.0.0.1:{API_PORT}/api/v1/pods?fieldSelector={here}")),
            ("kubelet", format!("https://{}:10250/pods", node.ip)),
        ]
        .map(|(name, url)| (name.to_owned(), url));
        loop {
            let answers = ask(cluster, &urls, true)?;
            let known = answers.iter().all(Answer::ok) && ids(&answers[0]).is_subset(&ids(&answers[1]));
            if known {
                break;
            }
            if Instant::now() > deadline {
                bail!(
                    "the kubelet of {} does not know its pods; see {}",
                    node.name,
                    cluster.log("kubelet").display()
                );
            }
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    Ok(())
}

fn node_ready(body: &str) -> bool {
    let node: Value = serde_json::from_str(body).unwrap_or_default();
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Waits until all the named components (or everything, for an empty list) are well.
pub(super) fn wait(cluster: &Cluster, state: &State, names: &[&str], patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let mut report = report(cluster, state);
        report.retain(|c| !c.healthy && (names.is_empty() || names.contains(&c.name.as_str())));
        let Some(bad) = report.first() else { return Ok(()) };
        // A process that ended will not come back by waiting.
        let dead = report.iter().find(|c| c.detail == "not running");
        if let Some(dead) = dead {
            bail!("{} ended: see {}", dead.name, cluster.log(&dead.name).display());
        }
        if Instant::now() > deadline {
            let all: Vec<String> = report.iter().map(|c| format!("{} ({})", c.name, c.detail)).collect();
            let log = cluster.log(&bad.name);
            bail!("not well after {} s: {}; see {}", patience.as_secs(), all.join(", "), log.display());
        }
        std::thread::sleep(Duration::from_millis(150));
    }
}
