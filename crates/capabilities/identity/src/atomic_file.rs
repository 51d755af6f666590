//! Atomic replacement of files: a reader gets the old or the new content, never a part.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes a file next to `to`, unreadable for others until it has its mode, and renames it to `to`. On an error the
/// temporary file is removed.
pub fn replace(to: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let name = to.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = to.with_file_name(temporary);
    // Left by a killed process with the same PID.
    let _ = std::fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = write(&mut file)
        // Not with the mode of the open call, from which a umask would remove bits.
        .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, to));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_file_is_replaced_whole_at_its_mode_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("token");
        for (text, mode) in [("one", 0o600), ("two", 0o640)] {
            replace(&to, mode, |file| file.write_all(text.as_bytes())).unwrap();
            assert_eq!(std::fs::read_to_string(&to).unwrap(), text);
            assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
        std::fs::create_dir(directory.path().join("d")).unwrap();
        assert!(replace(&directory.path().join("d"), 0o600, |file| file.write_all(b"x")).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
