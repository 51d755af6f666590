//! The program under measurement: the static `postern`, the testbed's cluster, its ops pod.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{dist, paths, sh};

/// A made-up credential, so that redaction is at work as it is for people who use one.
const CREDENTIAL: (&str, &str) = ("IBMCLOUD_API_KEY", "made-up-key-of-the-testbed-0123456789abcdef");

pub(crate) struct Subject {
    pub(crate) postern: PathBuf,
    pub(crate) agent: PathBuf,
    pub(crate) kubectl: PathBuf,
    kubeconfig: PathBuf,
}

impl Subject {
    /// Builds what is to be measured; the testbed must be up.
    pub(crate) fn ready() -> Result<Self> {
        let testbed = paths::target().join("testbed");
        let kubeconfig = testbed.join("kubeconfig");
        if !kubeconfig.is_file() {
            bail!("the cluster is not up: `cargo xtask cluster up`");
        }
        let (postern, agent) = (dist::postern()?, dist::agent()?);
        Ok(Self { postern, agent, kubectl: testbed.join("bin/kubectl"), kubeconfig })
    }

    /// Installs the ops pod, or brings it to this release.
    pub(crate) fn install(&self) -> Result<()> {
        self.install_with(&[])
    }

    /// The same, with these options.
    pub(crate) fn install_with(&self, options: &[&str]) -> Result<()> {
        let mut install = self.postern(&["ops", "install", "--timeout", "120s"]);
        install.args(options);
        sh::run(install.env(CREDENTIAL.0, CREDENTIAL.1)).context("postern ops install")
    }

    pub(crate) fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = sh::command(program, args);
        // Nobody's settings and proxies apply to the testbed.
        command.env("KUBECONFIG", &self.kubeconfig).env("POSTERN_CONFIG", "/dev/null");
        command.env_remove("HTTPS_PROXY").env_remove("https_proxy");
        command
    }

    pub(crate) fn postern(&self, args: &[&str]) -> Command {
        self.command(&self.postern, args)
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> Command {
        self.command(&self.kubectl, args)
    }

    /// A tool in the ops pod, through `postern run`.
    pub(crate) fn run(&self, stdin: bool, tool: &[&str]) -> Command {
        let mut command = self.postern(if stdin { &["run", "-i", "--"] } else { &["run", "--"] });
        command.args(tool);
        command
    }

    /// The same, through `kubectl exec`.
    pub(crate) fn exec(&self, stdin: bool, tool: &[&str]) -> Command {
        let mut command = self.kubectl(&["exec", "-n", "postern-ops", "postern-ops", "-c", "tools"]);
        if stdin {
            command.arg("-i");
        }
        command.arg("--").args(tool);
        command
    }
}
