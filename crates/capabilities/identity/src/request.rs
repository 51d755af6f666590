//! Requests to a provider's API, with retries.

use http::Request;
use postern_net::busy;
use postern_net::error::WebError;
use postern_net::web::{Answer, Server};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The maximum number of tries of a request.
pub(crate) const TRIES: u32 = 3;

/// The longest wait between two tries.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The error of a request to a provider's API.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There was no answer.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The provider refused.
    #[error("{message} ({status}{code})", code = .code.as_ref().map(|code| format!(", {code}")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The provider's own error code.
        code: Option<String>,
        /// The provider's message.
        message: String,
    },
    /// The answer is not valid.
    #[error("the answer cannot be used: {0}")]
    Answer(String),
}

impl CallError {
    /// Returns the HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Web(_) | Self::Answer(_) => None,
        }
    }

    /// Whether the provider's message or code contains this.
    pub fn names(&self, word: &str) -> bool {
        match self {
            Self::Refused { status: _, code, message } => {
                message.contains(word) || code.as_ref().is_some_and(|code| code.contains(word))
            }
            Self::Web(_) | Self::Answer(_) => false,
        }
    }
}

/// Sends an idempotent request, with retries if the server is unreachable or too busy; any 2xx is a success.
pub(crate) async fn call(
    server: &Server,
    request: &Request<Vec<u8>>,
    refusal: impl Fn(u16, &[u8]) -> CallError,
) -> Result<Vec<u8>, CallError> {
    let Answer { status, body, retry_after: _, tries: _, date: _ } =
        send_with_retries(server, request, |_| false).await?;
    if (200..300).contains(&status) { Ok(body) } else { Err(refusal(status, &body)) }
}

/// Sends an idempotent request, with retries on connection errors, 429, 5xx and if `transient` is true for an answer.
/// Returns the last answer, whatever it is.
pub(crate) async fn send_with_retries(
    server: &Server,
    request: &Request<Vec<u8>>,
    transient: impl Fn(&Answer) -> bool,
) -> Result<Answer, WebError> {
    let mut tries = 1;
    loop {
        let sent = server.send(request.clone()).await;
        let pause = match &sent {
            Err(WebError::Unreachable { .. }) => Some(None),
            Ok(answer) if matches!(answer.status, 429 | 500..=599) || transient(answer) => {
                Some(answer.retry_after)
            }
            _ => None,
        };
        // If the server asks for a longer wait, there is no retry.
        let waits = |asked: &Option<u64>| asked.is_none_or(|seconds| seconds <= MAX_WAIT.as_secs());
        let Some(asked) = pause.filter(|asked| tries < TRIES && waits(asked)) else {
            return sent.map(|answer| Answer { tries, ..answer });
        };
        pause_after(tries, asked).await;
        tries += 1;
    }
}

/// Returns the message of an answer that the server is too busy, with the number of tries; `None` for any other
/// answer.
pub(crate) fn busy(answer: &Answer) -> Option<String> {
    let Answer { status, retry_after, tries, date: _, body: _ } = answer;
    let (what, times) = (busy::busy_reason(*status)?, busy::times(*tries));
    let wait = retry_after.map(|seconds| format!(", and it asks us to wait {seconds} s")).unwrap_or_default();
    Some(format!("{what}: it was asked {times}{wait}"))
}

/// Waits before the next try, as long as the server asked for (in seconds), or longer each time.
pub(crate) async fn pause_after(tries: u32, asked: Option<u64>) {
    // With jitter, so that clients that were refused together do not retry together.
    let own = Duration::from_millis(u64::from(tries) * 500);
    let wait = asked.map_or(own, Duration::from_secs).min(MAX_WAIT);
    tokio::time::sleep(wait + jitter(Duration::from_millis(250))).await;
}

/// Returns a random duration of at most `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness there is no jitter, which is harmless.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
    most.mul_f64(f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX))
}

/// Parses an answer. The error does not contain its content, which may be a token.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() { "a field is missing or of another type" } else { "it is not JSON" };
        CallError::Answer(what.to_owned())
    })
}
