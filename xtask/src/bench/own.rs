//! `postern-agent own` against GNU `chown -R`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::report::{Row, Wanted};
use super::{Pairs, QUIET, conclude};
use crate::say::Progress;
use crate::{dist, paths, sh};

const DIRECTORIES: u32 = 2_000;
const FILES: u32 = 100;

/// Two owners, so that everything is to be changed each time.
const THEIRS: &str = "1001:1001";
const OURS: &str = "1002:1002";

pub(super) fn bench(runs: usize, write: bool) -> Result<()> {
    let progress = Progress::begin();
    if !rustix::process::geteuid().is_root() {
        bail!("only root can change owners: run it as root");
    }
    let agent = dist::agent()?;
    let tree = tree()?;
    progress.step("the agent and the files are ready");
    let on_tree = |mut command: Command| {
        command.arg(&tree).stderr(Stdio::null());
        command
    };
    let chown = |owner: &str| on_tree(sh::command("chown", ["-R", owner]));
    let own = |owner: &str| on_tree(sh::command(&agent, ["own", owner]));
    let mut rows = Vec::new();
    let mut measure = |what: &str, owners: [&str; 2], limit: f64| -> Result<()> {
        let pairs = Pairs::measure(runs, QUIET, || chown(owners[0]), || own(owners[1]))?;
        rows.push(pairs.row(&format!("{what}: wall"), "ms", |s| s.wall * 1e3, Wanted::AtMost(limit)));
        rows.push(pairs.row(&format!("{what}: processor time"), "ms", |s| s.cpu * 1e3, Wanted::Nothing));
        rows.push(pairs.row(&format!("{what}: peak memory"), "MiB", |s| s.peak, Wanted::Nothing));
        progress.step(what);
        Ok(())
    };
    measure("everything is to be changed", [THEIRS, OURS], 0.8)?;
    measure("nothing is to be changed", [OURS, OURS], 0.4)?;
    fs::remove_dir_all(&tree)?;
    let rows: Vec<Row> =
        rows.into_iter().map(|row| Row { target: row.target.replace("kubectl", "chown"), ..row }).collect();
    let version = sh::output(&mut sh::command(&agent, ["--version"]))?;
    let chown = sh::output(&mut sh::command("chown", ["--version"]))?;
    let programs = format!("{}, {}", version.trim(), chown.lines().next().unwrap_or_default());
    let method = format!(
        "How it is measured: `chown -R` and `postern-agent own` by turns ({runs} pairs after one to warm up) on the same \
         {} empty\nfiles in {DIRECTORIES} directories, on this machine's file system, with all of the metadata in memory. Where \
         everything is\nto be changed, the two set different owners.

The limit where everything is to be changed: `chown -R` changes a file by its name. `own` opens it, looks at what it
opened and changes that, so that nobody can put another file in its place meanwhile. That is twice the system calls, on
as many processors as there are.",
        DIRECTORIES * FILES
    );
    conclude(
        &programs,
        "Owners",
        &format!("cargo xtask bench own --runs {runs}"),
        &rows,
        &method,
        write,
        progress,
    )
}

fn tree() -> Result<PathBuf> {
    let tree = paths::target().join("bench-own");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for directory in 0..DIRECTORIES {
        let directory = tree.join(format!("{:02}/{directory}", directory % 40));
        fs::create_dir_all(&directory)?;
        for file in 0..FILES {
            fs::write(directory.join(format!("file-{file}")), "")?;
        }
    }
    Ok(tree)
}
