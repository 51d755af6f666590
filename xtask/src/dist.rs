//! The static programs: the agent that travels into containers, and `postern` that carries it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{paths, say, sh, test};

/// `cargo xtask dist`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the agent only
    #[arg(long)]
    agent_only: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let built = if args.agent_only { agent()? } else { postern()? };
    say::result(built.display());
    Ok(ExitCode::SUCCESS)
}

fn host() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Whether there is an agent to build: it is a crate of its own.
pub(crate) fn has_agent() -> bool {
    paths::root().join("crates/postern-agent/Cargo.toml").is_file()
}

/// Builds the agent for this machine's architecture, without any dependency on the image it lands in.
pub(crate) fn agent() -> Result<PathBuf> {
    let profile = ["--profile", "agent", "-p", "postern-agent"];
    sh::run_shown(&mut cargo(&profile)).context("build postern-agent")?;
    Ok(agent_path(&host()))
}

fn agent_path(target: &str) -> PathBuf {
    paths::target().join(target).join("agent/postern-agent")
}

/// Builds `postern` with the agents embedded.
pub(crate) fn postern() -> Result<PathBuf> {
    let mut build = cargo(&["--release", "-p", "postern"]);
    let own = agent()?;
    for (variable, arch) in [("POSTERN_AGENT_AMD64", "x86_64"), ("POSTERN_AGENT_ARM64", "aarch64")] {
        let path = if arch == std::env::consts::ARCH {
            own.clone()
        } else {
            agent_path(&format!("{arch}-unknown-linux-gnu"))
        };
        if path.is_file() {
            build.env(variable, path);
        }
    }
    sh::run_shown(&mut build).context("build postern")?;
    Ok(paths::target().join(host()).join("release/postern"))
}

/// Static; and small, as the agent travels: relocations in their compact form (`DT_RELR`), and no tables for unwinding,
/// which a program that aborts on panic never reads.
const FLAGS: &str =
    "-Ctarget-feature=+crt-static -Clink-arg=-Wl,-z,pack-relative-relocs -Cforce-unwind-tables=no";

fn cargo(args: &[&str]) -> std::process::Command {
    let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", host().to_uppercase().replace('-', "_"));
    let mut command = test::cargo(["build", "--quiet", "--target", &host()]);
    // Cargo looks no further than RUSTFLAGS when that is set.
    command.args(args).env(variable, FLAGS).env_remove("RUSTFLAGS");
    command.env("CARGO_TARGET_DIR", paths::target());
    command
}
