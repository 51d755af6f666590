//! Requests that are sent again while the API server is too busy for them.

use http::{Request, Response, StatusCode};
use kube::client::Body;
use postern_net::busy::{busy_reason, retry_after, times};
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
