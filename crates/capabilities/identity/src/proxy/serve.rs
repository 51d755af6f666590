//! Doors, connections, and what we answer ourselves.

use super::body::Passing;
use super::first_bytes::{Beginning, Peek, look};
use super::forward::forward;
use super::headers::{ambiguous, is_of_a_foreign_page};
use super::metrics::{Metrics, Open};
use super::route::{Found, Routes};
use crate::exchange::{Credential, Exchanger, Listener};
use crate::keeper::{Clock as _, Keeper, SystemClock};
use crate::render::aws_container;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
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
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

/// How long a client may take to say what it wants.
const HEAD: Duration = Duration::from_secs(30);

/// How long `/readyz` waits for tokens.
const READY: Duration = Duration::from_secs(5);

/// Where clients come in.
#[derive(Debug)]
pub enum Door {
    /// On loopback.
    Tcp(TcpListener),
    /// A socket in the file system.
    Unix(UnixListener),
    /// For probes and Prometheus only: it opens no API.
    Watch(TcpListener),
}

/// The proxy.
#[derive(Debug)]
pub struct Proxy {
    /// The APIs.
    pub routes: Routes,
    /// Every provider, with an API or without.
    pub keepers: Vec<Arc<Keeper<Exchanger>>>,
    /// What the AWS endpoint demands as `Authorization`; without it there is none.
    pub aws_secret: Option<Zeroizing<String>>,
    /// Who hears what went wrong.
    pub listener: Listener,
    /// Whether each request is told.
    pub log_requests: bool,
    /// Counts.
    pub metrics: Metrics,
    /// The clock.
    pub clock: SystemClock,
}

/// An answer's body: the API's, or ours.
#[derive(Debug)]
pub(super) struct Answer {
    body: Passing,
    _open: Option<OpenMark>,
}

struct OpenMark(#[allow(dead_code, reason = "it counts while it lives")] Open);

impl std::fmt::Debug for OpenMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenMark")
    }
}

impl Answer {
    pub(super) fn empty() -> Self {
        Self { body: Passing::whole(Bytes::new()), _open: None }
    }

    pub(super) fn passing(body: Incoming, open: Open) -> Self {
        Self { body: Passing::Stream(body), _open: Some(OpenMark(open)) }
    }

    fn text(text: impl Into<Bytes>) -> Self {
        Self { body: Passing::whole(text), _open: None }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stranger's words, for a message of ours.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(100).collect()
}

/// What we answer when the API does not: JSON that says what, why and what usually helps.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// It may be otherwise in a second.
    pub(super) again: bool,
}

impl Problem {
    fn body(&self) -> String {
        let Self { status: _, message, hint, again: _ } = self;
        let value = serde_json::json!({"error": {"kind": "postern_proxy", "message": message, "hint": hint}});
        format!("{value}\n")
    }

    pub(super) fn response(&self) -> Response<Answer> {
        let mut answer = typed(self.status, "application/json", self.body());
        if self.again {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}

pub(super) fn problem(status: StatusCode, message: &str, hint: Option<&str>) -> Response<Answer> {
    Problem { status, message: message.to_owned(), hint: hint.map(str::to_owned), again: false }.response()
}

fn typed(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Answer> {
    let mut answer = Response::new(Answer::text(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

impl Proxy {
    /// Serves until `stop` comes; then takes no new connections and lets requests end, for `grace` at most.
    pub async fn serve(self: Arc<Self>, doors: Vec<Door>, stop: impl Future<Output = ()>, grace: Duration) {
        let stopping = watch::Sender::new(false);
        let mut tasks = Vec::new();
        for door in doors {
            tasks.push(tokio::spawn(self.clone().accept(door, stopping.subscribe())));
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
            // What was upgraded (WebSocket) is no connection of HTTP any more, and is let end as well.
            while self.routes.all().iter().any(|route| route.is_busy()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(grace, ended).await;
    }

    async fn accept(self: Arc<Self>, door: Door, stop: watch::Receiver<bool>) {
        match &door {
            Door::Tcp(listener) | Door::Watch(listener) => {
                let watch = matches!(door, Door::Watch(_));
                let accept = || async {
                    let (stream, _) = listener.accept().await?;
                    let _ = stream.set_nodelay(true);
                    let own = stream.local_addr().map(|address| address.port()).ok();
                    Ok((stream, own))
                };
                self.accept_by(accept, watch, &stop).await;
            }
            Door::Unix(listener) => {
                let accept = || async { Ok((listener.accept().await?.0, None)) };
                self.accept_by(accept, false, &stop).await;
            }
        }
    }

    /// Takes connections, and serves each that says something in time.
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
                        // Out of descriptors, most likely: those who are served bring some back.
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
        // A connection that breaks is its client's affair.
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
        // Without the query: it may hold anything.
        let (method, path) = (request.method().clone(), shown(request.uri().path()));
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
        // Probes come by the pod's address.
        let ours = |host: &str| watch || is_ours(host, port);
        let refused = |status, why: &str| {
            self.metrics.refused.fetch_add(1, Ordering::Relaxed);
            problem(status, why, None)
        };
        if is_of_a_foreign_page(request.headers(), |host| is_ours(host, port)) {
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
            Found::Api(..) if watch => {
                refused(StatusCode::FORBIDDEN, "this door is for probes and metrics only")
            }
            Found::Api(route, rest) => forward(route, &rest, request).await,
            Found::Own(path) => self.own(path, &request, watch).await,
            Found::Nothing(status, why) => refused(status, &why),
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

    /// Who is at a door that anyone may reach hears which provider it is, and not what it said.
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

/// Serves a connection to its end. After `stop` it takes no new request.
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

/// Whether a `Host` is this proxy's own: a name of loopback, with our port. Any other name that leads here is
/// somebody's trick (DNS rebinding), or an API's.
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
    let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    // Hashes are compared, so that the time it takes says nothing.
    if blake3::hash(shown) != blake3::hash(secret.as_bytes()) {
        return problem(StatusCode::UNAUTHORIZED, "Authorization is not what this endpoint demands", None);
    }
    let Some(keeper) = keepers.iter().find(|keeper| keeper.name() == name) else {
        return problem(StatusCode::NOT_FOUND, "there is no such provider", None);
    };
    match keeper.credential().await {
        Ok(held) => match &held.credential {
            Credential::Aws(session) => {
                let text = aws_container(session, &held, clock.now());
                typed(StatusCode::OK, "application/json", text.as_bytes().to_vec())
            }
            Credential::Bearer(_) => problem(StatusCode::NOT_FOUND, "this provider is not AWS", None),
        },
        Err(error) => problem(StatusCode::BAD_GATEWAY, &error.to_string(), error.cause()),
    }
}

/// Only that endpoint, for one provider: what `identity exec` gives a command.
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
    Arc::new(proxy).accept(Door::Tcp(listener), stopping.subscribe()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
