//! Documents, and the Kubernetes objects in them.

use serde_json::Value;
use std::sync::Arc;

use crate::error::ManifestError;
use crate::expand::expand;
use crate::limits::Limits;
use crate::parse::trees;
use crate::path::FieldPath;
use crate::place::{Location, Place, Places};
use crate::tree::Shape;

type Result<T> = std::result::Result<T, ManifestError>;

/// A Kubernetes object as it was found in a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The path of the file as it was given, or a label such as `stdin`.
    pub file: Arc<str>,
    /// The number of the document in the file, from 0. Empty documents count.
    pub index: usize,
    /// Where in the document the object is: the root, or `items[N]` for an object from a list.
    pub within: FieldPath,
    /// Where the object starts.
    pub place: Place,
    /// The template that Helm rendered the document from, as its comment `# Source: ` says.
    pub template: Option<String>,
    /// `apiVersion`, never empty.
    pub api_version: String,
    /// `kind`, never empty.
    pub kind: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: Option<String>,
    /// The whole object, numbers as Kubernetes has them: an `i64`, or else an `f64`.
    pub value: Value,
    /// The places of its fields, by paths from the object's root.
    pub places: Places,
}

/// A document that need not be a Kubernetes object, such as a `kustomization.yaml` or the values of a Helm chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Plain {
    /// The path of the file as it was given, or a label such as `stdin`.
    pub file: Arc<str>,
    /// The number of the document in the file, from 0. Empty documents count.
    pub index: usize,
    /// Where the value starts.
    pub place: Place,
    /// The template that Helm rendered the document from, as its comment `# Source: ` says.
    pub template: Option<String>,
    /// The value, numbers as Kubernetes has them: an `i64`, or else an `f64`.
    pub value: Value,
    /// The places of its fields.
    pub places: Places,
}

impl Document {
    /// Where to point a reader at for a field: the field, or the nearest one above it that is there.
    pub fn at(&self, path: &FieldPath) -> Location {
        Location { file: self.file.clone(), place: self.places.nearest(path).place() }
    }
}

/// Reads the Kubernetes objects of a text. Lists are replaced by their items; empty documents are left out.
///
/// `file` is used in errors and in the documents. A document that is no object is an error.
pub fn parse(file: &str, text: &str, limits: &Limits) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for plain in parse_plain(file, text, limits)? {
        documents.extend(plain.into_objects()?);
    }
    Ok(documents)
}

/// Reads the documents of a text, whatever they are. Lists are kept; empty documents are left out.
pub fn parse_plain(file: &str, text: &str, limits: &Limits) -> Result<Vec<Plain>> {
    let file: Arc<str> = file.into();
    let (mut plains, mut added) = (Vec::new(), 0);
    for tree in trees(&file, text, limits)? {
        if matches!(tree.root.shape, Shape::Scalar { .. }) && tree.root.is_null() {
            continue;
        }
        let (value, places) = expand(&file, &tree, limits, &mut added)?;
        let (index, place) = (tree.index, tree.root.place);
        plains.push(Plain { file: file.clone(), index, place, template: tree.template, value, places });
    }
    Ok(plains)
}

impl Plain {
    /// Where to point a reader at for a field: the field, or the nearest one above it that is there.
    pub fn at(&self, path: &FieldPath) -> Location {
        Location { file: self.file.clone(), place: self.places.nearest(path).place() }
    }

    /// Whether this has `apiVersion` and `kind`, as every Kubernetes object does. A `kustomization.yaml` may have
    /// them too.
    pub fn is_object(&self) -> bool {
        let text = |key| self.value.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        text("apiVersion") && text("kind")
    }

    /// The Kubernetes objects in this document: itself, or the items if it is a list. Lists in lists are opened too.
    pub fn into_objects(self) -> Result<Vec<Document>> {
        let mut found = Vec::new();
        let Self { file, index, place, template, value, places } = self;
        let whole = Candidate { within: FieldPath::root(), place, value, places };
        objects(&Shared { file, index, template }, whole, &mut found)?;
        Ok(found)
    }
}

/// What all objects of a document have in common.
struct Shared {
    file: Arc<str>,
    index: usize,
    template: Option<String>,
}

struct Candidate {
    within: FieldPath,
    place: Place,
    value: Value,
    places: Places,
}

fn objects(shared: &Shared, candidate: Candidate, found: &mut Vec<Document>) -> Result<()> {
    let error = |place, missing: String| ManifestError::NotAnObject {
        at: Location { file: shared.file.clone(), place },
        missing,
    };
    let Candidate { within, place, mut value, mut places } = candidate;
    let place_of = |path: &FieldPath| places.get(path).map_or(place, |field| field.value.place);
    let Value::Object(map) = &value else {
        return Err(error(place, format!("it is {}, not a mapping", kind(&value))));
    };
    let required = ["apiVersion", "kind"].map(|key| match map.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        None | Some(Value::Null) => Err(error(place, format!("{key} is missing"))),
        Some(Value::String(_)) => {
            Err(error(place_of(&FieldPath::root().key(key)), format!("{key} is empty")))
        }
        Some(other) => {
            let wrong = format!("{key} is {}, not a string", kind(other));
            Err(error(place_of(&FieldPath::root().key(key)), wrong))
        }
    });
    let [api_version, object_kind] = match required {
        [Ok(api_version), Ok(object_kind)] => [api_version, object_kind],
        // Both together, where both are missing: the document is likely something else altogether.
        [Err(_), Err(_)] if !map.contains_key("apiVersion") && !map.contains_key("kind") => {
            return Err(error(place, "apiVersion and kind are missing".to_owned()));
        }
        [Err(first), _] | [_, Err(first)] => return Err(first),
    };
    // As in kubectl: any kind that ends in `List` and has `items`.
    if object_kind.ends_with("List")
        && let Some(items) = map.get("items")
    {
        if !items.is_array() && !items.is_null() {
            let at = place_of(&FieldPath::root().key("items"));
            return Err(error(at, format!("items of the {object_kind} is {}, not a sequence", kind(items))));
        }
        let item_places = places.take_items("items");
        let items = value.get_mut("items").map(Value::take);
        let items = if let Some(Value::Array(items)) = items { items } else { Vec::new() };
        for (at, (value, places)) in items.into_iter().zip(item_places).enumerate() {
            let within = within.clone().key("items").index(at);
            objects(shared, Candidate { within, place: places.field().place(), value, places }, found)?;
        }
        return Ok(());
    }
    let metadata = |key: &str| match map.get("metadata").and_then(|metadata| metadata.get(key)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(other) => {
            let at = place_of(&FieldPath::root().key("metadata").key(key));
            Err(error(at, format!("metadata.{key} is {}, not a string; put it in quotes", kind(other))))
        }
    };
    let (namespace, name) = (metadata("namespace")?, metadata("name")?);
    let Shared { file, index, template } = shared;
    found.push(Document {
        file: file.clone(),
        index: *index,
        within,
        place,
        template: template.clone(),
        api_version,
        kind: object_kind,
        namespace,
        name,
        value,
        places,
    });
    Ok(())
}

/// A value's type, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a sequence",
        Value::Object(_) => "a mapping",
    }
}
