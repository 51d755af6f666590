//! Proof 5: every rule that is granted is needed, and what is granted is enough.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::{
    Outcome, apply, canary, clean, enabled, eventually, install, kubeconfig_of, kubectl, ops, postern, run,
    sh,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// The Roles that `ops rbac` prints.
fn roles(access: &[&str]) -> Vec<Value> {
    let mut args = vec!["ops", "rbac", "-o", "json"];
    if !access.is_empty() {
        args.push("--cluster-access");
        args.extend_from_slice(access);
    }
    run(&args).ok().json()["items"].as_array().unwrap().clone()
}

fn role(name: &str) -> Value {
    of_kind("Role", name)
}

fn of_kind(kind: &str, name: &str) -> Value {
    roles(&[]).into_iter().find(|role| role["kind"] == kind && plain_name(role) == name).unwrap()
}

/// A Role's name as the default ops pod's is called. Beyond the pod's namespace, those of other pods have a prefix.
fn plain_name(role: &Value) -> &str {
    let name = role["metadata"]["name"].as_str().unwrap();
    name.rsplit(':').next().unwrap_or(name)
}

/// An account of its own that holds this Role and nothing else.
fn grant(account: &str, role: &Value) {
    let (kind, name) = (role["kind"].as_str().unwrap(), role["metadata"]["name"].as_str().unwrap());
    let binding = serde_json::json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
        // Absent for a ClusterRole, and so for its binding.
        "metadata": {"name": format!("{account}-{name}"), "namespace": role["metadata"].get("namespace")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": ops()}],
    });
    let account = serde_json::json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": ops()},
    });
    apply(
        &serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [account, role, binding]})
            .to_string(),
    );
}

fn without(role: &Value, index: usize) -> Value {
    let mut role = role.clone();
    role["rules"].as_array_mut().unwrap().remove(index);
    role
}

fn as_account(config: &Path, args: &[&str]) -> Outcome {
    Outcome::of(postern().env("KUBECONFIG", config).env("IBMCLOUD_API_KEY", canary()).args(args))
}

/// The namespaces that the ops pod needs.
fn given() -> Vec<&'static str> {
    if ops() == e2e::OPS { vec![ops(), "postern-test"] } else { vec![ops()] }
}

/// These namespaces, made by an administrator beforehand, with nothing of ours in them.
fn namespaces() {
    clean();
    for name in given() {
        kubectl(&["delete", "namespace", name, "--ignore-not-found"]).ok();
        kubectl(&["create", "namespace", name]).ok();
        kubectl(&["label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted"]).ok();
    }
}

fn done() {
    for name in given() {
        kubectl(&["delete", "namespace", name, "--ignore-not-found"]).ok();
    }
    if ops() != e2e::OPS {
        e2e::make_namespace(ops());
    }
}

/// A life of the ops pod as an installer sees it; the error of the first thing that is refused.
fn life(config: &Path) -> Result<(), String> {
    let step = |outcome: Outcome| if outcome.code == 0 { Ok(outcome) } else { Err(outcome.stderr) };
    step(as_account(config, &["ops", "install"]))?;
    step(as_account(config, &["ops", "install", "--force"]))?;
    step(as_account(config, &["ops", "install", "--stream"]))?;
    step(as_account(config, &["ops", "install", "--stream"]))?;
    let failing =
        as_account(config, &["ops", "install", "--image", "registry.invalid/none:1", "--timeout", "25s"]);
    if !failing.stderr.contains("events:") {
        return Err(format!("no events: {}", failing.stderr));
    }
    step(as_account(config, &["ops", "uninstall", "--confirm"]))?;
    let left =
        kubectl(&["get", "-n", ops(), "pod,secret,configmap,serviceaccount", "-o", "name"]).ok().stdout;
    if left.contains("/postern-ops") { Err(format!("left: {left}")) } else { Ok(()) }
}

