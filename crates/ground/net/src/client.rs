//! An HTTP client for proxied requests: streams both ways, keeps connections, and uses HTTP/2 if the server supports
//! it.

pub use crate::connector::Versions;

use crate::address;
use crate::connector::{self, Connector};
use crate::error::WebError;
use crate::tls;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;

/// How long an idle connection is kept; servers commonly close theirs after a minute or more.
const IDLE: Duration = Duration::from_secs(30);

/// A client for one server. `B` is the body of its requests.
pub type Upstream<B> = Client<Connector, B>;

/// Returns a client for the server at `address`, with the CA certificates `certificates` (DER), or the platform's. It
/// uses the proxies of the environment, as [`crate::web::Server`] does. On Linux, a connection breaks if the peer
/// acknowledges nothing for longer than `stall` (`TCP_USER_TIMEOUT`, tcp(7)); without it that may take a quarter of
/// an hour, or for ever. Sends nothing.
pub fn client<B>(
    address: &str,
    certificates: Option<Vec<Vec<u8>>>,
    versions: Versions,
    stall: Option<Duration>,
) -> Result<Upstream<B>, WebError>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    client_at(address, &address::base(address)?, certificates, versions, stall)
}

/// Like [`client`], for a server that may be reached without TLS anywhere: one that the user named with `http://`, or
/// a link-local service of the machine, such as a cloud's metadata.
pub fn client_without_tls<B>(
    address: &str,
    certificates: Option<Vec<Vec<u8>>>,
    versions: Versions,
    stall: Option<Duration>,
) -> Result<Upstream<B>, WebError>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    let base = address
        .parse()
        .map_err(|_| WebError::Address { address: address.to_owned(), why: "not a URL".to_owned() })?;
    client_at(address, &base, certificates, versions, stall)
}

/// The same for an address that was already validated: `base` is `address`, parsed.
pub(crate) fn client_at<B>(
    address: &str,
    base: &http::Uri,
    certificates: Option<Vec<Vec<u8>>>,
    versions: Versions,
    stall: Option<Duration>,
) -> Result<Upstream<B>, WebError>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    let unusable = |why: String| WebError::Address { address: address.to_owned(), why };
    let tls = tls::client_config(address::trusted(base, certificates).as_deref()).map_err(unusable)?;
    let plain = connector::connector(address::proxy(base).as_ref(), stall)
        .map_err(|why| unusable(format!("{why} (HTTPS_PROXY)")))?;
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        // One connection may carry all requests, so a dead one must be detected.
        .http2_keep_alive_interval(Some(Duration::from_secs(15)))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .pool_idle_timeout(IDLE)
        .build(connector::secured(plain, tls, versions, None));
    Ok(client)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use http_body_util::Full;

    #[tokio::test]
    async fn a_server_that_takes_nothing_is_not_waited_for_for_ever() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", server.local_addr().unwrap());
        let stall = Some(Duration::from_secs(1));
        let client = client(&address, None, Versions::Upgradable, stall).unwrap();
        let body = Full::new(bytes::Bytes::from(vec![0; 64 << 20]));
        let request = http::Request::put(format!("{address}/part")).body(body).unwrap();
        let held = tokio::spawn(async move { server.accept().await.unwrap() });
        let ended = tokio::time::timeout(Duration::from_secs(60), client.request(request)).await;
        assert!(ended.unwrap().is_err());
        drop(held.await.unwrap());
    }
}
