//! From a value to text, in the style of the file that it goes into.

use serde_json::{Map, Value};

use crate::quote::{literal, text};
use crate::scalar;
use crate::splice::{is_first_on_line, line_start};
use crate::tree::{Node, Shape, Style, Tree};

/// How a file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) newline: &'static str,
    pub(crate) json: bool,
    /// The spaces by which a mapping in block style is indented in a mapping.
    step: usize,
    /// The spaces by which the dashes of a sequence are indented below their key.
    dash: usize,
    /// From a dash to what follows it.
    gap: usize,
    /// One level of indentation of a collection in flow style with one value on each line.
    unit: String,
    /// Whether there is such a collection.
    pub(crate) multiline: bool,
}

/// What goes behind a key or a dash: the rest of its line, and the lines below it, indented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) rest: String,
    pub(crate) below: Vec<String>,
}

impl Layout {
    /// Looks at the first example of each thing in the document.
    pub(crate) fn of(text: &str, tree: &Tree) -> Self {
        let newline = match text.find('\n') {
            Some(at) if text[..at].ends_with('\r') => "\r\n",
            _ => "\n",
        };
        let (mut step, mut dash, mut gap, mut unit) = (None, None, None, None);
        tree.root.visit(&mut |node| match &node.shape {
            Shape::Map { flow: false, entries } => {
                for entry in entries {
                    let (from, to) = (column(text, entry.key.start), column(text, entry.node.content.start));
                    match &entry.node.shape {
                        Shape::Map { flow: false, .. } if to > from => step = step.or(Some(to - from)),
                        Shape::Seq { flow: false, .. } if to >= from => dash = dash.or(Some(to - from)),
                        _ => {}
                    }
                }
            }
            Shape::Seq { flow: false, items } => {
                for item in items {
                    let Some(at) = item.dash else { continue };
                    let between = text.get(at + 1..item.node.start).unwrap_or_default();
                    if !between.is_empty() && between.bytes().all(|byte| byte == b' ') {
                        gap = gap.or(Some(between.len() + 1));
                    }
                }
            }
            Shape::Map { flow: true, .. } | Shape::Seq { flow: true, .. } => {
                unit = unit.take().or_else(|| flow_unit(text, node));
            }
            Shape::Scalar { .. } | Shape::Alias(_) => {}
        });
        Self {
            newline,
            json: tree.json,
            step: step.unwrap_or(2),
            dash: dash.unwrap_or(0),
            gap: gap.unwrap_or(2),
            multiline: unit.is_some(),
            unit: unit.unwrap_or_else(|| "  ".to_owned()),
        }
    }

    /// A value behind a key in a block mapping. `style`: that of the value it replaces.
    pub(crate) fn behind_key(&self, value: &Value, column: usize, style: Option<Style>) -> Written {
        match value {
            Value::Object(map) if !map.is_empty() => self.on_own_lines(value, column + self.step),
            Value::Array(items) if !items.is_empty() => self.on_own_lines(value, column + self.dash),
            _ => self.on_the_line(value, " ", column + self.step, style),
        }
    }

    /// A value behind a dash of a block sequence.
    pub(crate) fn behind_dash(&self, value: &Value, column: usize, style: Option<Style>) -> Written {
        let spaces = " ".repeat(self.gap.max(2) - 1);
        match value {
            Value::Object(map) if !map.is_empty() => {
                self.starting_on_the_line(value, &spaces, column + self.gap)
            }
            Value::Array(items) if !items.is_empty() => {
                self.starting_on_the_line(value, &spaces, column + self.gap)
            }
            _ => self.on_the_line(value, &spaces, column + self.gap, style),
        }
    }

    /// A value that stands on its own, at a column.
    pub(crate) fn at(&self, value: &Value, column: usize) -> Written {
        match is_filled(value) {
            true => self.starting_on_the_line(value, "", column),
            false => Written { rest: self.inline(value, false, None), below: Vec::new() },
        }
    }

    fn on_own_lines(&self, value: &Value, column: usize) -> Written {
        let mut below = self.block(value, column);
        if let Some(first) = below.first_mut() {
            first.insert_str(0, &" ".repeat(column));
        }
        Written { rest: String::new(), below }
    }

    fn starting_on_the_line(&self, value: &Value, spaces: &str, column: usize) -> Written {
        let mut lines = self.block(value, column).into_iter();
        let rest = format!("{spaces}{}", lines.next().unwrap_or_default());
        Written { rest, below: lines.collect() }
    }