#[test]
fn an_installer_needs_each_of_its_rules_and_no_more() {
    if !enabled() {
        return;
    }
    namespaces();
    let role = role("postern-installer");
    grant("installer", &role);
    let config = kubeconfig_of("installer");
    life(config.path()).unwrap();
    for index in 0..role["rules"].as_array().unwrap().len() {
        grant("installer", &without(&role, index));
        let error =
            life(config.path()).expect_err(&format!("rule {index} is not needed: {}", role["rules"][index]));
        let named = ["cannot", "no events"].iter().any(|word| error.contains(word));
        assert!(named || error.contains("left:"), "rule {index}: {error}");
        // An administrator tidies up.
        kubectl(&[
            "delete",
            "-n",
            ops(),
            "pod/postern-ops",
            "secret/postern-ops-credentials",
            "secret/postern-ops-stream",
            "configmap/postern-ops-stream-keys",
            "serviceaccount/postern-ops",
            "--ignore-not-found",
        ])
        .ok();
    }
    done();
}

#[test]
fn an_installer_can_grant_access_only_with_the_rules_for_it() {
    if !enabled() {
        return;
    }
    namespaces();
    kubectl(&["create", "namespace", "postern-e2e-access"]);
    let mine = ["postern-installer", "postern-installer-access", "postern-installer-access-tools"];
    let roles: Vec<Value> =
        roles(&["postern-e2e-access"]).into_iter().filter(|role| mine.contains(&plain_name(role))).collect();
    assert_eq!(roles.len(), 3);
    roles.iter().for_each(|role| grant("installer", role));
    let config = kubeconfig_of("installer");
    let cycle = || {
        let with = as_account(config.path(), &["ops", "install", "--cluster-access", "postern-e2e-access"]);
        if with.code != 0 { with } else { as_account(config.path(), &["ops", "install"]) }
    };
    cycle().ok();
    for role in &roles[1..] {
        for index in 0..role["rules"].as_array().unwrap().len() {
            grant("installer", &without(role, index));
            let seen = cycle();
            assert!(seen.code == 1, "not needed: {} of {}", role["rules"][index], role["metadata"]["name"]);
            assert!(seen.stderr.contains("forbidden") || seen.stderr.contains("cannot"), "{}", seen.stderr);
            grant("installer", role);
            // What the refused one left half done would hide the need for the next rule.
            cycle().ok();
        }
    }
    kubectl(&["delete", "namespace", "postern-e2e-access"]).ok();
    done();
}

#[test]
fn a_runner_can_run_and_a_viewer_can_look() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    let runner = role("postern-runner");
    grant("runner", &runner);
    let config = kubeconfig_of("runner");
    as_account(config.path(), &["run", "--", "sh", "-c", "exit 3"]).exits(3);
    as_account(config.path(), &["ops", "logs"]).exits(1).says(&["cannot get resource \"pods/log\""]);
    grant("runner", &without(&runner, 0));
    as_account(config.path(), &["run", "--", "true"]).exits(127).says(&["pods/exec"]);

    let viewer = role("postern-viewer");
    grant("viewer", &viewer);
    let config = kubeconfig_of("viewer");
    let look = || {
        let shown = as_account(config.path(), &["ops", "show", "-o", "json"]).ok().json();
        let logs = as_account(config.path(), &["ops", "logs"]).code == 0;
        shown["podState"] == "present" && shown["serviceAccountState"] == "present" && logs
    };
    assert!(look());
    as_account(config.path(), &["run", "--", "true"]).exits(127);
    let shown = as_account(config.path(), &["ops", "show", "-o", "json"]).ok().json();
    assert_eq!((&shown["secretState"], &shown["credentials"]), (&"unknown".into(), &Value::Null));
    assert!(shown["rotatedAt"].is_string());
    for index in 0..viewer["rules"].as_array().unwrap().len() {
        grant("viewer", &without(&viewer, index));
        assert!(!look(), "not needed: {}", viewer["rules"][index]);
    }
}

