//! The controller in the cluster: pull Secrets reach workloads, and volumes belong to them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::pods::{apply, wait};
use e2e::registry::{A1, A2, B1, HOST, copies, docker_config, named_by, pull_secret, registry};
use e2e::{Outcome, enabled, eventually, get, kubectl, make_namespace, postern, with_stdin};
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::time::Duration;

const SYSTEM: &str = "postern-system";
/// The namespace of the sources.
const PLATFORM: &str = "e2e-platform";
/// Everything but a pull happens within this time.
const SOON: Duration = Duration::from_secs(15);
/// The bound for a Pod that was created before its Secret.
const RUNNING: Duration = Duration::from_secs(45);

/// Installs the controller once for all tests of this program.
fn installed() -> bool {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    if !enabled() {
        return false;
    }
    INSTALLED.get_or_init(|| {
        install(&["--parts", "pull-secrets,restart-stuck,volumes"]).ok();
        make_namespace(PLATFORM);
        apply(&[pull_secret(PLATFORM, "vendor", A1)]);
    });
    true
}

fn install(args: &[&str]) -> Outcome {
    Outcome::of(postern().args(["controller", "install", "--replicas", "2"]).args(args))
}

fn object(kind: &str, namespace: Option<&str>, name: &str, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "postern.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

/// A `ClusterPullSecret` for namespaces with the label `case=NAME`.
fn for_case(name: &str, more: &Value) -> Value {
    let mut spec = json!({
        "source": {"namespace": PLATFORM, "name": "vendor"},
        "namespaces": {"selector": {"matchLabels": {"case": name}}},
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    object("ClusterPullSecret", None, name, &spec)
}

fn namespace(name: &str, case: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"case": case}}})
}

fn account(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
}

fn pod(namespace: &str, name: &str, account: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "serviceAccountName": account, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": image}],
        },
    })
}

fn phase(namespace: &str, name: &str) -> String {
    get(&["-n", namespace, &format!("pod/{name}")])["status"]["phase"].as_str().unwrap_or_default().to_owned()
}

fn condition(kind: &str, args: &[&str]) -> (String, String) {
    let found = get(&[&[kind], args].concat());
    let one = &found["status"]["conditions"][0];
    let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

fn delete(args: &[&str]) {
    kubectl(&[&["delete", "--wait=false", "--ignore-not-found"], args].concat()).ok();
}

fn data_of(copy: &Value) -> String {
    use base64::Engine as _;
    let data = copy["data"][".dockerconfigjson"].as_str().unwrap();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(data).unwrap()).unwrap()
}

#[test]
fn pods_created_with_their_namespace_pull_and_others_do_not() {
    if !installed() {
        return;
    }
    let (case, other) = ("e2e-pull", "e2e-pull-other");
    let image = registry().push("team/app");
    apply(&[for_case(case, &json!({})), namespace(other, "none")]);
    eventually("the object is ready", SOON, || condition("clusterpullsecret", &[case]).0 == "True");
    // All at once: the copy does not exist when the Pods are admitted.
    apply(&[
        namespace(case, case),
        account(case, "web"),
        pod(case, "first", "web", &image),
        pod(case, "second", "default", &registry().push("team/app")),
        account(other, "web"),
        pod(other, "without", "web", &image),
    ]);
    eventually("both run", RUNNING, || ["first", "second"].iter().all(|name| phase(case, name) == "Running"));
    assert_eq!(phase(other, "without"), "Pending");
    assert!(copies(other).is_empty() && named_by(other, "web").is_empty());
    let copy = copies(case).pop().unwrap();
    assert_eq!(data_of(&copy), docker_config(A1));
    assert_eq!(copy["type"], "kubernetes.io/dockerconfigjson");
    assert_eq!(copy["metadata"]["annotations"]["postern.dev/source"], format!("{PLATFORM}/vendor"));
    let name = copy["metadata"]["name"].as_str().unwrap();
    eventually("both accounts name it", SOON, || {
        ["web", "default"].iter().all(|account| named_by(case, account) == [name])
    });
    // Nothing is written when nothing changes.
    let version = |what: &str| get(&["-n", case, what])["metadata"]["resourceVersion"].clone();
    let before = (version("serviceaccount/web"), version(&format!("secret/{name}")));
    apply(&[account(case, "another")]);
    eventually("the other account names it", SOON, || named_by(case, "another") == [name]);
    assert_eq!(before, (version("serviceaccount/web"), version(&format!("secret/{name}"))));
    delete(&["clusterpullsecret", case]);
    delete(&["namespace", case, other]);
}

