//! Exchanges a token of the cluster for a provider's credential: requests, answers, and the meaning of refusals.

mod answer;
mod assertion;
mod aws;
mod azure;
mod client;
mod discovery;
mod gcp;
mod ibm;
mod oauth2;
mod person;
mod refusal;
mod sigv4;
mod token_endpoint;

pub(crate) use answer::token as token_answer;
pub use aws::AwsCredential;
pub use discovery::Metadata;
pub(crate) use discovery::discover as discover_at;
pub(crate) use gcp::audience as gcp_audience;
pub use person::{Browser, Person};
pub use refusal::Refusal;
pub(crate) use refusal::skew;
pub(crate) use token_endpoint::split;

use crate::source::{Source, SourceError, SubjectToken};
use postern_config::providers::{ClientAssertion, Grant, Provider, ProviderType, TokenSource};
use postern_kube::Target;
use postern_net::error::WebError;
use postern_net::web::Server;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A provider's credential.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Credential {
    /// A bearer token.
    Bearer(Bearer),
    /// Session keys of AWS.
    Aws(AwsCredential),
}

/// A token for an `Authorization` header (RFC 6750).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bearer {
    /// The token.
    pub access_token: Zeroizing<String>,
    /// The refresh token, if there is one.
    pub refresh_token: Option<Zeroizing<String>>,
    /// Its scope, if the server returned it.
    pub scope: Option<String>,
    /// Its type (RFC 8693 section 3), if the server returned it.
    pub issued_token_type: Option<String>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer(…)",
            Self::Aws(_) => "Aws(…)",
        })
    }
}

impl Credential {
    /// Returns the bearer token, if it is one.
    pub fn bearer(&self) -> Option<&Bearer> {
        match self {
            Self::Bearer(bearer) => Some(bearer),
            Self::Aws(_) => None,
        }
    }
}

/// A credential and its remaining lifetime, which is unknown if the provider did not return it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The credential.
    pub credential: Credential,
    /// Its lifetime.
    pub lifetime: Option<Duration>,
}

/// The error of an exchange. It never contains a token.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// There is no token to exchange.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The provider could not be reached.
    #[error("{attempt}")]
    Web {
        /// What was attempted, and on which server.
        attempt: String,
        /// The reason.
        source: WebError,
    },
    /// The provider refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The provider's answer is not valid.
    #[error("the answer of {server} cannot be used: {why}")]
    Answer {
        /// The server.
        server: String,
        /// The reason.
        why: String,
    },
    /// A file or variable that the configuration names cannot be used.
    #[error("{key}: {why}")]
    Setting {
        /// The key in the provider's configuration.
        key: &'static str,
        /// The reason, and what is valid.
        why: String,
    },
    /// The grant needs a user, and no user is present.
    #[error("grant {grant} needs a person at a terminal: {why}")]
    NoPerson {
        /// The grant.
        grant: &'static str,
        /// Why no user is assumed to be present.
        why: &'static str,
    },
    /// The user did not complete the login.
    #[error("{0}")]
    Person(String),
}

impl ExchangeError {
    /// Returns what the user can do; `None` if the message says everything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Source(source) => source.hint(),
            Self::Web { .. } => Some(
                "check the address in the config, the network, HTTPS_PROXY/NO_PROXY, and ca_file behind an inspecting proxy",
            ),
            Self::NoPerson { .. } => Some(
                "use a machine's grant (jwt_bearer, token_exchange, client_credentials), or log in at a terminal first \
                 with `cache: disk`",
            ),
            _ => None,
        }
    }
}

impl ExchangeError {
    /// Whether a later try may succeed without any change.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Web { attempt: _, source } => !matches!(source, WebError::Address { .. }),
            Self::Refused(refusal) => matches!(refusal.status, 429 | 500..=599),
            Self::Answer { .. } => true,
            Self::Source(_) | Self::Setting { .. } | Self::NoPerson { .. } | Self::Person(_) => false,
        }
    }
}

/// A message for the user that is not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// Something is wrong, and the command continues.
    Warning(&'a str),
    /// An instruction for the user.
    Instruction(&'a str),
}

/// Obtains credentials from a provider.
pub trait Exchange: Send + Sync + 'static {
    /// Returns a new credential; with `refresh_token` if there is one.
    fn exchange(
        &self,
        refresh_token: Option<Zeroizing<String>>,
    ) -> impl Future<Output = Result<Issued, ExchangeError>> + Send;

    /// How long an exchange in another process may take: several time-outs, or a user's login.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Returns everything that determines which credential is issued. Sends no requests.
    fn identity(&self) -> Result<String, ExchangeError>;
}

