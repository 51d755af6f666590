//! `postern ops`: install converges from any state, show tells the truth, uninstall takes away what is ours.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::{
    OPS, Outcome, apply, canary, clean, enabled, eventually, get, install, kubectl, policed, postern, run, sh,
};
use serde_json::Value;
use std::time::Duration;

const STATIC_IMAGE: &str = "ghcr.io/postern-dev/postern-ops-static:dev";

fn pod_uid() -> String {
    get(&["-n", OPS, "pod/postern-ops"])["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[test]
fn install_is_idempotent_and_replaces_the_pod_only_for_a_reason() {
    if !enabled() {
        return;
    }
    clean();
    let first = install(&[]).ok().stdout;
    assert_eq!(first.matches("✓ created").count(), 5, "{first}");
    let uid = pod_uid();
    let second = install(&[]).ok().stdout;
    assert_eq!(second.matches("✓ unchanged").count(), 5, "{second}");
    assert_eq!(pod_uid(), uid);
    install(&["--force"]).ok();
    let forced = pod_uid();
    assert_ne!(forced, uid);
    let mut other = postern();
    other.args(["ops", "install"]).env("IBMCLOUD_API_KEY", "another-value-0123456789");
    let rotated = Outcome::of(&mut other).ok().stdout;
    assert!(rotated.contains("✓ updated Secret") && rotated.contains("✓ updated Pod"), "{rotated}");
    let seen = sh("printf %s \"$IBMCLOUD_API_KEY\" | wc -c").ok();
    assert_eq!(seen.stdout.trim(), "24");
}

#[test]
fn an_install_plans_from_one_read() {
    if !enabled() || !e2e::testbed() {
        return;
    }
    install(&[]).ok();
    let log = || std::fs::read_to_string(e2e::audit_log()).unwrap();
    let before = log().len();
    install(&[]).ok();
    let log = log();
    let reads = |resource: &str, name: &str| {
        let entries = log[before..].lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let ours = entries.filter(|entry| {
            let user = entry["user"]["username"].as_str().unwrap_or_default();
            entry["verb"] == "get"
                && !user.starts_with("system:")
                && entry["objectRef"]["resource"] == resource
                && entry["objectRef"]["name"] == name
                // Other test programs have ops pods of the same name elsewhere.
                && entry["objectRef"]["namespace"] == OPS
        });
        ours.count()
    };
    assert_eq!(reads("serviceaccounts", "postern-ops"), 1);
    // And twice for the pod: whether it is to be replaced, before anything is changed, and which Secret it was made with.
    assert_eq!(reads("secrets", "postern-ops-credentials"), 3);
}

#[test]
fn proof_7_whatever_happened_behind_its_back_is_repaired() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    kubectl(&["delete", "-n", OPS, "secret/postern-ops-credentials", "serviceaccount/postern-ops"]).ok();
    install(&[]).ok();
    sh("test -n \"$IC_API_KEY\"").ok();

    let foreign = r#"{"data":{"FOREIGN":"Zm9yZWlnbi12YWx1ZQ==","IC_API_KEY":"Y2hhbmdlZC12YWx1ZQ=="}}"#;
    kubectl(&["patch", "-n", OPS, "secret/postern-ops-credentials", "-p", foreign]).ok();
    kubectl(&["annotate", "-n", OPS, "serviceaccount/postern-ops", "postern.dev/cluster-access=default"])
        .ok();
    install(&[]).ok();
    let data = get(&["-n", OPS, "secret/postern-ops-credentials"])["data"].clone();
    assert_eq!(data.as_object().unwrap().keys().collect::<Vec<_>>(), ["IBMCLOUD_API_KEY", "IC_API_KEY"]);
    assert_eq!(data["IC_API_KEY"], data["IBMCLOUD_API_KEY"]);
    sh("test -z \"$FOREIGN\"").ok();
    let account = get(&["-n", OPS, "serviceaccount/postern-ops"]);
    assert_eq!(account["metadata"]["annotations"].get("postern.dev/cluster-access"), None);

    // From a key to none: the Secret stays, empty.
    run(&["ops", "install"]).ok();
    let secret = get(&["-n", OPS, "secret/postern-ops-credentials"]);
    assert!(secret["data"].as_object().is_none_or(serde_json::Map::is_empty), "{secret}");
    assert_eq!(secret["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    sh("test -z \"$IC_API_KEY\"").ok();
}

#[test]
fn proof_7_an_older_installs_objects_are_taken_over() {
    if !enabled() {
        return;
    }
    clean();
    // What an older release, or kubectl, may have left: another role under the name, a pod of another kind.
    apply(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: postern-ops, labels: {app.kubernetes.io/managed-by: postern}}\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: postern-ops, namespace: postern-ops}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: postern-ops, namespace: postern-ops}\n\
         roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}\n\
         subjects: [{kind: ServiceAccount, name: postern-ops, namespace: postern-ops}]\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: postern-ops, namespace: postern-ops}\n\
         spec: {containers: [{name: tools, image: 'busybox:1.35', command: [sleep, infinity]}]}\n",
    );
    install(&["--cluster-access", OPS]).ok();
    let binding = get(&["-n", OPS, "rolebinding/postern-ops"]);
    assert_eq!(binding["roleRef"]["kind"], "Role");
    run(&["ops", "audit"]).ok();
    sh("true").ok();
    let labels = get(&["namespace", OPS])["metadata"]["labels"].clone();
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn proof_6_the_pod_is_restricted_and_any_user_will_do() {
    if !enabled() {
        return;
    }
    install(&["--force"]).ok();
    let seen = sh("id -u; cat /proc/1/status | grep -E '^(NoNewPrivs|CapEff|Seccomp):'; touch /x 2>&1")
        .exits(1)
        .stdout;
    assert!(seen.contains("NoNewPrivs:\t1") && seen.contains("CapEff:\t0000000000000000"), "{seen}");
    assert!(seen.contains("Seccomp:\t2") && seen.contains("Read-only file system"), "{seen}");
    sh("test ! -e /var/run/secrets/kubernetes.io").ok();
    sh("touch $HOME/a /tmp/a").ok();

    // A user and group that no image knows, set as OpenShift sets them.
    let list = run(&["ops", "install", "--dry-run", "-o", "json"]).ok().json();
    let mut pod =
        list["items"].as_array().unwrap().iter().find(|item| item["kind"] == "Pod").unwrap().clone();
    let context = &mut pod["spec"]["securityContext"];
    context["runAsUser"] = 1_000_680_123_i64.into();
    context["runAsGroup"] = 1_000_680_000_i64.into();
    context["fsGroup"] = 1_000_680_000_i64.into();
    kubectl(&["delete", "-n", OPS, "pod/postern-ops"]).ok();
    apply(&pod.to_string());
    kubectl(&["wait", "-n", OPS, "--for=condition=Ready", "pod/postern-ops", "--timeout=60s"]).ok();
    let seen = sh("id -u; touch $HOME/a /tmp/a && echo $HOME; test -n \"$IC_API_KEY\" && echo key").ok();
    assert_eq!(seen.stdout, "1000680123\n/home/ops\nkey\n");
    run(&["ops", "logs"]).ok();
}

