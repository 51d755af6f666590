//! From a tree to its value: tags, aliases and merge keys resolved, with the place of every field.

use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

use crate::error::ManifestError;
use crate::limits::Limits;
use crate::place::{Children, Field, Location, Places, Region};
use crate::scalar::{self, Scalar};
use crate::tree::{Entry, Node, Shape, Style, Tag, Tree};

type Result<T> = std::result::Result<T, ManifestError>;

/// The value of a document, and where its fields are. `added` counts what aliases add in all documents of a file.
pub(crate) fn expand(
    file: &Arc<str>,
    tree: &Tree,
    limits: &Limits,
    added: &mut usize,
) -> Result<(Value, Places)> {
    let mut anchors = HashMap::new();
    tree.root.visit(&mut |node| {
        if let Some(anchor) = &node.anchor {
            anchors.insert(anchor.id, node);
        }
    });
    Expander { file, limits, anchors, added }.node(&tree.root, 0, false)
}

struct Expander<'a> {
    file: &'a Arc<str>,
    limits: &'a Limits,
    anchors: HashMap<usize, &'a Node>,
    /// What aliases and merge keys have added.
    added: &'a mut usize,
}

impl<'a> Expander<'a> {
    fn at(&self, node: &Node) -> Location {
        Location { file: self.file.clone(), place: node.place }
    }

    /// The value of a node. `shared`: it is reached through an alias, and so counts against the limit.
    fn node(&mut self, node: &'a Node, depth: usize, shared: bool) -> Result<(Value, Places)> {
        if depth > self.limits.nesting() {
            return Err(ManifestError::TooDeep { at: self.at(node), limit: self.limits.nesting() });
        }
        if shared {
            let weight = if let Shape::Scalar { text, .. } = &node.shape { text.len() / 64 } else { 0 };
            *self.added += 1 + weight;
            if *self.added > self.limits.alias_nodes {
                return Err(ManifestError::TooManyAliases {
                    at: self.at(node),
                    limit: self.limits.alias_nodes,
                });
            }
        }
        let (value, children) = match &node.shape {
            Shape::Alias(id) => return self.target(node, *id).and_then(|node| self.node(node, depth, true)),
            Shape::Scalar { text, style } => (self.scalar(node, text, *style)?, Children::None),
            Shape::Seq { items, .. } => {
                let (mut values, mut places) = (Vec::new(), Vec::new());
                for item in items {
                    let (value, place) = self.node(&item.node, depth + 1, shared)?;
                    values.push(value);
                    places.push(place);
                }
                (Value::Array(values), Children::Items(places))
            }
            Shape::Map { entries, .. } => {
                let (mut map, mut places) = (Map::new(), HashMap::new());
                for entry in entries {
                    self.entry(entry, depth, shared, &mut map, &mut places)?;
                }
                (Value::Object(map), Children::Keys(places))
            }
        };
        let value_region = Region { place: node.place, bytes: node.content.clone() };
        Ok((value, Places::new(Field { key: None, value: value_region }, children)))
    }

    fn target(&self, alias: &Node, id: usize) -> Result<&'a Node> {
        // The parser refuses an alias without an anchor, so this is never reached.
        let target = self.anchors.get(&id).copied();
        target.ok_or_else(|| ManifestError::Recursive { at: self.at(alias) })
    }

    /// Keys are taken in the order of the text, merged ones too: as in kubectl, a merge key overwrites what stands
    /// before it, and is overwritten by what follows.
    fn entry(
        &mut self,
        entry: &'a Entry,
        depth: usize,
        shared: bool,
        map: &mut Map<String, Value>,
        places: &mut HashMap<String, Places>,
    ) -> Result<()> {
        if entry.key.merge {
            return self.merge(&entry.node, depth, shared, map, places);
        }
        let (value, place) = self.node(&entry.node, depth + 1, shared)?;
        let key = Region { place: entry.key.place, bytes: entry.key.content.clone() };
        map.insert(entry.key.name.clone(), value);
        places.insert(entry.key.name.clone(), place.with_key(Some(key)));
        Ok(())
    }

    fn merge(
        &mut self,
        node: &'a Node,
        depth: usize,
        shared: bool,
        map: &mut Map<String, Value>,
        places: &mut HashMap<String, Places>,
    ) -> Result<()> {
        let (target, through) = match &node.shape {
            Shape::Alias(id) => (self.target(node, *id)?, true),
            _ => (node, false),
        };
        match &target.shape {
            Shape::Map { .. } => {
                let (value, merged) = self.node(target, depth, shared || through)?;
                if let Value::Object(merged) = value {
                    map.extend(merged);
                }
                places.extend(merged.into_keys());
                Ok(())
            }
            // Of several, the first wins.
            Shape::Seq { items, .. } if !through => {
                for item in items.iter().rev() {
                    let alias = if let Shape::Alias(id) = &item.node.shape { Some(*id) } else { None };
                    let inner = alias.map_or(Ok(&item.node), |id| self.target(&item.node, id))?;
                    if !matches!(inner.shape, Shape::Map { .. }) {
                        return Err(ManifestError::Merge { at: self.at(&item.node) });
                    }
                    self.merge(&item.node, depth, shared, map, places)?;
                }
                Ok(())
            }
            _ => Err(ManifestError::Merge { at: self.at(node) }),
        }
    }

    fn scalar(&self, node: &Node, text: &str, style: Style) -> Result<Value> {
        let error = |why: String| ManifestError::Value { at: self.at(node), text: text.to_owned(), why };
        let resolved = match (&node.tag, style) {
            (None, Style::Plain) => scalar::resolve(text),
            (None | Some(Tag::Other), _) => Scalar::Text,
            (Some(Tag::Core(tag)), _) => {
                tagged(tag, text).ok_or_else(|| error(format!("does not fit its tag !!{tag}")))?
            }
        };
        let number = |value| {
            let number = scalar::float(value).map(Value::Number);
            number.ok_or_else(|| error("is a number that JSON does not have".to_owned()))
        };
        match resolved {
            Scalar::Null => Ok(Value::Null),
            Scalar::Bool(value) => Ok(value.into()),
            Scalar::Int(value) => Ok(value.into()),
            // Kubernetes keeps whole numbers as `int64` and any other as `float64`.
            #[allow(clippy::cast_precision_loss)]
            Scalar::Uint(value) => number(value as f64),
            Scalar::Float(value) => number(value),
            Scalar::Text => Ok(text.into()),
        }
    }
}

/// A scalar with a tag of YAML itself. Nothing where text and tag do not fit, or where kubectl has no use for the tag.
fn tagged(tag: &str, text: &str) -> Option<Scalar> {
    let resolved = scalar::resolve(text);
    match (tag, resolved) {
        ("str", _) => Some(Scalar::Text),
        ("null", Scalar::Null) => Some(Scalar::Null),
        ("bool", Scalar::Bool(value)) => Some(Scalar::Bool(value)),
        ("int", resolved @ (Scalar::Int(_) | Scalar::Uint(_))) | ("float", resolved @ Scalar::Float(_)) => {
            Some(resolved)
        }
        #[allow(clippy::cast_precision_loss)] // go-yaml does the same
        ("float", Scalar::Int(value)) => Some(Scalar::Float(value as f64)),
        ("timestamp", Scalar::Text) if scalar::is_timestamp(text) => Some(Scalar::Text),
        _ => None,
    }
}
