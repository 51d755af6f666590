//! A kubeconfig's exec plug-in (`client.authentication.k8s.io`). It runs once, and its answer is used for the whole
//! command.
//!
//! It gets our stdin only if that is a terminal and the command does not read data from it. Its stdout contains a
//! secret, and its arguments may too, so neither is ever printed. Its stderr is shown if ours is a terminal, because
//! it may explain a login. Otherwise the last line of its stderr is part of the error.

use crate::credential_error::{CredentialCause, CredentialError};
use kube::config::{ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::io::IsTerminal as _;
use std::process::Stdio;
use std::sync::{Arc, LazyLock, Mutex as StdMutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// The maximum size of an answer, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;

/// How long after the plug-in's end a process that it left behind may keep its output open.
const LINGER: Duration = Duration::from_millis(200);

/// A credential that expires sooner than this is requested again.
const LEEWAY: Duration = Duration::from_secs(5);

/// The variable that passes the request to a plug-in.
const INFO: &str = "KUBERNETES_EXEC_INFO";

/// The answer of a plug-in.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) token: Option<SecretString>,
    /// A certificate and its key, both in PEM.
    pub(crate) certificate: Option<(String, SecretString)>,
    expires: Option<SystemTime>,
}

/// A plug-in and its last answer.
#[derive(Debug)]
pub(crate) struct ExecPlugin {
    config: ExecConfig,
    /// Why the plug-in may not read our stdin, such as `-i`.
    stdin_taken: Option<&'static str>,
    cached: Mutex<Option<Arc<Credential>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    api_version: &'a str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    interactive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a ExecAuthCluster>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: Option<String>,
    kind: Option<String>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

type Plugins = Vec<(String, Arc<ExecPlugin>)>;

/// The plug-ins of this process by their configuration, so that a command runs each only once.
static PLUGINS: LazyLock<StdMutex<Plugins>> = LazyLock::new(StdMutex::default);

fn of_plugin(why: String) -> CredentialError {
    CredentialError { why, cause: CredentialCause::Plugin }
}

impl ExecPlugin {
    /// Returns the plug-in with this configuration, which may have run already. The error names the invalid field.
    pub(crate) fn shared(
        config: ExecConfig,
        stdin_taken: Option<&'static str>,
    ) -> Result<Arc<Self>, CredentialError> {
        if config.command.is_none() {
            return Err(of_plugin("the kubeconfig's exec plug-in has no command".to_owned()));
        }
        match config.api_version.as_deref() {
            Some("client.authentication.k8s.io/v1" | "client.authentication.k8s.io/v1beta1") => {}
            other => {
                return Err(of_plugin(format!(
                    "apiVersion of the kubeconfig's exec plug-in is {:?}; use client.authentication.k8s.io/v1 \
                     or v1beta1",
                    other.unwrap_or_default()
                )));
            }
        }
        let key = serde_json::to_string(&(&config, &config.cluster)).unwrap_or_default();
        let mut known = PLUGINS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plugin)) = known.iter().find(|(of, _)| *of == key) {
            return Ok(Arc::clone(plugin));
        }
        let plugin = Arc::new(Self { config, stdin_taken, cached: Mutex::new(None) });
        known.push((key, Arc::clone(&plugin)));
        Ok(plugin)
    }

    /// Returns its name for messages.
    pub(crate) fn name(&self) -> String {
        format!("the kubeconfig's exec plug-in {}", self.config.command.as_deref().unwrap_or_default())
    }

    /// Returns a valid credential. Concurrent callers share one answer.
    pub(crate) async fn credential(&self) -> Result<Arc<Credential>, CredentialError> {
        let mut cached = self.cached.lock().await;
        let good = |credential: &&Arc<Credential>| {
            credential.expires.is_none_or(|expires| SystemTime::now() + LEEWAY < expires)
        };
        if let Some(credential) = cached.as_ref().filter(good) {
            return Ok(Arc::clone(credential));
        }
        let credential = Arc::new(self.run().await?);
        *cached = Some(Arc::clone(&credential));
        Ok(credential)
    }

    fn error(&self, what: &str) -> CredentialError {
        of_plugin(format!("{} {what}", self.name()))
    }

    /// Whether the plug-in may prompt the user.
    fn interactive(&self) -> Result<bool, CredentialError> {
        let terminal = std::io::stdin().is_terminal();
        match self.config.interactive_mode {
            Some(ExecInteractiveMode::Never) => Ok(false),
            Some(ExecInteractiveMode::Always) => match self.stdin_taken {
                Some(by) => Err(self.error(&format!(
                    "needs our standard input (interactiveMode: Always), which {by} takes for the command"
                ))),
                None if !terminal => Err(self.error(
                    "needs a terminal as standard input (interactiveMode: Always), and standard input is not one",
                )),
                None => Ok(true),
            },
            Some(ExecInteractiveMode::IfAvailable) | None => Ok(terminal && self.stdin_taken.is_none()),
        }
    }

    async fn run(&self) -> Result<Credential, CredentialError> {
        let ExecConfig {
            api_version, command, args, env, install_hint, provide_cluster_info, cluster, ..
        } = &self.config;
        let interactive = self.interactive()?;
        let api_version = api_version.as_deref().unwrap_or_default();
        let spec = Spec { interactive, cluster: cluster.as_ref().filter(|_| *provide_cluster_info) };
        let info = serde_json::to_string(&Request { api_version, kind: "ExecCredential", spec })
            .map_err(|error| self.error(&format!("cannot be given the request: {error}")))?;
        let show_stderr = std::io::stderr().is_terminal();
        let mut process = Command::new(command.as_deref().unwrap_or_default());
        process.args(args.iter().flatten()).env(INFO, info).kill_on_drop(true);
        for variable in env.iter().flatten() {
            if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
                process.env(name, value);
            }
        }
        process.stdin(if interactive { Stdio::inherit() } else { Stdio::null() });
        process.stdout(Stdio::piped()).stderr(if show_stderr { Stdio::inherit() } else { Stdio::piped() });
        let child = process.spawn().map_err(|error| {
            let hint = install_hint.as_ref().filter(|_| error.kind() == std::io::ErrorKind::NotFound);
            let hint = hint.map_or(String::new(), |hint| format!("; how to install it: {}", hint.trim()));
            self.error(&format!("cannot be started: {error}{hint}"))
        })?;
        let mut child = Running(child);
        let (stdout, stderr) = (child.0.stdout.take(), child.0.stderr.take());
        let (mut answer, mut messages) = (Zeroizing::new(Vec::new()), Vec::new());
        let status = {
            let ended = tokio::sync::Notify::new();
            let reading = async {
                tokio::join!(read(stdout, &mut answer, &ended), read(stderr, &mut messages, &ended));
            };
            let waiting = async {
                let status = child.0.wait().await;
                ended.notify_waiters();
                status
            };
            // Wait for both: the output from before the end may not have been read yet.
            tokio::join!(reading, waiting).1
        };
        let status = status.map_err(|error| self.error(&format!("cannot be waited for: {error}")))?;
        if !status.success() {
            let text = String::from_utf8_lossy(&messages);
            let last: String =
                text.trim().lines().next_back().unwrap_or_default().chars().take(300).collect();
            let last =
                if last.is_empty() { String::new() } else { format!("; it said: {}", last.escape_debug()) };
            return Err(self.error(&format!("ended with {status}{last}")));
        }
        self.parse(&answer)
    }

    /// Parses the answer. An incomplete answer is an error: otherwise requests would be anonymous.
    fn parse(&self, text: &[u8]) -> Result<Credential, CredentialError> {
        let wanted = self.config.api_version.as_deref().unwrap_or_default();
        let no = || self.error("printed no ExecCredential (client.authentication.k8s.io)");
        let text = std::str::from_utf8(text).map_err(|_| no())?;
        let Answer { api_version, kind, status } = serde_json::from_str(text).map_err(|_| no())?;
        if kind.is_some_and(|kind| kind != "ExecCredential") {
            return Err(no());
        }
        if let Some(given) = api_version.filter(|given| given != wanted) {
            return Err(self.error(&format!(
                "answered in apiVersion {given:?}, and the kubeconfig asks for {wanted:?}"
            )));
        }
        let status = status.ok_or_else(|| self.error("printed an ExecCredential without a status"))?;
        let Status { expiration_timestamp, token, client_certificate_data, client_key_data } = status;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let token = given(token).map(SecretString::from);
        let certificate = given(client_certificate_data);
        let key = given(client_key_data).map(SecretString::from);
        let certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => return Err(self.error("gave clientCertificateData without clientKeyData")),
            (None, Some(_)) => return Err(self.error("gave clientKeyData without clientCertificateData")),
            (None, None) if token.is_none() => {
                return Err(self.error("gave neither a token nor a certificate"));
            }
            (None, None) => None,
        };
        let expires = expiration_timestamp.filter(|text| !text.is_empty());
        let expires = expires.map(|text| {
            text.parse::<k8s_openapi::jiff::Timestamp>().map(SystemTime::from).map_err(|_| {
                self.error(&format!("gave expirationTimestamp {text:?}, which is not an RFC 3339 time"))
            })
        });
        Ok(Credential { token, certificate, expires: expires.transpose()? })
    }
}

