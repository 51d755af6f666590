//! Servers that say "not now": 429 (RFC 6585 section 4) and 503, and how long they ask us to wait.

use http::{HeaderMap, Request, Response, StatusCode, header};
use kube::client::Body;
use std::time::{Duration, SystemTime};
use tower::BoxError;

/// How often a request is made that the server is too busy for.
const TRIES: u32 = 5;

/// The longest that is waited before the next try; a server that asks for more is not asked again.
const LONGEST: Duration = Duration::from_secs(30);

/// What is waited where a limited server says nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// A server that was too busy to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Busy {
    pub(crate) status: StatusCode,
    pub(crate) tries: u32,
    /// How long it asks us to wait.
    pub(crate) wait: Option<Duration>,
}

/// What a status means that says "not now"; nothing of any other.
pub fn busy_reason(status: u16) -> Option<&'static str> {
    match status {
        429 => Some("it limits the rate of our requests"),
        503 => Some("it is unavailable for now"),
        _ => None,
    }
}

/// How often something was tried, in words.
pub fn times(tries: u32) -> String {
    if tries == 1 { "once".to_owned() } else { format!("{tries} times") }
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, tries, wait } = self;
        let reason = busy_reason(status.as_u16()).unwrap_or_default();
        write!(f, "{reason} (HTTP status {}, tried {})", status.as_u16(), times(*tries))?;
        match wait {
            Some(wait) => write!(f, "; it asks us to wait {} s", wait.as_secs()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Busy {}

/// How long a server asks us to wait: seconds, or until a date (RFC 9110 section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = k8s_openapi::jiff::fmt::rfc2822::parse(text).ok()?;
    let until = SystemTime::from(date.timestamp());
    Some(until.duration_since(now).unwrap_or_default())
}

/// Makes a request again while the server is too busy for it and asks for no more patience than there is.
pub(crate) async fn patiently<F>(
    request: Request<Body>,
    send: impl Fn(Request<Body>) -> F,
) -> Result<Response<hyper::body::Incoming>, BoxError>
where
    F: Future<Output = Result<Response<hyper::body::Incoming>, BoxError>>,
{
    let (head, body) = request.into_parts();
    let mut next = Some(body);
    let mut tries = 0;
    loop {
        let Some(body) = next.take() else { return Err("a request without its body".into()) };
        let again = body.try_clone();
        let answer = send(Request::from_parts(head.clone(), body)).await?;
        tries += 1;
        let (status, wait) = (answer.status(), retry_after(answer.headers(), SystemTime::now()));
        let busy = match status {
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::SERVICE_UNAVAILABLE => wait.is_some(),
            _ => false,
        };
        if !busy {
            return Ok(answer);
        }
        let pause = wait.unwrap_or(PAUSE * tries);
        if tries >= TRIES || pause > LONGEST || again.is_none() {
            return Err(Busy { status, tries, wait }.into());
        }
        drop(answer);
        tokio::time::sleep(pause).await;
        next = again;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_asks_for_patience_in_seconds_or_until_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // 1994-11-06 08:49:37
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked("Sun, 06 Nov 1994 09:49:37 GMT"), Some(3_600));
        assert_eq!(asked("Sun, 06 Nov 1994 07:49:37 GMT"), Some(0));
        assert_eq!(asked("later"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn it_is_said_what_was_tried_and_what_is_asked_for() {
        let busy = |status, tries, wait: Option<u64>| {
            Busy { status, tries, wait: wait.map(Duration::from_secs) }.to_string()
        };
        assert_eq!(
            busy(StatusCode::TOO_MANY_REQUESTS, 5, Some(3)),
            "it limits the rate of our requests (HTTP status 429, tried 5 times); it asks us to wait 3 s"
        );
        assert_eq!(
            busy(StatusCode::SERVICE_UNAVAILABLE, 1, None),
            "it is unavailable for now (HTTP status 503, tried once)"
        );
    }
}
