//! Finds the pods and containers of a fan-out: with few requests, however many targets there are, and with a separate
//! error for each target that cannot be used.

use super::{Kind, Place, Target, pick, place, workload_selector};
use crate::error::ExecError;
use crate::job::Job;
use postern_kube::k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec};
use postern_kube::kube::ResourceExt as _;
use postern_kube::{Cluster, KubeError, pods};
use std::collections::{BTreeMap, BTreeSet};

/// For more pods than this, listing all pods of the namespace costs the server less than reading each pod.
const FEW: usize = 8;

/// Selects containers of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containers<'a> {
    /// The annotated container, otherwise the first.
    Default,
    /// This container.
    Named(&'a str),
    /// All containers that run in parallel: not init and ephemeral containers, but sidecars.
    All,
}

/// A container, or why it cannot be used.
pub type FoundPlace = Job<Result<Place, String>>;

/// Finds the containers of several targets, in the given order. A target that is named twice counts twice.
pub async fn find_all(
    cluster: &Cluster,
    namespace: &str,
    targets: &[Target],
    all: bool,
    containers: Containers<'_>,
) -> Result<Vec<FoundPlace>, ExecError> {
    let mut found: BTreeMap<&Target, Vec<FoundPlace>> = BTreeMap::new();
    let names: BTreeSet<&str> = targets.iter().filter_map(pod_name).collect();
    let mut by_name = by_name(cluster, namespace, &names, containers).await?;
    for target in targets {
        if found.contains_key(target) {
            continue;
        }
        let places = match target {
            Target::Pod(name) => match by_name.remove(name.as_str()) {
                Some(places) => places,
                None => missing(name, format!("there is no pod {name} in namespace {namespace}")),
            },
            Target::Selector(selector) => {
                let places = by_selector(cluster, namespace, selector, all, containers).await?;
                if places.is_empty() {
                    let running = if all { "" } else { "running " };
                    let why = format!("no {running}pod in namespace {namespace} matches {selector:?}");
                    return Err(ExecError::Target(why));
                }
                places
            }
            Target::Workload(kind, name) => {
                of_workload(cluster, namespace, *kind, name, all, containers).await?
            }
        };
        found.insert(target, places);
    }
    let places = targets.iter().filter_map(|target| found.get(target)).flatten();
    Ok(places.map(|Job { name, what }| Job { name: name.clone(), what: what.clone() }).collect())
}

fn pod_name(target: &Target) -> Option<&str> {
    match target {
        Target::Pod(name) => Some(name),
        Target::Workload(..) | Target::Selector(_) => None,
    }
}

fn missing(name: &str, why: String) -> Vec<FoundPlace> {
    vec![Job { name: name.to_owned(), what: Err(why) }]
}

/// Returns the named pods that exist: with one list, or with one request each for a few, or if listing is not
/// permitted.
async fn by_name(
    cluster: &Cluster,
    namespace: &str,
    names: &BTreeSet<&str>,
    containers: Containers<'_>,
) -> Result<BTreeMap<String, Vec<FoundPlace>>, ExecError> {
    let mut found = BTreeMap::new();
    if names.len() > FEW {
        let listed = pods::each(cluster, namespace, "", |pod| {
            let name = pod.name_any();
            if names.contains(name.as_str()) {
                found.insert(name, places(&pod, containers));
            }
        });
        match listed.await {
            Ok(()) => return Ok(found),
            Err(error) if error.is_forbidden() => {}
            Err(error) => return Err(error.into()),
        }
    }
    for name in names {
        let places = match pods::get(cluster, namespace, name).await {
            Ok(Some(pod)) => places(&pod, containers),
            Ok(None) => continue,
            Err(error) => as_target_error(name, error)?,
        };
        found.insert((*name).to_owned(), places);
    }
    Ok(found)
}

/// A server's error about one target is that target's error. An unreachable server fails the whole run.
fn as_target_error(name: &str, error: KubeError) -> Result<Vec<FoundPlace>, ExecError> {
    if error.is_answer() { Ok(missing(name, error.to_string())) } else { Err(error.into()) }
}

async fn by_selector(
    cluster: &Cluster,
    namespace: &str,
    selector: &str,
    all: bool,
    containers: Containers<'_>,
) -> Result<Vec<FoundPlace>, KubeError> {
    let mut found = BTreeMap::new();
    if all {
        pods::each(cluster, namespace, selector, |pod| {
            found.insert(pod.name_any(), places(&pod, containers));
        })
        .await?;
    } else if let Some(pod) = pick(pods::select(cluster, namespace, selector).await?) {
        found.insert(pod.name_any(), places(&pod, containers));
    }
    Ok(found.into_values().flatten().collect())
}

