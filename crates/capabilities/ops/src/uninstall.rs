//! `ops uninstall`: lists what it would delete, and deletes it in an order that can stop anywhere.

use crate::names;
use crate::objects::MANAGED_BY;
use crate::ops_pod::OpsPod;
use crate::settings::Access;
use postern_kube::access::may;
use postern_kube::apply::{self, Deletion, ObjectRef};
use postern_kube::k8s_openapi::api::authorization::v1::ResourceAttributes;
use postern_kube::k8s_openapi::api::core::v1::Namespace;
use postern_kube::k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use postern_kube::kube::api::ListParams;
use postern_kube::kube::{Api, Resource, ResourceExt as _};
use postern_kube::{Cluster, KubeError};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

/// The plan of an uninstall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The existing objects, in the order of their deletion.
    pub objects: Vec<ObjectRef>,
    /// Objects that may exist too, but could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// What is installed, in the cluster and with a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// In the cluster.
    pub plan: Plan,
    /// The ID of the provider's grant, which is revoked first.
    pub trusted: Option<String>,
}

/// Something that the user may not read, so it stays if it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// One object.
    Object(ObjectRef),
    /// All objects of a kind, in all namespaces; the server's message.
    Kind(String, String),
}

impl Plan {
    /// Returns what the plan may lack; empty if everything could be read.
    pub fn warnings(&self) -> Vec<String> {
        let (mut objects, mut kinds) = (Vec::new(), Vec::new());
        for unreadable in &self.unreadable {
            match unreadable {
                Unreadable::Object(of) => objects.push(of.to_string()),
                Unreadable::Kind(kind, why) => kinds.push((kind.as_str(), why.as_str())),
            }
        }
        let mut warnings = Vec::new();
        if !objects.is_empty() {
            warnings.push(format!(
                "you lack the verb get on {}: any of these that exist will stay",
                objects.join(", ")
            ));
        }
        if !kinds.is_empty() {
            let names = kinds.iter().map(|(kind, _)| format!("{kind}s")).collect::<Vec<_>>().join(" and ");
            let resources =
                kinds.iter().map(|(kind, _)| format!("{kind}s").to_lowercase()).collect::<Vec<_>>().join(",");
            let why = kinds.iter().map(|(_, why)| *why).collect::<Vec<_>>().join("; ");
            warnings.push(format!(
                "{names} in all namespaces could not be listed, so only those that the ServiceAccount records were \
                 looked for; one that was deleted and made again has forgotten the earlier ones ({why}). Who may list \
                 {resources} in all namespaces finds what is left with: kubectl get {resources} -A -l {}",
                selector()
            ));
        }
        warnings
    }
}

/// The labels of all of Postern's objects.
fn selector() -> String {
    format!("{}={},app.kubernetes.io/component=ops", MANAGED_BY.0, MANAGED_BY.1)
}

/// Returns all existing objects in the order of their deletion: first what runs, then its permissions, last the
/// record of its access.
pub async fn plan(cluster: &Cluster, pod: &OpsPod) -> Result<Installation, KubeError> {
    let account = pod.account_ref();
    let annotations = apply::get(cluster, &account).await?.map(|account| account.annotations().clone());
    let annotations = annotations.unwrap_or_default();
    let recorded = annotations.get(names::CLUSTER_ACCESS).map(String::as_str).unwrap_or_default();
    let mut plan = Plan::default();
    let mut labelled = Vec::new();
    for listed in [listed::<RoleBinding>(cluster).await?, listed::<Role>(cluster).await?] {
        match listed {
            Ok(found) => labelled.extend(found.into_iter().filter(|of| belongs(pod, of))),
            Err(unreadable) => plan.unreadable.push(unreadable),
        }
    }
    for of in candidates(pod, recorded, labelled) {
        match apply::get(cluster, &of).await {
            Ok(Some(_)) => plan.objects.push(of),
            Ok(None) => {}
            // An object that the user may not even read is not deleted either.
            Err(error) if error.is_forbidden() => plan.unreadable.push(Unreadable::Object(of)),
            Err(error) => return Err(error),
        }
    }
    for name in pod.own_namespaces() {
        let of = ObjectRef::of::<Namespace>(None, name);
        let labels = match apply::get(cluster, &of).await {
            Ok(object) => object.map(|object| object.labels().clone()).unwrap_or_default(),
            Err(error) if error.is_forbidden() => {
                plan.unreadable.push(Unreadable::Object(of));
                continue;
            }
            Err(error) => return Err(error),
        };
        // A namespace that someone else created is not deleted.
        if labels.get(MANAGED_BY.0).is_some_and(|value| value == MANAGED_BY.1) {
            plan.objects.push(of);
        }
    }
    Ok(Installation { plan, trusted: managed(&annotations) })
}

/// Returns the objects of the plan that the server would not let the user delete; deletes nothing.
pub async fn denied(cluster: &Cluster, plan: &Plan) -> Result<Vec<ObjectRef>, KubeError> {
    let mut denied = Vec::new();
    for of in &plan.objects {
        let (group, _) = of.api_version.rsplit_once('/').unwrap_or_default();
        let what = ResourceAttributes {
            verb: Some("delete".to_owned()),
            group: Some(group.to_owned()),
            resource: Some(format!("{}s", of.kind.to_lowercase())),
            namespace: of.namespace.clone(),
            name: Some(of.name.clone()),
            ..ResourceAttributes::default()
        };
        if !may(cluster, what).await? {
            denied.push(of.clone());
        }
    }
    Ok(denied)
}

