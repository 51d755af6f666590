//! `postern volumes`: a workload that cannot write its volume can after the patch.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use e2e::pods::{apply, wait};
use e2e::{Outcome, enabled, kubectl, make_namespace, postern, with_stdin};
use serde_json::{Value, json};

/// A claim of the local-path class, whose directories belong to 1000:1000, and a distroless pod that runs as 2000:3000
/// and writes a file in it.
fn pod(name: &str, claim: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsUser": 2000, "runAsGroup": 3000, "fsGroup": 3000, "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "main", "image": "docker.io/library/scratch-static:1",
                "command": ["/app", "write", format!("/data/{name}")],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        },
    })
}

fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    })
}

/// A namespace that enforces this Pod Security Standard.
fn make(namespace: &str, level: &str) {
    make_namespace(namespace);
    let label = format!("pod-security.kubernetes.io/enforce={level}");
    kubectl(&["label", "--overwrite", "namespace", namespace, &label]).ok();
}

fn in_namespace(namespace: &str, mut object: Value) -> Value {
    object["metadata"]["namespace"] = namespace.into();
    object
}

/// `postern volumes patch -f - FLAGS`.
fn patched(object: &Value, flags: &[&str]) -> String {
    let mut command = postern();
    command.args(["volumes", "patch", "-f", "-"]).args(flags);
    with_stdin(&mut command, serde_json::to_string_pretty(object).unwrap().as_bytes()).ok().stdout
}

fn kubectl_apply(namespace: &str, text: &str) -> Outcome {
    let mut command = e2e::kubectl_command(&["apply", "-n", namespace, "-f", "-"]);
    with_stdin(&mut command, text.as_bytes())
}

#[test]
fn a_non_root_workload_writes_its_volume_after_the_patch_and_fails_without() {
    if !enabled() {
        return;
    }
    let namespace = "e2e-volumes";
    make(namespace, "baseline");
    apply(&[in_namespace(namespace, claim("data")), in_namespace(namespace, pod("without", "data"))]);
    // `fsGroup` does nothing for the hostPath volume that this class makes.
    wait(namespace, "pod/without", "jsonpath={.status.phase}=Failed");
    let log = kubectl(&["logs", "-n", namespace, "without"]).ok();
    assert!(log.stdout.contains("permission denied"), "{}", log.stdout);

    let by_agent = patched(&pod("with", "data"), &[]);
    assert!(by_agent.contains("postern-agent:dev"), "{by_agent}");
    kubectl_apply(namespace, &by_agent).ok();
    wait(namespace, "pod/with", "jsonpath={.status.phase}=Succeeded");
    let log = kubectl(&["logs", "-n", namespace, "with", "-c", "postern-own"]).ok();
    assert!(log.stdout.contains("2000:3000") || log.stderr.contains("2000:3000"), "{}", log.stdout);

    // By a shell, in a claim of its own. A second patch changes nothing.
    apply(&[in_namespace(namespace, claim("other"))]);
    let flags = ["--by", "chown", "--image", "docker.io/library/busybox:1.35"];
    let by_shell = patched(&pod("by-shell", "other"), &flags);
    let again: Value = serde_json::from_str(&by_shell).unwrap();
    assert_eq!(patched(&again, &flags), serde_json::to_string_pretty(&again).unwrap() + "\n");
    kubectl_apply(namespace, &by_shell).ok();
    wait(namespace, "pod/by-shell", "jsonpath={.status.phase}=Succeeded");
    kubectl(&["delete", "namespace", namespace, "--wait=false"]).ok();
}

/// The Pod Security Standards say about the init container what the documentation says.
#[test]
fn baseline_permits_the_init_container_and_restricted_does_not() {
    if !enabled() {
        return;
    }
    let object = patched(&pod("levels", "data"), &["--keep-setuid"]);
    for (namespace, level) in [("e2e-volumes-baseline", "baseline"), ("e2e-volumes-restricted", "restricted")]
    {
        make(namespace, level);
        let mut command = e2e::kubectl_command(&["apply", "-n", namespace, "--dry-run=server", "-f", "-"]);
        let outcome = with_stdin(&mut command, object.as_bytes());
        if level == "baseline" {
            outcome.ok();
        } else {
            outcome.exits(1).says(&["violates PodSecurity", "postern-own"]);
        }
        kubectl(&["delete", "namespace", namespace, "--wait=false"]).ok();
    }
}
