//! Errors as the user sees them: class, message, cause, hint, exit code.

use postern_copy::CopyError;
use postern_exec::{ExecError, exit};
use postern_identity::TrustError;
use postern_identity::exchange::ExchangeError;
use postern_identity::keeper::KeeperError;
use postern_identity::source::SourceError;
use postern_kube::{KubeError, Reason};
use postern_net::error::WebError;
use postern_ops::install::InstallError;
use postern_ops::{Diagnosis, InvalidSetting, names};
use postern_wire::FailureKind;
use std::error::Error;

/// What ends the program with an error.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
    pub(crate) hint: Option<String>,
    pub(crate) diagnosis: Option<Box<Diagnosis>>,
    /// Which of several pods it is about.
    pub(crate) pod: Option<Box<str>>,
}

impl Failure {
    /// The command line is not right.
    pub(crate) fn usage(message: impl Into<String>, hint: Option<String>) -> Self {
        let message = message.into();
        Self {
            code: exit::USAGE,
            kind: "usage",
            message,
            causes: Vec::new(),
            hint,
            diagnosis: None,
            pod: None,
        }
    }

    /// Something is not as it should be, and the command's answer is no.
    pub(crate) fn denied(error: &dyn Error, hint: Option<String>) -> Self {
        Self {
            code: exit::DENIED,
            kind: "denied",
            message: error.to_string(),
            causes: causes(error),
            hint,
            diagnosis: None,
            pod: None,
        }
    }

    /// The same, where the error alone does not say what was attempted.
    pub(crate) fn attempted(what: impl Into<String>, error: &dyn Error) -> Self {
        Self { message: what.into(), causes: vec![error.to_string()], ..Self::denied(error, None) }
    }
}

impl Failure {
    /// No credential of a provider.
    pub(crate) fn identity(name: &str, error: &KeeperError) -> Self {
        let hint = match error {
            _ if error.cause().is_some() => error.cause().map(|cause| format!("usually: {cause}")),
            KeeperError::Exchange(error) => identity_hint(error),
            KeeperError::Shared { .. } => None,
        };
        let mut failure = Self::denied(error, hint);
        failure.message = format!("no token of {name}: {}", failure.message);
        if let KeeperError::Exchange(error) = error {
            (failure.code, failure.kind) = match error {
                ExchangeError::Web { source: WebError::Address { .. }, .. }
                | ExchangeError::Setting { .. } => (exit::USAGE, "config"),
                ExchangeError::Web { .. } => (exit::DENIED, "unreachable"),
                _ => (exit::DENIED, "denied"),
            };
        }
        failure
    }

    /// A command that could not be started.
    pub(crate) fn not_reached(message: &str, error: &dyn Error) -> Self {
        let mut failure = Self::denied(error, None);
        failure.causes.insert(0, std::mem::replace(&mut failure.message, message.to_owned()));
        (failure.code, failure.kind) = (exit::NEVER_REACHED, "not-reached");
        failure
    }
}

