//! Secrets of a `CatalogSource` reach the operators that the Operator Lifecycle Manager installs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::controller::{RUNNING, SOON, account, data_of, delete, installed, namespace, phase, pod};
use e2e::pods::apply;
use e2e::registry::{A1, A2, copies, docker_config, named_by, pull_secret, registry};
use e2e::{eventually, kubectl};
use serde_json::{Value, json};
use std::time::Duration;

/// A custom resource of OLM, as far as the controller reads it. OLM's own operators cannot be had as a Go module; the
/// objects are as they write them.
fn olm_definition(kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.operators.coreos.com")},
        "spec": {
            "group": "operators.coreos.com", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

fn olm(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "operators.coreos.com/v1alpha1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "namespace": namespace},
    })
}

fn csv(namespace: &str, name: &str, accounts: &[&str]) -> Value {
    let deployments: Vec<_> = accounts
        .iter()
        .map(|account| json!({"name": account, "spec": {"template": {"spec": {"serviceAccountName": account}}}}))
        .collect();
    let install = json!({"strategy": "deployment", "spec": {"deployments": deployments}});
    olm("ClusterServiceVersion", namespace, name, &json!({"install": install}))
}

fn installs(namespace: &str, subscription: &str, csv: &str, catalogs: &str) {
    // Only OLM writes this: which catalogs the Subscription sees.
    let health = json!([{
        "catalogSourceRef": {"name": "private", "namespace": catalogs}, "healthy": true,
        "lastUpdated": "2026-11-30T00:00:00Z",
    }]);
    let status = json!({"status": {
        "installedCSV": csv, "currentCSV": csv, "catalogHealth": health, "lastUpdated": "2026-11-30T00:00:00Z",
    }});
    let status = status.to_string();
    let kind = "subscriptions.operators.coreos.com";
    kubectl(&[
        "patch",
        "-n",
        namespace,
        kind,
        subscription,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ])
    .ok();
}

#[test]
fn secrets_of_a_catalog_reach_the_operators_of_its_bundles() {
    if !installed() {
        return;
    }
    let (catalogs, case, elsewhere) = ("e2e-olm-catalogs", "e2e-olm", "e2e-olm-copied");
    let definitions = [
        ("CatalogSource", "catalogsources"),
        ("Subscription", "subscriptions"),
        ("ClusterServiceVersion", "clusterserviceversions"),
    ];
    apply(&definitions.map(|(kind, plural)| olm_definition(kind, plural)));
    for (_, plural) in definitions {
        let name = format!("crd/{plural}.operators.coreos.com");
        kubectl(&["wait", "--for=condition=Established", &name, "--timeout=30s"]).ok();
    }
    let mut copied = csv(elsewhere, "app.v1", &["app"]);
    copied["metadata"]["labels"] = json!({"olm.copiedFrom": case});
    let subscription =
        json!({"source": "private", "sourceNamespace": catalogs, "name": "app", "channel": "stable"});
    apply(&[namespace(catalogs, "none"), namespace(case, "none"), namespace(elsewhere, "none")]);
    apply(&[
        pull_secret(catalogs, "catalog", A1),
        olm("CatalogSource", catalogs, "private", &json!({"sourceType": "grpc", "secrets": ["catalog"]})),
        olm("Subscription", case, "app", &subscription),
        account(case, "app"),
        account(case, "bystander"),
        csv(case, "app.v1", &["app"]),
        account(elsewhere, "app"),
        copied,
    ]);
    installs(case, "app", "app.v1", catalogs);
    // The controller looks for these kinds every 20 seconds.
    let names = |account: &str| named_by(case, account);
    eventually("the operator's account names a copy", Duration::from_secs(60), || {
        copies(case).len() == 1 && names("app").len() == 1
    });
    assert!(names("bystander").is_empty() && names("default").is_empty());
    let image = registry().push("olm/app");
    apply(&[pod(case, "operator", "app", &image)]);
    eventually("the operator runs", RUNNING, || phase(case, "operator") == "Running");
    // An upgrade with another account.
    apply(&[account(case, "app-v2"), csv(case, "app.v2", &["app-v2"])]);
    installs(case, "app", "app.v2", catalogs);
    kubectl(&["delete", "clusterserviceversions.operators.coreos.com", "-n", case, "app.v1"]).ok();
    eventually("the upgrade is followed", SOON, || names("app").is_empty() && names("app-v2").len() == 1);
    // A deleted Subscription leaves the CSV, and so the credential; the CSV takes it along.
    kubectl(&["delete", "subscriptions.operators.coreos.com", "-n", case, "app"]).ok();
    apply(&[account(case, "after")]);
    eventually("the source is followed still", SOON, || {
        apply(&[pull_secret(catalogs, "catalog", A2)]);
        copies(case).iter().all(|copy| data_of(copy) == docker_config(A2)) && copies(case).len() == 1
    });
    assert_eq!(names("app-v2").len(), 1);
    kubectl(&["delete", "clusterserviceversions.operators.coreos.com", "-n", case, "app.v2"]).ok();
    eventually("everything goes", SOON, || copies(case).is_empty() && names("app-v2").is_empty());
    assert!(copies(elsewhere).is_empty() && named_by(elsewhere, "app").is_empty());
    delete(&["namespace", catalogs, case, elsewhere]);
    for (_, plural) in definitions {
        delete(&["crd", &format!("{plural}.operators.coreos.com")]);
    }
}