#[test]
fn copies_follow_their_source_come_back_and_go() {
    if !installed() {
        return;
    }
    let case = "e2e-follow";
    apply(&[
        pull_secret(PLATFORM, case, A1),
        namespace(case, case),
        for_case(case, &json!({"source": {"namespace": PLATFORM, "name": case}})),
    ]);
    // The list of the user and the platform keeps its order.
    let mut mine = account(case, "mine");
    mine["imagePullSecrets"] = json!([{"name": "z-user"}, {"name": "a-user"}]);
    apply(&[mine]);
    eventually("a copy", SOON, || copies(case).len() == 1);
    let name = copies(case)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let named = || named_by(case, "mine");
    eventually("the account names it", SOON, || named() == ["z-user", "a-user", &name]);
    // Rotation.
    apply(&[pull_secret(PLATFORM, case, A2)]);
    eventually("the copy follows", SOON, || {
        copies(case).iter().all(|copy| data_of(copy) == docker_config(A2))
    });
    // Somebody deletes the copy, and changes it.
    kubectl(&["delete", "secret", "-n", case, &name]).ok();
    eventually("the copy comes back", SOON, || copies(case).len() == 1);
    let patch = json!({"stringData": {".dockerconfigjson": docker_config(B1), "more": "x"}}).to_string();
    kubectl(&["patch", "secret", "-n", case, &name, "--type=merge", "-p", &patch]).ok();
    eventually("the copy is put right", SOON, || {
        let found = copies(case);
        found.len() == 1 && data_of(&found[0]) == docker_config(A2) && found[0]["data"]["more"].is_null()
    });
    // Garbage leaves what works; a source that is gone takes the copies along.
    let patch = json!({"stringData": {".dockerconfigjson": "{"}}).to_string();
    let invalid = kubectl(&["patch", "secret", "-n", PLATFORM, case, "--type=merge", "-p", &patch]);
    assert_ne!(invalid.code, 0, "the API server refuses invalid JSON itself");
    kubectl(&["delete", "secret", "-n", PLATFORM, case]).ok();
    eventually("the copy goes", SOON, || copies(case).is_empty() && named() == ["z-user", "a-user"]);
    eventually("the object says why", SOON, || condition("clusterpullsecret", &[case]).1 == "SourceNotFound");
    let record =
        get(&["-n", case, "serviceaccount/mine"])["metadata"]["annotations"]["postern.dev/pull-secrets"]
            .clone();
    assert!(record.is_null(), "{record}");
    // And with its last consumer.
    apply(&[pull_secret(PLATFORM, case, A1)]);
    eventually("the copy is there again", SOON, || copies(case).len() == 1 && named().len() == 3);
    kubectl(&["delete", "clusterpullsecret", case]).ok();
    eventually("the copy goes", SOON, || copies(case).is_empty() && named() == ["z-user", "a-user"]);
    delete(&["namespace", case]);
    delete(&["secret", "-n", PLATFORM, case]);
}

#[test]
fn what_postern_did_not_create_is_left_alone() {
    if !installed() {
        return;
    }
    let case = "e2e-taken";
    apply(&[namespace("e2e-taken-first", case), for_case(case, &json!({}))]);
    eventually("a copy", SOON, || copies("e2e-taken-first").len() == 1);
    let name = copies("e2e-taken-first")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    // Every namespace has the same name; here somebody else has taken it.
    apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": case}}),
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": case},
            "stringData": {"mine": "yes"},
        }),
    ]);
    kubectl(&["label", "namespace", case, &format!("case={case}")]).ok();
    eventually("an event says so", SOON, || {
        let events = kubectl(&["get", "events", "-n", case, "-o", "json"]).ok().stdout;
        events.contains("PullSecretFailed") && events.contains("left as it is")
    });
    let found = get(&["-n", case, &format!("secret/{name}")]);
    assert!(found["data"]["mine"].is_string() && found["metadata"]["labels"].is_null());
    delete(&["clusterpullsecret", case]);
    delete(&["namespace", case, "e2e-taken-first"]);
}

