//! Trusted profiles: the ops pod without a key, against a stand-in for IBM Cloud that checks the cluster's own tokens.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::cloud::{self, API_KEY, CLUSTER, CRN};
use e2e::{OPS, Outcome, apply, clean, enabled, eventually, get, kubectl, postern};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::NamedTempFile;

const SECRET: &str = "secret/postern-ops-credentials";
const PROFILE: &str = "iam.cloud.ibm.com/trusted-profile";

fn config(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// A config for the workspace `canada`, with the cloud at this address.
fn registered(address: &str) -> NamedTempFile {
    config(&format!(
        "workspace: canada\nibm: {{cluster: {CLUSTER}, region: eu-de, iam_endpoint: '{address}', containers_endpoint: '{address}'}}\n"
    ))
}

/// `postern ARGS` with this config and the cloud's key.
fn with(config: &NamedTempFile, args: &[&str]) -> Command {
    let mut command = postern();
    command.args(args).env("POSTERN_CONFIG", config.path()).env("IBMCLOUD_API_KEY", API_KEY);
    command
}

fn install(config: &NamedTempFile, args: &[&str]) -> Outcome {
    Outcome::of(with(config, &["ops", "install", "--timeout", "90s"]).args(args))
}

fn annotations() -> Value {
    get(&["-n", OPS, "serviceaccount/postern-ops"])["metadata"]["annotations"].clone()
}

/// The names of the credentials in the Secret.
fn held() -> Vec<String> {
    let data = get(&["-n", OPS, SECRET])["data"].clone();
    data.as_object().map(|data| data.keys().cloned().collect()).unwrap_or_default()
}

fn requests(address: &str) -> Vec<Value> {
    cloud::control(address, "state", &Value::Null)["requests"].as_array().unwrap().clone()
}

fn profiles(address: &str) -> Vec<Value> {
    cloud::control(address, "state", &Value::Null)["profiles"].as_array().unwrap().clone()
}

/// `METHOD PATH` of each request, IDs left out.
fn asked(address: &str) -> Vec<String> {
    let line = |request: &Value| {
        let path = request["path"].as_str().unwrap();
        let path = path.split('/').map(|part| if part.starts_with("Profile-") { "ID" } else { part });
        format!("{} {}", request["method"].as_str().unwrap(), path.collect::<Vec<_>>().join("/"))
    };
    requests(address).iter().map(line).collect()
}

#[test]
fn each_cause_is_one_warning_before_anything_and_the_key_serves() {
    if !enabled() {
        return;
    }
    clean();
    let address = cloud::start();
    let known = registered(&address);
    let no_workspace = config(&format!("ibm: {{cluster: {CLUSTER}, iam_endpoint: '{address}'}}\n"));
    let no_cluster = config("workspace: canada\n");
    let down = config("workspace: canada\nibm: {cluster: abc, iam_endpoint: 'http://127.0.0.1:9'}\n");
    let causes = [
        (&no_workspace, json!({}), "needs a registered cluster (the config names no `workspace`)"),
        (&no_cluster, json!({}), "needs a registered cluster (the config has no `ibm.cluster`)"),
        (
            &known,
            json!({"cluster": "missing"}),
            "could not look up the cluster c4rt5kdd0p (The specified cluster",
        ),
        (&down, json!({}), "could not look up the cluster abc (http://127.0.0.1:9 cannot be reached"),
        (&known, json!({"permission": "403"}), "the IAM permission 'iam-identity' is missing"),
        (&known, json!({"permission": "401"}), "the IAM permission 'iam-identity' is missing"),
        (&known, json!({"permission": "expired"}), "could not look up the cluster"),
        (&known, json!({"link": "403"}), "the IAM permission 'iam-identity' is missing"),
    ];
    for (config, behave, words) in &causes {
        cloud::control(&address, "behave", behave);
        let refused = install(config, &["--trusted-profile", "on"]).exits(1);
        assert!(!refused.stdout.contains('✓'), "{}", refused.stdout);
        // Nothing half-made is left, with the cloud or in the cluster.
        assert!(profiles(&address).is_empty(), "{words}");
    }
    assert_ne!(kubectl(&["get", "namespace", OPS]).code, 0);
    for (config, behave, words) in &causes {
        cloud::control(&address, "behave", behave);
        let seen = install(config, &[]).ok();
        assert_eq!(seen.stderr.matches("warning:").count(), 1, "{}", seen.stderr);
        assert!(seen.stderr.contains(words), "{words:?} is not in {}", seen.stderr);
        assert!(!format!("{}{}", seen.stdout, seen.stderr).contains(API_KEY));
        assert_eq!(held(), ["IBMCLOUD_API_KEY", "IC_API_KEY"]);
        assert_eq!(annotations().get(PROFILE), None);
    }
    // Without a key there is nothing to ask with, and nothing is said.
    let seen = Outcome::of(postern().args(["ops", "install"]).env("POSTERN_CONFIG", known.path())).ok();
    assert!(!seen.stderr.contains("trusted"), "{}", seen.stderr);
    let mut on = postern();
    on.args(["ops", "install", "--trusted-profile", "on"]).env("POSTERN_CONFIG", known.path());
    Outcome::of(&mut on).exits(2).says(&["IBMCLOUD_API_KEY was not found"]);
    let mut sideways = postern();
    sideways.args(["ops", "install", "--trusted-profile", "sideways"]);
    Outcome::of(&mut sideways).exits(2).says(&["auto, on, off"]);
    let clear = config("workspace: canada\nibm: {cluster: abc, iam_endpoint: 'http://iam.example.com'}\n");
    install(&clear, &[]).exits(2).says(&["only https:// is spoken to", "ibm.iam_endpoint"]);
}

/// The cluster's side of a profile: nothing of the key is left, and nothing of the token comes out. The pod's UID, and
/// since when it is trusted.
fn holds_no_key(known: &NamedTempFile, id: &str) -> (Value, Value) {
    assert!(held().is_empty());
    let noted = annotations();
    assert_eq!(
        (&noted[PROFILE], &noted["postern.dev/trusted-profile-managed"]),
        (&json!(id), &json!("true"))
    );
    let since = noted["postern.dev/provisioned-at"].clone();
    assert!(since.as_str().is_some_and(|since| since.ends_with('Z')), "{noted}");
    let pod = get(&["-n", OPS, "pod/postern-ops"]);
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let token = volumes.iter().find(|volume| volume["name"] == "identity").unwrap();
    assert_eq!(
        token["projected"]["sources"],
        json!([{"serviceAccountToken": {"audience": "iam", "expirationSeconds": 3600, "path": "token"}}])
    );
    assert!(!pod.to_string().contains(API_KEY));
    Outcome::of(&mut with(
        known,
        &["run", "--", "sh", "-c", "test -z \"$IBMCLOUD_API_KEY\" && test -s /var/run/secrets/tokens/token"],
    ))
    .ok();
    // The token does not come out, by whatever tool.
    let seen = Outcome::of(&mut with(known, &["run", "--", "cat", "/var/run/secrets/tokens/token"])).ok();
    assert!(seen.stdout.ends_with(".[REDACTED]"), "{}", seen.stdout);
    let shown = Outcome::of(&mut with(known, &["ops", "show"])).ok().stdout;
    assert!(shown.contains(&format!("trusted profile {id}")), "{shown}");
    (pod["metadata"]["uid"].clone(), since)
}

#[test]
fn from_a_key_to_a_profile_and_back() {
    if !enabled() {
        return;
    }
    clean();
    let address = cloud::start();
    let known = registered(&address);
    install(&known, &["--trusted-profile", "off"]).ok();
    assert!(requests(&address).is_empty(), "off asks nothing");
    assert_eq!(held(), ["IBMCLOUD_API_KEY", "IC_API_KEY"]);

    let planned = install(&known, &["--dry-run"]).ok();
    assert!(
        planned.stdout.contains("✓ would provision IBM Cloud trusted profile postern-ops-canada"),
        "{}",
        planned.stdout
    );
    assert!(profiles(&address).is_empty());

    cloud::control(&address, "forget", &Value::Null);
    let seen = install(&known, &[]).ok();
    assert_eq!(seen.stderr, "");
    let receipts: Vec<_> =
        seen.stdout.lines().filter(|line| line.contains("IBM Cloud trusted profile")).collect();
    assert!(matches!(receipts[..], [one] if one.starts_with("✓ provisioned")), "{}", seen.stdout);
    assert!(seen.stdout.contains("no policy is attached to postern-ops-canada yet"), "{}", seen.stdout);
    assert!(
        seen.stdout.contains("ibmcloud iam trusted-profile-policy-create postern-ops-canada"),
        "{}",
        seen.stdout
    );
    assert!(seen.stdout.contains("is ready (trusted profile postern-ops-canada)"), "{}", seen.stdout);
    assert_eq!(
        asked(&address),
        [
            "POST /identity/token",
            "GET /global/v2/getCluster",
            "GET /v1/profiles",
            "POST /v1/profiles",
            "POST /v1/profiles/ID/links"
        ]
    );
    let made = profiles(&address);
    let link = json!({
        "name": format!("postern-ops-{CLUSTER}"), "cr_type": "ROKS_SA",
        "link": {"crn": CRN, "namespace": "postern-ops", "name": "postern-ops"},
    });
    assert_eq!(
        (made.len(), &made[0]["name"], &made[0]["links"]),
        (1, &json!("postern-ops-canada"), &json!([link]))
    );
    let id = made[0]["id"].as_str().unwrap().to_owned();

    let (uid, since) = holds_no_key(&known, &id);

    // Again: nothing changes, and nothing is said of policies.
    let again = install(&known, &[]).ok().stdout;
    assert!(
        again.contains("✓ unchanged IBM Cloud trusted profile") && !again.contains("no policy"),
        "{again}"
    );
    assert_eq!(get(&["-n", OPS, "pod/postern-ops"])["metadata"]["uid"], uid);
    assert_eq!((profiles(&address).len(), &annotations()["postern.dev/provisioned-at"]), (1, &since));

    // Back: the key returns, nothing of the profile stays in the cluster, and what stays outside is said.
    cloud::control(&address, "forget", &Value::Null);
    let back = install(&known, &["--trusted-profile", "off"]).ok();
    assert!(
        back.stdout.contains("--provider-only --confirm") && back.stdout.contains(&id),
        "{}",
        back.stdout
    );
    assert!(requests(&address).is_empty());
    assert_eq!(held(), ["IBMCLOUD_API_KEY", "IC_API_KEY"]);
    let left = annotations();
    assert!(
        !left.to_string().contains("trusted-profile") && !left.to_string().contains("provisioned-at"),
        "{left}"
    );
    let script =
        "test -n \"$IBMCLOUD_API_KEY\" && test -z \"$IAM_PROFILE_ID\" && test ! -e /var/run/secrets/tokens";
    Outcome::of(&mut with(&known, &["run", "--", "sh", "-c", script])).ok();

    // By name, without the cluster.
    let only = |args: &[&str]| {
        Outcome::of(
            with(&known, &["ops", "uninstall", "--provider-only"])
                .args(args)
                .env("KUBECONFIG", "/nonexistent"),
        )
    };
    assert!(only(&[]).ok().stdout.contains(&format!("- trusted profile {id} (postern-ops-canada)")));
    assert_eq!(profiles(&address).len(), 1);
    assert!(only(&["--confirm"]).ok().stdout.contains("✓ deleted trusted profile postern-ops-canada"));
    assert!(profiles(&address).is_empty());
    assert!(only(&["--confirm"]).ok().stdout.contains("There is no trusted profile postern-ops-canada"));
}

#[test]
fn an_uninstall_takes_the_profile_first_or_says_how() {
    if !enabled() {
        return;
    }
    let address = cloud::start();
    let known = registered(&address);
    cloud::control(&address, "behave", &json!({"cluster": "iks"}));
    install(&known, &["--trusted-profile", "on"]).ok();
    assert_eq!(profiles(&address)[0]["links"][0]["cr_type"], "IKS_SA");
    let id = profiles(&address)[0]["id"].as_str().unwrap().to_owned();
    let uninstall = |args: &[&str]| Outcome::of(with(&known, &["ops", "uninstall"]).args(args));
    let preview = uninstall(&[]).ok().stdout;
    assert!(preview.lines().nth(1).unwrap().contains(&format!("trusted profile {id}")), "{preview}");
    assert_eq!(profiles(&address).len(), 1);
    let gone = uninstall(&["--confirm"]).ok().stdout;
    assert_eq!(gone.lines().next().unwrap(), format!("✓ deleted trusted profile {id}"));
    assert!(profiles(&address).is_empty());

    // Gone already is done.
    install(&known, &[]).ok();
    let id = profiles(&address)[0]["id"].as_str().unwrap().to_owned();
    let token = json!({"permission": ""});
    cloud::control(&address, "behave", &token);
    let other = Outcome::of(
        with(&known, &["ops", "uninstall", "--provider-only", "--confirm"]).env("KUBECONFIG", "/nonexistent"),
    );
    other.ok();
    assert!(
        uninstall(&["--confirm"]).ok().stdout.contains(&format!("trusted profile {id} was gone already"))
    );

    // The permission was lost: the cluster's objects go, and a person is told what is left to do.
    install(&known, &[]).ok();
    let id = profiles(&address)[0]["id"].as_str().unwrap().to_owned();
    cloud::control(&address, "behave", &json!({"permission": "403"}));
    let left = uninstall(&["--confirm"]).ok();
    assert!(
        left.stderr.contains(&format!("delete it with: ibmcloud iam trusted-profile-delete {id}")),
        "{}",
        left.stderr
    );
    assert!(left.stdout.contains("✓ deleted ServiceAccount"), "{}", left.stdout);
    assert_ne!(kubectl(&["get", "namespace", OPS]).code, 0);
}

const NAMESPACE: &str = "postern-e2e-cloud";

/// The cloud as a pod, and a way to it from here; both end with the test.
struct InCluster {
    forward: Child,
    here: String,
    there: String,
}

impl InCluster {
    fn start() -> Self {
        apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: cloud, namespace: {NAMESPACE}}}\n\
             spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: cloud, image: '{IMAGE}', imagePullPolicy: IfNotPresent,\n\
             command: [cloud, '0.0.0.0:8080'], readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}}}]}}\n"
        ));
        kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/cloud", "--timeout=90s"]).ok();
        let address = get(&["-n", NAMESPACE, "pod/cloud"])["status"]["podIP"].as_str().unwrap().to_owned();
        let mut command = e2e::kubectl_command(&["port-forward", "-n", NAMESPACE, "pod/cloud", ":8080"]);
        let mut forward = command.stdout(Stdio::piped()).spawn().unwrap();
        let (mut said, mut line) = (BufReader::new(forward.stdout.take().unwrap()), String::new());
        said.read_line(&mut line).unwrap();
        // It says each connection, and ends when nobody hears it.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let port = line.split(" -> ").next().unwrap().rsplit(':').next().unwrap().to_owned();
        let cloud =
            Self { forward, here: format!("http://127.0.0.1:{port}"), there: format!("{address}:8080") };
        let raw = |path: &str| -> Value {
            serde_json::from_str(&kubectl(&["get", "--raw", path]).ok().stdout).unwrap()
        };
        let issuer = raw("/.well-known/openid-configuration")["issuer"].clone();
        cloud::control(&cloud.here, "keys", &json!({"issuer": issuer, "keys": raw("/openid/v1/jwks")}));
        cloud
    }

    fn config(&self, more: &str) -> NamedTempFile {
        let Self { forward: _, here, there } = self;
        config(&format!(
            "workspace: canada\nibm: {{cluster: {CLUSTER}, region: eu-de, iam_endpoint: '{here}', containers_endpoint: '{here}', \
             api_endpoint: '{there}'}}\n{more}"
        ))
    }

    /// Logins that were tried.
    fn logins(&self) -> Vec<Value> {
        requests(&self.here)
            .into_iter()
            .filter(|request| request["body"].as_str().unwrap().contains("cr-token"))
            .collect()
    }

    fn behave(&self, how: &Value) {
        cloud::control(&self.here, "behave", how);
        cloud::control(&self.here, "forget", &Value::Null);
    }
}

