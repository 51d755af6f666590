//! The controller's objects.

use crate::names::{NAME, WEBHOOK};
use crate::rules::{Rule, rules};
use crate::settings::{Part, Settings, trace_port};
use kube::CustomResourceExt as _;
use postern_volume::VolumeOwnership;
use serde_json::{Value, json};

/// Namespaces in which no Pod is changed: a cluster must start without the controller.
const LEFT_OUT: [&str; 2] = ["kube-system", "kube-node-lease"];

/// All objects, in the order in which they are applied.
pub fn objects(settings: &Settings) -> Vec<Value> {
    let mut objects = vec![namespace(settings)];
    objects.extend(definitions(settings));
    objects.push(account(settings));
    objects.extend(roles(settings));
    if settings.certificate_secret.is_none() {
        objects.push(certificate(settings));
    }
    objects.extend([
        service(settings),
        network_policy(settings),
        disruption_budget(settings),
        deployment(settings),
        webhook(settings),
    ]);
    objects
}

fn labels(settings: &Settings) -> Value {
    json!({
        "app.kubernetes.io/name": NAME, "app.kubernetes.io/managed-by": "postern",
        "app.kubernetes.io/version": settings.version,
    })
}

fn selector() -> Value {
    json!({"app.kubernetes.io/name": NAME})
}

fn metadata(settings: &Settings, name: &str) -> Value {
    json!({"name": name, "namespace": settings.namespace, "labels": labels(settings)})
}

fn cluster_metadata(settings: &Settings, name: &str) -> Value {
    json!({"name": name, "labels": labels(settings)})
}

fn namespace(settings: &Settings) -> Value {
    let mut metadata = cluster_metadata(settings, &settings.namespace);
    for mode in ["enforce", "audit", "warn"] {
        metadata["labels"][format!("pod-security.kubernetes.io/{mode}")] = json!("restricted");
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
}

/// The custom resources of the parts that are on.
fn definitions(settings: &Settings) -> Vec<Value> {
    let mut definitions = Vec::new();
    if settings.has(Part::PullSecrets) {
        definitions.extend(postern_pullsecret::definitions());
    }
    if settings.has(Part::Volumes) {
        definitions.push(VolumeOwnership::crd());
    }
    let values = definitions.into_iter().map(|definition| {
        let mut value = json!(definition);
        value["metadata"]["labels"] = labels(settings);
        value
    });
    values.collect()
}

fn account(settings: &Settings) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(settings, NAME)})
}

/// A Role for the own namespace, a `ClusterRole` for every part, and their bindings.
fn roles(settings: &Settings) -> Vec<Value> {
    let rules = rules(settings);
    let subject = json!([{"kind": "ServiceAccount", "name": NAME, "namespace": settings.namespace}]);
    let own = rules.iter().filter(|rule| rule.is_own);
    let mut objects = role("Role", &metadata(settings, NAME), own, settings, &subject);
    for part in [None].into_iter().chain(Part::ALL.map(Some)) {
        let of: Vec<_> = rules.iter().filter(|rule| !rule.is_own && rule.part == part).collect();
        if of.is_empty() {
            continue;
        }
        let name = part.map_or_else(|| NAME.to_owned(), |part| format!("{NAME}-{part}"));
        let metadata = cluster_metadata(settings, &name);
        objects.extend(role("ClusterRole", &metadata, of.into_iter(), settings, &subject));
    }
    objects
}

fn role<'r>(
    kind: &str,
    metadata: &Value,
    rules: impl Iterator<Item = &'r Rule>,
    settings: &Settings,
    subject: &Value,
) -> Vec<Value> {
    let certificate = settings.certificate_secret.as_deref();
    let (mut list, mut reasons) = (Vec::new(), Vec::new());
    for rule in rules {
        list.push(rule.value(certificate));
        let verbs = rule.verbs.join(",");
        reasons.push(format!("{verbs} {}: {}", rule.resources.join(","), rule.reason));
    }
    let mut described = metadata.clone();
    described["annotations"] = json!({"postern.dev/reasons": reasons.join("\n")});
    let api_version = "rbac.authorization.k8s.io/v1";
    let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": metadata["name"]});
    vec![
        json!({"apiVersion": api_version, "kind": kind, "metadata": described, "rules": list}),
        json!({
            "apiVersion": api_version, "kind": format!("{kind}Binding"), "metadata": metadata,
            "roleRef": reference, "subjects": subject,
        }),
    ]
}

