//! Files staged for a command: created with private permissions, removed when it has ended.

use super::link::{Link, Lost};
use postern_wire::{Failure, FailureKind, FileSpec, ToAgent};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Removes the files when dropped.
#[derive(Debug, Default)]
pub(super) struct Staged(Vec<PathBuf>);

impl Staged {
    /// Receives the announced files. Existing files are never overwritten.
    pub(super) fn receive(link: &mut Link, files: &[FileSpec]) -> Result<Result<Self, Failure>, Lost> {
        let mut staged = Self::default();
        for FileSpec { path, size } in files {
            let path = PathBuf::from(OsStr::from_bytes(path));
            let mut file = match create(&path) {
                Ok(file) => file,
                Err(error) => return Ok(Err(failure(&path, &error))),
            };
            staged.0.push(path.clone());
            let mut left = *size;
            while left > 0 {
                let written = link.next(|frame| match frame {
                    ToAgent::File(data) => Some(file.write_all(data).map(|()| data.len() as u64)),
                    _ => None,
                })?;
                match written {
                    Ok(Ok(count)) if (1..=left).contains(&count) => left -= count,
                    Ok(Ok(_)) => return Ok(Err(bad("a file has more bytes than announced".to_owned()))),
                    Ok(Err(error)) => return Ok(Err(failure(&path, &error))),
                    Err(message) => return Ok(Err(bad(message))),
                }
            }
        }
        Ok(Ok(staged))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn create(path: &PathBuf) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn failure(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure { kind: FailureKind::File, message: format!("staging {}: {error}", path.display()) }
}

fn bad(message: String) -> Failure {
    Failure { kind: FailureKind::BadRequest, message }
}
