//! The answers of the proxy: the API's, or its own.

use super::body::ForwardedBody;
use super::counters::Open;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of an answer: the API's, or the proxy's own.
#[derive(Debug)]
pub(super) struct Answer {
    body: ForwardedBody,
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
        Self { body: ForwardedBody::whole(Bytes::new()), _open: None }
    }

    pub(super) fn passing(body: Incoming, open: Open) -> Self {
        Self { body: ForwardedBody::Stream(body), _open: Some(OpenMark(open)) }
    }

    fn text(text: impl Into<Bytes>) -> Self {
        Self { body: ForwardedBody::whole(text), _open: None }
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

/// Sanitizes an untrusted text for a message.
pub(super) fn sanitized(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(100).collect()
}

/// The proxy's answer if the API does not answer: JSON with the reason and what usually helps.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// Whether a retry after a second may succeed.
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

pub(super) fn typed(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Answer> {
    let mut answer = Response::new(Answer::text(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