impl Drop for InCluster {
    fn drop(&mut self) {
        let _ = self.forward.kill();
        let _ = self.forward.wait();
        kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"]);
    }
}

const IMAGE: &str = "ghcr.io/postern-dev/postern-ops-ibm:dev";

/// Ends the session that `ibmcloud` keeps in the pod.
fn log_out(config: &NamedTempFile) {
    Outcome::of(&mut with(config, &["run", "--login", "none", "--", "rm", "-rf", "/home/ops/.bluemix"])).ok();
}

#[test]
fn a_tool_is_logged_in_by_the_pods_own_token_before_it_starts() {
    if !enabled() || !e2e::testbed() {
        return;
    }
    clean();
    let cloud = InCluster::start();
    let quick = cloud.config("login: {interval: 300ms}\n");
    install(&quick, &["--trusted-profile", "on", "--stream", "--image", IMAGE]).ok();
    for transport in ["exec", "stream"] {
        let run = |args: &[&str]| Outcome::of(with(&quick, &["run", "--transport", transport]).args(args));
        log_out(&quick);
        // IAM takes a while to learn of a link.
        cloud.behave(&json!({"not_eligible": 2}));
        let seen = run(&["--", "ibmcloud", "iam", "oauth-tokens"]).ok();
        // The token that was minted is a secret too.
        assert!(
            seen.stdout.starts_with("IAM token:  Bearer ") && seen.stdout.trim_end().ends_with(".[REDACTED]"),
            "{}",
            seen.stdout
        );
        let logins = cloud.logins();
        let statuses: Vec<_> = logins.iter().map(|login| login["status"].as_u64().unwrap()).collect();
        assert_eq!(
            statuses,
            [400, 400, 200],
            "the cloud checked the token's signature, issuer, audience and subject"
        );
        assert!(!e2e::processes().contains("cr_token"));

        // The session serves later runs, of whatever tool asks for it.
        run(&["--", "ibmcloud", "target"]).ok();
        assert_eq!(
            run(&["--login", "ibm", "--", "sh", "-c", "ibmcloud target"]).ok().stdout,
            "Region: eu-de\n"
        );
        assert_eq!(cloud.logins().len(), 3);

        // What is read from stdin meanwhile is not lost.
        log_out(&quick);
        cloud.behave(&json!({"not_eligible": 1}));
        let mut command =
            with(&quick, &["run", "--transport", transport, "-i", "--login", "ibm", "--", "cat"]);
        let text = "0123456789abcdef".repeat(200_000);
        assert!(e2e::with_stdin(&mut command, text.as_bytes()).ok().stdout == text);

        // Many at once log in once.
        log_out(&quick);
        cloud.behave(&json!({}));
        let args = [
            "--each", "a", "--each", "b", "--each", "c", "--each", "d", "--login", "ibm", "--", "echo", "{}",
        ];
        run(&args).ok();
        assert_eq!(cloud.logins().len(), 1);
    }

    // Renewed before it expires.
    log_out(&quick);
    cloud.behave(&json!({"lifetime": 10}));
    let target = ["run", "--", "ibmcloud", "target"];
    eventually("it is renewed", Duration::from_secs(30), || {
        Outcome::of(&mut with(&quick, &target)).ok();
        cloud.logins().len() == 2
    });
}

