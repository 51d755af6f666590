//! The controller itself: its replicas, its certificate, and other clients that change what it changes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use base64::Engine as _;
use e2e::controller::{
    SOON, SYSTEM, account, delete, for_case, install, install_all, installed, namespace, pod,
};
use e2e::pods::{apply, wait};
use e2e::registry::{copies, named_by};
use e2e::{Outcome, eventually, get, kubectl, kubectl_command, postern, with_stdin};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// The replica that holds the Lease; empty if none does.
fn leader() -> String {
    let lease = get(&["-n", SYSTEM, "lease/postern-controller"]);
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
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
    // Each leader counts for itself.
    eventually("a replica that stays leads", Duration::from_secs(60), || {
        let pod = kubectl(&["get", "pod", "-n", SYSTEM, &leader(), "-o", "json"]);
        pod.code == 0 && pod.json()["metadata"]["deletionTimestamp"].is_null()
    });
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

/// The data of the Secret with the webhook's certificate.
fn certificate() -> Value {
    get(&["-n", SYSTEM, "secret/postern-webhook"])["data"].clone()
}

/// Makes a certificate seem to end in so many days.
fn let_end_in(annotation: &str, days: u64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let value = format!("postern.dev/{annotation}={}", now + days * 24 * 60 * 60);
    kubectl(&["annotate", "--overwrite", "-n", SYSTEM, "secret/postern-webhook", &value]).ok();
}

#[test]
fn the_webhooks_certificate_is_renewed_under_load() {
    if !installed() {
        return;
    }
    let case = "e2e-renewal";
    // No ServiceAccount names the copy, so that only the webhook can add it.
    apply(&[for_case(case, &json!({"pods": {"matchLabels": {"app": "web"}}})), namespace(case, case)]);
    eventually("a copy", SOON, || copies(case).len() == 1);
    let pods = (0..10).map(|number| {
        let mut one = pod(case, &format!("p{number}"), "default", "registry.test/a:1");
        one["metadata"]["labels"] = json!({"app": "web"});
        one
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods.collect::<Vec<_>>()}).to_string();
    let all_are_changed = || {
        let mut command = kubectl_command(&["create", "--dry-run=server", "-o", "json", "-f", "-"]);
        with_stdin(&mut command, list.as_bytes()).ok().stdout.matches("\"imagePullSecrets\"").count() == 10
    };
    eventually("the webhook answers", SOON, all_are_changed);
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut rounds, mut missed) = (0, 0);
            while !ends.load(Ordering::Relaxed) {
                rounds += 1;
                missed += u32::from(!all_are_changed());
            }
            (rounds, missed)
        });
        let first = certificate();
        let_end_in("certificate-not-after", 10);
        eventually("another certificate", SOON, || certificate()["tls.crt"] != first["tls.crt"]);
        let second = certificate();
        assert_eq!(second["ca.crt"], first["ca.crt"]);
        let_end_in("ca-not-after", 100);
        eventually("another CA", SOON, || certificate()["ca.crt"] != first["ca.crt"]);
        assert_eq!(certificate()["tls.crt"], second["tls.crt"], "API servers learn of the CA first");
        eventually("it signs", Duration::from_secs(60), || certificate()["tls.crt"] != second["tls.crt"]);
        // Some more with the new one.
        (0..5).for_each(|_| assert!(all_are_changed()));
        ends.store(true, Ordering::Relaxed);
        let (rounds, missed) = load.join().unwrap();
        assert!(rounds > 10 && missed == 0, "{missed} of {rounds} rounds");
    });
}

#[test]
fn a_deleted_certificate_comes_back() {
    if !installed() {
        return;
    }
    install(&["--parts", "volumes"]).ok();
    let before = certificate();
    kubectl(&["delete", "secret", "-n", SYSTEM, "postern-webhook"]).ok();
    eventually("another one", Duration::from_secs(45), || {
        let found = kubectl(&["get", "secret", "-n", SYSTEM, "postern-webhook", "-o", "json"]);
        found.code == 0 && found.json()["data"]["tls.crt"].is_string()
    });
    let after = certificate();
    assert_ne!(after["ca.crt"], before["ca.crt"]);
    eventually("the API server knows its CA", SOON, || {
        let found = get(&["mutatingwebhookconfiguration/postern-webhook"]);
        found["webhooks"][0]["clientConfig"]["caBundle"] == after["ca.crt"]
    });
    install_all();
}

/// A certificate as cert-manager makes one: in a Secret, by a CA that somebody puts into the webhook's configuration.
#[test]
fn a_certificate_of_somebody_else_is_used() {
    if !installed() {
        return;
    }
    let case = "e2e-given-certificate";
    let folder = tempfile::tempdir().unwrap();
    let openssl = |args: &str| {
        Outcome::of(Command::new("openssl").args(args.split(' ')).current_dir(folder.path())).ok();
    };
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca",
    );
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr -subj /CN=webhook",
    );
    let name = format!("subjectAltName=DNS:postern-controller.{SYSTEM}.svc");
    std::fs::write(folder.path().join("extensions"), name).unwrap();
    openssl(
        "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -out tls.crt -extfile extensions",
    );
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (format!("--cert={}", path("tls.crt")), format!("--key={}", path("tls.key")));
    kubectl(&["delete", "secret", "-n", SYSTEM, "given", "--ignore-not-found"]).ok();
    kubectl(&["create", "secret", "tls", "given", "-n", SYSTEM, &certificate, &key]).ok();
    install(&["--parts", "pull-secrets", "--certificate-secret", "given"]).ok();
    let authority = base64::engine::general_purpose::STANDARD.encode(std::fs::read(path("ca.crt")).unwrap());
    let announced =
        json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": authority}]).to_string();
    let webhook = "mutatingwebhookconfiguration/postern-webhook";
    kubectl(&["patch", webhook, "--type=json", "-p", &announced]).ok();
    let subject = "--as=system:serviceaccount:postern-system:postern-controller";
    let may = kubectl(&["auth", "can-i", "patch", webhook, subject]).stdout;
    assert_eq!(may.trim(), "no", "somebody else announces the CA");
    apply(&[for_case(case, &json!({"pods": {"matchLabels": {"app": "web"}}})), namespace(case, case)]);
    let mut one = pod(case, "p", "default", "registry.test/a:1");
    one["metadata"]["labels"] = json!({"app": "web"});
    eventually("the webhook answers", SOON, || {
        let mut command = kubectl_command(&["create", "--dry-run=server", "-o", "json", "-f", "-"]);
        let outcome = with_stdin(&mut command, one.to_string().as_bytes());
        outcome.code == 0 && outcome.stdout.contains("imagePullSecrets")
    });
    delete(&["clusterpullsecret", case]);
    delete(&["namespace", case]);
    install_all();
    delete(&["secret", "-n", SYSTEM, "given"]);
}
