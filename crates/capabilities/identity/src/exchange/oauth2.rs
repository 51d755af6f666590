//! OAuth 2.0: the grants.

use super::assertion::{self, Signer};
use super::discovery::{Metadata, discover};
use super::token_endpoint::{Asking, Form, is_for_once, parameter, split, token};
use super::{Credential, ExchangeError, Exchanger, Issued, person};
use crate::call::{TRIES, pause_after};
use crate::source::{Source, SubjectToken};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderName};
use postern_config::providers::{Grant, Provider, SecretSource};
use postern_net::error::WebError;
use postern_net::web::Server;
use zeroize::Zeroizing;

/// What a JWT is to RFC 8693 (section 3).
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// An `OpenID` Connect ID token.
pub(super) const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client at its authorization server.
pub(super) struct Client<'a> {
    pub(super) exchanger: &'a Exchanger,
    pub(super) metadata: Metadata,
    pub(super) token_endpoint: String,
}

/// A token by the configured grant.
pub(super) async fn exchange(
    exchanger: &Exchanger,
    refresh: Option<Zeroizing<String>>,
) -> Result<Issued, ExchangeError> {
    let grant = exchanger.provider.grant().unwrap_or(Grant::ClientCredentials);
    // Before anything is sent: without a person there is nothing to wait for.
    if grant.is_interactive() && refresh.is_none() {
        exchanger.person.must_be_there(grant)?;
    }
    let client = Client::find(exchanger).await?;
    match grant {
        Grant::JwtBearer => client.jwt_bearer().await,
        Grant::TokenExchange => client.token_exchange().await,
        Grant::ClientCredentials => client.client_credentials().await,
        Grant::DeviceCode | Grant::AuthorizationCode => match refresh {
            Some(token) => match client.refresh(token).await {
                // It has ended or was taken back: a person may log in again.
                Err(ExchangeError::Refused(refusal)) if refusal.code.as_deref() == Some("invalid_grant") => {
                    exchanger.person.must_be_there(grant)?;
                    person::log_in(&client, grant).await
                }
                other => other,
            },
            None => person::log_in(&client, grant).await,
        },
    }
}

