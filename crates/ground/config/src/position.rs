//! Finds the position of a key in a file. Used only for error messages.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A document's keys with their positions.
enum Node {
    Map(Vec<(Spanned<String>, Node)>),
    Other,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
}

/// Line and column, both from 1, of a key such as `tools.kubectl.timeout`, or of its nearest parent if the
/// key is missing. Also finds names that contain dots.
pub(crate) fn find(text: &str, key: &str) -> Option<(u64, u64)> {
    let mut node: Node = serde_saphyr::from_str(text).ok()?;
    let mut rest = key;
    let mut found = None;
    while let Node::Map(entries) = node {
        let next = entries.into_iter().find_map(|(name, below)| {
            let after = rest.strip_prefix(name.value.as_str())?;
            let after = if after.is_empty() { Some("") } else { after.strip_prefix('.') }?;
            Some((name.referenced, after.len(), below))
        });
        let Some((position, left, below)) = next else { break };
        found = Some((position.line(), position.column()));
        rest = &rest[rest.len() - left..];
        node = below;
    }
    found
}
