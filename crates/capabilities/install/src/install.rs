//! `controller install`: idempotent. It can stop after any step, and running it again converges.

use crate::names::{NAME, WEBHOOK};
use crate::objects::objects;
use crate::settings::{InvalidSetting, Part, Settings};
use kube::core::DynamicObject;
use postern_kube::apply::{self, Change, Deletion, ObjectRef};
use postern_kube::{Cluster, KubeError};
use serde::Serialize;
use std::time::Duration;

/// How often the Deployment is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Why an install stopped.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A setting is invalid; nothing was sent.
    #[error(transparent)]
    Invalid(#[from] InvalidSetting),
    /// A request failed.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// An object is none; a defect of this program.
    #[error("an object cannot be built")]
    Object(#[from] serde_json::Error),
    /// The Deployment does not become available.
    #[error("Deployment {namespace}/{NAME} is not available after {seconds} s: {why}")]
    NotAvailable {
        /// The namespace.
        namespace: String,
        /// How long the client waited.
        seconds: u64,
        /// What its condition says.
        why: String,
    },
}

/// The result of an install.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Installed {
    /// Every object, in the order in which it was applied.
    pub changes: Vec<Changed>,
    /// Whether nothing was stored.
    pub dry_run: bool,
}

/// What became of an object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// What was done.
    pub change: Change,
    /// The object.
    #[serde(flatten)]
    pub object: ObjectRef,
}

/// Applies all objects, deletes the permissions of parts that are off, and waits for the Deployment. `told` is called for
/// each object.
pub async fn install(
    cluster: &Cluster,
    settings: &Settings,
    timeout: Duration,
    dry_run: bool,
    mut told: impl FnMut(Change, &ObjectRef),
) -> Result<Installed, InstallError> {
    settings.check()?;
    let mut installed = Installed { changes: Vec::new(), dry_run };
    let mut lacks_namespace = false;
    for value in objects(settings) {
        let desired: DynamicObject = serde_json::from_value(value)?;
        let object = ObjectRef::to(&desired);
        let existing = apply::get(cluster, &object).await?;
        // The server cannot try what would be in a namespace that does not exist.
        let skips = dry_run && lacks_namespace && object.namespace.is_some();
        // A namespace that somebody else made keeps its labels, and stays when the controller goes.
        let is_theirs = object.kind == "Namespace" && existing.as_ref().is_some_and(|found| !is_ours(found));
        let change = match skips {
            _ if is_theirs => Change::Unchanged,
            true => Change::Created,
            false => apply::apply(cluster, &desired, existing.as_ref(), dry_run).await?.0,
        };
        lacks_namespace |= object.kind == "Namespace" && existing.is_none();
        told(change, &object);
        installed.changes.push(Changed { change, object });
    }
    for object in permissions_of_other_parts(settings) {
        let exists = apply::get(cluster, &object).await?.is_some();
        if !exists {
            continue;
        }
        if !dry_run {
            apply::delete(cluster, &object, &Deletion::default(), timeout).await?;
        }
        told(Change::Deleted, &object);
        installed.changes.push(Changed { change: Change::Deleted, object });
    }
    if !dry_run {
        available(cluster, settings, timeout).await?;
    }
    Ok(installed)
}

fn permissions_of_other_parts(settings: &Settings) -> Vec<ObjectRef> {
    let off = Part::ALL.into_iter().filter(|part| !settings.has(*part));
    let kinds = ["ClusterRoleBinding", "ClusterRole"];
    off.flat_map(|part| {
        kinds.map(|kind| ObjectRef {
            api_version: "rbac.authorization.k8s.io/v1".to_owned(),
            kind: kind.to_owned(),
            namespace: None,
            name: format!("{NAME}-{part}"),
        })
    })
    .collect()
}

/// Waits until every replica is of this install and available, and the API server knows the webhook's CA.
async fn available(cluster: &Cluster, settings: &Settings, timeout: Duration) -> Result<(), InstallError> {
    let deployment = reference("apps/v1", "Deployment", Some(&settings.namespace), NAME);
    let webhook = reference("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", None, WEBHOOK);
    let start = tokio::time::Instant::now();
    loop {
        let found = apply::get(cluster, &deployment).await?;
        let why = match found.as_ref().and_then(|found| missing(found, settings.replicas)) {
            None if settings.certificate_secret.is_some() || settings.replicas == 0 => return Ok(()),
            None => {
                let found = apply::get(cluster, &webhook).await?;
                let bundle = found.map(|found| found.data["webhooks"][0]["clientConfig"]["caBundle"].clone());
                if bundle.is_some_and(|bundle| bundle.as_str().is_some_and(|text| !text.is_empty())) {
                    return Ok(());
                }
                "no replica has announced the webhook's CA".to_owned()
            }
            Some(why) => why,
        };
        if start.elapsed() >= timeout {
            let namespace = settings.namespace.clone();
            return Err(InstallError::NotAvailable { namespace, seconds: timeout.as_secs(), why });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What a Deployment lacks; `None` if it is complete.
pub(crate) fn missing(deployment: &DynamicObject, replicas: u16) -> Option<String> {
    let (status, metadata) = (&deployment.data["status"], &deployment.metadata);
    let count = |field: &str| status[field].as_u64().unwrap_or(0);
    if status["observedGeneration"].as_i64() < metadata.generation {
        return Some("the Deployment was not looked at yet".to_owned());
    }
    let (updated, available, all) = (count("updatedReplicas"), count("availableReplicas"), count("replicas"));
    let replicas = u64::from(replicas);
    if updated >= replicas && available >= replicas && all <= updated {
        return None;
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let bad = conditions.filter(|one| {
        let is_failure = one["type"] == "ReplicaFailure" && one["status"] == "True";
        is_failure || one["type"] == "Progressing" && one["status"] == "False"
    });
    let messages: Vec<&str> = bad.filter_map(|one| one["message"].as_str()).collect();
    let counted = format!("{available} of {replicas} replicas are available, {updated} of this version");
    Some(if messages.is_empty() { counted } else { format!("{counted}: {}", messages.join("; ")) })
}

/// Whether an object has the label of what Postern made.
pub(crate) fn is_ours(object: &DynamicObject) -> bool {
    let labels = object.metadata.labels.as_ref();
    labels.is_some_and(|labels| {
        labels.get("app.kubernetes.io/managed-by").is_some_and(|value| value == "postern")
    })
}

pub(crate) fn reference(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> ObjectRef {
    ObjectRef {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployment_is_complete_when_every_replica_is_new_and_available() {
        let deployment = |status| {
            let object = json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "generation": 2},
                "status": status,
            });
            serde_json::from_value::<DynamicObject>(object).unwrap()
        };
        let counts = |generation, updated, available, all| {
            json!({
                "observedGeneration": generation, "updatedReplicas": updated, "availableReplicas": available,
                "replicas": all,
            })
        };
        assert_eq!(missing(&deployment(counts(2, 3, 3, 3)), 3), None);
        assert!(missing(&deployment(counts(1, 3, 3, 3)), 3).is_some());
        assert!(missing(&deployment(counts(2, 3, 2, 3)), 3).is_some());
        assert!(missing(&deployment(counts(2, 3, 3, 4)), 3).is_some());
        let mut failed = counts(2, 0, 0, 0);
        failed["conditions"] = json!([{"type": "ReplicaFailure", "status": "True", "message": "quota"}]);
        assert!(missing(&deployment(failed), 3).unwrap().ends_with("quota"));
    }
}