#[test]
fn a_streamer_needs_each_of_its_rules_and_the_key_is_nobody_elses() {
    if !enabled() {
        return;
    }
    install(&["--stream"]).ok();
    let home = tempfile::tempdir().unwrap();
    let own = home.path().join("key");
    let own = own.to_str().unwrap();
    run(&["ops", "authorize", "--generate", own]).ok();
    let streamer = role("postern-streamer");
    grant("streamer", &streamer);
    let config = kubeconfig_of("streamer");
    let by_stream = |more: &[&str]| {
        let mut args = vec!["run", "--transport", "stream"];
        args.extend_from_slice(more);
        args.extend(["--", "true"]);
        as_account(config.path(), &args)
    };
    by_stream(&[]).ok();
    e2e::eventually("the pod has the key", std::time::Duration::from_secs(150), || {
        by_stream(&["--stream-key", own]).code == 0
    });
    let needed_for = [("pods/portforward", false), ("secrets", false), ("configmaps", true)];
    for (index, (resource, with_own)) in needed_for.into_iter().enumerate() {
        grant("streamer", &without(&streamer, index));
        let key = ["--stream-key", own];
        let seen = by_stream(if with_own { &key } else { &[] });
        seen.exits(127).says(&[resource, "postern-streamer"]);
    }
    grant("streamer", &streamer);
    let checked = as_account(config.path(), &["ops", "show", "--check"]).ok().stdout;
    assert!(checked.contains("✓ exec: you may not exec; going on by stream"), "{checked}");
    // It opens no exec, and who may only exec does not see the key: auto goes by exec then.
    as_account(config.path(), &["run", "--", "true"]).exits(127).says(&["pods/exec"]);
    grant("runner", &role("postern-runner"));
    let runner = kubeconfig_of("runner");
    as_account(runner.path(), &["run", "--transport", "stream", "--", "true"])
        .exits(127)
        .says(&["forbidden"]);
    as_account(runner.path(), &["run", "-v", "--transport", "auto", "--", "true"]).ok().says(&["by exec: "]);
}

#[test]
fn an_auditor_can_audit_and_needs_each_of_its_rules_and_names() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    let roles = [role("postern-auditor"), of_kind("ClusterRole", "postern-auditor")];
    roles.iter().for_each(|role| grant("auditor", role));
    let config = kubeconfig_of("auditor");
    let audit = || as_account(config.path(), &["ops", "audit", "-o", "json"]);
    let namespaces = || -> BTreeSet<String> {
        let listed = kubectl(&["get", "namespaces", "-o", "name"]).ok().stdout;
        listed.lines().map(|name| name.trim_start_matches("namespace/").to_owned()).collect()
    };
    let before = namespaces();
    let whole = audit().ok().json();
    assert_eq!(whole["notes"], serde_json::json!(["declared cluster access: none"]));
    let findings = whole["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["severity"] == "ok"), "{whole}");
    // Other tests make and delete namespaces meanwhile.
    let seen: BTreeSet<String> =
        findings.iter().filter_map(|finding| Some(finding["subject"]["name"].as_str()?.to_owned())).collect();
    let stayed: BTreeSet<String> = namespaces().intersection(&before).cloned().collect();
    assert!(seen.is_superset(&stayed), "{seen:?} {stayed:?}");
    as_account(config.path(), &["run", "--", "true"]).exits(127);
    as_account(config.path(), &["ops", "logs"]).exits(1);
    // Refused, or it says what it left out. The API server hears of a changed Role a moment later.
    let misses = |rule: &Value, what: &str| {
        let (verb, resource) = (rule["verbs"][0].as_str().unwrap(), rule["resources"][0].as_str().unwrap());
        let words = format!("cannot {verb} resource \\\"{resource}\\\"");
        eventually(&format!("{what} is needed"), Duration::from_secs(10), || match (audit(), resource) {
            (seen, "namespaces") => seen.stdout.contains("you may not list namespaces"),
            (seen, _) => seen.code == 1 && seen.stderr.contains(&words),
        });
        roles.iter().for_each(|role| grant("auditor", role));
        eventually("the whole Role is enough", Duration::from_secs(10), || audit().code == 0);
    };
    for role in &roles {
        for (index, rule) in role["rules"].as_array().unwrap().iter().enumerate() {
            grant("auditor", &without(role, index));
            misses(rule, &rule.to_string());
            let names = rule["resourceNames"].as_array().cloned().unwrap_or_default();
            // The last name cannot go alone: no names at all would mean every name.
            for name in names.iter().filter(|_| names.len() > 1) {
                let mut fewer = role.clone();
                fewer["rules"][index]["resourceNames"].as_array_mut().unwrap().retain(|one| one != name);
                grant("auditor", &fewer);
                misses(rule, &format!("{name} of {rule}"));
            }
        }
    }
    let name = roles[1]["metadata"]["name"].as_str().unwrap();
    let binding = format!("auditor-{name}");
    kubectl(&["delete", "clusterrole,clusterrolebinding", name, &binding, "--ignore-not-found"]).ok();
}

