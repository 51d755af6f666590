//! The controller against a client that makes the same writes and nothing else, and its admissions.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::report::{Row, Wanted};
use super::{Pairs, QUIET, conclude, median};
use crate::say::Progress;
use crate::{dist, paths, sh};

/// The namespace of the Lease and the certificate of this benchmark.
const NAMESPACE: &str = "postern-bench";
const SOURCES: [&str; 2] = ["one", "two"];
const WEBHOOK: &str = "127.0.0.1:18443";
const HEALTH: &str = "127.0.0.1:18080";

struct Bench {
    controller: PathBuf,
    load: PathBuf,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

pub(super) fn bench(runs: usize, write: bool) -> Result<()> {
    let progress = Progress::begin();
    let testbed = paths::target().join("testbed");
    let bench = Bench {
        controller: dist::controller()?,
        load: dist::load()?,
        kubectl: testbed.join("bin/kubectl"),
        kubeconfig: testbed.join("kubeconfig"),
    };
    ensure!(bench.kubeconfig.is_file(), "there is no test cluster: cargo xtask cluster up");
    bench.prepare()?;
    let mut rows = Vec::new();
    for (count, runs, limit) in
        [(500, runs, Wanted::AtMost(1.3)), (1_000, 3, Wanted::Nothing), (2_000, 3, Wanted::Nothing)]
    {
        let number = count.to_string();
        sh::run(&mut bench.load(&["make", &number]))?;
        bench.settle(count)?;
        progress.step(format!("{count} namespaces are ready"));
        let pairs = Pairs::measure(
            runs,
            QUIET,
            || after(&mut bench.load(&["undo", &number]), bench.load(&["write", &number])),
            || {
                // What the other one wrote goes, and the objects ask for copies.
                bench.forget(&number);
                after(&mut bench.ask(), bench.once())
            },
        )?;
        let of = |what: &str| format!("{count} namespaces, cold: {what}");
        rows.push(pairs.row(&of("wall"), "ms", |s| s.wall * 1e3, limit));
        rows.push(pairs.row(&of("processor time"), "ms", |s| s.cpu * 1e3, Wanted::Nothing));
        let peak = median(pairs.0.iter().map(|(_, controller)| controller.peak));
        let limit = if count == 500 { Wanted::AtMost(64.0) } else { Wanted::Nothing };
        rows.push(Row::alone(&of("the controller's peak memory"), "MiB", peak, limit));
        rows.push(Row::alone(&of("writes of a second run"), "", bench.writes()?, Wanted::AtMost(0.0)));
        progress.step(format!("{count} namespaces"));
    }
    bench.admissions(&mut rows)?;
    progress.step("admissions");
    bench.clean()?;
    let rows: Vec<Row> = rows
        .into_iter()
        .map(|row| Row { target: row.target.replace("kubectl's", "the bare client's"), ..row })
        .collect();
    let version = sh::output(&mut sh::command(&bench.controller, ["--version"]))?;
    let method = format!(
        "How it is measured: a client that makes the same writes with as many requests at a time (16) and does nothing else, and
`postern-controller run --once`, by turns ({runs} pairs after one to warm up; 3 for the larger counts), against the
API server of the testbed on the same machine. For each namespace: 2 pull Secrets are created, and 3 ServiceAccounts
are changed to name them. The controller's time has everything: connecting, reading all namespaces, ServiceAccounts,
Secrets and its own objects, planning, and the statuses. A run that does not finish gives no figure.

Admissions: `taskset` gives the controller one core; 500 requests a second over 8 connections of TLS for 20 s. Each
request is a Pod of two containers, and each answer has a patch. A time begins when the request was due, so that a
late one counts whole."
    );
    let command = format!("cargo xtask bench controller --runs {runs}");
    conclude(version.trim(), "The controller", &command, &rows, &method, write, progress)
}

impl Bench {
    fn load(&self, args: &[&str]) -> Command {
        let mut command = sh::command(&self.load, args);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = sh::command(&self.kubectl, args);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    fn once(&self) -> Command {
        let mut command = sh::command(&self.controller, ["run", "--once", "--parts", "pull-secrets"]);
        command.args(["--namespace", NAMESPACE, "--kubeconfig"]).arg(&self.kubeconfig);
        command.stderr(Stdio::null());
        command
    }

    fn apply(&self, objects: &[Value]) -> Result<()> {
        let path = paths::target().join("bench-controller.json");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        fs::write(&path, list.to_string())?;
        sh::run(self.kubectl(&["apply", "-f"]).arg(&path))
    }

    /// The custom resources, and the sources.
    fn prepare(&self) -> Result<()> {
        let list = sh::output(
            sh::command(crate::tools::cargo(), ["run", "--quiet", "-p", "postern", "--"])
                .args(["controller", "manifests", "-o", "json"])
                .current_dir(paths::root()),
        )?;
        let list: Value = serde_json::from_str(&list)?;
        let objects = list["items"].as_array().cloned().unwrap_or_default();
        let definitions: Vec<Value> =
            objects.into_iter().filter(|one| one["kind"] == "CustomResourceDefinition").collect();
        self.apply(&definitions)?;
        let mut objects =
            vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})];
        objects.extend(SOURCES.map(|name| {
            let config = json!({"auths": {"registry.test": {"auth": "dXNlcjpwYXNzd29yZA=="}}}).to_string();
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
                "metadata": {"name": name, "namespace": NAMESPACE}, "stringData": {".dockerconfigjson": config},
            })
        }));
        self.apply(&objects)
    }

    /// Waits until the cluster has made what it makes for a namespace.
    fn settle(&self, count: usize) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(300);
        let args =
            ["get", "configmaps", "-A", "--field-selector", "metadata.name=kube-root-ca.crt", "-o", "name"];
        while sh::output(&mut self.kubectl(&args))?.lines().count() < count {
            ensure!(Instant::now() < end, "the cluster does not finish {count} namespaces");
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }

    /// Two objects that ask for copies in every namespace of the benchmark.
    fn ask(&self) -> Command {
        let path = paths::target().join("bench-controller-ask.json");
        let objects = SOURCES.map(|name| {
            json!({
                "apiVersion": "postern.dev/v1alpha1", "kind": "ClusterPullSecret", "metadata": {"name": format!("bench-{name}")},
                "spec": {
                    "source": {"namespace": NAMESPACE, "name": name},
                    "namespaces": {"selector": {"matchLabels": {"postern-bench": "true"}}},
                },
            })
        });
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        // If it cannot be written, kubectl says so.
        let _ = fs::write(&path, list.to_string());
        let mut command = self.kubectl(&["apply", "-f"]);
        command.arg(path);
        command
    }

    /// Takes back what either of them wrote.
    fn forget(&self, count: &str) {
        let _ = sh::run(&mut self.load(&["undo", count]));
        let _ = sh::run(&mut self.kubectl(&["delete", "clusterpullsecrets", "--all"]));
        let _ = sh::run(&mut self.once());
    }

    /// How many namespaces a second run changes.
    fn writes(&self) -> Result<f64> {
        let output = self.once().stderr(Stdio::piped()).output()?;
        ensure!(output.status.success(), "the second run does not finish");
        let count = String::from_utf8_lossy(&output.stderr).matches("\"reconciled\"").count();
        Ok(f64::from(u32::try_from(count)?))
    }

    fn admissions(&self, rows: &mut Vec<Row>) -> Result<()> {
        let log = File::create(paths::target().join("bench-controller.log"))?;
        let mut command = sh::command("taskset", ["-c", "0"]);
        command.arg(&self.controller).args([
            "run",
            "--namespace",
            NAMESPACE,
            "--name",
            "bench",
            "--kubeconfig",
        ]);
        command.arg(&self.kubeconfig).args(["--webhook-address", WEBHOOK, "--health-address", HEALTH]);
        let child = command.stderr(log).stdout(Stdio::null()).spawn().context("start the controller")?;
        let mut child = Ended(child);
        let end = Instant::now() + Duration::from_secs(60);
        let ready = || {
            let mut curl = sh::command("curl", ["-sf", "--noproxy", "*"]);
            sh::output(curl.arg(format!("http://{HEALTH}/readyz"))).is_ok()
        };
        while !ready() {
            if Instant::now() > end || child.0.try_wait()?.is_some() {
                bail!("the controller does not get ready: see target/bench-controller.log");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let ca = paths::target().join("bench-controller.ca");
        let secret = sh::output(&mut self.kubectl(&[
            "get",
            "secret",
            "-n",
            NAMESPACE,
            "postern-webhook",
            "-o",
            "json",
        ]))?;
        let secret: Value = serde_json::from_str(&secret)?;
        let encoded = secret["data"]["ca.crt"].as_str().context("the Secret has no ca.crt")?;
        let decode = format!("printf %s '{encoded}' | base64 -d > '{}'", ca.display());
        sh::run(&mut sh::command("sh", ["-ec", &decode]))?;
        let ca = ca.display().to_string();
        let sent = sh::output(&mut self.load(&["admissions", WEBHOOK, &ca, "500", "20"]))?;
        let sent: Value = serde_json::from_str(sent.trim())?;
        let at = |name: &str| sent[name].as_f64().unwrap_or(f64::MAX);
        rows.push(Row::alone("admissions, 500 a second: median", "ms", at("p50"), Wanted::Nothing));
        rows.push(Row::alone("admissions, 500 a second: p99", "ms", at("p99"), Wanted::AtMost(5.0)));
        rows.push(Row::alone("the controller's memory then", "MiB", peak(&child.0)?, Wanted::AtMost(40.0)));
        Ok(())
    }

    fn clean(&self) -> Result<()> {
        sh::run(&mut self.kubectl(&["delete", "clusterpullsecrets", "--all"]))?;
        sh::run(&mut self.load(&["delete"]))?;
        sh::run(&mut self.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]))
    }
}

/// Runs the first, untimed, and returns the second. A failure shows in the second.
fn after(first: &mut Command, second: Command) -> Command {
    let _ = sh::run(first);
    second
}

/// A process that ends with the benchmark.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The largest resident memory of a process so far, in MiB. `taskset` becomes the program.
fn peak(child: &Child) -> Result<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(child.id().to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u32 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(f64::from(kib) / 1024.0)
}
