//! Accepts connections, and serves the proxy's own paths.

use super::first_bytes::{Beginning, Peek, look};
use super::forward::forward;
use super::headers::{ambiguous, is_cross_site};
use super::metrics::Metrics;
use super::response::{Answer, problem, sanitized, typed};
use super::route::{RouteTarget, Routes};
use crate::exchange::{Credential, Exchanger, Listener};
use crate::keeper::{Clock as _, Keeper, SystemClock};
use crate::render::aws_container;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

/// The time limit for a client to send its request's headers.
const HEAD: Duration = Duration::from_secs(30);

/// How long `/readyz` waits for tokens.
const READY: Duration = Duration::from_secs(5);

/// A socket on which clients connect.
#[derive(Debug)]
pub enum Endpoint {
    /// On loopback.
    Tcp(TcpListener),
    /// A socket in the file system.
    Unix(UnixListener),
    /// For probes and Prometheus only: it serves no API.
    Watch(TcpListener),
}

/// The proxy.
#[derive(Debug)]
pub struct Proxy {
    /// The APIs.
    pub routes: Routes,
    /// All providers, with and without an API.
    pub keepers: Vec<Arc<Keeper<Exchanger>>>,
    /// The value of `Authorization` that the AWS endpoint requires; without it the endpoint is off.
    pub aws_secret: Option<Zeroizing<String>>,
    /// The receiver of warnings.
    pub listener: Listener,
    /// Whether each request is reported.
    pub log_requests: bool,
    /// The metrics.
    pub metrics: Metrics,
    /// The clock.
    pub clock: SystemClock,
}