/// Empty: the controller fills it. As a part of the install, an uninstall removes it.
fn certificate(settings: &Settings) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata(settings, WEBHOOK)})
}

fn service(settings: &Settings) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(settings, NAME),
        "spec": {
            "selector": selector(),
            "ports": [{"name": "webhook", "port": 443, "targetPort": "webhook", "protocol": "TCP"}],
        },
    })
}

/// The API server and the kubelet are not Pods, so that they cannot be named as sources; the ports are.
fn network_policy(settings: &Settings) -> Value {
    let port = |protocol: &str, port: Value| json!({"protocol": protocol, "port": port});
    let mut egress = vec![
        json!({"ports": [port("TCP", json!(443)), port("TCP", json!(6443))]}),
        json!({"ports": [port("UDP", json!(53)), port("TCP", json!(53))]}),
    ];
    let collector = settings.trace_endpoint.as_deref().and_then(trace_port);
    egress.extend(collector.map(|number| json!({"ports": [port("TCP", json!(number))]})));
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata(settings, NAME),
        "spec": {
            "podSelector": {"matchLabels": selector()},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [port("TCP", json!("webhook")), port("TCP", json!("health"))]}],
            "egress": egress,
        },
    })
}

fn disruption_budget(settings: &Settings) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(settings, NAME),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector()}},
    })
}

fn deployment(settings: &Settings) -> Value {
    let Settings {
        image,
        agent_image,
        replicas,
        parts,
        certificate_secret,
        image_pull_secret,
        trace_endpoint,
        ..
    } = settings;
    let parts = parts.iter().map(|part| part.name()).collect::<Vec<_>>().join(",");
    let mut args = vec!["run".to_owned(), format!("--parts={parts}"), format!("--agent-image={agent_image}")];
    args.extend(trace_endpoint.iter().map(|url| format!("--trace-endpoint={url}")));
    args.extend(certificate_secret.iter().map(|name| format!("--certificate-secret={name}")));
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "health"}, "periodSeconds": 5});
    let spread = |key: &str| {
        json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector()},
        })
    };
    let container = json!({
        "name": "controller", "image": image, "imagePullPolicy": "IfNotPresent", "args": args,
        "env": [field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace")],
        "ports": [
            {"name": "webhook", "containerPort": 8443, "protocol": "TCP"},
            {"name": "health", "containerPort": 8080, "protocol": "TCP"},
        ],
        "livenessProbe": probe("/healthz"), "readinessProbe": probe("/readyz"),
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    let mut pod = json!({
        "serviceAccountName": NAME, "containers": [container], "terminationGracePeriodSeconds": 30,
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": selector()},
            },
        }]}},
        "topologySpreadConstraints": [spread("topology.kubernetes.io/zone")],
    });
    if let Some(name) = image_pull_secret {
        pod["imagePullSecrets"] = json!([{"name": name}]);
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(settings, NAME),
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": selector()},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}},
            "template": {
                "metadata": {
                    "labels": labels(settings),
                    "annotations": {"kubectl.kubernetes.io/default-container": "controller"},
                },
                "spec": pod,
            },
        },
    })
}

/// The last one: the API server calls the webhook from now on. While nobody answers, Pods are created as they are.
fn webhook(settings: &Settings) -> Value {
    let mut names: Vec<&str> = LEFT_OUT.to_vec();
    names.push(&settings.namespace);
    let mut metadata = cluster_metadata(settings, WEBHOOK);
    if let Some(secret) = &settings.certificate_secret {
        // cert-manager puts the CA of this Secret's certificate into the configuration.
        metadata["annotations"] =
            json!({"cert-manager.io/inject-ca-from-secret": format!("{}/{secret}", settings.namespace)});
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": metadata,
        "webhooks": [{
            "name": "pods.postern.dev",
            "clientConfig": {
                "service": {"name": NAME, "namespace": settings.namespace, "path": "/mutate/pods", "port": 443},
            },
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                "scope": "Namespaced",
            }],
            "namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": names},
            ]},
            "failurePolicy": "Ignore", "matchPolicy": "Equivalent", "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None", "timeoutSeconds": 3, "admissionReviewVersions": ["v1"],
        }],
    })
}
