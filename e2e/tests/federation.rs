//! Clouds that take the cluster's tokens: the API server's own tokens, checked by the cluster's own keys.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use e2e::cloud;
use e2e::federation::{ACCOUNT, CLIENT, Federation, POOL, TENANT};
use e2e::moto::Moto;
use e2e::scene::{Scene, trust};
use e2e::{Outcome, enabled};
use serde_json::{Value, json};

const SUBJECT: &str = "system:serviceaccount:default:default";

/// A token of the `default` `ServiceAccount` in a namespace, for an audience.
fn asked_for(namespace: &str, audience: &str) -> Value {
    json!({"type": "token_request", "namespace": namespace, "service_account": "default", "audience": audience})
}

fn federation() -> Federation {
    let cluster = trust("");
    Federation::start(&cluster.issuer, &cluster.keys, SUBJECT)
}

#[test]
fn google_exchanges_the_clusters_token_and_lends_a_service_account() {
    if !enabled() {
        return;
    }
    let (scene, google) = (Scene::new(&json!({})), federation());
    let audience = format!("https:{POOL}");
    let entry = |namespace: &str, audience: &str, account: Option<&str>, lifetime: &str| {
        let mut entry = json!({
            "type": "gcp", "workload_identity_provider": POOL, "endpoint": google.address,
            "subject_token": asked_for(namespace, audience),
        });
        if let Some(account) = account {
            entry["impersonation_endpoint"] = google.address.as_str().into();
            entry["service_account"] = account.into();
            entry["lifetime"] = lifetime.into();
        }
        entry
    };
    scene.configure(&json!({
        "plain": entry("default", &audience, None, ""), "lent": entry("default", &audience, Some(ACCOUNT), "10m"),
        "crossed": entry("default", "https://other", None, ""), "stranger": entry("kube-system", &audience, None, ""),
        "denied": entry("default", &audience, Some("other@p.iam.gserviceaccount.com"), "10m"),
    }));
    assert!(scene.run(&["token", "plain"]).ok().stdout.starts_with("federated-"));
    let lent = scene.run(&["token", "lent", "-o", "json"]).ok().json();
    assert!(lent["accessToken"].as_str().unwrap().starts_with("impersonated-"), "{lent}");
    let seconds = lent["expiresIn"].as_u64().unwrap();
    assert!((590..=600).contains(&seconds), "{lent}");
    // As Google's reference has it, parameter by parameter.
    let sent = google.asked();
    let form = sent[0]["form"].as_array().unwrap();
    let names: Vec<_> = form.iter().map(|pair| pair[0].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["grant_type", "audience", "scope", "requested_token_type", "subject_token_type", "subject_token"]
    );
    let body: Value = serde_json::from_str(sent[2]["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        body,
        json!({"scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "600s"})
    );
    for (name, words) in [
        ("crossed", &["invalid_grant", "usually: the audience", "https://other"][..]),
        ("stranger", &["unauthorized_client", "attribute condition"][..]),
        ("denied", &["PERMISSION_DENIED", "getAccessToken"][..]),
    ] {
        let said = scene.run(&["token", name]).exits(1).says(words);
        assert!(!said.stderr.contains("eyJ"), "a token is in the message: {}", said.stderr);
    }
}

#[test]
fn microsoft_takes_the_clusters_token_as_a_client_assertion() {
    if !enabled() {
        return;
    }
    let (scene, microsoft) = (Scene::new(&json!({})), federation());
    let audience = "api://AzureADTokenExchange";
    let entry = |namespace: &str, audience: &str, scope: &str| {
        json!({
            "type": "azure", "tenant_id": TENANT, "client_id": CLIENT, "endpoint": microsoft.address,
            "scopes": [scope], "subject_token": asked_for(namespace, audience),
        })
    };
    let scope = "https://graph.microsoft.com/.default";
    scene.configure(&json!({
        "graph": entry("default", audience, scope), "crossed": entry("default", "api://other", scope),
        "stranger": entry("kube-system", audience, scope),
        "narrow": entry("default", audience, "https://graph.microsoft.com/User.Read"),
    }));
    assert!(scene.run(&["token", "graph"]).ok().stdout.starts_with("entra-"));
    let sent = microsoft.asked();
    let form = sent[0]["form"].as_array().unwrap();
    let names: Vec<_> = form.iter().map(|pair| pair[0].as_str().unwrap()).collect();
    assert_eq!(names, ["grant_type", "client_id", "client_assertion_type", "client_assertion", "scope"]);
    for (name, words) in [
        ("crossed", &["AADSTS700212", "usually: the audience"][..]),
        ("stranger", &["AADSTS700213", "kube-system"][..]),
        ("narrow", &["AADSTS1002012", "/.default"][..]),
    ] {
        let said = scene.run(&["token", name]).exits(1).says(words);
        assert!(!said.stderr.contains("eyJ"), "a token is in the message: {}", said.stderr);
    }
}

#[test]
fn ibm_takes_the_clusters_token_for_a_trusted_profile() {
    if !enabled() {
        return;
    }
    let (scene, ibm, cluster) = (Scene::new(&json!({})), cloud::start(), trust("iam"));
    cloud::control(&ibm, "keys", &json!({"issuer": cluster.issuer, "keys": cluster.keys}));
    let link = json!({
        "name": "jobs", "cr_type": "IKS_SA",
        "link": {"crn": cloud::CRN, "namespace": "default", "name": "default"},
    });
    let known = cloud::control(&ibm, "trust", &link);
    let id = known["profiles"][0]["id"].as_str().unwrap();
    let entry = |namespace: &str, audience: &str, profile: &str| {
        json!({
            "type": "ibm", "profile": profile, "endpoint": ibm, "subject_token": asked_for(namespace, audience),
        })
    };
    scene.configure(&json!({
        "by-id": entry("default", "iam", id), "by-name": entry("default", "iam", "jobs"),
        "stranger": entry("kube-system", "iam", id), "crossed": entry("default", "other", id),
    }));
    for name in ["by-id", "by-name"] {
        let token = scene.run(&["token", name]).ok().stdout;
        assert_eq!(token.split('.').count(), 3, "{token}");
    }
    scene.run(&["token", "stranger"]).exits(1).says(&["BXNIM0398E", "usually:"]);
    scene.run(&["token", "crossed"]).exits(1).says(&["BXNIM0440E", "usually:"]);
}

#[test]
fn aws_answers_in_its_shapes_and_its_sdk_finds_the_credentials_by_every_way() {
    let Some(moto) = enabled().then(Moto::start).flatten() else { return };
    let scene = Scene::new(&json!({}));
    let entry = |more: &Value| {
        let mut entry = json!({
            "type": "aws", "role_arn": "arn:aws:iam::123456789012:role/reports", "region": "eu-central-1",
            "endpoint": moto.address, "lifetime": "15m", "subject_token": asked_for("default", "sts.amazonaws.com"),
        });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    scene.configure(&json!({
        "aws": entry(&json!({})),
        "chained": entry(&json!({"chain": [
            {"role_arn": "arn:aws:iam::210987654321:role/second", "session_name": "again", "external_id": "x"},
        ]})),
    }));
    let session = scene.run(&["token", "aws", "-o", "aws-process"]).ok().json();
    assert_eq!(session["Version"], 1);
    assert!(session["AccessKeyId"].as_str().unwrap().starts_with("ASIA"), "{session}");

    // Who the SDK is, as the API sees it.
    let who = format!(
        "import boto3; print(boto3.client('sts', endpoint_url='{}').get_caller_identity()['Arn'])",
        moto.address
    );
    let python = moto.python.to_str().unwrap();
    let first = "arn:aws:sts::123456789012:assumed-role/reports/default.default";
    // By the endpoint that `exec` serves,
    let outcome = scene.run(&["exec", "aws", "--", python, "-c", &who]).ok();
    assert_eq!(outcome.stdout.trim(), first);
    let outcome = scene.run(&["exec", "chained", "--", python, "-c", &who]).ok();
    assert_eq!(outcome.stdout.trim(), "arn:aws:sts::210987654321:assumed-role/second/again");
    // by a `credential_process`,
    let program = scene.postern(&[]).get_program().to_str().unwrap().to_owned();
    let profile = format!(
        "[default]\nregion = eu-central-1\ncredential_process = {program} identity token aws -o aws-process\n"
    );
    std::fs::write(scene.path("aws"), profile).unwrap();
    let sdk = || {
        // The environment that the program has, for the SDK starts it.
        let mut command = scene.postern(&[]);
        let mut sdk = std::process::Command::new(python);
        sdk.env_clear().args(["-c", &who]);
        sdk.envs(command.env("CI", "true").get_envs().filter_map(|(name, value)| Some((name, value?))));
        sdk
    };
    assert_eq!(Outcome::of(sdk().env("AWS_CONFIG_FILE", scene.path("aws"))).ok().stdout.trim(), first);
    // and by the endpoint of the proxy.
    let secret = scene.path("aws-token");
    let (process, at) = e2e::scene::proxy(&scene, &["--aws-token-file", secret.to_str().unwrap()]);
    let mut by_proxy = sdk();
    by_proxy
        .env("AWS_DEFAULT_REGION", "eu-central-1")
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{at}/aws-credentials/aws"))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &secret);
    assert_eq!(Outcome::of(&mut by_proxy).ok().stdout.trim(), first);
    // Without what the file holds it gives nothing.
    assert_eq!(e2e::scene::fetch(&at, "/aws-credentials/aws").0, 401);
    process.stop();
}
