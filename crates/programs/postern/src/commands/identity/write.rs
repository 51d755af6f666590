//! `postern identity write`.

use super::{form, keeper, provider};
use crate::cli::identity::Write as Args;
use crate::commands::Context;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::signals;
use postern_identity::atomic_file;
use postern_identity::exchange::Browser;
use postern_identity::keeper::CachedCredential;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often to check for a newer credential.
const LOOK: Duration = Duration::from_millis(200);

pub(in crate::commands) async fn run(
    context: &Context,
    args: Args,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let Args { provider: named, to, output, mode, watch, dry_run } = args;
    let (name, provider) = provider(context, Some(&named))?;
    let keeper = keeper(context, name, provider, Browser::Start);
    check(&to)?;
    if dry_run {
        printer.note(&format!(
            "{name}: a token would be asked for and written to {} at mode {mode:04o}",
            to.display()
        ));
        return Ok(0);
    }
    let mut written: Option<Arc<CachedCredential>> = None;
    let failed = |error: &io::Error| {
        let named = io::Error::new(error.kind(), format!("{}: {error}", to.display()));
        Failure::denied(
            &named,
            Some(format!("{} is as it was; check the directory and its owner", to.display())),
        )
    };
    let held = keeper.credential().await.map_err(|error| Failure::identity(name, &error))?;
    let mut save = |held: &Arc<CachedCredential>, printer: &mut Printer| {
        if written.as_ref().is_some_and(|written| written.hash() == held.hash()) {
            return Ok(());
        }
        let text = form(output, name, provider, held)?;
        atomic_file::replace(&to, mode, |file| file.write_all(text.as_bytes()))
            .map_err(|error| failed(&error))?;
        printer.verbose(&format!("{name}: wrote {}", to.display()));
        written = Some(held.clone());
        Ok(())
    };
    save(&held, printer)?;
    if !watch {
        return Ok(0);
    }
    let mut stop = std::pin::pin!(signals::stop()?);
    tokio::spawn(keeper.clone().keep_fresh());
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(0),
            _ = look.tick() => {}
        }
        if let Some(held) = keeper.peek()
            && let Err(failure) = save(&held, printer)
        {
            // The old file is whole; the disk may have room again.
            printer.failure(&failure);
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
}

/// Checks that need no request.
fn check(to: &Path) -> Result<(), Failure> {
    let usage = |message: String, hint: &str| Err(Failure::usage(message, Some(hint.to_owned())));
    if to.is_dir() {
        return usage(format!("--to {}: this is a directory", to.display()), "name a file in it");
    }
    // It would be replaced by a file, and whoever has it open, or follows it, would get nothing.
    if let Ok(found) = to.symlink_metadata()
        && !found.is_file()
    {
        let what = if found.is_symlink() { "a symlink" } else { "a device, pipe or socket" };
        return usage(
            format!("--to {}: this is {what}", to.display()),
            "name a file, which is replaced whole; `postern identity token` prints to stdout",
        );
    }
    match to.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        Some(parent) => usage(
            format!("--to {}: there is no directory {}", to.display(), parent.display()),
            "make it first",
        ),
        None => Ok(()),
    }
}
