//! Retries requests for which the API server is too busy.

use http::{Request, Response, StatusCode};
use kube::client::Body;
use postern_net::busy::{busy_reason, retry_after, times};
use std::time::{Duration, SystemTime};
use tower::BoxError;

/// The maximum number of tries of a request.
const TRIES: u32 = 5;

/// The longest wait before a retry. If the server asks for a longer wait, there is no retry.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The wait if a limited server gives none.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// The error of a server that was too busy in every try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Busy {
    pub(crate) status: StatusCode,
    pub(crate) tries: u32,
    /// The wait that the server asks for.
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

/// Retries a request while the server is too busy for it and asks for a wait that is within the limits.
pub(crate) async fn send_with_retries<F>(
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
        let pause = wait.unwrap_or(DEFAULT_WAIT * tries);
        if tries >= TRIES || pause > MAX_WAIT || again.is_none() {
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
    fn the_message_names_the_tries_and_the_requested_wait() {
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
