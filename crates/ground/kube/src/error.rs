//! Errors of requests to an API server, classified by who must act.

use crate::credential_error::{CredentialCause, CredentialError};
use crate::retry::Busy;
use kube::client::AuthError;
use postern_net::error::{chain, is_expired, is_tls};

/// A request to the API server failed.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {reason}")]
pub struct KubeError {
    /// What was attempted, on which object.
    pub attempt: String,
    /// Why it failed.
    #[source]
    pub reason: Reason,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The kubeconfig cannot be used.
    #[error("{0}")]
    Kubeconfig(String),
    /// The kubeconfig has no such context.
    #[error("{0}")]
    Context(String),
    /// A field of the kubeconfig, or the file it names, cannot be used; names the field.
    #[error("{0}")]
    Field(String),
    /// An environment variable for the connection cannot be used; says what would be valid.
    #[error("{0}")]
    Setting(String),
    /// No connection, or it was lost.
    #[error("the API server at {server} cannot be reached: {cause}")]
    Unreachable {
        /// The server's address.
        server: String,
        /// The innermost cause.
        cause: String,
    },
    /// No answer within the time limit.
    #[error("the API server did not answer within {0} s")]
    NoAnswer(u64),
    /// The certificate of one side was rejected.
    #[error("the TLS connection to {server} was refused: {cause}")]
    Tls {
        /// The server's address.
        server: String,
        /// The innermost cause.
        cause: String,
        /// Whether a certificate has expired.
        expired: bool,
    },
    /// The server is too busy (429, 503), and the retries failed.
    #[error("{0}")]
    Busy(String),
    /// The server does not accept the credentials (401).
    #[error("the API server does not accept the credentials (401 Unauthorized)")]
    Unauthorized,
    /// The user lacks permission (403).
    #[error("{0}")]
    Forbidden(String),
    /// The object does not exist (404).
    #[error("{0}")]
    NotFound(String),
    /// The object was rejected (400, 409, 422 and admission errors).
    #[error("{message}{}", status(.message, *.code))]
    Refused {
        /// The HTTP status.
        code: u16,
        /// The server's message.
        message: String,
    },
    /// The object was deleted and still exists; what holds it, as far as the object shows.
    #[error("it is still there after {seconds} s{}", held_by(.blockers))]
    StillThere {
        /// How long the client waited.
        seconds: u64,
        /// Its finalizers, and the remaining content that a namespace reports.
        blockers: Vec<String>,
    },
    /// The kubelet does not run the container, or no longer (500).
    #[error("{0}{status}", status = status(.0, 500))]
    NotRunning(String),
    /// The server has an internal problem (429, 5xx).
    #[error("{message}{}", status(.message, *.code))]
    Server {
        /// The HTTP status.
        code: u16,
        /// The server's message.
        message: String,
    },
    /// Getting credentials failed before anything was sent.
    #[error("getting credentials: {why}")]
    Credentials {
        /// Why it failed.
        why: String,
        /// What the user must correct.
        cause: CredentialCause,
    },
    /// The answer is not valid.
    #[error("{0}")]
    Answer(String),
}

/// Returns the HTTP status, unless the message contains it.
fn status(message: &str, code: u16) -> String {
    if message.contains(&code.to_string()) { String::new() } else { format!(" (HTTP status {code})") }
}

fn held_by(blockers: &[String]) -> String {
    if blockers.is_empty() { String::new() } else { format!(", held by {}", blockers.join("; ")) }
}

impl KubeError {
    pub(crate) fn new(attempt: impl Into<String>, reason: Reason) -> Self {
        Self { attempt: attempt.into(), reason }
    }

    /// Classifies an error of the client library. `server` is the address for messages.
    pub fn from_client(attempt: impl Into<String>, server: &str, error: &kube::Error) -> Self {
        Self::new(attempt, classify(server, error))
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.reason, Reason::NotFound(_))
    }

    /// Whether another client changed or created the object at the same time (409).
    pub fn is_conflict(&self) -> bool {
        matches!(self.reason, Reason::Refused { code: 409, .. })
    }

    /// Whether the server refused the credentials or the permission.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.reason, Reason::Forbidden(_))
    }

    /// Whether the API server answered at all.
    pub fn is_answer(&self) -> bool {
        !matches!(
            self.reason,
            Reason::Unreachable { .. }
                | Reason::NoAnswer(_)
                | Reason::Tls { .. }
                | Reason::Kubeconfig(_)
                | Reason::Context(_)
                | Reason::Field(_)
                | Reason::Credentials { .. }
                | Reason::Setting(_)
        )
    }
}

