//! Real authorization servers that trust the cluster's issuer, and pods as `postern identity manifest` writes them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "these are tests")]

use e2e::pods::{Namespace, apply, manifests, wait};
use e2e::servers::Servers;
use e2e::{enabled, kubectl, testbed};
use serde_json::{Value, json};

const NAMESPACE: &str = "identity-e2e";
const COMMON: [&str; 5] =
    ["digest", "--namespace", NAMESPACE, "--image", "docker.io/library/debian-tools:12"];

/// The providers as `identity trust keycloak|dex` has them.
fn providers(ca: &std::path::Path) -> Value {
    let (keycloak, dex) = (Servers::KEYCLOAK, Servers::DEX);
    let assertion = json!({"type": "kubernetes_sa", "audience": keycloak});
    let api = json!({"base_url": format!("{keycloak}/protocol/openid-connect"), "ca_file": ca});
    json!({
        // The pod's token authenticates the client (RFC 7523 section 2.2),
        "keycloak": {
            "type": "oauth2", "issuer": keycloak, "ca_file": ca, "grant": "client_credentials",
            "scopes": ["openid"], "client_assertion": assertion, "api": api,
        },
        // or is the grant (section 2.1), of a client that another one of its tokens authenticates,
        "granted": {
            "type": "oauth2", "issuer": keycloak, "ca_file": ca, "grant": "jwt_bearer", "client_id": "digest",
            "scopes": ["openid"], "client_assertion": assertion, "api": api,
            "subject_token": {"type": "kubernetes_sa", "audience": keycloak},
        },
        // or is exchanged (RFC 8693).
        "dex": {
            "type": "oauth2", "issuer": dex, "ca_file": ca, "grant": "token_exchange", "client_id": "e2e",
            "scopes": ["openid"], "extra_params": {"connector_id": "kubernetes"},
            "subject_token": {"type": "kubernetes_sa", "audience": dex},
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "api": {"base_url": dex, "ca_file": ca},
        },
    })
}

fn logs(of: &str) -> String {
    let said = kubectl(&["logs", "-n", NAMESPACE, of, "-c", "main"]);
    format!("{}{}", said.stdout, said.stderr)
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|_| json!({"log": text}))
}

fn gone(kinds: &str) {
    kubectl(&["delete", kinds, "-n", NAMESPACE, "--all", "--wait=true"]).ok();
}

