//! Every grant as its RFC has it, parameter by parameter, also those that need a person.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::provider::{Behaviour, busy, unsigned};
use e2e::scene::{Scene, fetch};
use e2e::{Outcome, enabled};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

const TYPE: &str = "urn:ietf:params:oauth:token-type";

/// The fields of a form that was sent, by name; those that repeat, in their order.
fn field<'a>(form: &'a Value, name: &str) -> Vec<&'a str> {
    let pairs = form.as_array().unwrap().iter().filter(|pair| pair[0] == name);
    pairs.map(|pair| pair[1].as_str().unwrap()).collect()
}

fn entry(scene: &Scene, grant: &str, more: &Value) -> Value {
    let mut entry = json!({
        "type": "oauth2", "token_endpoint": format!("{}/token", scene.provider.address), "grant": grant,
        "client_id": "runner",
    });
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"reports": entry})
}

#[test]
fn token_exchange_sends_what_rfc_8693_has_and_checks_what_was_issued() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    std::fs::write(scene.path("actor"), unsigned("actor", 300)).unwrap();
    let settings = json!({
        "audience": ["a", "b"], "resource": ["https://r1", "https://r2"], "scopes": ["s"],
        "subject_token": {"type": "file", "path": scene.path("token")},
        "actor_token": {"type": "file", "path": scene.path("actor")}, "actor_token_type": format!("{TYPE}:id_token"),
        "requested_token_type": format!("{TYPE}:access_token"),
    });
    scene.configure(&entry(&scene, "token_exchange", &settings));
    scene.token().ok();
    let form = &scene.provider.asked()[0];
    let file = |name: &str| std::fs::read_to_string(scene.path(name)).unwrap();
    for (name, want) in [
        ("grant_type", vec!["urn:ietf:params:oauth:grant-type:token-exchange"]),
        ("subject_token", vec![file("token").as_str()]),
        ("subject_token_type", vec![format!("{TYPE}:jwt").as_str()]),
        ("actor_token", vec![file("actor").as_str()]),
        ("actor_token_type", vec![format!("{TYPE}:id_token").as_str()]),
        ("requested_token_type", vec![format!("{TYPE}:access_token").as_str()]),
        ("audience", vec!["a", "b"]),
        ("resource", vec!["https://r1", "https://r2"]),
        ("scope", vec!["s"]),
    ] {
        assert_eq!(field(form, name), want, "{name}");
    }
    let json = "Content-Type: application/json\r\n".to_owned();
    let other = json!({"access_token": "x", "issued_token_type": format!("{TYPE}:saml2")}).to_string();
    for (body, words) in [
        (other, "its issued_token_type is"),
        (json!({"access_token": "x"}).to_string(), "it has no issued_token_type"),
    ] {
        scene.provider.first([Behaviour::Raw(200, json.clone(), body)]);
        scene.token().exits(1).says(&[words]);
    }
}

#[test]
fn client_credentials_shows_a_secret_where_the_server_takes_it() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    std::fs::write(scene.path("secret"), "s:3%\n").unwrap();
    let settings = json!({"client_secret": {"file": scene.path("secret")}});
    scene.configure(&entry(&scene, "client_credentials", &settings));
    scene.token().ok();
    // Nobody knows what the server wants: in the body.
    let form = &scene.provider.asked()[0];
    assert_eq!((field(form, "client_id"), field(form, "client_secret")), (vec!["runner"], vec!["s:3%"]));
    // Its metadata says: in the header only.
    let mut discovered = entry(&scene, "client_credentials", &settings);
    let reports = discovered["reports"].as_object_mut().unwrap();
    reports.remove("token_endpoint");
    reports.insert("issuer".to_owned(), scene.provider.address.as_str().into());
    scene.configure(&discovered);
    scene.token().ok();
    let form = &scene.provider.asked()[1];
    assert!(field(form, "client_id").is_empty() && field(form, "client_secret").is_empty(), "{form}");
    // RFC 6749 section 2.3.1: runner:s%3A3%25
    assert_eq!(scene.provider.authorizations()[1], "Basic cnVubmVyOnMlM0EzJTI1");
}

