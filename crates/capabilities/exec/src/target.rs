//! Finds the pod and the container for `exec`.

mod find_all;

pub use find_all::{Containers, FoundPlace, find_all};

pub use crate::annotation::AGENT_ANNOTATION;

use crate::error::ExecError;
use postern_kube::exec::{self, ExecReader, ExecRequest, ExecWriter};
use postern_kube::k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use postern_kube::k8s_openapi::api::batch::v1::Job;
use postern_kube::k8s_openapi::api::core::v1::{Pod, Service};
use postern_kube::k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use postern_kube::kube::{Api, ResourceExt as _};
use postern_kube::{Cluster, pods};

/// kubectl's annotation for the default container.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// A target, as the user named it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// `NAME` or `pod/NAME`.
    Pod(String),
    /// `deploy/NAME` and the like: one pod of that workload.
    Workload(Kind, String),
    /// `-l SELECTOR`: one of the matching pods.
    Selector(String),
}

/// The kinds of workload that a target can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A Deployment.
    Deployment,
    /// A `StatefulSet`.
    StatefulSet,
    /// A `DaemonSet`.
    DaemonSet,
    /// A `ReplicaSet`.
    ReplicaSet,
    /// A Job.
    Job,
    /// A Service, by its selector.
    Service,
}

/// The names of each kind; a pod is not a workload.
const KINDS: [KindNames; 7] = [
    (&["pod", "pods", "po"], None),
    (&["deploy", "deployment", "deployments", "deployment.apps", "deployments.apps"], Some(Kind::Deployment)),
    (
        &["sts", "statefulset", "statefulsets", "statefulset.apps", "statefulsets.apps"],
        Some(Kind::StatefulSet),
    ),
    (&["ds", "daemonset", "daemonsets", "daemonset.apps", "daemonsets.apps"], Some(Kind::DaemonSet)),
    (&["rs", "replicaset", "replicasets", "replicaset.apps", "replicasets.apps"], Some(Kind::ReplicaSet)),
    (&["job", "jobs", "job.batch", "jobs.batch"], Some(Kind::Job)),
    (&["svc", "service", "services"], Some(Kind::Service)),
];

type KindNames = (&'static [&'static str], Option<Kind>);

fn kind_named(word: &str) -> Option<&'static KindNames> {
    KINDS.iter().find(|(names, _)| names.contains(&word))
}

/// Whether a word names a kind of object with pods, such as `deploy`.
pub fn is_kind(word: &str) -> bool {
    kind_named(word).is_some()
}

/// A container in which commands can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
    /// The path of the agent in the image, if the pod has the annotation.
    pub agent: Option<String>,
}

impl Place {
    /// Starts a command here with the runtime's exec.
    pub async fn open(
        &self,
        cluster: &Cluster,
        command: &[Vec<u8>],
        stdin: bool,
        tty: bool,
    ) -> Result<(ExecReader, ExecWriter), ExecError> {
        let Self { namespace, pod, container, agent: _ } = self;
        let request = ExecRequest { namespace, pod, container: Some(container), command, stdin, tty };
        Ok(exec::open(cluster, &request).await?)
    }

    /// Adds context to an error of the agent: if the pod's annotation names the agent, a failed start is about the
    /// annotation.
    #[must_use]
    pub fn of_agent(&self, error: ExecError) -> ExecError {
        let Self { namespace, pod, container: _, agent } = self;
        match (agent, error) {
            (Some(agent), ExecError::Runtime(why)) => ExecError::Annotation {
                namespace: namespace.clone(),
                pod: pod.clone(),
                agent: agent.clone(),
                why,
            },
            (_, other) => other,
        }
    }

    /// Returns the error for options that need an agent if there is none.
    pub fn needs_agent(self, options: &[&str]) -> ExecError {
        let Self { namespace, pod, container, agent: _ } = self;
        ExecError::NeedsAgent { options: options.join(", "), namespace, pod, container }
    }
}

