//! Changes, and what they do to a value.

use serde_json::Value;

use crate::path::{FieldPath, Segment};
use crate::render::is_filled;
use crate::scalar;

/// One change to the field at a path.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Gives the field this value. A key that does not exist is added to its mapping, and so are the mappings above
    /// it. An item has to exist.
    Set(Value),
    /// Adds an item at the end of the sequence at the path. A sequence that does not exist, or is null, is created.
    Append(Value),
    /// Adds an item to the sequence at the path, before the one that has this index; at the end for its length.
    Insert(usize, Value),
    /// Removes the key or the item. The last one leaves `{}` or `[]` behind.
    Remove,
}

/// The changes that turn one value into another and leave what both have in common alone, so that the comments there
/// stay too.
pub(crate) fn steps(old: Option<&Value>, new: &Value, path: &FieldPath) -> Vec<(FieldPath, Change)> {
    let mut all = Vec::new();
    match (old, new) {
        (Some(old), new) if old == new => {}
        (Some(Value::Object(old)), Value::Object(entries)) if is_filled(new) && !old.is_empty() => {
            for (key, value) in entries {
                all.extend(steps(old.get(key), value, &path.clone().key(key)));
            }
            let gone = old.keys().filter(|key| !entries.contains_key(*key));
            all.extend(gone.map(|key| (path.clone().key(key), Change::Remove)));
        }
        (Some(Value::Array(old)), Value::Array(items)) if is_filled(new) && !old.is_empty() => {
            for (at, (old, new)) in old.iter().zip(items).enumerate() {
                all.extend(steps(Some(old), new, &path.clone().index(at)));
            }
            let more = items.iter().skip(old.len());
            all.extend(more.map(|item| (path.clone(), Change::Append(item.clone()))));
            // From the end, so that the indices before stay as they are.
            let gone = (items.len()..old.len()).rev();
            all.extend(gone.map(|at| (path.clone().index(at), Change::Remove)));
        }
        _ => all.push((path.clone(), Change::Set(new.clone()))),
    }
    all
}

/// The value that a document has to have after a change. Nothing where the change cannot be made at all.
pub(crate) fn changed(value: &Value, path: &[Segment], change: &Change) -> Option<Value> {
    let mut value = value.clone();
    let (target, last) = match (change, path.split_last()) {
        (Change::Set(new), None) => return Some(scalar::normal(new)),
        (Change::Remove, None) => return None,
        (Change::Set(_) | Change::Remove, Some((last, above))) => (reach(&mut value, above)?, Some(last)),
        (Change::Append(_) | Change::Insert(..), _) => (reach(&mut value, path)?, None),
    };
    match (change, last) {
        (Change::Set(new), Some(Segment::Key(key))) => {
            vivify(target, || Value::Object(serde_json::Map::new()));
            target.as_object_mut()?.insert(key.clone(), scalar::normal(new));
        }
        (Change::Set(new), Some(Segment::Index(index))) => {
            *target.get_mut(index)? = scalar::normal(new);
        }
        (Change::Remove, Some(Segment::Key(key))) => {
            target.as_object_mut()?.remove(key)?;
        }
        (Change::Remove, Some(Segment::Index(index))) => {
            let items = target.as_array_mut()?;
            (*index < items.len()).then(|| items.remove(*index))?;
        }
        (Change::Append(new), _) => {
            vivify(target, || Value::Array(Vec::new()));
            target.as_array_mut()?.push(scalar::normal(new));
        }
        (Change::Insert(index, new), _) => {
            let items = target.as_array_mut()?;
            (*index <= items.len()).then(|| items.insert(*index, scalar::normal(new)))?;
        }
        _ => return None,
    }
    Some(value)
}

/// Goes down a path, and puts null where a key does not exist.
fn reach<'a>(value: &'a mut Value, path: &[Segment]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Key(key) => {
            vivify(value, || Value::Object(serde_json::Map::new()));
            Some(value.as_object_mut()?.entry(key.clone()).or_insert(Value::Null))
        }
        Segment::Index(index) => value.get_mut(index),
    })
}

fn vivify(value: &mut Value, empty: impl FnOnce() -> Value) {
    if value.is_null() {
        *value = empty();
    }
}
