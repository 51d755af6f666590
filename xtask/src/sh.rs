//! Running other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Where system tools are, whatever the caller's PATH says: `sudo` and cron tend to leave sbin out.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command with its arguments.
pub(crate) fn command<I, S>(program: impl AsRef<Path>, args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let program = program.as_ref();
    let mut command = match which(program) {
        Some(found) => Command::new(found),
        None => Command::new(program),
    };
    command.args(args).stdin(Stdio::null());
    command
}

/// Finds a bare program name in PATH and then in the system's directories.
pub(crate) fn which(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.exists().then(|| program.to_owned());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(SYSTEM_PATH.split(':'))
        .map(|dir| Path::new(dir).join(program))
        .find(|p| p.is_file())
}

/// Runs it and returns what it printed; an error carries the end of its stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("run {name}"))?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        let lines: Vec<&str> = stderr.trim().lines().rev().take(5).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        let mut shown = args.join(" ");
        if shown.len() > 200 {
            let cut = (0..=200).rev().find(|&i| shown.is_char_boundary(i)).unwrap_or(0);
            shown.truncate(cut);
            shown.push('…');
        }
        bail!("{name} {shown}: {status}: {}", tail.join(" | "));
    }
    String::from_utf8(stdout).with_context(|| format!("{name} printed something other than UTF-8"))
}

/// Runs it for its effect.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs it with this process's stderr, for commands whose own progress is worth seeing.
pub(crate) fn run_shown(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("run {name}"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}
