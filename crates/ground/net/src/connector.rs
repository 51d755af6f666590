//! Connections: directly or through a proxy, with or without TLS.

use crate::resolver::resolver;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt as _};

/// The time limit for a TCP connection.
const CONNECT: Duration = Duration::from_secs(10);

/// The default port of a SOCKS proxy (RFC 1928 section 3).
const SOCKS_PORT: u16 = 1080;

/// Opens connections.
pub type Connector = BoxCloneSyncService<http::Uri, Stream, BoxError>;

/// Returns a connector that uses `proxy`, if there is one. On Linux, a connection breaks if the peer acknowledges
/// nothing for longer than `stall` (`TCP_USER_TIMEOUT`, tcp(7)). The error names the supported proxy schemes.
pub fn connector(proxy: Option<&http::Uri>, stall: Option<Duration>) -> Result<Connector, String> {
    let mut http = HttpConnector::new_with_resolver(resolver());
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(Duration::from_secs(10)));
    http.set_keepalive_interval(Some(Duration::from_secs(5)));
    http.set_keepalive_retries(Some(3));
    #[cfg(target_os = "linux")]
    http.set_tcp_user_timeout(stall);
    #[cfg(not(target_os = "linux"))]
    let _ = stall; // not supported there
    let Some(proxy) = proxy else { return Ok(boxed(http)) };
    match proxy.scheme_str() {
        Some("http") => Ok(boxed(authorized(Tunnel::new(proxy.clone(), http), proxy))),
        Some("https") => {
            // The proxy is not the server: it is verified like any other server, SSL_CERT_FILE included, and not with
            // the server's CA. It must not see our client certificate either.
            let tls = crate::tls::client_config(None)?;
            let inner = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
            let inner = inner.enable_http1().wrap_connector(http);
            Ok(boxed(authorized(Tunnel::new(proxy.clone(), inner), proxy)))
        }
        // As in curl and Go, the proxy resolves names.
        Some("socks5" | "socks5h") => {
            let place = (proxy.host().unwrap_or_default(), proxy.port_u16().unwrap_or(SOCKS_PORT));
            let address = format!("socks5://{}:{}", place.0, place.1).parse::<http::Uri>();
            let socks = SocksV5::new(address.map_err(|error| error.to_string())?, http).local_dns(false);
            Ok(match user(proxy) {
                Some((user, password)) => boxed(socks.with_auth(user, password)),
                None => boxed(socks),
            })
        }
        // Its address may contain a password.
        scheme => {
            let place = proxy.authority().map_or("", |authority| {
                authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, place)| place)
            });
            let scheme = scheme.map(|scheme| format!("{scheme}://")).unwrap_or_default();
            Err(format!("the proxy {scheme}{place} is none of http://, https:// and socks5://"))
        }
    }
}

/// The versions of HTTP that are offered to a server with TLS. Without TLS it is always HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// HTTP/2, otherwise HTTP/1.1.
    Newest,
    /// HTTP/1.1 only, for connections that can be upgraded (RFC 9110 section 7.8).
    Upgradable,
}

/// Adds TLS to the connections of `plain` if the address is `https://`. The certificate must be valid for
/// `server_name`, by default the address's host.
pub fn secured(
    plain: Connector,
    tls: ClientConfig,
    versions: Versions,
    server_name: Option<ServerName<'static>>,
) -> Connector {
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = server_name {
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    match versions {
        Versions::Newest => boxed(builder.enable_all_versions().wrap_connector(plain)),
        Versions::Upgradable => boxed(builder.enable_http1().wrap_connector(plain)),
    }
}

/// Returns the user and password of a proxy's address, percent-decoded.
fn user(proxy: &http::Uri) -> Option<(String, String)> {
    let (user, _) = proxy.authority()?.as_str().rsplit_once('@')?;
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some((plain(user), plain(password)))
}

/// Sends the user and password of a proxy's address (RFC 9110 section 11.7.2).
fn authorized<C>(tunnel: Tunnel<C>, proxy: &http::Uri) -> Tunnel<C> {
    let matcher = Matcher::builder().all(proxy.to_string()).build();
    let target = http::Uri::from_static("https://any.invalid");
    match matcher.intercept(&target).and_then(|found| found.basic_auth().cloned()) {
        Some(value) => tunnel.with_auth(value),
        None => tunnel,
    }
}

/// Hides the type of a connector.
fn boxed<S>(connector: S) -> Connector
where
    S: tower::Service<http::Uri> + Clone + Send + Sync + 'static,
    S::Response: Connection + Read + Write + Send + Unpin + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(connector.map_err(Into::into).map_response(|stream| Stream(Box::new(stream))))
}

trait Io: Connection + Read + Write + Send + Unpin {}
impl<T: Connection + Read + Write + Send + Unpin> Io for T {}

/// A connection of any type.
pub struct Stream(Box<dyn Io>);

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.0.connected()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_we_do_not_speak_to_is_named_without_its_password() {
        let refused = |proxy: &str| connector(Some(&proxy.parse().unwrap()), None).map(|_| ()).unwrap_err();
        let said = refused("socks4://u:canary@proxy.example:1080");
        assert!(said.contains("socks4://proxy.example:1080") && !said.contains("canary"), "{said}");
        for fine in ["http://p:1", "socks5://p", "socks5h://u:p@p:1080"] {
            assert!(connector(Some(&fine.parse().unwrap()), None).is_ok(), "{fine}");
        }
    }

    #[tokio::test]
    async fn a_socks_proxy_is_asked_for_the_server_by_its_name() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("socks5://me:pa%40ss@{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = [0; 2];
            client.read_exact(&mut head).await.unwrap();
            let mut methods = vec![0; head[1].into()];
            client.read_exact(&mut methods).await.unwrap();
            assert!(head[0] == 5 && methods.contains(&2), "{head:?} {methods:?}");
            client.write_all(&[5, 2]).await.unwrap(); // RFC 1929
            let mut login = [0; 1 + 1 + 2 + 1 + 5];
            client.read_exact(&mut login).await.unwrap();
            assert_eq!(&login, b"\x01\x02me\x05pa@ss");
            client.write_all(&[1, 0]).await.unwrap();
            let mut asked = [0; 4 + 1 + 14 + 2];
            client.read_exact(&mut asked).await.unwrap();
            client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            asked
        });
        let connector = connector(Some(&proxy.parse().unwrap()), None).unwrap();
        let target = http::Uri::from_static("https://server.invalid:6443");
        connector.oneshot(target).await.unwrap();
        assert_eq!(&served.await.unwrap(), b"\x05\x01\x00\x03\x0eserver.invalid\x19\x2b");
    }
}
