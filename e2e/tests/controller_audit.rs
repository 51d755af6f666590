//! The controller may do what it needs and nothing else, and what it reads is in nothing that it writes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::controller::{
    PLATFORM, RUNNING, SOON, SYSTEM, condition, data_of, delete, for_case, install, install_all, installed,
    namespace, object, pod,
};
use e2e::pods::{apply, wait};
use e2e::registry::{A1, A2, copies, docker_config, pull_secret, registry};
use e2e::{Outcome, eventually, kubectl, postern};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Everything that RBAC permits the controller is in its rules, and each rule is used: without it something fails that the
/// other tests of this file look at.
#[test]
fn the_controller_may_do_what_its_parts_need_and_nothing_else() {
    if !installed() {
        return;
    }
    let subject = "--as=system:serviceaccount:postern-system:postern-controller";
    let may = |namespace: &str, verb: &str, what: &str| {
        kubectl(&["auth", "can-i", "-n", namespace, verb, what, subject]).stdout.trim() == "yes"
    };
    for (verb, what) in [
        ("create", "pods"),
        ("get", "pods"),
        ("create", "pods/exec"),
        ("create", "serviceaccounts/token"),
        ("update", "serviceaccounts"),
        ("delete", "serviceaccounts"),
        ("patch", "secrets"),
        ("list", "configmaps"),
        ("patch", "namespaces"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
        ("escalate", "clusterroles.rbac.authorization.k8s.io"),
        ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io/other"),
        ("patch", "clusterpullsecrets.postern.dev"),
        ("list", "nodes"),
    ] {
        assert!(!may("default", verb, what), "{verb} {what}");
    }
    assert!(may("default", "delete", "secrets") && may("default", "patch", "serviceaccounts"));
    // With one part, nothing of the others is left.
    install(&["--parts", "volumes"]).ok();
    for (verb, what) in [
        ("list", "secrets"),
        ("get", "secrets"),
        ("patch", "serviceaccounts"),
        ("delete", "pods"),
        ("list", "clusterpullsecrets.postern.dev"),
    ] {
        assert!(!may("default", verb, what), "{verb} {what}");
    }
    assert!(may("default", "get", "persistentvolumeclaims"));
    install_all();
}

/// A password that nothing but a leak would print, and parts of it in other encodings.
const CANARY: &str = "canary-Zq7/hJ2+w9-4d1e";
const PARTS_OF_CANARY: [&str; 4] = ["Zq7/hJ2+w9", "Zq7%2FhJ2", "cTcvaEoyK3c5", "enE3L2hKMit3OS"];

#[test]
fn a_pull_secret_is_in_no_log_event_status_or_metric() {
    if !installed() {
        return;
    }
    let begin = e2e::audit_length();
    let case = "e2e-canary";
    let secret = |login| pull_secret(PLATFORM, case, login);
    let invalid = json!({"auths": {"registry.test": format!("a1:{CANARY}")}});
    let mut broken = secret(("a1", CANARY));
    broken["stringData"][".dockerconfigjson"] = invalid.to_string().into();
    let image = registry().push("canary/app");
    // It is copied, refused by the registry, cannot be read, and goes.
    apply(&[
        secret(("a1", CANARY)),
        namespace(case, case),
        for_case(case, &json!({"source": {"namespace": PLATFORM, "name": case}, "restartStuck": true})),
        pod(case, "refused", "default", &image),
    ]);
    eventually("a copy", SOON, || copies(case).len() == 1);
    assert!(data_of(&copies(case)[0]).contains(CANARY), "it does reach the namespace");
    eventually("the registry refuses it", RUNNING, || {
        kubectl(&["get", "events", "-n", case]).ok().stdout.contains("Failed")
    });
    apply(&[broken]);
    eventually("it cannot be read", SOON, || condition("clusterpullsecret", &[case]).1 == "SourceInvalid");
    let mut seen = vec![
        kubectl(&["get", "clusterpullsecrets,pullsecrets,serviceaccounts,pods,events", "-A", "-o", "json"]),
        kubectl(&["get", "leases,deployments,pods", "-n", SYSTEM, "-o", "json"]),
        Outcome::of(postern().args(["controller", "show", "-o", "json"])),
    ];
    for args in [["-o", "json"], ["-o", "text"]] {
        let verified = Outcome::of(postern().args(["verify", "images", "-vv", "-n", case]).args(args));
        assert!(verified.stdout.contains("canary/app"), "{verified:?}");
        seen.push(verified);
    }
    kubectl(&["delete", "secret", "-n", PLATFORM, case]).ok();
    eventually("the copy goes", SOON, || copies(case).is_empty());
    for pod in kubectl(&["get", "pods", "-n", SYSTEM, "-o", "name"]).ok().stdout.lines() {
        let name = pod.trim_start_matches("pod/");
        seen.push(kubectl(&["logs", "-n", SYSTEM, name]).ok());
        let metrics = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:8080/proxy/metrics");
        seen.push(kubectl(&["get", "--raw", &metrics]).ok());
        assert!(seen.last().unwrap().stdout.contains("postern_controller_is_leader"));
    }
    let mut texts: Vec<String> =
        seen.into_iter().map(|one| format!("{}{}", one.stdout, one.stderr)).collect();
    if e2e::testbed() {
        texts.push(e2e::audit_since(begin));
        texts.extend(processes());
    }
    for text in texts {
        for part in PARTS_OF_CANARY {
            let found = text.find(part).map(|at| &text[at.saturating_sub(200)..at]);
            assert_eq!(found, None, "{part}");
        }
    }
    delete(&["clusterpullsecret", case]);
    delete(&["namespace", case]);
}

/// The arguments and environments of the controllers on this machine, none of which leaves a core dump.
fn processes() -> Vec<String> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        // Another checkout's cluster may have one as well.
        if read("comm").trim() != "postern-control" {
            continue;
        }
        let limits = read("limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        texts.extend([read("cmdline"), read("environ")]);
    }
    assert!(!texts.is_empty());
    texts
}

