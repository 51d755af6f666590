//! Errors as the user sees them: class, message, cause, hint, exit code.

use postern_copy::CopyError;
use postern_exec::{ExecError, exit};
use postern_identity::TrustError;
use postern_identity::exchange::ExchangeError;
use postern_identity::keeper::KeeperError;
use postern_kube::{KubeError, Reason};
use postern_net::error::WebError;
use postern_ops::install::InstallError;
use postern_ops::{InvalidSetting, OpsPod};
use postern_report::Finding;
use std::error::Error;

/// The error that ends the program.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
    pub(crate) hint: Option<String>,
    pub(crate) diagnosis: Option<Box<Finding>>,
    /// The pod, if there are several.
    pub(crate) pod: Option<Box<str>>,
    /// The cluster's refusal, if it is about an object.
    pub(crate) refusal: Option<Refusal>,
}

/// A refusal of the cluster that has another hint if the object belongs to an ops pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Forbidden,
    NotFound,
}

impl Refusal {
    fn of(error: &KubeError) -> Option<Self> {
        match error.reason {
            Reason::Forbidden(_) => Some(Self::Forbidden),
            Reason::NotFound(_) => Some(Self::NotFound),
            _ => None,
        }
    }
}

impl Failure {
    /// An invalid command line.
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
            refusal: None,
        }
    }

    /// A request that was denied, or an invalid object.
    pub(crate) fn denied(error: &dyn Error, hint: Option<String>) -> Self {
        Self {
            code: exit::DENIED,
            kind: "denied",
            message: error.to_string(),
            causes: causes(error),
            hint,
            diagnosis: None,
            pod: None,
            refusal: None,
        }
    }

    /// Adds the hint for an object that belongs to this ops pod.
    pub(crate) fn of_ops_pod(mut self, pod: &OpsPod) -> Self {
        match self.refusal {
            Some(Refusal::Forbidden) => self.hint = Some(postern_ops::FORBIDDEN.to_owned()),
            Some(Refusal::NotFound) => {
                let options = pod.options();
                self.hint = Some(format!("there is no ops pod {pod}: run `postern ops install{options}`"));
            }
            None => {}
        }
        self
    }

    /// The same for an error that does not say what was attempted.
    pub(crate) fn attempted(what: impl Into<String>, error: &dyn Error) -> Self {
        Self { message: what.into(), causes: vec![error.to_string()], ..Self::denied(error, None) }
    }
}

impl Failure {
    /// A provider issued no credential.
    pub(crate) fn identity(name: &str, error: &KeeperError) -> Self {
        let hint = match error {
            _ if error.cause().is_some() => error.cause().map(|cause| format!("usually: {cause}")),
            KeeperError::Exchange(error) => error.hint().map(str::to_owned),
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

/// The sources of an error whose text is not in its message already.
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
        let mut failure = Self::denied(&error, error.hint().map(str::to_owned));
        failure.refusal = Refusal::of(&error);
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
        let hint = error.hint().to_owned();
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
        let hint = error.hint();
        let diagnosis = match &error {
            InstallError::Invalid(invalid) => return invalid.clone().into(),
            InstallError::Step { diagnosis, .. } => diagnosis.clone(),
            InstallError::NotReady { diagnosis, .. } => Some(diagnosis.clone()),
            InstallError::Contended(_) => None,
        };
        Self { diagnosis, ..Self::denied(&error, hint) }
    }
}

impl From<ExecError> for Failure {
    fn from(error: ExecError) -> Self {
        let hint = error.hint().map(str::to_owned);
        let refusal = match &error {
            ExecError::Kube(error) => Refusal::of(error),
            _ => None,
        };
        Self { code: error.exit_code(), kind: error.kind(), refusal, ..Self::denied(&error, hint) }
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self { code: error.exit_code(), kind: error.kind(), ..Self::denied(&error, hint) }
    }
}
