//! Complete workloads that get credentials with a projected token: manifests to apply, or to learn from.
//!
//! They have a `ServiceAccount` without permissions, a projected token for each provider's audience, the
//! configuration, and either a native sidecar (KEP-753) that serves the APIs on loopback, or a wrapper that starts
//! the command with credentials.

use postern_config::providers::{ClientAssertion, Provider, ProviderType, SourceKind, TokenSource};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The directory of the tokens, with a directory for each provider.
const TOKENS: &str = "/var/run/secrets/tokens";
/// The directory of the configuration.
const CONFIG: &str = "/etc/postern";
/// The directory of Postern's program for the wrapper.
const PROGRAM: &str = "/opt/postern";
/// The directory where the sidecar writes the token for AWS SDKs.
const RUN: &str = "/var/run/postern";
/// The directory for caches.
const CACHE: &str = "/var/cache/postern";
/// The sidecar's ports, on loopback and for probes.
const PORT: u16 = 8080;
const PROBES: u16 = 8081;
/// The user of all containers; any UID except 0 works.
const USER: i64 = 65_532;

/// The kind of workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Runs on a schedule.
    CronJob {
        /// The schedule (cron syntax).
        schedule: String,
        /// The time zone.
        time_zone: String,
    },
    /// Runs once.
    Job,
    /// Runs always.
    Deployment {
        /// The number of replicas.
        replicas: u32,
    },
}

/// How the container gets the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From `identity proxy` in a sidecar.
    Sidecar,
    /// From `identity exec`, which wraps its command.
    Exec,
}

/// The workload to write.
#[derive(Debug, Clone)]
pub struct Workload<'a> {
    /// The kind.
    pub kind: Kind,
    /// Its name, and that of all its objects.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its `ServiceAccount`, which is created.
    pub service_account: &'a str,
    /// The container's image.
    pub image: &'a str,
    /// The image that contains Postern's program at `/postern`.
    pub postern_image: &'a str,
    /// How it gets the credentials.
    pub way: Way,
    /// The container's command; the image's own when empty (with a sidecar only).
    pub command: &'a [String],
    /// The providers, from the configuration.
    pub providers: &'a BTreeMap<String, Provider>,
    /// The content of the `ca_file`s (PEM): a pod does not have the local files.
    pub authorities: &'a BTreeMap<PathBuf, String>,
}

/// The workload cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// The token's audience is not known.
    #[error("providers.{0}: no audience is set")]
    Audience(String),
    /// The grant needs a user.
    #[error("providers.{name}: grant {grant} needs a person, and nobody sits at a pod")]
    Person {
        /// The provider.
        name: String,
        /// The grant.
        grant: &'static str,
    },
    /// The source is not available in a pod.
    #[error("providers.{name}: source {source_kind} is not available in a pod; use kubernetes_sa")]
    Source {
        /// The provider.
        name: String,
        /// The source.
        source_kind: &'static str,
    },
    /// The sidecar has nothing to serve.
    #[error("providers.{0}: no `api` is set, and a sidecar only serves APIs")]
    NoApi(String),
    /// The wrapper has no command.
    #[error("the exec wrapper needs a command to start")]
    NoCommand,
}

/// Returns the manifests, in the order in which to apply them.
pub fn manifests(workload: &Workload<'_>) -> Result<Vec<Value>, WorkloadError> {
    if workload.way == Way::Exec && workload.command.is_empty() {
        return Err(WorkloadError::NoCommand);
    }
    let mut providers = serde_json::Map::new();
    let mut sources = Vec::new();
    let mut files = serde_json::Map::new();
    for (name, provider) in workload.providers {
        let (mut provider, tokens) = mounted(name, provider)?;
        let mut carry = |place: &mut Option<PathBuf>, file: String| {
            if let Some(pem) = place.as_ref().and_then(|path| workload.authorities.get(path)) {
                *place = Some(format!("{CONFIG}/{file}").into());
                files.insert(file, pem.as_str().into());
            }
        };
        carry(&mut provider.ca_file, format!("{name}.crt"));
        if let Some(api) = &mut provider.api {
            carry(&mut api.ca_file, format!("{name}-api.crt"));
        }
        if workload.way == Way::Sidecar && provider.api.is_none() && provider.r#type != ProviderType::Aws {
            return Err(WorkloadError::NoApi(name.clone()));
        }
        sources.extend(tokens.into_iter().map(|(path, audience)| {
            json!({"serviceAccountToken": {"path": path, "audience": audience, "expirationSeconds": 3600}})
        }));
        providers.insert(name.clone(), without_nothing(&provider));
    }
    // JSON is YAML.
    let config = serde_json::to_string_pretty(&json!({"providers": providers})).unwrap_or_default() + "\n";
    files.insert("config.yaml".to_owned(), config.into());
    let pod = pod(workload, &sources);
    let (api, spec) = spec(workload, &pod);
    let kind = match workload.kind {
        Kind::CronJob { .. } => "CronJob",
        Kind::Job => "Job",
        Kind::Deployment { .. } => "Deployment",
    };
    Ok(vec![
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": false,
            "metadata": metadata(workload, workload.service_account),
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(workload, workload.name),
            "data": files,
        }),
        json!({"apiVersion": api, "kind": kind, "metadata": metadata(workload, workload.name), "spec": spec}),
    ])
}

