//! `cargo xtask fuzz`: hostile bytes against everything that parses them.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{paths, say, sh, tools};

const TARGETS: [&str; 11] = [
    "frames",
    "redactor",
    "config",
    "stream",
    "identity",
    "copy",
    "shell",
    "spdy",
    "manifest",
    "registry",
    "admission",
];

/// `cargo xtask fuzz [SECONDS]`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each target runs
    #[arg(default_value_t = 60)]
    seconds: u32,
    /// Only this target: frames, redactor, config, stream, identity, copy, shell, spdy, manifest,
    /// registry, admission
    #[arg(long, value_parser = TARGETS)]
    target: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if sh::run(&mut sh::command("rustup", ["run", "nightly", "rustc", "--version"])).is_err() {
        say::note("skipped: fuzzing needs a nightly toolchain (rustup toolchain install nightly)");
        return Ok(ExitCode::SUCCESS);
    }
    let program = match tools::CARGO_FUZZ.get(Duration::from_secs(600)) {
        Ok(program) => program,
        Err(why) => {
            say::note(format!("skipped: {why:#}"));
            return Ok(ExitCode::SUCCESS);
        }
    };
    for target in TARGETS.iter().filter(|t| args.target.as_deref().is_none_or(|only| only == **t)) {
        say::note(format!("==> {target}, {} s", args.seconds));
        fs::create_dir_all(paths::root().join("fuzz/corpus").join(target))?;
        let mut fuzz = sh::command("rustup", ["run", "nightly"]);
        fuzz.arg(&program).args(["run", target, "--"]);
        fuzz.args([&format!("-max_total_time={}", args.seconds), "-timeout=10", "-rss_limit_mb=1024"]);
        fuzz.args(["-print_final_stats=1", "-print_funcs=0"]).current_dir(paths::root());
        // Those of the toolchain that runs us would be taken for nightly's.
        fuzz.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
        sh::run_shown(&mut fuzz).with_context(|| format!("fuzz target {target}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
