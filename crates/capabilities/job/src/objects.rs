//! The Job, as a pure function of the settings.

use crate::names::{CONTAINER, JOB_NAME_LABEL, RUN_DIRECTORY, RUN_VOLUME};
use crate::settings::{Amount, Resources, Settings, Toleration, User};
use postern_kube::apply::metadata;
use postern_kube::k8s_openapi::api::batch::v1::{Job, JobSpec};
use postern_kube::k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, EmptyDirVolumeSource, LocalObjectReference, NodeAffinity,
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSecurityContext, PodSpec, PodTemplateSpec,
    ResourceRequirements, SeccompProfile, SecurityContext, Toleration as PodToleration, Volume, VolumeMount,
};
use postern_kube::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use postern_kube::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::time::Duration;

/// The agent of images that have it.
const AGENT_OF_IMAGE: &str = "/usr/local/bin/postern-agent";
/// How long a finished Job stays if the client cannot delete it.
const TIME_TO_LIVE: Duration = Duration::from_secs(60);
/// How long the pod waits for the command once it runs.
const WAIT_FOR_COMMAND: Duration = Duration::from_secs(60);
/// The deadline of a command without a time limit.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Settings {
    /// The agent's path in the container of the command.
    pub(crate) fn agent(&self) -> String {
        match self.agent_image {
            Some(_) => format!("{RUN_DIRECTORY}/postern-agent"),
            None => AGENT_OF_IMAGE.to_owned(),
        }
    }

    /// The label selector of the Job's pod.
    pub(crate) fn selector(&self) -> String {
        format!("{JOB_NAME_LABEL}={}", self.name)
    }

    /// When Kubernetes ends the Job, whatever became of the client.
    fn deadline(&self) -> Duration {
        self.start + WAIT_FOR_COMMAND + self.timeout.unwrap_or(DAY)
    }
}

/// The Job. Its pod passes PSA `restricted` and sets no user unless one was chosen; it is tried once.
pub fn job(settings: &Settings) -> Job {
    let labels = [
        ("app.kubernetes.io/name", "postern".to_owned()),
        ("app.kubernetes.io/component", "job".to_owned()),
        ("app.kubernetes.io/managed-by", "postern".to_owned()),
    ];
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()),
            annotations: Some(
                [("kubectl.kubernetes.io/default-container".to_owned(), CONTAINER.to_owned())].into(),
            ),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(settings)),
    };
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let spec = JobSpec {
        template,
        backoff_limit: Some(0),
        active_deadline_seconds: Some(seconds(settings.deadline())),
        ttl_seconds_after_finished: (!settings.keep)
            .then(|| i32::try_from(TIME_TO_LIVE.as_secs()).unwrap_or(i32::MAX)),
        ..JobSpec::default()
    };
    let metadata = metadata(Some(&settings.namespace), &settings.name, labels);
    Job { metadata, spec: Some(spec), status: None }
}

fn pod_spec(settings: &Settings) -> PodSpec {
    let Settings { image, agent_image, service_account, image_pull_secret, .. } = settings;
    let mount = || VolumeMount {
        name: RUN_VOLUME.to_owned(),
        mount_path: RUN_DIRECTORY.to_owned(),
        ..VolumeMount::default()
    };
    let container = |name: &str, image: &str, command: &[&str], resources: ResourceRequirements| Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(command.iter().map(|word| (*word).to_owned()).collect()),
        resources: Some(resources),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![mount()]),
        ..Container::default()
    };
    let (agent, wait) = (settings.agent(), WAIT_FOR_COMMAND.as_secs().to_string());
    let tool =
        container(CONTAINER, image, &[&agent, "serve", "--once", &wait], resources(&settings.resources));
    let init = agent_image.as_deref().map(|image| {
        let command = [AGENT_OF_IMAGE, "install", &agent];
        container("agent", image, &command, resources(&Resources::default()))
    });
    PodSpec {
        containers: vec![tool],
        init_containers: init.map(|container| vec![container]),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(5),
        service_account_name: service_account.clone(),
        automount_service_account_token: Some(service_account.is_some()),
        enable_service_links: Some(false),
        image_pull_secrets: image_pull_secret
            .as_ref()
            .map(|name| vec![LocalObjectReference { name: name.clone() }]),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: settings.user.map(|User { uid, gid: _ }| i64::from(uid)),
            run_as_group: settings.user.and_then(|User { uid: _, gid }| gid.map(i64::from)),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        volumes: Some(vec![Volume {
            name: RUN_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity("16Mi".to_owned())),
                medium: None,
            }),
            ..Volume::default()
        }]),
        affinity: settings.node.as_deref().map(on_node),
        node_selector: Some(settings.node_labels.iter().cloned().collect())
            .filter(|labels: &std::collections::BTreeMap<_, _>| !labels.is_empty()),
        tolerations: Some(settings.tolerations.iter().map(toleration).collect())
            .filter(|list: &Vec<_>| !list.is_empty()),
        ..PodSpec::default()
    }
}

