//! `cargo xtask cluster`: a real Kubernetes on this machine, in a network namespace of its own.

mod beside;
mod components;
mod configs;
mod down;
mod health;
mod host;
mod layout;
mod load;
mod process;
mod state;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::say::{self, Progress};
use crate::{debian, testbed};
pub(crate) use beside::Beside;
use layout::Cluster;

/// The issuer a cluster has when none is asked for: the API server's own name inside the cluster.
const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc";

/// `cargo xtask cluster COMMAND`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the cluster up, or repair it; a healthy one is left alone
    Up(UpArgs),
    /// Build the cluster's programs and start nothing; `up` does it too
    Build,
    /// Take the cluster down and leave nothing behind (logs and caches stay)
    Down,
    /// One line per component; exit 1 when something is wrong
    Status {
        /// How to print: text or json
        #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
        output: String,
    },
    /// Print the path of the kubeconfig
    Kubeconfig,
    /// Import image tarballs (docker-archive or OCI layout)
    LoadImage {
        #[arg(required = true)]
        tarballs: Vec<PathBuf>,
    },
    /// Remove what is kept outside the checkout: built Kubernetes programs (minutes to build again)
    /// and unpacked Debian packages
    CleanCache,
}

#[derive(clap::Args)]
pub(crate) struct UpArgs {
    /// Issuer URL of service-account tokens; remembered; a change restarts the API server
    /// [default of a new cluster: <https://kubernetes.default.svc>]
    #[arg(long)]
    issuer: Option<String>,
    /// Import only the sandbox image, and make no others
    #[arg(long)]
    no_images: bool,
    /// How many nodes; another number starts the cluster anew [default: those there are, else 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
    nodes: Option<u8>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let mut cluster = Cluster::of_checkout();
    match args.command {
        Command::Up(options) => {
            debian::check_machine()?;
            let progress = Progress::begin();
            let _lock = state::lock(&cluster, progress)?;
            if let Some(count) = options.nodes.map(usize::from).filter(|count| *count != cluster.nodes.len())
            {
                down::down(&cluster, progress)?;
                cluster.remember_nodes(count)?;
                cluster = Cluster::of_checkout();
            }
            up::up(&cluster, &options, progress)?;
        }
        Command::Build => drop(testbed::programs(Progress::begin())?),
        Command::Down => {
            debian::check_machine()?;
            let progress = Progress::begin();
            let _lock = state::lock(&cluster, progress)?;
            down::down(&cluster, progress)?;
        }
        Command::Status { output } => return status(&cluster, output == "json"),
        Command::Kubeconfig => {
            if !cluster.kubeconfig().is_file() {
                bail!("the cluster is not up: `cargo xtask cluster up`");
            }
            say::result(cluster.kubeconfig().display());
        }
        Command::LoadImage { tarballs } => {
            debian::check_machine()?;
            let _lock = state::lock(&cluster, Progress::begin())?;
            load::named(&cluster, &tarballs)?;
        }
        Command::CleanCache => testbed::clean_cache()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn status(cluster: &Cluster, as_json: bool) -> Result<ExitCode> {
    debian::check_machine()?;
    let Some(state) = state::State::load(cluster) else {
        if as_json {
            say::result(serde_json::json!({"healthy": false, "components": []}));
        } else {
            say::result("down");
        }
        return Ok(ExitCode::FAILURE);
    };
    let report = health::report(cluster, &state);
    let healthy = report.iter().all(|c| c.healthy);
    if as_json {
        say::result(serde_json::json!({"healthy": healthy, "issuer": state.issuer, "components": report}));
    } else {
        for c in report {
            let word = if c.healthy { "ok" } else { "FAILED" };
            say::result(format!("{:24} {word:7} {}", c.name, c.detail).trim_end());
        }
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