#[test]
fn proof_6_an_image_without_a_shell_serves_too() {
    if !enabled() {
        return;
    }
    install(&["--image", STATIC_IMAGE]).ok();
    run(&["run", "--", "sh", "-c", "true"]).exits(127);
    let seen = run(&["run", "--", "app", "echo", "hello"]).ok();
    assert_eq!(seen.stdout, "hello\n");
    run(&["run", "--", "app", "exit", "9"]).exits(9);
    assert!(run(&["run", "--", "app", "env"]).ok().stdout.contains("IBMCLOUD_API_KEY=[REDACTED]"));
    run(&["ops", "show", "--check", "--image", STATIC_IMAGE]).ok();
    let seen = run(&["ops", "show", "--check"]).exits(1).stdout;
    assert!(seen.contains("✗ image:"), "{seen}");
}

#[test]
fn access_is_what_was_asked_for_and_goes_when_it_is_not() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    sh("kubectl get pods -n default").exits(1);
    install(&["--cluster-access", "default", "postern-test"]).ok();
    sh("kubectl get pods -n default && kubectl auth can-i create jobs.batch -n postern-test").ok();
    sh("kubectl get pods -n kube-system").exits(1);
    sh("kubectl get secrets -n default").exits(1);
    run(&["ops", "audit"]).ok();
    assert_eq!(run(&["ops", "show", "-o", "json"]).ok().json()["clusterAccess"], "default,postern-test");

    let seen = install(&["--cluster-access", "postern-test"]).ok().stdout;
    assert!(seen.contains("✓ deleted Role default/postern-ops"), "{seen}");
    sh("kubectl get pods -n default").exits(1);

    // A binding that someone else made is an excess, also one for a group.
    let cases = [
        [
            "create",
            "rolebinding",
            "sneaky",
            "-n",
            "default",
            "--clusterrole=view",
            "--serviceaccount=postern-ops:postern-ops",
        ],
        [
            "create",
            "rolebinding",
            "sneaky",
            "-n",
            "default",
            "--clusterrole=view",
            "--group=system:serviceaccounts:postern-ops",
        ],
    ];
    for case in cases {
        kubectl(&case).ok();
        let seen = run(&["ops", "audit"]).exits(1).stdout;
        assert!(seen.contains("not declared: ") && seen.contains("in namespace default"), "{seen}");
        kubectl(&["delete", "rolebinding", "sneaky", "-n", "default"]).ok();
    }

    let seen = install(&["--cluster-access", "all"]).ok();
    assert!(seen.stderr.contains("every pod of the cluster"), "{}", seen.stderr);
    sh("kubectl get pods -A").ok();
    run(&["ops", "audit"]).ok();
    let seen = install(&[]).ok().stdout;
    assert!(seen.contains("✓ deleted ClusterRole postern-ops"), "{seen}");
    run(&["ops", "audit"]).ok();
    kubectl(&["get", "clusterrolebinding", "postern-ops"]).exits(1);
}

