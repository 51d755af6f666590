//! Reads pods: waits for a state, and reads logs and events.

mod partial_pod;

use crate::connect::Cluster;
use crate::error::{KubeError, Reason};
use crate::object_ref::{FIELD_MANAGER, ObjectRef};
use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, ContainerStatus, EphemeralContainer, Event, Pod};
use kube::api::{ListParams, LogParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::{Api, Resource as _};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// The interval of reads if the user may not watch.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Waits until `done` returns a value for an object (`None` if it does not exist). It is called for each change that
/// the server reports. A watch that ends or expires (410) is started again. After `timeout`, the error is "no
/// answer".
pub async fn until<K, T>(
    cluster: &Cluster,
    api: &Api<K>,
    of: &ObjectRef,
    timeout: Duration,
    mut done: impl FnMut(Option<&K>) -> Option<T>,
) -> Result<T, KubeError>
where
    K: Clone + Debug + DeserializeOwned + kube::Resource,
{
    let params = ListParams::default().fields(&format!("metadata.name={}", of.name));
    let attempt = format!("waiting for {of}");
    let began = tokio::time::Instant::now();
    let refused = match until_listed(cluster, api, &params, &attempt, timeout, &mut done).await {
        Err(error) if error.is_forbidden() => error,
        ended => return ended,
    };
    // Without permission to list, it polls with get.
    let mut refused = Some(refused);
    let wait = async {
        loop {
            // The permission to request is list.
            let found = api
                .get_opt(&of.name)
                .await
                .map_err(|error| refused.take().unwrap_or_else(|| cluster.error(attempt.clone(), &error)))?;
            if let Some(found) = done(found.as_ref()) {
                return Ok(found);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    match tokio::time::timeout(timeout.saturating_sub(began.elapsed()), wait).await {
        Ok(result) => result,
        Err(_) => Err(KubeError::new(attempt.clone(), Reason::NoAnswer(timeout.as_secs()))),
    }
}

/// The same for the first object that `params` select; `attempt` says what is waited for.
pub async fn until_listed<K, T>(
    cluster: &Cluster,
    api: &Api<K>,
    params: &ListParams,
    attempt: &str,
    timeout: Duration,
    mut done: impl FnMut(Option<&K>) -> Option<T>,
) -> Result<T, KubeError>
where
    K: Clone + Debug + DeserializeOwned + kube::Resource,
{
    let wait = async {
        loop {
            let listed = api.list(params).await.map_err(|error| cluster.error(attempt.to_owned(), &error))?;
            if let Some(found) = done(listed.items.first()) {
                return Ok(found);
            }
            let version = listed.metadata.resource_version.unwrap_or_default();
            let watch = WatchParams {
                label_selector: params.label_selector.clone(),
                field_selector: params.field_selector.clone(),
                ..WatchParams::default().timeout(60)
            };
            let Ok(events) = api.watch(&watch, &version).await else {
                // If the list above fails too, it gives the reason.
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let mut events = std::pin::pin!(events);
            while let Ok(Some(event)) = events.try_next().await {
                let found = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => done(Some(&object)),
                    WatchEvent::Deleted(_) => done(None),
                    WatchEvent::Bookmark(_) => None,
                    WatchEvent::Error(_) => break,
                };
                if let Some(found) = found {
                    return Ok(found);
                }
            }
        }
    };
    match tokio::time::timeout(timeout, wait).await {
        Ok(result) => result,
        Err(_) => Err(KubeError::new(attempt.to_owned(), Reason::NoAnswer(timeout.as_secs()))),
    }
}

/// The states of a container in which waiting does not help.
const IN_VAIN: [&str; 7] = [
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

/// Returns the state of a container that will not start, however long one waits.
pub fn waits_in_vain(container: &ContainerStatus) -> Option<&ContainerStateWaiting> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    waiting.reason.as_deref().is_some_and(|reason| IN_VAIN.contains(&reason)).then_some(waiting)
}

/// Returns the API for the pods of a namespace.
pub fn api(cluster: &Cluster, namespace: &str) -> Api<Pod> {
    Api::namespaced(cluster.client.clone(), namespace)
}

/// Returns a pod, or `None` if it does not exist.
pub async fn get(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<Pod>, KubeError> {
    api(cluster, namespace)
        .get_opt(name)
        .await
        .map_err(|error| cluster.error(format!("reading Pod {namespace}/{name}"), &error))
}

/// Pods in one answer of the server, so that a big namespace is never in memory as a whole.
const PAGE: u32 = 250;

/// Passes on each pod that matches a label selector (an empty one matches all), page by page. The pods have only the
/// fields that decide whether and where commands can run: name, namespace, annotations, deletion; the containers'
/// names; phase, conditions and the containers' states.
pub async fn each(
    cluster: &Cluster,
    namespace: &str,
    selector: &str,
    mut each: impl FnMut(Pod),
) -> Result<(), KubeError> {
    let lists = kube::core::Request::new(Pod::url_path(&(), Some(namespace)));
    let mut params = ListParams::default().labels(selector).limit(PAGE);
    loop {
        let listed = async {
            let list = lists.list(&params).map_err(kube::Error::BuildRequest)?;
            cluster.client.request::<partial_pod::Page>(list).await
        };
        let listed = listed.await.map_err(|error| {
            let which = if selector.is_empty() { String::new() } else { format!(" by {selector:?}") };
            cluster.error(format!("listing pods of {namespace}{which}"), &error)
        })?;
        listed.items.into_iter().map(Pod::from).for_each(&mut each);
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}

/// Returns the pods that match a label selector, with the fields that [`each`] reads.
pub async fn select(cluster: &Cluster, namespace: &str, selector: &str) -> Result<Vec<Pod>, KubeError> {
    let mut pods = Vec::new();
    each(cluster, namespace, selector, |pod| pods.push(pod)).await?;
    Ok(pods)
}

/// Returns a container's log.
pub async fn log(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    params: &LogParams,
) -> Result<String, KubeError> {
    api(cluster, namespace)
        .logs(name, params)
        .await
        .map_err(|error| cluster.error(format!("reading the log of Pod {namespace}/{name}"), &error))
}

/// Adds an ephemeral container to a pod. If one with the same name and content exists, that is not an error; other
/// content is. It cannot be removed again.
pub async fn add_ephemeral(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    container: &EphemeralContainer,
) -> Result<Pod, KubeError> {
    let patch = serde_json::json!({ "spec": { "ephemeralContainers": [container] } });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    // A strategic merge patch merges the list by name.
    let added =
        api(cluster, namespace).patch_ephemeral_containers(name, &params, &Patch::Strategic(&patch)).await;
    added.map_err(|error| {
        cluster
            .error(format!("adding ephemeral container {} to Pod {namespace}/{name}", container.name), &error)
    })
}

/// Returns the events about one object, oldest first.
pub async fn events(
    cluster: &Cluster,
    namespace: &str,
    kind: &str,
    name: &str,
) -> Result<Vec<Event>, KubeError> {
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), namespace);
    let fields = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let listed = api.list(&ListParams::default().fields(&fields)).await;
    let listed = listed
        .map_err(|error| cluster.error(format!("reading the events of {kind} {namespace}/{name}"), &error))?;
    let mut events = listed.items;
    events.sort_by_key(|event| event.metadata.creation_timestamp.clone());
    Ok(events)
}
