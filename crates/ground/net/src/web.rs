//! Short requests to one server, such as a cloud's API, and their whole answers.

use crate::address;
use crate::client::{Upstream, Versions, client_at};
use crate::error::{WebError, chain};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use std::time::Duration;

/// How long a whole exchange may take.
const EXCHANGE: Duration = Duration::from_secs(15);

/// The longest answer that is read, in bytes.
const LONGEST: usize = 4 * 1024 * 1024;

/// One server, with its connections kept.
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
        let base = address::base(address)?;
        let address = address.trim_end_matches('/').to_owned();
        // The address is right, so it is this machine's proxy or trust that is not.
        let client = client_at(&address, &base, certificates, Versions::Upgradable, None).map_err(
            |error| match error {
                WebError::Address { address: server, why: cause } => WebError::Unreachable { server, cause },
                other => other,
            },
        )?;
        Ok(Self { client, base, address })
    }

    /// Where a request goes whose path and query are below our base.
    fn at(&self, below: &Uri) -> Result<Uri, String> {
        let path = below.path_and_query().map_or("/", PathAndQuery::as_str);
        let whole = format!("{}{path}", self.base.path().trim_end_matches('/'));
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(whole.parse().map_err(|_| format!("{whole:?} is not a path"))?);
        Uri::from_parts(parts).map_err(|error| error.to_string())
    }

    /// One request and its whole answer, whatever its status. The request's URI is a path and a query.
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
