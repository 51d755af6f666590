//! Workloads as `postern identity manifest` writes them, with tokens that the cluster's kubelet projects.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use e2e::{Outcome, enabled, get, kubectl, kubectl_command, postern, testbed, with_stdin};
use serde_json::{Value, json};
use std::time::Duration;

const NAMESPACE: &str = "identity-e2e";
const AUDIENCE: &str = "https://as.example.com";
const STUB: &str = "127.0.0.1:9090";

/// The namespace, restricted, and gone with the test.
struct Namespace;

impl Namespace {
    fn make() -> Self {
        e2e::apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}, labels: \
             {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ));
        Self
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        kubectl(&["delete", "namespace", NAMESPACE, "--wait=true", "--timeout=90s"]);
    }
}

fn raw(path: &str) -> Value {
    serde_json::from_str(&kubectl(&["get", "--raw", path]).ok().stdout).unwrap()
}

/// The manifests, with an authorization server and its API in the pod: it takes what the kubelet projects, by the
/// cluster's own keys, and nothing else.
fn manifests(args: &[&str]) -> Vec<Value> {
    let home = tempfile::tempdir().unwrap();
    let config = json!({"providers": {"reports": {
        "type": "oauth2", "token_endpoint": format!("http://{STUB}/token"), "grant": "jwt_bearer", "client_id": "runner",
        "subject_token": {"type": "kubernetes_sa", "audience": AUDIENCE},
        "api": {"base_url": format!("http://{STUB}/v1")},
    }}});
    let path = home.path().join("config.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut command = postern();
    command.env("POSTERN_CONFIG", path).args(["identity", "manifest", "-o", "json"]).args(args);
    let mut list = Outcome::of(&mut command).ok().json()["items"].as_array().unwrap().clone();
    let spec = &mut list[2]["spec"];
    let template = if spec.get("jobTemplate").is_some() {
        &mut spec["jobTemplate"]["spec"]["template"]
    } else {
        &mut spec["template"]
    };
    let issuer = raw("/.well-known/openid-configuration")["issuer"].as_str().unwrap().to_owned();
    let stub = json!({
        "name": "stub", "image": "ghcr.io/postern-dev/postern-ops-ibm:dev", "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": ["/usr/local/bin/cloud", "provider", STUB, issuer, raw("/openid/v1/jwks").to_string(), AUDIENCE],
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        },
    });
    template["spec"]["initContainers"].as_array_mut().unwrap().insert(0, stub);
    list
}

fn apply(list: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": list});
    with_stdin(&mut kubectl_command(&["apply", "-f", "-"]), list.to_string().as_bytes()).ok();
}

fn wait(what: &str, condition: &str) {
    let outcome = kubectl(&["wait", "-n", NAMESPACE, what, &format!("--for={condition}"), "--timeout=90s"]);
    if outcome.code != 0 {
        let pods = kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "yaml"]).stdout;
        let logs = kubectl(&[
            "logs",
            "-n",
            NAMESPACE,
            "--all-containers",
            "--prefix",
            "--selector",
            "app.kubernetes.io/name=digest",
        ]);
        outcome.says(&[&format!("{}{}{pods}", logs.stdout, logs.stderr)]);
    }
}

fn logs(of: &str) -> String {
    kubectl(&["logs", "-n", NAMESPACE, of, "-c", "main"]).ok().stdout
}

/// What the API says of the request that reached it.
fn seen(log: &str) -> Value {
    serde_json::from_str(log.lines().last().unwrap_or_default()).unwrap_or_else(|_| json!({"log": log}))
}

const COMMON: [&str; 5] =
    ["digest", "--namespace", NAMESPACE, "--image", "docker.io/library/debian-tools:12"];

#[test]
fn a_cron_job_a_job_and_a_deployment_reach_their_api_with_the_kubelets_token() {
    if !enabled() || !testbed() {
        return;
    }
    let _namespace = Namespace::make();
    let ask = ["--", "sh", "-c", "curl -sS \"$REPORTS_URL/items?a=1\""];

    // A CronJob's pod, started now. Beside it a native sidecar; the Job ends although that would run on.
    let mut args = vec!["cronjob", "--schedule", "0 9 * * 1-5"];
    args.extend(COMMON.iter().chain(&ask));
    apply(&manifests(&args));
    kubectl(&["create", "job", "-n", NAMESPACE, "now", "--from=cronjob/digest"]).ok();
    wait("job/now", "condition=complete");
    let found = seen(&logs("job/now"));
    assert_eq!(
        (found["path"].as_str(), found["query"].as_str()),
        (Some("/v1/items"), Some("a=1")),
        "{found}"
    );
    assert!(found["authorization"].as_str().unwrap().starts_with("Bearer access-"), "{found}");
    kubectl(&["delete", "cronjob,job", "-n", NAMESPACE, "--all", "--wait=true"]).ok();

    // A Job whose command is wrapped.
    let script =
        format!("curl -sS -H \"Authorization: Bearer $REPORTS_ACCESS_TOKEN\" http://{STUB}/v1/wrapped");
    let mut args = vec!["job"];
    args.extend(COMMON);
    args.extend(["--way", "exec", "--", "sh", "-c", &script]);
    apply(&manifests(&args));
    wait("job/digest", "condition=complete");
    assert_eq!(seen(&logs("job/digest"))["path"], "/v1/wrapped");
    kubectl(&["delete", "job", "-n", NAMESPACE, "--all", "--wait=true"]).ok();

    // A Deployment is ready when its credentials are, has no right, and no token for the API server.
    let mut args = vec!["deployment"];
    args.extend(COMMON);
    args.extend(["--", "sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]);
    apply(&manifests(&args));
    wait("deployment/digest", "condition=available");
    let inside =
        kubectl(&["exec", "-n", NAMESPACE, "deploy/digest", "-c", "main", "--", "sh", "-c", ask[3]]).ok();
    assert_eq!(seen(&inside.stdout)["path"], "/v1/items");
    let none = [
        "exec",
        "-n",
        NAMESPACE,
        "deploy/digest",
        "-c",
        "main",
        "--",
        "ls",
        "/var/run/secrets/kubernetes.io",
    ];
    assert_ne!(kubectl(&none).code, 0);
    let who = format!("system:serviceaccount:{NAMESPACE}:digest");
    for verb in ["get", "list", "create"] {
        let can = kubectl(&["auth", "can-i", verb, "secrets", "-n", NAMESPACE, "--as", &who]);
        assert_eq!(can.stdout.trim(), "no");
    }
    let pods = get(&["pods", "-n", NAMESPACE]);
    let sidecar = &pods["items"][0]["status"]["initContainerStatuses"][1];
    assert_eq!((sidecar["name"].as_str(), sidecar["ready"].as_bool()), (Some("postern"), Some(true)));
    // Ends when it is told to.
    let told = std::time::Instant::now();
    kubectl(&["delete", "deployment", "digest", "-n", NAMESPACE, "--wait=true"]).ok();
    e2e::eventually("the pod is gone", Duration::from_secs(60), || {
        get(&["pods", "-n", NAMESPACE])["items"].as_array().unwrap().is_empty()
    });
    assert!(told.elapsed() < Duration::from_secs(60));
}