async fn of_workload(
    cluster: &Cluster,
    namespace: &str,
    kind: Kind,
    name: &str,
    all: bool,
    containers: Containers<'_>,
) -> Result<Vec<FoundPlace>, ExecError> {
    let title = format!("{kind:?}/{name}").to_lowercase();
    let selector = match workload_selector(cluster, namespace, kind, name).await {
        Ok(selector) => selector,
        Err(ExecError::Kube(error)) => return as_target_error(&title, error),
        Err(ExecError::Target(why)) => return Ok(missing(&title, why)),
        Err(error) => return Err(error),
    };
    let places = match by_selector(cluster, namespace, &selector, all, containers).await {
        Ok(places) => places,
        Err(error) => return as_target_error(&title, error),
    };
    if places.is_empty() {
        let running = if all { "" } else { "running " };
        return Ok(missing(&title, format!("{kind:?} {namespace}/{name} has no {running}pod")));
    }
    Ok(places)
}

/// Returns the containers of a pod, each with the reason if it cannot be used. Pure function.
fn places(pod: &Pod, containers: Containers<'_>) -> Vec<FoundPlace> {
    let pod_name = pod.name_any();
    let one = |container: Option<&str>| match place(pod, container) {
        Ok(place) => {
            let name = format!("{pod_name}/{}", place.container);
            let what = match not_running(pod, &place.container) {
                None => Ok(place),
                Some(why) => Err(why),
            };
            Job { name, what }
        }
        Err(why) => {
            let name =
                container.map_or_else(|| pod_name.clone(), |container| format!("{pod_name}/{container}"));
            Job { name, what: Err(why) }
        }
    };
    match containers {
        Containers::Default => vec![one(None)],
        Containers::Named(name) => vec![one(Some(name))],
        Containers::All => {
            let names = pod.spec.as_ref().map(side_by_side).unwrap_or_default();
            names.into_iter().map(|name| one(Some(name))).collect()
        }
    }
}

fn side_by_side(spec: &PodSpec) -> Vec<&str> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    sidecars.chain(&spec.containers).map(|container| container.name.as_str()).collect()
}

/// Returns why nothing can run in a container now. A container that the pod's status does not list is left to the
/// server.
pub(super) fn not_running(pod: &Pod, container: &str) -> Option<String> {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let status = pod.status.as_ref()?;
    let of = |statuses: &Option<Vec<ContainerStatus>>| {
        statuses.iter().flatten().find(|status| status.name == container).cloned()
    };
    let its = of(&status.container_statuses)
        .or_else(|| of(&status.init_container_statuses))
        .or_else(|| of(&status.ephemeral_container_statuses));
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    let Some(state) = its.and_then(|its| its.state) else {
        return (phase == "Pending").then(|| format!("pod {namespace}/{name} is not running (Pending)"));
    };
    if state.running.is_some() {
        return None;
    }
    let reason = state
        .waiting
        .and_then(|waiting| waiting.reason)
        .or_else(|| state.terminated.and_then(|terminated| terminated.reason))
        .unwrap_or_else(|| phase.to_owned());
    Some(format!("container {container} of pod {namespace}/{name} is not running ({reason})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#""metadata":{"name":"p","namespace":"n"},"spec":{
        "initContainers":[{"name":"setup"},{"name":"proxy","restartPolicy":"Always"}],
        "containers":[{"name":"a"},{"name":"b"}]}"#;

    fn found(status: &str, containers: Containers<'_>) -> Vec<(String, Option<String>)> {
        let pod: Pod = serde_json::from_str(&format!("{{{SPEC},\"status\":{status}}}")).unwrap();
        places(&pod, containers).into_iter().map(|Job { name, what }| (name, what.err())).collect()
    }

    fn of(name: &str, why: Option<&str>) -> (String, Option<String>) {
        (name.to_owned(), why.map(str::to_owned))
    }

    #[test]
    fn every_container_that_runs_beside_the_others_is_one() {
        let status = r#"{"phase":"Running"}"#;
        assert_eq!(found(status, Containers::All), [of("p/proxy", None), of("p/a", None), of("p/b", None)]);
        assert_eq!(found(status, Containers::Default), [of("p/a", None)]);
        assert_eq!(found(status, Containers::Named("b")), [of("p/b", None)]);
        let known = "pod n/p has no container \"x\"; it has: a, b, setup, proxy";
        assert_eq!(found(status, Containers::Named("x")), [of("p/x", Some(known))]);
    }

    #[test]
    fn what_does_not_run_is_reported_and_never_skipped() {
        let pending = "pod n/p is not running (Pending)";
        assert_eq!(found(r#"{"phase":"Pending"}"#, Containers::Default), [of("p/a", Some(pending))]);
        let ended = "pod n/p has ended (Failed); nothing can be run in it";
        assert_eq!(found(r#"{"phase":"Failed"}"#, Containers::Default), [of("p", Some(ended))]);
        // A running container can be used, whatever the state of the others.
        let status = r#"{"phase":"Pending","containerStatuses":[
            {"name":"a","image":"","imageID":"","ready":true,"restartCount":0,"state":{"running":{}}},
            {"name":"b","image":"","imageID":"","ready":false,"restartCount":0,
             "state":{"waiting":{"reason":"ImagePullBackOff"}}}]}"#;
        let why = "container b of pod n/p is not running (ImagePullBackOff)";
        assert_eq!(found(status, Containers::Default), [of("p/a", None)]);
        assert_eq!(found(status, Containers::Named("b")), [of("p/b", Some(why))]);
    }
}
