//! Forwards one request to an API, with our token.

use super::body::ForwardedBody;
use super::counters::Open;
use super::headers::{strip_credentials, strip_hop_by_hop, upgrade};
use super::response::{Answer, Problem, problem};
use super::route::Route;
use crate::keeper::{CachedCredential, KeeperError};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bodies of a known size up to this many bytes are buffered, so that they can be sent again after a 401.
const REPLAYABLE: u64 = 64 * 1024;

/// How often a safe request is sent again when its connection was closed.
const RETRIES: usize = 3;

/// Forwards a request; `below` is its path and query below the API's base.
pub(super) async fn forward(route: &Arc<Route>, below: &str, request: Request<Incoming>) -> Response<Answer> {
    let open = Open::new(&route.counters);
    let Some(uri) = route.uri(below) else {
        return problem(StatusCode::BAD_REQUEST, "the path cannot be forwarded", None);
    };
    let wanted = upgrade(request.headers());
    let (mut head, body) = request.into_parts();
    let client_upgrade = wanted.as_ref().and_then(|_| head.extensions.remove::<hyper::upgrade::OnUpgrade>());
    strip_hop_by_hop(&mut head.headers);
    strip_credentials(&mut head.headers);
    if let Some(protocol) = &wanted {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, protocol.clone());
    }
    (head.uri, head.version) = (uri, Version::HTTP_11);
    let (first, again) = match take(body).await {
        Ok(found) => found,
        Err(error) => {
            return problem(StatusCode::BAD_REQUEST, &format!("reading the request's body: {error}"), None);
        }
    };
    // Not earlier: the body may take long, and a token is valid for a short time.
    let credential = match route.keeper.credential().await {
        Ok(credential) => credential,
        Err(error) => return no_token(route, &error).response(),
    };
    let client = if wanted.is_some() { &route.upgradable } else { &route.client };
    let kept = again.map(|body| (copy(&head), body));
    let Some(request) = authorized(head, first, &credential) else { return unusable(route).response() };
    let mut sent = client.request(request).await;
    // A server may close a kept connection just when a request is sent on it, and several of them at once.
    for _ in 0..RETRIES {
        if let Err(error) = &sent
            && let Some((head, body)) = &kept
            && head.method.is_safe()
            && is_closed(error)
            && let Some(request) = authorized(copy(head), ForwardedBody::whole(body.clone()), &credential)
        {
            sent = client.request(request).await;
        }
    }
    if let Ok(answer) = &sent
        && answer.status() == StatusCode::UNAUTHORIZED
        && route.keeper.refused(&credential)
        && let Some((head, body)) = kept
        && let Ok(newer) = route.keeper.credential().await
        && newer.hash() != credential.hash()
        && let Some(request) = authorized(head, ForwardedBody::whole(body), &newer)
    {
        route.counters.retried.fetch_add(1, Ordering::Relaxed);
        sent = client.request(request).await;
    }
    match sent {
        Ok(answer) => {
            route.counters.answered(answer.status());
            pass_on(answer, client_upgrade, open)
        }
        Err(error) => {
            route.counters.failed.fetch_add(1, Ordering::Relaxed);
            route.did_not_answer(&innermost(&error)).response()
        }
    }
}

/// Returns the body to send, and a copy if it is small enough to keep.
async fn take(body: Incoming) -> Result<(ForwardedBody, Option<Bytes>), hyper::Error> {
    if body.is_end_stream() {
        return Ok((ForwardedBody::whole(Bytes::new()), Some(Bytes::new())));
    }
    match body.size_hint().exact() {
        Some(size) if size <= REPLAYABLE => {
            let whole = body.collect().await?.to_bytes();
            Ok((ForwardedBody::whole(whole.clone()), Some(whole)))
        }
        _ => Ok((ForwardedBody::Stream(body), None)),
    }
}