fn identity_hint(error: &ExchangeError) -> Option<String> {
    let text = match error {
        ExchangeError::Source(source) => match source {
            SourceError::Missing { .. } => {
                "outside a pod use `subject_token: {type: token_request, …}`; in one, mount a projected \
                 serviceAccountToken there (`postern identity manifest`)"
            }
            SourceError::Expired { kubelet: true, .. } => {
                "look for TokenProjection errors in the kubelet's log; a subPath mount is never renewed"
            }
            SourceError::Audience { .. } => {
                "set `audience` of the projected volume's serviceAccountToken, or of the token source"
            }
            SourceError::NotAJwt { .. } => {
                "a ServiceAccount's projected token is one; see `subject_token` in the config"
            }
            SourceError::TokenRequest { .. } => {
                "creating tokens takes the verb create on serviceaccounts/token"
            }
            _ => return None,
        },
        ExchangeError::Web { .. } => {
            "check the address in the config, the network, HTTPS_PROXY/NO_PROXY, and ca_file behind an inspecting proxy"
        }
        ExchangeError::NoPerson { .. } => {
            "use a machine's grant (jwt_bearer, token_exchange, client_credentials), or log in at a terminal first with \
             `cache: disk`"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// The sources of an error that its own message does not already hold.
fn causes(error: &dyn Error) -> Vec<String> {
    let mut said = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !said.contains(&text) {
            said.push_str(&text);
            causes.push(text);
        }
        next = source.source();
    }
    causes
}

impl From<KubeError> for Failure {
    fn from(error: KubeError) -> Self {
        let mut failure = Self::denied(&error, kube_hint(&error));
        if matches!(error.reason, Reason::Unreachable { .. } | Reason::NoAnswer(_) | Reason::Tls { .. }) {
            failure.kind = "unreachable";
        }
        failure
    }
}

impl From<InvalidSetting> for Failure {
    fn from(error: InvalidSetting) -> Self {
        Self::usage(error.to_string(), None)
    }
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Self {
        let hint = match &error {
            TrustError::NotRegistered(_) => {
                "set `workspace` and `ibm.cluster` in the config, or use --trusted-profile=off".to_owned()
            }
            TrustError::LookUp { .. } => {
                "check `ibm.cluster` in the config and the API key, or use --trusted-profile=off".to_owned()
            }
            TrustError::Permission { .. } => {
                "ask for the Operator role on the IAM Identity service, or use --trusted-profile=off"
                    .to_owned()
            }
            TrustError::Call { .. } => "run it again; what was made already is found by its name".to_owned(),
        };
        Self::denied(&error, Some(hint))
    }
}

impl From<WebError> for Failure {
    fn from(error: WebError) -> Self {
        match error {
            WebError::Address { .. } => Self::usage(
                error.to_string(),
                Some("correct `ibm.iam_endpoint` or `ibm.containers_endpoint` in the config".to_owned()),
            ),
            WebError::Unreachable { .. } | WebError::NoAnswer { .. } => Self::denied(&error, None),
        }
    }
}

impl From<postern_config::ConfigError> for Failure {
    fn from(error: postern_config::ConfigError) -> Self {
        let mut failure = Self::denied(&error, None);
        (failure.code, failure.kind) = (exit::USAGE, "config");
        failure
    }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        let (hint, diagnosis) = match &error {
            InstallError::Invalid(invalid) => return invalid.clone().into(),
            InstallError::Step { step, source, diagnosis } => {
                let again = "run install again to continue".to_owned();
                let missing = || "make the namespace that is missing, or correct its name".to_owned();
                let immutable = || {
                    let said = matches!(&source.reason, Reason::Refused { message, .. } if message.contains("immutable"));
                    said.then(|| format!("delete {step}, which was made immutable"))
                };
                let hint =
                    source.is_not_found().then(missing).or_else(immutable).or_else(|| kube_hint(source));
                let hint = hint.map_or(again.clone(), |hint| format!("{hint}; then {again}"));
                (Some(hint), diagnosis.clone())
            }
            InstallError::NotReady { pod: _, why: _, diagnosis } => (None, Some(diagnosis.clone())),
            InstallError::Contended(_) => (Some("wait for it, then run install again".to_owned()), None),
        };
        Self { diagnosis, ..Self::denied(&error, hint) }
    }
}

/// What to do about a run that did not end by itself.
pub(crate) fn exec_hint(error: &ExecError) -> Option<String> {
    match error {
            ExecError::Kube(kube) => kube_hint(kube),
            ExecError::NotStarted(failure) => match failure.kind {
                FailureKind::NotFound => {
                    Some("the tool must be in the image, or at the path given".to_owned())
                }
                FailureKind::Credential => {
                    Some("give the credential a longer value and run `postern ops install`".to_owned())
                }
                FailureKind::Login => Some(
                    "nothing was run; if the profile is new, IAM may need another minute; else check its link and \
                     its policies"
                        .to_owned(),
                ),
                FailureKind::File => {
                    Some("stage it below /tmp, under a name that is not there yet".to_owned())
                }
                _ => None,
            },
            ExecError::NoAgent(_) => {
                Some("`postern ops install` puts the agent of this release there".to_owned())
            }
            ExecError::Annotation { .. } => Some("correct the annotation, or remove it".to_owned()),
            ExecError::NeedsAgent { .. } => Some("add --inject to put it there".to_owned()),
            ExecError::Broke(_) | ExecError::Corrupt { .. } => {
                Some("run it again; what the command did before the break is done".to_owned())
            }
            ExecError::TooLong { .. } => {
                Some("send what is long through stdin (-i), or as a file with --file".to_owned())
            }
            ExecError::Inject(_) => {
                Some("run it without --inject, or use an image that has the agent".to_owned())
            }
            _ => None,
        }
}

impl From<ExecError> for Failure {
    fn from(error: ExecError) -> Self {
        let hint = exec_hint(&error);
        Self { code: error.exit_code(), kind: error.kind(), ..Self::denied(&error, hint) }
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        let hint = match &error {
            CopyError::Reach { source: ExecError::Kube(kube), .. } => kube_hint(kube),
            CopyError::Reach { source: ExecError::Inject(_) | ExecError::NeedsAgent { .. }, .. } => {
                Some("an image with the agent or with a shell can be reached".to_owned())
            }
            CopyError::Lost { .. } | CopyError::Cancelled => Some(
                "run the same command again: it goes on where it was cut off; what is unfinished lies at the \
                 destination as .NAME.postern-partial, and `postern cp --clean DST` removes it"
                    .to_owned(),
            ),
            _ => None,
        };
        Self { code: error.exit_code(), kind: error.kind(), ..Self::denied(&error, hint) }
    }
}

fn kube_hint(error: &KubeError) -> Option<String> {
    Some(match &error.reason {
        Reason::Context(_) => {
            "see `kubectl config get-contexts`; choose with --context or $KUBECONFIG".to_owned()
        }
        Reason::Kubeconfig(_) => "correct the file, or name another with --kubeconfig or $KUBECONFIG".to_owned(),
        Reason::Busy(_) => "try again later, and with fewer at a time".to_owned(),
        Reason::Field(_) => {
            "mend it with `kubectl config set-cluster` or `set-credentials`, or get a new kubeconfig"
                .to_owned()
        }
        Reason::Unreachable { .. } | Reason::NoAnswer(_) => {
            "check the server's address in the kubeconfig, the network, VPN and HTTPS_PROXY/NO_PROXY"
                .to_owned()
        }
        Reason::Tls { cause, .. } if cause.contains("xpired") => {
            "a certificate has expired (or this machine's clock is wrong): get a new kubeconfig".to_owned()
        }
        Reason::Tls { .. } => {
            "check certificate-authority-data in the kubeconfig, or SSL_CERT_FILE behind an inspecting proxy"
                .to_owned()
        }
        Reason::Unauthorized => {
            "the token or client certificate is expired or not of this cluster: log in again".to_owned()
        }
        Reason::Forbidden(message) if !message.contains("postern-ops") => {
            "ask for the verb and resource named above in that namespace".to_owned()
        }
        Reason::Forbidden(_) => {
            "ask for the verb and resource named above; `postern ops rbac` prints Roles that hold them"
                .to_owned()
        }
        Reason::NotFound(message) if message.contains(names::NAME) => {
            "the ops pod is not installed here: run `postern ops install`".to_owned()
        }
        Reason::Server { code: 500, message }
            if ["container not found", "pod not found", "container is not created or running"]
                .iter()
                .any(|words| message.contains(words)) =>
        {
            "the pod is not running, or on its way out: `kubectl describe pod` says why (`postern ops show --check` of the \
             ops pod)"
                .to_owned()
        }
        Reason::StillThere { held, .. } if !held.is_empty() => {
            "who set the finalizer has to let go; until then nothing can take its place".to_owned()
        }
        Reason::StillThere { .. } => "give it more time with --timeout".to_owned(),
        Reason::Credentials(why) if why.contains("line break") => "print the token without a newline".to_owned(),
        Reason::Credentials(why) if why.contains("exec plug-in") => {
            "run the plug-in by hand to see what it says (`kubectl config view` shows how it is called)".to_owned()
        }
        Reason::Credentials(_) => "correct the user's credentials in the kubeconfig, or log in again".to_owned(),
        _ => return None,
    })
}
