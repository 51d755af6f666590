//! The desired objects, as pure functions of the settings.

use crate::identity::Identity;
use crate::names;
use crate::ops_pod::OpsPod;
use crate::rules::{self, Rule};
use crate::settings::{Access, Settings};
use postern_identity::PodIdentity;
use postern_kube::apply::metadata;
use postern_kube::k8s_openapi::ByteString;
use postern_kube::k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar,
    LocalObjectReference, Namespace, Pod, PodSecurityContext, PodSpec, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource, SecurityContext, ServiceAccount,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use postern_kube::k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use postern_kube::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// The label that identifies Postern's objects.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "postern");

fn labels() -> [(&'static str, String); 3] {
    [
        ("app.kubernetes.io/name", "postern".to_owned()),
        ("app.kubernetes.io/component", "ops".to_owned()),
        (MANAGED_BY.0, MANAGED_BY.1.to_owned()),
    ]
}

/// A namespace in which only restricted pods can run.
pub fn namespace(name: &str) -> Namespace {
    let pss = |mode: &str| format!("pod-security.kubernetes.io/{mode}");
    let mut metadata = metadata(None, name, labels());
    let all = metadata.labels.get_or_insert_default();
    for mode in ["enforce", "audit", "warn"] {
        all.insert(pss(mode), "restricted".to_owned());
    }
    Namespace { metadata, ..Namespace::default() }
}

/// The identity of the pod. Its annotations record the granted `access`, and the provider that trusts it with the
/// time of the grant.
pub fn service_account(pod: &OpsPod, access: &str, trusted: Option<(&Identity, &str)>) -> ServiceAccount {
    let mut metadata = metadata(Some(pod.namespace()), pod.name(), labels());
    let mut annotations = BTreeMap::new();
    if !access.is_empty() {
        annotations.insert(names::CLUSTER_ACCESS.to_owned(), access.to_owned());
    }
    if let Some((identity, since)) = trusted {
        annotations.extend(identity.pod.annotations.iter().cloned());
        annotations.insert(names::TRUST_MANAGED.to_owned(), "true".to_owned());
        annotations.insert(names::PROVISIONED_AT.to_owned(), since.to_owned());
    }
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    // A pod that needs a token requests it itself; no other pod of this account gets one by accident.
    ServiceAccount { metadata, automount_service_account_token: Some(false), ..ServiceAccount::default() }
}

/// Returns the data of the credential Secret: each credential under all its names.
pub fn secret_data(settings: &Settings) -> BTreeMap<String, ByteString> {
    let entries = settings.credentials.iter().flat_map(|(credential, secret)| {
        credential.names.iter().map(|name| (name.clone(), ByteString(secret.expose().to_vec())))
    });
    entries.collect()
}

/// The credential Secret; it always exists, and is empty without a static key.
pub fn secret(pod: &OpsPod, data: BTreeMap<String, ByteString>, rotated_at: &str) -> Secret {
    Secret { data: Some(data), ..secret_named(pod, &pod.secret(), rotated_at) }
}

/// A Secret without data.
pub fn secret_named(pod: &OpsPod, name: &str, rotated_at: &str) -> Secret {
    let mut metadata = metadata(Some(pod.namespace()), name, labels());
    metadata.annotations = Some(
        [
            (names::ROTATED_AT.to_owned(), rotated_at.to_owned()),
            // A chart that adopts the namespace must not delete the credential.
            ("helm.sh/resource-policy".to_owned(), "keep".to_owned()),
        ]
        .into(),
    );
    Secret { metadata, type_: Some("Opaque".to_owned()), ..Secret::default() }
}

/// A `ConfigMap`.
pub fn config_map<const N: usize>(pod: &OpsPod, name: &str, data: [(&str, String); N]) -> ConfigMap {
    ConfigMap {
        metadata: metadata(Some(pod.namespace()), name, labels()),
        data: Some(data.map(|(key, value)| (key.to_owned(), value)).into()),
        ..ConfigMap::default()
    }
}

/// The objects that the pod is created with; if they change, the pod is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeWith {
    /// The Secret's UID and resource version.
    pub version: String,
    /// When the credential was rotated.
    pub rotated_at: String,
    /// The `ServiceAccount`'s UID, if it is known.
    pub account: Option<String>,
}

