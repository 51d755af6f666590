//! Requests to a token endpoint (RFC 6749 sections 3.2, 5.1 and 5.2).

use super::refusal::{self, Refusal, Sent};
use super::{ExchangeError, Issued, answer};
use crate::jwt::Claims;
use crate::request::{busy, send_with_retries};
use form_urlencoded::Serializer;
use http::{Request, header};
use postern_config::providers::ProviderType;
use postern_net::web::{Answer, Server};
use zeroize::Zeroizing;

/// The parameters of a form, in order; they may repeat.
pub(super) type Form = Vec<(String, Zeroizing<String>)>;

/// Headers in addition to those of every form.
pub(super) type Headers = [(header::HeaderName, Zeroizing<String>)];

/// Returns one parameter of a form.
pub(super) fn parameter(name: &str, value: impl Into<String>) -> (String, Zeroizing<String>) {
    (name.to_owned(), Zeroizing::new(value.into()))
}

/// Splits an address into the server's part and the request's part.
pub(crate) fn split(url: &str) -> (&str, &str) {
    let start = url.find("://").map_or(0, |at| at + 3);
    match url[start..].find(['/', '?']) {
        Some(at) => url.split_at(start + at),
        None => (url, "/"),
    }
}

/// The context of a request, to explain a refusal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    /// The provider's type.
    pub(super) r#type: ProviderType,
    /// The claims of the token that was sent, if any.
    pub(super) claims: Option<&'a Claims>,
    /// Whether the form must be sent only once.
    pub(super) once: bool,
}

/// Encodes as `application/x-www-form-urlencoded`.
pub(super) fn encode(form: &Form) -> Zeroizing<String> {
    let mut text = Serializer::new(String::new());
    for (name, value) in form {
        text.append_pair(name, value);
    }
    Zeroizing::new(text.finish())
}

/// A single-use parameter must not be sent twice: the server treats the second use as theft, and revokes what it
/// issued (RFC 6749 section 4.1.2, RFC 9700 section 4.14.2).
pub(super) fn is_for_once(form: &Form) -> bool {
    form.iter().any(|(name, _)| ["code", "refresh_token"].contains(&name.as_str()))
}

/// Posts a form, `once` or with retries; returns the answer, whatever it is.
pub(super) async fn post(
    server: &Server,
    url: &str,
    form: &Form,
    headers: &Headers,
    once: bool,
    transient: impl Fn(&Answer) -> bool,
) -> Result<Answer, ExchangeError> {
    let attempt = || format!("requesting a token from {url}");
    let body = encode(form);
    let mut request = Request::post(split(url).1)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json");
    for (name, value) in headers {
        request = request.header(name, value.as_str());
    }
    let request = request.body(body.as_bytes().to_vec()).map_err(|error| ExchangeError::Answer {
        server: url.to_owned(),
        why: format!("no request can be made of it: {error}"),
    })?;
    let sent = if once || is_for_once(form) {
        server.send(request).await
    } else {
        send_with_retries(server, &request, transient).await
    };
    sent.map_err(|source| ExchangeError::Web { attempt: attempt(), source })
}

/// Posts a form to a token endpoint and parses the token.
pub(super) async fn token(
    server: &Server,
    url: &str,
    form: &Form,
    headers: &Headers,
    asking: Asking<'_>,
) -> Result<Issued, ExchangeError> {
    let answer = post(server, url, form, headers, asking.once, |_| false).await?;
    judge(url, &answer, asking)
}

/// Returns a token, or the error.
pub(super) fn judge(url: &str, answer: &Answer, asking: Asking<'_>) -> Result<Issued, ExchangeError> {
    let Asking { r#type, claims, once: _ } = asking;
    // Some servers refuse with 200, such as GitHub's device flow.
    if (200..300).contains(&answer.status) && !has_error(&answer.body) {
        return answer::token(&answer.body)
            .map_err(|why| ExchangeError::Answer { server: url.to_owned(), why });
    }
    let (code, message) = refusal::read(answer.status, &answer.body);
    Err(refused(url, answer, (r#type, claims), code, message).into())
}

/// Returns the error of a refusal, with its usual cause.
pub(super) fn refused(
    url: &str,
    answer: &Answer,
    (r#type, claims): (ProviderType, Option<&Claims>),
    code: Option<String>,
    message: String,
) -> Refusal {
    let status = answer.status;
    let skew = answer.date.as_deref().and_then(refusal::skew);
    let sent = Sent { r#type, claims, skew };
    let cause = refusal::cause(&sent, status, code.as_deref(), &message);
    let message = match busy(answer) {
        Some(busy) if message == refusal::NO_REASON => busy,
        Some(busy) => format!("{busy}; {message}"),
        None => message,
    };
    Refusal { server: url.to_owned(), status, code, message, cause, retry_after: answer.retry_after }
}

/// Whether a body contains an error (RFC 6749 section 5.2), whatever the status.
fn has_error(body: &[u8]) -> bool {
    let read = serde_json::from_slice::<serde_json::Value>(body);
    read.is_ok_and(|body| match body.get("error") {
        None | Some(serde_json::Value::Null) => false,
        Some(serde_json::Value::String(error)) => !error.is_empty(),
        Some(_) => true,
    })
}

#[cfg(test)]
mod refusals {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after: None, tries: 1, date: None, body: body.as_bytes().to_vec() }
    }

    fn judged(answer: &Answer) -> Result<Issued, ExchangeError> {
        judge("https://a/token", answer, Asking { r#type: ProviderType::Oauth2, claims: None, once: true })
    }

    #[test]
    fn an_error_is_one_whatever_the_status() {
        for body in [
            r#"{"error":"authorization_pending"}"#,
            r#"{"error":"slow_down","interval":10}"#,
            r#"{"error":{"message":"no"}}"#,
            r#"{"error":"access_denied","access_token":"t"}"#,
        ] {
            assert!(matches!(judged(&answer(200, body)), Err(ExchangeError::Refused(_))), "{body}");
        }
        for body in [r#"{"access_token":"t","error":null}"#, r#"{"access_token":"t","error":""}"#] {
            assert!(judged(&answer(200, body)).is_ok(), "{body}");
        }
    }

    #[test]
    fn a_busy_server_is_told_with_how_often_it_was_asked() {
        let refusal = |status, retry_after, tries| {
            judged(&Answer { retry_after, tries, ..answer(status, "") }).err().map(|error| error.to_string())
        };
        let limited = refusal(429, Some(3_600), 1).unwrap();
        assert!(
            limited.contains("limits the rate")
                && limited.contains("asked once, and it asks us to wait 3600 s"),
            "{limited}"
        );
        assert_eq!(limited.matches("429").count(), 1, "{limited}");
        let away = refusal(503, None, 3).unwrap();
        assert!(away.contains("unavailable for now: it was asked 3 times"), "{away}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_address_is_a_server_and_a_path() {
        assert_eq!(super::split("https://a.b/c/d"), ("https://a.b", "/c/d"));
        assert_eq!(super::split("https://a.b"), ("https://a.b", "/"));
        assert_eq!(super::split("https://a.b/c?to=/d"), ("https://a.b", "/c?to=/d"));
    }
}
