//! Pods that cannot pull because they were created before the Secret was there.

use crate::error::chain;
use crate::events::Events;
use crate::state::State;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many Pods are recreated within [`PERIOD`].
const MOST: usize = 10;
/// See [`MOST`].
const PERIOD: Duration = Duration::from_secs(60);
/// A Pod that waits for its Secret is looked at again after this time.
const AGAIN: Duration = Duration::from_secs(20);

/// Controllers that make a new Pod for one that was deleted.
const SAFE: [&str; 5] = ["ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController"];

/// When Pods were recreated.
#[derive(Debug, Default)]
pub(crate) struct Restarts(Mutex<Vec<Instant>>);

impl Restarts {
    /// Takes one of the permitted restarts; `false` if there is none left now.
    fn take(&self, now: Instant) -> bool {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.retain(|time| now.duration_since(*time) < PERIOD);
        let free = times.len() < MOST;
        if free {
            times.push(now);
        }
        free
    }

    /// Deletes Pods of a namespace that cannot pull and do not name one of the Secrets, which their ServiceAccount names
    /// by now. Returns when to look again.
    pub(crate) async fn restart(
        &self,
        (client, state, events): (&Client, &State, &Events),
        namespace: &str,
        secrets: &BTreeSet<String>,
    ) -> Option<Duration> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let list = match pods.list(&ListParams::default().fields("status.phase=Pending")).await {
            Ok(list) => list,
            Err(error) => {
                tracing::warn!(namespace, error = chain(&error), "Pods cannot be listed");
                return Some(AGAIN);
            }
        };
        let mut next = None;
        for pod in list.items.iter().filter(|pod| is_stuck(pod) && lacks(pod, state, namespace, secrets)) {
            if !self.take(Instant::now()) {
                return Some(PERIOD);
            }
            let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let name = pod.name_any();
            match pods.delete(&name, &params).await {
                Ok(_) => {
                    state.metrics.restarted();
                    tracing::info!(namespace, pod = name, "recreated a Pod that could not pull");
                    let note = "the Pod could not pull and was created before its pull Secret".to_owned();
                    events.tell(&pod.object_ref(&()), "Recreated", note).await;
                }
                Err(error) => {
                    tracing::warn!(namespace, pod = name, error = chain(&error), "a Pod cannot be deleted");
                    next = Some(AGAIN);
                }
            }
        }
        next
    }
}

/// Whether a Secret is missing that the Pod's ServiceAccount names.
fn lacks(pod: &Pod, state: &State, namespace: &str, secrets: &BTreeSet<String>) -> bool {
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default();
    let name = postern_pullsecret::ObjectName { namespace: namespace.to_owned(), name: account };
    let Some(account) = state.accounts.get(&name) else { return false };
    let named: Vec<&str> = spec
        .into_iter()
        .flat_map(|spec| spec.image_pull_secrets.iter().flatten())
        .map(|one| one.name.as_str())
        .collect();
    secrets.iter().any(|secret| account.names.contains(secret) && !named.contains(&secret.as_str()))
}

/// Whether a container waits for its image, and a controller makes a new Pod.
fn is_stuck(pod: &Pod) -> bool {
    let is_safe = pod
        .owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && SAFE.contains(&owner.kind.as_str()));
    let status = pod.status.as_ref();
    let containers = status.into_iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    let reasons = containers.filter_map(|one| one.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    is_safe
        && pod.metadata.deletion_timestamp.is_none()
        && reasons.into_iter().any(|reason| matches!(reason, "ImagePullBackOff" | "ErrImagePull"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_pods_that_come_back_are_deleted() {
        let pod = |owner: &str, reason: &str| {
            serde_json::from_value::<Pod>(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "ownerReferences": [
                    {"apiVersion": "v1", "kind": owner, "name": "o", "uid": "u", "controller": true},
                ]},
                "status": {"containerStatuses": [{
                    "name": "a", "image": "a", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": reason}},
                }]},
            }))
            .unwrap()
        };
        assert!(is_stuck(&pod("ReplicaSet", "ImagePullBackOff")));
        assert!(!is_stuck(&pod("ReplicaSet", "CrashLoopBackOff")));
        assert!(!is_stuck(&pod("Node", "ImagePullBackOff")));
    }

    #[test]
    fn restarts_are_limited() {
        let (restarts, now) = (Restarts::default(), Instant::now());
        assert!((0..MOST).all(|_| restarts.take(now)));
        assert!(!restarts.take(now));
        assert!(restarts.take(now + PERIOD));
    }
}
