//! Credentials by `postern identity`: what providers do wrong, many processes at once, and the proxy's long run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::provider::{Behaviour, Provider, Trust, unsigned};
use e2e::{Outcome, enabled, get, kubectl, postern};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A provider, and a home with a configuration and a subject token.
struct Scene {
    provider: Provider,
    home: tempfile::TempDir,
}

impl Scene {
    fn new(more: &Value) -> Self {
        let (provider, home) = (Provider::start(), tempfile::tempdir().unwrap());
        let scene = Self { provider, home };
        let mut entry = json!({
            "type": "oauth2", "token_endpoint": format!("{}/token", scene.provider.address),
            "client_id": "runner", "grant": "jwt_bearer",
            "subject_token": {"type": "kubernetes_sa", "path": scene.path("token")},
            "api": {"base_url": format!("{}/v1", scene.provider.address)},
        });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        scene.configure(&json!({"reports": entry}));
        scene.rotate("first");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn configure(&self, providers: &Value) {
        std::fs::write(self.path("config.yaml"), json!({"providers": providers}).to_string()).unwrap();
    }

    /// Replaces the token as the kubelet does: whole.
    fn rotate(&self, jti: &str) -> String {
        let token = unsigned(jti, 3_600);
        std::fs::write(self.path("new"), &token).unwrap();
        std::fs::rename(self.path("new"), self.path("token")).unwrap();
        token
    }

    fn postern(&self, args: &[&str]) -> Command {
        let mut command = postern();
        command
            .env("POSTERN_CONFIG", self.path("config.yaml"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("TMPDIR", self.home.path())
            .arg("identity")
            .args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.postern(args))
    }

    fn token(&self) -> Outcome {
        self.run(&["token"])
    }
}

#[test]
fn the_grant_is_sent_as_rfc_7523_has_it_and_the_token_comes_in_every_form() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({
        "scopes": ["a", "b"], "audience": ["x", "y"], "resource": "https://api", "extra_params": {"k": "v w"},
    }));
    let first = scene.token().ok().stdout;
    assert!(first.starts_with("access-1-") && first.ends_with('\n'));
    let subject = std::fs::read_to_string(scene.path("token")).unwrap();
    assert_eq!(
        scene.provider.asked()[0],
        json!([
            ["grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"],
            ["assertion", subject],
            ["scope", "a b"],
            ["audience", "x"],
            ["audience", "y"],
            ["resource", "https://api"],
            ["client_id", "runner"],
            ["k", "v w"],
        ])
    );
    let json = scene.run(&["token", "reports", "-o", "json"]).ok().json();
    assert_eq!((json["tokenType"].as_str(), json["type"].as_str()), (Some("Bearer"), Some("oauth2")));
    let header = scene.run(&["token", "-o", "header"]).ok().stdout;
    assert!(header.starts_with("Authorization: Bearer access-"));
    // In memory only: each process asked.
    assert_eq!(scene.provider.asked().len(), 3);
    assert!(!scene.path("cache").exists());
}

