//! The path of a field, as Kubernetes prints it.

use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// A text that is no field path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no field path: {why}")]
pub struct PathError {
    /// The text.
    pub text: String,
    /// What is wrong.
    pub why: &'static str,
}

/// One step of a [`FieldPath`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// The key of a mapping.
    Key(String),
    /// The index of an item in a sequence, from 0.
    Index(usize),
}

/// The path of a field: `spec.containers[0].image`, `metadata.annotations[example.com/a]`.
///
/// Parsing and displaying are inverse to each other. A key with a dot, a slash or a bracket stands in brackets. A key
/// that would be misread there is a JSON string in brackets: `data["a]b"]`. A number in brackets is an index, so a key
/// of digits is written with a dot: `data.5`. The empty path is the whole document.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<Segment>);

impl FieldPath {
    /// The whole document.
    pub fn root() -> Self {
        Self::default()
    }

    /// The steps, outermost first.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether this is the whole document.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path with a key below it.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.push(Segment::Key(key.into()));
        self
    }

    /// The path with an index below it.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.0.push(Segment::Index(index));
        self
    }

    /// The other path, seen from this one's start.
    #[must_use]
    pub fn join(mut self, below: &Self) -> Self {
        self.0.extend_from_slice(&below.0);
        self
    }

    /// The field of a value, where the value has it.
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |value, segment| match segment {
            Segment::Key(key) => value.get(key),
            Segment::Index(index) => value.get(index),
        })
    }

    /// The path without its last step; nothing for the whole document.
    pub fn parent(&self) -> Option<Self> {
        self.0.split_last().map(|(_, parent)| Self(parent.to_vec()))
    }
}

impl From<Vec<Segment>> for FieldPath {
    fn from(segments: Vec<Segment>) -> Self {
        Self(segments)
    }
}

/// Whether a key can follow a dot.
fn is_bare(key: &str) -> bool {
    !key.is_empty() && !key.contains(['.', '/', '[', ']', '"'])
}

/// Whether a key can stand in brackets as it is.
fn is_bracketed(key: &str) -> bool {
    !key.is_empty() && !key.contains([']', '"'])
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if is_bare(key) => {
                    f.write_str(if at == 0 { "" } else { "." })?;
                    f.write_str(key)?;
                }
                Segment::Key(key) if is_bracketed(key) => write!(f, "[{key}]")?,
                Segment::Key(key) => write!(f, "[{}]", Value::from(key.as_str()))?,
            }
        }
        Ok(())
    }
}

impl FromStr for FieldPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let error = |why| PathError { text: text.to_owned(), why };
        let (mut segments, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let (segment, after) = bracket(inner).map_err(error)?;
                segments.push(segment);
                rest = after;
                continue;
            }
            if !segments.is_empty() {
                rest = rest.strip_prefix('.').ok_or_else(|| error("a '.' or a '[' has to follow a ']'"))?;
            }
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            if key.is_empty() {
                return Err(error("a key is missing"));
            }
            segments.push(Segment::Key(key.to_owned()));
            rest = after;
        }
        Ok(Self(segments))
    }
}

/// Reads what follows a `[`, and says what follows the `]`.
fn bracket(inner: &str) -> Result<(Segment, &str), &'static str> {
    const OPEN: &str = "a '[' has no ']'";
    if inner.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(inner).into_iter::<String>();
        let Some(Ok(key)) = values.next() else { return Err("a quoted key is no JSON string") };
        let rest = inner.get(values.byte_offset()..).unwrap_or_default();
        return Ok((Segment::Key(key), rest.strip_prefix(']').ok_or(OPEN)?));
    }
    let (content, rest) = inner.split_once(']').ok_or(OPEN)?;
    if content.is_empty() {
        return Err("a key is missing in the brackets");
    }
    if content.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok((Segment::Index(content.parse().map_err(|_| "an index is too large")?), rest));
    }
    Ok((Segment::Key(content.to_owned()), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_printed_as_kubernetes_prints_them() {
        let root = FieldPath::root;
        for (path, text) in [
            (root(), ""),
            (root().key("spec").key("containers").index(0).key("image"), "spec.containers[0].image"),
            (
                root().key("metadata").key("annotations").key("example.com/a"),
                "metadata.annotations[example.com/a]",
            ),
            (root().key("data").key("5"), "data.5"),
            (root().key("5"), "5"),
            (root().key("data").key(""), "data[\"\"]"),
            (root().key("data").key("a]\"b"), "data[\"a]\\\"b\"]"),
            (root().key("data").key("ca.crt").key("x"), "data[ca.crt].x"),
            (root().index(3).index(4), "[3][4]"),
            (root().key("a.b"), "[a.b]"),
        ] {
            assert_eq!(path.to_string(), text);
            assert_eq!(text.parse::<FieldPath>().unwrap(), path, "{text}");
        }
        assert_eq!(root().key("a").index(1).parent(), Some(root().key("a")));
        let value = serde_json::json!({"a": [1, 2]});
        assert_eq!(root().key("a").index(1).find(&value), Some(&2.into()));
        assert_eq!(root().key("a").key("1").find(&value), None);
    }

    #[test]
    fn a_path_that_cannot_be_read_is_an_error() {
        for text in [".a", "a.", "a..b", "a[", "a[]", "a[0", "a[0]b", "a[\"x]", "a[99999999999999999999999]"]
        {
            let error = text.parse::<FieldPath>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is no field path")), "{error}");
        }
    }
}
