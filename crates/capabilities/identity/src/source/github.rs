//! GitHub's OIDC tokens for workflows: `ACTIONS_ID_TOKEN_REQUEST_URL` with `audience`, authenticated with the
//! runner's bearer token.

use super::SourceError;
use postern_net::error::WebError;
use postern_net::web::Server;
use serde::Deserialize;
use zeroize::Zeroizing;

const URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

#[derive(Deserialize)]
struct Answer {
    value: Zeroizing<String>,
}

fn variable(name: &'static str) -> Result<String, SourceError> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(SourceError::NoWorkflow(name))
}

/// The address of the token service identifies the job.
pub(super) fn identity() -> Result<String, SourceError> {
    variable(URL)
}

pub(super) async fn token(audience: &str) -> Result<Zeroizing<String>, SourceError> {
    let (url, bearer) = (variable(URL)?, Zeroizing::new(variable(TOKEN)?));
    let address =
        |why: &str| SourceError::GitHub(WebError::Address { address: url.clone(), why: why.to_owned() });
    let uri: http::Uri = url.parse().map_err(|_| address("not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(address("expected an absolute URL"));
    };
    let audience: String = form_urlencoded::byte_serialize(audience.as_bytes()).collect();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let joint = if path.contains('?') { '&' } else { '?' };
    let request = http::Request::get(format!("{path}{joint}audience={audience}"))
        .header(http::header::AUTHORIZATION, format!("Bearer {}", *bearer))
        .header(http::header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|error| address(&error.to_string()))?;
    let server = Server::new(&format!("{scheme}://{authority}")).map_err(SourceError::GitHub)?;
    let answer =
        crate::request::send_with_retries(&server, &request, |_| false).await.map_err(SourceError::GitHub)?;
    let read = (answer.status == 200).then(|| serde_json::from_slice::<Answer>(&answer.body).ok()).flatten();
    match read {
        Some(Answer { value }) => Ok(value),
        None => Err(SourceError::GitHubRefused { status: answer.status }),
    }
}
