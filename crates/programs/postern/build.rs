//! Embeds the agents that were built before (`cargo xtask dist`), deflated to half their size; a plain `cargo build`
//! carries none, and says so when one is needed.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    for arch in ["AMD64", "ARM64"] {
        let variable = format!("POSTERN_AGENT_{arch}");
        println!("cargo::rerun-if-env-changed={variable}");
        let to = Path::new(&out).join(format!("agent-{}", arch.to_lowercase()));
        match env::var_os(&variable) {
            Some(from) => {
                println!("cargo::rerun-if-changed={}", Path::new(&from).display());
                fs::write(&to, miniz_oxide::deflate::compress_to_vec(&fs::read(&from)?, 9))?;
            }
            None => fs::write(&to, b"")?,
        }
    }
    Ok(())
}
