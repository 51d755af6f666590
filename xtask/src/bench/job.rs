//! `postern job` against `kubectl run --rm -i`.

use std::process::Command;

use anyhow::Result;

use super::report::Wanted;
use super::{PEERS, Pairs, QUIET, conclude, versions};
use crate::say::Progress;
use crate::sh;
use crate::subject::Subject;

const NAMESPACE: &str = "postern-bench";
/// An image with the agent, and one without.
const OPS: &str = "ghcr.io/postern-dev/postern-ops:dev";
const TOOLS: &str = "docker.io/library/debian-tools:12";
const USER: &str = "65534";

pub(super) fn bench(runs: usize, write: bool) -> Result<()> {
    let progress = Progress::begin();
    let subject = Subject::ready()?;
    sh::run(&mut subject.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found"]))?;
    sh::run(&mut subject.kubectl(&["create", "namespace", NAMESPACE]))?;
    let job = |more: &[&str]| {
        let mut command = subject.postern(&["job", "-n", NAMESPACE]);
        command.args(more).args(["--", "true"]);
        command
    };
    let mut rows = Vec::new();
    let pairs = Pairs::measure(runs, QUIET, || kubectl_run(&subject, OPS), || job(&[]))?;
    rows.push(pairs.row("`true`: wall", "ms", |s| s.wall * 1e3, Wanted::AtMost(0.9)));
    rows.push(pairs.row("`true`: processor time", "ms", |s| s.cpu * 1e3, Wanted::Nothing));
    progress.step("with the ops pod's image");
    let with_init = || job(&["--image", TOOLS, "--user", USER]);
    let pairs = Pairs::measure(runs, QUIET, || kubectl_run(&subject, TOOLS), with_init)?;
    let what = "`true`, in an image without the agent: wall";
    rows.push(pairs.row(what, "ms", |s| s.wall * 1e3, Wanted::Nothing));
    progress.step("with an image without the agent");
    sh::run(&mut subject.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]))?;
    let method = format!(
        "How it is measured: by turns ({runs} pairs after one to warm up), from the start of the program to its end, \
         which deletes\nthe pod. The images are on the node. Values are medians; a ratio is the median of the ratios of \
         the pairs.\n\n{PEERS}"
    );
    let command = format!("cargo xtask bench job --runs {runs}");
    conclude(&versions(&subject)?, "Jobs", &command, &rows, &method, write, progress)
}

/// The peer: a pod that is deleted afterwards. Its name and its notices are kubectl's own on stdout.
fn kubectl_run(subject: &Subject, image: &str) -> Command {
    let script = "\"$1\" run \"bench-$$\" -n \"$2\" --rm -i -q --restart=Never --image \"$3\" --command -- true >/dev/null";
    let kubectl = subject.kubectl.display().to_string();
    let mut command = subject.command(std::path::Path::new("sh"), &["-c", script, "sh", &kubectl]);
    command.args([NAMESPACE, image]);
    command
}