fn classify(server: &str, error: &kube::Error) -> Reason {
    // The layers of the client may wrap it.
    let mut inner: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = inner {
        if let Some(error) = error.downcast_ref::<AuthError>() {
            return Reason::Credentials { why: chain(error), cause: CredentialCause::Kubeconfig };
        }
        if let Some(CredentialError { why, cause }) = error.downcast_ref() {
            return Reason::Credentials { why: why.clone(), cause: *cause };
        }
        if let Some(busy) = error.downcast_ref::<Busy>() {
            return Reason::Busy(busy.to_string());
        }
        inner = error.source();
    }
    match error {
        kube::Error::Api(status) => of_status(status.code, &status.message),
        kube::Error::UpgradeConnection(error) => {
            Reason::Answer(format!("the server did not open a stream: {}", chain(error)))
        }
        kube::Error::SerdeError(error) => Reason::Answer(format!("the answer cannot be read: {error}")),
        other => of_transport(server, other),
    }
}

/// The kubelet's messages about a container that does not run.
const NOT_RUNNING: [&str; 3] =
    ["container not found", "pod not found", "container is not created or running"];

/// Classifies an answer by its HTTP status.
pub(crate) fn of_status(code: u16, message: &str) -> Reason {
    let message =
        if message.is_empty() { "the server gave no reason".to_owned() } else { message.to_owned() };
    match code {
        // The request had no credentials, or the server does not read them.
        403 if message.contains("\"system:anonymous\"") => Reason::Unauthorized,
        401 => Reason::Unauthorized,
        403 if !message.contains("violates PodSecurity") && message.contains(" cannot ") => {
            Reason::Forbidden(message)
        }
        404 => Reason::NotFound(message),
        500 if NOT_RUNNING.iter().any(|words| message.contains(words)) => Reason::NotRunning(message),
        429 | 500..=599 => Reason::Server { code, message },
        _ => Reason::Refused { code, message },
    }
}

fn of_transport(server: &str, error: &(dyn std::error::Error + 'static)) -> Reason {
    let text = chain(error);
    let server = server.to_owned();
    if let Some(seconds) = text.strip_prefix("no answer within ").and_then(|rest| rest.parse().ok()) {
        return Reason::NoAnswer(seconds);
    }
    if is_tls(error) || text.contains("certificate") {
        return Reason::Tls { server, cause: text, expired: is_expired(error) };
    }
    if text.contains("uri too long") {
        // Of all requests, only the command of an exec has no size limit; http(crate) stops at 64 KiB.
        let message = "the command is too long: without an agent it is part of the URL; use --inject, or send it \
                       through stdin (sh -s)";
        return Reason::Refused { code: 414, message: message.to_owned() };
    }
    Reason::Unreachable { server, cause: text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_classed_by_who_must_act() {
        let forbidden = r#"pods is forbidden: User "jo" cannot list resource "pods" in API group """#;
        assert!(matches!(of_status(403, forbidden), Reason::Forbidden(_)));
        let admission =
            r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true"#;
        assert!(matches!(of_status(403, admission), Reason::Refused { code: 403, .. }));
        let nobody = r#"pods is forbidden: User "system:anonymous" cannot list resource "pods""#;
        assert!(matches!(of_status(403, nobody), Reason::Unauthorized));
        assert!(matches!(of_status(404, "x"), Reason::NotFound(_)));
        assert!(matches!(of_status(409, "x"), Reason::Refused { code: 409, .. }));
        assert!(matches!(of_status(503, ""), Reason::Server { code: 503, .. }));
    }

    #[test]
    fn a_status_is_said_once() {
        let refused = |message: &str| Reason::Refused { code: 422, message: message.to_owned() }.to_string();
        assert_eq!(refused("no"), "no (HTTP status 422)");
        assert_eq!(refused("no (HTTP status 422)"), "no (HTTP status 422)");
    }
}
