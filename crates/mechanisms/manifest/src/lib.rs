//! Kubernetes manifests: reading YAML and JSON with the place of every field, and editing a field in place.
//!
//! [`load`] reads files, folders and standard input into [`Document`]s. [`parse()`] does the same for text that is
//! already in memory, and [`parse_plain`] also takes files that hold no Kubernetes objects. [`Editor`] changes single
//! fields and leaves every other byte of the text as it is.
//!
//! ```
//! use postern_manifest::{Change, Editor, FieldPath, Limits, parse};
//!
//! let text = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: web:1 # pinned\n";
//! let pod = &parse("pod.yaml", text, &Limits::default())?[0];
//! let image: FieldPath = "spec.containers[0].image".parse()?;
//! assert_eq!(pod.at(&image).to_string(), "pod.yaml:5:5");
//!
//! let mut editor = Editor::new("pod.yaml", text, Limits::default());
//! editor.change(pod, &image, &Change::Set("web:2".into()))?;
//! assert_eq!(editor.text(), text.replace("web:1", "web:2"));
//! # Ok::<(), postern_manifest::ManifestError>(())
//! ```
//!
//! Values are read as `kubectl` reads them: by the rules of sigs.k8s.io/yaml, which are mostly those of YAML 1.1. So
//! `yes` is a boolean and `0644` is 420.

mod block;
mod change;
mod document;
mod edit;
mod error;
mod expand;
mod find;
mod flow;
mod limits;
mod parse;
mod path;
mod place;
mod plan;
mod quote;
mod read;
mod render;
mod scalar;
mod splice;
mod tree;
mod write;

pub use change::Change;
pub use document::{Document, Plain, parse, parse_plain};
pub use edit::Editor;
pub use error::ManifestError;
pub use limits::Limits;
pub use path::{FieldPath, PathError, Segment};
pub use place::{Field, Location, Place, Places, Region};
pub use read::{Input, ReadOptions, Text, load, load_plain, read};
pub use write::write;