#[test]
fn show_says_what_is_missing_and_check_names_the_first_broken_link() {
    if !enabled() {
        return;
    }
    clean();
    let seen = run(&["ops", "show"]).ok().stdout;
    assert!(seen.contains("(missing: postern-ops)") && seen.contains("ready:        false"), "{seen}");
    let broken = || -> String {
        let json = run(&["ops", "show", "--check", "-o", "json"]).json();
        let findings = json["checks"].as_array().unwrap().clone();
        let problem = findings.iter().find(|finding| finding["severity"] == "problem");
        problem.map_or("none", |finding| finding["rule"].as_str().unwrap()).to_owned()
    };
    assert_eq!(broken(), "ops/namespace");
    install(&[]).ok();
    assert_eq!(broken(), "none");
    let seen = run(&["ops", "show", "-o", "json"]).ok().json();
    assert_eq!(
        (&seen["ready"], &seen["imageMatches"], &seen["agentVersion"]),
        (&true.into(), &true.into(), &env!("CARGO_PKG_VERSION").into())
    );
    kubectl(&["delete", "-n", OPS, "secret/postern-ops-credentials"]).ok();
    assert_eq!(broken(), "ops/secret");
    install(&[]).ok();
    kubectl(&["delete", "-n", OPS, "serviceaccount/postern-ops"]).ok();
    assert_eq!(broken(), "ops/service-account");
    install(&[]).ok();
    // A pod whose tokens are bound to an account that is gone is no use, though nothing of it changed.
    install(&["--cluster-access", "default"]).ok();
    kubectl(&["delete", "-n", OPS, "serviceaccount/postern-ops"]).ok();
    let anew = install(&["--cluster-access", "default"]).ok();
    assert!(anew.stdout.contains("✓ updated Pod"), "{}", anew.stdout);
    let again = install(&["--cluster-access", "default"]).ok();
    assert!(again.stdout.contains("✓ unchanged Pod"), "{}", again.stdout);
    run(&["ops", "audit", "--within", "no-such-namespace"])
        .exits(1)
        .says(&["there is no namespace no-such-namespace"]);
    install(&[]).ok();
    kubectl(&["delete", "-n", OPS, "pod/postern-ops"]).ok();
    assert_eq!(broken(), "ops/image");
    install(&[]).ok();
    let seen = run(&["ops", "show", "--check", "--tool", "no-such-tool"]).exits(1).stdout;
    assert!(seen.contains("✗ tool:"), "{seen}");
}

