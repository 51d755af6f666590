//! What the end-to-end tests share: the program, kubectl, and a cluster that `KUBECONFIG` names.
//!
//! The tests run when `POSTERN_E2E` is set (`make test` sets it; `external` means a cluster that is not the testbed),
//! the tests of one program one at a time, as they share an ops pod. The program under test is `$POSTERN_BIN`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    clippy::return_self_not_must_use,
    reason = "these are tests"
)]

pub mod cloud;
pub mod control_plane;
pub mod controller;
pub mod federation;
pub mod moto;
pub mod pods;
pub mod provider;
pub mod proxy;
pub mod registry;
pub mod s3;
pub mod scene;
pub mod servers;
pub mod tree;

use serde_json::Value;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// The default ops pod's namespace. Tests of the default itself name it.
pub const OPS: &str = "postern-ops";

/// The namespace of the ops pod that a test uses: `$POSTERN_E2E_OPS`, so that test programs run side by side, else the
/// default one. Makes the namespace, as an ops pod does not make its own there.
pub fn ops() -> &'static str {
    static NAMESPACE: OnceLock<String> = OnceLock::new();
    NAMESPACE.get_or_init(|| {
        let Some(namespace) = own_ops() else { return OPS.to_owned() };
        if enabled() {
            make_namespace(&namespace);
        }
        namespace
    })
}

/// Makes a namespace in which nothing but restricted pods can run.
pub fn make_namespace(name: &str) {
    let modes = ["enforce", "audit", "warn"];
    let labels = modes.map(|mode| format!("pod-security.kubernetes.io/{mode}: restricted")).join(", ");
    apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{labels}}}}}}}"));
}

/// The namespace that the environment names.
fn own_ops() -> Option<String> {
    std::env::var("POSTERN_E2E_OPS").ok().filter(|namespace| !namespace.is_empty())
}

/// The Role by which the ops pod has access to a namespace.
pub fn access_role() -> String {
    own_ops().map_or_else(|| OPS.to_owned(), |namespace| format!("{namespace}:postern-ops"))
}

/// A credential that no test but a leak would ever print. Each test program has its own.
pub fn canary() -> &'static str {
    static CANARY: OnceLock<String> = OnceLock::new();
    CANARY.get_or_init(|| format!("canary-Zq7/hJ2+w9-4d1e{}", own_ops().unwrap_or_default()))
}

/// Whether to run; says so when not.
pub fn enabled() -> bool {
    let on = std::env::var_os("POSTERN_E2E").is_some();
    if !on {
        eprintln!("skipped: set POSTERN_E2E=1 (see CONTRIBUTING.md)");
    }
    on
}

