//! Many targets against loops of `kubectl exec`, and runs by stream against one.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::measure::{self, median};
use super::report::{Row, Wanted};
use super::{Pairs, QUIET, conclude};
use crate::say::Progress;
use crate::sh;
use crate::subject::Subject;

const NAMESPACE: &str = "postern-bench";
const POD: &str = "bench";

/// Targets of a comparison, and of the memory's bound.
const TARGETS: usize = 50;
const MANY: usize = 1_000;

/// Runs of one process by stream.
const EACH: usize = 20;

pub(super) fn bench(runs: usize, write: bool) -> Result<()> {
    let progress = Progress::begin();
    let subject = Subject::ready()?;
    subject.install_with(&["--stream"])?;
    let pod = Pod::begin(&subject)?;
    progress.step("the ops pod and a pod to run in are ready");
    let mut rows = Vec::new();

    // The same pod so many times: what its container does for an exec is the same for all.
    let alone = "for pod in \"$@\"; do \"$KUBECTL\" exec -n postern-bench \"$pod\" -- true || exit 1; done";
    let pairs = Pairs::measure(runs, QUIET, || pod.shell(alone), || pod.exec(TARGETS, &["true"]))?;
    rows.push(pairs.row("50 targets, against a loop: wall", "ms", |s| s.wall * 1e3, Wanted::AtMost(0.2)));
    progress.step("50 targets, against a loop");
    let xargs = "printf '%s\\n' \"$@\" | xargs -P16 -I_ \"$KUBECTL\" exec -n postern-bench _ -- true";
    let pairs = Pairs::measure(runs, QUIET, || pod.shell(xargs), || pod.exec(TARGETS, &["true"]))?;
    rows.push(pairs.row("50 targets, against xargs -P16: wall", "ms", |s| s.wall * 1e3, Wanted::AtMost(0.5)));
    progress.step("50 targets, against xargs");

    let many = measure::run(&mut pod.exec(MANY, &["true"]), QUIET)?;
    rows.push(Row::alone("1,000 targets: peak memory", "MiB", many.peak, Wanted::AtMost(64.0)));
    rows.push(Row::alone("1,000 targets: wall", "s", many.wall, Wanted::Nothing));
    progress.step("1,000 targets");

    by_stream(runs, &subject, &mut rows)?;
    progress.step("by stream");

    let method = format!(
        "How it is measured: by turns ({runs} pairs after one to warm up), 16 at a time, `true` in one busybox pod that \
         is named\n{TARGETS} times. The runs by stream are in the ops pod, with everything of a process of its own: \
         kubeconfig, the key's\nSecret, port-forward, proof. Values are medians; a ratio is the median of the ratios \
         of the pairs. {EACH} runs share a\nprocess and a connection (`run --each`), and count a part of it each. The \
         peak is of one process with {MANY} targets."
    );
    let command = format!("cargo xtask bench fanout --runs {runs}");
    conclude(&subject, "Several targets", &command, &rows, &method, write, progress)
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

/// The pod to run in, in a namespace of its own, gone in the end.
struct Pod<'a>(&'a Subject);

impl<'a> Pod<'a> {
    fn begin(subject: &'a Subject) -> Result<Self> {
        // What an earlier bench left may still be going.
        sh::run(&mut subject.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found"]))?;
        sh::run(&mut subject.kubectl(&["create", "namespace", NAMESPACE]))?;
        let pod = Self(subject);
        let image = ["run", POD, "-n", NAMESPACE, "--image", "busybox:1.35", "--", "sleep", "infinity"];
        sh::run(&mut subject.kubectl(&image))?;
        let name = format!("pod/{POD}");
        let wait = ["wait", "-n", NAMESPACE, "--for=condition=Ready", &name, "--timeout=60s"];
        sh::run(&mut subject.kubectl(&wait)).context("start the pod to run in")?;
        Ok(pod)
    }

    fn exec(&self, targets: usize, tool: &[&str]) -> Command {
        let mut command = self.0.postern(&["exec", "-n", NAMESPACE]);
        command.args(vec![POD; targets]).arg("--").args(tool).stderr(Stdio::null());
        command
    }

    /// A shell script over the same targets, with kubectl in $KUBECTL.
    fn shell(&self, script: &str) -> Command {
        let mut command = self.0.command(std::path::Path::new("sh"), &["-c", script, "sh"]);
        command.args([POD; TARGETS]).env("KUBECTL", &self.0.kubectl);
        command
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", NAMESPACE, "--wait=false"];
        let _ = sh::run(&mut self.0.kubectl(&delete));
    }
}
