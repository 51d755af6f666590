//! `/healthz`, `/readyz` and `/metrics`.

use crate::state::State;
use crate::webhook::server::{Certificates, plain};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// What readiness follows from.
pub(crate) struct Health {
    pub(crate) state: Arc<State>,
    pub(crate) certificates: Arc<Certificates>,
    /// Whether the program ends, and wants no new requests.
    pub(crate) ends: AtomicBool,
}

impl Health {
    /// Why the program is not ready; `None` if it is.
    fn missing(&self) -> Option<&'static str> {
        if self.ends.load(Ordering::Relaxed) {
            Some("the program ends")
        } else if !self.state.is_ready() {
            Some("not all kinds were read yet")
        } else if !self.certificates.is_ready() {
            Some("the webhook has no certificate yet")
        } else {
            None
        }
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/healthz" => plain(StatusCode::OK, "ok"),
            "/readyz" => match self.missing() {
                None => plain(StatusCode::OK, "ok"),
                Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            "/metrics" => plain(StatusCode::OK, &self.state.metrics.text()),
            _ => plain(StatusCode::NOT_FOUND, "not found"),
        }
    }
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, health: Arc<Health>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let health = health.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = health.answer(request.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .serve_connection(TokioIo::new(stream), service);
            // A probe that goes away is no error.
            let _ = connection.await;
        });
    }
}
