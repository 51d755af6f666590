//! Where in a text something stands.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::path::{FieldPath, Segment};

/// A line and a column, both from 1. Columns count characters, not bytes. A byte order mark does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A place in a named text. It is displayed as `file:line:column`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    /// The path as it was given, or a label such as `stdin`.
    pub file: Arc<str>,
    /// The place in it.
    pub place: Place,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.place)
    }
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Where it starts.
    pub place: Place,
    /// Its bytes in the whole text, a byte order mark included in the count. A key or a value without anchor and tag,
    /// and with its quotes. Empty for a value that is not written, as in `key:`.
    pub bytes: Range<usize>,
}

/// Where one field stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The key. An item of a sequence and the document itself have none.
    pub key: Option<Region>,
    /// The value. For a field that comes from an alias or a merge key, it is the text at the anchor.
    pub value: Region,
}

impl Field {
    /// Where to point a reader at: the key, or the value where there is no key.
    pub fn place(&self) -> Place {
        self.key.as_ref().unwrap_or(&self.value).place
    }
}

/// The places of a value and of everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    field: Field,
    children: Children,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Children {
    None,
    Keys(HashMap<String, Places>),
    Items(Vec<Places>),
}

impl Places {
    pub(crate) fn new(field: Field, children: Children) -> Self {
        Self { field, children }
    }

    /// The place of this value itself.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// The place of a field, where the document has it.
    pub fn get(&self, path: &FieldPath) -> Option<&Field> {
        let below = path.segments().iter().try_fold(self, |places, segment| places.child(segment));
        below.map(|places| &places.field)
    }

    /// The place of a field, or of the nearest field above it that the document has.
    pub fn nearest(&self, path: &FieldPath) -> &Field {
        let mut places = self;
        for segment in path.segments() {
            let Some(child) = places.child(segment) else { break };
            places = child;
        }
        &places.field
    }

    fn child(&self, segment: &Segment) -> Option<&Self> {
        match (&self.children, segment) {
            (Children::Keys(keys), Segment::Key(key)) => keys.get(key),
            (Children::Items(items), Segment::Index(index)) => items.get(*index),
            _ => None,
        }
    }

    /// Takes the places of the items out of a sequence at a key.
    pub(crate) fn take_items(&mut self, key: &str) -> Vec<Self> {
        let Children::Keys(keys) = &mut self.children else { return Vec::new() };
        match keys.get_mut(key).map(|places| std::mem::replace(&mut places.children, Children::None)) {
            Some(Children::Items(items)) => items,
            _ => Vec::new(),
        }
    }

    pub(crate) fn with_key(mut self, key: Option<Region>) -> Self {
        self.field.key = key;
        self
    }

    pub(crate) fn into_keys(self) -> HashMap<String, Self> {
        match self.children {
            Children::Keys(keys) => keys,
            Children::None | Children::Items(_) => HashMap::new(),
        }
    }
}

/// Finds lines and columns by byte.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(bom(text)).chain(breaks).collect();
        Self { text, starts }
    }

    pub(crate) fn place(&self, at: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts[line - 1];
        let column = self.text.get(start..at.max(start)).map_or(0, |before| before.chars().count()) + 1;
        Place { line, column }
    }
}

/// The length of a byte order mark at the start of a text.
pub(crate) fn bom(text: &str) -> usize {
    if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_no_byte_order_mark() {
        let lines = Lines::new("\u{feff}aé: b\nc");
        assert_eq!(lines.place(3), Place { line: 1, column: 1 });
        assert_eq!(lines.place(8), Place { line: 1, column: 5 });
        assert_eq!(lines.place(10), Place { line: 2, column: 1 });
        let location = Location { file: "a.yaml".into(), place: lines.place(8) };
        assert_eq!(location.to_string(), "a.yaml:1:5");
    }
}
