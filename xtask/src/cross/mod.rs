//! `cargo xtask cross`: builds for what this machine is not, with compilers from Debian unstable.

mod chroot;
mod emulate;
mod target;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::say::{self, Progress};
use crate::{dist, paths, sh};
use chroot::Chroot;
use target::Target;

/// What an agent may weigh at most: it goes through an exec stream into a container.
const AGENT_LIMIT: u64 = 5 << 19;
const CLIENT_LIMIT: u64 = 28 << 20;

/// `cargo xtask cross [TARGET…]`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to build for
    #[arg(value_enum, default_value = "arm64")]
    targets: Vec<Target>,
    /// Instead, check that `postern` compiles for macOS
    #[arg(long, conflicts_with = "test")]
    check_macos: bool,
    /// Then run the agent's tests against what was built, and the client, under emulation
    #[arg(long)]
    test: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let progress = Progress::begin();
    let chroot = Chroot::get(progress)?;
    say::note(chroot.compiler()?.trim_end());
    if args.check_macos {
        target::check_macos(progress, &chroot)?;
        progress.step("it does");
        return Ok(ExitCode::SUCCESS);
    }
    // The agents first: every client is to carry them.
    let agent = agent(progress, &chroot)?;
    let mut clients = Vec::new();
    for &target in &args.targets {
        clients.push((target, client(progress, &chroot, target, &agent)?));
    }
    progress.step("building this machine's postern");
    report(&dist::postern()?, CLIENT_LIMIT)?;
    if args.test {
        for (target, client) in clients {
            emulate::client(progress, &chroot, target, &client)?;
        }
        emulate::agent(progress, &chroot, &agent)?;
    }
    progress.step("done");
    Ok(ExitCode::SUCCESS)
}

/// The agent for arm64. This machine's compiler makes the one for amd64.
fn agent(progress: Progress, chroot: &Chroot) -> Result<PathBuf> {
    let target = Target::Arm64;
    let sources = dist::sources()?;
    progress.step("building the agent for arm64");
    let mut build = chroot.cargo(["build", "--quiet", "--profile", "agent", "-p", "postern-agent"]);
    target.configure(&mut build, chroot)?;
    sh::run_shown(&mut build).context("build postern-agent")?;
    let agent = keep(target, "agent/postern-agent", AGENT_LIMIT)?;
    fs::write(dist::stamp(&agent), sources)?;
    Ok(agent)
}

fn client(progress: Progress, chroot: &Chroot, target: Target, agent: &Path) -> Result<PathBuf> {
    let own = dist::agent()?;
    progress.step(format!("building postern for {}: minutes, the first time", target.triple()));
    let mut build = chroot.cargo(["build", "--quiet", "--release", "-p", "postern"]);
    build.env("POSTERN_AGENT_AMD64", chroot::inside(own)).env("POSTERN_AGENT_ARM64", chroot::inside(agent));
    target.configure(&mut build, chroot)?;
    sh::run_shown(&mut build).context("build postern")?;
    keep(target, "release/postern", CLIENT_LIMIT)
}

/// Puts a result where one of this machine's own compiler would be.
fn keep(target: Target, name: &str, limit: u64) -> Result<PathBuf> {
    let below = Path::new(target.triple()).join(name);
    let (from, to) = (paths::target().join("cross").join(&below), paths::target().join(&below));
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
    report(&to, limit)?;
    Ok(to)
}

fn report(path: &Path, limit: u64) -> Result<()> {
    let size = path.metadata().with_context(|| path.display().to_string())?.len();
    say::result(format!("{:7} KiB  {}", size >> 10, path.display()));
    if size > limit {
        bail!("{} is larger than the {} KiB it may have", path.display(), limit >> 10);
    }
    Ok(())
}