#[test]
fn a_signed_statement_is_new_for_each_try() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let key = scene.path("key.pem");
    let mut make = Command::new("openssl");
    make.args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]).arg(&key);
    Outcome::of(&mut make).ok();
    let settings = json!({"client_assertion": {"type": "private_key_jwt", "key_file": key, "key_id": "k1"}});
    scene.configure(&entry(&scene, "client_credentials", &settings));
    scene.provider.first([busy(503), Behaviour::HangUp]);
    scene.token().ok();
    let asked = scene.provider.asked();
    let mut seen: Vec<_> = asked.iter().map(|form| field(form, "client_assertion")[0]).collect();
    assert_eq!(seen.len(), 3);
    seen.dedup();
    assert_eq!(seen.len(), 3, "its jti was sent twice (RFC 7523 section 3)");
    // What a server refuses is not asked again.
    scene.provider.behave(Behaviour::Raw(401, String::new(), r#"{"error":"invalid_client"}"#.to_owned()));
    scene.token().exits(1);
    assert_eq!(scene.provider.asked().len(), 4);
}

#[test]
fn github_actions_tokens_are_asked_for_with_their_audience() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let settings = json!({"subject_token": {"type": "github_actions", "audience": "https://as"}});
    scene.configure(&entry(&scene, "jwt_bearer", &settings));
    scene.token().exits(1).says(&["ACTIONS_ID_TOKEN_REQUEST_URL", "id-token: write"]);
    let mut command = scene.postern(&["token"]);
    command.env("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/github?api-version=2", scene.provider.address));
    Outcome::of(command.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "runner-1")).ok();
    let form = &scene.provider.asked()[0];
    assert_eq!(field(form, "assertion")[0].split('.').count(), 3);
}

/// `identity ARGS` at a terminal of its own, which script(1) gives it; what it says goes to stdout.
fn at_terminal(scene: &Scene, args: &[&str]) -> Command {
    let program = scene.postern(args);
    let mut line = program.get_program().to_string_lossy().into_owned();
    for argument in program.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    let mut command = Command::new("script");
    command.env_clear().args(["-qefc", &line, "/dev/null"]);
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[test]
fn a_device_code_is_shown_and_polled_for_as_rfc_8628_has_it() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let at = scene.provider.address.clone();
    let settings = json!({"device_authorization_endpoint": format!("{at}/device"), "scopes": ["openid"]});
    scene.configure(&entry(&scene, "device_code", &settings));
    let pending = |code: &str| Behaviour::Raw(400, String::new(), json!({"error": code}).to_string());
    scene.provider.first([pending("authorization_pending"), pending("authorization_pending")]);
    let seen = Outcome::of(&mut at_terminal(&scene, &["token"])).ok().stdout;
    assert!(seen.contains(&format!("open {at}/activate and enter the code WDJB-MJHT")), "{seen}");
    assert!(seen.contains("access-1-"), "{seen}");
    let asked = scene.provider.asked();
    assert_eq!((field(&asked[0], "client_id"), field(&asked[0], "scope")), (vec!["runner"], vec!["openid"]));
    assert_eq!(field(&asked[3], "device_code"), ["device-1"]);
    assert_eq!(asked.len(), 4);
    // What a person logged in for is kept: they are not asked again, terminal or not.
    scene.token().ok();
    assert_eq!(scene.provider.asked().len(), 4);
    scene.provider.first([pending("access_denied")]);
    let seen = Outcome::of(&mut at_terminal(&scene, &["token", "--fresh"])).exits(1).stdout;
    assert!(seen.contains("the login was declined"), "{seen}");
}

#[test]
fn a_code_comes_back_by_the_browser_and_is_proved_by_pkce() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let settings = json!({"authorization_endpoint": format!("{}/authorize", scene.provider.address)});
    scene.configure(&entry(&scene, "authorization_code", &settings));
    let mut process = at_terminal(&scene, &["token", "--no-browser"]).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let url = lines.find_map(|line| Some(line.split_once("to log in, open ")?.1.trim().to_owned())).unwrap();
    let query: Vec<(&str, &str)> =
        url.split_once('?').unwrap().1.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let of = |name: &str| query.iter().find(|(known, _)| *known == name).unwrap().1;
    assert_eq!((of("response_type"), of("code_challenge_method")), ("code", "S256"));
    let redirect = of("redirect_uri").replace("%3A", ":").replace("%2F", "/");
    let (host, path) = redirect.trim_start_matches("http://").split_once('/').unwrap();
    // Somebody else's browser brings nothing.
    assert_eq!(fetch(host, &format!("/{path}?code=evil&state=guessed")).0, 404);
    let (status, page) = fetch(host, &format!("/{path}?code=code-1&state={}", of("state")));
    assert!(status == 200 && page.contains("You are logged in"), "{status} {page}");
    let said: String = lines.collect();
    assert!(process.wait().unwrap().success() && said.contains("access-1-"), "{said}");
    let form = &scene.provider.asked()[0];
    assert_eq!(
        (field(form, "grant_type"), field(form, "code")),
        (vec!["authorization_code"], vec!["code-1"])
    );
    // RFC 7636 section 4.6: the challenge is the verifier's SHA-256.
    let digest = ring::digest::digest(&ring::digest::SHA256, field(form, "code_verifier")[0].as_bytes());
    assert_eq!(URL_SAFE_NO_PAD.encode(digest), of("code_challenge"));
}