fn labels(workload: &Workload<'_>) -> Value {
    json!({"app.kubernetes.io/name": workload.name})
}

fn metadata(workload: &Workload<'_>, name: &str) -> Value {
    json!({"name": name, "namespace": workload.namespace, "labels": labels(workload)})
}

/// Returns the provider with the paths of its mounted tokens, and each token's path below [`TOKENS`] with its
/// audience.
fn mounted(name: &str, provider: &Provider) -> Result<(Provider, Vec<(String, String)>), WorkloadError> {
    let mut provider = provider.clone();
    if let Some(grant) = provider.grant().filter(|grant| grant.is_interactive()) {
        return Err(WorkloadError::Person { name: name.to_owned(), grant: grant.name() });
    }
    let default = match provider.r#type {
        ProviderType::Gcp => provider
            .workload_identity_provider
            .as_deref()
            .map(|full| format!("https:{}", crate::exchange::gcp_audience(full))),
        // The usual audience: the issuer itself (RFC 7523 section 3).
        ProviderType::Oauth2 => provider.issuer.clone(),
        other => other.default_audience().map(str::to_owned),
    };
    let mut tokens = Vec::new();
    let mut mount = |kind: SourceKind, file: &str, audience: Option<String>| {
        if kind != SourceKind::KubernetesSa {
            return Err(WorkloadError::Source { name: name.to_owned(), source_kind: kind.name() });
        }
        let audience = audience.or_else(|| default.clone());
        let audience = audience.ok_or_else(|| WorkloadError::Audience(name.to_owned()))?;
        let place = format!("{name}/{file}");
        let path = format!("{TOKENS}/{place}").into();
        tokens.push((place, audience));
        Ok(Some(path))
    };
    if let Some(source) = provider.subject() {
        let path = mount(source.r#type, "token", source.audience.clone())?;
        provider.subject_token = Some(TokenSource { path, ..source });
    }
    let alone = provider.subject_token.is_none();
    if let Some(assertion) = &mut provider.client_assertion {
        // One token each: both may be for the same server, which may accept each for one purpose only.
        let kind = assertion.source().map_or(SourceKind::File, |source| source.r#type);
        let path = mount(kind, if alone { "token" } else { "client" }, assertion.audience.clone())?;
        *assertion = ClientAssertion { path, ..assertion.clone() };
    }
    if tokens.is_empty() {
        return Err(WorkloadError::Source { name: name.to_owned(), source_kind: "client_secret" });
    }
    Ok((provider, tokens))
}

/// Returns a provider without the fields that are not set.
fn without_nothing(provider: &Provider) -> Value {
    fn strip(value: Value) -> Option<Value> {
        match value {
            Value::Null => None,
            Value::Array(all) if all.is_empty() => None,
            Value::Object(all) => {
                let left: serde_json::Map<_, _> =
                    all.into_iter().filter_map(|(key, value)| Some((key, strip(value)?))).collect();
                (!left.is_empty()).then_some(Value::Object(left))
            }
            other => Some(other),
        }
    }
    serde_json::to_value(provider).ok().and_then(strip).unwrap_or_default()
}

fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    })
}

/// Adds an entry to a list.
fn push(list: &mut Value, entry: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(entry);
    }
}

