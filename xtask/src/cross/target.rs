//! What each target needs to know of compilers and libraries.

use std::process::Command;

use anyhow::{Context, Result};

use super::chroot::Chroot;
use crate::sh;

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Target {
    /// Linux on arm64, with glibc
    Arm64,
    /// Linux on amd64, with musl
    Amd64Musl,
    /// Linux on arm64, with musl
    Arm64Musl,
}

/// libgcc's unwinder, as Debian builds it, asks glibc for its table of loaded objects. musl has none: -1 makes the
/// unwinder go through `dl_iterate_phdr`, which it has.
const NO_TABLE: &str = "int _dl_find_object(void *address, void *result) { return -1; }";

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
        let mut flags = "-Ctarget-feature=+crt-static".to_owned();
        build.args(["--target", triple]).env(variable("LINKER"), self.compiler());
        build.env(format!("CC_{}", triple.replace('-', "_")), self.compiler());
        if self != Self::Arm64 {
            // Debian has no standard library for it, only the sources of one.
            build.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
            let object = format!("/cross/{triple}.o");
            let compile = r#"echo "$1" | "$2" -O2 -c -x c - -o "$3""#;
            let stub = ["sh", "-c", compile, "sh", NO_TABLE, self.compiler(), &object];
            sh::run(&mut chroot.command(stub)).context("compile for musl")?;
            // Debian's musl brings the start files that Rust's own targets bring themselves.
            flags.push_str(&format!(" -Clink-self-contained=no -Clink-arg={object}"));
        }
        build.env(variable("RUSTFLAGS"), flags);
        Ok(())
    }
}