impl<'a> Client<'a> {
    /// Endpoints as configured, else as the issuer has them; nothing is asked for when the configuration suffices.
    async fn find(exchanger: &'a Exchanger) -> Result<Self, ExchangeError> {
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

    async fn jwt_bearer(&self) -> Result<Issued, ExchangeError> {
        let subject = self.exchanger.subject().await?;
        let mut form = vec![parameter("grant_type", JWT_BEARER)];
        form.push(("assertion".to_owned(), subject.token.clone()));
        self.targets(&mut form);
        self.ask(form, Some(&subject)).await
    }

    async fn token_exchange(&self) -> Result<Issued, ExchangeError> {
        let subject = self.exchanger.subject().await?;
        let provider = self.provider();
        let kind = |configured: &Option<String>| configured.clone().unwrap_or_else(|| JWT.to_owned());
        let mut form = vec![parameter("grant_type", EXCHANGE)];
        form.push(("subject_token".to_owned(), subject.token.clone()));
        form.push(parameter("subject_token_type", kind(&provider.subject_token_type)));
        if let Some(actor) = &provider.actor_token {
            let actor = Source::new(actor.clone(), None, self.exchanger.cluster.clone()).of_any_kind();
            form.push(("actor_token".to_owned(), actor.token().await?.token));
            form.push(parameter("actor_token_type", kind(&provider.actor_token_type)));
        }
        if let Some(requested) = &provider.requested_token_type {
            form.push(parameter("requested_token_type", requested));
        }
        self.targets(&mut form);
        let issued = self.ask(form, Some(&subject)).await?;
        let found = issued.credential.bearer().and_then(|bearer| bearer.issued_token_type.as_deref());
        is_what_was_asked_for(provider.requested_token_type.as_deref(), found)
            .map_err(|why| ExchangeError::Answer { server: self.token_endpoint.clone(), why })?;
        Ok(issued)
    }

    async fn client_credentials(&self) -> Result<Issued, ExchangeError> {
        let mut form = vec![parameter("grant_type", "client_credentials")];
        self.targets(&mut form);
        self.ask(form, None).await
    }

    async fn refresh(&self, refresh_token: Zeroizing<String>) -> Result<Issued, ExchangeError> {
        let mut form = vec![parameter("grant_type", "refresh_token")];
        form.push(("refresh_token".to_owned(), refresh_token.clone()));
        let mut issued = self.ask(form, None).await?;
        // RFC 6749 section 6: without a new one the old one stays.
        if let Credential::Bearer(bearer) = &mut issued.credential {
            bearer.refresh_token.get_or_insert(refresh_token);
        }
        Ok(issued)
    }

    /// Scope, audiences and resources; the last two repeat.
    pub(super) fn targets(&self, form: &mut Form) {
        let provider = self.provider();
        if !provider.scopes.is_empty() {
            form.push(parameter("scope", provider.scopes.join(" ")));
        }
        form.extend(provider.audience.iter().map(|audience| parameter("audience", audience)));
        form.extend(provider.resource.iter().map(|resource| parameter("resource", resource)));
    }

    /// Adds who we are, and asks.
    pub(super) async fn ask(
        &self,
        form: Form,
        subject: Option<&SubjectToken>,
    ) -> Result<Issued, ExchangeError> {
        let once = self.signs_for_itself();
        let mut tries = 1;
        loop {
            let mut form = form.clone();
            let Own { headers, token: own } = self.authenticate(&mut form).await?;
            form.extend(self.provider().extra_params.iter().map(|(name, value)| parameter(name, value)));
            let claims = subject.or(own.as_ref()).and_then(|token| token.claims.as_ref());
            let asking = Asking { r#type: self.provider().r#type, claims, once };
            let endpoint = &self.token_endpoint;
            match token(&self.server(endpoint)?, endpoint, &form, &headers, asking).await {
                // A statement that we sign is for one request (its `jti`, RFC 7523 section 3): each try has a new one.
                Err(error) if once && !is_for_once(&form) && tries < TRIES && was_not_taken(&error) => {
                    pause_after(tries, None).await;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Whether each request carries a statement that was signed for it alone.
    pub(super) fn signs_for_itself(&self) -> bool {
        self.provider().client_assertion.as_ref().is_some_and(|assertion| assertion.source().is_none())
    }

    /// Client authentication: in the body, as RFC 6749 section 2.3.1 allows and RFC 7523 section 2.2 has it; a secret in
    /// the header where the server takes it only there.
    pub(super) async fn authenticate(&self, form: &mut Form) -> Result<Own, ExchangeError> {
        let provider = self.provider();
        let id = provider.client_id.as_deref();
        let mut own = Own { headers: Vec::new(), token: None };
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

/// How a client shows who it is, besides what is in the form.
pub(super) struct Own {
    /// Headers.
    pub(super) headers: Vec<(HeaderName, Zeroizing<String>)>,
    /// The token that authenticates it, where it is not the client's own.
    token: Option<SubjectToken>,
}

/// RFC 6749 section 2.3.1: both encoded as in a form, and then as RFC 7617 has it.
fn basic(id: &str, secret: &str) -> Zeroizing<String> {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encode(id), *Zeroizing::new(encode(secret))));
    Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes()))))
}

/// Whether the server was not there, or too busy.
fn was_not_taken(error: &ExchangeError) -> bool {
    match error {
        ExchangeError::Web { attempt: _, source } => matches!(source, WebError::Unreachable { .. }),
        ExchangeError::Refused(refusal) => matches!(refusal.status, 429 | 500..=599),
        _ => false,
    }
}

/// RFC 8693 section 2.2.1: `issued_token_type` is required; what is no access token would be used as one.
fn is_what_was_asked_for(requested: Option<&str>, found: Option<&str>) -> Result<(), String> {
    let clean = |text: &str| text.chars().filter(char::is_ascii_graphic).take(100).collect::<String>();
    match (requested, found) {
        (_, None) => Err("it has no issued_token_type, which RFC 8693 demands".to_owned()),
        (Some(wanted), Some(found)) if wanted != found => {
            // An access token may well be a JWT.
            match (wanted, found) {
                (JWT, ACCESS_TOKEN) | (ACCESS_TOKEN, JWT) => Ok(()),
                _ => {
                    Err(format!("its issued_token_type is {:?}, and {wanted:?} was asked for", clean(found)))
                }
            }
        }
        (None, Some(found)) if ![ACCESS_TOKEN, JWT].contains(&found) => Err(format!(
            "its issued_token_type is {:?}, no access token; name it in requested_token_type if that is what you want",
            clean(found)
        )),
        _ => Ok(()),
    }
}

/// The client's secret, from where the configuration says it is.
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
    fn what_was_issued_must_be_what_was_asked_for() {
        assert!(is_what_was_asked_for(None, Some(ACCESS_TOKEN)).is_ok());
        assert!(is_what_was_asked_for(Some(ID_TOKEN), Some(ID_TOKEN)).is_ok());
        assert!(is_what_was_asked_for(Some(JWT), Some(ACCESS_TOKEN)).is_ok());
        assert!(is_what_was_asked_for(None, None).unwrap_err().contains("RFC 8693"));
        let refresh = "urn:ietf:params:oauth:token-type:refresh_token";
        assert!(is_what_was_asked_for(None, Some(refresh)).unwrap_err().contains("no access token"));
        assert!(is_what_was_asked_for(Some(ID_TOKEN), Some(refresh)).unwrap_err().contains("was asked for"));
    }

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