/// The pod. It passes PSA `restricted` and OpenShift's restricted-v2: it sets neither a user nor a group, so it fits
/// any namespace's range, and every writable directory is an emptyDir.
pub fn pod(settings: &Settings, with: &MadeWith) -> Pod {
    let spec = pod_spec(settings);
    let mut metadata = metadata(Some(settings.pod.namespace()), settings.pod.name(), labels());
    let annotation = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    metadata.annotations = Some(
        [
            annotation(postern_exec::target::AGENT_ANNOTATION, names::AGENT),
            annotation(names::CREDENTIAL_VERSION, &with.version),
            annotation(names::ROTATED_AT, &with.rotated_at),
            annotation(names::SPEC_HASH, &spec_hash(&spec)),
        ]
        .into_iter()
        .chain(with.account.as_deref().map(|uid| annotation(names::ACCOUNT_UID, uid)))
        .collect(),
    );
    Pod { metadata, spec: Some(spec), status: None }
}

/// Returns a hash over the spec as Postern writes it, to detect an older one.
fn spec_hash(spec: &PodSpec) -> String {
    // Serializing a plain structure of maps with string keys cannot fail.
    let text = serde_json::to_vec(spec).unwrap_or_default();
    blake3::hash(&text).to_hex()[..16].to_owned()
}

fn pod_spec(settings: &Settings) -> PodSpec {
    let quantities = |cpu: &str, memory: &str| {
        [("cpu", cpu), ("memory", memory)].map(|(name, value)| (name.to_owned(), Quantity(value.to_owned())))
    };
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let empty_dir = |name: &str, limit: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource { size_limit: Some(Quantity(limit.to_owned())), medium: None }),
        ..Volume::default()
    };
    let env = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    };
    let mut command = vec![names::AGENT.to_owned(), "serve".to_owned()];
    if settings.stream {
        let port = postern_wire::STREAM_PORT.to_string();
        command.extend(["--stream".to_owned(), port, names::STREAM_DIRECTORY.to_owned()]);
    }
    let mut variables = vec![env("HOME", "/home/ops"), env("TMPDIR", "/tmp")];
    let trusted = settings.identity.as_ref().map(|identity| &identity.pod);
    variables.extend(trusted.iter().flat_map(|pod| &pod.env).map(|(name, value)| env(name, value)));
    let token_mount = trusted.map(|pod| mount(IDENTITY_VOLUME, &pod.directory, true));
    let stream_mount = settings.stream.then(|| mount("stream", names::STREAM_DIRECTORY, true));
    let container = Container {
        name: names::CONTAINER.to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(command),
        working_dir: Some("/home/ops".to_owned()),
        env: Some(variables),
        resources: Some(ResourceRequirements {
            requests: Some(quantities("50m", "64Mi").into()),
            limits: Some(quantities("500m", "256Mi").into()),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(
            [
                mount("home", "/home/ops", false),
                mount("tmp", "/tmp", false),
                mount("run", "/run/postern", false),
                mount("credentials", "/var/run/secrets/postern/credentials", true),
            ]
            .into_iter()
            .chain(stream_mount)
            .chain(token_mount)
            .collect(),
        ),
        ..Container::default()
    };
    let credentials = Volume {
        name: "credentials".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(settings.pod.secret()),
            // Readable for any user that the pod gets; the pod has no other user.
            default_mode: Some(0o444),
            items: None,
            optional: None,
        }),
        ..Volume::default()
    };
    PodSpec {
        service_account_name: Some(settings.pod.name().to_owned()),
        automount_service_account_token: Some(settings.access != Access::None),
        enable_service_links: Some(false),
        restart_policy: Some("Always".to_owned()),
        termination_grace_period_seconds: Some(30),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: settings
            .image_pull_secret
            .clone()
            .map(|name| vec![LocalObjectReference { name }]),
        containers: vec![container],
        volumes: Some(
            [empty_dir("home", "1Gi"), empty_dir("tmp", "1Gi"), empty_dir("run", "1Mi"), credentials]
                .into_iter()
                .chain(settings.stream.then(|| stream_keys(&settings.pod)))
                .chain(trusted.map(identity_token))
                .collect(),
        ),
        ..PodSpec::default()
    }
}

/// The name of the volume with the token for a provider.
const IDENTITY_VOLUME: &str = "identity";

