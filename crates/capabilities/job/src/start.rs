//! Starts a Job, and removes it.

use crate::diagnose::{fatal, not_started, step, unschedulable};
use crate::error::JobError;
use crate::names::CONTAINER;
use crate::settings::Settings;
use postern_exec::target::Place;
use postern_kube::apply::{self, Deletion, ObjectRef};
use postern_kube::k8s_openapi::api::batch::v1::Job;
use postern_kube::k8s_openapi::api::core::v1::Pod;
use postern_kube::kube::Api;
use postern_kube::kube::api::{ListParams, PostParams};
use postern_kube::{Cluster, KubeError, Reason, pods};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// A pod that no node takes for so long is given up, unless the user chose how long to wait.
const UNSCHEDULABLE: Duration = Duration::from_secs(10);
/// How often the Job's events are read while it has no pod.
const EVENTS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the deletion may take.
const DELETION: Duration = Duration::from_secs(10);

/// The Job, for messages and requests.
fn reference(settings: &Settings) -> ObjectRef {
    ObjectRef::of::<Job>(Some(&settings.namespace), &settings.name)
}

/// Creates the Job. With `dry_run` the API server checks it and stores nothing.
pub async fn create(cluster: &Cluster, settings: &Settings, dry_run: bool) -> Result<Job, JobError> {
    let api: Api<Job> = Api::namespaced(cluster.client.clone(), &settings.namespace);
    let params = PostParams { dry_run, field_manager: Some(apply::FIELD_MANAGER.to_owned()) };
    let created = api.create(&params, &crate::objects::job(settings)).await;
    created.map_err(|error| cluster.error(format!("creating {}", reference(settings)), &error).into())
}

/// Deletes the Job with its pod, without waiting for the pod. One that does not exist is fine.
pub async fn delete(cluster: &Cluster, settings: &Settings) -> Result<(), KubeError> {
    let deletion = Deletion { uid: None, grace_seconds: Some(0) };
    apply::delete(cluster, &reference(settings), &deletion, DELETION).await.map(|_| ())
}

/// Waits until the pod takes the command, and returns where. `told` is called with each step. Gives up early where
/// waiting does not help; `patient` is whether a pod that no node takes is waited for as long as any other.
pub async fn wait_until_running(
    cluster: &Cluster,
    settings: &Settings,
    patient: bool,
    mut told: impl FnMut(&str),
) -> Result<Place, JobError> {
    // What the scheduler last said, and since when.
    let refused: RefCell<Option<(String, Instant)>> = RefCell::new(None);
    let is_started = |pod: Option<&Pod>| -> Option<Result<Place, String>> {
        let pod = pod?;
        if let Some(why) = fatal(pod) {
            return Some(Err(why));
        }
        let running = pod.status.as_ref()?.container_statuses.iter().flatten();
        let is_running =
            |state: &postern_kube::k8s_openapi::api::core::v1::ContainerState| state.running.is_some();
        if { running }.any(|one| one.name == CONTAINER && one.state.as_ref().is_some_and(is_running)) {
            return Some(Ok(Place {
                namespace: settings.namespace.clone(),
                pod: pod.metadata.name.clone().unwrap_or_default(),
                container: CONTAINER.to_owned(),
                agent: Some(settings.agent()),
            }));
        }
        let mut refused = refused.borrow_mut();
        *refused = unschedulable(pod).map(|said| {
            let since = refused.as_ref().map_or_else(Instant::now, |(_, since)| *since);
            (said, since)
        });
        told(&step(pod));
        None
    };
    let api = pods::api(cluster, &settings.namespace);
    let params = ListParams::default().labels(&settings.selector());
    let attempt = format!("waiting for the pod of {}", reference(settings));
    let waiting = pods::until_listed(cluster, &api, &params, &attempt, settings.start, is_started);
    let ended = tokio::select! {
        ended = waiting => ended,
        said = no_pod(cluster, settings) => Ok(Err(said)),
        said = no_node(&refused), if !patient => Ok(Err(said)),
    };
    match ended {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(said)) => Err(not_started(reference(settings), &said)),
        Err(KubeError { reason: Reason::NoAnswer(seconds), .. }) => {
            let last = refused.borrow_mut().take().map(|(said, _)| said);
            let said = last.unwrap_or_else(|| format!("it was not running after {seconds} s"));
            Err(not_started(reference(settings), &said))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns what the Job controller says when it cannot create the pod.
async fn no_pod(cluster: &Cluster, settings: &Settings) -> String {
    loop {
        tokio::time::sleep(EVENTS_INTERVAL).await;
        // Whoever may not read events waits for the time limit.
        let events =
            pods::events(cluster, &settings.namespace, "Job", &settings.name).await.unwrap_or_default();
        let failed = events.iter().rev().find(|event| event.reason.as_deref() == Some("FailedCreate"));
        if let Some(message) = failed.and_then(|event| event.message.clone()) {
            return message;
        }
    }
}

/// Returns what the scheduler said about a pod that no node has taken for [`UNSCHEDULABLE`].
async fn no_node(refused: &RefCell<Option<(String, Instant)>>) -> String {
    loop {
        tokio::time::sleep(EVENTS_INTERVAL).await;
        if let Some((said, since)) = &*refused.borrow()
            && since.elapsed() >= UNSCHEDULABLE
        {
            return said.clone();
        }
    }
}