impl Target {
    /// Parses `[pod/]NAME`, `deploy/NAME`, `sts/NAME`, `ds/NAME`, `rs/NAME`, `job/NAME`, `svc/NAME` and their long
    /// forms.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (word, name) = text.split_once('/').unwrap_or(("pod", text));
        if name.is_empty() || name.contains('/') {
            return Err(format!("{text:?} names no pod: use NAME, pod/NAME or deploy/NAME"));
        }
        let name = name.to_owned();
        match kind_named(word) {
            Some((_, None)) => Ok(Self::Pod(name)),
            Some((_, Some(kind))) => Ok(Self::Workload(*kind, name)),
            None => {
                Err(format!("{word:?} is not a kind with pods: use pod, deploy, sts, ds, rs, job or svc"))
            }
        }
    }
}

/// Finds the container; `container` is the one that the user chose.
pub async fn find(
    cluster: &Cluster,
    namespace: &str,
    target: &Target,
    container: Option<&str>,
) -> Result<Place, ExecError> {
    let pod = match target {
        Target::Pod(name) => pods::get(cluster, namespace, name)
            .await?
            .ok_or_else(|| ExecError::Target(format!("there is no pod {name} in namespace {namespace}")))?,
        Target::Selector(selector) => {
            let found = pods::select(cluster, namespace, selector).await?;
            pick(found).ok_or_else(|| {
                ExecError::Target(format!("no running pod in namespace {namespace} matches {selector:?}"))
            })?
        }
        Target::Workload(kind, name) => {
            let selector = workload_selector(cluster, namespace, *kind, name).await?;
            let found = pods::select(cluster, namespace, &selector).await?;
            pick(found)
                .ok_or_else(|| ExecError::Target(format!("{kind:?} {namespace}/{name} has no running pod")))?
        }
    };
    let place = place(&pod, container).map_err(ExecError::Target)?;
    match find_all::not_running(&pod, &place.container) {
        None => Ok(place),
        Some(why) => Err(ExecError::Target(why)),
    }
}

async fn workload_selector(
    cluster: &Cluster,
    namespace: &str,
    kind: Kind,
    name: &str,
) -> Result<String, ExecError> {
    macro_rules! selector {
        ($kind:ty) => {{
            let api: Api<$kind> = Api::namespaced(cluster.client.clone(), namespace);
            let found = api.get(name).await;
            found.map(|object| object.spec.map(|spec| LabelSelector::from(spec.selector)))
        }};
    }
    let found = match kind {
        Kind::Deployment => selector!(Deployment),
        Kind::StatefulSet => selector!(StatefulSet),
        Kind::DaemonSet => selector!(DaemonSet),
        Kind::ReplicaSet => selector!(ReplicaSet),
        Kind::Job => {
            let found = Api::<Job>::namespaced(cluster.client.clone(), namespace).get(name).await;
            found.map(|job| job.spec.and_then(|spec| spec.selector))
        }
        Kind::Service => {
            let found = Api::<Service>::namespaced(cluster.client.clone(), namespace).get(name).await;
            found.map(|service| {
                let match_labels = service.spec.and_then(|spec| spec.selector);
                Some(LabelSelector { match_labels, match_expressions: None })
            })
        }
    };
    let found =
        found.map_err(|error| cluster.error(format!("reading {kind:?} {namespace}/{name}"), &error))?;
    let text = selector_text(&found.unwrap_or_default());
    // An empty selector would match every pod of the namespace.
    if text.is_empty() {
        return Err(ExecError::Target(format!(
            "{kind:?} {namespace}/{name} has no selector, and so no pods"
        )));
    }
    Ok(text)
}

/// Formats a selector as a query parameter of the API.
fn selector_text(selector: &LabelSelector) -> String {
    let LabelSelector { match_labels, match_expressions } = selector;
    let labels = match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let expressions = match_expressions.iter().flatten().map(|requirement| {
        let LabelSelectorRequirement { key, operator, values } = requirement;
        let values = values.as_deref().unwrap_or_default().join(",");
        match operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        }
    });
    labels.chain(expressions).collect::<Vec<_>>().join(",")
}

/// Returns the pod that kubectl would choose: running, ready pods first, then by name.
fn pick(pods: Vec<Pod>) -> Option<Pod> {
    let mut running: Vec<Pod> = pods
        .into_iter()
        .filter(|pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        })
        .collect();
    running.sort_by_key(|pod| (!is_ready(pod), pod.name_any()));
    running.into_iter().next()
}

