//! The HTTPS server. The API server reaches it by the Service.

use crate::error::chain;
use crate::traces::continue_trace;
use crate::webhook::review::Reviewer;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tracing::Instrument as _;
use tracing::field::Empty;

/// The path of the webhook.
pub(crate) const PATH: &str = "/mutate/pods";
/// The largest request; the API server's own limit for objects is 3 MiB.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// For a handshake, and for a request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time; the API servers need a few dozen.
const MOST_CONNECTIONS: usize = 200;
/// For answers that were begun when the program ends.
const DRAIN: Duration = Duration::from_secs(10);

/// The certificate of new connections.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    current: RwLock<Option<Arc<CertifiedKey>>>,
}

impl Certificates {
    /// Takes a certificate and its key, both PEM; the error is for display.
    pub(crate) fn set(&self, certificate: &[u8], key: &[u8]) -> Result<(), String> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("tls.crt: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("tls.key: {error}"))?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| error.to_string())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }

    /// Whether there is one.
    pub(crate) fn is_ready(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Serves until `stop`; then answers what was begun.
pub(crate) async fn serve(
    listener: TcpListener,
    certificates: Arc<Certificates>,
    reviewer: Arc<Reviewer>,
    stop: impl Future<Output = ()>,
) -> Result<(), rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut stop = std::pin::pin!(stop);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let (acceptor, reviewer, watcher) = (acceptor.clone(), reviewer.clone(), graceful.watcher());
        // One too many is closed.
        let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
        tokio::spawn(async move {
            let _permit = permit;
            // Answers are small, and must not wait for more.
            let _ = stream.set_nodelay(true);
            let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else {
                return;
            };
            let service = service_fn(move |request| answer(reviewer.clone(), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(None)
                .serve_connection(TokioIo::new(stream), service);
            // The API server keeps connections, and closes them when it likes.
            let _ = watcher.watch(connection).await;
        });
    }
    drop(listener);
    // Whoever takes longer is cut off.
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    Ok(())
}

async fn answer(
    reviewer: Arc<Reviewer>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != PATH {
        return Ok(plain(StatusCode::NOT_FOUND, "not found"));
    }
    let span = tracing::info_span!("admission", otel.kind = "server", namespace = Empty, outcome = Empty);
    continue_trace(&span, request.headers());
    Ok(answer_review(&reviewer, request.into_body()).instrument(span).await)
}

async fn answer_review(reviewer: &Reviewer, body: Incoming) -> Response<Full<Bytes>> {
    let body = Limited::new(body, MOST_BYTES).collect();
    let Ok(Ok(body)) = tokio::time::timeout(PATIENCE, body).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large, or too slow");
    };
    match reviewer.review(&body.to_bytes()).await {
        Ok(text) => {
            let mut response = Response::new(Full::from(text));
            let json = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => plain(StatusCode::BAD_REQUEST, &error),
    }
}

/// A response that is text.
pub(crate) fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text.to_owned()));
    *response.status_mut() = status;
    response
}
