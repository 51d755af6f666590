//! Taking a cluster down, whatever state it is in: nothing of it is kept, so nothing is asked nicely.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::host;
use super::layout::Cluster;
use super::process::{self, Process};
use super::state::State;
use crate::say::Progress;

/// What stays in the cluster's directory.
const KEPT: [&str; 2] = ["log", "lock"];

pub(super) fn down(cluster: &Cluster, progress: Progress) -> Result<()> {
    let state = State::load(cluster);
    if state.is_none()
        && !cluster.run.exists()
        && daemons(cluster).is_empty()
        && leftovers(cluster).is_empty()
    {
        progress.step("nothing is up");
        return Ok(());
    }
    // Twice: a process may have started another while it was dying.
    for _ in 0..3 {
        let found = daemons(cluster);
        if found.is_empty() {
            break;
        }
        if !process::kill(&found) {
            let pids: Vec<String> = found.iter().filter(|p| p.alive()).map(|p| p.pid.to_string()).collect();
            bail!("processes do not end: {}", pids.join(" "));
        }
    }
    for node in &cluster.nodes {
        host::remove_cgroups(node)?;
    }
    progress.step("processes ended");
    host::unmount_below(&cluster.run)?;
    host::unmount_below(&cluster.disk())?;
    for node in &cluster.nodes {
        host::remove_netns(node)?;
    }
    host::restore(cluster, &state.unwrap_or_default());
    for entry in leftovers(cluster) {
        remove(&cluster.dir.join(entry))?;
    }
    remove(&cluster.run)?; // last: a `down` cut short finds its way again
    progress.step(format!("down; logs stay in {}", cluster.dir.join("log").display()));
    Ok(())
}

/// Every process of this cluster but those in containers. Found by what they are rather than by pid
/// files, which a crash or `cargo clean` may have taken.
fn daemons(cluster: &Cluster) -> Vec<Process> {
    let programs = [cluster.bin("postern-testbed"), cluster.bin("testctl")].map(|p| p.display().to_string());
    let ours = format!("{}/", cluster.run.display());
    let configs = format!("{}/", cluster.etc("").display()).replace("//", "/");
    // Servers beside it: of Keycloak it is the shell that was started, and Java that runs.
    let beside = format!("{}/", cluster.dir.join("providers/run").display());
    process::find(|exe, line| {
        let exe = exe.trim_end_matches(" (deleted)");
        let name = Path::new(exe).file_name().unwrap_or_default().to_string_lossy();
        let runtime = matches!(&*name, "containerd" | "containerd-shim-runc-v2" | "runc");
        programs.iter().any(|p| p == exe)
            || runtime && (line.contains(&ours) || line.contains(&configs))
            || line.contains(&beside)
    })
}

fn leftovers(cluster: &Cluster) -> Vec<String> {
    let Ok(entries) = fs::read_dir(&cluster.dir) else { return Vec::new() };
    let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|n| !KEPT.contains(&n.as_str())).collect()
}

fn remove(path: &Path) -> Result<()> {
    let outcome =
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