    fn on_the_line(&self, value: &Value, spaces: &str, column: usize, style: Option<Style>) -> Written {
        if let Value::String(text) = value
            && let Some((header, below)) = literal(text, column)
            && !matches!(style, Some(Style::Single | Style::Double))
        {
            return Written { rest: format!("{spaces}{header}"), below };
        }
        Written { rest: format!("{spaces}{}", self.inline(value, false, style)), below: Vec::new() }
    }

    /// The lines of a collection in block style, all but the first indented.
    fn block(&self, value: &Value, column: usize) -> Vec<String> {
        let slots: Vec<(String, Written)> = match value {
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| {
                    (format!("{}:", text(key, false, None)), self.behind_key(value, column, None))
                };
                map.iter().map(entry).collect()
            }
            Value::Array(items) => {
                items.iter().map(|item| ("-".to_owned(), self.behind_dash(item, column, None))).collect()
            }
            _ => Vec::new(),
        };
        let mut lines = Vec::new();
        for (lead, Written { rest, below }) in slots {
            let indent = if lines.is_empty() { String::new() } else { " ".repeat(column) };
            lines.push(format!("{indent}{lead}{rest}"));
            lines.extend(below);
        }
        lines
    }

    /// A value on one line. `flow`: it goes into a collection in flow style.
    pub(crate) fn inline(&self, value: &Value, flow: bool, style: Option<Style>) -> String {
        match value {
            Value::String(string) if self.json => Value::from(string.as_str()).to_string(),
            Value::String(string) => text(string, flow, style),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| self.inline(item, true, None)).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| {
                    format!("{}: {}", self.key(key), self.inline(value, true, None))
                };
                format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
            Value::Number(number) => scalar::normal_number(number).to_string(),
            Value::Null | Value::Bool(_) => value.to_string(),
        }
    }

    /// A key of a mapping in flow style.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.json { Value::from(key).to_string() } else { text(key, true, None) }
    }

    /// A value in flow style with one value on each line, below a line with this indentation.
    pub(crate) fn lines(&self, value: &Value, indent: &str) -> String {
        let inner = format!("{indent}{}", self.unit);
        let join = |parts: Vec<String>, open: &str, close: &str| {
            let separator = format!(",{}{inner}", self.newline);
            let (newline, parts) = (self.newline, parts.join(&separator));
            format!("{open}{newline}{inner}{parts}{newline}{indent}{close}")
        };
        let entry =
            |(key, value): (&String, &Value)| format!("{}: {}", self.key(key), self.lines(value, &inner));
        match value {
            Value::Object(map) if !map.is_empty() => join(map.iter().map(entry).collect(), "{", "}"),
            Value::Array(items) if !items.is_empty() => {
                join(items.iter().map(|item| self.lines(item, &inner)).collect(), "[", "]")
            }
            _ => self.inline(value, true, None),
        }
    }
}

/// Whether a value is a collection that is not empty.
pub(crate) fn is_filled(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// A value below keys that do not exist yet.
pub(crate) fn below_keys<'a>(keys: impl DoubleEndedIterator<Item = &'a str>, value: Value) -> Value {
    keys.rev().fold(value, |value, key| Value::Object(Map::from_iter([(key.to_owned(), value)])))
}

/// The bytes before something on its line.
pub(crate) fn column(text: &str, at: usize) -> usize {
    at - line_start(text, at)
}

/// The spaces and tabs at the start of the line that a byte is on.
pub(crate) fn indentation(text: &str, at: usize) -> &str {
    let line = text.get(line_start(text, at)..at).unwrap_or_default();
    line.get(..line.len() - line.trim_start_matches([' ', '\t']).len()).unwrap_or_default()
}

/// By how much the first value in a collection in flow style is indented, if it has its own line.
fn flow_unit(text: &str, node: &Node) -> Option<String> {
    let first = match &node.shape {
        Shape::Map { entries, .. } => entries.first().map(|entry| entry.key.start),
        Shape::Seq { items, .. } => items.first().map(crate::tree::Item::start),
        _ => None,
    }?;
    if !is_first_on_line(text, first) {
        return None;
    }
    let inner = text.get(line_start(text, first)..first)?;
    inner
        .strip_prefix(indentation(text, node.content.start))
        .filter(|unit| !unit.is_empty())
        .map(str::to_owned)
}
