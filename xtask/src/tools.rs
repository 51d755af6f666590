//! Programs that developers' commands use and that Cargo can install: kept outside the checkout, by version.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::{paths, say, sh};

/// One program, at the version that is known to serve.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    more: &'static [&'static str],
}

pub(crate) const MDBOOK: Tool =
    Tool { name: "mdbook", version: "0.5.4", more: &["--no-default-features", "--features", "search"] };
pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", more: &[] };
pub(crate) const CARGO_FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2", more: &[] };

impl Tool {
    /// The program, installed first when this version never was.
    pub(crate) fn get(&self, patience: Duration) -> Result<PathBuf> {
        let Self { name, version, more } = self;
        let root = paths::cache()?.join("tools").join(format!("{name}-{version}"));
        let program = root.join("bin").join(name);
        if program.is_file() {
            return Ok(program);
        }
        fs::create_dir_all(&root)?;
        let lock = fs::File::create(root.join("lock"))?;
        lock.lock()?;
        if program.is_file() {
            return Ok(program);
        }
        say::note(format!("installing {name} {version}, some minutes, once (kept in {})", root.display()));
        let mut install = sh::command("timeout", [patience.as_secs().to_string()]);
        install.args(["nice", "-n", "5"]).arg(cargo());
        install.args(["install", "--quiet", "--locked", name, "--version", version]).args(*more);
        install.arg("--root").arg(&root).current_dir("/"); // no checkout's configuration applies
        sh::run(&mut install).with_context(|| format!("{name} {version} could not be installed"))?;
        if program.is_file() {
            Ok(program)
        } else {
            bail!("{name} {version} installs no program of that name")
        }
    }
}

/// The Cargo that runs us.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// This program's file, also when Cargo has meanwhile put a newer one in its place.
pub(crate) fn itself() -> Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map(PathBuf::from).unwrap_or(path))
}
