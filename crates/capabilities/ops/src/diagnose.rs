//! Why a pod does not start, and what to do about it.

use postern_kube::KubeError;
use postern_kube::Reason;
use postern_kube::k8s_openapi::api::core::v1::{Event, Pod};
use serde::Serialize;

/// The diagnosis of a pod that is not ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// Conditions that are not true, with their reasons.
    pub conditions: Vec<String>,
    /// Containers that wait or ended, with their reasons.
    pub waiting: Vec<String>,
    /// The last events.
    pub events: Vec<String>,
    /// The likely cause.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

/// The maximum number of events first.
const EVENTS: usize = 10;

/// Returns the diagnosis from the pod and its events.
pub(crate) fn of_pod(pod: Option<&Pod>, events: &[Event]) -> Diagnosis {
    let status = pod.and_then(|pod| pod.status.as_ref());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let conditions: Vec<_> = conditions
        .filter(|condition| condition.status != "True")
        .map(|condition| join(&condition.type_, &[text(&condition.reason), text(&condition.message)]))
        .collect();
    let containers = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let waiting: Vec<_> = containers
        .filter_map(|container| {
            let state = container.state.as_ref()?;
            let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let mut parts = Vec::new();
            if let Some(waiting) = &state.waiting {
                parts.extend([text(&waiting.reason), text(&waiting.message)]);
            }
            for ended in state.terminated.iter().chain(last) {
                let code = format!("exit code {}", ended.exit_code);
                parts.extend([text(&ended.reason), text(&ended.message), code]);
            }
            (!parts.is_empty()).then(|| join(&container.name, &parts))
        })
        .collect();
    let first = events.len().saturating_sub(EVENTS);
    let events: Vec<_> =
        events[first..].iter().map(|event| join(&text(&event.reason), &[text(&event.message)])).collect();
    let all = [waiting.join("\n"), events.join("\n"), conditions.join("\n")].join("\n");
    let (cause, fix) = if pod.is_none() {
        ("the pod is gone".to_owned(), "something deleted it while it started; run install again".to_owned())
    } else {
        let unknown = "unknown: neither the pod nor its events show a cause";
        explain(&all, (unknown, "a slow node may only need more time: --timeout 180s"))
    };
    Diagnosis { conditions, waiting, events, cause, fix }
}

/// Returns the diagnosis from the refusal of the pod itself.
pub(crate) fn of_refusal(error: &KubeError) -> Option<Diagnosis> {
    let (Reason::Refused { message, .. } | Reason::Forbidden(message)) = &error.reason else { return None };
    let unknown = ("the API server refused the pod", "see the message for the reason");
    let (cause, fix) = explain(message, unknown);
    Some(Diagnosis { cause, fix, ..Diagnosis::default() })
}

fn join(name: &str, parts: &[String]) -> String {
    let parts: Vec<_> = parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
    if parts.is_empty() { name.to_owned() } else { format!("{name}: {}", parts.join(": ")) }
}

