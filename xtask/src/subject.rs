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
    /// The release's kubectl as people have it.
    pub(crate) kubectl: PathBuf,
    /// The same as a part of the testbed's one program.
    pub(crate) all_in_one: PathBuf,
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
        let kubectl = testbed.join("bin/kubectl");
        Ok(Self { postern, agent, kubectl, all_in_one: testbed.join("all-in-one/kubectl"), kubeconfig })
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
        self.exec_by(&self.kubectl, stdin, tool)
    }

    /// The same, by this kubectl.
    pub(crate) fn exec_by(&self, kubectl: &Path, stdin: bool, tool: &[&str]) -> Command {
        let exec = ["exec", "-n", "postern-ops", "postern-ops", "-c", "tools"];
        let mut command = self.command(kubectl, &exec);
        if stdin {
            command.arg("-i");
        }
        command.arg("--").args(tool);
        command
    }
}