#[test]
fn proof_2_whatever_the_provider_does_wrong_is_named_and_never_taken_for_a_token() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let raw =
        |status: u16, headers: &str, body: &str| Behaviour::Raw(status, headers.to_owned(), body.to_owned());
    let json = "Content-Type: application/json\r\n";
    for (behaviour, words) in [
        (raw(200, "Content-Type: text/html\r\n", "<html>log in</html>"), "it is not JSON"),
        (raw(200, json, "{}"), "it has no access_token"),
        (raw(200, json, r#"{"access_token":"a","token_type":"mac"}"#), "only Bearer can be used"),
        (raw(200, json, r#"{"access_token":"a","expires_in":-5}"#), "its expires_in is not positive"),
        (raw(200, json, r#"{"access_token":"a","expires_in":"soon"}"#), "its expires_in is no number"),
        (raw(302, "Location: https://evil.example.com/token\r\n", ""), "it redirects elsewhere"),
        (raw(400, json, r#"{"error":"invalid_client"}"#), "invalid_client"),
        (raw(500, "", "boom"), "it gave no reason (HTTP status 500)"),
        (Behaviour::Half, "cannot be reached"),
        (Behaviour::Endless, "cannot be reached"),
    ] {
        scene.provider.behave(behaviour.clone());
        let outcome = scene.token().exits(1).says(&["no token of reports", words]);
        assert_eq!(outcome.stdout, "", "{behaviour:?}");
    }
    // Taken as servers write it, or not at all.
    for life in [json!("60"), json!(60), json!(1e18), Value::Null] {
        scene.provider.behave(Behaviour::Issue(life));
        scene.token().ok();
    }
    // A server that is busy is asked again; one that refuses is not.
    let before = scene.provider.asked().len();
    scene.provider.behave(Behaviour::Busy(429, 2));
    scene.token().ok();
    assert_eq!(scene.provider.asked().len(), before + 3);
    scene.provider.behave(raw(403, json, r#"{"error":"access_denied","error_description":"no"}"#));
    scene.token().exits(1);
    assert_eq!(scene.provider.asked().len(), before + 4);
}

#[test]
fn proof_2_a_silent_provider_costs_fifteen_seconds() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    scene.provider.behave(Behaviour::Silent);
    scene.token().exits(1).says(&["did not answer within 15 s"]);
}

#[test]
fn each_thing_wrong_with_the_subject_token_is_its_own_error() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let expired = unsigned("x", -30);
    for (content, words) in [
        ("", "is empty"),
        ("opaque", "is not a JWT"),
        (expired.as_str(), "expired 30 s ago: the kubelet did not renew it"),
    ] {
        std::fs::write(scene.path("token"), content).unwrap();
        let said = scene.token().exits(1).says(&["no token of reports", words]).stderr;
        assert!(content.is_empty() || !said.contains(content), "{said}");
    }
    std::fs::remove_file(scene.path("token")).unwrap();
    scene.token().exits(1).says(&["there is no token at", "hint: outside a pod use"]);
    assert!(scene.provider.asked().is_empty());
}

#[test]
fn nobody_is_asked_to_log_in_where_nobody_is() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    for (grant, endpoint) in
        [("device_code", "device_authorization_endpoint"), ("authorization_code", "authorization_endpoint")]
    {
        let at = &scene.provider.address;
        scene.configure(&json!({"me": {
            "type": "oauth2", "grant": grant, "client_id": "cli", "token_endpoint": format!("{at}/token"),
            endpoint: format!("{at}/authorize"),
        }}));
        scene
            .run(&["token"])
            .exits(1)
            .says(&["needs a person at a terminal", "stdin and stderr are no terminal"]);
        let mut in_ci = scene.postern(&["token"]);
        Outcome::of(in_ci.env("CI", "true")).exits(1).says(&["CI is set"]);
    }
    assert!(scene.provider.asked().is_empty());
}

#[test]
fn proof_4_a_hundred_processes_ask_once() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({"cache": "disk"}));
    let all: Vec<Child> = (0..100)
        .map(|_| scene.postern(&["token"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for process in all {
        let outcome = Outcome::from(process.wait_with_output().unwrap()).ok();
        assert!(outcome.stdout.starts_with("access-1-"), "{outcome:?}");
    }
    assert_eq!(scene.provider.asked().len(), 1);
    // A failure is shared by who waited for it, too.
    let scene = Scene::new(&json!({"cache": "disk"}));
    let refusal = r#"{"error":"invalid_client"}"#.to_owned();
    scene.provider.behave(Behaviour::Silent);
    let mut holder = scene.postern(&["token"]).stderr(Stdio::null()).spawn().unwrap();
    e2e::eventually("the holder asks", Duration::from_secs(10), || scene.provider.asked().len() == 1);
    let waiting: Vec<Child> = (0..20)
        .map(|_| scene.postern(&["token"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    e2e::eventually("all wait for the lock", Duration::from_secs(20), || {
        waiting.iter().all(|one| is_at_lock(one.id()))
    });
    scene.provider.behave(Behaviour::Raw(401, "Content-Type: application/json\r\n".to_owned(), refusal));
    holder.kill().unwrap();
    holder.wait().unwrap();
    for process in waiting {
        Outcome::from(process.wait_with_output().unwrap()).exits(1).says(&["invalid_client"]);
    }
    // The holder's, and one for all who waited.
    assert_eq!(scene.provider.asked().len(), 2);
}

/// Whether a thread of this process waits in the kernel for a file lock.
fn is_at_lock(process: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
    tasks.flatten().any(|task| {
        let number = std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
        // flock(2) on x86-64 and on arm64.
        ["73 ", "32 "].iter().any(|flock| number.starts_with(flock))
    })
}

#[test]
fn proof_4_a_holder_that_is_killed_is_followed_within_a_second() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({"cache": "disk"}));
    scene.provider.behave(Behaviour::Silent);
    let mut holder = scene.postern(&["token"]).stderr(Stdio::null()).spawn().unwrap();
    e2e::eventually("the holder asks", Duration::from_secs(10), || scene.provider.asked().len() == 1);
    let next = scene.postern(&["token"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    e2e::eventually("the next waits", Duration::from_secs(10), || is_at_lock(next.id()));
    scene.provider.behave(Behaviour::Issue(json!(300)));
    let killed = Instant::now();
    holder.kill().unwrap();
    let outcome = Outcome::from(next.wait_with_output().unwrap()).ok();
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    assert!(outcome.stdout.starts_with("access-1-"));
    holder.wait().unwrap();
}

#[test]
fn a_command_gets_it_in_its_environment_and_a_file_that_goes_with_it() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let script = "printf '%s|' \"$REPORTS_ACCESS_TOKEN\"; cat \"$REPORTS_ACCESS_TOKEN_FILE\"; \
                  stat -c '|%a|%n' \"$REPORTS_ACCESS_TOKEN_FILE\"; exit 7";
    let outcome = scene.run(&["exec", "reports", "--", "sh", "-c", script]).exits(7);
    let parts: Vec<_> = outcome.stdout.trim().split('|').collect();
    assert_eq!((parts[0], parts[2]), (parts[1], "600"), "{outcome:?}");
    assert!(parts[0].starts_with("access-1-") && !Path::new(parts[3]).exists());
    scene.run(&["exec", "reports", "--", "/nonexistent"]).exits(127).says(&["cannot be started"]);
    scene.run(&["exec", "reports", "--", "sh", "-c", "kill -9 $$"]).exits(137);
    scene.provider.behave(Behaviour::Raw(400, String::new(), String::new()));
    scene.run(&["exec", "reports", "--", "touch", scene.path("ran").to_str().unwrap()]).exits(1);
    assert!(!scene.path("ran").exists());
}

#[test]
fn a_file_is_kept_fresh() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    scene.provider.behave(Behaviour::Issue(json!(1)));
    let to = scene.path("out");
    let mut watch = scene.postern(&["write", "reports", "--watch", "--to", to.to_str().unwrap()]);
    let watch = Running(watch.stdout(Stdio::null()).spawn().unwrap());
    let read = || std::fs::read_to_string(&to).unwrap_or_default();
    e2e::eventually("it is written", Duration::from_secs(10), || !read().is_empty());
    let first = read();
    e2e::eventually("it is renewed", Duration::from_secs(10), || read() != first);
    watch.stop();
    // Nothing but the file: no half of another.
    let names: Vec<_> =
        std::fs::read_dir(scene.home.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains(".new")), "{names:?}");
}

fn terminate(process: &Child) {
    Command::new("kill").arg(process.id().to_string()).status().unwrap();
}

/// A process that ends with its test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn stop(mut self) {
        terminate(&self.0);
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

/// A proxy of the scene's provider, and where it listens.
fn proxy(scene: &Scene, more: &[&str]) -> (Running, String) {
    let mut args = vec!["proxy", "--listen", "127.0.0.1:0"];
    args.extend_from_slice(more);
    let mut process = scene.postern(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(process.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address =
        line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}")).to_owned();
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    (Running(process), address)
}

/// One raw request; status and what follows the head.
fn ask(address: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

fn fetch(address: &str, path: &str) -> (u16, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

#[test]
fn the_proxy_adds_the_token_and_takes_nothing_from_the_client() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let (process, at) = proxy(&scene, &[]);
    let request = format!(
        "GET /reports/items?a=1 HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer mine\r\nauthorization: Basic x\r\n\
         Connection: close\r\n\r\n"
    );
    let (status, body) = ask(&at, &request);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, body["path"].as_str(), body["query"].as_str()),
        (200, Some("/v1/items"), Some("a=1"))
    );
    assert!(body["authorization"].as_str().unwrap().starts_with("Bearer access-1-"));
    // Absolute form, as with http_proxy, for the API's host and for no other.
    let api = scene.provider.address.trim_start_matches("http://");
    let absolute =
        |target: &str| ask(&at, &format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).0;
    assert_eq!(absolute(&format!("http://{api}/v1/items")), 200);
    assert_eq!(absolute("http://169.254.169.254/latest/meta-data/"), 403);
    for (request, want) in [
        (format!("GET /other/ HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"), 404),
        (
            "GET /reports/items HTTP/1.1\r\nHost: rebound.example.com\r\nConnection: close\r\n\r\n"
                .to_owned(),
            403,
        ),
        (format!("GET /reports/../x HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"), 400),
        (format!("CONNECT {api} HTTP/1.1\r\nHost: {api}\r\n\r\n"), 405),
        (format!("GET /reports/ HTTP/1.1\r\nHost: {at}\r\nHost: b\r\nConnection: close\r\n\r\n"), 400),
        (
            format!("GET /reports/ HTTP/1.1\r\nHost: {at}\r\nX: a\r\n folded\r\nConnection: close\r\n\r\n"),
            400,
        ),
        (
            format!(
                "POST /reports/ HTTP/1.1\r\nHost: {at}\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd"
            ),
            400,
        ),
    ] {
        assert_eq!(ask(&at, &request).0, want, "{request}");
    }
    let asked = scene.provider.api().0;
    assert_eq!(asked, 2, "nothing else reached the API");
    // Two lengths: only the one that RFC 9112 section 6.3 prefers goes on, and nothing of it is left for a next request.
    let both = format!(
        "POST /reports/ HTTP/1.1\r\nHost: {at}\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n0\r\n\r\nGET /reports/smuggled HTTP/1.1\r\nHost: {at}\r\n\r\n"
    );
    let (_, body) = ask(&at, &both);
    assert!(!body.contains("smuggled") && scene.provider.api().0 <= 3, "{body}");
    assert_eq!(fetch(&at, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(fetch(&at, "/readyz").0, 200);
    let (_, page) = fetch(&at, "/metrics");
    assert!(page.contains("postern_identity_requests_total{provider=\"reports\",code=\"2xx\"} "), "{page}");
    assert!(!page.contains("access-"), "{page}");
    process.stop();
}

#[test]
fn a_401_renews_once_and_is_then_the_clients() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let (process, at) = proxy(&scene, &[]);
    let (_, body) = fetch(&at, "/reports/x");
    let first: Value = serde_json::from_str(&body).unwrap();
    scene.provider.refuse(first["token"].as_str().unwrap());
    let request = format!(
        "POST /reports/x HTTP/1.1\r\nHost: {at}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd"
    );
    let (status, body) = ask(&at, &request);
    let second: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, second["length"].as_u64()), (200, Some(4)));
    assert_ne!(first["token"], second["token"]);
    scene.provider.refuse(second["token"].as_str().unwrap());
    for _ in 0..5 {
        assert_eq!(fetch(&at, "/reports/x").0, 401);
    }
    assert_eq!(
        scene.provider.asked().len(),
        2,
        "an API that refuses everything is no reason to ask for ever"
    );
    process.stop();
}

#[test]
fn proof_1_thousands_of_requests_pass_while_subject_and_access_tokens_rotate() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    scene.provider.behave(Behaviour::Issue(json!(1)));
    let (process, at) = proxy(&scene, &[]);
    let (mut rotations, mut sent) = (0, 0);
    // Until enough has happened; each request is checked by the API against the token's end.
    while rotations < 4 || scene.provider.ended() < 12 || sent < 3_000 {
        if scene.provider.ended() >= rotations * 3 {
            rotations += 1;
            // From here on only the newest subject token is taken.
            let token = scene.rotate(&format!("rotation-{rotations}"));
            scene.provider.take_only(&token);
        }
        let (status, body) = fetch(&at, "/reports/x");
        assert_eq!(status, 200, "request {sent}: {body}");
        sent += 1;
    }
    assert_eq!(scene.provider.api().1, 0);
    process.stop();
}

#[test]
fn a_provider_that_is_down_is_survived_while_the_token_holds() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    scene.provider.behave(Behaviour::Issue(json!(10)));
    let (process, at) = proxy(&scene, &[]);
    assert_eq!(fetch(&at, "/reports/x").0, 200);
    scene.provider.behave(Behaviour::Raw(503, String::new(), String::new()));
    e2e::eventually("it tries to renew", Duration::from_secs(15), || scene.provider.asked().len() > 1);
    assert_eq!(fetch(&at, "/reports/x").0, 200);
    e2e::eventually("the token ends", Duration::from_secs(10), || fetch(&at, "/reports/x").0 == 503);
    assert_eq!(scene.provider.api().1, 0, "no token was used after its end");
    scene.provider.behave(Behaviour::Issue(json!(300)));
    e2e::eventually("it recovers", Duration::from_secs(10), || fetch(&at, "/reports/x").0 == 200);
    process.stop();
}

/// What the cluster says of its issuer.
fn trust(audience: &str) -> Trust {
    let raw = |path: &str| serde_json::from_str(&kubectl(&["get", "--raw", path]).ok().stdout).unwrap();
    let discovery: Value = raw("/.well-known/openid-configuration");
    Trust {
        issuer: discovery["issuer"].as_str().unwrap().to_owned(),
        keys: raw("/openid/v1/jwks"),
        audience: audience.to_owned(),
    }
}

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
        let links = outcome.json()[0]["links"].as_array().unwrap().clone();
        let broken = links.iter().filter(|link| link["state"] == "broken");
        broken.map(|link| link["link"].as_str().unwrap().to_owned()).collect()
    };
    let doctor = |want: i32| scene.run(&["doctor", "-o", "json"]).exits(want);
    // The token is nobody's: the cluster has no such key.
    assert_eq!(broken(&doctor(1)), ["issuer (cluster)"]);
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
    assert_eq!(broken(&doctor(1)), ["exchange"]);
    scene.configure(&entry(&json!({"type": "file", "path": "/nonexistent"})));
    assert_eq!(broken(&doctor(1)), ["token"]);
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

/// An API that streams: `/ws` echoes after an upgrade, `/events` sends one event and never ends, everything else counts
/// what it is sent.
fn streaming_api(address: &std::net::TcpListener) {
    for client in address.incoming().flatten() {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(client.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let start = head.len();
                if reader.read_line(&mut head).unwrap() == 0 {
                    return;
                }
                if let Some(value) = head[start..].to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut client = client;
            if head.starts_with("POST /token ") {
                let body = r#"{"access_token":"streamed","expires_in":300}"#;
                let _ = write!(
                    client,
                    "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            } else if head.starts_with("GET /ws ") {
                let _ = write!(client, "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
                let authorized = head.contains("authorization: Bearer streamed\r\n");
                let _ = write!(client, "{authorized};");
                let _ = std::io::copy(&mut reader, &mut client);
            } else if head.starts_with("GET /events ") {
                let _ =
                    write!(client, "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n");
                // Never ends: who waits for the end gets nothing.
                std::thread::park_timeout(Duration::from_secs(60));
            } else {
                let read = std::io::copy(&mut reader.take(length), &mut std::io::sink()).unwrap();
                let body = format!("read {read}");
                let _ = write!(
                    client,
                    "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
        });
    }
}

#[test]
fn streams_pass_as_they_come_and_pages_of_others_do_not() {
    if !enabled() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || streaming_api(&listener));
    let scene = Scene::new(&json!({}));
    scene.configure(&json!({"live": {
        "type": "oauth2", "token_endpoint": format!("{api}/token"), "grant": "jwt_bearer",
        "subject_token": {"type": "file", "path": scene.path("token")}, "api": {"base_url": api},
    }}));
    let socket = format!("unix:{}", scene.path("socket").display());
    let (process, at) = proxy(&scene, &["--listen", &socket]);
    let open = |request: &str| {
        let mut stream = TcpStream::connect(&at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let until = |stream: &mut TcpStream, end: &str| {
        let (mut all, mut buffer) = (String::new(), [0; 1_024]);
        while !all.contains(end) {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{all}");
            all.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        all
    };
    // An event that is sent is seen, though the answer never ends.
    let mut events = open(&format!("GET /live/events HTTP/1.1\r\nHost: {at}\r\n\r\n"));
    until(&mut events, "first");
    // A protocol that is changed carries our token to the API, and then whatever both say.
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let mut socket = open(&format!("GET /live/ws HTTP/1.1\r\nHost: {at}\r\n{upgrade}\r\n"));
    assert!(until(&mut socket, "true;").starts_with("HTTP/1.1 101 "));
    socket.write_all(b"there and back").unwrap();
    until(&mut socket, "there and back");
    // Not for a page of somebody else's.
    let foreign =
        open(&format!("GET /live/ws HTTP/1.1\r\nHost: {at}\r\n{upgrade}Origin: https://evil\r\n\r\n"));
    until(&mut { foreign }, "403 Forbidden");
    // An upload is passed on while it comes, in little memory.
    let size = 200_000_000_u64;
    let mut upload = open(&format!(
        "PUT /live/x HTTP/1.1\r\nHost: {at}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    ));
    std::io::copy(&mut std::io::repeat(0).take(size), &mut upload).unwrap();
    until(&mut upload, &format!("read {size}"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    assert!(peak.unwrap() < 64_000, "{peak:?} kB");
    assert!(scene.path("socket").exists());
    // Streams that are open do not keep it from ending.
    drop((events, socket));
    let path = scene.path("socket");
    process.stop();
    assert!(!path.exists());
}
