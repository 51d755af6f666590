//! OAuth 2.0: the grants.

use super::client::Client;
use super::token_endpoint::parameter;
use super::{Credential, ExchangeError, Exchanger, Issued, person};
use crate::source::Source;
use postern_config::providers::Grant;
use zeroize::Zeroizing;

/// The token type of a JWT (RFC 8693 section 3).
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// The token type of an `OpenID` Connect ID token.
pub(super) const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Obtains a token with the configured grant.
pub(super) async fn exchange(
    exchanger: &Exchanger,
    refresh: Option<Zeroizing<String>>,
) -> Result<Issued, ExchangeError> {
    let grant = exchanger.provider.grant().unwrap_or(Grant::ClientCredentials);
    // Checked before anything is sent: without a user the login cannot succeed.
    if grant.is_interactive() && refresh.is_none() {
        exchanger.person.require(grant)?;
    }
    let client = Client::find(exchanger).await?;
    match grant {
        Grant::JwtBearer => client.jwt_bearer().await,
        Grant::TokenExchange => client.token_exchange().await,
        Grant::ClientCredentials => client.client_credentials().await,
        Grant::DeviceCode | Grant::AuthorizationCode => match refresh {
            Some(token) => match client.refresh(token).await {
                // It has expired or was revoked: the user may log in again.
                Err(ExchangeError::Refused(refusal)) if refusal.code.as_deref() == Some("invalid_grant") => {
                    exchanger.person.require(grant)?;
                    person::log_in(&client, grant).await
                }
                other => other,
            },
            None => person::log_in(&client, grant).await,
        },
    }
}

impl Client<'_> {
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
        check_token_type(provider.requested_token_type.as_deref(), found)
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
        // RFC 6749 section 6: without a new refresh token the old one stays valid.
        if let Credential::Bearer(bearer) = &mut issued.credential {
            bearer.refresh_token.get_or_insert(refresh_token);
        }
        Ok(issued)
    }
}

/// RFC 8693 section 2.2.1: `issued_token_type` is required. Otherwise a token that is not an access token could be
/// used as one.
fn check_token_type(requested: Option<&str>, found: Option<&str>) -> Result<(), String> {
    let clean = |text: &str| text.chars().filter(char::is_ascii_graphic).take(100).collect::<String>();
    match (requested, found) {
        (_, None) => Err("it has no issued_token_type, which RFC 8693 requires".to_owned()),
        (Some(wanted), Some(found)) if wanted != found => {
            // An access token may be a JWT.
            match (wanted, found) {
                (JWT, ACCESS_TOKEN) | (ACCESS_TOKEN, JWT) => Ok(()),
                _ => {
                    Err(format!("its issued_token_type is {:?}, and {wanted:?} was requested", clean(found)))
                }
            }
        }
        (None, Some(found)) if ![ACCESS_TOKEN, JWT].contains(&found) => Err(format!(
            "its issued_token_type is {:?}, not an access token; set requested_token_type to accept it",
            clean(found)
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_issued_must_be_what_was_asked_for() {
        assert!(check_token_type(None, Some(ACCESS_TOKEN)).is_ok());
        assert!(check_token_type(Some(ID_TOKEN), Some(ID_TOKEN)).is_ok());
        assert!(check_token_type(Some(JWT), Some(ACCESS_TOKEN)).is_ok());
        assert!(check_token_type(None, None).unwrap_err().contains("RFC 8693"));
        let refresh = "urn:ietf:params:oauth:token-type:refresh_token";
        assert!(check_token_type(None, Some(refresh)).unwrap_err().contains("not an access token"));
        assert!(check_token_type(Some(ID_TOKEN), Some(refresh)).unwrap_err().contains("was requested"));
    }
}
