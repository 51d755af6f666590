//! Which bytes a change replaces.
//!
//! A plan need not be right in every odd case: the editor reads the new text and drops what does not mean exactly the
//! change. So the code here follows the usual forms of YAML, and leaves the rest to that check.

use serde_json::{Map, Value};

use crate::change::Change;
use crate::find::{Kind, Plan, Planner, Spot, Stop};
use crate::path::Segment;
use crate::render::{Layout, Written, below_keys, column};
use crate::splice::{Splice, has_comment, is_first_on_line, next_line};
use crate::tree::{Entry, Item, Shape, Style, Tree};

/// The bytes to replace, so that the field at `path` is changed. `value` is what the document means.
pub(crate) fn plan(text: &str, tree: &Tree, value: &Value, path: &[Segment], change: &Change) -> Plan {
    let planner = Planner { text, tree, layout: Layout::of(text, tree) };
    let trail = planner.find(value, path)?;
    match (change, trail.rest) {
        (Change::Set(new), []) => planner.replace(trail.last, new),
        (Change::Set(new), rest) => planner.create(trail.last, rest, new),
        (Change::Remove, []) => planner.remove(trail.above.last(), trail.last),
        (Change::Append(new), []) => planner.insert(trail.last, None, new),
        (Change::Insert(index, new), []) => planner.insert(trail.last, Some(*index), new),
        (Change::Remove | Change::Append(_) | Change::Insert(..), [missing, ..]) => {
            Err(Stop::NotFound(match missing {
                Segment::Key(key) => format!("there is no key {key:?}"),
                Segment::Index(index) => format!("there is no item {index}"),
            }))
        }
    }
}

impl<'t> Planner<'t> {
    /// Adds a field that does not exist, with the mappings above it. `spot` is the last that exists.
    fn create(&self, spot: Spot<'t>, rest: &[Segment], new: &Value) -> Plan {
        let mut keys = Vec::new();
        for segment in rest {
            match segment {
                Segment::Key(key) => keys.push(key.as_str()),
                Segment::Index(index) => {
                    return Err(Stop::NotFound(format!(
                        "there is no item {index}; append to the sequence instead"
                    )));
                }
            }
        }
        let (Some((key, below)), Shape::Map { entries, flow }) = (keys.split_first(), &spot.node.shape)
        else {
            return self.replace(spot, &below_keys(keys.into_iter(), new.clone()));
        };
        self.not_shared(spot.node)?;
        let value = below_keys(below.iter().copied(), new.clone());
        let Some(last) = entries.last() else {
            return self.replace(spot, &below_keys(keys.into_iter(), new.clone()));
        };
        if *flow || spot.flow {
            let lines = is_first_on_line(self.text, last.key.start);
            let entry =
                format!("{}: {}", self.layout.key(key), self.flow_value(&value, lines, last.key.start));
            return Ok(self.append_to_flow(spot.node, last.key.start, last.end(), &entry));
        }
        let column = column(self.text, spot.node.content.start);
        let Written { rest, below } = self.layout.behind_key(&value, column, None);
        let key = self.layout.inline(&Value::from(*key), false, None);
        let mut lines = vec![format!("{}{key}:{rest}", " ".repeat(column))];
        lines.extend(below);
        Ok(vec![self.lines_below(last.end(), &lines)])
    }