/// What the rules of the controller's roles permit, as VERB RESOURCE.
fn permitted() -> BTreeSet<String> {
    let roles = [
        kubectl(&["get", "clusterroles", "-l", "app.kubernetes.io/name=postern-controller", "-o", "json"]),
        kubectl(&["get", "roles", "-n", SYSTEM, "-o", "json"]),
    ];
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let mut permitted = BTreeSet::new();
    for role in roles.map(|found| found.ok().json()["items"].as_array().unwrap().clone()).concat() {
        for rule in role["rules"].as_array().unwrap() {
            for resource in texts(&rule["resources"]) {
                permitted.extend(texts(&rule["verbs"]).iter().map(|verb| format!("{verb} {resource}")));
            }
        }
    }
    permitted
}

/// What the controller did since this place in the audit log, in the same form.
fn done_since(begin: u64) -> BTreeSet<String> {
    let text = e2e::audit_since(begin);
    let lines =
        text.lines().filter(|line| line.contains("system:serviceaccount:postern-system:postern-controller"));
    lines
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["responseStatus"]["code"].as_u64() < Some(400))
        .map(|event| {
            let object = &event["objectRef"];
            let subresource =
                object["subresource"].as_str().map(|name| format!("/{name}")).unwrap_or_default();
            format!(
                "{} {}{subresource}",
                event["verb"].as_str().unwrap(),
                object["resource"].as_str().unwrap_or_default()
            )
        })
        .collect()
}

/// Each permission is used: the API server's own log says what the controller did.
#[test]
fn the_controller_uses_each_of_its_permissions() {
    if !installed() || !e2e::testbed() {
        return;
    }
    let case = "e2e-permissions";
    let begin = e2e::audit_length();
    // As in a cluster that never had a controller.
    kubectl(&["delete", "-n", SYSTEM, "lease/postern-controller", "secret/postern-webhook"]).ok();
    kubectl(&["rollout", "restart", "-n", SYSTEM, "deployment/postern-controller"]).ok();
    kubectl(&["rollout", "status", "-n", SYSTEM, "deployment/postern-controller", "--timeout=90s"]).ok();
    let source = pull_secret(PLATFORM, case, A1);
    let mut cluster = for_case(case, &json!({"restartStuck": true}));
    cluster["spec"]["source"]["name"] = case.into();
    let own = object("PullSecret", Some(case), "own", &json!({"source": {"name": "own"}}));
    let ownership = json!({"namespaces": {"names": [case]}, "storageClasses": ["local-path"]});
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": case},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    });
    let mut writer = pod(case, "writer", "default", "docker.io/library/scratch-static:1");
    writer["spec"]["securityContext"] = json!({"runAsUser": 2000, "runAsGroup": 3000});
    writer["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    writer["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let template = json!({
        "metadata": {"labels": {"app": "stuck"}},
        "spec": {"containers": [{"name": "main", "image": registry().push("permissions/app")}]},
    });
    let stuck = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "stuck", "namespace": case},
        "spec": {"selector": {"matchLabels": {"app": "stuck"}}, "template": template},
    });
    apply(&[namespace(case, "later"), stuck, own, claim]);
    apply(&[object("VolumeOwnership", None, case, &ownership)]);
    eventually("the Pod is stuck", RUNNING, || {
        kubectl(&["get", "pods", "-n", case, "-o", "json"]).stdout.contains("ImagePullBackOff")
    });
    kubectl(&["label", "namespace", case, "--overwrite", &format!("case={case}")]).ok();
    apply(&[source.clone(), cluster]);
    wait(case, "deployment/stuck", "condition=Available");
    // Rotation, and a source that is created and deleted twice, so that an event repeats.
    apply(&[pull_secret(PLATFORM, case, A2)]);
    for _ in 0..2 {
        apply(std::slice::from_ref(&source));
        eventually("there is a copy", SOON, || {
            condition("clusterpullsecret", &[case]).0 == "True"
                && copies(case).len() == 1
                && data_of(&copies(case)[0]) == docker_config(A1)
        });
        kubectl(&["delete", "secret", "-n", PLATFORM, case]).ok();
        let reason = || condition("clusterpullsecret", &[case]).1;
        eventually("the copy goes", SOON, || copies(case).is_empty() && reason() == "SourceNotFound");
    }
    apply(&[writer]);
    // Kinds of OLM, which this cluster need not have; tests/olm.rs needs them.
    let of_olm = ["catalogsources", "subscriptions", "clusterserviceversions"];
    let is_unused = |done: &BTreeSet<String>, one: &String| {
        !done.contains(one) && !of_olm.iter().any(|kind| one.ends_with(kind))
    };
    let mut unused = BTreeSet::new();
    let limit = Instant::now() + Duration::from_secs(30);
    while Instant::now() < limit {
        let done = done_since(begin);
        unused = permitted().into_iter().filter(|one| is_unused(&done, one)).collect();
        if unused.is_empty() {
            break;
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
    assert!(unused.is_empty(), "permitted and not used: {unused:?}");
    delete(&["clusterpullsecret", case]);
    delete(&["volumeownership", case]);
    delete(&["namespace", case]);
}
