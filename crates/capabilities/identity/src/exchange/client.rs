//! A client of an OAuth 2.0 authorization server: its endpoints and its authentication.

use super::assertion::{self, Signer};
use super::discovery::{Metadata, discover};
use super::token_endpoint::{Asking, Form, is_for_once, parameter, split, token};
use super::{ExchangeError, Exchanger, Issued};
use crate::request::{TRIES, pause_after};
use crate::source::{Source, SubjectToken};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderName};
use postern_config::providers::{Grant, Provider, SecretSource};
use postern_net::error::WebError;
use postern_net::web::Server;
use zeroize::Zeroizing;

const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client of an authorization server.
pub(super) struct Client<'a> {
    pub(super) exchanger: &'a Exchanger,
    pub(super) metadata: Metadata,
    pub(super) token_endpoint: String,
}

impl<'a> Client<'a> {
    /// Finds the endpoints: the configured ones, otherwise those of the issuer's metadata. Sends no request if the
    /// configuration suffices.
    pub(super) async fn find(exchanger: &'a Exchanger) -> Result<Self, ExchangeError> {
        let provider = &exchanger.provider;
        let enough = provider.token_endpoint.is_some()
            && match provider.grant {
                Some(Grant::DeviceCode) => provider.device_authorization_endpoint.is_some(),
                Some(Grant::AuthorizationCode) => provider.authorization_endpoint.is_some(),
                _ => true,
            };
        let metadata = match provider.issuer.as_deref().filter(|_| !enough) {
            Some(issuer) => discover(&exchanger.server(split(issuer).0)?, issuer).await?,
            None => Metadata::default(),
        };
        let endpoint = provider.token_endpoint.clone().or_else(|| metadata.token_endpoint.clone());
        let token_endpoint = endpoint.ok_or_else(|| ExchangeError::Answer {
            server: provider.issuer.clone().unwrap_or_default(),
            why: "its metadata names no token_endpoint".to_owned(),
        })?;
        Ok(Self { exchanger, metadata, token_endpoint })
    }

    pub(super) fn provider(&self) -> &Provider {
        &self.exchanger.provider
    }

    pub(super) fn server(&self, url: &str) -> Result<Server, ExchangeError> {
        self.exchanger.server(split(url).0)
    }

    /// Adds scope, audiences and resources; the last two repeat.
    pub(super) fn targets(&self, form: &mut Form) {
        let provider = self.provider();
        if !provider.scopes.is_empty() {
            form.push(parameter("scope", provider.scopes.join(" ")));
        }
        form.extend(provider.audience.iter().map(|audience| parameter("audience", audience)));
        form.extend(provider.resource.iter().map(|resource| parameter("resource", resource)));
    }