#[test]
fn what_judges_reports_in_every_format() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    for (format, begins) in [("sarif", "{"), ("junit", "<?xml"), ("html", "<!doctype html>")] {
        for args in [&["ops", "show", "--check"][..], &["ops", "audit"]] {
            let printed = run(&[args, &["-o", format]].concat()).ok().stdout;
            assert!(printed.to_lowercase().starts_with(begins), "{args:?} {printed:.300}");
        }
    }
    let sarif = run(&["ops", "audit", "-o", "sarif"]).ok().json();
    assert_eq!(sarif["version"], "2.1.0");
    run(&["ops", "show", "-o", "sarif"]).exits(2).says(&["--check"]);
    run(&["ops", "audit", "-o", "nonsense"]).exits(2).says(&["html"]);
    let schema: Value = serde_json::from_str(&run(&["report-schema"]).ok().stdout).unwrap();
    assert_eq!(schema["type"], "object");
}

#[test]
fn uninstall_previews_removes_ours_and_only_ours() {
    if !enabled() {
        return;
    }
    install(&["--cluster-access", "default"]).ok();
    let preview = run(&["ops", "uninstall"]).ok().stdout;
    for object in ["Pod postern-ops/postern-ops", "Role default/postern-ops", "Namespace postern-test"] {
        assert!(preview.contains(object), "{preview}");
    }
    sh("true").ok();
    // A partial install, and an account that no longer says what it was given.
    kubectl(&["delete", "-n", OPS, "serviceaccount/postern-ops", "pod/postern-ops"]).ok();
    let seen = run(&["ops", "uninstall", "--confirm"]).ok().stdout;
    assert!(seen.contains("✓ deleted Role default/postern-ops"), "{seen}");
    kubectl(&["get", "namespace", OPS]).exits(1);
    kubectl(&["get", "-n", "default", "rolebinding/postern-ops"]).exits(1);
    assert!(run(&["ops", "uninstall", "--confirm"]).ok().stdout.contains("Nothing of the ops pod"));

    kubectl(&["create", "namespace", "postern-test"]).ok();
    let seen = install(&[]).ok();
    assert!(seen.stderr.contains("not ours"), "{}", seen.stderr);
    run(&["ops", "uninstall", "--confirm"]).ok();
    kubectl(&["get", "namespace", "postern-test"]).ok();
    kubectl(&["delete", "namespace", "postern-test"]).ok();
}

