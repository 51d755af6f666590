//! Servers other than the cluster (a cloud's APIs), by the same connector: our resolver, proxies, the platform's trust.

pub use crate::busy::{busy_reason, times};
pub use crate::error::innermost as cause;

use crate::connect;
use crate::error::chain;
use http::Request;
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use kube::client::Body;
use std::time::Duration;

/// How long a whole exchange may take.
const EXCHANGE: Duration = Duration::from_secs(15);

/// The longest answer that is read, in bytes.
const LONGEST: usize = 4 * 1024 * 1024;

/// No answer that could be judged.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The address is none that we speak to.
    #[error("{address}: {why}")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// No connection, or it broke.
    #[error("{server} cannot be reached: {cause}")]
    Unreachable {
        /// Its address.
        server: String,
        /// The innermost cause.
        cause: String,
    },
    /// No whole answer in time.
    #[error("{server} did not answer within {} s", EXCHANGE.as_secs())]
    NoAnswer {
        /// Its address.
        server: String,
    },
}

/// One server, with its connections kept.
#[derive(Clone)]
pub struct Server {
    client: kube::Client,
    address: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client: _, address } = self;
        f.debug_struct("Server").field("address", address).finish_non_exhaustive()
    }
}

/// What a server said.
pub struct Answer {
    /// The HTTP status. Redirects are answers too: none is followed, as what we send is not for others.
    pub status: u16,
    /// How long it asks us to wait, in seconds (`Retry-After`, RFC 9110 section 10.2.3).
    pub retry_after: Option<u64>,
    /// How often it was asked, this time included.
    pub tries: u32,
    /// Its clock (`Date`), as it wrote it.
    pub date: Option<String>,
    /// The body; may hold a token.
    pub body: Vec<u8>,
}

impl Server {
    /// A server by its address, `https://…`; without TLS only on loopback. Sends nothing; to be called
    /// within a runtime.
    pub fn new(address: &str) -> Result<Self, WebError> {
        Self::with(address, None)
    }

    /// The same, for a server that only these certificates (DER) vouch for.
    pub fn trusting(address: &str, certificates: Vec<Vec<u8>>) -> Result<Self, WebError> {
        Self::with(address, Some(certificates))
    }

    fn with(address: &str, certificates: Option<Vec<Vec<u8>>>) -> Result<Self, WebError> {
        let base = base(address)?;
        let address = address.trim_end_matches('/').to_owned();
        let mut config = Config::new(base.clone());
        config.proxy_url = proxy(&base);
        config.root_cert = trusted(&base, certificates);
        let client = connect::client(&config, &address, None, connect::Patience::None).map_err(|error| {
            WebError::Unreachable { server: address.clone(), cause: error.reason.to_string() }
        })?;
        Ok(Self { client, address })
    }

    /// One request and its whole answer, whatever its status. The request's URI is a path and a query.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Answer, WebError> {
        let exchange = async {
            let response = self.client.send(request.map(Body::from)).await.map_err(|error| chain(&error))?;
            let (head, body) = response.into_parts();
            let status = head.status.as_u16();
            let text = |name| Some(head.headers.get(name)?.to_str().ok()?.trim().to_owned());
            let retry_after = crate::busy::retry_after(&head.headers, std::time::SystemTime::now());
            let retry_after = retry_after.map(|wait| wait.as_secs());
            let date = text(http::header::DATE);
            let body = Limited::new(body, LONGEST).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes().to_vec();
            Ok(Answer { status, retry_after, tries: 1, date, body })
        };
        let server = || self.address.clone();
        match tokio::time::timeout(EXCHANGE, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(cause)) => Err(WebError::Unreachable { server: server(), cause }),
            Err(_) => Err(WebError::NoAnswer { server: server() }),
        }
    }
}

/// An address that we speak to: `https://…`, or `http://…` on loopback; neither credentials nor a query in it.
pub(crate) fn base(address: &str) -> Result<http::Uri, WebError> {
    let refused = |why: &str| WebError::Address { address: address.to_owned(), why: why.to_owned() };
    let base: http::Uri = address.parse().map_err(|_| refused("this is no URL"))?;
    let host = base.host().ok_or_else(|| refused("a URL such as https://api.example.com is needed"))?;
    match base.scheme_str() {
        Some("https") => {}
        Some("http") if is_loopback(host) => {}
        _ => return Err(refused("only https:// is spoken to, and http:// on loopback")),
    }
    if base.query().is_some() || base.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refused("leave out what follows '?' and what precedes '@'"));
    }
    Ok(base)
}

/// Who vouches for a server. For one without TLS nobody has to: an image without certificates serves for it.
pub(crate) fn trusted(base: &http::Uri, certificates: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    certificates.or_else(|| (base.scheme_str() == Some("http")).then(Vec::new))
}

/// The certificates of a PEM file, as DER; the error says what is wrong with it.
pub fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found.into_iter().map(|one| one.as_ref().to_vec()).collect()),
        Ok(_) => Err("it holds no certificate in PEM".to_owned()),
        Err(error) => Err(format!("it is damaged: {error}")),
    }
}

/// Whether a host of an address is this machine, by name or number.
pub fn is_loopback(host: &str) -> bool {
    let number = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || number.is_ok_and(|ip| ip.is_loopback())
}

/// The proxy for an address, as `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` have it, and never for loopback, as Go's programs
/// have it; with the user and password in it.
pub(crate) fn proxy(base: &http::Uri) -> Option<http::Uri> {
    base.scheme_str().filter(|scheme| *scheme == "https")?;
    if is_loopback(base.host()?) {
        return None;
    }
    let found = Matcher::from_env().intercept(base);
    let named = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let whole = named.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let whole = whole.and_then(|whole| whole.parse().ok());
    match found {
        // `proxy:3128` is an http:// proxy to who wrote it.
        Some(found) => {
            whole.filter(|proxy: &http::Uri| proxy.scheme().is_some()).or_else(|| Some(found.uri().clone()))
        }
        // What the library does not know is an error, not no proxy.
        None => whole.filter(|proxy: &http::Uri| {
            let known = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
            proxy.scheme_str().is_some_and(|scheme| !known.contains(&scheme))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_said_in_the_clear_but_on_loopback() {
        for fine in
            ["https://iam.cloud.ibm.com", "http://127.0.0.1:8080", "http://[::1]:80/x", "http://localhost"]
        {
            assert!(Server::new(fine).is_ok(), "{fine}");
        }
        for wrong in [
            "http://iam.cloud.ibm.com",
            "iam.cloud.ibm.com",
            "ftp://127.0.0.1",
            "https://a:b@host",
            "https://h/?q",
        ] {
            assert!(matches!(Server::new(wrong), Err(WebError::Address { .. })), "{wrong}");
        }
    }
}
