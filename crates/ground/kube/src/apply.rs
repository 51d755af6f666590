//! Server-side apply with field manager `postern`, and deletion that waits.

pub use crate::object_ref::{FIELD_MANAGER, ObjectRef};

use crate::connect::Cluster;
use crate::error::{KubeError, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use std::time::Duration;

/// The effect of applying an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// The object did not exist.
    Created,
    /// The object existed and was changed.
    Updated,
    /// The object existed as desired.
    Unchanged,
    /// The object was deleted.
    Deleted,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        })
    }
}

/// Converts a typed object to a dynamic one, which can be applied.
pub fn dynamic<K>(object: &K) -> Result<DynamicObject, serde_json::Error>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let mut value = serde_json::to_value(object)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), K::api_version(&()).into());
        map.insert("kind".to_owned(), K::kind(&()).into());
    }
    serde_json::from_value(value)
}

/// Returns the object, or `None` if it does not exist.
pub async fn get(cluster: &Cluster, of: &ObjectRef) -> Result<Option<DynamicObject>, KubeError> {
    of.api(cluster).get_opt(&of.name).await.map_err(|error| cluster.error(format!("reading {of}"), &error))
}

/// Applies one object; `existing` is the object as it was read before. With `dry_run` the server does everything but
/// store it. Returns the change, and the object as it is now.
pub async fn apply(
    cluster: &Cluster,
    desired: &DynamicObject,
    existing: Option<&DynamicObject>,
    dry_run: bool,
) -> Result<(Change, DynamicObject), KubeError> {
    let of = ObjectRef::to(desired);
    let mut params = PatchParams::apply(FIELD_MANAGER).force();
    params.dry_run = dry_run;
    let now = of
        .api(cluster)
        .patch(&of.name, &params, &Patch::Apply(desired))
        .await
        .map_err(|error| cluster.error(format!("applying {of}"), &error))?;
    let change = match existing {
        None => Change::Created,
        // A server-side apply that changes nothing keeps the resource version.
        Some(before) if before.resource_version() == now.resource_version() => Change::Unchanged,
        Some(before) if before.uid() != now.uid() => Change::Created,
        Some(_) => Change::Updated,
    };
    Ok((change, now))
}

/// Merges a patch (RFC 7396) into an object, to remove fields that others manage, which an apply leaves alone.
/// Returns the object as it is now.
pub async fn merge(
    cluster: &Cluster,
    of: &ObjectRef,
    patch: &serde_json::Value,
) -> Result<DynamicObject, KubeError> {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let merged = of.api(cluster).patch(&of.name, &params, &Patch::Merge(patch)).await;
    merged.map_err(|error| cluster.error(format!("changing {of}"), &error))
}

/// Options of a deletion.
#[derive(Debug, Clone, Default)]
pub struct Deletion {
    /// Deletes only the object with this UID: an object that replaced it stays.
    pub uid: Option<String>,
    /// Seconds that its processes have to end; by default the object's own setting.
    pub grace_seconds: Option<u32>,
}

/// Deletes an object and waits until it is gone. Returns `false` if it did not exist.
pub async fn delete(
    cluster: &Cluster,
    of: &ObjectRef,
    deletion: &Deletion,
    timeout: Duration,
) -> Result<bool, KubeError> {
    let attempt = || format!("deleting {of}");
    let Deletion { uid, grace_seconds } = deletion;
    let params = DeleteParams {
        grace_period_seconds: *grace_seconds,
        propagation_policy: Some(PropagationPolicy::Background),
        preconditions: uid.clone().map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
        ..DeleteParams::default()
    };
    let api = of.api(cluster);
    match api.delete(&of.name, &params).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
        // Another object has this name: ours is gone.
        Err(kube::Error::Api(status)) if status.code == 409 && uid.is_some() => return Ok(false),
        Err(error) => return Err(cluster.error(attempt(), &error)),
    }
    gone(cluster, of, uid.as_deref(), timeout).await?;
    Ok(true)
}

/// Waits until an object that is being deleted is gone; with `uid`, only the object with that UID. If it stays, the
/// error says what holds it.
pub async fn gone(
    cluster: &Cluster,
    of: &ObjectRef,
    uid: Option<&str>,
    timeout: Duration,
) -> Result<(), KubeError> {
    let mut last = None;
    let api = of.api(cluster);
    let gone = crate::pods::until(cluster, &api, of, timeout, |object: Option<&DynamicObject>| {
        let there = object.filter(|object| uid.is_none_or(|uid| object.meta().uid.as_deref() == Some(uid)));
        last = there.map(blockers);
        there.is_none().then_some(())
    });
    match (gone.await, last) {
        (Err(KubeError { attempt: _, reason: Reason::NoAnswer(seconds) }), Some(blockers)) => {
            Err(KubeError::new(format!("deleting {of}"), Reason::StillThere { seconds, blockers }))
        }
        (done, _) => done,
    }
}

/// Returns what prevents the object's removal.
fn blockers(object: &DynamicObject) -> Vec<String> {
    let finalizers = object.finalizers();
    let mut blockers = Vec::new();
    if !finalizers.is_empty() {
        blockers.push(format!("finalizers {}", finalizers.join(", ")));
    }
    // A namespace reports its remaining content with conditions that are otherwise false.
    let conditions = object.data["status"]["conditions"].as_array().into_iter().flatten();
    let left = conditions.filter(|condition| {
        let of = condition["type"].as_str().unwrap_or_default();
        of.starts_with("Namespace") && condition["status"] == "True"
    });
    blockers.extend(left.filter_map(|condition| condition["message"].as_str().map(str::to_owned)));
    blockers
}

/// Checks whether the server would admit a new object of this name: the server runs validation and admission before
/// it checks whether the object exists. Nothing is created.
pub async fn admitted(cluster: &Cluster, desired: &DynamicObject) -> Result<(), KubeError> {
    let of = ObjectRef::to(desired);
    let params = PostParams { dry_run: true, field_manager: Some(FIELD_MANAGER.to_owned()) };
    match of.api(cluster).create(&params, desired).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let error = cluster.error(format!("checking whether a new {of} would be admitted"), &error);
            if error.is_conflict() { Ok(()) } else { Err(error) }
        }
    }
}

/// Returns the metadata of every object that Postern creates.
pub fn metadata(
    namespace: Option<&str>,
    name: &str,
    labels: impl IntoIterator<Item = (&'static str, String)>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ..ObjectMeta::default()
    }
}
