//! `ops show`: reports what exists and what is missing; changes nothing.

use crate::names;
use crate::ops_pod::OpsPod;
use crate::pod_plan::account_replaced;
use postern_kube::apply::{self, ObjectRef};
use postern_kube::k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use postern_kube::kube::ResourceExt as _;
use postern_kube::kube::api::LogParams;
use postern_kube::kube::core::DynamicObject;
use postern_kube::{Cluster, KubeError, pods};
use serde::Serialize;

/// Whether an object exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It exists.
    Present,
    /// It is being deleted.
    Deleting,
    /// It does not exist.
    Missing,
    /// The user lacks the permission to read it.
    Unknown,
}

/// The state of the ops pod and all its objects.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpsPodState {
    /// The namespace's name.
    pub namespace: String,
    /// Whether it exists.
    pub namespace_state: Presence,
    /// The pod's name.
    pub pod: String,
    /// Whether it exists.
    pub pod_state: Presence,
    /// Its phase.
    pub phase: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Its image.
    pub image: Option<String>,
    /// Whether that is the image that this program would install.
    pub image_matches: Option<bool>,
    /// Its user name for the API server.
    pub rbac_subject: String,
    /// Whether the `ServiceAccount` is newer than the pod, so that the pod's tokens are rejected.
    pub service_account_replaced: bool,
    /// Whether the `ServiceAccount` exists.
    pub service_account_state: Presence,
    /// Its declared access: `none`, `all`, or the namespaces.
    pub cluster_access: Option<String>,
    /// The source of the tools' identity towards a provider.
    pub identity: Option<String>,
    /// The provider's grant in the `ServiceAccount`'s annotations.
    pub trusted_profile: Option<String>,
    /// The credential Secret's name.
    pub secret: String,
    /// Whether it exists.
    pub secret_state: Presence,
    /// The names of the credentials in it, if the user may read it.
    pub credentials: Option<Vec<String>>,
    /// When it was rotated.
    pub rotated_at: Option<String>,
    /// The version of the agent in the pod.
    pub agent_version: Option<String>,
    /// Whether the pod accepts streams, although the key for them may be missing.
    #[serde(skip)]
    pub listens: bool,
    /// The transports to the agent: `exec`, and `stream` if it was installed.
    pub transports: Vec<&'static str>,
}

type FoundObject = (Presence, Option<DynamicObject>);

async fn find(cluster: &Cluster, of: &ObjectRef) -> Result<FoundObject, KubeError> {
    match apply::get(cluster, of).await {
        Ok(Some(object)) if object.metadata.deletion_timestamp.is_some() => {
            Ok((Presence::Deleting, Some(object)))
        }
        Ok(Some(object)) => Ok((Presence::Present, Some(object))),
        Ok(None) => Ok((Presence::Missing, None)),
        Err(error) if error.is_forbidden() => Ok((Presence::Unknown, None)),
        Err(error) => Err(error),
    }
}

/// Reads everything; without permission, an object is `unknown`. `image` is the one that this program would install.
pub async fn show(cluster: &Cluster, ops: &OpsPod, image: &str) -> Result<OpsPodState, KubeError> {
    let (namespace_state, _) = find(cluster, &ObjectRef::of::<Namespace>(None, ops.namespace())).await?;
    let (service_account_state, account) = find(cluster, &ops.account_ref()).await?;
    let (secret_state, secret) = find(cluster, &ops.secret_ref()).await?;
    let (pod_state, pod) = find(cluster, &ops.pod_ref()).await?;
    let pod: Option<Pod> = pod.and_then(|object| object.try_parse().ok());
    // Namespaces are often not readable although their objects are.
    let any_present = [service_account_state, secret_state, pod_state].contains(&Presence::Present);
    let namespace_state =
        if namespace_state == Presence::Unknown && any_present { Presence::Present } else { namespace_state };
    let secret: Option<Secret> = secret.and_then(|object| object.try_parse().ok());
    let annotated = |pod: &Pod| pod.annotations().get(names::ROTATED_AT).cloned();
    let credentials = secret
        .as_ref()
        .map(|secret| secret.data.iter().flat_map(|data| data.keys().cloned()).collect::<Vec<_>>());
    let agent_version = match &pod {
        Some(_) => agent_version(cluster, ops).await,
        None => None,
    };
    let found_image = pod.as_ref().and_then(|pod| pod.spec.as_ref()?.containers.first()?.image.clone());
    let access = account.as_ref().map(|account| {
        match account.annotations().get(names::CLUSTER_ACCESS).map_or("", String::as_str) {
            "" => "none".to_owned(),
            "*" => "all".to_owned(),
            namespaces => namespaces.to_owned(),
        }
    });
    let profile =
        account.as_ref().and_then(|account| postern_identity::grant_of(account.annotations()).cloned());
    let trusted = profile.as_ref().map(|profile| format!("trusted profile {profile}"));
    let static_key = credentials.as_ref().map(|names| {
        if names.is_empty() { "none (no static key)" } else { "static key in the Secret" }.to_owned()
    });
    let identity = trusted.or(static_key);
    Ok(OpsPodState {
        namespace: ops.namespace().to_owned(),
        namespace_state,
        pod: ops.name().to_owned(),
        pod_state,
        phase: pod.as_ref().and_then(|pod| pod.status.as_ref()?.phase.clone()),
        ready: pod.as_ref().is_some_and(postern_exec::target::is_ready),
        image_matches: found_image.as_ref().map(|found| found == image),
        image: found_image,
        rbac_subject: ops.user(),
        service_account_state,
        service_account_replaced: pod.as_ref().is_some_and(|pod| {
            account_replaced(pod, account.as_ref().and_then(|account| account.metadata.uid.as_deref()))
        }),
        cluster_access: access,
        identity,
        trusted_profile: profile,
        secret: ops.secret(),
        secret_state,
        credentials,
        rotated_at: secret
            .as_ref()
            .and_then(|secret| secret.annotations().get(names::ROTATED_AT).cloned())
            // If the Secret is not readable, the pod's annotation has the version that it was created with.
            .or_else(|| pod.as_ref().filter(|_| secret_state == Presence::Unknown).and_then(annotated)),
        agent_version,
        listens: pod.as_ref().is_some_and(crate::stream::listens),
        transports: match &pod {
            Some(pod) => transports(cluster, ops, pod).await?,
            None => Vec::new(),
        },
    })
}

/// Returns the transports: `stream` if the pod's PID 1 listens and its key exists.
async fn transports(cluster: &Cluster, ops: &OpsPod, pod: &Pod) -> Result<Vec<&'static str>, KubeError> {
    if !crate::stream::listens(pod) {
        return Ok(vec!["exec"]);
    }
    Ok(match find(cluster, &ops.stream_secret_ref()).await?.0 {
        // A user who may not read the key may have one of their own.
        Presence::Present | Presence::Unknown => vec!["exec", "stream"],
        Presence::Missing | Presence::Deleting => vec!["exec"],
    })
}

/// Reads it from the first line of the pod's log, which PID 1 writes.
async fn agent_version(cluster: &Cluster, ops: &OpsPod) -> Option<String> {
    let params = LogParams { limit_bytes: Some(4_096), ..LogParams::default() };
    let log = pods::log(cluster, ops.namespace(), ops.name(), &params).await.ok()?;
    log.lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line.get("agentVersion")?.as_str().map(str::to_owned)
    })
}
