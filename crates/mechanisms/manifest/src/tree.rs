//! A document as it is written: nodes with the bytes that they take up.

use std::collections::HashSet;
use std::ops::Range;

use crate::place::Place;
use crate::scalar::Scalar;

/// One document of a stream.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The document's number in the stream, from 0; empty documents count.
    pub(crate) index: usize,
    pub(crate) root: Node,
    /// Whether it was read as JSON, and so has to stay JSON.
    pub(crate) json: bool,
    /// What Helm says it was rendered from.
    pub(crate) template: Option<String>,
    /// The aliases in it: the anchor's number, and the alias itself.
    pub(crate) aliases: Vec<(usize, Range<usize>)>,
}

impl Tree {
    /// Whether an alias outside a part of the text stands for an anchor.
    pub(crate) fn is_used_outside(&self, anchor: usize, part: &Range<usize>) -> bool {
        self.aliases.iter().any(|(id, at)| *id == anchor && !(part.start <= at.start && at.end <= part.end))
    }
}

/// A value as it is written.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) shape: Shape,
    /// Where anchor and tag start; the same as the content's start where there are none.
    pub(crate) start: usize,
    /// Where anchor and tag end; where there are none, it is before the content, behind the sign that asks for it.
    pub(crate) inside: usize,
    /// The content: for a block scalar from its `|` or `>`, for a block sequence from its first dash. The line break
    /// behind it is left out, but for a block scalar that keeps its line breaks.
    pub(crate) content: Range<usize>,
    pub(crate) place: Place,
    pub(crate) anchor: Option<Anchor>,
    pub(crate) tag: Option<Tag>,
}

/// An anchor on a node.
#[derive(Debug)]
pub(crate) struct Anchor {
    /// Unique in the stream: a name may be used again.
    pub(crate) id: usize,
    pub(crate) name: String,
}

/// An explicit tag.
#[derive(Debug)]
pub(crate) enum Tag {
    /// A tag of YAML itself, such as `str` for `!!str`.
    Core(String),
    /// Any other.
    Other,
}

#[derive(Debug)]
pub(crate) enum Shape {
    Scalar { text: String, style: Style },
    Alias(usize),
    Map { flow: bool, entries: Vec<Entry> },
    Seq { flow: bool, items: Vec<Item> },
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Single,
    Double,
    /// `|` or `>`.
    Block,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// Where the `:` is. A key in a flow mapping may have none.
    pub(crate) colon: Option<usize>,
    pub(crate) node: Node,
}

#[derive(Debug)]
pub(crate) struct Key {
    /// The key as Kubernetes has it; `<<` for a merge key.
    pub(crate) name: String,
    pub(crate) merge: bool,
    /// Where an anchor or a tag on the key starts.
    pub(crate) start: usize,
    pub(crate) content: Range<usize>,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) struct Item {
    /// Where the `-` is, in a block sequence.
    pub(crate) dash: Option<usize>,
    pub(crate) node: Node,
}

impl Node {
    /// The node with anchor and tag.
    pub(crate) fn full(&self) -> Range<usize> {
        self.start..self.content.end
    }

    /// Whether this is a value that is not written, as in `key:`.
    pub(crate) fn is_unwritten(&self) -> bool {
        let empty = matches!(&self.shape, Shape::Scalar { text, style: Style::Plain } if text.is_empty());
        empty && self.content.is_empty()
    }

    /// Whether this is null, and so may become a collection when a field below it is set.
    pub(crate) fn is_null(&self) -> bool {
        match &self.shape {
            Shape::Scalar { text, style: Style::Plain } => {
                self.tag.is_none() && crate::scalar::resolve(text) == Scalar::Null
            }
            _ => false,
        }
    }

    /// Whether this is a collection in block style.
    pub(crate) fn is_block(&self) -> bool {
        matches!(&self.shape, Shape::Map { flow: false, .. } | Shape::Seq { flow: false, .. })
    }

    /// The type's name, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.shape {
            Shape::Map { .. } => "a mapping",
            Shape::Seq { .. } => "a sequence",
            Shape::Alias(_) => "an alias",
            Shape::Scalar { .. } => "a scalar",
        }
    }

    /// Calls `see` for this node and everything in it.
    pub(crate) fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Self)) {
        see(self);
        match &self.shape {
            Shape::Map { entries, .. } => entries.iter().for_each(|entry| entry.node.visit(see)),
            Shape::Seq { items, .. } => items.iter().for_each(|item| item.node.visit(see)),
            Shape::Scalar { .. } | Shape::Alias(_) => {}
        }
    }

    /// The anchors in this node that are used outside of it.
    pub(crate) fn shared_anchor(&self, tree: &Tree) -> Option<&Anchor> {
        let (part, mut seen, mut found) = (self.full(), HashSet::new(), None);
        self.visit(&mut |node| {
            if let Some(anchor) = &node.anchor
                && found.is_none()
                && seen.insert(anchor.id)
                && tree.is_used_outside(anchor.id, &part)
            {
                found = Some(anchor);
            }
        });
        found
    }
}

impl Entry {
    /// Where the entry ends, without a comment behind it.
    pub(crate) fn end(&self) -> usize {
        let key = self.colon.map_or(self.key.content.end, |colon| colon + 1);
        self.node.content.end.max(key)
    }
}

impl Item {
    /// Where the item ends, without a comment behind it.
    pub(crate) fn end(&self) -> usize {
        self.dash.map_or(0, |dash| dash + 1).max(self.node.content.end)
    }

    /// Where the item starts: at its dash, or at its anchor, tag or value.
    pub(crate) fn start(&self) -> usize {
        self.dash.unwrap_or(self.node.start)
    }
}
