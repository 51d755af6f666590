//! From HTTP/1.1 to HTTP/1.1: the plain kind of request, which is nearly every one, at the cost of its system calls.
//!
//! hyper serves all others: as soon as a connection brings one, it goes to hyper with all that was read, and stays there.
//! It is so with HTTP/2 on either side, changed protocols, long uploads, what is ours to answer and whatever is odd.
//! A stream that is silent costs no buffer here (see [`flow`]).

mod answer;
mod flow;
mod framing;
mod pool;
mod request;

pub(super) use pool::Pool;

use super::forward::{innermost, no_token, unusable};
use super::headers::FOR_ONE_HOP;
use super::metrics::Open;
use super::route::{Found, Route};
use super::serve::{HEAD, Problem, Proxy, is_ours, shown};
use crate::keeper::Held;
use answer::Head;
use flow::{Ended, Gone};
use framing::{Framing, chunk};
use http::uri::Scheme;
use http::{Method, StatusCode};
use pool::Upstream;
use request::{Plain, Said};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// The most headers that a message may have, as hyper has it.
const HEADERS: usize = 100;

fn is_for_one_hop(name: &str) -> bool {
    FOR_ONE_HOP.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn write_header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// A number as HTTP writes it: digits, and nothing else.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Bytes to each reader, for the fuzz targets: what is passed on must be what was read, however it came.
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Said::Plain(plain) = request::read(bytes) {
        let head = plain.write(["", "/"], "api", b"Bearer t", b"");
        // Another reader finds one request in it, and no other credential.
        let mut headers = [httparse::EMPTY_HEADER; HEADERS + 4];
        let mut again = httparse::Request::new(&mut headers);
        let parsed = again.parse(&head);
        assert!(parsed.is_ok_and(|status| status == httparse::Status::Complete(head.len())));
        for (name, most) in
            [("authorization", 1), ("host", 1), ("content-length", 1), ("transfer-encoding", 0)]
        {
            let found = again.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            assert!(found.count() <= most, "{name}");
        }
    }
    for bodiless in [false, true] {
        if let Ok(answer::Said::Head(mut head)) = answer::read(bytes, bodiless) {
            assert!(head.length <= bytes.len());
            head.text.extend_from_slice(b"\r\n");
            let mut headers = [httparse::EMPTY_HEADER; HEADERS + 1];
            let parsed = httparse::Response::new(&mut headers).parse(&head.text);
            assert!(parsed.is_ok_and(|status| status == httparse::Status::Complete(head.text.len())));
        }
    }
    assert_eq!(framing::whole(bytes, 1), framing::whole(bytes, bytes.len()));
}

/// What became of a request.
enum Outcome {
    /// It was answered, and the next may come.
    Next,
    /// It was the last one.
    Close,
    /// It is hyper's.
    Hyper,
}

/// Why there is no answer to pass on.
enum NoAnswer {
    /// The client is gone.
    Client,
    /// This is said instead.
    Problem(Problem),
    /// The API speaks HTTP/2.
    Http2,
}

impl From<Gone> for NoAnswer {
    fn from(Gone: Gone) -> Self {
        Self::Client
    }
}

/// The beginning of an answer.
struct Beginning {
    head: Head,
    /// What came of it: the head, and what followed at once.
    bytes: Vec<u8>,
    api: Upstream,
}

/// Serves a connection for as long as it brings plain requests; then what is left of it, with what was read.
pub(super) async fn serve<C: AsyncRead + AsyncWrite + Unpin>(
    proxy: &Proxy,
    mut client: C,
    port: Option<u16>,
    mut stop: watch::Receiver<bool>,
) -> Option<(C, Vec<u8>)> {
    let (mut said, mut first) = (Vec::new(), true);
    loop {
        if said.is_empty() {
            tokio::select! {
                biased;
                more = flow::more(&mut client, &mut said) => if more.ok()? == 0 { return None },
                _ = stop.changed() => return None,
                // Who says nothing at all is not waited for.
                () = tokio::time::sleep(HEAD), if first => return None,
            }
            first = false;
        }
        let plain = match request::read(&said) {
            Said::Plain(plain) if plain.length() <= said.len() => plain,
            Said::Plain(_) | Said::More => match Box::pin(whole(&mut client, &mut said, &mut stop)).await? {
                Some(plain) => plain,
                None => return Some((client, said)),
            },
            Said::Other => return Some((client, said)),
        };
        match exchange(proxy, &mut client, port, plain, &mut said, &stop).await? {
            Outcome::Hyper => return Some((client, said)),
            Outcome::Close => return None,
            Outcome::Next if *stop.borrow() => return None,
            Outcome::Next => {}
        }
    }
}

