//! `cargo xtask docs`: the command reference, generated from the program.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::{dist, paths, say, sh};

/// `cargo xtask docs`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail when the reference is not what the program prints
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    reference(&dist::postern()?, args.check)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes docs/src/reference.md, or checks that it is current.
pub(crate) fn reference(postern: &Path, check: bool) -> Result<()> {
    let printed = sh::output(&mut sh::command(postern, ["reference"]))?;
    let text = format!("{}\n", printed.trim_end());
    let file = paths::root().join("docs/src/reference.md");
    let old = fs::read_to_string(&file).unwrap_or_default(); // none is as good as an old one
    if old == text {
        say::note("docs/src/reference.md is current");
        return Ok(());
    }
    if check {
        let line = old.lines().zip(text.lines()).take_while(|(a, b)| a == b).count() + 1;
        bail!(
            "docs/src/reference.md is not what the program prints, from line {line}: `cargo xtask docs` writes it"
        );
    }
    fs::create_dir_all(paths::root().join("docs/src"))?;
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    say::note("wrote docs/src/reference.md");
    Ok(())
}
