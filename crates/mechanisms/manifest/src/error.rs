//! Errors that name the file, the place, the field and what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::path::{FieldPath, PathError};
use crate::place::{Location, Place};

/// A manifest cannot be read or cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file, a folder or standard input cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file or folder, or `-`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be replaced.
    #[error("writing {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder has no file with a known extension.
    #[error("{} has no file that ends in .yaml, .yml or .json{}", path.display(), if *recursive { "" } else { "; folders in it are read only with --recursive" })]
    NoFiles {
        /// The folder.
        path: PathBuf,
        /// Whether folders in it were searched.
        recursive: bool,
    },
    /// A text is not UTF-8.
    #[error("{file} is not UTF-8 (at byte {at})")]
    NotUtf8 {
        /// The file.
        file: Arc<str>,
        /// The first byte that is not.
        at: usize,
    },
    /// A file is larger than [`Limits::bytes`](crate::Limits::bytes), or a folder has more files than
    /// [`Limits::files`](crate::Limits::files).
    #[error("{file} has more than {limit} {unit}, which is the limit")]
    TooLarge {
        /// The file or folder.
        file: Arc<str>,
        /// The limit.
        limit: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// A file has more documents than [`Limits::documents`](crate::Limits::documents).
    #[error("{at}: the file has more than {limit} documents, which is the limit")]
    TooManyDocuments {
        /// The first document beyond the limit.
        at: Location,
        /// The limit.
        limit: usize,
    },
    /// Collections are nested deeper than [`Limits::depth`](crate::Limits::depth).
    #[error("{at}: values are nested more than {limit} deep, which is the limit")]
    TooDeep {
        /// Where the limit was passed.
        at: Location,
        /// The limit.
        limit: usize,
    },
    /// Aliases add more values than [`Limits::alias_nodes`](crate::Limits::alias_nodes).
    #[error("{at}: aliases in this file expand to more than {limit} values, which is the limit")]
    TooManyAliases {
        /// The alias that passed the limit.
        at: Location,
        /// The limit.
        limit: usize,
    },
    /// The text is no YAML.
    #[error("{at}: the YAML cannot be parsed{}", if *tab { "; the line starts with a tab, but YAML is indented with spaces" } else { "" })]
    Syntax {
        /// Where.
        at: Location,
        /// Whether a tab in the indentation is the likely cause.
        tab: bool,
        /// The parser's error.
        source: Box<granit_parser::ScanError>,
    },
    /// A mapping has the same key twice.
    #[error("{second}: the key {key:?} is here a second time; the first is at {first}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// The first one.
        first: Place,
        /// The second one.
        second: Location,
    },
    /// A key is neither a string nor a number nor a boolean.
    #[error("{at}: {what} cannot be the key of a mapping; use a string")]
    Key {
        /// The key.
        at: Location,
        /// What it is.
        what: &'static str,
    },
    /// A value cannot be expressed in JSON, or does not fit its tag.
    #[error("{at}: the value {text:?} {why}")]
    Value {
        /// The value.
        at: Location,
        /// As it is written.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// The value of a merge key `<<` is no mapping and no list of mappings.
    #[error("{at}: the merge key '<<' takes a mapping or a list of mappings")]
    Merge {
        /// The value.
        at: Location,
    },
    /// An anchor's value contains an alias to itself.
    #[error("{at}: the alias is inside the value that it stands for")]
    Recursive {
        /// The alias.
        at: Location,
    },
    /// A document is no Kubernetes object.
    #[error("{at}: this is no Kubernetes object: {missing}")]
    NotAnObject {
        /// The start of the document, or the wrong field.
        at: Location,
        /// What is missing or wrong.
        missing: String,
    },
    /// A field path cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A field was to be changed in a document that the file does not have.
    #[error("changing {field} in {file}: there is no document {index}; the file has {count}, counted from 0")]
    NoDocument {
        /// The file.
        file: Arc<str>,
        /// The document that was asked for, from 0.
        index: usize,
        /// How many there are.
        count: usize,
        /// The field.
        field: FieldPath,
    },
    /// A field does not exist, or an index is outside its sequence.
    #[error("{at}: changing {field}: {why}")]
    NotFound {
        /// The nearest field above it that exists.
        at: Location,
        /// The field.
        field: FieldPath,
        /// What does not exist.
        why: String,
    },
    /// A field above the one to be changed, or the field itself, has another type than the path says.
    #[error("{at}: changing {field}: {found} is here, but the change needs {wanted}")]
    WrongType {
        /// The value of another type.
        at: Location,
        /// The field to be changed.
        field: FieldPath,
        /// The type that is there.
        found: &'static str,
        /// The type that is needed.
        wanted: &'static str,
    },
    /// The text of a field is used at several places by an anchor, an alias or a merge key.
    #[error(
        "{at}: changing {field}: its text is shared through {through}, so other fields would change with it; edit the text at the anchor by hand"
    )]
    Shared {
        /// The anchor, alias or merge key.
        at: Location,
        /// The field.
        field: FieldPath,
        /// What shares the text, such as `the anchor &a`.
        through: String,
    },
    /// A change was made and then dropped, because the new text would not have meant exactly that change.
    #[error("{at}: changing {field}: {why}; nothing was changed, so edit this part of the text by hand")]
    Refused {
        /// The field, or the nearest one above it.
        at: Location,
        /// The field.
        field: FieldPath,
        /// What would have been wrong.
        why: &'static str,
        /// Why the new text cannot be read, where that is the reason.
        source: Option<Box<ManifestError>>,
    },
}
