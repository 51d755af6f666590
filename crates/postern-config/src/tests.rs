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
fn an_empty_file_is_no_configuration() {
    assert!(parse("").unwrap().context.is_none());
    assert!(parse("# only a comment\n").is_ok());
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest() {
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
    assert!(parse("image: [1]").unwrap_err().starts_with("c.yaml:1:"));
    assert!(Config::parse(b"\xff", Path::new("c.yaml")).unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn a_cloud_is_described_or_the_wrong_key_named() {
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
