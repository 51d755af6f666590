//! `ops uninstall`: what would go, and taking it away in an order that can stop anywhere.

use crate::names;
use crate::objects::MANAGED_BY;
use crate::settings::Access;
use postern_kube::apply::{self, Deletion, ObjectRef};
use postern_kube::k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use postern_kube::k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use postern_kube::kube::api::ListParams;
use postern_kube::kube::{Api, Resource, ResourceExt as _};
use postern_kube::{Cluster, KubeError};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

/// Everything of ours that is there, in the order in which it goes: first what runs, then what it may do, at last the
/// record of what that was.
pub async fn plan(cluster: &Cluster) -> Result<Vec<ObjectRef>, KubeError> {
    let ops = Some(names::NAMESPACE);
    let account = ObjectRef::of::<ServiceAccount>(ops, names::NAME);
    let recorded = apply::get(cluster, &account)
        .await?
        .map(|account| account.annotations().get(names::CLUSTER_ACCESS).cloned().unwrap_or_default());
    let (namespaces, _) = Access::parse(&recorded.unwrap_or_default());
    let mut candidates =
        vec![ObjectRef::of::<Pod>(ops, names::NAME), ObjectRef::of::<Secret>(ops, names::SECRET)];
    let mut granted: BTreeSet<(String, &str)> =
        namespaces.into_iter().map(|namespace| (namespace, names::NAME)).collect();
    granted.insert((names::NAMESPACE.to_owned(), names::SECRET_ROLE));
    let bindings =
        granted.iter().map(|(namespace, name)| ObjectRef::of::<RoleBinding>(Some(namespace), name));
    let roles = granted.iter().map(|(namespace, name)| ObjectRef::of::<Role>(Some(namespace), name));
    candidates.extend(bindings.chain(roles));
    candidates.push(ObjectRef::of::<ClusterRoleBinding>(None, names::NAME));
    candidates.push(ObjectRef::of::<ClusterRole>(None, names::NAME));
    // What an account that was deleted behind our back no longer records.
    for found in [labelled::<RoleBinding>(cluster).await, labelled::<Role>(cluster).await].concat() {
        if !candidates.contains(&found) {
            candidates.push(found);
        }
    }
    candidates.push(account);
    let mut there = Vec::new();
    for of in candidates {
        if exists(cluster, &of).await?.is_some() {
            there.push(of);
        }
    }
    for name in [names::NAMESPACE, names::TEST_NAMESPACE] {
        let of = ObjectRef::of::<Namespace>(None, name);
        let labels = exists(cluster, &of).await?.map(|object| object.labels().clone()).unwrap_or_default();
        // One that was made for us beforehand is not ours to delete.
        if labels.get(MANAGED_BY.0).is_some_and(|value| value == MANAGED_BY.1) {
            there.push(of);
        }
    }
    Ok(there)
}

/// What we may not even look at is not ours to delete either.
async fn exists(
    cluster: &Cluster,
    of: &ObjectRef,
) -> Result<Option<postern_kube::kube::core::DynamicObject>, KubeError> {
    match apply::get(cluster, of).await {
        Err(error) if error.is_forbidden() => Ok(None),
        other => other,
    }
}

/// Objects of a kind that carry our labels, in all namespaces; none where we may not list them.
async fn labelled<K>(cluster: &Cluster) -> Vec<ObjectRef>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(cluster.client.clone());
    let selector = format!("{}={},app.kubernetes.io/component=ops", MANAGED_BY.0, MANAGED_BY.1);
    let listed = api.list(&ListParams::default().labels(&selector)).await;
    let items = listed.map(|list| list.items).unwrap_or_default();
    items.iter().map(|object| ObjectRef::of::<K>(object.namespace().as_deref(), &object.name_any())).collect()
}

/// Deletes one object of the plan and waits until it is gone. `false` when it was gone already.
pub async fn remove(cluster: &Cluster, of: &ObjectRef, timeout: Duration) -> Result<bool, KubeError> {
    apply::delete(cluster, of, &Deletion::default(), timeout).await
}