/// Waits for the rest of a request; nothing when it is hyper's.
async fn whole<C: AsyncRead + Unpin>(
    client: &mut C,
    said: &mut Vec<u8>,
    stop: &mut watch::Receiver<bool>,
) -> Option<Option<Plain>> {
    let end = tokio::time::Instant::now() + HEAD;
    loop {
        let more = match request::read(said) {
            Said::Other => return Some(None),
            Said::Plain(plain) if plain.length() <= said.len() => return Some(Some(plain)),
            Said::Plain(_) => flow::more(client, said).await,
            Said::More => tokio::select! {
                biased;
                more = flow::more(client, said) => more,
                _ = stop.changed() => return None,
                () = tokio::time::sleep_until(end) => return None,
            },
        };
        if more.ok()? == 0 {
            return None;
        }
    }
}

/// Serves one request. Nothing when the client is gone, or the answer broke off: then its connection must, too.
async fn exchange<C: AsyncRead + AsyncWrite + Unpin>(
    proxy: &Proxy,
    client: &mut C,
    port: Option<u16>,
    plain: Plain,
    said: &mut Vec<u8>,
    stop: &watch::Receiver<bool>,
) -> Option<Outcome> {
    let found = proxy.routes.find(&plain.uri, Some(&plain.host), |host| is_ours(host, port));
    let Found::Api(route, rest) = found else { return Some(Outcome::Hyper) };
    let route = &route.clone();
    if route.is_http2.load(Ordering::Relaxed) {
        return Some(Outcome::Hyper);
    }
    let open = Open::of(route);
    let (length, bodiless, close) = (plain.length(), plain.method == Method::HEAD, plain.close);
    // Without the query: it may hold anything.
    let told =
        proxy.log_requests.then(|| (Instant::now(), format!("{} {}", plain.method, shown(plain.uri.path()))));
    let asked = with_token(route, &rest, &plain, client, said).await;
    drop((plain, rest));
    let asked = match asked {
        Err(NoAnswer::Client) => return None,
        Err(NoAnswer::Http2) => return Some(Outcome::Hyper),
        Err(NoAnswer::Problem(problem)) => Err(problem),
        Ok(beginning) => Ok(beginning),
    };
    said.drain(..length);
    if said.is_empty() {
        // No room is held for what may come.
        *said = Vec::new();
    }
    let close = close || *stop.borrow();
    let status = asked.as_ref().map_or_else(|problem| problem.status, |beginning| beginning.head.status);
    if let Some((began, what)) = told {
        proxy.listener.instruct(&format!("{what} {} {} ms", status.as_u16(), began.elapsed().as_millis()));
    }
    match asked {
        Ok(beginning) => {
            route.counters.answered(status);
            deliver(route, beginning, client, said, close).await?;
        }
        Err(problem) => client.write_all(&problem.text(bodiless, close)).await.ok()?,
    }
    drop(open);
    Some(if close { Outcome::Close } else { Outcome::Next })
}

/// Asks with our token; once more with a newer one where the API refuses the first.
async fn with_token<C: AsyncRead + Unpin>(
    route: &Arc<Route>,
    rest: &str,
    plain: &Plain,
    client: &mut C,
    said: &mut Vec<u8>,
) -> Result<Beginning, NoAnswer> {
    let keeper = &route.keeper;
    let credential = match keeper.fresh() {
        Some(credential) => credential,
        None => {
            Box::pin(keeper.credential()).await.map_err(|error| NoAnswer::Problem(no_token(route, &error)))?
        }
    };
    let write = |credential: &Held, said: &[u8]| {
        let path = [route.base.as_str(), rest];
        let body = &said[plain.head..plain.length()];
        let text = plain.write(path, &route.host, credential.header()?.as_bytes(), body);
        Some(Zeroizing::new(text))
    };
    let text = write(&credential, said).ok_or_else(|| NoAnswer::Problem(unusable(route)))?;
    let beginning = ask(route, &text, plain, client, said).await?;
    if beginning.head.status == StatusCode::UNAUTHORIZED
        && keeper.refused(&credential)
        && let Ok(newer) = Box::pin(keeper.credential()).await
        && newer.hash() != credential.hash()
        && let Some(text) = write(&newer, said)
    {
        drop(beginning);
        route.counters.retried.fetch_add(1, Ordering::Relaxed);
        return ask(route, &text, plain, client, said).await;
    }
    Ok(beginning)
}