/// The token that authenticates the pod to a provider; the kubelet refreshes it.
fn identity_token(pod: &PodIdentity) -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(pod.audience.clone()),
        expiration_seconds: Some(pod.expiration_seconds),
        path: pod.file.clone(),
    };
    Volume {
        name: IDENTITY_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            // Readable for any user that the pod gets; the pod has no other user.
            default_mode: Some(0o444),
            sources: Some(vec![VolumeProjection {
                service_account_token: Some(token),
                ..VolumeProjection::default()
            }]),
        }),
        ..Volume::default()
    }
}

/// The public keys that the agent's listener accepts; the private key is in a Secret that the pod does not reference.
fn stream_keys(pod: &OpsPod) -> Volume {
    Volume {
        name: "stream".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: pod.stream_keys(),
            default_mode: Some(0o444),
            items: None,
            optional: None,
        }),
        ..Volume::default()
    }
}

fn policies(pod: &OpsPod, rules: &[Rule]) -> Vec<PolicyRule> {
    rules.iter().map(|rule| rule.policy(pod)).collect()
}

fn subjects(pod: &OpsPod) -> Vec<Subject> {
    vec![Subject {
        kind: "ServiceAccount".to_owned(),
        name: pod.name().to_owned(),
        namespace: Some(pod.namespace().to_owned()),
        api_group: None,
    }]
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
    }
}

/// A Role and its binding to the ops pod's ServiceAccount.
pub fn role(pod: &OpsPod, namespace: &str, name: &str, rules: &[Rule]) -> (Role, RoleBinding) {
    let metadata = metadata(Some(namespace), name, labels());
    (
        Role { metadata: metadata.clone(), rules: Some(policies(pod, rules)) },
        RoleBinding { metadata, role_ref: role_ref("Role", name), subjects: Some(subjects(pod)) },
    )
}

/// The same for all namespaces.
pub fn cluster_role(pod: &OpsPod) -> (ClusterRole, ClusterRoleBinding) {
    let name = pod.access_role();
    let metadata = metadata(None, &name, labels());
    (
        ClusterRole {
            metadata: metadata.clone(),
            rules: Some(policies(pod, rules::ACCESS)),
            aggregation_rule: None,
        },
        ClusterRoleBinding {
            metadata,
            role_ref: role_ref("ClusterRole", &name),
            subjects: Some(subjects(pod)),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    fn version() -> MadeWith {
        let rotated_at = "2026-01-01T00:00:00Z".to_owned();
        MadeWith { version: "uid.1".to_owned(), rotated_at, account: None }
    }

    #[test]
    fn no_user_no_group_and_no_token_unless_asked_for() {
        let pod = pod(&settings(Access::None), &version());
        let text = serde_json::to_string(&pod).unwrap();
        for never in ["runAsUser", "runAsGroup", "fsGroup", "hostPath", "hostNetwork", "envFrom"] {
            assert!(!text.contains(never), "{never}");
        }
        let spec = pod.spec.unwrap();
        assert_eq!(spec.automount_service_account_token, Some(false));
        let with = pod_spec(&settings(Access::All));
        assert_eq!(with.automount_service_account_token, Some(true));
    }

    #[test]
    fn the_hash_follows_the_spec_and_not_the_credential() {
        let hash = |pod: Pod| pod.metadata.annotations.unwrap()[names::SPEC_HASH].clone();
        let one = hash(pod(&settings(Access::None), &version()));
        let rotated = MadeWith { version: "uid.2".to_owned(), ..version() };
        assert_eq!(one, hash(pod(&settings(Access::None), &rotated)));
        let mut other = settings(Access::None);
        other.image = "example/ops:2".to_owned();
        assert_ne!(one, hash(pod(&other, &version())));
    }

    #[test]
    fn aliases_of_a_credential_all_get_its_value() {
        let mut settings = settings(Access::None);
        let credential = postern_secret::credential::Credential::named("IC_API_KEY").unwrap();
        let secret = postern_secret::Secret::new("K", "0123456789").unwrap();
        settings.credentials = vec![(credential, secret)];
        let data = secret_data(&settings);
        assert_eq!(data.keys().collect::<Vec<_>>(), ["IBMCLOUD_API_KEY", "IC_API_KEY"]);
        assert!(data.values().all(|value| value.0 == b"0123456789"));
    }
}
