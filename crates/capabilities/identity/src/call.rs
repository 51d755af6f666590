//! One request to a provider's API, judged.

use http::Request;
use postern_net::busy;
use postern_net::error::WebError;
use postern_net::web::{Answer, Server};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Tries of a request that a server could not take.
pub(crate) const TRIES: u32 = 3;

/// The longest that a server may make us wait between two tries.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a provider's API did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There was no answer.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The answer is no.
    #[error("{message} ({status}{code})", code = .code.as_ref().map(|code| format!(", {code}")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The provider's own code.
        code: Option<String>,
        /// The provider's words.
        message: String,
    },
    /// The answer makes no sense.
    #[error("the answer cannot be used: {0}")]
    Answer(String),
}

impl CallError {
    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Web(_) | Self::Answer(_) => None,
        }
    }

    /// Whether the provider's words or code hold this.
    pub fn names(&self, word: &str) -> bool {
        match self {
            Self::Refused { status: _, code, message } => {
                message.contains(word) || code.as_ref().is_some_and(|code| code.contains(word))
            }
            Self::Web(_) | Self::Answer(_) => false,
        }
    }
}

/// Sends a request that may be sent twice, again where the server was not there or too busy; any 2xx is an answer.
pub(crate) async fn call(
    server: &Server,
    request: &Request<Vec<u8>>,
    refusal: impl Fn(u16, &[u8]) -> CallError,
) -> Result<Vec<u8>, CallError> {
    let Answer { status, body, retry_after: _, tries: _, date: _ } =
        persistent(server, request, |_| false).await?;
    if (200..300).contains(&status) { Ok(body) } else { Err(refusal(status, &body)) }
}

/// Sends a request that may be sent twice, again on connection errors, 429, 5xx and where `transient` says so of an
/// answer; the last answer, whatever it is.
pub(crate) async fn persistent(
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
        // Who asks for more than we wait is not asked again.
        let waits = |asked: &Option<u64>| asked.is_none_or(|seconds| seconds <= PATIENCE.as_secs());
        let Some(asked) = pause.filter(|asked| tries < TRIES && waits(asked)) else {
            return sent.map(|answer| Answer { tries, ..answer });
        };
        pause_after(tries, asked).await;
        tries += 1;
    }
}

/// What an answer of a server says that is too busy, with how often it was asked; nothing of any other answer.
pub(crate) fn busy(answer: &Answer) -> Option<String> {
    let Answer { status, retry_after, tries, date: _, body: _ } = answer;
    let (what, times) = (busy::busy_reason(*status)?, busy::times(*tries));
    let wait = retry_after.map(|seconds| format!(", and it asks us to wait {seconds} s")).unwrap_or_default();
    Some(format!("{what}: it was asked {times}{wait}"))
}

/// Waits before the next try, as long as the server asked (in seconds), or longer each time.
pub(crate) async fn pause_after(tries: u32, asked: Option<u64>) {
    // Spread, so that many who were turned away at once do not come back at once.
    let own = Duration::from_millis(u64::from(tries) * 500);
    let wait = asked.map_or(own, Duration::from_secs).min(PATIENCE);
    tokio::time::sleep(wait + jitter(Duration::from_millis(250))).await;
}

/// Anything from nothing to `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness there is no spread, and nothing is worse for it.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
    most.mul_f64(f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX))
}

/// Reads an answer. What it said is not in the error: it may be a token.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() { "a field is missing or of another type" } else { "it is not JSON" };
        CallError::Answer(what.to_owned())
    })
}
