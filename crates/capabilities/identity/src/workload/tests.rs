use super::*;

fn providers(value: &Value) -> BTreeMap<String, Provider> {
    serde_json::from_value(value.clone()).unwrap()
}

fn workload<'a>(
    kind: Kind,
    way: Way,
    command: &'a [String],
    providers: &'a BTreeMap<String, Provider>,
) -> Workload<'a> {
    Workload {
        kind,
        name: "digest",
        namespace: "ai-jobs",
        service_account: "runner",
        image: "example.com/app:1",
        postern_image: "example.com/postern:1",
        way,
        command,
        providers,
        authorities: const { &BTreeMap::new() },
    }
}

fn two() -> BTreeMap<String, Provider> {
    providers(&json!({
        "prod": {"type": "oauth2", "issuer": "https://prod/realms/main", "grant": "jwt_bearer", "client_id": "bot",
            "api": {"base_url": "https://api"}},
        "staging": {
            "type": "oauth2", "issuer": "https://staging/realms/main", "grant": "client_credentials",
            "client_assertion": {"type": "kubernetes_sa", "audience": "own"}, "api": {"base_url": "https://api"},
        },
    }))
}

#[test]
fn each_provider_has_a_token_for_its_own_audience() {
    let providers = two();
    let made = manifests(&workload(Kind::Job, Way::Sidecar, &[], &providers)).unwrap();
    let pod = &made[2]["spec"]["template"]["spec"];
    assert_eq!(
        pod["volumes"][0]["projected"]["sources"],
        json!([
            {"serviceAccountToken": {"path": "prod/token", "audience": "https://prod/realms/main", "expirationSeconds": 3600}},
            {"serviceAccountToken": {"path": "staging/token", "audience": "own", "expirationSeconds": 3600}},
        ])
    );
    // The mounted configuration is valid, with the tokens where they are mounted.
    let text = made[1]["data"]["config.yaml"].as_str().unwrap();
    let config = postern_config::Config::parse(text.as_bytes(), std::path::Path::new("c.yaml")).unwrap();
    let path = |name: &str| {
        let provider = &config.providers[name];
        let subject = provider.subject().and_then(|source| source.path);
        subject.or(provider.client_assertion.clone().and_then(|own| own.path)).unwrap()
    };
    assert_eq!(path("prod"), std::path::Path::new("/var/run/secrets/tokens/prod/token"));
    assert_eq!(path("staging"), std::path::Path::new("/var/run/secrets/tokens/staging/token"));
    assert!(!text.contains("null"));
}

