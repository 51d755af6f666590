//! Changing single fields of a text, checked by reading the new text.

use serde_json::Value;
use std::sync::Arc;

use crate::change::{Change, changed, steps};
use crate::document::Document;
use crate::error::ManifestError;
use crate::expand::expand;
use crate::find::Stop;
use crate::limits::Limits;
use crate::parse::trees;
use crate::path::FieldPath;
use crate::place::{Location, Places};
use crate::plan::plan;
use crate::scalar;
use crate::splice;
use crate::tree::Tree;

type Result<T> = std::result::Result<T, ManifestError>;

/// A text whose fields can be changed. All bytes that do not belong to a changed field stay as they are.
///
/// After each change the new text is read again. It has to have the old values with exactly this change, in this
/// document and in all others; otherwise the text stays as it was, and the change is an error. Comments inside a
/// value that is replaced or removed go with it, and so does a comment behind a removed one. A comment above a removed
/// field stays.
#[derive(Debug, Clone)]
pub struct Editor {
    file: Arc<str>,
    text: String,
    limits: Limits,
}

impl Editor {
    /// Takes a text to edit; `file` is for errors.
    pub fn new(file: &str, text: impl Into<String>, limits: Limits) -> Self {
        Self { file: file.into(), text: text.into(), limits }
    }

    /// The text with the changes made so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same, taken out.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Changes a field of an object that was read from this text.
    ///
    /// An earlier change that adds or removes a whole item of a list shifts the objects behind it; read them again
    /// then.
    pub fn change(&mut self, object: &Document, path: &FieldPath, change: &Change) -> Result<()> {
        self.change_at(object.index, &object.within.clone().join(path), change)
    }

    /// Changes a field, by the number of its document in the text, from 0, and its path from the document's root.
    /// Empty documents count.
    pub fn change_at(&mut self, index: usize, path: &FieldPath, change: &Change) -> Result<()> {
        let before = self.read()?;
        let Some(old) = before.get(index) else {
            let (file, count) = (self.file.clone(), before.len());
            return Err(ManifestError::NoDocument { file, index, count, field: path.clone() });
        };
        let expected = changed(&old.value, path.segments(), change);
        let steps = match change {
            Change::Set(new) => steps(path.find(&old.value), &scalar::normal(new), path),
            other => vec![(path.clone(), other.clone())],
        };
        let original = self.text.clone();
        let whole = [(path.clone(), change.clone())];
        let mut done = self.take(index, &steps, path, &before, expected.as_ref());
        if done.is_err() && steps != whole {
            // What cannot be changed in parts may still be replaced as a whole.
            self.text.clone_from(&original);
            done = self.take(index, &whole, path, &before, expected.as_ref());
        }
        if done.is_err() {
            self.text = original;
        }
        done
    }

    /// Makes changes one after another, and then compares what the text means with what it has to mean.
    fn take(
        &mut self,
        index: usize,
        steps: &[(FieldPath, Change)],
        path: &FieldPath,
        before: &[Read],
        expected: Option<&Value>,
    ) -> Result<()> {
        for (step, change) in steps {
            self.make(index, step, change)?;
        }
        let nearest = before.get(index).map(|read| read.places.nearest(path).place());
        let at = Location {
            file: self.file.clone(),
            place: nearest.unwrap_or(crate::Place { line: 1, column: 1 }),
        };
        let refused =
            |why, source| ManifestError::Refused { at: at.clone(), field: path.clone(), why, source };
        let after =
            self.read().map_err(|error| refused("the new text could not be read", Some(Box::new(error))))?;
        let same = |(at, (old, new)): (usize, (&Read, &Read))| {
            let value = if at == index { expected } else { Some(&old.value) };
            value == Some(&new.value) && (new.tree.json || !old.tree.json)
        };
        let equal = before.len() == after.len() && before.iter().zip(&after).enumerate().all(same);
        if equal { Ok(()) } else { Err(refused("the new text would mean something else", None)) }
    }

    /// Makes one change without looking at the result.
    fn make(&mut self, index: usize, path: &FieldPath, change: &Change) -> Result<()> {
        let read = self.read()?;
        let Some(Read { tree, value, places }) = read.get(index) else {
            let (file, count) = (self.file.clone(), read.len());
            return Err(ManifestError::NoDocument { file, index, count, field: path.clone() });
        };
        let change = match change {
            Change::Append(new) if path.find(value).is_none_or(Value::is_null) => {
                &Change::Set(Value::Array(vec![new.clone()]))
            }
            other => other,
        };
        let here = |place| Location { file: self.file.clone(), place };
        let nearest = || here(places.nearest(path).place());
        let field = || path.clone();
        let planned = plan(&self.text, tree, value, path.segments(), change);
        let mut splices = planned.map_err(|stop| match stop {
            Stop::NotFound(why) => ManifestError::NotFound { at: nearest(), field: field(), why },
            Stop::WrongType { place, found, wanted } => {
                ManifestError::WrongType { at: here(place), field: field(), found, wanted }
            }
            Stop::Shared { place, through } => {
                ManifestError::Shared { at: here(place), field: field(), through }
            }
            Stop::Unable(why) => ManifestError::Refused { at: nearest(), field: field(), why, source: None },
        })?;
        let text = splice::apply(&self.text, &mut splices);
        self.text = text.ok_or_else(|| ManifestError::Refused {
            at: nearest(),
            field: field(),
            why: "the parts of the change overlap",
            source: None,
        })?;
        Ok(())
    }

    fn read(&self) -> Result<Vec<Read>> {
        let mut added = 0;
        let read = |tree| {
            let (value, places) = expand(&self.file, &tree, &self.limits, &mut added)?;
            Ok(Read { tree, value, places })
        };
        trees(&self.file, &self.text, &self.limits)?.into_iter().map(read).collect()
    }
}

/// A document with everything that is known of it.
struct Read {
    tree: Tree,
    value: Value,
    places: Places,
}