    /// Adds an item to the sequence at a spot; at the end without an index.
    fn insert(&self, spot: Spot<'t>, index: Option<usize>, new: &Value) -> Plan {
        let node = spot.node;
        self.not_shared(node)?;
        let Shape::Seq { flow, items } = &node.shape else {
            return Err(match node.shape {
                Shape::Alias(_) => self.alias(node),
                _ => Stop::WrongType { place: node.place, found: node.kind(), wanted: "a sequence" },
            });
        };
        let index = index.unwrap_or(items.len());
        let Some(last) = items.last() else {
            return match index {
                0 => self.replace(spot, &Value::Array(vec![new.clone()])),
                _ => Err(Stop::NotFound(format!("there is no place {index} in an empty sequence"))),
            };
        };
        if index > items.len() {
            let count = items.len();
            return Err(Stop::NotFound(format!("there is no place {index}; the sequence has {count} items")));
        }
        if *flow || spot.flow {
            return Ok(self.insert_into_flow(node, items, last, index, new));
        }
        let Some(column) = items[0].dash.map(|dash| column(self.text, dash)) else {
            return Err(Stop::Unable("the dashes of the sequence were not found"));
        };
        let Written { rest, below } = self.layout.behind_dash(new, column, None);
        let mut lines = vec![format!("-{rest}")];
        lines.extend(below);
        let indent = " ".repeat(column);
        match (index.checked_sub(1).and_then(|before| items.get(before)), items[0].dash) {
            (Some(before), _) => {
                lines[0].insert_str(0, &indent);
                Ok(vec![self.lines_below(before.end(), &lines)])
            }
            (None, Some(dash)) => {
                let newline = self.layout.newline;
                Ok(vec![Splice::insert(dash, format!("{}{newline}{indent}", lines.join(newline)))])
            }
            (None, None) => Err(Stop::Unable("the dashes of the sequence were not found")),
        }
    }

    /// Gives the node at a spot another value.
    fn replace(&self, spot: Spot<'t>, new: &Value) -> Plan {
        let node = spot.node;
        self.not_used(node)?;
        let same_kind = match (&node.shape, new) {
            (Shape::Map { flow: true, entries }, Value::Object(_)) => !entries.is_empty(),
            (Shape::Seq { flow: true, items }, Value::Array(_)) => !items.is_empty(),
            _ => false,
        };
        if spot.flow || same_kind {
            return Ok(vec![self.replace_in_flow(spot, new)]);
        }
        let comments = next_line(self.text, spot.lead)..node.content.start;
        let old_style = match node.shape {
            Shape::Scalar { style, .. } => Some(style),
            // A comment above the old value would become text of a literal block.
            _ if new.as_str().is_some_and(|new| new.contains('\n')) && has_comment(self.text, comments) => {
                Some(Style::Double)
            }
            _ => None,
        };
        let column = column(self.text, spot.start);
        let written = match spot.kind {
            Kind::Root => self.layout.at(new, column),
            Kind::Item => self.layout.behind_dash(new, column, old_style),
            Kind::Value { .. } => self.layout.behind_key(new, column, old_style),
        };
        if node.is_block() {
            Ok(self.replace_block(spot, &written))
        } else {
            self.replace_line(spot, &written)
        }
    }

    /// Removes the entry or item at a spot from its collection.
    fn remove(&self, collection: Option<&Spot<'t>>, spot: Spot<'t>) -> Plan {
        self.not_used(spot.node)?;
        let Some(collection) = collection else {
            return Err(Stop::NotFound("the whole document cannot be removed".to_owned()));
        };
        let (ranges, flow, empty) = match &collection.node.shape {
            Shape::Map { flow, entries } => {
                let range = |entry: &Entry| entry.key.start..entry.end();
                (entries.iter().map(range).collect::<Vec<_>>(), *flow, Value::Object(Map::new()))
            }
            Shape::Seq { flow, items } => {
                let range = |item: &Item| item.start()..item.end();
                (items.iter().map(range).collect(), *flow, Value::Array(Vec::new()))
            }
            Shape::Scalar { .. } | Shape::Alias(_) => return Err(Stop::Unable("it has no collection")),
        };
        match ranges.len() {
            _ if flow || spot.flow => Ok(self.remove_from_flow(collection.node, &ranges, spot.number)),
            // Without its only entry, a collection in block style would be null.
            1 => self.replace(*collection, &empty),
            _ => Ok(self.remove_lines(&ranges, spot.number)),
        }
    }
}
