//! The fields of a list of pods that are read. Most of an answer is skipped, because a fan-out waits for the answer
//! before its first target.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStatus, EphemeralContainer, Pod, PodCondition, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta, Time};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The pods of one answer.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    pub(super) items: Vec<PartialPod>,
}

/// The fields of a pod that matter for running commands in it.
#[derive(Debug, Deserialize)]
pub(super) struct PartialPod {
    metadata: Meta,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    containers: Vec<Named>,
    init_containers: Option<Vec<Named>>,
    ephemeral_containers: Option<Vec<Named>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: String,
    restart_policy: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    conditions: Option<Vec<Condition>>,
    container_statuses: Option<Vec<OfContainer>>,
    init_container_statuses: Option<Vec<OfContainer>>,
    ephemeral_container_statuses: Option<Vec<OfContainer>>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Debug, Deserialize)]
struct OfContainer {
    name: String,
    state: Option<ContainerState>,
}

impl From<PartialPod> for Pod {
    fn from(PartialPod { metadata, spec, status }: PartialPod) -> Self {
        let Meta { name, namespace, annotations, deletion_timestamp } = metadata;
        let metadata =
            ObjectMeta { name, namespace, annotations, deletion_timestamp, ..ObjectMeta::default() };
        Self { metadata, spec: spec.map(PodSpec::from), status: status.map(PodStatus::from) }
    }
}

impl From<Spec> for PodSpec {
    fn from(Spec { containers, init_containers, ephemeral_containers }: Spec) -> Self {
        let container =
            |Named { name, restart_policy }| Container { name, restart_policy, ..Container::default() };
        let ephemeral =
            |Named { name, restart_policy: _ }| EphemeralContainer { name, ..EphemeralContainer::default() };
        Self {
            containers: containers.into_iter().map(container).collect(),
            init_containers: init_containers.map(|all| all.into_iter().map(container).collect()),
            ephemeral_containers: ephemeral_containers.map(|all| all.into_iter().map(ephemeral).collect()),
            ..Self::default()
        }
    }
}

impl From<Status> for PodStatus {
    fn from(status: Status) -> Self {
        let Status {
            phase,
            conditions,
            container_statuses,
            init_container_statuses,
            ephemeral_container_statuses,
        } = status;
        let condition =
            |Condition { kind, status }| PodCondition { type_: kind, status, ..PodCondition::default() };
        let of = |all: Option<Vec<OfContainer>>| {
            let one =
                |OfContainer { name, state }| ContainerStatus { name, state, ..ContainerStatus::default() };
            all.map(|all| all.into_iter().map(one).collect())
        };
        Self {
            phase,
            conditions: conditions.map(|all| all.into_iter().map(condition).collect()),
            container_statuses: of(container_statuses),
            init_container_statuses: of(init_container_statuses),
            ephemeral_container_statuses: of(ephemeral_container_statuses),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_that_decide_where_commands_can_run_are_kept() {
        let kept = r#"{"metadata":{"name":"p","namespace":"n","annotations":{"a":"b"},
            "deletionTimestamp":"2026-01-01T00:00:00Z"},"spec":{"containers":[{"name":"c"}],
            "initContainers":[{"name":"i","restartPolicy":"Always"}],"ephemeralContainers":[{"name":"e"}]},
            "status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}],
            "containerStatuses":[{"name":"c","state":{"running":{}}}],
            "initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":1,"reason":"Error"}}}],
            "ephemeralContainerStatuses":[{"name":"e","state":{"waiting":{"reason":"ErrImagePull"}}}]}}"#;
        let more = kept
            .replace(r#""name":"p""#, r#""name":"p","uid":"u","labels":{"x":"y"},"managedFields":[{"a":{}}]"#)
            .replace(r#"{"name":"c"}"#, r#"{"name":"c","image":"i","env":[{"name":"A","value":"1"}]}"#)
            .replace(r#""phase":"#, r#""podIP":"10.0.0.1","phase":"#);
        let page = format!(r#"{{"kind":"PodList","metadata":{{"continue":"more"}},"items":[{more}]}}"#);
        let Page { metadata, items } = serde_json::from_str(&page).unwrap();
        assert_eq!(metadata.continue_.as_deref(), Some("more"));
        let pods: Vec<Pod> = items.into_iter().map(Pod::from).collect();
        assert_eq!(pods, [serde_json::from_str::<Pod>(kept).unwrap()]);
    }
}
