//! Many targets against loops of `kubectl exec`, and runs by stream against one.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::measure::{self, median};
use super::report::{Row, Wanted};
use super::{PEERS, Pairs, QUIET, conclude, versions};
use crate::say::Progress;
use crate::sh;
use crate::subject::Subject;

const NAMESPACE: &str = "postern-bench";

/// Targets of a comparison, and of the memory's bound.
const TARGETS: usize = 50;
const MANY: usize = 1_000;

/// Runs of one process by stream.
const EACH: usize = 20;

pub(super) fn bench(runs: usize, write: bool) -> Result<()> {
    let progress = Progress::begin();
    let subject = Subject::ready()?;
    subject.install_with(&["--stream"])?;
    let pods = Pods::begin(&subject)?;
    progress.step("the ops pod and the pods to run in are ready");
    let mut rows = Vec::new();

    // Pods of their own: a runtime starts one process of a pod at a time.
    let alone = "for pod in \"$@\"; do \"$KUBECTL\" exec -n postern-bench \"$pod\" -- true || exit 1; done";
    let pairs = Pairs::measure(runs, QUIET, || pods.shell(alone, false), || pods.exec(TARGETS, &["true"]))?;
    rows.push(pairs.row("50 targets, against a loop: wall", "ms", |s| s.wall * 1e3, Wanted::AtMost(0.2)));
    progress.step("50 targets, against a loop");
    let xargs = "printf '%s\\n' \"$@\" | xargs -P16 -I_ \"$KUBECTL\" exec -n postern-bench _ -- true";
    let pairs = Pairs::measure(runs, QUIET, || pods.shell(xargs, false), || pods.exec(TARGETS, &["true"]))?;
    rows.push(pairs.row("50 targets, against xargs -P16: wall", "ms", |s| s.wall * 1e3, Wanted::AtMost(0.5)));
    progress.step("50 targets, against xargs");

    let pairs = Pairs::measure(runs, QUIET, || pods.shell(alone, true), || pods.exec(TARGETS, &["true"]))?;
    let what = "50 targets, against a loop of all-in-one kubectl: wall";
    rows.push(pairs.row(what, "ms", |s| s.wall * 1e3, Wanted::Nothing));
    progress.step(what);

    let many = measure::run(&mut pods.exec(MANY, &["true"]), QUIET)?;
    rows.push(Row::alone("1,000 targets: peak memory", "MiB", many.peak, Wanted::AtMost(64.0)));
    rows.push(Row::alone("1,000 targets: wall", "s", many.wall, Wanted::Nothing));
    progress.step("1,000 targets");

    by_stream(runs, &subject, &mut rows)?;
    progress.step("by stream");

    let method = format!(
        "How it is measured: by turns ({runs} pairs after one to warm up), 16 at a time, `true` in {TARGETS} busybox \
         pods;\n{MANY} targets are these pods again and again. The runs by stream are in the ops pod, with everything of a process of its own: \
         kubeconfig, the key's\nSecret, port-forward, proof. Values are medians; a ratio is the median of the ratios \
         of the pairs. {EACH} runs share a\nprocess and a connection (`run --each`), and count a part of it each. The \
         peak is of one process with {MANY} targets.\n\n{PEERS}"
    );
    let command = format!("cargo xtask bench fanout --runs {runs}");
    conclude(&versions(&subject)?, "Several targets", &command, &rows, &method, write, progress)
}

fn by_stream(runs: usize, subject: &Subject, rows: &mut Vec<Row>) -> Result<()> {
    let kubectl = || subject.exec(false, &["true"]);
    let once = || subject.postern(&["run", "--transport", "stream", "--", "true"]);
    let pairs = Pairs::measure(runs, QUIET, kubectl, once)?;
    rows.push(pairs.row("`true` by stream: wall", "ms", |s| s.wall * 1e3, Wanted::AtMost(0.2)));

    let values: Vec<String> = (0..EACH).map(|number| number.to_string()).collect();
    let several = || {
        let mut command = subject.postern(&["run", "--transport", "stream"]);
        for value in &values {
            command.args(["--each", value]);
        }
        command.args(["--", "true"]).stderr(Stdio::null());
        command
    };
    let parts = f64::from(u32::try_from(EACH)?);
    let mut pairs = Vec::new();
    for turn in 0..=runs {
        let kubectl = measure::run(&mut kubectl(), QUIET)?.wall * 1e3;
        let postern = measure::run(&mut several(), QUIET)?.wall * 1e3 / parts;
        if turn > 0 {
            pairs.push((kubectl, postern));
        }
    }
    let medians = (median(pairs.iter().map(|pair| pair.0)), median(pairs.iter().map(|pair| pair.1)));
    let ratio = median(pairs.iter().map(|(kubectl, postern)| postern / kubectl));
    let what = "`true` by stream, each of 20 of one process: wall";
    rows.push(Row::paired(what, "ms", medians, ratio, Wanted::AtMost(0.15)));
    Ok(())
}

/// The pods to run in, in a namespace of their own, gone in the end.
struct Pods<'a> {
    subject: &'a Subject,
    names: Vec<String>,
}

impl<'a> Pods<'a> {
    fn begin(subject: &'a Subject) -> Result<Self> {
        // What an earlier bench left may still be going.
        sh::run(&mut subject.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found"]))?;
        sh::run(&mut subject.kubectl(&["create", "namespace", NAMESPACE]))?;
        let mut pods = Self { subject, names: Vec::new() };
        let replicas = TARGETS.to_string();
        let image =
            ["create", "deployment", "bench", "-n", NAMESPACE, "--image", "busybox:1.35", "--replicas"];
        let create = [&image[..], &[replicas.as_str(), "--", "sleep", "infinity"]].concat();
        sh::run(&mut subject.kubectl(&create))?;
        let wait = ["rollout", "status", "-n", NAMESPACE, "deployment/bench", "--timeout=300s"];
        sh::run(&mut subject.kubectl(&wait)).context("start the pods to run in")?;
        let names = sh::output(&mut subject.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "name"]))?;
        pods.names =
            names.split_whitespace().map(|name| name.trim_start_matches("pod/").to_owned()).collect();
        Ok(pods)
    }

    /// A command in so many targets: all pods, each as often as it takes.
    fn exec(&self, targets: usize, tool: &[&str]) -> Command {
        let mut command = self.subject.postern(&["exec", "-n", NAMESPACE]);
        command.args(self.names.iter().cycle().take(targets)).arg("--").args(tool).stderr(Stdio::null());
        command
    }

    /// A shell script over the same targets, with kubectl in $KUBECTL.
    fn shell(&self, script: &str, all_in_one: bool) -> Command {
        let mut command = self.subject.command(std::path::Path::new("sh"), &["-c", script, "sh"]);
        command
            .args(&self.names)
            .env("KUBECTL", if all_in_one { &self.subject.all_in_one } else { &self.subject.kubectl });
        command
    }
}

impl Drop for Pods<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", NAMESPACE, "--wait=false"];
        let _ = sh::run(&mut self.subject.kubectl(&delete));
    }
}
