//! Why a Job's pod does not start, and what to do about it.

use crate::error::JobError;
use postern_kube::apply::ObjectRef;
use postern_kube::k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use postern_kube::pods;

/// A text of the cluster, the cause it is about, and the fix. The first match is taken.
type Row = (&'static [&'static str], &'static str, &'static str);

const TABLE: [Row; 12] = [
    (
        &["image will run as root", "non-numeric user", "runAsNonRoot"],
        "the image runs as root, or names its user by name",
        "choose a user with --user UID, or an image with a numeric USER other than 0",
    ),
    (
        &["violates PodSecurity"],
        "the namespace's Pod Security Standard refuses the pod",
        "the message names the field",
    ),
    (
        &[
            "exceeded quota",
            "must specify limits",
            "maximum cpu",
            "maximum memory",
            "minimum cpu",
            "minimum memory",
        ],
        "a ResourceQuota or LimitRange of the namespace refuses the pod",
        "ask for less with --cpu and --memory, or raise the limit",
    ),
    (
        &["service account", "serviceaccount"],
        "the ServiceAccount does not exist in this namespace",
        "name another one with --service-account, or create it",
    ),
    (
        &["InvalidImageName", "couldn't parse image", "invalid reference format"],
        "the image reference cannot be parsed",
        "write it as REGISTRY/NAME:TAG (--image)",
    ),
    (
        &["ErrImageNeverPull"],
        "the image is not on the node and may not be pulled",
        "load it onto the node, or use one that can be pulled (--image)",
    ),
    (
        &[
            "unauthorized",
            "authentication required",
            "pull access denied",
            "401 Unauthorized",
            "403 Forbidden",
        ],
        "the registry refused access to the image",
        "name a pull Secret of the namespace with --image-pull-secret; `postern verify images` says what is wrong with it",
    ),
    (
        &["ImagePullBackOff", "ErrImagePull", "Failed to pull image"],
        "the image cannot be pulled",
        "check that the tag exists and that nodes reach the registry (--image)",
    ),
    (
        &["no such file or directory", "executable file not found", "exec format error", "permission denied"],
        "the image has no agent for this machine at the place where it is expected",
        "name the image with --image, so that the agent is brought along",
    ),
    (
        &["Insufficient", "nodes are available", "Unschedulable", "didn't match", "untolerated taint"],
        "no node takes the pod",
        "ask for less (--cpu, --memory), choose other nodes (--node, --selector, --tolerate), or wait longer (--start-timeout)",
    ),
    (
        &["denied the request", "denied by", "admission webhook"],
        "an admission policy of the cluster refuses the pod",
        "the message names the policy",
    ),
    (&["forbidden"], "the cluster refuses the pod", "the message says why"),
];

/// The error for what the cluster said.
pub(crate) fn not_started(job: ObjectRef, said: &str) -> JobError {
    let found = TABLE.iter().find(|(words, _, _)| words.iter().any(|word| said.contains(word)));
    let (cause, fix) = found.map_or(
        ("the cluster shows no known cause", "a slow node may only need more time: --start-timeout 10m"),
        |(_, cause, fix)| (*cause, *fix),
    );
    JobError::NotStarted { job, cause: cause.to_owned(), fix: fix.to_owned(), said: said.to_owned() }
}

/// Why waiting for a pod does not help, if that is so.
pub(crate) fn fatal(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if let Some("Failed" | "Succeeded") = status.phase.as_deref() {
        let ended =
            all(pod).find_map(ended).or_else(|| status.message.clone().or_else(|| status.reason.clone()));
        return Some(ended.unwrap_or_else(|| "the pod ended before the command began".to_owned()));
    }
    all(pod).find_map(|container| {
        let waiting = pods::waits_in_vain(container)?;
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref().unwrap_or_default();
        Some(format!("container {}: {reason}: {message}", container.name))
    })
}

fn all(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    })
}

fn ended(container: &ContainerStatus) -> Option<String> {
    let ended = container.state.as_ref()?.terminated.as_ref()?;
    let reason = ended.reason.as_deref().unwrap_or("Ended");
    let message = ended.message.as_deref().unwrap_or_default();
    (ended.exit_code != 0)
        .then(|| format!("container {}: {reason}: exit code {} {message}", container.name, ended.exit_code))
}

/// Why no node takes the pod, as the scheduler last said.
pub(crate) fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let scheduled =
        { conditions }.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let reason = scheduled.reason.as_deref().unwrap_or_default();
    Some(format!("{reason}: {}", scheduled.message.as_deref().unwrap_or_default()))
}

/// What a pod waits for, in a few words.
pub(crate) fn step(pod: &Pod) -> String {
    if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
        return "waiting for a node".to_owned();
    }
    let waiting = all(pod).find_map(|container| {
        let reason = container.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
        Some(format!("container {}: {reason}", container.name))
    });
    waiting.unwrap_or_else(|| "starting the pod".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_kube::k8s_openapi::api::batch::v1::Job;
    use serde_json::{Value, json};

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap()
    }

    #[test]
    fn waiting_ends_where_it_does_not_help() {
        let waits = |reason: &str| {
            let state = json!({"waiting": {"reason": reason, "message": "m"}});
            pod(&json!({"phase": "Pending", "containerStatuses": [{
                "name": "tool", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            }]}))
        };
        assert_eq!(fatal(&waits("ImagePullBackOff")).unwrap(), "container tool: ImagePullBackOff: m");
        assert_eq!(fatal(&waits("ContainerCreating")), None);
        assert_eq!(fatal(&waits("ErrImagePull")), None, "the next try may succeed");
        let refused =
            json!({"phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource"});
        assert_eq!(fatal(&pod(&refused)).unwrap(), "Node didn't have enough resource");
        assert_eq!(fatal(&pod(&json!({"phase": "Running"}))), None);
    }

    #[test]
    fn known_causes_have_a_fix() {
        let of = |said: &str| match not_started(ObjectRef::of::<Job>(Some("ns"), "j"), said) {
            JobError::NotStarted { cause, fix, .. } => (cause, fix),
            JobError::Kube(error) => panic!("{error}"),
        };
        for (said, word, flag) in [
            ("container has runAsNonRoot and image will run as root", "root", "--user"),
            ("pods \"j-x\" is forbidden: exceeded quota: q", "ResourceQuota", "--memory"),
            (
                "error looking up service account ns/x: serviceaccount \"x\" not found",
                "ServiceAccount",
                "--service-account",
            ),
            ("container tool: ImagePullBackOff: Back-off pulling image", "pulled", "--image"),
            ("Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.", "node", "--cpu"),
            ("violates PodSecurity \"restricted:latest\"", "Pod Security", "field"),
            ("?", "no known cause", "--start-timeout"),
        ] {
            let (cause, fix) = of(said);
            assert!(cause.contains(word) && fix.contains(flag), "{said}: {cause}; {fix}");
        }
    }
}