#[test]
fn an_uninstall_says_what_it_may_not_look_for() {
    if !enabled() {
        return;
    }
    install(&["--cluster-access", "default"]).ok();
    let preview = run(&["ops", "uninstall", "-o", "json"]).ok();
    assert_eq!((preview.json()["warnings"].clone(), preview.stderr.as_str()), (serde_json::json!([]), ""));
    // The only record of what was granted goes, and who uninstalls sees no other namespace.
    kubectl(&["delete", "-n", OPS, "serviceaccount/postern-ops"]).ok();
    kubectl(&["create", "serviceaccount", "leaver", "-n", OPS]).ok();
    apply(&run(&["ops", "rbac", "--cluster-access", "default"]).ok().stdout);
    for role in ["postern-installer", "postern-installer-access"] {
        let (role_ref, subject) = (format!("--role={role}"), format!("--serviceaccount={OPS}:leaver"));
        kubectl(&["create", "rolebinding", role, "-n", OPS, &role_ref, &subject]).ok();
    }
    kubectl(&["create", "serviceaccount", "looker", "-n", OPS]).ok();
    let look = ["--role=postern-viewer", "--serviceaccount=postern-ops:looker"];
    kubectl(&[&["create", "rolebinding", "looker", "-n", OPS], &look[..]].concat()).ok();
    let looker = e2e::kubeconfig_of("looker");
    Outcome::of(postern().env("KUBECONFIG", looker.path()).args(["ops", "uninstall"]))
        .ok()
        .says(&["warning: you may not delete Pod postern-ops/postern-ops"]);
    let config = e2e::kubeconfig_of("leaver");
    let with = |args: &[&str]| Outcome::of(postern().env("KUBECONFIG", config.path()).args(args)).ok();
    with(&["ops", "uninstall"])
        .says(&["warning: RoleBindings and Roles in all namespaces could not be listed"]);
    let seen =
        with(&["ops", "uninstall", "-o", "json"]).says(&["warning: ", "ClusterRole postern-ops"]).json();
    let warnings: Vec<&str> =
        seen["warnings"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    let [objects, kinds] = warnings[..] else { panic!("{warnings:?}") };
    assert!(objects.contains("ClusterRoleBinding postern-ops") && objects.contains("Namespace postern-ops"));
    assert!(kinds.contains("cannot list resource \"roles\""), "{kinds}");
    let seen = with(&["ops", "uninstall", "--confirm", "-o", "json"]).json();
    assert_eq!(seen["warnings"], serde_json::json!(warnings));
    // What it said finds what it left, and who may list that takes it away.
    let find: Vec<&str> = kinds.split_once("kubectl ").unwrap().1.split(' ').chain(["-o", "name"]).collect();
    let left = kubectl(&find).ok().stdout;
    for kind in ["rolebinding", "role"] {
        assert!(left.contains(&format!("{kind}.rbac.authorization.k8s.io/postern-ops\n")), "{left}");
    }
    assert!(run(&["ops", "uninstall", "--confirm"]).ok().stdout.contains("deleted Role default/postern-ops"));
    kubectl(&["delete", "clusterrole/postern-auditor"]).ok();
    kubectl(&["delete", "-n", "default", "role/postern-installer-access-tools"]).ok();
}

#[test]
fn running_tools_may_finish_before_the_pod_is_replaced() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    let tool = std::thread::spawn(|| sh("echo up; sleep 4; echo finished"));
    e2e::eventually("the tool runs", std::time::Duration::from_secs(10), || {
        e2e::processes().contains("echo finished")
    });
    install(&["--force"]).ok();
    assert_eq!(tool.join().unwrap().ok().stdout, "up\nfinished\n");
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would() {
    if !enabled() {
        return;
    }
    clean();
    let seen = install(&["--dry-run"]).ok().stdout;
    assert!(seen.contains("✓ created Pod") && seen.contains("Nothing was changed"), "{seen}");
    kubectl(&["get", "namespace", OPS]).exits(1);
    install(&[]).ok();
    let before = pod_uid();
    let seen = install(&["--dry-run", "--image", STATIC_IMAGE]).ok().stdout;
    assert!(seen.contains("✓ updated Pod") && seen.contains("its specification changed"), "{seen}");
    assert!(install(&["--dry-run"]).ok().stdout.contains("✓ unchanged Pod"));
    assert_eq!(pod_uid(), before);
    let patch = r#"{"data":{"OTHER":"eA=="}}"#;
    kubectl(&["patch", "-n", OPS, "secret/postern-ops-credentials", "-p", patch]).ok();
    let goes = "what someone else put into Secret postern-ops/postern-ops-credentials goes";
    install(&["--dry-run"]).ok().says(&[goes, "OTHER"]);
    install(&[]).ok().says(&[goes]);
    assert!(!install(&[]).ok().stderr.contains(goes));
    let yaml = install(&["--dry-run", "-o", "yaml"]).ok().stdout;
    assert!(yaml.contains("kind: Pod") && !yaml.contains(canary()), "{yaml}");
}

#[test]
fn a_pod_that_does_not_start_says_why() {
    if !enabled() {
        return;
    }
    let failing = |args: &[&str]| install(&[&["--timeout", "25s"], args].concat()).exits(1);
    failing(&["--image", "registry.invalid/none:1"]).says(&[
        "likely cause: the image cannot be pulled",
        "fix:",
        "events:",
    ]);
    failing(&["--image", "UPPER/case:1"]).says(&["image reference cannot be parsed"]);
    failing(&["--image", "busybox:1.35"]).says(&["runs as root"]);
    install(&[]).ok();
}

#[test]
fn a_pod_goes_only_when_the_next_one_would_be_let_in() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    let first = pod_uid();
    // The whole namespace is full: nothing of ours fits.
    kubectl(&["create", "quota", "tight", "-n", OPS, "--hard=pods=0"]).ok();
    eventually("the quota counts", Duration::from_secs(30), || {
        get(&["-n", OPS, "quota/tight"])["status"]["used"]["pods"] == "1"
    });
    let kept = ["exceeded quota", "Pod postern-ops/postern-ops", "the one that is there was kept"];
    install(&["--force"]).exits(1).says(&kept);
    assert_eq!(pod_uid(), first);
    run(&["run", "--", "true"]).ok();
    // Neither is anything rotated or taken away before.
    let secret = ["-n", OPS, "secret/postern-ops-credentials"];
    let before = get(&secret)["data"].clone();
    let mut rotation = postern();
    rotation.args(["ops", "install"]).env("IBMCLOUD_API_KEY", "another-key-0123456789");
    Outcome::of(&mut rotation).exits(1).says(&kept);
    assert_eq!(get(&secret)["data"], before);
    run(&["ops", "show", "--check"]).exits(1);
    // A quota of one pod is full as well, and has room for the next.
    kubectl(&["patch", "quota", "tight", "-n", OPS, "-p", r#"{"spec":{"hard":{"pods":"1"}}}"#]).ok();
    run(&["ops", "show", "--check"]).ok();
    install(&["--force"]).ok();
    let second = pod_uid();
    assert_ne!(second, first);
    kubectl(&["delete", "quota", "tight", "-n", OPS]).ok();

    let pods = r#"{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}"#;
    let tried = ["run", "no-more-ops", "-n", "default", "--image", "x", "--dry-run=server"];
    let holds = || kubectl(&tried).stderr.contains("no-more-ops");
    policed(
        "no-more-ops",
        pods,
        r#"object.metadata.namespace == "postern-ops" ? object.metadata.name != "postern-ops" : !object.metadata.name.startsWith("no-more-ops")"#,
        holds,
        || {
            install(&["--force"]).exits(1).says(&[
                "no-more-ops",
                "the one that is there was kept",
                "likely cause: an admission policy",
            ]);
            assert_eq!(pod_uid(), second);
        },
    );
    install(&[]).ok();
}

#[test]
fn what_is_being_deleted_is_neither_shown_nor_taken_as_there() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    let secret = ["-n", OPS, "secret/postern-ops-credentials"];
    let finalizers = |list: &str| {
        let patch = format!(r#"{{"metadata":{{"finalizers":{list}}}}}"#);
        kubectl(&[&["patch"], &secret[..], &["--type=merge", "-p", &patch]].concat()).ok();
    };
    finalizers(r#"["example.com/hold"]"#);
    let before = get(&secret)["metadata"]["uid"].clone();
    kubectl(&[&["delete", "--wait=false"], &secret[..]].concat()).ok();
    let seen = run(&["ops", "show"]).ok().stdout;
    assert!(seen.contains("postern-ops-credentials (being deleted)"), "{seen}");
    let checked = run(&["ops", "show", "--check"]).exits(1).stdout;
    assert!(checked.contains("✗ secret: postern-ops-credentials is being deleted"), "{checked}");
    install(&["--timeout", "2s"]).exits(1).says(&[
        "Secret postern-ops/postern-ops-credentials: it is still there after 2 s",
        "finalizers example.com/hold",
    ]);
    finalizers("null");
    let seen = install(&[]).ok().stdout;
    assert!(seen.contains("✓ created Secret"), "{seen}");
    assert_ne!(get(&secret)["metadata"]["uid"], before);
}