/// Sends a request, and waits for the head of its answer.
async fn ask<C: AsyncRead + Unpin>(
    route: &Arc<Route>,
    text: &[u8],
    plain: &Plain,
    client: &mut C,
    said: &mut Vec<u8>,
) -> Result<Beginning, NoAnswer> {
    let failed = |why: &str| {
        route.counters.failed.fetch_add(1, Ordering::Relaxed);
        NoAnswer::Problem(route.did_not_answer(why))
    };
    loop {
        let waiting = route.pool.take();
        let used = waiting.is_some();
        let mut api = match waiting {
            Some(api) => api,
            None => {
                let connected = flow::meanwhile(client, said, Box::pin(route.connect())).await?;
                let stream = connected.map_err(|error| failed(&innermost(&*error)))?;
                if stream.is_http2() {
                    route.is_http2.store(true, Ordering::Relaxed);
                    return Err(NoAnswer::Http2);
                }
                Upstream::new(stream)
            }
        };
        // A server may close a connection just when we take it. What was not heard, or changes nothing, is asked again; by
        // TLS nobody knows what of a piece was sent.
        let sent = flow::meanwhile(client, said, pin!(send(&mut api, text))).await?;
        let mut bytes = Vec::new();
        let (read, unheard) = match sent {
            Ok(()) => (head(&mut api, plain, client, said, &mut bytes).await, false),
            Err((error, first)) => (Err(Ended::Api(error)), first && route.scheme == Scheme::HTTP),
        };
        match read {
            Ok(head) => return Ok(Beginning { head, bytes, api }),
            Err(Ended::Client) => return Err(NoAnswer::Client),
            Err(Ended::Api(_)) if used && (unheard || bytes.is_empty() && plain.is_safe()) => {}
            Err(Ended::Api(error)) => return Err(failed(&error.to_string())),
        }
    }
}

/// Sends all of a request. What went wrong comes with whether nothing was taken before.
async fn send(api: &mut Upstream, text: &[u8]) -> Result<(), (io::Error, bool)> {
    let count = api.write(text).await.map_err(|error| (error, true))?;
    let rest = async {
        api.write_all(&text[count..]).await?;
        // TLS takes more than the socket does, and sends the rest when it is told to.
        api.flush().await
    };
    rest.await.map_err(|error| (error, false))
}

async fn head<C: AsyncRead + Unpin>(
    api: &mut Upstream,
    plain: &Plain,
    client: &mut C,
    said: &mut Vec<u8>,
    bytes: &mut Vec<u8>,
) -> Result<Head, Ended> {
    let bad = |why: &'static str| Ended::Api(io::Error::new(io::ErrorKind::InvalidData, why));
    loop {
        if flow::more_of_answer(client, said, api, bytes).await? == 0 {
            return Err(Ended::Api(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")));
        }
        loop {
            match answer::read(bytes, plain.method == Method::HEAD).map_err(bad)? {
                answer::Said::Head(head) => return Ok(head),
                answer::Said::Interim(length) => drop(bytes.drain(..length)),
                answer::Said::More => break,
            }
        }
    }
}

/// Passes an answer on, from its beginning to its end.
async fn deliver<C: AsyncRead + AsyncWrite + Unpin>(
    route: &Route,
    beginning: Beginning,
    client: &mut C,
    said: &mut Vec<u8>,
    close: bool,
) -> Option<()> {
    let Beginning { head, bytes, mut api } = beginning;
    let Head { status: _, mut framing, reusable, length, mut text } = head;
    if close {
        write_header(&mut text, b"connection", b"close");
    }
    text.extend_from_slice(b"\r\n");
    let first = &bytes[length..];
    let own = framing.advance(first).ok()?;
    match framing {
        Framing::UntilClose if !first.is_empty() => chunk(&mut text, first),
        _ => text.extend_from_slice(&first[..own]),
    }
    let reusable = reusable && own == first.len();
    drop(bytes);
    if framing.is_done() {
        // Before the client has it all: its next request finds this connection.
        if reusable {
            route.pool.put(api);
        }
        return client.write_all(&text).await.ok();
    }
    client.write_all(&text).await.ok()?;
    drop(text);
    let alone = flow::pass(client, said, &mut api, &mut framing).await.ok()?;
    if reusable && alone {
        route.pool.put(api);
    }
    Some(())
}
