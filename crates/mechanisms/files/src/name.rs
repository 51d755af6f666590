//! Paths below a root, as the other end sends them.

use std::borrow::Cow;

/// Maximum length of a file name, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// Maximum length of a path below a root, in bytes (`PATH_MAX`).
pub(crate) const PATH_MAX: usize = 4_096;

/// Suffix of the names of partial files.
const PARTIAL: &[u8] = b".postern-partial";

/// The path is not valid below a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It escapes the root or is malformed.
    #[error("its path has an empty component, `.`, `..`, a NUL byte or a slash at an end")]
    NotBelow,
    /// Too many components.
    #[error("its path has more than {0} components")]
    Deep(u16),
    /// A component or the whole path is too long.
    #[error("its name is longer than {NAME_MAX} bytes, or its path than {PATH_MAX}")]
    Long,
}

/// Checks a path from the other end: components joined by single slashes. The empty path is the root itself.
pub fn check(path: &[u8], depth: u16) -> Result<(), NameError> {
    if path.is_empty() {
        return Ok(());
    }
    if path.len() > PATH_MAX {
        return Err(NameError::Long);
    }
    let mut count = 0_u16;
    for component in path.split(|&byte| byte == b'/') {
        if component.is_empty() || component == b"." || component == b".." || component.contains(&0) {
            return Err(NameError::NotBelow);
        }
        if component.len() > NAME_MAX {
            return Err(NameError::Long);
        }
        count = count.saturating_add(1);
        if count > depth {
            return Err(NameError::Deep(depth));
        }
    }
    Ok(())
}

/// Splits a path into its directory and its last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Joins a directory and a name; either may be empty.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory, name) {
        (b"", name) => name.to_vec(),
        (directory, b"") => directory.to_vec(),
        (directory, name) if directory.ends_with(b"/") => [directory, name].concat(),
        (directory, name) => [directory, b"/", name].concat(),
    }
}

/// The path that rules match: relative to the source, without the source's own name.
pub fn inner(path: &[u8], contents: bool) -> &[u8] {
    if contents {
        return path;
    }
    match path.iter().position(|&byte| byte == b'/') {
        Some(slash) => &path[slash + 1..],
        None => b"",
    }
}

/// The name of the partial file of `name`: `.NAME.postern-partial`. If that is too long for a file system, as
/// much of the name as fits and a hash of all of it.
pub fn partial(name: &[u8]) -> Vec<u8> {
    let room = NAME_MAX - PARTIAL.len() - 1;
    if name.len() <= room {
        return [b".", name, PARTIAL].concat();
    }
    let hash = blake3::hash(name).to_hex();
    let hash = &hash.as_bytes()[..16];
    [b".", &name[..room - 17], b"~", hash, PARTIAL].concat()
}

/// Whether a name was made by [`partial`].
pub fn is_partial(name: &[u8]) -> bool {
    name.starts_with(b".") && name.ends_with(PARTIAL) && name.len() > PARTIAL.len() + 1
}

/// For display: escapes control characters and bytes that are not UTF-8.
pub fn show(path: &[u8]) -> Cow<'_, str> {
    let plain = |text: &str| {
        !text.chars().any(|c| {
            c.is_control() || ('\u{200e}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c)
        })
    };
    match std::str::from_utf8(path) {
        Ok(text) if plain(text) => Cow::Borrowed(text),
        Ok(text) => text
            .chars()
            .map(|c| match plain(c.encode_utf8(&mut [0; 4])) {
                true => c.to_string(),
                false => c.escape_default().to_string(),
            })
            .collect::<String>()
            .into(),
        Err(_) => path.escape_ascii().to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_root_are_valid() {
        for good in [&b""[..], b"a", b"a/b", b"..data/x", b"a..", b" ", b"-rf", b"\xff/\n"] {
            assert_eq!(check(good, 8), Ok(()), "{}", show(good));
        }
        for bad in [&b"/"[..], b"/a", b"a/", b"a//b", b".", b"..", b"a/../b", b"a/.", b"a\0b"] {
            assert_eq!(check(bad, 8), Err(NameError::NotBelow), "{}", show(bad));
        }
        assert_eq!(check(b"a/b/c", 2), Err(NameError::Deep(2)));
        assert_eq!(check(&[b'x'; 256], 8), Err(NameError::Long));
    }

    #[test]
    fn partial_file_names_are_valid_on_every_file_system() {
        assert_eq!(partial(b"log"), b".log.postern-partial");
        for length in [1, 237, 238, 239, 255] {
            let name = partial(&vec![b'x'; length]);
            assert!(name.len() <= NAME_MAX && is_partial(&name), "{length}");
        }
        assert_ne!(partial(&[b'x'; 254]), partial(&[b'x'; 255]));
        assert!(!is_partial(b".postern-partial") && !is_partial(b"a.postern-partial"));
    }

    #[test]
    fn control_characters_in_names_are_escaped() {
        assert_eq!(show(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(show("ä\u{202e}".as_bytes()), "ä\\u{202e}");
        assert_eq!(show(b"\xff\x07"), "\\xff\\x07");
    }

    #[test]
    fn paths_are_joined_and_cut() {
        assert_eq!(
            (join(b"", b"a"), join(b"a", b""), join(b"/", b"a")),
            (b"a".to_vec(), b"a".to_vec(), b"/a".to_vec())
        );
        assert_eq!((split(b"a/b/c"), split(b"c")), ((&b"a/b"[..], &b"c"[..]), (&b""[..], &b"c"[..])));
    }
}
