//! `--manifest`: an existing manifest stays until the new one is complete.

use crate::failure::Failure;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A manifest that is being written.
pub(super) struct Manifest {
    path: PathBuf,
    /// The temporary file; `None` if the target cannot be replaced, such as a pipe.
    beside: Option<PathBuf>,
}

impl Manifest {
    /// Creates the manifest and returns the file for its lines.
    pub(super) fn create(path: &Path) -> Result<(Self, File), Failure> {
        let failed = |error: &io::Error| Failure::attempted(format!("creating {}", path.display()), error);
        // What a symlink leads to is replaced, and the symlink stays.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let special = std::fs::metadata(&path).is_ok_and(|found| !found.is_file());
        if special {
            let file = File::options().write(true).open(&path).map_err(|error| failed(&error))?;
            return Ok((Self { path, beside: None }, file));
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}", std::process::id()));
        let beside = path.with_file_name(name);
        let file = File::create_new(&beside).map_err(|error| failed(&error))?;
        Ok((Self { path, beside: Some(beside) }, file))
    }

    /// Puts the complete manifest in place.
    pub(super) fn keep(mut self) -> Result<(), Failure> {
        let Some(beside) = self.beside.take() else { return Ok(()) };
        std::fs::rename(&beside, &self.path).map_err(|error| {
            let _ = std::fs::remove_file(&beside); // it has failed already
            Failure::attempted(format!("replacing {}", self.path.display()), &error)
        })
    }
}

impl Drop for Manifest {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            let _ = std::fs::remove_file(beside); // nobody is there to be told
        }
    }
}
