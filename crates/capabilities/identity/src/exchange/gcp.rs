//! Google Cloud: workload identity federation (RFC 8693 at its STS), then a service account's token if one is
//! configured.

use super::token_endpoint::{Asking, judge, parameter, split, token};
use super::{Bearer, Credential, ExchangeError, Exchanger, Issued, answer};
use crate::request::send_with_retries;
use http::{Request, header};
use jiff::Timestamp;
use postern_config::parse_duration;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use zeroize::Zeroizing;

const STS: &str = "https://sts.googleapis.com";
const CREDENTIALS: &str = "https://iamcredentials.googleapis.com";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: Zeroizing<String>,
    expire_time: Timestamp,
}

/// Returns the audience that identifies the pool's provider to Google.
pub(crate) fn audience(provider: &str) -> String {
    format!("//iam.googleapis.com/{}", provider.trim_start_matches("//iam.googleapis.com/"))
}

pub(super) async fn exchange(exchanger: &Exchanger) -> Result<Issued, ExchangeError> {
    let provider = &exchanger.provider;
    let subject = exchanger.subject().await?;
    let asking = Asking { r#type: provider.r#type, claims: subject.claims.as_ref(), once: false };
    let server = provider.endpoint.as_deref().unwrap_or(STS).trim_end_matches('/');
    let url = format!("{server}/v1/token");
    let scope = if provider.scopes.is_empty() { SCOPE.to_owned() } else { provider.scopes.join(" ") };
    // The first token is only used for impersonation.
    let first = if provider.service_account.is_some() { SCOPE.to_owned() } else { scope.clone() };
    let form = vec![
        parameter("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        parameter("audience", audience(provider.workload_identity_provider.as_deref().unwrap_or_default())),
        parameter("scope", first),
        parameter("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        parameter("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token".to_owned(), subject.token.clone()),
    ];
    let federated = token(&exchanger.server(server)?, &url, &form, &[], asking).await?;
    match (&provider.service_account, federated.credential.bearer()) {
        (Some(account), Some(bearer)) => impersonate(exchanger, account, bearer, &scope, asking).await,
        _ => Ok(federated),
    }
}

/// Calls `generateAccessToken` of the IAM Service Account Credentials API.
async fn impersonate(
    exchanger: &Exchanger,
    account: &str,
    federated: &Bearer,
    scope: &str,
    asking: Asking<'_>,
) -> Result<Issued, ExchangeError> {
    let provider = &exchanger.provider;
    let server = provider.impersonation_endpoint.as_deref().unwrap_or(CREDENTIALS).trim_end_matches('/');
    let url = format!("{server}/v1/projects/-/serviceAccounts/{account}:generateAccessToken");
    let lifetime = provider.lifetime.as_deref().and_then(|text| parse_duration(text).ok());
    let seconds = lifetime.unwrap_or(Duration::from_secs(3_600)).as_secs();
    let scopes: Vec<_> = scope.split(' ').collect();
    let body = json!({"scope": scopes, "lifetime": format!("{seconds}s")});
    let wrong = |why: String| ExchangeError::Answer { server: url.clone(), why };
    let request = Request::post(split(&url).1)
        .header(header::AUTHORIZATION, format!("Bearer {}", *federated.access_token))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(|error| wrong(error.to_string()))?;
    let answer = send_with_retries(&exchanger.server(server)?, &request, |_| false).await;
    let answer = answer.map_err(|source| ExchangeError::Web {
        attempt: format!("requesting a token of {account}"),
        source,
    })?;
    if answer.status != 200 {
        // It is a refusal, and is classified as one.
        return judge(&url, &answer, asking);
    }
    let Impersonated { access_token, expire_time } = serde_json::from_slice(&answer.body)
        .map_err(|_| wrong("it has no accessToken and expireTime".to_owned()))?;
    answer::usable(&access_token).map_err(&wrong)?;
    // Measured by the server's clock if it is known: ours may be wrong.
    let now = answer.date.as_deref().and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let now = now.map_or_else(Timestamp::now, |date| date.timestamp());
    let lifetime = Duration::try_from(expire_time.duration_since(now))
        .map_err(|_| wrong("its expireTime has passed".to_owned()))?;
    let bearer = Bearer { access_token, refresh_token: None, scope: None, issued_token_type: None };
    Ok(Issued { credential: Credential::Bearer(bearer), lifetime: Some(lifetime) })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_audience_is_the_full_name() {
        let full = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k";
        assert_eq!(super::audience(&full[21..]), full);
        assert_eq!(super::audience(full), full);
    }
}
