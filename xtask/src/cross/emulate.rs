//! Runs what was built for another architecture, by qemu's user mode.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::chroot::Chroot;
use super::target::Target;
use crate::say::{self, Progress};
use crate::{paths, sh, test};

/// Teaches the kernel to run arm64 programs, for the commands in a user namespace of its own only:
/// `binfmt_misc` belongs to the user namespace it was mounted in, since Linux 6.7. `$1` is the emulator. The pattern is an ELF header's
/// magic, class, byte order and machine (elf(5); `AArch64` is 183).
const ENTER: &str = r#"
set -e
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf '%s' ':arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$1"':F' \
  >/proc/sys/fs/binfmt_misc/register
shift
exec "$@"
"#;

/// The client's simplest commands.
pub(super) fn client(progress: Progress, chroot: &Chroot, target: Target, client: &Path) -> Result<()> {
    let says = |args: &[&str]| {
        let mut command = if target.is_native() { Command::new(client) } else { emulated(chroot, client) };
        let said = sh::output(command.args(args));
        said.with_context(|| format!("{} {}", client.display(), args.join(" ")))
    };
    progress.step(format!("running {}", client.display()));
    say::note(says(&["--version"])?.trim_end());
    let said = says(&["run", "--backend", "local", "--", "sh", "-c", "echo $((6 * 7))"])?;
    if said != "42\n" {
        bail!("`postern run --backend local` said {said:?}");
    }
    Ok(())
}

/// The agent's own tests, against this agent.
pub(super) fn agent(progress: Progress, chroot: &Chroot, agent: &Path) -> Result<()> {
    progress.step("running the agent's tests, emulated");
    let tests = test::cargo(["test", "--quiet", "-p", "postern-agent", "--test", "supervise"]);
    let mut command = emulated(chroot, tests.get_program());
    command.args(tests.get_args()).env("POSTERN_TEST_AGENT", agent).current_dir(paths::root());
    sh::run_shown(&mut command).context("the agent's tests")
}

fn emulated(chroot: &Chroot, program: impl AsRef<OsStr>) -> Command {
    let unshare = ["--user", "--map-root-user", "--mount", "--", "sh", "-c", ENTER, "sh"];
    let mut command = sh::command("unshare", unshare);
    command.arg(chroot.file("usr/bin/qemu-aarch64")).arg(program.as_ref());
    command
}
