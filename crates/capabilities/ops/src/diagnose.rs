//! Why a pod does not start, and what to do about it.

use postern_kube::apply::ObjectRef;
use postern_kube::k8s_openapi::api::core::v1::{Event, Pod};
use postern_kube::{KubeError, Reason};
use postern_report::{Evidence, Finding, Object, Severity};

/// The rule of these findings.
const RULE: &str = "ops/pod-ready";

/// The maximum number of events shown.
const EVENTS: usize = 10;

/// Returns why the pod is not ready. The evidence is up to three texts, each with a title in its first line: conditions
/// that are not true, containers that wait or ended, and the last events.
pub(crate) fn of_pod(of: &ObjectRef, pod: Option<&Pod>, events: &[Event]) -> Finding {
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
        let cause = "the pod no longer exists".to_owned();
        (cause, "something deleted it while it started; run install again".to_owned())
    } else {
        let unknown = "unknown: neither the pod nor its events show a cause";
        explain(&all, of, (unknown, "a slow node may only need more time: --timeout 180s"))
    };
    let groups = [("conditions", conditions), ("containers", waiting), ("events", events)];
    let evidence = groups
        .into_iter()
        .filter(|(_, lines)| !lines.is_empty())
        .map(|(title, lines)| Evidence::Text(format!("{title}:\n{}", lines.join("\n"))));
    Finding { evidence: evidence.collect(), ..finding(of, cause, fix) }
}

/// Returns why the API server refused the pod; `None` if the error is not a refusal.
pub(crate) fn of_refusal(of: &ObjectRef, error: &KubeError) -> Option<Finding> {
    let (Reason::Refused { message, .. } | Reason::Forbidden(message)) = &error.reason else { return None };
    let unknown = ("the API server refused the pod", "see the message for the reason");
    let (cause, fix) = explain(message, of, unknown);
    Some(finding(of, cause, fix))
}

fn finding(of: &ObjectRef, cause: String, fix: String) -> Finding {
    let pod = Object::new(&of.kind, &of.name);
    let pod = match &of.namespace {
        Some(namespace) => pod.namespace(namespace),
        None => pod,
    };
    Finding::new(RULE, Severity::Problem, pod, cause).fix(fix)
}

fn join(name: &str, parts: &[String]) -> String {
    let parts: Vec<_> = parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
    if parts.is_empty() { name.to_owned() } else { format!("{name}: {}", parts.join(": ")) }
}

