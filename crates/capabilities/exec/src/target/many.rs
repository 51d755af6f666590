//! Which pods and containers a fan-out means: few requests however many targets, and an error of its own for each that
//! cannot be used.

use super::{Kind, Place, Target, pick, place, workload_selector};
use crate::error::ExecError;
use crate::job::Job;
use postern_kube::k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec};
use postern_kube::kube::ResourceExt as _;
use postern_kube::{Cluster, KubeError, pods};
use std::collections::{BTreeMap, BTreeSet};

/// Beyond so many pods by name, listing all pods of the namespace costs the server less than reading each.
const FEW: usize = 8;

/// Which containers of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containers<'a> {
    /// The annotated one, else the first.
    Default,
    /// This one.
    Named(&'a str),
    /// All that run beside each other: init containers and ephemeral ones are left out, sidecars are not.
    All,
}

/// A place, or why there is none.
pub type Found = Job<Result<Place, String>>;

/// Finds the containers of several targets, in the order in which they were named; a target named twice is two.
pub async fn find_all(
    cluster: &Cluster,
    namespace: &str,
    targets: &[Target],
    all: bool,
    containers: Containers<'_>,
) -> Result<Vec<Found>, ExecError> {
    let mut found: BTreeMap<&Target, Vec<Found>> = BTreeMap::new();
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

fn missing(name: &str, why: String) -> Vec<Found> {
    vec![Job { name: name.to_owned(), what: Err(why) }]
}

/// The named pods that there are: by one list, or a request for each of a few, or where listing is not permitted.
async fn by_name(
    cluster: &Cluster,
    namespace: &str,
    names: &BTreeSet<&str>,
    containers: Containers<'_>,
) -> Result<BTreeMap<String, Vec<Found>>, ExecError> {
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
            Err(error) => its_own(name, error)?,
        };
        found.insert((*name).to_owned(), places);
    }
    Ok(found)
}

/// What the server says of one target is that target's error; that there is no server is everybody's.
fn its_own(name: &str, error: KubeError) -> Result<Vec<Found>, ExecError> {
    if error.is_answer() { Ok(missing(name, error.to_string())) } else { Err(error.into()) }
}

async fn by_selector(
    cluster: &Cluster,
    namespace: &str,
    selector: &str,
    all: bool,
    containers: Containers<'_>,
) -> Result<Vec<Found>, KubeError> {
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
) -> Result<Vec<Found>, ExecError> {
    let title = format!("{kind:?}/{name}").to_lowercase();
    let selector = match workload_selector(cluster, namespace, kind, name).await {
        Ok(selector) => selector,
        Err(ExecError::Kube(error)) => return its_own(&title, error),
        Err(ExecError::Target(why)) => return Ok(missing(&title, why)),
        Err(error) => return Err(error),
    };
    let places = match by_selector(cluster, namespace, &selector, all, containers).await {
        Ok(places) => places,
        Err(error) => return its_own(&title, error),
    };
    if places.is_empty() {
        let running = if all { "" } else { "running " };
        return Ok(missing(&title, format!("{kind:?} {namespace}/{name} has no {running}pod")));
    }
    Ok(places)
}

/// The containers of a pod, each with why it cannot be used, if so. Pure.
fn places(pod: &Pod, containers: Containers<'_>) -> Vec<Found> {
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

/// Why nothing can be run in a container now. One that the pod says nothing of is left to the server to judge.
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

    fn seen(status: &str, containers: Containers<'_>) -> Vec<(String, Option<String>)> {
        let pod: Pod = serde_json::from_str(&format!("{{{SPEC},\"status\":{status}}}")).unwrap();
        places(&pod, containers).into_iter().map(|Job { name, what }| (name, what.err())).collect()
    }

    fn of(name: &str, why: Option<&str>) -> (String, Option<String>) {
        (name.to_owned(), why.map(str::to_owned))
    }

    #[test]
    fn every_container_that_runs_beside_the_others_is_one() {
        let status = r#"{"phase":"Running"}"#;
        assert_eq!(seen(status, Containers::All), [of("p/proxy", None), of("p/a", None), of("p/b", None)]);
        assert_eq!(seen(status, Containers::Default), [of("p/a", None)]);
        assert_eq!(seen(status, Containers::Named("b")), [of("p/b", None)]);
        let known = "pod n/p has no container \"x\"; it has: a, b, setup, proxy";
        assert_eq!(seen(status, Containers::Named("x")), [of("p/x", Some(known))]);
    }

    #[test]
    fn what_does_not_run_is_said_and_never_skipped() {
        let pending = "pod n/p is not running (Pending)";
        assert_eq!(seen(r#"{"phase":"Pending"}"#, Containers::Default), [of("p/a", Some(pending))]);
        let ended = "pod n/p has ended (Failed); nothing can be run in it";
        assert_eq!(seen(r#"{"phase":"Failed"}"#, Containers::Default), [of("p", Some(ended))]);
        // One that runs may be used, whatever its neighbour does.
        let status = r#"{"phase":"Pending","containerStatuses":[
            {"name":"a","image":"","imageID":"","ready":true,"restartCount":0,"state":{"running":{}}},
            {"name":"b","image":"","imageID":"","ready":false,"restartCount":0,
             "state":{"waiting":{"reason":"ImagePullBackOff"}}}]}"#;
        let why = "container b of pod n/p is not running (ImagePullBackOff)";
        assert_eq!(seen(status, Containers::Default), [of("p/a", None)]);
        assert_eq!(seen(status, Containers::Named("b")), [of("p/b", Some(why))]);
    }
}