#[test]
fn a_secret_reaches_another_namespace_only_by_a_grant() {
    if !installed() {
        return;
    }
    let (a, b) = ("e2e-grant-a", "e2e-grant-b");
    let two = json!({"auths": {HOST: {"auth": "YTpi"}, "other.test": {"auth": "YzpkZA=="}}}).to_string();
    let mut source = pull_secret(a, "team", B1);
    source["stringData"][".dockerconfigjson"] = two.into();
    let asks = |name: &str, registries: Value| {
        let spec = json!({"source": {"namespace": a, "name": "team"}, "registries": registries});
        object("PullSecret", Some(b), name, &spec)
    };
    apply(&[namespace(a, "none"), namespace(b, "none"), source, asks("team", json!([]))]);
    let ready = |name: &str| condition("pullsecret", &["-n", b, name]);
    eventually("it is refused", SOON, || ready("team").1 == "NotGranted");
    assert!(copies(b).is_empty() && named_by(b, "default").is_empty());
    // A grant of one registry: nothing else is copied.
    let spec = json!({"secrets": ["team"], "to": {"names": [b]}, "registries": [format!("{HOST}/team")]});
    apply(&[object("PullSecretGrant", Some(a), "to-b", &spec)]);
    eventually("it is granted", SOON, || ready("team").0 == "True" && copies(b).len() == 1);
    assert_eq!(
        data_of(&copies(b)[0]),
        json!({"auths": {format!("{HOST}/team"): {"auth": "YTpi"}}}).to_string()
    );
    eventually("the account names it", SOON, || named_by(b, "default").len() == 1);
    apply(&[asks("other", json!(["other.test"]))]);
    eventually("another registry is refused", SOON, || ready("other").1 == "RegistriesNotGranted");
    // Within one namespace no grant is needed, and no copy made.
    let own = object("PullSecret", Some(a), "own", &json!({"source": {"name": "team"}}));
    apply(&[own]);
    eventually("its own account names it", SOON, || named_by(a, "default") == ["team"]);
    assert!(copies(a).is_empty());
    // The grant is taken back.
    kubectl(&["delete", "pullsecretgrant", "-n", a, "to-b"]).ok();
    eventually("the copy goes", SOON, || copies(b).is_empty() && named_by(b, "default").is_empty());
    delete(&["namespace", a, b]);
}

#[test]
fn selectors_and_registries_of_pods_are_heeded() {
    if !installed() {
        return;
    }
    let case = "e2e-select";
    let image = registry().push("select/app");
    apply(&[
        for_case(
            case,
            &json!({"pods": {"matchLabels": {"app": "web"}}, "registries": [format!("{HOST}/select")]}),
        ),
        namespace(case, case),
    ]);
    eventually("a copy", SOON, || copies(case).len() == 1);
    let mut web = pod(case, "web", "default", &image);
    web["metadata"]["labels"] = json!({"app": "web"});
    let mut elsewhere = pod(case, "elsewhere", "default", "registry.k8s.io/pause:3.9");
    elsewhere["metadata"]["labels"] = json!({"app": "web"});
    apply(&[web, pod(case, "db", "default", &image), elsewhere]);
    let names = |name: &str| get(&["-n", case, &format!("pod/{name}")])["spec"]["imagePullSecrets"].clone();
    assert!(names("web").is_array() && names("db").is_null() && names("elsewhere").is_null());
    assert!(named_by(case, "default").is_empty());
    eventually("it runs", RUNNING, || phase(case, "web") == "Running");
    delete(&["clusterpullsecret", case]);
    delete(&["namespace", case]);
}

#[test]
fn stuck_pods_are_recreated_where_their_owner_makes_it_safe() {
    if !installed() {
        return;
    }
    let case = "e2e-stuck";
    let image = registry().push("stuck/app");
    let labels = json!({"app": "web"});
    let mut template = pod(case, "x", "default", &image);
    template["metadata"] = json!({"labels": labels});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": case},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": template["metadata"], "spec": template["spec"]},
        },
    });
    apply(&[namespace(case, "later"), deployment, pod(case, "alone", "default", &image)]);
    let stuck = || {
        kubectl(&["get", "pods", "-n", case, "-o", "json"]).stdout.matches("ImagePullBackOff").count() >= 2
    };
    eventually("both are stuck", RUNNING, stuck);
    kubectl(&["label", "namespace", case, "--overwrite", &format!("case={case}")]).ok();
    apply(&[for_case(case, &json!({"restartStuck": true}))]);
    wait(case, "deployment/web", "condition=Available");
    // Nobody would make a new one.
    assert_eq!(phase(case, "alone"), "Pending");
    delete(&["clusterpullsecret", case]);
    delete(&["namespace", case]);
}

