//! The controller in the cluster, and the objects that its tests make.

use crate::pods::apply;
use crate::registry::{A1, pull_secret};
use crate::{Outcome, enabled, get, kubectl, make_namespace, postern};
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::time::Duration;

/// The namespace of the controller.
pub const SYSTEM: &str = "postern-system";

/// The namespace of the sources.
pub const PLATFORM: &str = "e2e-platform";

/// Everything but a pull happens within this time.
pub const SOON: Duration = Duration::from_secs(15);

/// The bound for a Pod that was created before its Secret.
pub const RUNNING: Duration = Duration::from_secs(45);

/// Installs the controller once for all tests of this program.
pub fn installed() -> bool {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    if !enabled() {
        return false;
    }
    INSTALLED.get_or_init(|| {
        install_all();
        make_namespace(PLATFORM);
        apply(&[pull_secret(PLATFORM, "vendor", A1)]);
    });
    true
}

/// `postern controller install` with two replicas.
pub fn install(args: &[&str]) -> Outcome {
    Outcome::of(postern().args(["controller", "install", "--replicas", "2"]).args(args))
}

/// The same with every part.
pub fn install_all() {
    install(&["--parts", "pull-secrets,restart-stuck,volumes"]).ok();
}

/// A custom resource of Postern.
pub fn object(kind: &str, namespace: Option<&str>, name: &str, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "postern.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

/// A `ClusterPullSecret` for namespaces with the label `case=NAME`.
pub fn for_case(name: &str, more: &Value) -> Value {
    let mut spec = json!({
        "source": {"namespace": PLATFORM, "name": "vendor"},
        "namespaces": {"selector": {"matchLabels": {"case": name}}},
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    object("ClusterPullSecret", None, name, &spec)
}

/// A namespace with the label `case=CASE`.
pub fn namespace(name: &str, case: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"case": case}}})
}

/// A `ServiceAccount`.
pub fn account(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
}

/// A Pod of one container.
pub fn pod(namespace: &str, name: &str, account: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "serviceAccountName": account, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": image}],
        },
    })
}

/// The phase of a Pod; empty if there is none.
pub fn phase(namespace: &str, name: &str) -> String {
    get(&["-n", namespace, &format!("pod/{name}")])["status"]["phase"].as_str().unwrap_or_default().to_owned()
}

/// Status and reason of the first condition of an object.
pub fn condition(kind: &str, args: &[&str]) -> (String, String) {
    let found = get(&[&[kind], args].concat());
    let one = &found["status"]["conditions"][0];
    let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

/// Deletes without waiting.
pub fn delete(args: &[&str]) {
    kubectl(&[&["delete", "--wait=false", "--ignore-not-found"], args].concat()).ok();
}

/// The docker configuration in a copy.
pub fn data_of(copy: &Value) -> String {
    use base64::Engine as _;
    let data = copy["data"][".dockerconfigjson"].as_str().unwrap();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(data).unwrap()).unwrap()
}