/// Text of the server or the kubelet, the likely cause, and its fix. The most specific entries come first.
const TABLE: &[(&[&str], &str, &str)] = &[
    (
        &["violates PodSecurity"],
        "Pod Security admission refused the pod; the message names the field",
        "the namespace enforces more than `restricted`, or something changed the pod on its way (a mutating webhook)",
    ),
    (
        &["unable to validate against any security context constraint"],
        "no OpenShift security context constraint admits the pod; the message names the field",
        "let the ServiceAccount use restricted-v2: oc adm policy add-scc-to-user restricted-v2 -z postern-ops -n postern-ops",
    ),
    (
        &["Invalid value: \"secret\"", "Invalid value: \"emptyDir\"", "volumes are not allowed to be used"],
        "a policy forbids a volume type that the pod needs (secret, emptyDir)",
        "allow secret and emptyDir volumes in namespace postern-ops",
    ),
    (
        &["looking up service account"],
        "the pod's ServiceAccount is gone: something deleted it in between",
        "run install again: it puts it back",
    ),
    (
        &["exceeded quota", "must specify limits", "minimum cpu", "maximum memory"],
        "a ResourceQuota or LimitRange of the namespace refuses the pod (it asks for 50m CPU, 64Mi; limits 500m, 256Mi)",
        "raise it, or remove it from namespace postern-ops",
    ),
    (
        &["image will run as root", "has non-numeric user", "runAsNonRoot"],
        "the image runs as root, or names its user by name",
        "use an image with a numeric USER other than 0 (--image)",
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
        "the registry refused to give out the image",
        "name a pull Secret in namespace postern-ops (--image-pull-secret), and check that it fits the registry",
    ),
    (
        &["ImagePullBackOff", "ErrImagePull", "Failed to pull image"],
        "the image cannot be pulled",
        "check that the tag exists and that nodes reach the registry; behind a mirror set `image_mirror` in the config or use --image",
    ),
    (
        &["secret \"", "MountVolume.SetUp failed", "FailedMount"],
        "a volume cannot be mounted; most often its Secret is missing",
        "run install again: it puts the Secret back",
    ),
    (
        &["CreateContainerConfigError"],
        "the container's configuration refers to something that is not there",
        "the waiting message names it; run install again to restore what is ours",
    ),
    (
        &["no such file or directory", "executable file not found", "exec format error"],
        "the image has no agent at /usr/local/bin/postern-agent, or one for another architecture",
        "use the postern-ops image of this version (--image)",
    ),
    (
        &["OOMKilled"],
        "the pod went over its memory limit of 256Mi",
        "run tools that need less, or fewer at a time",
    ),
    (
        &["Insufficient cpu", "Insufficient memory", "nodes are available", "Unschedulable"],
        "no node has room for the pod, or its taints keep it away",
        "the pod asks for 50m CPU and 64Mi: scale the cluster, or free a node",
    ),
    (
        &["CrashLoopBackOff", "BackOff"],
        "the container starts and ends at once",
        "read its log: kubectl logs -n postern-ops postern-ops --previous",
    ),
    (
        &["denied request", "denied the request", "denied by", "admission webhook"],
        "an admission policy or webhook of the cluster refused the pod; the message names it",
        "let it admit the pod, or ask who keeps it what it wants of pods",
    ),
    (
        &[" cannot "],
        "you may not do this",
        "the message names verb and resource; `postern ops rbac` prints the Roles that hold it",
    ),
];

/// Returns the likely cause and its fix: the first matching entry of the table, or `unknown`.
fn explain(text: &str, unknown: (&str, &str)) -> (String, String) {
    let found = TABLE.iter().find(|(words, _, _)| words.iter().any(|word| text.contains(word)));
    let (cause, fix) = found.map_or(unknown, |(_, cause, fix)| (*cause, *fix));
    (cause.to_owned(), fix.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_causes_are_told() {
        for (text, word) in [
            ("tools: ImagePullBackOff: Back-off pulling image \"x\"", "pulled"),
            ("Failed: pull access denied for x, unauthorized\nBackOff: ImagePullBackOff", "registry refused"),
            (
                r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": seccompProfile"#,
                "admission",
            ),
            (
                "FailedMount: MountVolume.SetUp failed for volume \"credentials\" : secret \"x\" not found",
                "Secret",
            ),
            ("FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu.", "room"),
            (
                "unable to validate against any security context constraint: spec.volumes[3]: Invalid value: \"secret\"",
                "OpenShift",
            ),
            (
                r#"admission webhook "validate.kyverno.svc-fail" denied the request: labels are missing"#,
                "policy or webhook",
            ),
            (
                "error looking up service account postern-ops/postern-ops: serviceaccount not found",
                "ServiceAccount is gone",
            ),
            ("container has runAsNonRoot and image will run as root", "root"),
        ] {
            let (cause, fix) = explain(text, ("unknown", ""));
            assert!(cause.contains(word), "{text}: {cause}");
            assert!(!fix.is_empty());
        }
    }

    #[test]
    fn a_pod_that_is_gone_is_said_to_be() {
        assert_eq!(of_pod(None, &[]).cause, "the pod is gone");
    }
}
