//! Short requests to one server, such as a cloud's API, with their complete answers.

use crate::address;
use crate::client::{Upstream, Versions, client_at};
use crate::error::{WebError, chain};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use std::time::Duration;

/// The time limit for one exchange.
const EXCHANGE: Duration = Duration::from_secs(15);

/// The maximum size of an answer, in bytes.
const LONGEST: usize = 4 * 1024 * 1024;

/// One server, with its kept connections.
#[derive(Clone)]
pub struct Server {
    client: Upstream<Full<Bytes>>,
    base: Uri,
    address: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client: _, base: _, address } = self;
        f.debug_struct("Server").field("address", address).finish_non_exhaustive()
    }
}

/// The answer of a server.
pub struct Answer {
    /// The HTTP status. Redirects are returned too, and never followed: the request is not meant for another server.
    pub status: u16,
    /// The wait that it asks for, in seconds (`Retry-After`, RFC 9110 section 10.2.3).
    pub retry_after: Option<u64>,
    /// The number of tries, this one included.
    pub tries: u32,
    /// The server's clock (`Date`), as it was sent.
    pub date: Option<String>,
    /// The body; may contain a token.
    pub body: Vec<u8>,
}

impl Server {
    /// Returns a server for its address, `https://…`; without TLS only on loopback. Sends nothing; must be called
    /// within a runtime.
    pub fn new(address: &str) -> Result<Self, WebError> {
        Self::with(address, None)
    }

    /// The same, with only these trusted CA certificates (DER).
    pub fn trusting(address: &str, certificates: Vec<Vec<u8>>) -> Result<Self, WebError> {
        Self::with(address, Some(certificates))
    }

    fn with(address: &str, certificates: Option<Vec<Vec<u8>>>) -> Result<Self, WebError> {
        let base = address::base(address)?;
        let address = address.trim_end_matches('/').to_owned();
        // The address is valid, so the cause is this machine's proxy or CA certificates.
        let client = client_at(&address, &base, certificates, Versions::Upgradable, None).map_err(
            |error| match error {
                WebError::Address { address: server, why: cause } => WebError::Unreachable { server, cause },
                other => other,
            },
        )?;
        Ok(Self { client, base, address })
    }

    /// Returns the URI of a request whose path and query are relative to the base.
    fn at(&self, below: &Uri) -> Result<Uri, String> {
        let path = below.path_and_query().map_or("/", PathAndQuery::as_str);
        let whole = format!("{}{path}", self.base.path().trim_end_matches('/'));
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(whole.parse().map_err(|_| format!("{whole:?} is not a path"))?);
        Uri::from_parts(parts).map_err(|error| error.to_string())
    }

    /// Sends one request and returns its complete answer, whatever its status. The request's URI is a path and a
    /// query.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Answer, WebError> {
        let exchange = async {
            let mut request = request.map(|body| Full::new(Bytes::from(body)));
            *request.uri_mut() = self.at(request.uri())?;
            let response = self.client.request(request).await.map_err(|error| chain(&error))?;
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
            Err(_) => Err(WebError::NoAnswer { server: server(), seconds: EXCHANGE.as_secs() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plain_http_is_allowed_on_loopback_only() {
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
