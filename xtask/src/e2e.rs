//! The end-to-end tests: several test programs side by side, each with an ops pod of its own.
//!
//! They mostly wait, for pods and for timeouts. The tests of one program run one after the other, as they share an ops
//! pod. Programs that test the default ops pod itself run one after the other too, and so do those of the controller.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::test::{self, Testbed};
use crate::{paths, say, sh};

/// Programs at a time. Each waits most of its time; more than this, and pods are not ready within their timeouts.
const WORKERS: usize = 4;

/// What uses the default ops pod or its namespace.
const OF_THE_DEFAULT_POD: [&str; 5] = ["ops", "identity", "install_faults", "book", "bad_input"];

/// What uses the controller in the cluster, of which there is one.
const OF_THE_CONTROLLER: [&str; 6] =
    ["controller", "controller_audit", "olm", "pull_secrets", "verify_images", "volume_ownership"];

/// What takes longest comes first, so that nothing long is left for the end.
const FIRST: [&str; 6] = ["faults", "rbac", "sidecar", "servers", "leak", "proxy"];

/// A test program.
struct Program {
    name: String,
    path: PathBuf,
}

/// What came of one.
struct Ended {
    name: String,
    ok: bool,
    seconds: f64,
    /// The line with the counts.
    result: String,
    log: PathBuf,
}

/// Builds the test programs and runs them. `results` gets the line with the counts of each.
pub(crate) fn run(results: &mut Vec<String>) -> Result<()> {
    let logs = paths::target().join("e2e");
    fs::create_dir_all(&logs)?;
    let testbed = Testbed::build()?;
    let queue = Mutex::new(queue(build()?));
    let ended = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(group) = take(&queue) {
                    for program in group {
                        match one(&program, &testbed, &logs) {
                            Ok(one) => {
                                say::note(format!(
                                    "    {:18} {:6.1}s  {}",
                                    one.name, one.seconds, one.result
                                ));
                                lock(&ended).push(one);
                            }
                            Err(error) => *lock(&failed) = Some(error),
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = lock(&failed).take() {
        return Err(error);
    }
    let ended = std::mem::take(&mut *lock(&ended));
    results.extend(ended.iter().map(|one| one.result.clone()));
    let broken: Vec<&Ended> = ended.iter().filter(|one| !one.ok).collect();
    for one in &broken {
        say::note(format!("==> {} (from {})", one.name, one.log.display()));
        say::note(fs::read_to_string(&one.log).unwrap_or_default());
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", broken.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", "))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn take(queue: &Mutex<VecDeque<Vec<Program>>>) -> Option<Vec<Program>> {
    lock(queue).pop_front()
}

/// Groups of programs; those of one group run one after the other.
fn queue(programs: Vec<Program>) -> VecDeque<Vec<Program>> {
    let (of_default, others): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(|one| OF_THE_DEFAULT_POD.contains(&one.name.as_str()));
    let (of_controller, mut others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|one| OF_THE_CONTROLLER.contains(&one.name.as_str()));
    let rank = |one: &Program| FIRST.iter().position(|name| *name == one.name).unwrap_or(FIRST.len());
    others.sort_by_key(|one| (rank(one), one.name.clone()));
    [of_default, of_controller].into_iter().chain(others.into_iter().map(|one| vec![one])).collect()
}

/// Builds the test programs; their names and paths.
fn build() -> Result<Vec<Program>> {
    let mut cargo = test::cargo([
        "test",
        "--quiet",
        "-p",
        "e2e",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let messages = sh::output(&mut cargo).context("build the end-to-end tests")?;
    let mut programs = Vec::new();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let target = &message["target"];
        let is_test = target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"));
        if let (true, Some(name), Some(path)) =
            (is_test, target["name"].as_str(), message["executable"].as_str())
        {
            programs.push(Program { name: name.to_owned(), path: PathBuf::from(path) });
        }
    }
    if programs.is_empty() {
        bail!("Cargo built no end-to-end tests");
    }
    Ok(programs)
}

fn one(program: &Program, testbed: &Testbed, logs: &Path) -> Result<Ended> {
    let Program { name, path } = program;
    let log = logs.join(format!("{name}.log"));
    let file = File::create(&log).with_context(|| log.display().to_string())?;
    let mut command = Command::new(path);
    command.arg("--test-threads=1").current_dir(paths::root().join("e2e")).stdin(Stdio::null());
    command.stdout(file.try_clone()?).stderr(file);
    testbed.set(&mut command);
    if !OF_THE_DEFAULT_POD.contains(&name.as_str()) {
        command.env("POSTERN_E2E_OPS", format!("e2e-ops-{}", name.replace('_', "-")));
    }
    let started = Instant::now();
    let status = command.status().with_context(|| format!("start {}", path.display()))?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    let result =
        text.lines().rfind(|line| line.starts_with("test result:")).unwrap_or("no result").to_owned();
    Ok(Ended {
        name: name.clone(),
        ok: status.success(),
        seconds: started.elapsed().as_secs_f64(),
        result,
        log,
    })
}
