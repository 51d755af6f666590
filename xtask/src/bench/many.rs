//! Runs by stream, and commands over many targets, against what people do with kubectl today.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::measure::{self, median};
use super::report::{Row, Wanted};
use super::{Pairs, QUIET};
use crate::say::Progress;
use crate::sh;
use crate::subject::Subject;

/// Runs of one process, by stream.
const RUNS: u32 = 20;

/// Targets of a fan-out.
const TARGETS: usize = 50;

/// Targets of the one whose memory is looked at.
const MANY: usize = 1000;

/// `kubectl exec` of `true` in the ops pod, as a shell writes it.
const EXEC: &str = "\"$0\" exec -n postern-ops postern-ops -c tools -- true";

pub(super) fn rows(runs: usize, subject: &Subject, progress: Progress) -> Result<Vec<Row>> {
    let mut install = subject.postern(&["ops", "install", "--stream", "--timeout", "120s"]);
    sh::run(&mut install).context("postern ops install --stream")?;
    let stream = |more: &[&str]| {
        let mut command = subject.postern(&["run", "--transport", "stream"]);
        command.args(more).args(["--", "true"]);
        command
    };
    // Until the kubelet has brought the key.
    sh::run(&mut stream(&[]))?;
    progress.step("the ops pod takes streams");
    let mut rows = Vec::new();

    let exec = || subject.exec(false, &["true"]);
    let one = Pairs::measure(runs, QUIET, exec, || stream(&[]))?;
    rows.push(one.row("`true` by stream: wall", "ms", |s| s.wall * 1e3, Wanted::AtMost(0.2)));
    rows.push(one.row("`true` by stream: processor time", "ms", |s| s.cpu * 1e3, Wanted::Nothing));
    rows.push(one.row("`true` by stream: peak memory", "MiB", |s| s.peak, Wanted::Nothing));
    let values: Vec<String> = (0..RUNS).map(|value| format!("--each={value}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let several = Pairs::measure(runs, QUIET, exec, || stream(&values))?;
    rows.push(several.shared(&format!("`true` by stream, each of {RUNS} of a process: wall"), RUNS));
    progress.step("true by stream");

    let script = |text: String| {
        let mut command = subject.shell(&text);
        command.arg(&subject.kubectl);
        command
    };
    let targets = |count: usize| {
        let mut command = subject.postern(&["exec", "-n", "postern-ops", "--all-containers"]);
        command.args(vec!["postern-ops"; count]).args(["--", "true"]).stderr(std::process::Stdio::null());
        command
    };
    let fan = |rows: &mut Vec<Row>, what: &str, other: &dyn Fn() -> Command, limit| -> Result<()> {
        let pairs = Pairs::measure(runs.min(11), QUIET, other, || targets(TARGETS))?;
        rows.push(pairs.row(what, "ms", |s| s.wall * 1e3, Wanted::AtMost(limit)));
        progress.step(what);
        Ok(())
    };
    let looped = || script(format!("for i in $(seq {TARGETS}); do {EXEC} || exit 1; done"));
    fan(&mut rows, &format!("{TARGETS} targets, against a loop of kubectl: wall"), &looped, 0.2)?;
    let xargs = || script(format!("seq {TARGETS} | xargs -P16 -I@ sh -c '{EXEC}' \"$0\""));
    fan(&mut rows, &format!("{TARGETS} targets, against xargs -P16 kubectl: wall"), &xargs, 0.5)?;

    let peaks = [measure::run(&mut targets(MANY), QUIET)?.peak];
    let what = format!("{MANY} targets: peak memory");
    rows.push(Row::alone(&what, "MiB", median(peaks), Wanted::AtMost(64.0)));
    Ok(rows)
}
