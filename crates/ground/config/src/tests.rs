use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text.as_bytes(), Path::new("c.yaml")).map_err(|error| error.to_string())
}

#[test]
fn a_whole_file_is_read() {
    let config = parse(
        "context: prod\nimage_mirror: mirror.corp/x\ncredentials:\n  KEY: {value_base64: c2VjcmV0LXZhbHVl}\n  OTHER: {source: env}\n\
         tools:\n  kubectl: {env: {A: '1'}, workdir: /tmp, timeout: 90s}\n",
    )
    .unwrap();
    assert_eq!(config.context.as_deref(), Some("prod"));
    assert_eq!(config.credential("KEY").unwrap().as_slice(), b"secret-value");
    assert_eq!(config.timeout("kubectl"), Some(Duration::from_secs(90)));
    assert!(!format!("{config:?}").contains("c2VjcmV0"));
}

#[test]
fn an_empty_file_is_valid() {
    assert!(parse("").unwrap().context.is_none());
    assert!(parse("# only a comment\n").is_ok());
}

#[test]
fn unknown_keys_are_reported_with_position_and_suggestion() {
    let error = parse("context: a\nimage_miror: x\n").unwrap_err();
    assert_eq!(error, r#"c.yaml:2:1: there is no key "image_miror"; did you mean "image_mirror"?"#);
    let error = parse("tools:\n  kubectl:\n    workdri: /tmp\n").unwrap_err();
    assert!(error.starts_with("c.yaml:3:5:") && error.contains("\"workdir\""), "{error}");
}

#[test]
fn wrong_values_name_their_key() {
    assert!(
        parse("credentials: {K: {value_base64: '***'}}").unwrap_err().contains("credentials.K.value_base64")
    );
    assert!(
        parse("credentials: {K: {source: vault}}")
            .unwrap_err()
            .contains("use env, keychain, config or prompt")
    );
    assert!(parse("tools: {x: {timeout: soon}}").unwrap_err().contains("tools.x.timeout"));
    assert!(
        parse("tools: {x: {env: {'A=B': c}}}")
            .unwrap_err()
            .contains("tools.x.env: \"A=B\" is not a variable name")
    );
    assert!(parse("image: [1]").unwrap_err().starts_with("c.yaml:1:"));
    assert!(Config::parse(b"\xff", Path::new("c.yaml")).unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn invalid_ibm_and_login_settings_name_their_key() {
    let config = parse(
        "workspace: canada-roks\nibm: {cluster: 'crn:v1:bluemix:public:containers-kubernetes:ca-tor:a/acc:abc::', region: ca-tor}\n\
         login: {attempts: 5, interval: 2s}\n",
    )
    .unwrap();
    assert_eq!(config.workspace.as_deref(), Some("canada-roks"));
    assert_eq!(config.login.attempts(), (5, Duration::from_secs(2)));
    assert_eq!(Config::default().login.attempts(), (3, Duration::from_secs(20)));
    for (text, key) in [
        ("workspace: a/b", "workspace"),
        ("ibm: {cluster: 'crn:v1:short'}", "ibm.cluster"),
        ("ibm: {cluster: 'a b'}", "ibm.cluster"),
        ("ibm: {region: 'eu de'}", "ibm.region"),
        ("ibm: {api_endpoint: 'a b'}", "ibm.api_endpoint"),
        ("login: {attempts: 0}", "login.attempts"),
        ("login: {interval: soon}", "login.interval"),
        ("login: {interval: 1h}", "login.interval"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(key), "{text}: {error}");
    }
}

const REPORTS: &str = "providers:\n  reports:\n    type: oauth2\n    issuer: https://auth.example.com/realms/prod\n    \
client_id: k8s-runner\n    scopes: [openid]\n    grant: jwt_bearer\n    audience: [reports-api]\n    \
subject_token: {type: kubernetes_sa, path: /var/run/secrets/tokens/oauth2/token}\n    \
api: {base_url: https://api.example.com/v1}\n";

#[test]
fn a_provider_is_read_as_documented() {
    let config = parse(REPORTS).unwrap();
    let reports = &config.providers["reports"];
    assert_eq!(reports.grant(), Some(providers::Grant::JwtBearer));
    assert_eq!(reports.audience, ["reports-api"]);
    assert_eq!(reports.cache(), providers::Cache::Memory);
    let one = parse(&REPORTS.replace("audience: [reports-api]", "audience: reports-api")).unwrap();
    assert_eq!(one.providers["reports"].audience, ["reports-api"]);
}

#[test]
fn provider_errors_name_position_and_fix() {
    let with = |from: &str, to: &str| parse(&REPORTS.replace(from, to)).unwrap_err();
    assert_eq!(with("scopes:", "scope:"), r#"c.yaml:6:5: there is no key "scope"; did you mean "scopes"?"#);
    assert_eq!(
        with("grant: jwt_bearer", "grant: client_credentials"),
        "c.yaml:3:5: providers.reports.client_assertion: grant client_credentials needs it, or client_secret; with the \
         pod's own token: client_assertion: {type: kubernetes_sa}"
            .replace("3:5", "2:3")
    );
    assert_eq!(
        with("https://auth", "http://auth"),
        "c.yaml:4:5: providers.reports.issuer: \"http://auth.example.com/realms/prod\": only https:// is supported, and \
         http:// on loopback"
    );
    assert!(
        with("type: oauth2", "type: aws")
            .starts_with("c.yaml:4:5: providers.reports.issuer: it is for type oauth2")
    );
    assert!(
        with("type: oauth2", "type: oauth").contains("c.yaml:3:11:"),
        "{}",
        with("type: oauth2", "type: oauth")
    );
    assert!(with("path: /var", "name: X, path: /var").contains("providers.reports.subject_token.name"));
    assert!(with("  reports:", "  ../reports:").contains("is not a provider name"));
    assert!(with("audience: [reports-api]", "extra_params: {audience: x}").contains("extra_params.audience"));
}

#[test]
fn the_schema_knows_every_key_and_no_other() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let provider = &schema["$defs"]["Provider"];
    assert_eq!(provider["additionalProperties"], false);
    assert_eq!(provider["required"], serde_json::json!(["type"]));
    assert!(provider["properties"]["workload_identity_provider"]["description"].is_string());
}

#[test]
fn cloud_providers_require_their_keys() {
    for (text, want) in [
        ("{type: aws, region: eu-central-1}", "role_arn: type aws needs it"),
        ("{type: aws, role_arn: 'arn:aws:iam::1:role/x'}", "region: type aws needs it"),
        ("{type: aws, role_arn: 'arn:aws:iam::1:role/x', region: 'x.evil.com/'}", "is not a region"),
        ("{type: aws, role_arn: x, region: eu-central-1}", "is not a role ARN"),
        ("{type: gcp, workload_identity_provider: x}", "is not projects/NUMBER"),
        ("{type: azure, tenant_id: x}", "client_id: type azure needs it"),
        ("{type: ibm}", "profile: type ibm needs it"),
    ] {
        let error = parse(&format!("providers: {{cloud: {text}}}")).unwrap_err();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn wrong_types_name_the_key_and_the_expected_type() {
    let head =
        "providers:\n  a:\n    type: oauth2\n    token_endpoint: https://x/token\n    grant: jwt_bearer\n";
    for (line, want) in [
        ("    api: https://x\n", ":6:10: api: keys with values are expected here (KEY: VALUE)"),
        ("    client_id: [a]\n", ":6:16: client_id: a string is expected here"),
        ("    scopes: {a: b}\n", ":6:13: scopes: invalid type: map, expected a string or a list of strings"),
    ] {
        let error = parse(&format!("{head}{line}")).unwrap_err();
        assert!(error.ends_with(want), "{error}");
    }
    let error = parse("providers: [a]\n").unwrap_err();
    assert!(error.ends_with(":1:12: providers: keys with values are expected here (KEY: VALUE)"), "{error}");
    // If the key is on another line, the position locates it.
    let error = parse("providers:\n  - a\n").unwrap_err();
    assert!(error.ends_with(":2:3: keys with values are expected here (KEY: VALUE)"), "{error}");
}
