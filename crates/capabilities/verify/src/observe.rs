//! Reads Pods, and what they refer to, from a cluster.

use crate::images::Credentials;
use crate::manifests::pod;
use crate::pods::PodOf;
use crate::volumes::Storage;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Secret, ServiceAccount};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, NamespaceResourceScope};
use kube::{Api, Resource, ResourceExt as _};
use postern_kube::crd::GROUP;
use postern_kube::{Cluster, KubeError};
use postern_volume::Workload;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// The kinds with a Pod or a template.
const KINDS: [(&str, &str, &str); 6] = [
    ("", "v1", "Pod"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "StatefulSet"),
    ("apps", "v1", "DaemonSet"),
    ("batch", "v1", "Job"),
    ("batch", "v1", "CronJob"),
];

/// The Pods and templates of a namespace, or of all. Pods and Jobs of a controller are left out, as its template is there;
/// but the Pods of a probe are needed themselves, so that `with_pods` keeps them.
pub async fn pods(
    cluster: &Cluster,
    namespace: Option<&str>,
    with_pods: bool,
) -> Result<Vec<PodOf>, KubeError> {
    let mut found = Vec::new();
    for (group, version, kind) in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
            None => Api::all_with(cluster.client.clone(), &resource),
        };
        let list = api.list(&ListParams::default()).await;
        let list = list.map_err(|error| cluster.error(format!("listing {kind}s"), &error))?;
        for object in list {
            let is_made = object.owner_references().iter().any(|owner| owner.controller == Some(true));
            if is_made && !(kind == "Pod" && with_pods) {
                continue;
            }
            let namespace = object.namespace().unwrap_or_default();
            let Ok(mut value) = serde_json::to_value(&object) else { continue };
            value["kind"] = kind.into();
            value["apiVersion"] = Value::from(resource.api_version.clone());
            // The API server has checked it; what this version of the types cannot read is left out.
            if let Ok(Some(workload)) = Workload::of(&value) {
                found.push(pod(&value, workload, namespace, None));
            }
        }
    }
    Ok(found)
}

/// What volumes are made of.
pub async fn storage(cluster: &Cluster, namespace: Option<&str>) -> Result<Storage, KubeError> {
    let claims = list::<PersistentVolumeClaim>(cluster, namespace).await?;
    let claims = claims.into_iter().map(|one| (key(&one), one)).collect();
    let volumes = list_all::<PersistentVolume>(cluster).await?;
    let drivers = list_all::<CSIDriver>(cluster).await?;
    let classes = list_all::<StorageClass>(cluster).await?;
    Ok(Storage {
        claims,
        volumes: volumes.into_iter().map(|one| (one.name_any(), one)).collect(),
        drivers: drivers.into_iter().map(|one| (one.name_any(), one)).collect(),
        classes: classes.into_iter().map(|one| (one.name_any(), one)).collect(),
        owners: std::collections::BTreeMap::new(),
    })
}

/// What images are pulled with.
pub async fn credentials(cluster: &Cluster, namespace: Option<&str>) -> Result<Credentials, KubeError> {
    let mut credentials = Credentials { are_complete: true, ..Credentials::default() };
    for kind in ["kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"] {
        let params = ListParams::default().fields(&format!("type={kind}"));
        let found = list_with::<Secret>(cluster, namespace, &params).await?;
        credentials.secrets.extend(found.into_iter().map(|one| (key(&one), one)));
    }
    credentials.sources = sources(cluster).await;
    let accounts = list::<ServiceAccount>(cluster, namespace).await?;
    credentials.accounts = accounts
        .into_iter()
        .map(|one| {
            let names = one.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect();
            (key(&one), names)
        })
        .collect();
    Ok(credentials)
}

/// The Secrets that objects of the controller name as sources. A cluster without these kinds has none.
async fn sources(cluster: &Cluster) -> BTreeSet<(String, String)> {
    let mut sources = BTreeSet::new();
    for kind in ["ClusterPullSecret", "PullSecret"] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", kind));
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
        let Ok(list) = api.list(&ListParams::default()).await else { continue };
        sources.extend(list.into_iter().filter_map(|object| {
            let source = &object.data["spec"]["source"];
            let namespace = source["namespace"].as_str().map(str::to_owned).or_else(|| object.namespace());
            Some((namespace?, source["name"].as_str()?.to_owned()))
        }));
    }
    sources
}

fn key<K: Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

async fn list<K>(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<K>, KubeError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    list_with(cluster, namespace, &ListParams::default()).await
}

async fn list_with<K>(
    cluster: &Cluster,
    namespace: Option<&str>,
    params: &ListParams,
) -> Result<Vec<K>, KubeError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        None => Api::all(cluster.client.clone()),
    };
    let found = api.list(params).await;
    found.map(|list| list.items).map_err(|error| cluster.error(format!("listing {}s", K::kind(&())), &error))
}

async fn list_all<K>(cluster: &Cluster) -> Result<Vec<K>, KubeError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let found = Api::<K>::all(cluster.client.clone()).list(&ListParams::default()).await;
    found.map(|list| list.items).map_err(|error| cluster.error(format!("listing {}s", K::kind(&())), &error))
}