fn copy(head: &Parts) -> Parts {
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method = head.method.clone();
    copy.uri = head.uri.clone();
    copy.version = head.version;
    copy.headers = head.headers.clone();
    copy
}

fn authorized(
    mut head: Parts,
    body: ForwardedBody,
    credential: &CachedCredential,
) -> Option<Request<ForwardedBody>> {
    head.headers.insert(AUTHORIZATION, credential.header()?.clone());
    Some(Request::from_parts(head, body))
}

fn unusable(route: &Route) -> Problem {
    let why = format!("{} has no bearer token: its API cannot be reached through the proxy", route.name());
    Problem { status: StatusCode::BAD_GATEWAY, message: why, hint: None, again: false }
}

fn no_token(route: &Route, error: &Arc<KeeperError>) -> Problem {
    route.counters.without_token.fetch_add(1, Ordering::Relaxed);
    let again = matches!(&**error, KeeperError::Exchange(error) if error.is_transient());
    let status = if again { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_GATEWAY };
    let message = format!("no token of {}: {error}", route.name());
    Problem { status, message, hint: error.cause().map(str::to_owned), again }
}

/// Returns the API's answer as a stream. After an upgrade, the two connections are joined.
fn pass_on(
    mut answer: Response<Incoming>,
    client: Option<hyper::upgrade::OnUpgrade>,
    open: Open,
) -> Response<Answer> {
    let switching = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = answer.headers().get(UPGRADE).cloned();
    let server = switching.then(|| hyper::upgrade::on(&mut answer));
    let (mut head, body) = answer.into_parts();
    strip_hop_by_hop(&mut head.headers);
    // The version applies between the proxy and the client.
    head.version = Version::HTTP_11;
    if let (Some(server), Some(client)) = (server, client) {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            head.headers.insert(UPGRADE, protocol);
        }
        tokio::spawn(async move {
            let _open = open;
            if let (Ok(server), Ok(client)) = (server.await, client.await) {
                let (mut server, mut client) = (TokioIo::new(server), TokioIo::new(client));
                // However it ends, both connections have ended.
                let _ = tokio::io::copy_bidirectional(&mut server, &mut client).await;
            }
        });
        return Response::from_parts(head, Answer::empty());
    }
    Response::from_parts(head, Answer::passing(body, open))
}

/// Whether the server closed the connection before it answered. hyper itself retries a request that it had not begun
/// to send.
fn is_closed(error: &hyper_util::client::legacy::Error) -> bool {
    !error.is_connect() && broke_off(error)
}

/// Whether a connection ended, in any of the ways that systems and TLS (without `close_notify`) tell of it.
fn broke_off(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let by_hyper = error.downcast_ref::<hyper::Error>();
        if by_hyper.is_some_and(|error| error.is_incomplete_message() || error.is_closed()) {
            return true;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{
                BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
            };
            let ends = [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof];
            return ends.contains(&error.kind());
        }
        next = error.source();
    }
    false
}

/// Returns the message of the last cause, which is the most specific.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    /// A connection that takes what is sent, and then fails.
    struct Failing(io::ErrorKind);

    impl AsyncRead for Failing {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(self.0.into()))
        }
    }

    impl AsyncWrite for Failing {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, sent: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(sent.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn request_on(connection: Failing) -> hyper::Error {
        let (mut sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.unwrap();
        let request = Request::get("/").body(ForwardedBody::whole(Bytes::new())).unwrap();
        let answer = sender.send_request(request);
        let (answer, _) = tokio::join!(answer, driver);
        answer.unwrap_err()
    }

    #[tokio::test]
    async fn a_connection_that_broke_off_is_told_from_other_failures() {
        use io::ErrorKind::{ConnectionReset, InvalidData, UnexpectedEof};
        for (kind, want) in [(ConnectionReset, true), (UnexpectedEof, true), (InvalidData, false)] {
            let error = request_on(Failing(kind)).await;
            assert_eq!(broke_off(&error), want, "{kind:?}: {error:?}");
        }
    }
}
