//! What each target needs to know of compilers and libraries.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context, Result};

use super::chroot::Chroot;
use crate::say::Progress;
use crate::{dist, sh};

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Target {
    /// Linux on arm64, with glibc
    Arm64,
    /// Linux on amd64, with musl
    Amd64Musl,
    /// Linux on arm64, with musl
    Arm64Musl,
}

/// `$1` is the compiler, `$2` the directory. Rust wants its unwinder by another name than that of libgcc's; the file with
/// that name is a linker script, and brings what libgcc's expects of the C library.
const UNWINDER: &str = r#"
set -e
"$1" -O2 -fPIC -c /src/xtask/src/cross/find_object.c -o "$2/find_object.o"
echo "INPUT($2/find_object.o -lgcc_eh)" >"$2/libunwind.a"
"#;

const MACOS: [&str; 2] = ["aarch64-apple-darwin", "x86_64-apple-darwin"];

/// In place of a C compiler and an archiver: a check does not look at what they make.
const NO_COMPILER: &str = "#!/bin/sh\n";

/// Makes sure that it compiles for macOS. To link it takes Apple's SDK.
pub(super) fn check_macos(progress: Progress, chroot: &Chroot) -> Result<()> {
    let compiler = chroot.file("cross/no-compiler");
    fs::write(&compiler, NO_COMPILER)?;
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755))?;
    for triple in MACOS {
        progress.step(format!("checking postern for {triple}"));
        let mut check = chroot.cargo(["check", "--quiet", "-p", "postern", "--target", triple]);
        let underscored = triple.replace('-', "_");
        for tool in ["CC", "AR"] {
            check.env(format!("{tool}_{underscored}"), "/cross/no-compiler");
        }
        build_std(&mut check, chroot)?;
        sh::run_shown(&mut check).with_context(|| format!("check postern for {triple}"))?;
    }
    Ok(())
}

/// Debian has no standard library for this target, only the sources of one.
fn build_std(build: &mut Command, chroot: &Chroot) -> Result<()> {
    build.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
    chroot.fetch_std()
}

impl Target {
    pub(super) fn triple(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-unknown-linux-gnu",
            Self::Amd64Musl => "x86_64-unknown-linux-musl",
            Self::Arm64Musl => "aarch64-unknown-linux-musl",
        }
    }

    fn compiler(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-linux-gnu-gcc",
            Self::Amd64Musl => "x86_64-linux-musl-gcc",
            Self::Arm64Musl => "aarch64-linux-musl-gcc",
        }
    }

    /// Whether this machine runs it without help.
    pub(super) fn is_native(self) -> bool {
        self == Self::Amd64Musl
    }

    /// Tells Cargo in the chroot how to build for it.
    pub(super) fn configure(self, build: &mut Command, chroot: &Chroot) -> Result<()> {
        let triple = self.triple();
        let variable = |what| format!("CARGO_TARGET_{}_{what}", triple.to_uppercase().replace('-', "_"));
        // musl's start files read compact relocations since 1.2.4 only; there the plain ones serve.
        let mut flags =
            if self == Self::Arm64 { dist::FLAGS } else { "-Ctarget-feature=+crt-static" }.to_owned();
        build.args(["--target", triple]).env(variable("LINKER"), self.compiler());
        build.env(format!("CC_{}", triple.replace('-', "_")), self.compiler());
        if self != Self::Arm64 {
            build_std(build, chroot)?;
            let dir = format!("/cross/{triple}");
            fs::create_dir_all(chroot.file(&dir[1..]))?; // there need be no mkdir inside
            let make = ["sh", "-c", UNWINDER, "sh", self.compiler(), &dir];
            sh::run(&mut chroot.command(make)).context("make the unwinder for musl")?;
            // Debian's musl brings the start files that Rust's own targets bring themselves.
            flags.push_str(&format!(" -Clink-self-contained=no -Lnative={dir}"));
        }
        build.env(variable("RUSTFLAGS"), flags);
        Ok(())
    }
}
