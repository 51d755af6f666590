//! Other servers on the cluster's node: pods reach them at its address, and they find the cluster's services by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::layout::{API_SERVICE, Cluster};
use super::process::{self, Daemon};
use crate::sh;

/// How long a server may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// The node of a cluster that is up.
pub(crate) struct Beside {
    cluster: Cluster,
}

impl Beside {
    /// The first node of this checkout's cluster, whatever its state.
    pub(crate) fn first_node() -> Self {
        Self { cluster: Cluster::of_checkout() }
    }

    /// Its address, for pods and for those on it.
    pub(crate) fn address(&self) -> &str {
        &self.cluster.first().ip
    }

    /// The cluster's own CA.
    pub(crate) fn ca(&self) -> String {
        self.cluster.pki("ca.crt")
    }

    /// Where what people use of the cluster lies.
    pub(crate) fn bin(&self, program: &str) -> PathBuf {
        self.cluster.bin(program)
    }

    /// A command on the node.
    pub(crate) fn command(&self, program: &str) -> Command {
        let netns = format!("--net={}", self.cluster.first().netns_path().display());
        sh::command("nsenter", [&netns, "--", program])
    }

    /// Starts a server unless it runs, with these variables and with names of the cluster's own.
    pub(crate) fn ensure(
        &self,
        name: &str,
        program: &Path,
        args: &[String],
        env: &[(&str, &str)],
    ) -> Result<bool> {
        let node = self.cluster.first();
        ensure!(
            super::host::netns_exists(node) && self.cluster.kubeconfig().exists(),
            "the cluster is not up: cargo xtask cluster up"
        );
        let hosts = self.cluster.etc("hosts-beside");
        let names = "kubernetes.default.svc kubernetes.default";
        fs::write(&hosts, format!("127.0.0.1 localhost\n{API_SERVICE} {names}\n"))?;
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let mut whole = ["--mount", "sh", "-c", script].map(str::to_owned).to_vec();
        whole.push(hosts.display().to_string());
        whole.push("env".to_owned());
        whole.extend(env.iter().map(|(name, value)| format!("{name}={value}")));
        whole.push(program.display().to_string());
        whole.extend_from_slice(args);
        let program = sh::which(Path::new("unshare")).unwrap_or_else(|| "unshare".into());
        let daemon = Daemon { name: name.to_owned(), netns: Some(node.netns_path()), program, args: whole };
        process::ensure(&self.cluster, &daemon)
    }

    /// Stops it, if it runs.
    pub(crate) fn stop(&self, name: &str) {
        process::stop(&self.cluster, name, GRACE);
    }

    /// Whether it runs, and where its log is.
    pub(crate) fn runs(&self, name: &str) -> (bool, PathBuf) {
        (process::running(&self.cluster, name).is_some(), self.cluster.log(name))
    }
}