/// Reads to the end, or for a moment after the plug-in has ended: a process that it left behind may keep the pipe
/// open for ever, and may write to it.
async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, ended: &tokio::sync::Notify) {
    let Some(mut from) = from.map(|from| from.take(MAX_ANSWER)) else { return };
    let all = async { while from.read_buf(into).await.is_ok_and(|count| count > 0) {} };
    let over = async {
        ended.notified().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        biased; // data in the pipe is read, however late
        () = all => {}
        () = over => {}
    }
}

/// A running plug-in. If it is dropped, it is killed, with its descendants.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = self.0.id() {
            end_descendants(pid);
        }
    }
}

/// Kills the descendants of a process, as far as the kernel lists them (proc(5), `children`). The process's handle
/// kills the process itself.
#[cfg(target_os = "linux")]
fn end_descendants(pid: u32) {
    let mut waiting = vec![pid];
    let mut found: Vec<u32> = Vec::new();
    while let Some(pid) = waiting.pop() {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children: Vec<u32> =
                children.split_ascii_whitespace().filter_map(|one| one.parse().ok()).collect();
            found.extend(&children);
            waiting.extend(children);
        }
    }
    for pid in found {
        if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL); // it may have ended
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn end_descendants(_: u32) {}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    const V1: &str = "client.authentication.k8s.io/v1";

    fn plugin(script: &str) -> ExecPlugin {
        let config = ExecConfig {
            api_version: Some(V1.to_owned()),
            command: Some("sh".to_owned()),
            args: Some(vec!["-c".to_owned(), script.to_owned()]),
            ..ExecConfig::default()
        };
        ExecPlugin { config, stdin_taken: None, cached: Mutex::new(None) }
    }

    fn printing(status: &str) -> String {
        format!(r#"echo '{{"apiVersion":"{V1}","kind":"ExecCredential","status":{status}}}'"#)
    }

    async fn error(script: &str) -> String {
        plugin(script).credential().await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn half_an_answer_is_none() {
        for (status, why) in [
            ("{}", "gave neither a token nor a certificate"),
            (r#"{"token":""}"#, "gave neither a token nor a certificate"),
            (
                r#"{"token":"t","clientCertificateData":"c"}"#,
                "gave clientCertificateData without clientKeyData",
            ),
            (r#"{"clientKeyData":"k"}"#, "gave clientKeyData without clientCertificateData"),
            (r#"{"token":"t","expirationTimestamp":"soon"}"#, "not an RFC 3339 time"),
            ("null", "without a status"),
        ] {
            let said = error(&printing(status)).await;
            assert!(
                said.starts_with("the kubeconfig's exec plug-in sh ") && said.contains(why),
                "{status}: {said}"
            );
        }
        assert!(error("echo nonsense").await.contains("printed no ExecCredential"));
        assert!(error(r#"echo '{"apiVersion":"x/v1","status":{"token":"t"}}'"#).await.contains("apiVersion"));
    }

    #[tokio::test]
    async fn what_it_printed_is_not_repeated() {
        let said = error("echo canary; echo one >&2; printf 'log in \\033[2Jfirst\\n' >&2; exit 1").await;
        assert!(!said.contains("canary") && said.ends_with("it said: log in \\u{1b}[2Jfirst"), "{said}");
    }

    #[tokio::test]
    async fn it_runs_once_until_what_it_gave_ends() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let script = |expires: &str| {
            format!("echo >> {}; {}", runs.display(), printing(&format!(r#"{{"token":"t"{expires}}}"#)))
        };
        let count = || std::fs::read(&runs).map_or(0, |text| text.len());
        for (expires, expected) in [
            ("", 1),
            (r#","expirationTimestamp":"2999-01-01T00:00:00Z""#, 1),
            (r#","expirationTimestamp":"2001-01-01T00:00:00Z""#, 2),
        ] {
            let _ = std::fs::remove_file(&runs);
            let plugin = plugin(&script(expires));
            let (one, other) = tokio::join!(plugin.credential(), plugin.credential());
            assert_eq!(one.unwrap().token.as_ref().unwrap().expose_secret(), "t");
            other.unwrap();
            assert_eq!(count(), expected, "{expires}");
        }
    }

    #[tokio::test]
    async fn a_child_that_holds_its_output_is_not_waited_for() {
        // It writes continuously, like a program that logs.
        let chatty = "while :; do echo >&2 x; sleep 0.05; done";
        let script = format!("({chatty}) & {}; echo $! > \"$PIDFILE\"", printing(r#"{"token":"t"}"#));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let mut plugin = plugin(&script);
        let variable = |name: &str, value: &str| {
            [("name", name), ("value", value)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        };
        plugin.config.env = Some(vec![variable("PIDFILE", file.to_str().unwrap())]);
        let got = tokio::time::timeout(Duration::from_secs(30), plugin.credential()).await;
        got.expect("it hangs").unwrap();
        let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::KILL,
        );
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn one_that_is_given_up_ends_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let plugin = plugin(&format!("sleep 600 & echo $! > {}; wait", file.display()));
        let given_up = async {
            while std::fs::read_to_string(&file).map_or(true, |text| text.trim().is_empty()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = plugin.credential() => panic!("it ended by itself"),
            () = given_up => {}
        }
        let pid = std::fs::read_to_string(&file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        // Gone, or a zombie that was not reaped.
        let ended = || std::fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z "));
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while !ended() {
            assert!(std::time::Instant::now() < until, "{pid} runs on");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn one_that_has_to_ask_is_refused_where_nobody_can_be_asked() {
        let mut asking = plugin("read answer");
        asking.config.interactive_mode = Some(ExecInteractiveMode::Always);
        asking.stdin_taken = Some("-i");
        let said = asking.credential().await.unwrap_err().to_string();
        assert!(said.contains("interactiveMode: Always") && said.contains("-i takes"), "{said}");
    }
}
