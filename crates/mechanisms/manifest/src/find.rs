//! From a path to the node that stands there.

use serde_json::Value;
use std::ops::Range;

use crate::path::Segment;
use crate::place::Place;
use crate::render::Layout;
use crate::splice::Splice;
use crate::tree::{Entry, Item, Node, Shape, Tree};

/// Why there is no plan.
#[derive(Debug)]
pub(crate) enum Stop {
    NotFound(String),
    WrongType { place: Place, found: &'static str, wanted: &'static str },
    Shared { place: Place, through: String },
    Unable(&'static str),
}

pub(crate) type Plan = Result<Vec<Splice>, Stop>;

/// Where a node stands: in which collection, and behind which sign.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'t> {
    pub(crate) node: &'t Node,
    /// The number of the entry or item in its collection.
    pub(crate) number: usize,
    /// Behind the colon or dash, or where the document starts.
    pub(crate) lead: usize,
    /// Where the key or the dash starts.
    pub(crate) start: usize,
    pub(crate) kind: Kind,
    /// Whether it stands in a collection in flow style.
    pub(crate) flow: bool,
}

/// In what a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Root,
    Value { colon: bool },
    Item,
}

impl<'t> Spot<'t> {
    fn root(tree: &'t Tree) -> Self {
        let node = &tree.root;
        Self { node, number: 0, lead: node.start, start: node.start, kind: Kind::Root, flow: tree.json }
    }

    fn of_entry(entry: &'t Entry, number: usize, flow: bool) -> Self {
        let lead = entry.colon.map_or(entry.key.content.end, |colon| colon + 1);
        let kind = Kind::Value { colon: entry.colon.is_some() };
        Self { node: &entry.node, number, lead, start: entry.key.start, kind, flow }
    }

    fn of_item(item: &'t Item, number: usize, flow: bool) -> Self {
        let start = item.start();
        let lead = item.dash.map_or(start, |dash| dash + 1);
        Self { node: &item.node, number, lead, start, kind: Kind::Item, flow }
    }
}

/// The fields along a path, from the root on, as far as they exist.
pub(crate) struct Trail<'t, 'p> {
    /// All above the last.
    pub(crate) above: Vec<Spot<'t>>,
    pub(crate) last: Spot<'t>,
    /// What does not exist.
    pub(crate) rest: &'p [Segment],
}

/// What all parts of planning a change need.
pub(crate) struct Planner<'t> {
    pub(crate) text: &'t str,
    pub(crate) tree: &'t Tree,
    pub(crate) layout: Layout,
}

impl<'t> Planner<'t> {
    /// Goes down the path as far as there are fields. `value` is what the document means.
    pub(crate) fn find<'p>(&self, value: &Value, path: &'p [Segment]) -> Result<Trail<'t, 'p>, Stop> {
        let (mut value, mut above) = (Some(value), Vec::new());
        let (mut last, mut rest) = (Spot::root(self.tree), path);
        while let [segment, below @ ..] = rest {
            let node = last.node;
            self.not_shared(node)?;
            let next = match (&node.shape, segment) {
                (Shape::Map { entries, flow }, Segment::Key(key)) => {
                    value = value.and_then(|value| value.get(key));
                    let found = entries.iter().position(|entry| !entry.key.merge && entry.key.name == *key);
                    let merge = entries.iter().find(|entry| entry.key.merge);
                    match (found, merge) {
                        (Some(at), _) => Spot::of_entry(&entries[at], at, last.flow || *flow),
                        // A key of its own overwrites what is merged, and leaves the text at the anchor alone.
                        (None, Some(merge)) if value.is_some() && !below.is_empty() => {
                            let through = "the merge key '<<'".to_owned();
                            return Err(Stop::Shared { place: merge.key.place, through });
                        }
                        (None, _) => break,
                    }
                }
                (Shape::Seq { items, flow }, Segment::Index(index)) => {
                    value = value.and_then(|value| value.get(index));
                    let Some(item) = items.get(*index) else {
                        let count = items.len();
                        return Err(Stop::NotFound(format!("there is no item {index}; there are {count}")));
                    };
                    Spot::of_item(item, *index, last.flow || *flow)
                }
                (Shape::Alias(_), _) => return Err(self.alias(node)),
                _ if node.is_null() => break,
                (_, segment) => {
                    let wanted = match segment {
                        Segment::Key(_) => "a mapping",
                        Segment::Index(_) => "a sequence",
                    };
                    return Err(Stop::WrongType { place: node.place, found: node.kind(), wanted });
                }
            };
            above.push(last);
            (last, rest) = (next, below);
        }
        Ok(Trail { above, last, rest })
    }

    pub(crate) fn slice(&self, range: Range<usize>) -> &'t str {
        self.text.get(range).unwrap_or_default()
    }

    /// Refuses a node whose text is used by an alias.
    pub(crate) fn not_shared(&self, node: &Node) -> Result<(), Stop> {
        match &node.anchor {
            Some(anchor) if self.tree.is_used_outside(anchor.id, &(0..0)) => {
                let through = format!("the anchor &{}", anchor.name);
                Err(Stop::Shared { place: node.place, through })
            }
            _ => Ok(()),
        }
    }

    /// Refuses to drop a node in which something is anchored that is used elsewhere.
    pub(crate) fn not_used(&self, node: &Node) -> Result<(), Stop> {
        let Some(anchor) = node.shared_anchor(self.tree) else { return Ok(()) };
        Err(Stop::Shared { place: node.place, through: format!("the anchor &{}", anchor.name) })
    }

    /// A change below an alias is one to the text at its anchor.
    pub(crate) fn alias(&self, node: &Node) -> Stop {
        Stop::Shared { place: node.place, through: format!("the alias {}", self.slice(node.content.clone())) }
    }
}