/// Whether the cluster is the testbed, whose audit log and processes can be looked at.
pub fn testbed() -> bool {
    std::env::var("POSTERN_E2E").is_ok_and(|value| value != "external")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The testbed's API audit log.
pub fn audit_log() -> PathBuf {
    root().join("target/testbed/audit.log")
}

/// How long the audit log is now, for [`audit_since`].
pub fn audit_length() -> u64 {
    std::fs::metadata(audit_log()).map_or(0, |metadata| metadata.len())
}

/// What was written to the audit log since it had this length. A log that was rotated is read from its beginning.
pub fn audit_since(length: u64) -> String {
    let log = std::fs::read(audit_log()).unwrap();
    let begin = usize::try_from(length).unwrap();
    String::from_utf8_lossy(log.get(begin..).unwrap_or(&log)).into_owned()
}

/// The kubeconfig in use.
pub fn kubeconfig() -> PathBuf {
    std::env::var_os("KUBECONFIG").map_or_else(|| root().join("target/testbed/kubeconfig"), PathBuf::from)
}

/// The program, with an environment of its own: no user's config, no credential.
pub fn postern() -> Command {
    let program =
        std::env::var_os("POSTERN_BIN").map_or_else(|| root().join("target/debug/postern"), PathBuf::from);
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("KUBECONFIG", kubeconfig())
        .stdin(Stdio::null());
    if ops() != OPS {
        command.env("POSTERN_OPS_NAMESPACE", ops());
    }
    if STREAMS.load(Ordering::Relaxed) == BY_STREAM {
        command.env("POSTERN_CONFIG", root().join("e2e/by-stream.yaml"));
    }
    command
}

const ONE: u8 = 0;
const BY_EXEC: u8 = 1;
const BY_STREAM: u8 = 2;

/// Which of both transports a test is at. The tests of a file run one at a time.
static STREAMS: AtomicU8 = AtomicU8::new(ONE);

/// Puts [`STREAMS`] back, also when a test fails.
struct Back;

impl Drop for Back {
    fn drop(&mut self) {
        STREAMS.store(ONE, Ordering::Relaxed);
    }
}

/// Runs a test once by exec and once by stream, in an ops pod that takes both. Says nothing when tests are off.
pub fn each_transport(test: impl Fn()) {
    if !enabled() {
        return;
    }
    let _back = Back;
    for transport in [BY_EXEC, BY_STREAM] {
        eprintln!("by {}", if transport == BY_EXEC { "exec" } else { "stream" });
        STREAMS.store(transport, Ordering::Relaxed);
        test();
    }
}

/// `postern ARGS`, run to its end.
pub fn run(args: &[&str]) -> Outcome {
    Outcome::of(postern().args(args))
}

/// `postern run -- sh -c SCRIPT`.
pub fn sh(script: &str) -> Outcome {
    run(&["run", "--", "sh", "-c", script])
}

/// kubectl, of the testbed's release where there is one.
pub fn kubectl(args: &[&str]) -> Outcome {
    Outcome::of(&mut kubectl_command(args))
}

/// The same, not yet started.
pub fn kubectl_command(args: &[&str]) -> Command {
    let own = root().join("target/testbed/bin/kubectl");
    let mut command = Command::new(if own.exists() { own } else { "kubectl".into() });
    command.args(args).env("KUBECONFIG", kubeconfig()).stdin(Stdio::null());
    command
}

/// An object as the API server has it.
pub fn get(args: &[&str]) -> Value {
    let mut all = vec!["get", "-o", "json"];
    all.extend_from_slice(args);
    serde_json::from_str(&kubectl(&all).ok().stdout).unwrap()
}

/// Applies manifests.
pub fn apply(yaml: &str) {
    with_stdin(&mut kubectl_command(&["apply", "-f", "-"]), yaml.as_bytes()).ok();
}

/// Runs a test under a policy that refuses what meets `rule` and not `expression`. The server heeds it, and forgets it, some
/// moments later: `holds` tries.
pub fn policed(name: &str, rule: &str, expression: &str, holds: impl Fn() -> bool, test: impl FnOnce()) {
    struct Policy<'a>(&'a str);
    impl Drop for Policy<'_> {
        fn drop(&mut self) {
            for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
                kubectl(&["delete", "--ignore-not-found", kind, self.0]);
            }
        }
    }
    let object = |kind: &str, spec: &str| {
        let of = "apiVersion: admissionregistration.k8s.io/v1";
        format!("---\n{of}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    let gone = Policy(name);
    let rules = format!("{{resourceRules: [{rule}]}}");
    let policy = format!("{{matchConstraints: {rules}, validations: [{{expression: '{expression}'}}]}}");
    let binding = format!("{{policyName: {name}, validationActions: [Deny]}}");
    let policy = object("ValidatingAdmissionPolicy", &policy);
    apply(&(policy + &object("ValidatingAdmissionPolicyBinding", &binding)));
    eventually("the policy holds", Duration::from_secs(60), &holds);
    test();
    drop(gone);
    eventually("the policy is gone", Duration::from_secs(60), || !holds());
}

/// Runs a command with these bytes as its stdin.
pub fn with_stdin(command: &mut Command, stdin: &[u8]) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("it starts");
    let mut pipe = process.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    let feeder = std::thread::spawn(move || pipe.write_all(&stdin));
    let output = process.wait_with_output().unwrap();
    let _ = feeder.join();
    Outcome::from(output)
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit code; 256 and more for a signal.
    pub code: i32,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let Output { status, stdout, stderr } = output;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = status.code().unwrap_or_else(|| 256 + status.signal().unwrap_or(0));
        Self { code, stdout: text(stdout), stderr: text(stderr) }
    }
}

