//! Reads Pods, and what they refer to, from manifests.

use crate::images::Credentials;
use crate::pods::PodOf;
use crate::volumes::Storage;
use postern_manifest::{Document, Limits, ManifestError, Text, parse};
use postern_report::Object;
use postern_volume::{InvalidWorkload, Workload};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Everything of the manifests that checks look at.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    /// The Pods and templates.
    pub pods: Vec<PodOf>,
    /// What volumes are made of.
    pub storage: Storage,
    /// What images are pulled with.
    pub credentials: Credentials,
}

/// A manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// It cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A Pod has a field of the wrong type.
    #[error("{at}")]
    Workload {
        /// Where.
        at: String,
        /// What is wrong.
        source: InvalidWorkload,
    },
}

/// Reads them. Objects without a namespace get `namespace`.
pub fn read(texts: &[Text], namespace: &str) -> Result<Manifests, InvalidManifest> {
    let mut found = Manifests::default();
    for Text { file, path: _, text } in texts {
        for document in parse(file, text, &Limits::default())? {
            add(&mut found, &document, namespace)?;
        }
    }
    Ok(found)
}

fn add(found: &mut Manifests, document: &Document, namespace: &str) -> Result<(), InvalidManifest> {
    let value = &document.value;
    let metadata = &value["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    let namespace = metadata["namespace"].as_str().unwrap_or(namespace).to_owned();
    let key = (namespace.clone(), name.clone());
    match document.kind.as_ref() {
        "PersistentVolumeClaim" => insert(&mut found.storage.claims, key, value),
        "PersistentVolume" => insert(&mut found.storage.volumes, name, value),
        "CSIDriver" => insert(&mut found.storage.drivers, name, value),
        "StorageClass" => insert(&mut found.storage.classes, name, value),
        "Secret" => insert(&mut found.credentials.secrets, key, value),
        "ServiceAccount" => {
            let list = value["imagePullSecrets"].as_array().into_iter().flatten();
            let names = list.filter_map(|one| one["name"].as_str()).map(str::to_owned).collect();
            found.credentials.accounts.insert(key, names);
        }
        _ => {
            let workload = Workload::of(value).map_err(|source| InvalidManifest::Workload {
                at: document.at(&source.path).to_string(),
                source,
            })?;
            if let Some(workload) = workload {
                let at = document.at(&workload.path);
                found.pods.push(pod(
                    value,
                    workload,
                    namespace,
                    Some((at.file.to_string(), number(at.place.line), number(at.place.column))),
                ));
            }
        }
    }
    Ok(())
}

/// A line or a column. A text has fewer than 2^32.
fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

fn insert<K: Ord, T: DeserializeOwned>(map: &mut std::collections::BTreeMap<K, T>, key: K, value: &Value) {
    // An object of the wrong shape is as if it were not there: the findings say what is missing.
    if let Ok(object) = serde_json::from_value(value.clone()) {
        map.insert(key, object);
    }
}

/// A Pod or template of an object.
pub(crate) fn pod(
    value: &Value,
    workload: Workload,
    namespace: String,
    place: Option<(String, u32, u32)>,
) -> PodOf {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let templates = value["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
    let claim_templates = templates
        .map(|one| {
            (text(&one["metadata"]["name"]), one["spec"]["storageClassName"].as_str().map(str::to_owned))
        })
        .collect();
    let object = Object::new(text(&value["kind"]), text(&value["metadata"]["name"]));
    let object = object.api_version(text(&value["apiVersion"]));
    let object = if namespace.is_empty() { object } else { object.namespace(namespace.clone()) };
    let Workload { path, spec, claim_templates: _ } = workload;
    PodOf { object, place, namespace, spec, path: path.to_string(), claim_templates }
}