fn pod(workload: &Workload<'_>, sources: &[Value]) -> Value {
    let environment = json!([
        {"name": "POSTERN_CONFIG", "value": format!("{CONFIG}/config.yaml")},
        {"name": "XDG_CACHE_HOME", "value": CACHE},
        // No user can log in, even if there seems to be a terminal.
        {"name": "CI", "value": "true"},
    ]);
    let mut ours = json!([
        {"name": "tokens", "mountPath": TOKENS, "readOnly": true},
        {"name": "config", "mountPath": CONFIG, "readOnly": true},
        {"name": "cache", "mountPath": CACHE},
    ]);
    let mut container = json!({
        "name": "main", "image": workload.image, "imagePullPolicy": "IfNotPresent",
        "securityContext": restricted(),
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
    });
    let resources = json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}});
    let mut volumes = json!([
        {"name": "tokens", "projected": {"sources": sources}},
        {"name": "config", "configMap": {"name": workload.name}},
        {"name": "cache", "emptyDir": {"sizeLimit": "16Mi"}},
    ]);
    let mut first = json!({
        "name": "postern", "image": workload.postern_image, "imagePullPolicy": "IfNotPresent",
        "securityContext": restricted(), "resources": resources,
    });
    if !workload.command.is_empty() {
        container["command"] = json!(workload.command);
    }
    match workload.way {
        Way::Sidecar => {
            let mut args = json!([
                "identity",
                "proxy",
                "--listen",
                format!("127.0.0.1:{PORT}"),
                "--probe-listen",
                format!("0.0.0.0:{PROBES}"),
            ]);
            let (known, aws) = addresses(workload);
            container["env"] = known;
            if aws {
                push(&mut args, "--aws-token-file".into());
                push(&mut args, format!("{RUN}/aws-token").into());
                push(
                    &mut volumes,
                    json!({"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
                );
                push(&mut ours, json!({"name": "run", "mountPath": RUN}));
                container["volumeMounts"] = json!([{"name": "run", "mountPath": RUN, "readOnly": true}]);
            }
            if let Kind::Deployment { .. } = workload.kind {
                // The pod is ready when its credentials are.
                container["readinessProbe"] = json!({"httpGet": {"path": "/readyz", "port": PROBES}});
            }
            first["restartPolicy"] = "Always".into();
            (first["args"], first["env"], first["volumeMounts"]) = (args, environment, ours);
            // The main container starts once there are credentials.
            first["startupProbe"] = json!({"httpGet": {"path": "/readyz", "port": PROBES}, "periodSeconds": 1, "failureThreshold": 60});
        }
        Way::Exec => {
            let mut command = vec![format!("{PROGRAM}/postern"), "identity".to_owned(), "exec".to_owned()];
            command.extend(workload.providers.keys().cloned());
            command.push("--".to_owned());
            command.extend(workload.command.iter().cloned());
            container["command"] = json!(command);
            container["env"] = environment;
            push(&mut container["env"], json!({"name": "TMPDIR", "value": CACHE}));
            push(&mut ours, json!({"name": "program", "mountPath": PROGRAM, "readOnly": true}));
            container["volumeMounts"] = ours;
            push(&mut volumes, json!({"name": "program", "emptyDir": {"sizeLimit": "64Mi"}}));
            first["args"] = json!(["__install", format!("{PROGRAM}/postern")]);
            first["volumeMounts"] = json!([{"name": "program", "mountPath": PROGRAM}]);
        }
    }
    json!({
        "serviceAccountName": workload.service_account,
        // It gets only the projected tokens: none for the API server.
        "automountServiceAccountToken": false,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [first],
        "containers": [container],
        "volumes": volumes,
    })
}

/// Returns the variables with the APIs' addresses, and whether one of them is AWS.
fn addresses(workload: &Workload<'_>) -> (Value, bool) {
    let mut known = json!([]);
    let mut add = |name: String, value: String| push(&mut known, json!({"name": name, "value": value}));
    let mut aws = false;
    for (name, provider) in workload.providers {
        if provider.api.is_some() {
            let variable = format!("{}_URL", crate::render::variable_prefix(name));
            add(variable, format!("http://127.0.0.1:{PORT}/{name}"));
        } else if !std::mem::replace(&mut aws, true) {
            // An SDK supports one such address.
            let uri = format!("http://127.0.0.1:{PORT}/aws-credentials/{name}");
            add("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), uri);
            add("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE".to_owned(), format!("{RUN}/aws-token"));
            if let Some(region) = &provider.region {
                for name in crate::render::REGION {
                    add(name.to_owned(), region.clone());
                }
            }
        }
    }
    (known, aws)
}

fn spec(workload: &Workload<'_>, pod: &Value) -> (&'static str, Value) {
    let template = |pod: &Value| json!({"metadata": {"labels": labels(workload)}, "spec": pod});
    let once = || {
        let mut pod = pod.clone();
        pod["restartPolicy"] = "Never".into();
        template(&pod)
    };
    match &workload.kind {
        Kind::CronJob { schedule, time_zone } => (
            "batch/v1",
            json!({
                "schedule": schedule, "timeZone": time_zone, "concurrencyPolicy": "Forbid",
                "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 3, "startingDeadlineSeconds": 300,
                "jobTemplate": {"spec": {
                    "backoffLimit": 1, "activeDeadlineSeconds": 1800, "template": once(),
                }},
            }),
        ),
        Kind::Job => (
            "batch/v1",
            json!({
                "backoffLimit": 1, "activeDeadlineSeconds": 1800, "ttlSecondsAfterFinished": 3600,
                "template": once(),
            }),
        ),
        Kind::Deployment { replicas } => (
            "apps/v1",
            json!({
                "replicas": replicas, "selector": {"matchLabels": labels(workload)}, "template": template(pod),
            }),
        ),
    }
}

#[cfg(test)]
mod tests;
