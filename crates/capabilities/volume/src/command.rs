//! The shell command that gives directories to a user.

use crate::owner::Owner;
use std::borrow::Cow;

/// The command that gives the trees at `paths` to `uid` and `gid`, for a POSIX shell with the chown of GNU or `BusyBox`.
///
/// Paths are quoted, so any path is safe. Symlinks in the trees are changed, not followed. Unlike `postern-agent own`,
/// chown changes a file that has hard links outside of the tree.
///
/// ```
/// let command = postern_volume::chown_command(1000, 1000, &["/data", "/it's"]);
/// assert_eq!(command, r"chown -Rh -- 1000:1000 /data '/it'\''s'");
/// ```
pub fn chown_command(uid: u32, gid: u32, paths: &[impl AsRef<str>]) -> String {
    let mut command = format!("chown -Rh -- {}", Owner { uid, gid });
    for path in paths {
        command.push(' ');
        command.push_str(&quoted(path.as_ref()));
    }
    command
}

/// The word as a POSIX shell has to read it.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_reads_every_path_as_it_is() {
        let paths = [
            "/data",
            "/with space",
            "/it's",
            "/$(touch /tmp/x)",
            "/`id`",
            "/a\nb",
            "/\"quoted\"",
            "-rf",
            "/é",
            "",
            "/a;b&c|d>e<f*?[g]~!#\\",
        ];
        let command = chown_command(1, 2, &paths);
        let words = command.strip_prefix("chown -Rh -- 1:2 ").unwrap();
        let script = format!("for word in {words}; do printf '%s\\0' \"$word\"; done");
        let output = Command::new("sh").args(["-ec", &script]).output().unwrap();
        let read: Vec<_> = output.stdout.split(|byte| *byte == 0).collect();
        assert_eq!(read[..read.len() - 1], paths.map(str::as_bytes));
    }
}
