//! Adds the init containers to manifests.

use crate::container::{InitContainer, NAME, Program};
use crate::plan::{Plan, PlanError, Selection, plan};
use crate::workload::{InvalidWorkload, Workload};
use postern_kube::k8s_openapi::api::core::v1::Container;
use postern_manifest::{Document, Editor, FieldPath, Limits, Location, ManifestError, parse};
use serde_json::Value;
use std::fmt;

/// What the init containers are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What changes the owner.
    pub program: Program,
    /// The image with the program. Without it, [`Program::Shell`] uses the workload's own.
    pub image: Option<String>,
    /// Which mounts.
    pub selection: Selection,
    /// See [`InitContainer::keep_setuid`].
    pub keep_setuid: bool,
    /// See [`InitContainer::allow_hard_links`].
    pub allow_hard_links: bool,
}

/// A text with the init containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patched {
    /// The text.
    pub text: String,
    /// For each workload with a selected mount, in their order, what was done.
    pub changes: Vec<(String, Change)>,
}

/// What was done to a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Init containers were added.
    Added,
    /// Init containers of an earlier patch were changed or removed.
    Updated,
    /// It has the init containers already.
    Unchanged,
    /// It runs as root, or writes no volume that keeps data.
    NotNeeded,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::NotNeeded => "not needed",
        })
    }
}

/// A manifest cannot be patched. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The manifest cannot be read or edited.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An object is not what its kind says.
    #[error("{at}: {object} cannot be patched")]
    Workload {
        /// Where the object is.
        at: Location,
        /// Its kind and name.
        object: String,
        /// What is wrong.
        source: InvalidWorkload,
    },
    /// It cannot be said whom a mount is to belong to.
    #[error("{at}: {object} cannot be patched")]
    Plan {
        /// Where the pod's spec is.
        at: Location,
        /// Its kind and name.
        object: String,
        /// Why.
        source: Box<PlanError>,
    },
    /// No workload has what was selected.
    #[error("{file} has no workload that writes such a volume")]
    Nothing {
        /// The file.
        file: String,
        /// Why the last workload was left out.
        source: Option<Box<PlanError>>,
    },
}

impl PatchError {
    /// What the user can do; `None` if the message says everything.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Plan { source, .. } | Self::Nothing { source: Some(source), .. } => source.hint(),
            Self::Nothing { source: None, .. } => Some(
                "name a manifest with a Pod, Deployment, StatefulSet, DaemonSet, Job or CronJob".to_owned(),
            ),
            Self::Manifest(_) | Self::Workload { .. } => None,
        }
    }
}

/// The init containers that a workload needs: one for each owner, in the order of owners.
pub fn init_containers(workload: &Workload, options: &Options) -> Result<Vec<Container>, PlanError> {
    let Options { program, image, selection, keep_setuid, allow_hard_links } = options;
    let Plan { mounts, root: _ } = plan(workload, selection)?;
    let containers = mounts.into_iter().enumerate().map(|(at, (owner, mounts))| {
        let own = || {
            let writes = |container: &&Container| {
                let theirs = container.volume_mounts.iter().flatten();
                theirs.map(|mount| &mount.name).any(|name| mounts.iter().any(|mount| mount.volume == *name))
            };
            workload.spec.containers.iter().find(writes).and_then(|container| container.image.clone())
        };
        let container = InitContainer {
            name: if at == 0 { NAME.to_owned() } else { format!("{NAME}-{}", at + 1) },
            image: image.clone().or_else(own).unwrap_or_default(),
            program: *program,
            owner,
            mounts,
            keep_setuid: *keep_setuid,
            allow_hard_links: *allow_hard_links,
        };
        container.build()
    });
    Ok(containers.collect())
}

/// Adds the init containers to each workload of a text, before those that are there. Everything else stays as it is,
/// byte for byte. A second patch changes nothing.
pub fn patch(file: &str, text: &str, options: &Options) -> Result<Patched, PatchError> {
    let limits = Limits::default();
    let mut editor = Editor::new(file, text, limits);
    let mut changes = Vec::new();
    let mut left_out = None;
    for document in parse(file, text, &limits)? {
        let object = format!("{} {}", document.kind, document.name.as_deref().unwrap_or("(without a name)"));
        let workload = Workload::of(&document.value).map_err(|source| PatchError::Workload {
            at: document.at(&source.path),
            object: object.clone(),
            source,
        })?;
        let Some(workload) = workload else { continue };
        match init_containers(&workload, options) {
            Ok(containers) => {
                let change = edit(&mut editor, &document, &workload.path, &containers)?;
                changes.push((object, change));
            }
            // A file may have several workloads, and the selection is about one.
            Err(source @ (PlanError::NoVolume { .. } | PlanError::NoContainer { .. })) => {
                left_out = Some(Box::new(source));
            }
            Err(source) => {
                let (at, source) = (document.at(&workload.path), Box::new(source));
                return Err(PatchError::Plan { at, object, source });
            }
        }
    }
    if changes.is_empty() {
        return Err(PatchError::Nothing { file: file.to_owned(), source: left_out });
    }
    Ok(Patched { text: editor.into_text(), changes })
}

/// Makes the init containers of ours in one object be these.
fn edit(
    editor: &mut Editor,
    document: &Document,
    spec: &FieldPath,
    containers: &[Container],
) -> Result<Change, ManifestError> {
    use postern_manifest::Change as Edit;
    let path = spec.clone().key("initContainers");
    let existing = path.find(&document.value).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut names: Vec<Option<String>> =
        existing.iter().map(|container| container["name"].as_str().map(str::to_owned)).collect();
    let is_wanted = |name: &str| containers.iter().any(|container| container.name == name);
    let (mut added, mut updated) = (false, false);
    for at in (0..existing.len()).rev() {
        if names[at].as_deref().is_some_and(|name| is_ours(name) && !is_wanted(name)) {
            editor.change(document, &path.clone().index(at), &Edit::Remove)?;
            names.remove(at);
            updated = true;
        }
    }
    for (position, container) in containers.iter().enumerate() {
        let value = serde_json::to_value(container).unwrap_or_default();
        match names.iter().position(|name| name.as_deref() == Some(&container.name)) {
            Some(at) => {
                let before = existing.iter().find(|before| before["name"] == value["name"]);
                if before != Some(&value) {
                    editor.change(document, &path.clone().index(at), &Edit::Set(value))?;
                    updated = true;
                }
            }
            None => {
                let edit = if names.is_empty() { Edit::Append(value) } else { Edit::Insert(position, value) };
                editor.change(document, &path, &edit)?;
                names.insert(position.min(names.len()), Some(container.name.clone()));
                added = true;
            }
        }
    }
    Ok(match (updated, added) {
        (true, _) => Change::Updated,
        (false, true) => Change::Added,
        (false, false) if containers.is_empty() => Change::NotNeeded,
        (false, false) => Change::Unchanged,
    })
}

/// Whether an init container is one of a patch.
fn is_ours(name: &str) -> bool {
    name == NAME
        || name
            .strip_prefix(NAME)
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