fn resources(Resources { cpu, memory }: &Resources) -> ResourceRequirements {
    let both = |request: &str, limit: &str, chosen: &Option<Amount>| {
        let quantity = |usual: &str| Quantity(chosen.as_ref().map_or(usual, |amount| &amount.0).to_owned());
        (quantity(request), quantity(limit))
    };
    let (cpu_request, cpu_limit) = both("50m", "500m", cpu);
    let (memory_request, memory_limit) = both("64Mi", "256Mi", memory);
    let map = |cpu, memory| [("cpu".to_owned(), cpu), ("memory".to_owned(), memory)].into();
    ResourceRequirements {
        requests: Some(map(cpu_request, memory_request)),
        limits: Some(map(cpu_limit, memory_limit)),
        claims: None,
    }
}

/// By the scheduler, so that taints and resources count. The label `kubernetes.io/hostname` need not be the name.
fn on_node(name: &str) -> Affinity {
    let is_named = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![name.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![is_named]), match_expressions: None };
    let required = Some(NodeSelector { node_selector_terms: vec![term] });
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: required,
            preferred_during_scheduling_ignored_during_execution: None,
        }),
        ..Affinity::default()
    }
}

fn toleration(Toleration { key, value, effect }: &Toleration) -> PodToleration {
    PodToleration {
        key: key.clone(),
        operator: Some(if value.is_some() { "Equal" } else { "Exists" }.to_owned()),
        value: value.clone(),
        effect: effect.clone(),
        toleration_seconds: None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn settings() -> Settings {
        Settings {
            namespace: "ns".to_owned(),
            name: "postern-dig-0123abcd".to_owned(),
            image: "tools:1".to_owned(),
            agent_image: None,
            resources: Resources::default(),
            node: None,
            node_labels: Vec::new(),
            tolerations: Vec::new(),
            service_account: None,
            user: None,
            image_pull_secret: None,
            start: Duration::from_secs(180),
            timeout: None,
            keep: false,
        }
    }

    fn value(settings: &Settings) -> Value {
        serde_json::to_value(job(settings)).unwrap()
    }

    #[test]
    fn a_job_is_tried_once_has_a_deadline_and_does_not_stay() {
        let job = value(&settings());
        let spec = &job["spec"];
        assert_eq!((&spec["backoffLimit"], &spec["ttlSecondsAfterFinished"]), (&json!(0), &json!(60)));
        assert_eq!(spec["activeDeadlineSeconds"], 180 + 60 + 86_400);
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Never");
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(
            pod["securityContext"],
            json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})
        );
        assert_eq!(
            pod["containers"][0]["command"],
            json!(["/usr/local/bin/postern-agent", "serve", "--once", "60"])
        );
        assert!(pod["initContainers"].is_null() && pod["nodeSelector"].is_null());
        let limited = value(&Settings { timeout: Some(Duration::from_secs(30)), keep: true, ..settings() });
        assert_eq!(limited["spec"]["activeDeadlineSeconds"], 180 + 60 + 30);
        assert!(limited["spec"]["ttlSecondsAfterFinished"].is_null());
    }

    #[test]
    fn the_agent_is_brought_to_an_image_that_has_none() {
        let job = value(&Settings { agent_image: Some("agent:1".to_owned()), ..settings() });
        let pod = &job["spec"]["template"]["spec"];
        let init = &pod["initContainers"][0];
        assert_eq!(init["image"], "agent:1");
        assert_eq!(init["command"][2], pod["containers"][0]["command"][0]);
        assert_eq!(init["securityContext"], pod["containers"][0]["securityContext"]);
        assert_eq!(init["volumeMounts"], pod["containers"][0]["volumeMounts"]);
    }

    #[test]
    fn what_was_chosen_is_in_the_pod() {
        let job = value(&Settings {
            resources: Resources { cpu: Some("2".parse().unwrap()), memory: None },
            node: Some("n1".to_owned()),
            node_labels: vec![("zone".to_owned(), "a".to_owned())],
            tolerations: vec!["gpu=a".parse().unwrap(), "*".parse().unwrap()],
            service_account: Some("reader".to_owned()),
            user: Some("7:8".parse().unwrap()),
            image_pull_secret: Some("pull".to_owned()),
            ..settings()
        });
        let pod = &job["spec"]["template"]["spec"];
        let resources = &pod["containers"][0]["resources"];
        assert_eq!(resources["requests"], json!({"cpu": "2", "memory": "64Mi"}));
        assert_eq!(resources["limits"], json!({"cpu": "2", "memory": "256Mi"}));
        let term = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(term["nodeSelectorTerms"][0]["matchFields"][0]["values"], json!(["n1"]));
        assert_eq!(pod["nodeSelector"], json!({"zone": "a"}));
        assert_eq!(
            pod["tolerations"],
            json!([{"key": "gpu", "operator": "Equal", "value": "a"}, {"operator": "Exists"}])
        );
        assert_eq!(
            (&pod["serviceAccountName"], &pod["automountServiceAccountToken"]),
            (&json!("reader"), &json!(true))
        );
        assert_eq!(
            (&pod["securityContext"]["runAsUser"], &pod["securityContext"]["runAsGroup"]),
            (&json!(7), &json!(8))
        );
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
    }
}
