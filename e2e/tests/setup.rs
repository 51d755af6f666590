//! The other side of `postern identity`: issuers, what providers must be told, the doctor, manifests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::provider::Provider;
use e2e::scene::{Scene, trust};
use e2e::{Outcome, enabled, get};
use serde_json::{Value, json};

#[test]
fn proof_3_a_token_for_staging_is_refused_by_prod() {
    if !enabled() {
        return;
    }
    let (prod, staging) = (Scene::new(&json!({})), Provider::start());
    prod.provider.trust(trust("https://prod"));
    staging.trust(trust("https://staging"));
    let entry = |provider: &Provider, audience: &str| {
        json!({
            "type": "oauth2", "token_endpoint": format!("{}/token", provider.address), "grant": "jwt_bearer",
            "subject_token": {
                "type": "token_request", "namespace": "default", "service_account": "default", "audience": audience,
            },
        })
    };
    prod.configure(&json!({
        "prod": entry(&prod.provider, "https://prod"), "staging": entry(&staging, "https://staging"),
        "crossed": entry(&prod.provider, "https://staging"),
    }));
    // The API server's own tokens, checked against its own keys.
    prod.run(&["token", "prod"]).ok();
    prod.run(&["token", "staging"]).ok();
    prod.run(&["token", "crossed"]).exits(1).says(&[
        "its audience",
        "usually: the audience",
        "https://staging",
    ]);
}

#[test]
fn the_issuer_is_copied_compared_and_set_up_for() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let shown = scene.run(&["issuer", "show", "-o", "json"]).ok().json();
    let found = trust("x");
    assert_eq!((shown["issuer"].as_str(), &shown["jwks"]), (Some(found.issuer.as_str()), &found.keys));
    let to = scene.path("copy");
    scene.run(&["issuer", "mirror", "--to", to.to_str().unwrap(), "--dry-run"]).ok();
    assert!(!to.exists());
    scene.run(&["issuer", "mirror", "--to", to.to_str().unwrap()]).ok();
    let copy: Value =
        serde_json::from_slice(&std::fs::read(to.join(".well-known/openid-configuration")).unwrap()).unwrap();
    assert_eq!(copy["jwks_uri"], format!("{}/openid/v1/jwks", found.issuer.trim_end_matches('/')));
    let keys: Value = serde_json::from_slice(&std::fs::read(to.join("openid/v1/jwks")).unwrap()).unwrap();
    assert_eq!(keys, found.keys);
    for args in [
        &["aws", "--account", "123456789012"][..],
        &["gcp"],
        &["azure"],
        &["ibm", "--cluster", "crn:v1:x"],
        &["keycloak", "--realm", "https://auth.example.com/realms/prod"],
        &["dex", "--issuer", "https://dex.example.com"],
    ] {
        let mut all = vec!["trust"];
        all.extend_from_slice(args);
        all.extend_from_slice(&["--service-account", "jobs/runner", "-o", "json"]);
        let setup = scene.run(&all).ok().json();
        assert_eq!(setup["subject"], "system:serviceaccount:jobs:runner");
        assert_eq!(setup["issuer"], found.issuer.as_str());
    }
}

#[test]
fn the_doctor_names_the_broken_link() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let broken = |outcome: &Outcome| -> Vec<String> {
        let findings = outcome.json()["findings"].as_array().unwrap().clone();
        let broken = findings.iter().filter(|finding| finding["severity"] == "problem");
        broken.map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect()
    };
    let doctor = |want: i32| scene.run(&["doctor", "-o", "json"]).exits(want);
    // The token is nobody's: the cluster has no such key.
    assert_eq!(broken(&doctor(1)), ["identity/issuer-cluster"]);
    let settings = json!({
        "type": "token_request", "namespace": "default", "service_account": "default", "audience": "https://as",
    });
    let entry = |source: &Value| {
        json!({"reports": {
            "type": "oauth2", "token_endpoint": format!("{}/token", scene.provider.address), "grant": "jwt_bearer",
            "subject_token": source,
        }})
    };
    scene.configure(&entry(&settings));
    assert_eq!(broken(&doctor(0)), Vec::<String>::new());
    scene.provider.trust(trust("https://other"));
    assert_eq!(broken(&doctor(1)), ["identity/exchange"]);
    scene.configure(&entry(&json!({"type": "file", "path": "/nonexistent"})));
    assert_eq!(broken(&doctor(1)), ["identity/token"]);
}

#[test]
fn manifests_pass_the_api_server() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({"subject_token": {"type": "kubernetes_sa", "audience": "https://as"}}));
    let kinds: [&[&str]; 3] = [&["cronjob", "--schedule", "0 9 * * 1-5"], &["job"], &["deployment"]];
    for kind in kinds {
        for way in ["sidecar", "exec"] {
            let mut args = vec!["manifest"];
            args.extend_from_slice(kind);
            args.extend_from_slice(&["digest", "--image", "debian-tools:12", "--way", way, "--", "true"]);
            let made = scene.run(&args).ok().stdout;
            let mut apply = e2e::kubectl_command(&["apply", "--dry-run=server", "-f", "-"]);
            e2e::with_stdin(&mut apply, made.as_bytes()).ok();
        }
    }
    assert!(
        get(&["serviceaccounts"])["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["metadata"]["name"] != "digest")
    );
}