#[test]
fn tools_with_access_need_each_of_its_rules() {
    if !enabled() {
        return;
    }
    kubectl(&["create", "namespace", "postern-e2e-tools"]);
    install(&["--cluster-access", "postern-e2e-tools"]).ok();
    apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: peer, namespace: postern-e2e-tools}\nspec: {terminationGracePeriodSeconds: 0, \
         containers: [{name: a, image: 'busybox:1.35', command: [sh, -c, 'echo logged; sleep 3600']}]}\n",
    );
    kubectl(&["wait", "-n", "postern-e2e-tools", "--for=condition=Ready", "pod/peer", "--timeout=60s"]).ok();
    let uses: [(&str, &str); 5] = [
        (
            "jobs",
            "N='-n postern-e2e-tools'; kubectl create $N job j --image=busybox:1.35 -- true && kubectl get $N job j && kubectl delete $N job j",
        ),
        ("pods", "kubectl get pods -n postern-e2e-tools"),
        ("pods/log", "kubectl logs -n postern-e2e-tools peer"),
        ("pods/exec", "kubectl exec -n postern-e2e-tools peer -- true"),
        ("secrets", &format!("kubectl get secret postern-ops-credentials -n {}", ops())),
    ];
    let works = |script: &str| sh(script).code == 0;
    for (resource, script) in uses {
        assert!(works(script), "{resource}");
        let namespace = if resource == "secrets" { ops() } else { "postern-e2e-tools" };
        let access = e2e::access_role();
        let name = if resource == "secrets" { "postern-ops-credentials" } else { &access };
        let role = e2e::get(&["-n", namespace, "role", name]);
        let index =
            role["rules"].as_array().unwrap().iter().position(|rule| rule["resources"][0] == resource);
        let index = index.unwrap_or_else(|| panic!("no rule for {resource}"));
        let path = format!("[{{\"op\":\"remove\",\"path\":\"/rules/{index}\"}}]");
        kubectl(&["patch", "-n", namespace, "role", name, "--type=json", "-p", &path]).ok();
        assert!(!works(script), "the rule for {resource} is not needed");
        let audited = run(&["ops", "audit", "-o", "json"]).ok().json();
        let mut findings = audited["findings"].as_array().unwrap().iter();
        assert!(findings.any(|finding| finding["rule"] == "rbac/missing"), "{audited}");
        run(&["ops", "audit", "--fail-on", "warning"]).exits(1);
        install(&["--cluster-access", "postern-e2e-tools"]).ok();
    }
    sh(&format!("kubectl get secrets -n {}", ops())).exits(1);
    run(&["ops", "audit"]).ok();
    install(&[]).ok();
    kubectl(&["delete", "namespace", "postern-e2e-tools"]).ok();
}
