//! What the cluster remembers of itself, and the lock that keeps two commands apart.

use std::collections::BTreeMap;
use std::fs::{self, File};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::layout::Cluster;
use crate::say::Progress;

/// Kept in the run directory, so that it goes where the processes go and `cargo clean` spares it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Which boot of the machine it belongs to: nothing outlives a reboot but files.
    pub(super) boot: String,
    /// Where the API listens on 127.0.0.1.
    pub(super) port: u16,
    pub(super) issuer: String,
    /// Content hash of the programs that run.
    pub(super) programs: String,
    /// Set once the bring-up came to its end.
    pub(super) complete: bool,
    /// Tarball → digest of what was imported.
    pub(super) images: BTreeMap<String, String>,
    /// Kernel settings as they were found.
    pub(super) sysctls: BTreeMap<String, String>,
    /// Directories that were not there before.
    pub(super) made: Vec<String>,
}

impl State {
    pub(super) fn load(cluster: &Cluster) -> Option<Self> {
        serde_json::from_slice(&fs::read(cluster.run.join("state.json")).ok()?).ok()
    }

    pub(super) fn save(&self, cluster: &Cluster) -> Result<()> {
        fs::create_dir_all(&cluster.run).with_context(|| cluster.run.display().to_string())?;
        let (path, unfinished) = (cluster.run.join("state.json"), cluster.run.join("state.unfinished"));
        fs::write(&unfinished, serde_json::to_vec_pretty(self)?)?;
        fs::rename(unfinished, path)?;
        Ok(())
    }

    pub(super) fn of_this_boot(&self) -> bool {
        self.boot == boot()
    }
}

/// Names this boot of the machine.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Waits for its turn; the lock is held until the file is dropped.
pub(super) fn lock(cluster: &Cluster, progress: Progress) -> Result<File> {
    fs::create_dir_all(&cluster.dir).with_context(|| cluster.dir.display().to_string())?;
    let file = File::create(cluster.dir.join("lock"))?;
    if file.try_lock().is_err() {
        progress.step("waiting for another `cargo xtask cluster` to finish");
        file.lock()?;
    }
    Ok(file)
}
