//! From a token that the cluster issued to a credential of a provider: what is sent, what is read, what a refusal means.

mod answer;
mod assertion;
mod aws;
mod azure;
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

/// What a provider gave.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Credential {
    /// A bearer token.
    Bearer(Bearer),
    /// Keys of an AWS session.
    Aws(AwsCredential),
}

/// A token for an `Authorization` header (RFC 6750).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bearer {
    /// The token.
    pub access_token: Zeroizing<String>,
    /// With which another is to be had, where one was given.
    pub refresh_token: Option<Zeroizing<String>>,
    /// What it allows, where the server said so.
    pub scope: Option<String>,
    /// What it is (RFC 8693 section 3), where the server said so.
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
    /// The bearer token, where it is one.
    pub fn bearer(&self) -> Option<&Bearer> {
        match self {
            Self::Bearer(bearer) => Some(bearer),
            Self::Aws(_) => None,
        }
    }
}

/// A credential, and for how long it holds from now; unknown when the provider did not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The credential.
    pub credential: Credential,
    /// Its life.
    pub lifetime: Option<Duration>,
}

/// There is no credential. Nothing here holds a token.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No token to exchange.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The provider was not there.
    #[error("{attempt}")]
    Web {
        /// What was attempted, where.
        attempt: String,
        /// Why.
        source: WebError,
    },
    /// The provider said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The provider's answer cannot be used.
    #[error("the answer of {server} cannot be used: {why}")]
    Answer {
        /// Whose.
        server: String,
        /// Why.
        why: String,
    },
    /// A file or variable that the configuration names cannot be used.
    #[error("{key}: {why}")]
    Setting {
        /// The key below the provider.
        key: &'static str,
        /// Why, and what is right.
        why: String,
    },
    /// A person is needed, and there is none.
    #[error("grant {grant} needs a person at a terminal: {why}")]
    NoPerson {
        /// The grant.
        grant: &'static str,
        /// Why we think there is none.
        why: &'static str,
    },
    /// A person did not do their part.
    #[error("{0}")]
    Person(String),
}

impl ExchangeError {
    /// What to do about it; `None` where the message says all there is.
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
    /// Whether trying again later may end otherwise without anyone doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Web { attempt: _, source } => !matches!(source, WebError::Address { .. }),
            Self::Refused(refusal) => matches!(refusal.status, 429 | 500..=599),
            Self::Answer { .. } => true,
            Self::Source(_) | Self::Setting { .. } | Self::NoPerson { .. } | Self::Person(_) => false,
        }
    }
}

/// What a person should hear that is no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// Something is not as it should be, and it goes on.
    Warning(&'a str),
    /// Something for them to do.
    Instruction(&'a str),
}

/// What asks a provider for a credential.
pub trait Exchange: Send + Sync + 'static {
    /// A new credential; by `refresh_token` where there is one.
    fn exchange(
        &self,
        refresh_token: Option<Zeroizing<String>>,
    ) -> impl Future<Output = Result<Issued, ExchangeError>> + Send;

    /// How long another process may take for one: several time-outs, or what a person needs.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Everything that decides which credential comes out, without asking anyone.
    fn identity(&self) -> Result<String, ExchangeError>;
}

/// A configured provider.
#[derive(Debug, Clone)]
pub struct Exchanger {
    /// Its name in the configuration.
    pub name: String,
    /// Its configuration.
    pub provider: Provider,
    /// The cluster that `token_request` asks.
    pub cluster: Target,
    /// Who can log in, if anyone.
    pub person: Person,
    /// Who hears warnings.
    pub listener: Listener,
}

/// An answer of STS, as far as it can be read without asking anyone.
pub(crate) fn sts_answer(body: &[u8]) -> Result<Issued, String> {
    aws::credentials(body, jiff::Timestamp::UNIX_EPOCH)
}

/// Who hears a [`Notice`].
#[derive(Clone)]
pub struct Listener(pub Arc<dyn Fn(Notice<'_>) + Send + Sync>);

impl Listener {
    /// Something is not as it should be, and it goes on.
    pub fn warn(&self, text: &str) {
        (self.0)(Notice::Warning(text));
    }

    /// Something for a person to do.
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
    /// The source of the token that is exchanged, or that authenticates the client.
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
            why: "there is none to exchange".to_owned(),
        })?;
        let found = source.token().await?;
        if let Some(warning) = &found.warning {
            self.listener.warn(warning);
        }
        Ok(found)
    }
}

/// A server that the platform's certificates, or those of a file, vouch for.
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

    fn patience(&self) -> Duration {
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
        // The configuration's Debug form has every field of it, and no secret: those are named, not held.
        let provider = Provider { cache: None, api: None, ..self.provider.clone() };
        let mut identity = format!("{provider:?}");
        for settings in whose {
            identity.push('\n');
            identity.push_str(&source(settings)?);
        }
        Ok(identity)
    }
}