impl Proxy {
    /// Serves until `stop` completes. Then it accepts no new connections, and waits up to `grace` for requests to
    /// end.
    pub async fn serve(
        self: Arc<Self>,
        endpoints: Vec<Endpoint>,
        stop: impl Future<Output = ()>,
        grace: Duration,
    ) {
        let stopping = watch::Sender::new(false);
        let mut tasks = Vec::new();
        for endpoint in endpoints {
            tasks.push(tokio::spawn(self.clone().accept(endpoint, stopping.subscribe())));
        }
        tasks.extend(self.keepers.iter().map(|keeper| tokio::spawn(keeper.clone().keep_fresh())));
        stop.await;
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        let ended = async {
            stopping.send_replace(true);
            stopping.closed().await;
            // An upgraded connection (WebSocket) is not an HTTP connection any more; wait for it too.
            while self.routes.all().iter().any(|route| route.is_busy()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(grace, ended).await;
    }

    async fn accept(self: Arc<Self>, endpoint: Endpoint, stop: watch::Receiver<bool>) {
        match &endpoint {
            Endpoint::Tcp(listener) | Endpoint::Watch(listener) => {
                let watch = matches!(endpoint, Endpoint::Watch(_));
                let accept = || async {
                    let (stream, _) = listener.accept().await?;
                    let _ = stream.set_nodelay(true);
                    let own = stream.local_addr().map(|address| address.port()).ok();
                    Ok((stream, own))
                };
                self.accept_by(accept, watch, &stop).await;
            }
            Endpoint::Unix(listener) => {
                let accept = || async { Ok((listener.accept().await?.0, None)) };
                self.accept_by(accept, false, &stop).await;
            }
        }
    }

    /// Accepts connections, and serves each that sends its first bytes in time.
    async fn accept_by<S, A>(
        self: &Arc<Self>,
        accept: impl Fn() -> A,
        watch: bool,
        stop: &watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Peek + Send + Sync + Unpin + 'static,
        A: Future<Output = io::Result<(S, Option<u16>)>>,
    {
        let mut waiting = JoinSet::new();
        loop {
            tokio::select! {
                accepted = accept() => match accepted {
                    Ok((stream, port)) => {
                        waiting.spawn(async move {
                            let beginning = tokio::time::timeout(HEAD, look(&stream)).await.ok()??;
                            Some((stream, port, beginning))
                        });
                    }
                    Err(error) => {
                        // Probably out of file descriptors: connections that end free some.
                        self.listener.warn(&format!("a connection could not be taken: {error}"));
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(began) = waiting.join_next() => {
                    if let Ok(Some((stream, port, beginning))) = began {
                        self.clone().connection(stream, beginning, stop.clone(), port, watch);
                    }
                }
            }
        }
    }

    fn connection<S>(
        self: Arc<Self>,
        stream: S,
        beginning: Beginning,
        stop: watch::Receiver<bool>,
        port: Option<u16>,
        watch: bool,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(move |request| {
            let this = self.clone();
            async move { Ok::<_, Infallible>(this.answer(request, port, watch).await) }
        });
        let stream = TokioIo::new(stream);
        // A broken connection is not an error of the proxy.
        if watch || beginning == Beginning::Http1 {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
            let connection = builder.serve_connection(stream, service).with_upgrades();
            tokio::spawn(until_stopped(connection, http1::UpgradeableConnection::graceful_shutdown, stop));
        } else {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
            builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(HEAD));
            let connection = builder.serve_connection_with_upgrades(stream, service).into_owned();
            tokio::spawn(until_stopped(connection, auto::UpgradeableConnection::graceful_shutdown, stop));
        }
    }

    async fn answer(&self, request: Request<Incoming>, port: Option<u16>, watch: bool) -> Response<Answer> {
        if !self.log_requests {
            return self.route(request, port, watch).await;
        }
        let started = std::time::Instant::now();
        // Without the query, which may contain secrets.
        let (method, path) = (request.method().clone(), sanitized(request.uri().path()));
        let answer = self.route(request, port, watch).await;
        let (status, took) = (answer.status().as_u16(), started.elapsed().as_millis());
        self.listener.instruct(&format!("{method} {path} {status} {took} ms"));
        answer
    }

    async fn route(&self, request: Request<Incoming>, port: Option<u16>, watch: bool) -> Response<Answer> {
        if let Some(why) = ambiguous(request.headers()) {
            self.metrics.refused.fetch_add(1, Ordering::Relaxed);
            return problem(StatusCode::BAD_REQUEST, why, None);
        }
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        // Probes use the pod's address.
        let ours = |host: &str| watch || is_ours(host, port);
        let refused = |status, why: &str| {
            self.metrics.refused.fetch_add(1, Ordering::Relaxed);
            problem(status, why, None)
        };
        if is_cross_site(request.headers(), |host| is_ours(host, port)) {
            return refused(StatusCode::FORBIDDEN, "a page of another site may not use the proxy");
        }
        if request.method() == Method::CONNECT {
            return refused(
                StatusCode::METHOD_NOT_ALLOWED,
                "a tunnel cannot carry our token: ask for http://HOST/…",
            );
        }
        let uri = request.uri().clone();
        match self.routes.find(&uri, host, ours) {
            RouteTarget::Api(..) if watch => {
                refused(StatusCode::FORBIDDEN, "this endpoint serves only probes and metrics")
            }
            RouteTarget::Api(route, rest) => forward(route, &rest, request).await,
            RouteTarget::Own(path) => self.own(path, &request, watch).await,
            RouteTarget::Nothing(status, why) => refused(status, &why),
        }
    }

    async fn own(&self, path: &str, request: &Request<Incoming>, watch: bool) -> Response<Answer> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return problem(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here", None);
        }
        match path.split_once('/').unwrap_or((path, "")) {
            ("healthz", "") => typed(StatusCode::OK, "text/plain", "ok\n"),
            ("readyz", "") => self.ready(watch).await,
            ("metrics", "") => {
                let page = self.metrics.page(&self.routes, &self.keepers, self.clock);
                typed(StatusCode::OK, "text/plain; version=0.0.4", page)
            }
            ("aws-credentials", name) if !watch => match &self.aws_secret {
                Some(secret) => aws(&self.keepers, name, request, secret, self.clock).await,
                None => problem(
                    StatusCode::NOT_FOUND,
                    "the AWS credentials endpoint is off",
                    Some("start the proxy with --aws-token-file FILE"),
                ),
            },
            _ => problem(StatusCode::NOT_FOUND, "there is no such path", None),
        }
    }

    /// The socket for probes is open to anyone, so it reports only the provider's name and not the error.
    async fn ready(&self, watch: bool) -> Response<Answer> {
        let mut missing = Vec::new();
        for keeper in &self.keepers {
            match tokio::time::timeout(READY, keeper.credential()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if !watch => missing.push(format!("{}: {error}\n", keeper.name())),
                _ => missing.push(format!("{}: no token yet\n", keeper.name())),
            }
        }
        match missing.is_empty() {
            true => typed(StatusCode::OK, "text/plain", "ok\n"),
            false => typed(StatusCode::SERVICE_UNAVAILABLE, "text/plain", missing.concat()),
        }
    }
}

/// Serves a connection to its end. After `stop` it accepts no new request.
async fn until_stopped<C: Future>(
    connection: C,
    shut_down: fn(Pin<&mut C>),
    mut stop: watch::Receiver<bool>,
) {
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => shut_down(connection.as_mut()),
    }
    connection.await;
}

/// Whether a `Host` is this proxy itself: a name of loopback, with our port. Any other name that resolves to here is
/// an attack (DNS rebinding), or an API's.
fn is_ours(host: &str, port: Option<u16>) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    postern_net::address::is_loopback(authority.host())
        && (port.is_none() || authority.port_u16().unwrap_or(80) == port.unwrap_or(80))
}

/// The container credentials endpoint of the AWS SDKs.
async fn aws(
    keepers: &[Arc<Keeper<Exchanger>>],
    name: &str,
    request: &Request<Incoming>,
    secret: &str,
    clock: SystemClock,
) -> Response<Answer> {
    let presented = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    // Hashes are compared, so that the comparison's time reveals nothing.
    if blake3::hash(presented) != blake3::hash(secret.as_bytes()) {
        return problem(
            StatusCode::UNAUTHORIZED,
            "Authorization is not the value that this endpoint requires",
            None,
        );
    }
    let Some(keeper) = keepers.iter().find(|keeper| keeper.name() == name) else {
        return problem(StatusCode::NOT_FOUND, "there is no such provider", None);
    };
    match keeper.credential().await {
        Ok(cached) => match &cached.credential {
            Credential::Aws(session) => {
                let text = aws_container(session, &cached, clock.now());
                typed(StatusCode::OK, "application/json", text.as_bytes().to_vec())
            }
            Credential::Bearer(_) => problem(StatusCode::NOT_FOUND, "this provider is not AWS", None),
        },
        Err(error) => problem(StatusCode::BAD_GATEWAY, &error.to_string(), error.cause()),
    }
}

/// Serves only that endpoint, for one provider, as `identity exec` needs it.
pub async fn serve_aws_only(
    listener: TcpListener,
    keeper: Arc<Keeper<Exchanger>>,
    secret: Zeroizing<String>,
) {
    let listener_of_warnings = keeper.exchanger().listener.clone();
    let proxy = Proxy {
        routes: Routes::none(),
        keepers: vec![keeper],
        aws_secret: Some(secret),
        listener: listener_of_warnings,
        log_requests: false,
        metrics: Metrics::default(),
        clock: SystemClock::new(),
    };
    let stopping = watch::Sender::new(false);
    Arc::new(proxy).accept(Endpoint::Tcp(listener), stopping.subscribe()).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    #[test]
    fn our_own_names_are_those_of_loopback_at_our_port() {
        for (host, port, want) in [
            ("127.0.0.1:8080", Some(8080), true),
            ("localhost:8080", Some(8080), true),
            ("[::1]:8080", Some(8080), true),
            ("localhost", None, true),
            ("127.0.0.1:81", Some(8080), false),
            ("evil.example.com:8080", Some(8080), false),
            ("localhost.evil.com", None, false),
            ("a b", None, false),
        ] {
            assert_eq!(is_ours(host, port), want, "{host}");
        }
    }

    fn proxy() -> Arc<Proxy> {
        Arc::new(Proxy {
            routes: Routes::none(),
            keepers: Vec::new(),
            aws_secret: None,
            listener: Listener(Arc::new(|_| ())),
            log_requests: false,
            metrics: Metrics::default(),
            clock: SystemClock::new(),
        })
    }

    /// The clock is paused, so it advances to the time limit as soon as nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_whole_request_is_disconnected_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopping = watch::Sender::new(false);
        let served = tokio::spawn(proxy().accept(Endpoint::Tcp(listener), stopping.subscribe()));
        for sent in ["", "G", "GET /healthz HTTP/1.1\r\nHost: "] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent.as_bytes()).await.unwrap();
            let started = tokio::time::Instant::now();
            let mut answer = Vec::new();
            // A connection that is reset is closed, too.
            let _ = client.read_to_end(&mut answer).await;
            let took = started.elapsed();
            assert!(took >= HEAD && took < HEAD * 2 + Duration::from_secs(1), "{sent:?}: {took:?}");
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{sent:?}");
        }
        assert!(!served.is_finished());
    }
}
