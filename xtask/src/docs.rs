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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "md"));
        names
    }

    #[test]
    fn the_book_holds_every_document_and_every_page_is_in_its_summary() {
        let docs = paths::root().join("docs");
        let summary = fs::read_to_string(docs.join("src/SUMMARY.md")).unwrap();
        let mut pages = String::new();
        for page in names(&docs.join("src")).iter().filter(|page| *page != "SUMMARY.md") {
            assert!(summary.contains(&format!("({page})")), "{page} is not in docs/src/SUMMARY.md");
            pages.push_str(&fs::read_to_string(docs.join("src").join(page)).unwrap());
        }
        // Documents beside the book are written and linked where they are, and included, not copied.
        for dir in ["", "decisions/"] {
            for document in names(&docs.join(dir)) {
                let include = format!("{{{{#include ../{dir}{document}}}}}");
                assert!(pages.contains(&include), "no page of the book has {include}");
            }
        }
    }
}