    /// Adds the client authentication, and sends the request.
    pub(super) async fn ask(
        &self,
        form: Form,
        subject: Option<&SubjectToken>,
    ) -> Result<Issued, ExchangeError> {
        let once = self.signs_for_itself();
        let mut tries = 1;
        loop {
            let mut form = form.clone();
            let ClientAuthentication { headers, token: own } = self.authenticate(&mut form).await?;
            form.extend(self.provider().extra_params.iter().map(|(name, value)| parameter(name, value)));
            let claims = subject.or(own.as_ref()).and_then(|token| token.claims.as_ref());
            let asking = Asking { r#type: self.provider().r#type, claims, once };
            let endpoint = &self.token_endpoint;
            match token(&self.server(endpoint)?, endpoint, &form, &headers, asking).await {
                // An assertion that we sign is valid for one request (its `jti`, RFC 7523 section 3), so each try has
                // a new one.
                Err(error) if once && !is_for_once(&form) && tries < TRIES && is_retryable(&error) => {
                    pause_after(tries, None).await;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Whether each request contains an assertion that was signed for it alone.
    pub(super) fn signs_for_itself(&self) -> bool {
        self.provider().client_assertion.as_ref().is_some_and(|assertion| assertion.source().is_none())
    }

    /// Adds the client authentication to the body, as RFC 6749 section 2.3.1 permits and RFC 7523 section 2.2
    /// specifies. A secret goes into the header if the server accepts it only there.
    pub(super) async fn authenticate(&self, form: &mut Form) -> Result<ClientAuthentication, ExchangeError> {
        let provider = self.provider();
        let id = provider.client_id.as_deref();
        let mut own = ClientAuthentication { headers: Vec::new(), token: None };
        match (&provider.client_secret, id) {
            (Some(secret), Some(id)) if self.metadata.wants_basic() => {
                own.headers.push((AUTHORIZATION, basic(id, &read_secret(secret)?)));
                return Ok(own);
            }
            (Some(secret), _) => {
                form.extend(id.map(|id| parameter("client_id", id)));
                form.push(("client_secret".to_owned(), read_secret(secret)?));
            }
            (None, _) => form.extend(id.map(|id| parameter("client_id", id))),
        }
        let Some(assertion) = &provider.client_assertion else { return Ok(own) };
        form.push(parameter("client_assertion_type", CLIENT_ASSERTION));
        if let Some(source) = assertion.source() {
            let found = Source::new(source, None, self.exchanger.cluster.clone()).token().await?;
            if let Some(warning) = &found.warning {
                self.exchanger.listener.warn(warning);
            }
            form.push(("client_assertion".to_owned(), found.token.clone()));
            own.token = Some(found);
            return Ok(own);
        }
        let signer = Signer::read(assertion.key_file.as_deref(), assertion.algorithm)?;
        let audience = assertion.audience.as_ref().unwrap_or(&self.token_endpoint);
        let (id, key_id) = (id.unwrap_or_default(), assertion.key_id.as_deref());
        form.push(("client_assertion".to_owned(), assertion::sign(&signer, key_id, id, audience)?));
        Ok(own)
    }
}

/// The part of a client's authentication that is not in the form.
pub(super) struct ClientAuthentication {
    /// Headers.
    pub(super) headers: Vec<(HeaderName, Zeroizing<String>)>,
    /// The token that authenticates it, if it has no secret or key of its own.
    token: Option<SubjectToken>,
}

/// RFC 6749 section 2.3.1: both are form-encoded, and then encoded by RFC 7617.
fn basic(id: &str, secret: &str) -> Zeroizing<String> {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encode(id), *Zeroizing::new(encode(secret))));
    Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes()))))
}

/// Whether the server was unreachable, or too busy.
fn is_retryable(error: &ExchangeError) -> bool {
    match error {
        ExchangeError::Web { attempt: _, source } => matches!(source, WebError::Unreachable { .. }),
        ExchangeError::Refused(refusal) => matches!(refusal.status, 429 | 500..=599),
        _ => false,
    }
}

/// Reads the client's secret from the configured source.
fn read_secret(SecretSource { file, env }: &SecretSource) -> Result<Zeroizing<String>, ExchangeError> {
    let unusable = |why: String| ExchangeError::Setting { key: "client_secret", why };
    let text = match (file, env) {
        (Some(path), _) => std::fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|error| unusable(format!("{}: {error}", path.display())))?,
        (None, Some(name)) => std::env::var(name)
            .map(Zeroizing::new)
            .map_err(|_| unusable(format!("the variable {name} is not set")))?,
        (None, None) => return Err(unusable("it names neither a file nor a variable".to_owned())),
    };
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(unusable("it is empty".to_owned())),
        secret => Ok(Zeroizing::new(secret.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_encoded_before_it_is_a_header() {
        assert_eq!(basic("a b", "s:3%").as_str(), "Basic YStiOnMlM0EzJTI1");
    }

    #[test]
    fn a_secret_is_read_from_a_file_without_its_newline() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\r\n").unwrap();
        let source = SecretSource { file: Some(file.path().to_owned()), env: None };
        assert_eq!(read_secret(&source).unwrap().as_str(), "s3cret");
        std::fs::write(file.path(), "\n").unwrap();
        assert!(read_secret(&source).unwrap_err().to_string().contains("client_secret: it is empty"));
    }
}