#[test]
fn keycloak_and_dex_serve_a_cron_job_a_job_and_a_deployment() {
    let Some(servers) = (enabled() && testbed()).then(Servers::up).flatten() else { return };
    let providers = providers(&servers.ca);
    let _namespace = Namespace::restricted(NAMESPACE);
    let make = |kind: &[&str], more: &[&str]| {
        let mut args = kind.to_vec();
        args.extend(COMMON.iter().chain(more));
        apply(&manifests(&providers, &args));
    };

    // A CronJob's pod with a sidecar: Keycloak tells its userinfo endpoint who came, which is the linked user.
    let ask = "curl -sS --fail-with-body \"$GRANTED_URL/userinfo\"";
    make(&["cronjob", "--schedule", "0 9 * * 1-5"], &["--provider", "granted", "--", "sh", "-c", ask]);
    kubectl(&["create", "job", "-n", NAMESPACE, "now", "--from=cronjob/digest"]).ok();
    wait(NAMESPACE, "job/now", "condition=complete");
    assert_eq!(json_of(&logs("job/now"))["preferred_username"], "digest");
    gone("cronjob,job");

    // A Job whose command is wrapped: the client's own account.
    let ask = format!(
        "curl -sS --fail-with-body --cacert /etc/postern/keycloak.crt -H \"Authorization: Bearer $KEYCLOAK_ACCESS_TOKEN\" \
         {}/protocol/openid-connect/userinfo",
        Servers::KEYCLOAK
    );
    make(&["job"], &["--way", "exec", "--provider", "keycloak", "--", "sh", "-c", &ask]);
    wait(NAMESPACE, "job/digest", "condition=complete");
    assert_eq!(json_of(&logs("job/digest"))["preferred_username"], "service-account-digest");
    gone("job");

    // A Deployment with all three, each with a token for its own audience. Keycloak's tokens end after 5 s here.
    make(&["deployment"], &["--", "sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]);
    wait(NAMESPACE, "deployment/digest", "condition=available");
    let inside = |script: &str| {
        kubectl(&["exec", "-n", NAMESPACE, "deploy/digest", "-c", "main", "--", "sh", "-c", script])
            .ok()
            .stdout
    };
    let who = json_of(&inside("curl -sS --fail-with-body \"$DEX_URL/userinfo\""));
    assert_eq!(who["iss"], Servers::DEX, "{who}");
    let count = "for i in $(seq 1 60); do curl -sS -o /dev/null -w '%{http_code}\\n' \"$KEYCLOAK_URL/userinfo\"; \
                 sleep 0.2; done | sort | uniq -c";
    assert_eq!(inside(count).split_whitespace().collect::<Vec<_>>(), ["60", "200"]);
    let page = inside("curl -sS \"${KEYCLOAK_URL%/keycloak}/metrics\"");
    let exchanges = page.lines().find_map(|line| {
        line.strip_prefix("postern_identity_exchanges_total{provider=\"keycloak\",result=\"issued\"} ")
    });
    assert!(exchanges.is_some_and(|count| count.parse::<u32>().unwrap() >= 3), "{page}");
    let doctor =
        ["exec", "-n", NAMESPACE, "deploy/digest", "-c", "postern", "--", "/postern", "identity", "doctor"];
    let walked = kubectl(&doctor).ok().stdout;
    assert!(walked.contains(Servers::KEYCLOAK) && walked.contains(Servers::DEX), "{walked}");
    gone("deployment");

    // Another ServiceAccount of the same namespace is nobody to Keycloak, by either of its ways.
    for (provider, code) in [("keycloak", "invalid_client"), ("granted", "invalid_client")] {
        let more = ["--service-account", "other", "--way", "exec", "--provider", provider, "--", "true"];
        make(&["job"], &more);
        wait(NAMESPACE, "job/digest", "condition=failed");
        let said = logs("job/digest");
        assert!(said.contains(code) && said.contains("usually:") && !said.contains("eyJ"), "{said}");
        gone("job");
    }
}

/// In full by `cargo xtask soak identity`: a rotation takes eight minutes, four fifths of the ten that are the least
/// that a kubelet projects a token for.
#[test]
fn proof_1_the_kubelets_own_rotations_cost_no_request() {
    let Some(rotations) = std::env::var("POSTERN_SOAK_ROTATIONS").ok().and_then(|count| count.parse().ok())
    else {
        return;
    };
    let servers = Servers::up().unwrap();
    let _namespace = Namespace::restricted(NAMESPACE);
    let mut args = vec!["deployment"];
    args.extend(COMMON);
    args.extend(["--", "sh", "-c", "trap 'exit 0' TERM; sleep 36000 & wait"]);
    let mut made = manifests(&providers(&servers.ca), &args);
    let volumes = &mut made[2]["spec"]["template"]["spec"]["volumes"];
    for source in volumes[0]["projected"]["sources"].as_array_mut().unwrap() {
        source["serviceAccountToken"]["expirationSeconds"] = 600.into();
    }
    apply(&made);
    wait(NAMESPACE, "deployment/digest", "condition=available");
    let inside = |container: &str, command: &[&str]| {
        let mut all = vec!["exec", "-n", NAMESPACE, "deploy/digest", "-c", container, "--"];
        all.extend_from_slice(command);
        kubectl(&all).ok().stdout
    };
    // The sidecar's own image has no shell; what it says of its token's life rises when that is replaced.
    let left = || {
        let status = json_of(&inside("postern", &["/postern", "identity", "status", "-o", "json"]));
        status[0]["sourceExpiresIn"].as_i64().unwrap_or_else(|| panic!("{status}"))
    };
    let script = "for i in $(seq 1 100); do for url in $KEYCLOAK_URL $GRANTED_URL $DEX_URL; do \
                  curl -sS -o /dev/null -w '%{http_code}\n' \"$url/userinfo\"; done; sleep 0.1; done | sort | uniq -c";
    let (mut seen, mut last, mut sent) = (0_u32, left(), 0_u32);
    while seen < rotations {
        let found = inside("main", &["sh", "-c", script]);
        assert_eq!(found.split_whitespace().collect::<Vec<_>>(), ["300", "200"], "after {sent} requests");
        sent += 300;
        let now = left();
        if now > last {
            seen += 1;
            eprintln!("rotation {seen} after {sent} requests, with {last} s left");
        }
        last = now;
    }
}
