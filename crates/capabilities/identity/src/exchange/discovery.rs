//! An authorization server's metadata: `OpenID` Connect Discovery 1.0, or RFC 8414.

use super::ExchangeError;
use crate::request::send_with_retries;
use http::{Request, header};
use postern_net::web::Server;
use serde::Deserialize;

/// The fields of the metadata that Postern uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The issuer.
    pub issuer: String,
    /// The token endpoint.
    pub token_endpoint: Option<String>,
    /// The authorization endpoint.
    pub authorization_endpoint: Option<String>,
    /// The device authorization endpoint (RFC 8628 section 4).
    pub device_authorization_endpoint: Option<String>,
    /// The address of its keys.
    pub jwks_uri: Option<String>,
    /// The methods of client authentication; the default is HTTP Basic (RFC 8414 section 2).
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// The supported grants.
    pub grant_types_supported: Vec<String>,
}

impl Metadata {
    /// Whether a client's secret is sent in the header (RFC 7617) and not in the body. Without metadata the secret
    /// goes into the body: an empty issuer means that no metadata was read.
    pub(super) fn wants_basic(&self) -> bool {
        let named = |method: &str| {
            let all = self.token_endpoint_auth_methods_supported.as_ref();
            all.map(|all| all.iter().any(|one| one == method))
        };
        !self.issuer.is_empty()
            && named("client_secret_basic").unwrap_or(true)
            && !named("client_secret_post").unwrap_or(false)
    }
}

/// Returns the addresses of an issuer's metadata, most common first: the two documents place the path differently
/// (RFC 8414 section 5).
fn addresses(issuer: &str) -> [String; 2] {
    let issuer = issuer.trim_end_matches('/');
    let (server, path) = super::token_endpoint::split(issuer);
    let path = path.trim_end_matches('/');
    [
        format!("{server}{path}/.well-known/openid-configuration"),
        format!("{server}/.well-known/oauth-authorization-server{path}"),
    ]
}

/// Reads an issuer's metadata and checks that it belongs to that issuer.
pub(crate) async fn discover(server: &Server, issuer: &str) -> Result<Metadata, ExchangeError> {
    let mut last = None;
    for address in addresses(issuer) {
        match fetch(server, issuer, &address).await {
            Err(ExchangeError::Answer { server, why }) if last.is_none() => {
                last = Some(ExchangeError::Answer { server, why });
            }
            // The error of the first address is the more useful one.
            Err(ExchangeError::Answer { .. }) => {}
            other => return other,
        }
    }
    Err(last.unwrap_or(ExchangeError::Answer { server: issuer.to_owned(), why: "nothing".to_owned() }))
}

async fn fetch(server: &Server, issuer: &str, address: &str) -> Result<Metadata, ExchangeError> {
    let wrong = |why: String| ExchangeError::Answer { server: address.to_owned(), why };
    let request = Request::get(super::token_endpoint::split(address).1)
        .header(header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|error| wrong(error.to_string()))?;
    let answer = send_with_retries(server, &request, |_| false).await.map_err(|source| {
        ExchangeError::Web { attempt: format!("reading the metadata of {issuer}"), source }
    })?;
    if answer.status != 200 {
        return Err(wrong(format!("HTTP status {} in place of the issuer's metadata", answer.status)));
    }
    let metadata: Metadata = serde_json::from_slice(&answer.body)
        .map_err(|_| wrong("it is not an issuer's metadata".to_owned()))?;
    check(issuer, metadata).map_err(wrong)
}

/// `OpenID` Connect Discovery section 4.3 and RFC 8414 section 3.3: the issuer must be exactly the requested one.
/// Otherwise another server could redirect us, with our token, to one of its own servers (mix-up).
fn check(issuer: &str, metadata: Metadata) -> Result<Metadata, String> {
    let found = &metadata.issuer;
    if found == issuer {
        return absolute(metadata);
    }
    if found.trim_end_matches('/') == issuer.trim_end_matches('/') {
        return Err(format!("its issuer is {found:?}: write `issuer` exactly so (mind the final '/')"));
    }
    let found: String = found.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(format!("its issuer is {found:?}, not {issuer:?}: this is another server's metadata"))
}

/// RFC 8414 section 2: every endpoint is a URL.
fn absolute(metadata: Metadata) -> Result<Metadata, String> {
    let endpoints = [
        ("token_endpoint", &metadata.token_endpoint),
        ("authorization_endpoint", &metadata.authorization_endpoint),
        ("device_authorization_endpoint", &metadata.device_authorization_endpoint),
    ];
    for (name, endpoint) in endpoints {
        let is_url = |text: &str| text.starts_with("https://") || text.starts_with("http://");
        if let Some(endpoint) = endpoint.as_deref().filter(|endpoint| !is_url(endpoint)) {
            let shown: String = endpoint.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(format!(
                "its {name} is {shown:?}, which is not an absolute URL (RFC 8414 section 2); set it in the config"
            ));
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_stands_where_the_two_documents_put_it() {
        assert_eq!(
            addresses("https://a.b/realms/x/"),
            [
                "https://a.b/realms/x/.well-known/openid-configuration",
                "https://a.b/.well-known/oauth-authorization-server/realms/x"
            ]
        );
        assert_eq!(addresses("https://a.b")[0], "https://a.b/.well-known/openid-configuration");
    }

    #[test]
    fn a_secret_goes_where_the_server_takes_it() {
        let of = |methods: Option<&[&str]>| Metadata {
            issuer: "https://a".to_owned(),
            token_endpoint_auth_methods_supported: methods
                .map(|all| all.iter().map(ToString::to_string).collect()),
            ..Metadata::default()
        };
        assert!(of(Some(&["client_secret_basic"])).wants_basic());
        assert!(of(None).wants_basic(), "RFC 8414's default");
        assert!(!of(Some(&["client_secret_basic", "client_secret_post"])).wants_basic());
        assert!(!of(Some(&["private_key_jwt"])).wants_basic());
        assert!(!Metadata::default().wants_basic(), "nothing was discovered");
    }

    #[test]
    fn another_servers_metadata_is_refused() {
        let of = |issuer: &str| Metadata { issuer: issuer.to_owned(), ..Metadata::default() };
        assert!(check("https://a", of("https://a")).is_ok());
        assert!(check("https://a", of("https://a/")).unwrap_err().contains("exactly so"));
        assert!(check("https://a", of("https://evil")).unwrap_err().contains("another server's"));
        assert!(check("https://a", of("")).is_err());
        let relative = Metadata { token_endpoint: Some("/token".to_owned()), ..of("https://a") };
        assert!(check("https://a", relative).unwrap_err().contains("token_endpoint is \"/token\""));
    }
}