#[test]
fn volumes_belong_to_the_user_that_writes_them() {
    if !installed() {
        return;
    }
    let (case, restricted) = ("e2e-owned", "e2e-owned-restricted");
    apply(&[
        namespace(case, case),
        object(
            "VolumeOwnership",
            None,
            case,
            &json!({
                "namespaces": {"names": [case, restricted]}, "storageClasses": ["local-path"],
            }),
        ),
    ]);
    make_namespace(restricted);
    let claim = |namespace: &str| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
                "resources": {"requests": {"storage": "1Mi"}},
            },
        })
    };
    let writer = |namespace: &str, name: &str, security: Value| {
        let mut pod = pod(namespace, name, "default", "docker.io/library/scratch-static:1");
        pod["spec"]["restartPolicy"] = "Never".into();
        pod["spec"]["securityContext"] = security;
        pod["spec"]["securityContext"]["runAsNonRoot"] = true.into();
        pod["spec"]["securityContext"]["seccompProfile"] = json!({"type": "RuntimeDefault"});
        pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        let container = &mut pod["spec"]["containers"][0];
        container["command"] = json!(["/app", "write", "/data/file"]);
        container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        container["securityContext"] =
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        pod
    };
    let user = || json!({"runAsUser": 2000, "runAsGroup": 3000});
    let create = |object: &Value| {
        let mut command = e2e::kubectl_command(&["create", "-f", "-"]);
        with_stdin(&mut command, object.to_string().as_bytes()).ok()
    };
    apply(&[claim(case), claim(restricted)]);
    eventually("the object is known", SOON, || {
        let mut command = e2e::kubectl_command(&["create", "--dry-run=server", "-o", "json", "-f", "-"]);
        let outcome = with_stdin(&mut command, writer(case, "tried", user()).to_string().as_bytes()).ok();
        outcome.stdout.contains("postern-own")
    });
    // The volume belongs to 1000:1000.
    let mut without = writer(case, "without", user());
    without["metadata"]["annotations"] = json!({"postern.dev/own-volumes": "false"});
    create(&without);
    wait(case, "pod/without", "jsonpath={.status.phase}=Failed");
    create(&writer(case, "with", user()));
    wait(case, "pod/with", "jsonpath={.status.phase}=Succeeded");
    let init = get(&["-n", case, "pod/with"])["spec"]["initContainers"][0].clone();
    assert_eq!(init["securityContext"]["capabilities"]["add"], json!(["CHOWN", "DAC_OVERRIDE", "FOWNER"]));
    // What cannot be done is said where kubectl shows it.
    create(&writer(case, "nobody", json!({"runAsUser": 2000}))).says(&["Warning", "has no runAsGroup"]);
    create(&writer(restricted, "restricted", user())).says(&["Warning", "Pod Security Standard restricted"]);
    let pod = get(&["-n", restricted, "pod/restricted"]);
    assert!(pod["spec"]["initContainers"].is_null());
    delete(&["volumeownership", case]);
    delete(&["namespace", case, restricted]);
}

#[test]
fn a_cluster_works_while_every_replica_is_down_and_another_takes_over() {
    if !installed() {
        return;
    }
    let case = "e2e-down";
    let scale = |replicas: &str| {
        kubectl(&["scale", "-n", SYSTEM, "deployment/postern-controller", "--replicas", replicas]).ok();
    };
    let leader = || {
        let lease = get(&["-n", SYSTEM, "lease/postern-controller"]);
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    // The leader dies without a word.
    let before = leader();
    kubectl(&["delete", "pod", "-n", SYSTEM, &before, "--grace-period=0", "--force"]).ok();
    eventually("another one leads", Duration::from_secs(60), || leader() != before);
    apply(&[for_case(case, &json!({})), namespace(case, case)]);
    eventually("and copies", SOON, || copies(case).len() == 1);
    scale("0");
    eventually("none is left", Duration::from_secs(60), || {
        kubectl(&["get", "pods", "-n", SYSTEM, "-o", "name"]).ok().stdout.is_empty()
    });
    // A released Lease has no holder.
    eventually("the Lease is free", SOON, || leader().is_empty());
    apply(&[pod(case, "plain", "default", "registry.k8s.io/pause:3.9")]);
    wait(case, "pod/plain", "condition=Ready");
    scale("2");
    // "Available" is said of one of two.
    wait(SYSTEM, "deployment/postern-controller", "jsonpath={.status.availableReplicas}=2");
    let shown = Outcome::of(postern().args(["controller", "show", "-o", "json"])).ok().json();
    assert_eq!((&shown["webhook"], &shown["available"]), (&true.into(), &2.into()));
    delete(&["clusterpullsecret", case]);
    delete(&["namespace", case]);
}

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
    install(&["--parts", "pull-secrets,restart-stuck,volumes"]).ok();
}

