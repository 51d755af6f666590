//! Workloads as `postern identity manifest` writes them, in a namespace that goes with the test.

use crate::{Outcome, kubectl, kubectl_command, postern, with_stdin};
use serde_json::{Value, json};

/// A namespace with the restricted Pod Security Standard.
pub struct Namespace(&'static str);

impl Namespace {
    /// Makes it.
    pub fn restricted(name: &'static str) -> Self {
        crate::apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: \
             {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ));
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        kubectl(&["delete", "namespace", self.0, "--wait=true", "--timeout=90s"]);
    }
}

/// `identity manifest ARGS` with a configuration of these providers.
pub fn manifests(providers: &Value, args: &[&str]) -> Vec<Value> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config.yaml");
    std::fs::write(&path, json!({"providers": providers}).to_string()).unwrap();
    let mut command = postern();
    command.env("POSTERN_CONFIG", path).args(["identity", "manifest", "-o", "json"]).args(args);
    Outcome::of(&mut command).ok().json()["items"].as_array().unwrap().clone()
}

/// Applies them.
pub fn apply(list: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": list});
    with_stdin(&mut kubectl_command(&["apply", "-f", "-"]), list.to_string().as_bytes()).ok();
}

/// `kubectl wait`; says what the pods are at when it is in vain.
pub fn wait(namespace: &str, what: &str, condition: &str) {
    let outcome = kubectl(&["wait", "-n", namespace, what, &format!("--for={condition}"), "--timeout=90s"]);
    if outcome.code != 0 {
        let pods = kubectl(&["get", "pods", "-n", namespace, "-o", "yaml"]).stdout;
        let selector = "app.kubernetes.io/name=digest";
        let logs =
            kubectl(&["logs", "-n", namespace, "--all-containers", "--prefix", "--selector", selector]);
        outcome.says(&[&format!("{}{}{pods}", logs.stdout, logs.stderr)]);
    }
}
