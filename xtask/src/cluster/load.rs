//! Putting image tarballs into the cluster's container runtime.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::layout::{Cluster, Node};
use super::state::State;
use super::{components, process};
use crate::images::Tarball;
use crate::say::{self, Progress};
use crate::sh;

fn import(node: &Node, tarball: &Path) -> Result<String> {
    let socket = node.containerd_socket();
    let args = ["--address", &socket, "--namespace", "k8s.io", "images", "import"];
    sh::output(sh::command("ctr", args).arg(tarball)).with_context(|| format!("import {}", tarball.display()))
}

/// Waits until the runtime takes requests.
pub(super) fn wait_runtime(node: &Node) -> Result<()> {
    let socket = node.containerd_socket();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let asked = sh::run(&mut sh::command("ctr", ["--address", &socket, "version"]));
        match asked {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context("containerd does not answer"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Imports those whose content the cluster does not have yet.
pub(super) fn changed(
    cluster: &Cluster,
    state: &mut State,
    tarballs: &[Tarball],
    progress: Progress,
) -> Result<()> {
    for tarball in tarballs {
        let key = tarball.path.display().to_string();
        if state.images.get(&key) == Some(&tarball.digest) {
            continue;
        }
        for node in &cluster.nodes {
            import(node, &tarball.path)?;
        }
        let name = tarball.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        progress.step(format!("imported {name}"));
        state.images.insert(key, tarball.digest.clone());
        state.save(cluster)?;
    }
    Ok(())
}

/// `cluster load-image`
pub(super) fn named(cluster: &Cluster, tarballs: &[PathBuf]) -> Result<()> {
    let up = State::load(cluster).is_some_and(|s| s.of_this_boot());
    if !up
        || cluster
            .nodes
            .iter()
            .any(|n| process::running(cluster, &components::on(n, cluster, "containerd")).is_none())
    {
        bail!("the cluster is not up: `cargo xtask cluster up`");
    }
    for tarball in tarballs {
        if !tarball.is_file() {
            bail!("there is no file {}", tarball.display());
        }
        for node in &cluster.nodes {
            let said = import(node, tarball)?;
            for line in said.lines().filter(|l| l.starts_with("unpacking ")) {
                say::result(line.trim_start_matches("unpacking ").split(" (").next().unwrap_or(line));
            }
        }
    }
    Ok(())
}