#[test]
fn verify_says_what_an_image_is_pulled_with_and_whether_it_can_be() {
    if !enabled() {
        return;
    }
    let case = "e2e-verify";
    let image = registry().push("verify/app");
    // From here the registry has another name than for the nodes.
    let here = registry().here(&image);
    let wrong = ("a1", "hunter2");
    let in_here = |name: &str, login: (&str, &str)| {
        let mut secret = pull_secret(case, name, login);
        let text = docker_config(login).replace(HOST, here.split('/').next().unwrap());
        secret["stringData"][".dockerconfigjson"] = text.into();
        secret
    };
    let with = |name: &str, secret: &str, image: &str| {
        let mut pod = pod(case, name, "default", image);
        pod["spec"]["imagePullSecrets"] = json!([{"name": secret}]);
        // It never runs.
        pod["spec"]["nodeSelector"] = json!({"none": "none"});
        pod
    };
    apply(&[
        namespace(case, "none"),
        in_here("right", A1),
        in_here("wrong", wrong),
        in_here("unused", A2),
        pull_secret(case, "elsewhere", A1),
    ]);
    let missing = format!("{here}-none");
    apply(&[
        with("right", "right", &here),
        with("wrong", "wrong", &here),
        with("none", "gone", &here),
        with("elsewhere", "elsewhere", &here),
        with("missing", "right", &missing),
    ]);
    let report = Outcome::of(postern().args(["verify", "images", "-n", case, "-o", "json"])).exits(1).json();
    let find = |rule: &str, name: &str| {
        let findings = report["findings"].as_array().unwrap();
        let is = |one: &&Value| one["rule"] == rule && one["subject"]["name"] == name;
        let found = findings.iter().find(is).unwrap_or_else(|| panic!("{rule} {name}: {report:#}"));
        (found["severity"].as_str().unwrap().to_owned(), found["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(find("image-pull", "right").0, "ok");
    assert_eq!(find("image-pull", "wrong").0, "problem");
    assert_eq!(find("image-pull", "none").0, "problem");
    assert_eq!(find("pull-secret", "none").0, "problem");
    let (severity, message) = find("image-pull", "elsewhere");
    assert!(
        severity == "problem" && message.contains("no credential of elsewhere is for this registry"),
        "{message}"
    );
    assert!(find("image-pull", "missing").1.contains("does not exist"));
    assert_eq!(find("pull-secret-unused", "unused").0, "warning");
    assert!(!report.to_string().contains(A1.1) && !report.to_string().contains("hunter2"), "{report:#}");
    delete(&["namespace", case]);
}

/// The node takes 110 Pods, and other tests have theirs; `cargo xtask soak` has more.
#[test]
fn many_pods_created_with_their_accounts_all_run() {
    if !installed() {
        return;
    }
    let case = "e2e-many";
    let count = 30;
    let image = registry().push("many/app");
    let mut objects = vec![namespace(case, case)];
    for number in 0..count {
        let name = format!("app-{number}");
        objects.push(account(case, &name));
        let mut one = pod(case, &name, &name, &image);
        one["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1m", "memory": "1Mi"}});
        objects.push(one);
    }
    apply(&[for_case(case, &json!({}))]);
    apply(&objects);
    eventually("all run", Duration::from_secs(120), || {
        let args = ["get", "pods", "-n", case, "--field-selector=status.phase=Running", "-o", "name"];
        kubectl(&args).ok().stdout.lines().count() == count
    });
    delete(&["clusterpullsecret", case]);
    kubectl(&["delete", "namespace", case, "--wait=true", "--timeout=120s"]).ok();
}

#[test]
fn a_client_that_undoes_changes_is_not_fought_for_ever() {
    if !installed() {
        return;
    }
    let case = "e2e-fight";
    apply(&[for_case(case, &json!({})), namespace(case, case)]);
    let is_contested = || {
        let events = kubectl(&["get", "events", "-n", case, "-o", "json"]).ok().stdout;
        events.contains("\"Contested\"")
    };
    let mut rounds = 0;
    eventually("the controller says that it waits", Duration::from_secs(60), || {
        if named_by(case, "default").len() == 1 {
            let patch = json!({"imagePullSecrets": null}).to_string();
            kubectl(&["patch", "serviceaccount", "-n", case, "default", "--type=merge", "-p", &patch]).ok();
            rounds += 1;
        }
        is_contested()
    });
    assert!((5..=8).contains(&rounds), "{rounds} rounds");
    // Nothing else waits, and when the other client is gone it converges.
    apply(&[account(case, "calm")]);
    eventually("another account names the copy", SOON, || named_by(case, "calm").len() == 1);
    eventually("so does this one in the end", Duration::from_secs(45), || {
        named_by(case, "default").len() == 1
    });
    delete(&["clusterpullsecret", case]);
    delete(&["namespace", case]);
}