impl Outcome {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        command.output().expect("it starts").into()
    }

    /// Fails the test unless it succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Fails the test unless it ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless stderr holds each of these.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in stderr:\n{}", self.stderr);
        }
        self
    }

    /// Its stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{}", self.stdout))
    }
}

/// Removes everything, whatever state a test left.
pub fn clean() {
    run(&["ops", "uninstall", "--confirm", "--timeout", "90s"]).ok();
}

/// An ops pod as `ops install ARGS` makes it, with the canary as its credential.
pub fn install(args: &[&str]) -> Outcome {
    let mut command = postern();
    command.args(["ops", "install"]).args(args).env("IBMCLOUD_API_KEY", canary());
    if STREAMS.load(Ordering::Relaxed) != ONE {
        command.arg("--stream");
    }
    if !args.contains(&"--timeout") {
        command.args(["--timeout", "90s"]);
    }
    Outcome::of(&mut command)
}

/// Waits until `done` holds; for conditions that nothing announces.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// The argv of every process in the ops pod, an argument a line.
pub fn processes() -> String {
    let script = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'";
    kubectl(&["exec", "-n", ops(), "postern-ops", "--", "sh", "-c", script]).ok().stdout
}

/// Whether a process in the ops pod has this argument.
pub fn runs_in_pod(argument: &str) -> bool {
    processes().lines().any(|line| line == argument)
}

/// A number for `sleep` that no other process has.
pub fn marker() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{}.{next}", 100_000 + std::process::id())
}

/// The kubeconfig in use, with all that it refers to in it.
pub fn whole_kubeconfig() -> Value {
    let view = kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]).ok();
    serde_json::from_str(&view.stdout).unwrap()
}

/// Writes the cluster's CA to a file of its own, and takes it out of a kubeconfig.
pub fn take_ca(config: &mut Value) -> tempfile::NamedTempFile {
    let cluster = config["clusters"][0]["cluster"].as_object_mut().unwrap();
    let data = cluster.remove("certificate-authority-data").expect("the kubeconfig has the cluster's CA");
    let pem = with_stdin(Command::new("base64").arg("-d"), data.as_str().unwrap().as_bytes()).ok().stdout;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(pem.as_bytes()).unwrap();
    file
}

/// A kubeconfig for a ServiceAccount of the ops namespace, by a token of its own.
pub fn kubeconfig_of(account: &str) -> tempfile::NamedTempFile {
    let token = kubectl(&["create", "token", account, "-n", ops()]).ok().stdout.trim().to_owned();
    let mut config = whole_kubeconfig();
    config["users"][0]["user"] = serde_json::json!({ "token": token });
    write_kubeconfig(&config)
}

/// The kubeconfig in use with another server address.
pub fn kubeconfig_by_way_of(server: &str) -> tempfile::NamedTempFile {
    let mut config = whole_kubeconfig();
    config["clusters"][0]["cluster"]["server"] = server.into();
    write_kubeconfig(&config)
}

/// The API server's address as host and port.
pub fn server() -> String {
    let config: Value =
        serde_json::from_str(&kubectl(&["config", "view", "--raw", "--minify", "-o", "json"]).ok().stdout)
            .unwrap();
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    server.trim_start_matches("https://").trim_end_matches('/').to_owned()
}

/// Writes a kubeconfig to a private file.
pub fn write_kubeconfig(config: &Value) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(config.to_string().as_bytes()).unwrap();
    file
}
