//! The static programs: the agent that travels into containers, and `postern` that carries it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

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

/// Set for other processes of this program that build for tests.
pub(crate) const QUICK: &str = "POSTERN_XTASK_QUICK";

static IS_QUICK: OnceLock<bool> = OnceLock::new();

/// From now on builds what tests run: quickly built instead of small and fast.
pub(crate) fn build_quickly() {
    let _ = IS_QUICK.set(true); // nothing was built before
}

fn is_quick() -> bool {
    *IS_QUICK.get_or_init(|| std::env::var_os(QUICK).is_some())
}

fn host() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Whether there is an agent to build: it is a crate of its own.
pub(crate) fn has_agent() -> bool {
    paths::root().join("crates/programs/agent/Cargo.toml").is_file()
}

/// Builds the agent for this machine's architecture, without any dependency on the image it lands in.
pub(crate) fn agent() -> Result<PathBuf> {
    let mut build = cargo("build", &["--profile", agent_profile(), "-p", "postern-agent"]);
    sh::run_shown(&mut build).context("build postern-agent")?;
    Ok(agent_path(&host()))
}

/// Builds the tests' stand-in for a cloud, to run in pods.
pub(crate) fn cloud() -> Result<PathBuf> {
    sh::run_shown(&mut cargo("build", &["--profile", "quick", "-p", "e2e", "--bin", "cloud"]))
        .context("build the stand-in cloud")?;
    Ok(paths::target().join(host()).join("quick/cloud"))
}

/// Builds the client that benchmarks compare the controller with.
pub(crate) fn load() -> Result<PathBuf> {
    sh::run_shown(&mut cargo("build", &["--profile", profile(), "-p", "e2e", "--bin", "load"]))
        .context("build the load client")?;
    Ok(paths::target().join(host()).join(profile()).join("load"))
}

/// Builds the controller.
pub(crate) fn controller() -> Result<PathBuf> {
    sh::run_shown(&mut cargo("build", &["--profile", profile(), "-p", "postern-controller"]))
        .context("build postern-controller")?;
    Ok(paths::target().join(host()).join(profile()).join("postern-controller"))
}

fn agent_profile() -> &'static str {
    if is_quick() { "quick" } else { "agent" }
}

fn profile() -> &'static str {
    if is_quick() { "quick" } else { "release" }
}

fn agent_path(target: &str) -> PathBuf {
    paths::target().join(target).join(agent_profile()).join("postern-agent")
}

/// Builds `postern` with the agents embedded.
pub(crate) fn postern() -> Result<PathBuf> {
    let mut build = cargo("build", &["--profile", profile(), "-p", "postern"]);
    let own = agent()?;
    for (variable, arch) in [("POSTERN_AGENT_AMD64", "x86_64"), ("POSTERN_AGENT_ARM64", "aarch64")] {
        if arch == std::env::consts::ARCH {
            build.env(variable, &own);
        } else if is_quick() {
            // The tests are for this machine.
        } else if let Some(other) = current(agent_path(&format!("{arch}-unknown-linux-gnu")))? {
            build.env(variable, other);
        }
    }
    sh::run_shown(&mut build).context("build postern")?;
    Ok(paths::target().join(host()).join(profile()).join("postern"))
}

/// Static, so that a program needs nothing of the image it runs in, with relocations in their compact form (`DT_RELR`).
pub(crate) const FLAGS: &str = "-Ctarget-feature=+crt-static -Clink-arg=-Wl,-z,pack-relative-relocs";

/// An agent that `cargo xtask cross` built; none where the sources are no longer those it was built from.
fn current(agent: PathBuf) -> Result<Option<PathBuf>> {
    if !agent.is_file() {
        return Ok(None);
    }
    if fs::read_to_string(stamp(&agent)).unwrap_or_default() != sources()? {
        say::note(format!("left out, as it is of other sources: {} (`cargo xtask cross`)", agent.display()));
        return Ok(None);
    }
    Ok(Some(agent))
}

/// The file that says what an agent was built from.
pub(crate) fn stamp(agent: &Path) -> PathBuf {
    agent.with_extension("sources")
}

/// The digest of everything an agent is made of.
pub(crate) fn sources() -> Result<String> {
    let parts = [
        "crates/programs/agent",
        "crates/mechanisms/files",
        "crates/ground/secret",
        "crates/ground/wire",
        "Cargo.toml",
        "Cargo.lock",
    ];
    let mut files = Vec::new();
    for part in parts {
        collect(&paths::root().join(part), &mut files)?;
    }
    files.sort();
    let mut all = Vec::new();
    for file in files {
        all.extend_from_slice(file.to_string_lossy().as_bytes());
        all.extend(fs::read(&file).with_context(|| file.display().to_string())?);
    }
    Ok(paths::digest(&all))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

/// By which Cargo is told how to compile for a target.
fn flags_variable(target: &str) -> String {
    format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"))
}

fn cargo(what: &str, args: &[&str]) -> std::process::Command {
    let mut command = test::cargo([what, "--quiet", "--target", &host()]);
    // Cargo looks no further than RUSTFLAGS when that is set.
    command.args(args).env(flags_variable(&host()), FLAGS).env_remove("RUSTFLAGS");
    command.env("CARGO_TARGET_DIR", paths::target());
    command
}
