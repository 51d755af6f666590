//! Errors that name the file, position, key and fix.

use std::io;
use std::path::{Path, PathBuf};

/// The configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not text.
    #[error("{} is not UTF-8 (at byte {at})", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first invalid byte.
        at: usize,
    },
    /// The key is unknown.
    #[error("{}:{line}:{column}: there is no key {key:?}{}", path.display(), nearest.as_ref().map_or(String::new(), |near| format!("; did you mean {near:?}?")))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// The key.
        key: String,
        /// The most similar valid key.
        nearest: Option<String>,
    },
    /// The text is not YAML, or a value has the wrong type.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 if unknown.
        line: u64,
        /// Column, from 1; 0 if unknown.
        column: u64,
        /// The parser's message.
        message: String,
    },
    /// The value is invalid.
    #[error("{}:{}{key}: {why}", path.display(), if *line > 0 { format!("{line}:{column}: ") } else { " ".to_owned() })]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 if unknown.
        line: u64,
        /// Column, from 1; 0 if unknown.
        column: u64,
        /// The key.
        key: String,
        /// The problem and the fix.
        why: String,
    },
}

impl ConfigError {
    pub(crate) fn from_yaml(path: &Path, text: &str, error: &serde_saphyr::Error) -> Self {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        let path = path.to_owned();
        match error {
            serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => Self::UnknownKey {
                path,
                line,
                column,
                nearest: nearest(field, expected.iter().copied()),
                key: field.clone(),
            },
            other => {
                let message = other.to_string();
                let message = message.lines().next().unwrap_or_default();
                let own = message.split(" at line ").next().unwrap_or(message);
                let wanted = MEANINGS.iter().find(|(word, _)| *word == own).map_or(own, |(_, wanted)| wanted);
                let message = match key_before(text, line, column) {
                    Some(key) => format!("{key}: {wanted}"),
                    None => wanted.to_owned(),
                };
                Self::Yaml { path, line, column, message }
            }
        }
    }
}

/// Parser messages about wrong types, and their meaning.
const MEANINGS: [(&str, &str); 3] = [
    ("expected mapping start", "keys with values are expected here (KEY: VALUE)"),
    ("expected sequence start", "a list is expected here ([A, B])"),
    ("expected string scalar", "a string is expected here"),
];

/// The key of a value at this position, if both are on one line.
fn key_before(text: &str, line: u64, column: u64) -> Option<&str> {
    let line = text.lines().nth(usize::try_from(line.checked_sub(1)?).ok()?)?;
    let at = line.char_indices().nth(usize::try_from(column.checked_sub(1)?).ok()?)?.0;
    let before = line[..at].trim_end().strip_suffix(':')?;
    let key = before.rsplit([' ', '{', ',']).next()?.trim_matches(['"', '\'']);
    (!key.is_empty()).then_some(key)
}

/// The known key that was probably meant, if one is similar enough.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = known.map(|name| (strsim::jaro_winkler(key, name), name)).filter(|(score, _)| *score > 0.7);
    scored.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, name)| name.to_owned())
}
