//! Credentials mounted into the pod from its Secret: one file per variable.

use postern_secret::{Secret, TooShort};
use std::io;
use std::path::Path;

/// Where the ops pod mounts its credential Secret.
pub const DIRECTORY: &str = "/var/run/secrets/postern/credentials";

/// A mounted credential cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The mount cannot be read.
    #[error("reading the mounted credentials in {DIRECTORY}: {0}")]
    Read(#[from] io::Error),
    /// Its value is too short to be redacted.
    #[error(transparent)]
    TooShort(#[from] TooShort),
}

/// The mounted credentials by variable name; empty if nothing is mounted. Read for every run, so that updates
/// of the kubelet take effect. Empty values mean "no static key" and are skipped.
pub fn mounted(directory: &Path) -> Result<Vec<(String, Secret)>, CredentialError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        // The kubelet's own links start with two dots; their targets are also listed under plain names.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with("..") {
            continue;
        }
        let value = std::fs::read(entry.path())?;
        if !value.is_empty() {
            let secret = Secret::new(&name, value)?;
            found.push((name, secret));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_mount_is_read_by_its_plain_names() {
        let directory = std::env::temp_dir().join(format!("postern-credentials-{}", std::process::id()));
        let data = directory.join("..2026_01_01");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("KEY"), "a-long-enough-value\n").unwrap();
        std::fs::write(data.join("EMPTY"), "").unwrap();
        std::os::unix::fs::symlink(&data, directory.join("..data")).unwrap();
        for name in ["KEY", "EMPTY"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), directory.join(name)).unwrap();
        }
        let found = mounted(&directory).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0.as_str(), found[0].1.expose()), ("KEY", b"a-long-enough-value".as_slice()));
    }

    #[test]
    fn without_a_mount_there_are_no_credentials() {
        assert!(mounted(Path::new("/nonexistent/credentials")).unwrap().is_empty());
    }
}
