//! `controller uninstall`: what the controller made goes, and then the controller.

use crate::install::{Changed, is_ours, reference};
use crate::names::{NAME, WEBHOOK};
use crate::objects::objects;
use crate::settings::{Part, Settings};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use kube::core::DynamicObject;
use postern_kube::apply::{self, Change, Deletion, ObjectRef};
use postern_kube::{Cluster, KubeError};
use postern_pullsecret::apply::{Cleaned, clean, to_clean};
use serde::Serialize;
use std::time::Duration;

/// The result of an uninstall, or of its preview.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Uninstalled {
    /// The objects that were, or would be, deleted.
    pub changes: Vec<Changed>,
    /// How many `ServiceAccounts` no longer name copies.
    pub service_accounts: usize,
    /// How many copies were deleted.
    pub copies: usize,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// Removes the controller. The custom resources stay, unless `resources` is set: they are the users' own.
///
/// The order leaves no half state: the webhook goes first, then the controller, which would put back what is removed;
/// then the entries in `ServiceAccounts` and the copies.
pub async fn uninstall(
    cluster: &Cluster,
    namespace: &str,
    resources: bool,
    timeout: Duration,
    dry_run: bool,
    mut told: impl FnMut(Change, &ObjectRef),
) -> Result<Uninstalled, KubeError> {
    let settings = Settings {
        namespace: namespace.to_owned(),
        image: String::new(),
        agent_image: String::new(),
        replicas: 0,
        parts: Part::ALL.to_vec(),
        certificate_secret: None,
        image_pull_secret: None,
        trace_endpoint: None,
        version: String::new(),
    };
    let mut done = Uninstalled { dry_run, ..Uninstalled::default() };
    let mut objects: Vec<ObjectRef> = objects(&settings)
        .into_iter()
        .filter_map(|value| serde_json::from_value::<DynamicObject>(value).ok())
        .map(|object| ObjectRef::to(&object))
        .filter(|object| resources || object.kind != "CustomResourceDefinition")
        .collect();
    objects.push(reference("coordination.k8s.io/v1", "Lease", Some(namespace), NAME));
    // In reverse, but the webhook and the Deployment first of all.
    objects.reverse();
    objects.sort_by_key(|object| match object.kind.as_str() {
        _ if object.name == WEBHOOK && object.namespace.is_none() => 0,
        "Deployment" => 1,
        "CustomResourceDefinition" => 3,
        "Namespace" => 4,
        _ => 2,
    });
    let mut is_clean = false;
    for object in objects {
        let is_after = object.kind != "Deployment" && object.name != WEBHOOK;
        if is_after && !is_clean {
            if !dry_run {
                no_pods(cluster, namespace, timeout).await?;
            }
            let Cleaned { service_accounts, copies } = match dry_run {
                true => to_clean(&cluster.client).await,
                false => clean(&cluster.client).await,
            }
            .map_err(|error| cluster.error("removing copies of pull Secrets", &error))?;
            (done.service_accounts, done.copies) = (service_accounts, copies);
            is_clean = true;
        }
        let Some(found) = apply::get(cluster, &object).await? else { continue };
        // A namespace that somebody else made stays.
        if object.kind == "Namespace" && !is_ours(&found) {
            continue;
        }
        if !dry_run {
            apply::delete(cluster, &object, &Deletion::default(), timeout).await?;
        }
        told(Change::Deleted, &object);
        done.changes.push(Changed { change: Change::Deleted, object });
    }
    Ok(done)
}

/// Waits until no Pod of the controller is left: a Deployment is gone before its Pods, which would put back what is
/// removed.
async fn no_pods(cluster: &Cluster, namespace: &str, timeout: Duration) -> Result<(), KubeError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let params = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
    let start = tokio::time::Instant::now();
    loop {
        let left = pods
            .list_metadata(&params)
            .await
            .map_err(|error| cluster.error("listing the controller's Pods", &error))?;
        if left.items.is_empty() || start.elapsed() > timeout {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
