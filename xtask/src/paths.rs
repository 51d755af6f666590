//! Where things are.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The checkout this program was built from.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Cargo's output directory of this checkout.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// What is expensive to make and outlives a checkout.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("POSTERN_CACHE").filter(|d| !d.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|d| !d.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("postern"))
}

/// Lowercase hex of a SHA-256.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
    }
    text
}

/// The SHA-256 of some bytes, as hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Changes whenever the file is written again; far cheaper than reading it.
pub(crate) fn fingerprint(path: &Path) -> Result<String> {
    let metadata = path.metadata().with_context(|| path.display().to_string())?;
    let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{} {} {}", path.display(), metadata.len(), modified.as_nanos()))
}
