//! Pods that cannot pull because they were created before the Secret was there.

use crate::error::chain;
use crate::events::Events;
use crate::state::State;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use postern_pullsecret::{NamespaceInfo, ObjectName, PodInfo, secrets_of_pod};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many Pods are recreated within [`PERIOD`].
const MOST: usize = 10;
/// See [`MOST`].
const PERIOD: Duration = Duration::from_secs(60);
/// A Pod that waits for its Secret is looked at again after this time.
const AGAIN: Duration = Duration::from_secs(20);

/// Controllers that make a new Pod for one that was deleted. A Job may count the deletion as a failure.
const SAFE: [(&str, &str); 4] = [
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("v1", "ReplicationController"),
];

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

    /// Deletes Pods of a namespace that cannot pull, and that would name another Secret if they were created now. Returns
    /// when to look again.
    pub(crate) async fn restart(
        &self,
        (client, state, events): (&Client, &State, &Events),
        namespace: &NamespaceInfo,
    ) -> Option<Duration> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace.name);
        let list = match pods.list(&ListParams::default().fields("status.phase=Pending")).await {
            Ok(list) => list,
            Err(error) => {
                tracing::warn!(namespace = namespace.name, error = chain(&error), "Pods cannot be listed");
                return Some(AGAIN);
            }
        };
        let mut next = None;
        for pod in list.items.iter().filter(|pod| lacks(pod, state, namespace)) {
            if !is_stuck(pod) {
                // It may only begin to pull.
                next = Some(AGAIN);
                continue;
            }
            if !self.take(Instant::now()) {
                return Some(PERIOD);
            }
            let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let name = pod.name_any();
            match pods.delete(&name, &params).await {
                Ok(_) => {
                    state.metrics.restarted();
                    tracing::info!(
                        namespace = namespace.name,
                        pod = name,
                        "recreated a Pod that could not pull"
                    );
                    let note = "the Pod could not pull and was created before its pull Secret".to_owned();
                    events.tell(&pod.object_ref(&()), "Recreated", note).await;
                }
                Err(error) => {
                    tracing::warn!(pod = name, error = chain(&error), "a Pod cannot be deleted");
                    next = Some(AGAIN);
                }
            }
        }
        next
    }
}

/// Whether the webhook would add a Secret if the Pod were created now: then a new one helps.
fn lacks(pod: &Pod, state: &State, namespace: &NamespaceInfo) -> bool {
    let is_safe = pod.owner_references().iter().any(|owner| {
        owner.controller == Some(true) && SAFE.contains(&(owner.api_version.as_str(), owner.kind.as_str()))
    });
    let Some(spec) = pod.spec.as_ref().filter(|_| is_safe && pod.metadata.deletion_timestamp.is_none())
    else {
        return false;
    };
    let name = spec.service_account_name.clone().unwrap_or_default();
    let account = state.accounts.get(&ObjectName { namespace: namespace.name.clone(), name });
    let none = BTreeMap::new();
    let info = PodInfo {
        namespace,
        labels: pod.labels(),
        account_labels: account.as_ref().map_or(&none, |account| &account.labels),
        spec,
    };
    let (rules, sources) = (state.rules(), state.sources());
    let rules = rules.of_namespace(&namespace.name, &namespace.labels).filter(|rule| rule.restart_stuck);
    !secrets_of_pod(&info, rules, &sources).is_empty()
}

/// Whether a container waits for its image.
fn is_stuck(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status.into_iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    let mut reasons = containers.filter_map(|one| one.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    reasons.any(|reason| matches!(reason, "ImagePullBackOff" | "ErrImagePull"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_pods_that_wait_for_an_image_are_stuck() {
        let pod = |reason: &str| {
            serde_json::from_value::<Pod>(json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
                "status": {"containerStatuses": [{
                    "name": "a", "image": "a", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": reason}},
                }]},
            }))
            .unwrap()
        };
        assert!(is_stuck(&pod("ImagePullBackOff")) && is_stuck(&pod("ErrImagePull")));
        assert!(!is_stuck(&pod("CrashLoopBackOff")) && !is_stuck(&pod("ContainerCreating")));
    }

    #[test]
    fn restarts_are_limited() {
        let (restarts, now) = (Restarts::default(), Instant::now());
        assert!((0..MOST).all(|_| restarts.take(now)));
        assert!(!restarts.take(now));
        assert!(restarts.take(now + PERIOD));
    }
}
