//! The mounted keys. They are read for each proof, so a rotated or revoked key takes effect as soon as it is
//! mounted.

use postern_wire::stream::{PublicKey, openssh};
use std::path::{Path, PathBuf};

/// Maximum size of a key file; more is not read.
const LIMIT: u64 = 64 * 1024;

pub(super) struct Keys(PathBuf);

impl Keys {
    pub(super) fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The key's line and the required audience; `None` if the key is not authorized.
    pub(super) fn authorized(&self, key: &PublicKey) -> Option<(String, String)> {
        let written = openssh(key);
        let lines = self.read("authorized_keys")?;
        let mut names = lines.lines().filter(|line| !line.trim_start().starts_with('#'));
        names.find(|line| line.split_ascii_whitespace().nth(1) == Some(written.as_str()))?;
        Some((written, self.read("audience")?.trim().to_owned()))
    }

    fn read(&self, name: &str) -> Option<String> {
        let path = self.0.join(name);
        let length = std::fs::metadata(&path).ok()?.len();
        if length > LIMIT {
            return None;
        }
        std::fs::read_to_string(path).ok()
    }
}
