//! `controller show`: what is installed, and whether it works.

use crate::install::{missing, reference};
use crate::names::{NAME, WEBHOOK};
use kube::core::DynamicObject;
use postern_kube::apply::{self, ObjectRef};
use postern_kube::{Cluster, KubeError};
use serde::Serialize;

/// What is installed.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The namespace.
    pub namespace: String,
    /// Whether there is a Deployment.
    pub installed: bool,
    /// The image of the Deployment.
    pub image: Option<String>,
    /// The parts that are on.
    pub parts: Vec<String>,
    /// Replicas that are wanted.
    pub replicas: u64,
    /// Replicas that are available.
    pub available: u64,
    /// Why the Deployment is not complete.
    pub problem: Option<String>,
    /// The replica that reconciles.
    pub leader: Option<String>,
    /// Whether the API server calls the webhook, and knows its CA.
    pub webhook: bool,
    /// The custom resources that the cluster knows.
    pub custom_resources: Vec<String>,
}

/// Reads what is installed in a namespace.
pub async fn show(cluster: &Cluster, namespace: &str) -> Result<Shown, KubeError> {
    let read = async |object: ObjectRef| apply::get(cluster, &object).await;
    let mut shown = Shown { namespace: namespace.to_owned(), ..Shown::default() };
    if let Some(found) = read(reference("apps/v1", "Deployment", Some(namespace), NAME)).await? {
        deployment(&mut shown, &found);
    }
    let lease = read(reference("coordination.k8s.io/v1", "Lease", Some(namespace), NAME)).await?;
    let holder = lease.and_then(|lease| lease.data["spec"]["holderIdentity"].as_str().map(str::to_owned));
    shown.leader = holder.filter(|holder| !holder.is_empty());
    let kind = "MutatingWebhookConfiguration";
    let webhook = read(reference("admissionregistration.k8s.io/v1", kind, None, WEBHOOK)).await?;
    shown.webhook = webhook.is_some_and(|found| {
        found.data["webhooks"][0]["clientConfig"]["caBundle"].as_str().is_some_and(|text| !text.is_empty())
    });
    for name in ["clusterpullsecrets", "pullsecrets", "pullsecretgrants", "volumeownerships"] {
        let definition = format!("{name}.postern.dev");
        let kind = "CustomResourceDefinition";
        if read(reference("apiextensions.k8s.io/v1", kind, None, &definition)).await?.is_some() {
            shown.custom_resources.push(definition);
        }
    }
    Ok(shown)
}

fn deployment(shown: &mut Shown, found: &DynamicObject) {
    let container = &found.data["spec"]["template"]["spec"]["containers"][0];
    shown.installed = true;
    shown.image = container["image"].as_str().map(str::to_owned);
    let args = container["args"].as_array().into_iter().flatten().filter_map(|arg| arg.as_str());
    let parts = args.into_iter().find_map(|arg| arg.strip_prefix("--parts="));
    shown.parts = parts.map(|parts| parts.split(',').map(str::to_owned).collect()).unwrap_or_default();
    shown.replicas = found.data["spec"]["replicas"].as_u64().unwrap_or(1);
    shown.available = found.data["status"]["availableReplicas"].as_u64().unwrap_or(0);
    shown.problem = missing(found, u16::try_from(shown.replicas).unwrap_or(u16::MAX));
}