/// A configured provider.
#[derive(Debug, Clone)]
pub struct Exchanger {
    /// Its name in the configuration.
    pub name: String,
    /// Its configuration.
    pub provider: Provider,
    /// The cluster for `token_request`.
    pub cluster: Target,
    /// Whether a user can log in.
    pub person: Person,
    /// The receiver of warnings.
    pub listener: Listener,
}

/// Parses an answer of STS, without any further request.
pub(crate) fn sts_answer(body: &[u8]) -> Result<Issued, String> {
    aws::credentials(body, jiff::Timestamp::UNIX_EPOCH)
}

/// The receiver of [`Notice`]s.
#[derive(Clone)]
pub struct Listener(pub Arc<dyn Fn(Notice<'_>) + Send + Sync>);

impl Listener {
    /// Something is wrong, and the command continues.
    pub fn warn(&self, text: &str) {
        (self.0)(Notice::Warning(text));
    }

    /// An instruction for the user.
    pub fn instruct(&self, text: &str) {
        (self.0)(Notice::Instruction(text));
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

impl Exchanger {
    /// Returns the source of the token that is exchanged, or that authenticates the client.
    pub fn source(&self) -> Option<Source> {
        let default = self.provider.r#type.default_audience();
        let subject =
            self.provider.subject().map(|settings| Source::new(settings, default, self.cluster.clone()));
        let subject = match self.provider.subject_token_type.as_deref() {
            None | Some(oauth2::JWT | oauth2::ID_TOKEN) => subject,
            Some(_) => subject.map(Source::of_any_kind),
        };
        subject.or_else(|| {
            let settings = self.provider.client_assertion.as_ref()?.source()?;
            Some(Source::new(settings, None, self.cluster.clone()))
        })
    }

    fn server(&self, address: &str) -> Result<Server, ExchangeError> {
        server(address, self.provider.ca_file.as_ref())
    }

    async fn subject(&self) -> Result<SubjectToken, ExchangeError> {
        let source = self.source().ok_or(ExchangeError::Setting {
            key: "subject_token",
            why: "no token source is configured".to_owned(),
        })?;
        let found = source.token().await?;
        if let Some(warning) = &found.warning {
            self.listener.warn(warning);
        }
        Ok(found)
    }
}

/// Returns a server that is verified with the platform's CA certificates, or with those of a file.
pub(crate) fn server(address: &str, ca_file: Option<&PathBuf>) -> Result<Server, ExchangeError> {
    let failed = |source| ExchangeError::Web { attempt: format!("connecting to {address}"), source };
    let Some(path) = ca_file else { return Server::new(address).map_err(failed) };
    let unusable =
        |why: String| ExchangeError::Setting { key: "ca_file", why: format!("{}: {why}", path.display()) };
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let trusted = postern_net::tls::certificates(&pem).map_err(unusable)?;
    Server::trusting(address, trusted).map_err(failed)
}

impl Exchange for Exchanger {
    async fn exchange(&self, refresh: Option<Zeroizing<String>>) -> Result<Issued, ExchangeError> {
        match self.provider.r#type {
            ProviderType::Oauth2 => oauth2::exchange(self, refresh).await,
            ProviderType::Ibm => ibm::exchange(self).await,
            ProviderType::Aws => aws::exchange(self).await,
            ProviderType::Gcp => gcp::exchange(self).await,
            ProviderType::Azure => azure::exchange(self).await,
        }
    }

    fn time_limit(&self) -> Duration {
        match self.provider.grant().is_some_and(Grant::is_interactive) {
            true => Duration::from_secs(600),
            false => Duration::from_secs(60),
        }
    }

    fn identity(&self) -> Result<String, ExchangeError> {
        let source = |settings: Option<TokenSource>| match settings {
            Some(settings) => Source::new(settings, None, self.cluster.clone()).identity(),
            None => Ok(String::new()),
        };
        let assertion = self.provider.client_assertion.as_ref().and_then(ClientAssertion::source);
        let whose = [self.provider.subject(), self.provider.actor_token.clone(), assertion];
        // The configuration's Debug form has all its fields, and no secret: secrets are referenced by name.
        let provider = Provider { cache: None, api: None, ..self.provider.clone() };
        let mut identity = format!("{provider:?}");
        for settings in whose {
            identity.push('\n');
            identity.push_str(&source(settings)?);
        }
        Ok(identity)
    }
}
