//! A directory with Debian unstable's Rust and cross compilers, and Cargo run in it.
//!
//! Nothing is installed on this machine and no maintainer script runs: the packages are unpacked, no more. Each command
//! has a mount namespace of its own, so that whatever happens no mount is left. Inside it nothing goes to the network:
//! this machine's Cargo fetches before, with the configuration it has.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::say::Progress;
use crate::{debian, paths, sh, test, tools};

const PACKAGES: [&str; 13] = [
    "rustc",
    "cargo",
    "gcc",
    "libc6-dev",
    "libstd-rust-dev",
    "libstd-rust-dev:arm64",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "qemu-user",
    "rust-src",
    "musl-dev",
    "musl-dev:arm64",
    "dash",
];

/// Where the checkout is, seen from inside.
const WORK: &str = "/src";

/// `$1` is the directory, `$2` the checkout, `$3` Cargo's registry; then the command.
const ENTER: &str = r#"
set -e
root=$1 checkout=$2 registry=$3
shift 3
mount --bind "$checkout" "$root/src"
mount --bind "$registry" "$root/cargo/registry"
mount -o remount,bind,ro "$root/cargo/registry"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
exec chroot "$root" "$@"
"#;

pub(super) struct Chroot {
    root: PathBuf,
    registry: PathBuf,
}

impl Chroot {
    /// Makes it, unless it is there.
    pub(super) fn get(progress: Progress) -> Result<Self> {
        check_machine()?;
        let root = debian::unstable_rootfs(progress, &PACKAGES)?;
        for dir in ["src", "cargo/registry", "cross", "dev", "proc", "tmp"] {
            fs::create_dir_all(root.join(dir))?;
        }
        if !root.join("usr/bin/cc").is_symlink() {
            symlink("gcc", root.join("usr/bin/cc"))?; // Debian leaves this link to a maintainer script
        }
        sh::run_shown(&mut test::cargo(["fetch", "--quiet", "--locked"])).context("fetch the crates")?;
        Ok(Self { root, registry: cargo_home()?.join("registry") })
    }

    /// Fetches the crates of the standard library, for targets it is built for from source.
    pub(super) fn fetch_std(&self) -> Result<()> {
        let manifest = self.file("usr/lib/rustlib/src/rust/library/Cargo.toml");
        let mut fetch = sh::command(tools::cargo(), ["fetch", "--quiet", "--locked", "--manifest-path"]);
        // Its manifest uses what only Rust's own build may.
        fetch.arg(manifest).env("RUSTC_BOOTSTRAP", "1").current_dir("/");
        sh::run_shown(&mut fetch).context("fetch the standard library's crates")
    }

    /// A file of the packages, seen from this machine.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The compiler's version: Debian unstable's moves.
    pub(super) fn compiler(&self) -> Result<String> {
        sh::output(&mut self.command(["rustc", "--version"]))
    }

    /// A command inside.
    pub(super) fn command<const N: usize>(&self, words: [&str; N]) -> Command {
        let mut command = sh::command("unshare", ["--mount", "--", "sh", "-c", ENTER, "sh"]);
        command.arg(&self.root).arg(paths::root()).arg(&self.registry).args(words);
        command.env_clear().env("PATH", sh::SYSTEM_PATH).env("HOME", "/tmp").env("CARGO_HOME", "/cargo");
        for name in ["TERM", "CARGO_BUILD_JOBS"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Cargo inside, on this checkout, with a target directory of its own: two compilers do not share one.
    pub(super) fn cargo<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = self.command(["cargo"]);
        command.args(args).args(["--offline", "--locked", "--manifest-path"]).arg(inside("Cargo.toml"));
        command.env("CARGO_TARGET_DIR", inside("target/cross"));
        command
    }
}

/// A path of this checkout, seen from inside.
pub(super) fn inside(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    Path::new(WORK).join(path.strip_prefix(paths::root()).unwrap_or(path))
}

fn cargo_home() -> Result<PathBuf> {
    let home = |name| std::env::var_os(name).filter(|value: &std::ffi::OsString| !value.is_empty());
    let default = || home("HOME").map(|home| Path::new(&home).join(".cargo"));
    home("CARGO_HOME").map(PathBuf::from).or_else(default).context("neither CARGO_HOME nor HOME is set")
}

/// Says in one line why this machine cannot.
fn check_machine() -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("cross builds are made on Linux on amd64");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("cross builds need root: they run in a directory with Debian unstable's compilers");
    }
    Ok(())
}
