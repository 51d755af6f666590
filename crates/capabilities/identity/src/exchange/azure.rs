//! Microsoft Entra ID: workload identity federation, which is `client_credentials` with the token as client assertion.

use super::token_endpoint::{Asking, parameter, token};
use super::{ExchangeError, Exchanger, Issued};

const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The default scope: Azure's own management API.
const SCOPE: &str = "https://management.azure.com/.default";

pub(super) async fn exchange(exchanger: &Exchanger) -> Result<Issued, ExchangeError> {
    let provider = &exchanger.provider;
    let subject = exchanger.subject().await?;
    let authority = provider.endpoint.as_deref().unwrap_or(AUTHORITY).trim_end_matches('/');
    let tenant = provider.tenant_id.as_deref().unwrap_or_default();
    let tenant: String = form_urlencoded::byte_serialize(tenant.as_bytes()).collect();
    let url = format!("{authority}/{tenant}/oauth2/v2.0/token");
    let scope = if provider.scopes.is_empty() { SCOPE.to_owned() } else { provider.scopes.join(" ") };
    let form = vec![
        parameter("grant_type", "client_credentials"),
        parameter("client_id", provider.client_id.as_deref().unwrap_or_default()),
        parameter("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion".to_owned(), subject.token.clone()),
        parameter("scope", scope),
    ];
    let asking = Asking { r#type: provider.r#type, claims: subject.claims.as_ref(), once: false };
    token(&exchanger.server(authority)?, &url, &form, &[], asking).await
}
