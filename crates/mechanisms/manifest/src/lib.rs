//! Kubernetes manifests: reading YAML and JSON with the place of every field, and editing a field in place.
//!
//! [`load`] reads files, folders and standard input into [`Document`]s. [`parse()`] does the same for text that is
//! already in memory, and [`parse_plain`] also takes files that hold no Kubernetes objects.
//!
//! Values are read as `kubectl` reads them: by the rules of sigs.k8s.io/yaml, which are mostly those of YAML 1.1. So
//! `yes` is a boolean and `0644` is 420.

mod document;
mod error;
mod expand;
mod limits;
mod parse;
mod path;
mod place;
mod read;
mod scalar;
mod splice;
mod tree;

pub use document::{Document, Plain, parse, parse_plain};
pub use error::ManifestError;
pub use limits::Limits;
pub use path::{FieldPath, PathError, Segment};
pub use place::{Field, Location, Place, Places, Region};
pub use read::{Input, ReadOptions, Text, load, load_plain, read};