/// Text of the server or the kubelet, the likely cause, and its fix. The most specific entries come first.
/// `{namespace}` and `{pod}` are replaced by the pod's.
const TABLE: &[(&[&str], &str, &str)] = &[
    (
        &["violates PodSecurity"],
        "Pod Security admission refused the pod; the message names the field",
        "the namespace enforces more than `restricted`, or a mutating webhook changed the pod",
    ),
    (
        &["unable to validate against any security context constraint"],
        "no OpenShift security context constraint admits the pod; the message names the field",
        "let the ServiceAccount use restricted-v2: oc adm policy add-scc-to-user restricted-v2 -z {pod} -n {namespace}",
    ),
    (
        &["Invalid value: \"secret\"", "Invalid value: \"emptyDir\"", "volumes are not allowed to be used"],
        "a policy forbids a volume type that the pod needs (secret, emptyDir)",
        "allow secret and emptyDir volumes in namespace {namespace}",
    ),
    (
        &["looking up service account"],
        "the pod's ServiceAccount is missing: something deleted it",
        "run install again: it creates the ServiceAccount",
    ),
    (
        &["exceeded quota", "must specify limits", "minimum cpu", "maximum memory"],
        "a ResourceQuota or LimitRange of the namespace refuses the pod (requests: 50m CPU, 64Mi; limits: 500m, 256Mi)",
        "raise it, or remove it from namespace {namespace}",
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
        "the registry refused access to the image",
        "name a pull Secret in namespace {namespace} (--image-pull-secret), and check that it is for this registry",
    ),
    (
        &["ImagePullBackOff", "ErrImagePull", "Failed to pull image"],
        "the image cannot be pulled",
        "check that the tag exists and that nodes reach the registry; behind a mirror set `image_mirror` in the config or use --image",
    ),
    (
        &["secret \"", "MountVolume.SetUp failed", "FailedMount"],
        "a volume cannot be mounted; most often its Secret is missing",
        "run install again: it creates the Secret",
    ),
    (
        &["CreateContainerConfigError"],
        "the container's configuration refers to an object that does not exist",
        "the containers' message names it; run install again to create the objects of the ops pod",
    ),
    (
        &["no such file or directory", "executable file not found", "exec format error"],
        "the image has no agent at /usr/local/bin/postern-agent, or one for another architecture",
        "use the postern-ops image of this version (--image)",
    ),
    (
        &["OOMKilled"],
        "the pod exceeded its memory limit of 256Mi",
        "run tools that need less, or fewer at a time",
    ),
    (
        &["Insufficient cpu", "Insufficient memory", "nodes are available", "Unschedulable"],
        "no node has enough free CPU or memory for the pod, or their taints exclude it",
        "the pod requests 50m CPU and 64Mi: add a node, or free one",
    ),
    (
        &["CrashLoopBackOff", "BackOff"],
        "the container exits as soon as it starts",
        "read its log: kubectl logs -n {namespace} {pod} --previous",
    ),
    (
        &["denied request", "denied the request", "denied by", "admission webhook"],
        "an admission policy or webhook of the cluster refused the pod; the message names it",
        "change the policy to admit the pod, or ask its owner what it requires of pods",
    ),
    (
        &[" cannot "],
        "you have no permission for this",
        "the message names the verb and the resource; `postern ops rbac` prints the Roles that grant it",
    ),
];

/// Returns the likely cause and its fix: the first matching entry of the table, or `unknown`.
fn explain(text: &str, of: &ObjectRef, unknown: (&str, &str)) -> (String, String) {
    let found = TABLE.iter().find(|(words, _, _)| words.iter().any(|word| text.contains(word)));
    let (cause, fix) = found.map_or(unknown, |(_, cause, fix)| (*cause, *fix));
    let namespace = of.namespace.as_deref().unwrap_or_default();
    (cause.to_owned(), fix.replace("{namespace}", namespace).replace("{pod}", &of.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> ObjectRef {
        ObjectRef {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: Some("team-a".to_owned()),
            name: "tools".to_owned(),
        }
    }

    #[test]
    fn common_causes_are_found() {
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
            ("FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu.", "free CPU"),
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
                "ServiceAccount is missing",
            ),
            ("container has runAsNonRoot and image will run as root", "root"),
        ] {
            let (cause, fix) = explain(text, &pod(), ("unknown", ""));
            assert!(cause.contains(word), "{text}: {cause}");
            assert!(!fix.is_empty());
        }
    }

    #[test]
    fn a_fix_names_the_pod_it_is_for() {
        let (_, fix) = explain("CrashLoopBackOff", &pod(), ("unknown", ""));
        assert_eq!(fix, "read its log: kubectl logs -n team-a tools --previous");
        let (_, fix) = explain("exceeded quota", &pod(), ("unknown", ""));
        assert_eq!(fix, "raise it, or remove it from namespace team-a");
    }

    #[test]
    fn a_pod_that_no_longer_exists_is_reported() {
        let found = of_pod(&pod(), None, &[]);
        assert_eq!(found.message, "the pod no longer exists");
        assert_eq!(found.subject, Object::new("Pod", "tools").namespace("team-a").into());
    }

    #[test]
    fn evidence_has_a_title_for_each_group() {
        let event = Event {
            reason: Some("Failed".to_owned()),
            message: Some("Failed to pull image".to_owned()),
            ..Event::default()
        };
        let found = of_pod(&pod(), Some(&Pod::default()), &[event]);
        assert_eq!(found.message, "the image cannot be pulled");
        assert_eq!(found.evidence, [Evidence::Text("events:\nFailed: Failed to pull image".to_owned())]);
    }
}
