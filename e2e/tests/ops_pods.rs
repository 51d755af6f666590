//! Several ops pods in one cluster: a team's own beside others, which share nothing.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use e2e::{Outcome, enabled, eventually, get, kubectl, make_namespace, postern, write_kubeconfig};
use serde_json::json;
use std::time::Duration;

const TEAM: &str = "e2e-team";

/// The program for one ops pod of the team's namespace.
fn at(name: &str, args: &[&str]) -> std::process::Command {
    let mut command = postern();
    command.env("POSTERN_OPS_NAMESPACE", TEAM).env("POSTERN_OPS_NAME", name).args(args);
    command
}

fn with(name: &str, args: &[&str]) -> Outcome {
    Outcome::of(&mut at(name, args))
}

fn install(name: &str, key: &str) {
    let mut command = at(name, &["ops", "install", "--stream", "--timeout", "90s"]);
    Outcome::of(command.env("IBMCLOUD_API_KEY", key)).ok();
}

fn uninstall(name: &str) {
    with(name, &["ops", "uninstall", "--confirm", "--timeout", "90s"]).ok();
}

#[test]
fn two_ops_pods_of_a_namespace_share_neither_keys_nor_credentials() {
    if !enabled() {
        return;
    }
    make_namespace(TEAM);
    let before = get(&["namespace", TEAM])["metadata"]["uid"].clone();
    install("one", "key-of-one-0123456789");
    install("two", "key-of-two-0123456789");
    // Each has its own credential, in a Secret that only it mounts.
    let sum = |name: &str| {
        let script = "printf %s \"$IBMCLOUD_API_KEY\" | sha256sum";
        with(name, &["run", "--", "sh", "-c", script]).ok().stdout
    };
    assert_ne!(sum("one"), sum("two"));
    for name in ["one", "two"] {
        let pod = get(&["-n", TEAM, &format!("pod/{name}")]);
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        let secrets: Vec<_> =
            volumes.iter().filter_map(|volume| volume["secret"]["secretName"].as_str()).collect();
        assert_eq!(secrets, [format!("{name}-credentials")]);
        assert_eq!(pod["spec"]["serviceAccountName"], name);
        with(name, &["run", "--transport", "stream", "--", "true"]).ok();
        with(name, &["ops", "show", "--check"]).ok();
        assert_eq!(with(name, &["ops", "show", "-o", "json"]).ok().json()["pod"], name);
    }
    // The key of one opens no stream to the other.
    let key = get(&["-n", TEAM, "secret/one-stream"])["data"]["key.der"].clone();
    let installation = get(&["-n", TEAM, "secret/two-stream"])["data"]["installation"].clone();
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("key.pem");
    let text = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", key.as_str().unwrap());
    std::fs::write(&pem, text).unwrap();
    std::fs::set_permissions(&pem, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(installation.is_string());
    let path = pem.to_str().unwrap();
    with("one", &["run", "--transport", "stream", "--stream-key", path, "--", "true"]).ok();
    with("two", &["run", "--transport", "stream", "--stream-key", path, "--", "true"]).exits(127);
    // One goes; the other stays whole, and so does the namespace.
    uninstall("one");
    with("one", &["run", "--", "true"]).exits(127);
    with("two", &["run", "--", "true"]).ok();
    with("two", &["ops", "show", "--check"]).ok();
    uninstall("two");
    let after = get(&["namespace", TEAM]);
    assert_eq!(after["metadata"]["uid"], before);
    assert!(after["metadata"]["deletionTimestamp"].is_null());
    kubectl(&["delete", "namespace", TEAM, "--wait=false"]).ok();
}

#[test]
fn access_of_two_pods_to_one_namespace_is_given_and_taken_apart() {
    if !enabled() {
        return;
    }
    let (one, two, shared) = ("e2e-access-one", "e2e-access-two", "e2e-access-shared");
    [one, two, shared].into_iter().for_each(make_namespace);
    let of = |namespace: &str, args: &[&str]| {
        Outcome::of(postern().env("POSTERN_OPS_NAMESPACE", namespace).args(args))
    };
    for namespace in [one, two] {
        of(namespace, &["ops", "install", "--cluster-access", shared, "--timeout", "90s"]).ok();
    }
    let pods = |namespace: &str| of(namespace, &["run", "--", "kubectl", "get", "pods", "-n", shared]).code;
    assert_eq!((pods(one), pods(two)), (0, 0));
    of(one, &["ops", "uninstall", "--confirm", "--timeout", "90s"]).ok();
    assert_eq!(pods(two), 0);
    of(two, &["ops", "audit", "--within", shared]).ok();
    of(two, &["ops", "install", "--timeout", "90s"]).ok();
    let left = kubectl(&["get", "roles,rolebindings", "-n", shared, "-o", "name"]).ok().stdout;
    assert_eq!(left, "");
    of(two, &["ops", "uninstall", "--confirm", "--timeout", "90s"]).ok();
    kubectl(&["delete", "namespace", "--wait=false", one, two, shared]).ok();
}

/// A team that has `edit` and `admin` in its own namespace, and nothing else in the cluster, has an ops pod there.
#[test]
fn an_admin_of_one_namespace_installs_an_ops_pod_in_it() {
    if !enabled() {
        return;
    }
    let mine = "e2e-admin";
    make_namespace(mine);
    kubectl(&["create", "serviceaccount", "lead", "-n", mine]);
    kubectl(&[
        "create",
        "rolebinding",
        "lead",
        "-n",
        mine,
        "--clusterrole=admin",
        &format!("--serviceaccount={mine}:lead"),
    ]);
    let token = kubectl(&["create", "token", "lead", "-n", mine]).ok().stdout.trim().to_owned();
    let mut config = e2e::whole_kubeconfig();
    config["users"][0]["user"] = json!({ "token": token });
    let config = write_kubeconfig(&config);
    let as_lead = |args: &[&str]| {
        Outcome::of(postern().env("KUBECONFIG", config.path()).env("POSTERN_OPS_NAMESPACE", mine).args(args))
    };
    eventually("the binding holds", Duration::from_secs(20), || {
        as_lead(&["ops", "logs"]).stderr.contains("not found")
    });
    as_lead(&["ops", "install", "--timeout", "90s"]).ok();
    as_lead(&["run", "--", "id"]).ok();
    as_lead(&["ops", "show", "--check"]).ok();
    as_lead(&["ops", "uninstall", "--confirm", "--timeout", "90s"]).ok();
    // In the default namespace it is refused, at the first step.
    let mut elsewhere = postern();
    elsewhere.env("KUBECONFIG", config.path()).env_remove("POSTERN_OPS_NAMESPACE").args(["ops", "install"]);
    Outcome::of(&mut elsewhere).exits(1).says(&["cannot"]);
    // And a namespace that is not there is named as such.
    let missing = Outcome::of(postern().args(["ops", "install", "-n", "e2e-no-such-namespace"])).exits(1);
    assert!(missing.stderr.contains("make the namespace that is missing"), "{}", missing.stderr);
    kubectl(&["delete", "namespace", mine, "--wait=false"]).ok();
}