/// Whether the pod's Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// Returns the container of a pod that was read. Pure function.
fn place(pod: &Pod, container: Option<&str>) -> Result<Place, String> {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(format!("pod {namespace}/{name} has ended ({phase}); nothing can be run in it"));
    }
    let spec = pod.spec.as_ref().ok_or_else(|| format!("pod {namespace}/{name} has no spec"))?;
    let named = spec.containers.iter().map(|container| container.name.as_str());
    let more = spec.init_containers.iter().flatten().map(|container| container.name.as_str());
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| container.name.as_str());
    let known: Vec<&str> = named.chain(more).chain(ephemeral).collect();
    let annotated = pod.annotations().get(DEFAULT_CONTAINER).map(String::as_str);
    let chosen = match container {
        Some(wanted) if known.contains(&wanted) => wanted,
        Some(wanted) => {
            let known = known.join(", ");
            return Err(format!("pod {namespace}/{name} has no container {wanted:?}; it has: {known}"));
        }
        None => annotated
            .filter(|wanted| known.contains(wanted))
            .or_else(|| spec.containers.first().map(|container| container.name.as_str()))
            .ok_or_else(|| format!("pod {namespace}/{name} has no containers"))?,
    };
    let agent = pod.annotations().get(AGENT_ANNOTATION).cloned();
    Ok(Place { namespace, pod: name, container: chosen.to_owned(), agent })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: &str) -> Pod {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn names_and_kinds_are_read_as_kubectl_does() {
        assert_eq!(Target::parse("web"), Ok(Target::Pod("web".to_owned())));
        assert_eq!(Target::parse("pod/web"), Ok(Target::Pod("web".to_owned())));
        assert_eq!(Target::parse("deploy/web"), Ok(Target::Workload(Kind::Deployment, "web".to_owned())));
        assert_eq!(Target::parse("svc/web"), Ok(Target::Workload(Kind::Service, "web".to_owned())));
        assert_eq!(Target::parse("jobs.batch/web"), Ok(Target::Workload(Kind::Job, "web".to_owned())));
        for wrong in ["", "pod/", "cm/web", "pod/a/b"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_container_is_the_named_the_annotated_or_the_first() {
        let json = r#"{"metadata":{"name":"p","namespace":"n",
            "annotations":{"kubectl.kubernetes.io/default-container":"b"}},
            "spec":{"containers":[{"name":"a"},{"name":"b"}]},"status":{"phase":"Running"}}"#;
        let pod = pod(json);
        assert_eq!(place(&pod, None).unwrap().container, "b");
        assert_eq!(place(&pod, Some("a")).unwrap().container, "a");
        let error = place(&pod, Some("c")).unwrap_err();
        assert_eq!(error, r#"pod n/p has no container "c"; it has: a, b"#);
    }

    #[test]
    fn ready_pods_come_first_and_ending_ones_never() {
        let of = |name: &str, phase: &str, ready: &str, deleted: &str| {
            pod(&format!(
                r#"{{"metadata":{{"name":"{name}"{deleted}}},"status":{{"phase":"{phase}",
                "conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
            ))
        };
        let gone = r#","deletionTimestamp":"2026-01-01T00:00:00Z""#;
        let pods = vec![
            of("a", "Running", "False", ""),
            of("c", "Running", "True", ""),
            of("b", "Running", "True", gone),
            of("d", "Pending", "True", ""),
        ];
        assert_eq!(pick(pods).unwrap().name_any(), "c");
    }

    #[test]
    fn selectors_are_written_as_the_api_reads_them() {
        let selector: LabelSelector = serde_json::from_str(
            r#"{"matchLabels":{"a":"1"},"matchExpressions":[{"key":"b","operator":"In","values":["x","y"]},
            {"key":"c","operator":"DoesNotExist"},{"key":"d","operator":"Exists"}]}"#,
        )
        .unwrap();
        assert_eq!(selector_text(&selector), "a=1,b in (x,y),!c,d");
    }
}