#[test]
fn a_tool_whose_login_failed_is_not_run() {
    if !enabled() || !e2e::testbed() {
        return;
    }
    let cloud = InCluster::start();
    let quick = cloud.config("login: {interval: 200ms}\n");
    install(&quick, &["--trusted-profile", "on", "--stream", "--image", IMAGE]).ok();
    log_out(&quick);
    cloud.behave(&json!({"not_eligible": 99}));
    let run = |config: &NamedTempFile, args: &[&str]| Outcome::of(with(config, &["run"]).args(args));
    for transport in ["exec", "stream"] {
        let touch = ["--transport", transport, "--login", "ibm", "--", "touch", "/tmp/it-ran"];
        let seen = run(&quick, &touch).exits(127);
        let words = "trusted-profile login failed after 3 attempts: FAILED";
        assert!(seen.stderr.contains(words) && seen.stderr.contains("BXNIM0398E"), "{}", seen.stderr);
    }
    assert_eq!(cloud.logins().len(), 6);
    // Many that wait for one that fails do not try as often each.
    let each: Vec<String> = (0..8).flat_map(|value| ["--each".to_owned(), value.to_string()]).collect();
    let mut many = with(&quick, &["run", "--login", "ibm"]);
    let seen = Outcome::of(many.args(each).args(["--", "touch", "/tmp/it-ran"])).exits(127);
    assert!(seen.stderr.contains("login failed after 3 attempts"), "{}", seen.stderr);
    assert!(cloud.logins().len() < 6 + 8 * 3, "{}", cloud.logins().len());
    run(&quick, &["--", "test", "!", "-e", "/tmp/it-ran"]).ok();
    let patient = cloud.config("login: {attempts: 2, interval: 100ms}\n");
    run(&patient, &["--", "ibmcloud", "target"]).exits(127).says(&["failed after 2 attempts"]);
    // Another tool needs no login, and --login none leaves even this one alone.
    run(&quick, &["--", "true"]).ok();
    run(&quick, &["--login", "none", "--", "ibmcloud", "target"]).exits(1).says(&["Not logged in"]);

    // A person who does not want to wait for the next attempt need not.
    cloud.behave(&json!({"not_eligible": 99}));
    let slow = cloud.config("login: {interval: 5m}\n");
    let waiting = with(&slow, &["run", "--", "ibmcloud", "target"]).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the first attempt was made", Duration::from_secs(20), || cloud.logins().len() == 1);
    Command::new("kill").args(["-INT", &waiting.id().to_string()]).status().unwrap();
    let ended = Outcome::from(waiting.wait_with_output().unwrap());
    assert!(ended.stderr.contains("the login was ended by signal 2"), "{}", ended.stderr);
    assert_eq!(cloud.logins().len(), 1);

    // With a key instead of a profile the same command logs in with the key.
    cloud.behave(&json!({}));
    install(&quick, &["--trusted-profile", "off", "--image", IMAGE]).ok();
    assert_eq!(run(&quick, &["--login", "ibm", "--", "ibmcloud", "target"]).ok().stdout, "Region: eu-de\n");
    run(&quick, &["--", "rm", "-rf", "/home/ops/.bluemix"]).ok();
    let nowhere = config("ibm: {api_endpoint: '127.0.0.1:9'}\nlogin: {attempts: 1}\n");
    run(&nowhere, &["--login", "ibm", "--", "true"])
        .exits(127)
        .says(&["API-key login failed after 1 attempt: FAILED"]);
    clean();
    Outcome::of(
        with(&quick, &["ops", "uninstall", "--provider-only", "--confirm"]).env("KUBECONFIG", "/nonexistent"),
    )
    .ok();
}