#[test]
fn no_token_for_the_api_server_and_no_right_is_given() {
    let providers = two();
    let kinds = [
        Kind::Job,
        Kind::Deployment { replicas: 2 },
        Kind::CronJob { schedule: "0 9 * * 1-5".to_owned(), time_zone: "Etc/UTC".to_owned() },
    ];
    for kind in kinds {
        let made = manifests(&workload(kind, Way::Sidecar, &[], &providers)).unwrap();
        let kinds: Vec<_> = made.iter().map(|one| one["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds[..2], ["ServiceAccount", "ConfigMap"]);
        assert_eq!(made[0]["automountServiceAccountToken"], false);
        let text = made[2].to_string();
        assert!(
            text.contains("\"automountServiceAccountToken\":false") && text.contains("\"runAsNonRoot\":true")
        );
        assert!(text.contains("\"restartPolicy\":\"Always\""), "a native sidecar");
    }
}

#[test]
fn a_cron_job_does_not_pile_up() {
    let providers = two();
    let kind = Kind::CronJob { schedule: "0 9 * * *".to_owned(), time_zone: "Europe/Berlin".to_owned() };
    let command = ["app".to_owned()];
    let made = manifests(&workload(kind, Way::Exec, &command, &providers)).unwrap();
    let spec = &made[2]["spec"];
    assert_eq!((&spec["timeZone"], &spec["concurrencyPolicy"]), (&json!("Europe/Berlin"), &json!("Forbid")));
    assert_eq!(spec["jobTemplate"]["spec"]["activeDeadlineSeconds"], 1800);
    let container = &spec["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        container["command"],
        json!(["/opt/postern/postern", "identity", "exec", "prod", "staging", "--", "app"])
    );
}

#[test]
fn what_no_pod_can_do_is_said() {
    let of = |provider: Value| {
        let providers = providers(&json!({"x": provider}));
        let command = ["app".to_owned()];
        manifests(&workload(Kind::Job, Way::Exec, &command, &providers)).unwrap_err().to_string()
    };
    let oauth = |more: Value| {
        let mut value = json!({"type": "oauth2", "token_endpoint": "https://as/token", "client_id": "c"});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        value
    };
    assert!(of(oauth(json!({"grant": "device_code"}))).contains("needs a person"));
    assert!(of(oauth(json!({"grant": "jwt_bearer"}))).contains("no audience is set"));
    let source = json!({"grant": "jwt_bearer", "subject_token": {"type": "env", "name": "T"}});
    assert!(of(oauth(source)).contains("source env is not available in a pod"));
    let providers = two();
    let none = manifests(&workload(Kind::Job, Way::Exec, &[], &providers)).unwrap_err();
    assert_eq!(none, WorkloadError::NoCommand);
}

#[test]
fn a_sidecar_serves_apis_and_aws_sdks_and_needs_one_of_them() {
    let aws = json!({"type": "aws", "role_arn": "arn:aws:iam::1:role/x", "region": "eu-central-1"});
    let all = providers(&json!({"aws": aws}));
    let made = manifests(&workload(Kind::Job, Way::Sidecar, &[], &all)).unwrap();
    let pod = &made[2]["spec"]["template"]["spec"];
    let args = pod["initContainers"][0]["args"].to_string();
    assert!(args.contains("--aws-token-file"), "{args}");
    assert_eq!(
        pod["containers"][0]["env"][1],
        json!({"name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "value": "/var/run/postern/aws-token"})
    );
    let none = providers(&json!({
        "x": {"type": "oauth2", "issuer": "https://as", "grant": "jwt_bearer"},
    }));
    let error = manifests(&workload(Kind::Job, Way::Sidecar, &[], &none)).unwrap_err();
    assert_eq!(error, WorkloadError::NoApi("x".to_owned()));
}

#[test]
fn certificates_go_into_the_pod_and_the_configuration_names_them_there() {
    let providers = providers(&json!({
        "own": {"type": "oauth2", "issuer": "https://prod/realms/main", "grant": "jwt_bearer", "ca_file": "/home/me/ca.crt",
            "api": {"base_url": "https://api", "ca_file": "/home/me/api.crt"}},
    }));
    let authorities = BTreeMap::from([
        ("/home/me/ca.crt".into(), "CA".to_owned()),
        ("/home/me/api.crt".into(), "API".to_owned()),
    ]);
    let asked = Workload { authorities: &authorities, ..workload(Kind::Job, Way::Sidecar, &[], &providers) };
    let made = manifests(&asked).unwrap();
    let data = &made[1]["data"];
    assert_eq!((data["own.crt"].as_str(), data["own-api.crt"].as_str()), (Some("CA"), Some("API")));
    let config: Value = serde_json::from_str(data["config.yaml"].as_str().unwrap()).unwrap();
    assert_eq!(config["providers"]["own"]["ca_file"], "/etc/postern/own.crt");
    assert_eq!(config["providers"]["own"]["api"]["ca_file"], "/etc/postern/own-api.crt");
}

#[test]
fn a_client_that_is_authenticated_by_a_token_too_has_two() {
    let providers = providers(&json!({
        "both": {"type": "oauth2", "issuer": "https://prod/realms/main", "grant": "jwt_bearer",
            "client_assertion": {"type": "kubernetes_sa", "audience": "own"}, "api": {"base_url": "https://api"}},
    }));
    let made = manifests(&workload(Kind::Job, Way::Sidecar, &[], &providers)).unwrap();
    let sources = &made[2]["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"];
    let token = |at: usize| {
        let token = &sources[at]["serviceAccountToken"];
        (token["path"].as_str().unwrap(), token["audience"].as_str().unwrap())
    };
    assert_eq!((token(0), token(1)), (("both/token", "https://prod/realms/main"), ("both/client", "own")));
    let config: Value = serde_json::from_str(made[1]["data"]["config.yaml"].as_str().unwrap()).unwrap();
    let both = &config["providers"]["both"];
    assert_eq!(both["subject_token"]["path"], "/var/run/secrets/tokens/both/token");
    assert_eq!(both["client_assertion"]["path"], "/var/run/secrets/tokens/both/client");
}
