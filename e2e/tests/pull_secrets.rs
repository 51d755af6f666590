//! Pull Secrets reach the workloads that need them, and nothing else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::controller::{
    PLATFORM, RUNNING, SOON, account, condition, data_of, delete, for_case, installed, namespace, object,
    phase, pod,
};
use e2e::pods::{apply, wait};
use e2e::registry::{
    A1, A2, B1, HOST, TOKEN_HOST, copies, docker_config, docker_config_of, named_by, pull_secret, registry,
    token_registry,
};
use e2e::{eventually, get, kubectl};
use serde_json::{Value, json};
use std::time::Duration;

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

/// `POSTERN_SOAK_PODS` of them, else 100.
#[test]
fn many_pods_created_with_their_accounts_all_run() {
    if !installed() {
        return;
    }
    let case = "e2e-many";
    let count = std::env::var("POSTERN_SOAK_PODS").map_or(100, |count| count.parse().unwrap());
    let image = registry().push("many/app");
    let mut objects = vec![namespace(case, case)];
    for number in 0..count {
        let name = format!("app-{number}");
        objects.push(account(case, &name));
        let mut one = pod(case, &name, &name, &image);
        // It ends, so that a node need not hold all of them at the same time.
        one["spec"]["restartPolicy"] = "Never".into();
        one["spec"]["containers"][0]["command"] = json!(["/app", "exit", "0"]);
        one["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1m", "memory": "1Mi"}});
        objects.push(one);
    }
    apply(&[for_case(case, &json!({}))]);
    apply(&objects);
    // The node starts a few Pods in a second; what the bound is about is the wait for a copy.
    let limit = Duration::from_secs(60 + u64::try_from(count).unwrap());
    eventually("all ran", limit, || {
        let args = ["get", "pods", "-n", case, "--field-selector=status.phase=Succeeded", "-o", "name"];
        kubectl(&args).ok().stdout.lines().count() == count
    });
    delete(&["clusterpullsecret", case]);
    delete(&["namespace", case]);
}

#[test]
fn a_registry_that_asks_for_a_token_gives_it_to_whom_the_secret_names() {
    if !installed() {
        return;
    }
    let case = "e2e-token-registry";
    let (mine, theirs) = (token_registry().push("of-a1/app"), token_registry().push("of-b1/app"));
    let mut source = pull_secret(PLATFORM, case, A1);
    source["stringData"][".dockerconfigjson"] = docker_config_of(TOKEN_HOST, A1).into();
    apply(&[source, for_case(case, &json!({"source": {"namespace": PLATFORM, "name": case}}))]);
    eventually("the object is ready", SOON, || condition("clusterpullsecret", &[case]).0 == "True");
    apply(&[namespace(case, case)]);
    // The webhook of another replica may not have read the source yet.
    eventually("the account names the copy", SOON, || named_by(case, "default").len() == 1);
    apply(&[pod(case, "mine", "default", &mine), pod(case, "theirs", "default", &theirs)]);
    eventually("the user's own image runs", RUNNING, || phase(case, "mine") == "Running");
    eventually("the other one is refused", RUNNING, || {
        let pods = kubectl(&["get", "events", "-n", case, "-o", "json"]).ok().stdout;
        pods.contains("of-b1/app")
            && (pods.contains("insufficient_scope") || pods.contains("authorization failed"))
    });
    assert_eq!(phase(case, "theirs"), "Pending");
    delete(&["clusterpullsecret", case]);
    delete(&["namespace", case]);
    delete(&["secret", "-n", PLATFORM, case]);
}