/// Returns the grant that an install created for the account; one that someone else created is not revoked.
fn managed(annotations: &BTreeMap<String, String>) -> Option<String> {
    annotations.get(names::TRUST_MANAGED).filter(|value| *value == "true")?;
    postern_identity::grant_of(annotations).cloned()
}

/// Returns what may exist, in the order of deletion: the objects that are always created, those that the account
/// records, and those that were found by their labels.
fn candidates(pod: &OpsPod, recorded: &str, labelled: Vec<ObjectRef>) -> Vec<ObjectRef> {
    let (namespaces, _) = Access::parse(recorded);
    let role = pod.access_role();
    let mut all = vec![pod.pod_ref(), pod.secret_ref(), pod.stream_secret_ref(), pod.stream_keys_ref()];
    let mut granted: BTreeSet<(String, String)> =
        namespaces.into_iter().map(|namespace| (namespace, role.clone())).collect();
    granted.insert((pod.namespace().to_owned(), pod.secret_role()));
    let bindings =
        granted.iter().map(|(namespace, name)| ObjectRef::of::<RoleBinding>(Some(namespace), name));
    let roles = granted.iter().map(|(namespace, name)| ObjectRef::of::<Role>(Some(namespace), name));
    all.extend(bindings.chain(roles));
    all.push(ObjectRef::of::<ClusterRoleBinding>(None, &role));
    all.push(ObjectRef::of::<ClusterRole>(None, &role));
    // The objects of an account that was deleted by another client.
    for found in labelled {
        if !all.contains(&found) {
            all.push(found);
        }
    }
    all.push(pod.account_ref());
    all
}

/// Whether a Role or `RoleBinding` with our labels belongs to this pod.
fn belongs(pod: &OpsPod, of: &ObjectRef) -> bool {
    of.name == pod.access_role()
        || (of.name == pod.secret_role() && of.namespace.as_deref() == Some(pod.namespace()))
}

/// Returns the objects of a kind with our labels, in all namespaces; or that the user may not list them.
async fn listed<K>(cluster: &Cluster) -> Result<Result<Vec<ObjectRef>, Unreadable>, KubeError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let kind = K::kind(&()).into_owned();
    let api: Api<K> = Api::all(cluster.client.clone());
    match api.list(&ListParams::default().labels(&selector())).await {
        Ok(list) => {
            let of = |object: &K| ObjectRef::of::<K>(object.namespace().as_deref(), &object.name_any());
            Ok(Ok(list.items.iter().map(of).collect()))
        }
        Err(error) => {
            let error = cluster.error(format!("listing {kind}s in all namespaces"), &error);
            if error.is_forbidden() {
                Ok(Err(Unreadable::Kind(kind, error.reason.to_string())))
            } else {
                Err(error)
            }
        }
    }
}

/// Deletes one object of the plan and waits until it is gone. Returns `false` if it was already gone.
pub async fn remove(cluster: &Cluster, of: &ObjectRef, timeout: Duration) -> Result<bool, KubeError> {
    apply::delete(cluster, of, &Deletion::default(), timeout).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_account_records_and_what_labels_show_goes_once_and_the_record_last() {
        let labelled = |namespace| ObjectRef::of::<Role>(Some(namespace), names::NAME);
        let all = candidates(&OpsPod::default(), "a", vec![labelled("a"), labelled("forgotten")]);
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(all.iter().filter(|of| *of == "Role a/postern-ops").count(), 1, "{all:?}");
        assert!(all.contains(&"Role forgotten/postern-ops".to_owned()), "{all:?}");
        assert_eq!(all.first().map(String::as_str), Some("Pod postern-ops/postern-ops"));
        assert_eq!(all.last().map(String::as_str), Some("ServiceAccount postern-ops/postern-ops"));
    }

    #[test]
    fn what_could_not_be_looked_at_is_named_with_the_way_to_find_it() {
        assert!(Plan::default().warnings().is_empty());
        let role = ObjectRef::of::<Role>(Some("a"), names::NAME);
        let kind = |kind: &str| Unreadable::Kind(kind.to_owned(), format!("cannot list {kind}"));
        let unreadable = vec![kind("RoleBinding"), kind("Role"), Unreadable::Object(role)];
        let warnings = Plan { objects: Vec::new(), unreadable }.warnings();
        let [object, kinds] = &warnings[..] else { panic!("{warnings:?}") };
        assert_eq!(object, "you lack the verb get on Role a/postern-ops: any of these that exist will stay");
        for part in [
            "RoleBindings and Roles in all namespaces could not be listed",
            "cannot list RoleBinding; cannot list Role",
            "kubectl get rolebindings,roles -A -l app.kubernetes.io/managed-by=postern,app.kubernetes.io/component=ops",
        ] {
            assert!(kinds.contains(part), "{part:?} is not in {kinds}");
        }
    }
}
