//! Workloads as `postern identity manifest` writes them, with tokens that the cluster's kubelet projects.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use e2e::pods::{Namespace, apply, manifests, wait};
use e2e::{enabled, get, kubectl, testbed};
use serde_json::{Value, json};
use std::time::Duration;

const NAMESPACE: &str = "sidecar-e2e";
const AUDIENCE: &str = "https://as.example.com";
const STUB: &str = "127.0.0.1:9090";

fn raw(path: &str) -> Value {
    serde_json::from_str(&kubectl(&["get", "--raw", path]).ok().stdout).unwrap()
}

/// The manifests, with an authorization server and its API in the pod: it takes what the kubelet projects, by the
/// cluster's own keys, and nothing else.
fn with_stub(args: &[&str]) -> Vec<Value> {
    let providers = json!({"reports": {
        "type": "oauth2", "token_endpoint": format!("http://{STUB}/token"), "grant": "jwt_bearer", "client_id": "runner",
        "subject_token": {"type": "kubernetes_sa", "audience": AUDIENCE},
        "api": {"base_url": format!("http://{STUB}/v1")},
    }});
    let mut list = manifests(&providers, args);
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
    let _namespace = Namespace::restricted(NAMESPACE);
    let ask = ["--", "sh", "-c", "curl -sS \"$REPORTS_URL/items?a=1\""];

    // A CronJob's pod, started now. Beside it a native sidecar; the Job ends although that would run on.
    let mut args = vec!["cronjob", "--schedule", "0 9 * * 1-5"];
    args.extend(COMMON.iter().chain(&ask));
    apply(&with_stub(&args));
    kubectl(&["create", "job", "-n", NAMESPACE, "now", "--from=cronjob/digest"]).ok();
    wait(NAMESPACE, "job/now", "condition=complete");
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
    apply(&with_stub(&args));
    wait(NAMESPACE, "job/digest", "condition=complete");
    assert_eq!(seen(&logs("job/digest"))["path"], "/v1/wrapped");
    kubectl(&["delete", "job", "-n", NAMESPACE, "--all", "--wait=true"]).ok();

    // A Deployment is ready when its credentials are, has no right, and no token for the API server.
    let mut args = vec!["deployment"];
    args.extend(COMMON);
    args.extend(["--", "sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]);
    apply(&with_stub(&args));
    wait(NAMESPACE, "deployment/digest", "condition=available");
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
