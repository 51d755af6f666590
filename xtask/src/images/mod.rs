//! `cargo xtask images`: image tarballs, assembled here, since there is no registry to pull from.

mod archive;
mod recipes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::say::{self, Progress};
use crate::testbed::{self, Programs};
use crate::{debian, dist, paths};
use recipes::{ALL, Image, Pantry};

/// The image that holds every pod's namespaces; containerd is configured with this very name.
pub(crate) const SANDBOX: &str = "registry.k8s.io/pause:3.9";

/// `cargo xtask images [NAME…]`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which images (default: all): pause, debian-tools, busybox, scratch-static, postern-ops,
    /// postern-ops-static, postern-ops-ibm, postern-agent, postern-controller,
    /// registry, postern
    names: Vec<String>,
}

/// A tarball on disk and the digest that tells whether a cluster already has it.
pub(crate) struct Tarball {
    pub(crate) path: PathBuf,
    pub(crate) digest: String,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    for name in &args.names {
        if !ALL.iter().any(|i| i.name == name) {
            let known: Vec<&str> = ALL.iter().map(|i| i.name).collect();
            bail!("there is no image {name:?}; there are {}", known.join(", "));
        }
    }
    debian::check_machine()?;
    let progress = Progress::begin();
    let programs = testbed::programs(progress)?;
    let pantry = Pantry { programs: &programs, progress };
    for image in ALL.iter().filter(|i| args.names.is_empty() || args.names.iter().any(|n| n == i.name)) {
        if image.has_agent() && !dist::has_agent() {
            say::note(format!("skipped {}: there is no crates/programs/agent to build yet", image.name));
            continue;
        }
        let made = make(*image, &pantry)?;
        let size = made.path.metadata()?.len() >> 10;
        say::result(format!("{:7} KiB  {}  {}", size, image.reference, made.path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn dir() -> PathBuf {
    paths::target().join("images")
}

fn tarball(image: Image) -> PathBuf {
    dir().join(format!("{}.tar", image.name))
}

/// What a tarball was made of, and the digest of what came out: one line each, beside it.
fn stamp(tarball: &Path) -> PathBuf {
    tarball.with_extension("stamp")
}

fn read_stamp(tarball: &Path) -> Option<(String, String)> {
    let text = fs::read_to_string(stamp(tarball)).ok()?;
    let (inputs, digest) = text.trim_end().split_once('\n')?;
    (tarball.is_file()).then(|| (inputs.to_owned(), digest.to_owned()))
}

fn make(image: Image, pantry: &Pantry) -> Result<Tarball> {
    let path = tarball(image);
    let plan = image.plan(pantry).with_context(|| format!("image {}", image.name))?;
    let inputs = paths::digest(format!("{} {}", image.reference, plan.inputs).as_bytes());
    if let Some((old, digest)) = read_stamp(&path)
        && old == inputs
    {
        return Ok(Tarball { path, digest });
    }
    fs::create_dir_all(dir())?;
    let config = plan.config.clone();
    let digest = archive::write(&path, image.reference, &config, &plan.layers()?)?;
    fs::write(stamp(&path), format!("{inputs}\n{digest}\n"))?;
    pantry.progress.step(format!("image {}", image.name));
    Ok(Tarball { path, digest })
}

/// The tarballs a cluster should hold. Those that exist are taken as they are (`cargo xtask images`
/// refreshes them); those that do not are made.
pub(crate) fn for_cluster(programs: &Programs, progress: Progress) -> Result<Vec<Tarball>> {
    let pantry = Pantry { programs, progress };
    let mut found = Vec::new();
    for image in ALL {
        if let Some((_, digest)) = read_stamp(&tarball(image)) {
            found.push(Tarball { path: tarball(image), digest });
        } else if !image.has_agent() {
            found.push(make(image, &pantry)?);
        } else if dist::has_agent() {
            // The cluster is of use without them, and the agent may be in the middle of a change.
            match make(image, &pantry) {
                Ok(made) => found.push(made),
                Err(error) => progress.step(format!("without image {}: {error:#}", image.name)),
            }
        } else {
            progress.step(format!("without image {}: there is no crates/programs/agent yet", image.name));
        }
    }
    Ok(found)
}

/// The sandbox image alone, without which no pod starts.
pub(crate) fn sandbox(programs: &Programs, progress: Progress) -> Result<Tarball> {
    make(ALL[0], &Pantry { programs, progress })
}
