//! A credential with its times.

use super::Moment;
use crate::exchange::{Credential, Issued};
use crate::request::jitter;
use http::HeaderValue;
use std::time::Duration;
use zeroize::Zeroizing;

/// A credential is not used in this time before its end, so that it stays valid on the way to the API.
const MARGIN: Duration = Duration::from_secs(10);

/// A credential, and when it was obtained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedCredential {
    /// The credential.
    pub credential: Credential,
    /// When it was obtained.
    pub obtained: Moment,
    /// Its lifetime from then; unknown if the provider did not return it.
    pub lifetime: Option<Duration>,
    renew_at: Duration,
    header: Option<HeaderValue>,
}

impl CachedCredential {
    pub(crate) fn new(issued: Issued, obtained: Moment) -> Self {
        let Issued { credential, lifetime } = issued;
        // Between 75 and 80 % of its lifetime, so that processes that started together do not renew together.
        let whole = lifetime.unwrap_or_default();
        let renew_at = whole.mul_f64(0.8).saturating_sub(jitter(whole / 20));
        let header = credential.bearer().and_then(|bearer| {
            let text = Zeroizing::new(format!("Bearer {}", *bearer.access_token));
            let mut value = HeaderValue::try_from(text.as_str()).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { credential, obtained, lifetime, renew_at, header }
    }

    /// Ten seconds; a tenth for lifetimes so short that no time would be left between renewal and end.
    fn margin(&self) -> Duration {
        let life = self.lifetime.unwrap_or_default();
        if life >= MARGIN * 5 { MARGIN } else { life / 10 }
    }

    /// Whether it needs no renewal yet. With an unknown lifetime it is fresh only for callers that waited for it.
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.lifetime.is_some() && now.since(self.obtained).is_some_and(|age| age < self.renew_at)
    }

    /// Returns how long it may still be used; `None` if that is unknown.
    pub fn usable_for(&self, now: Moment) -> Option<Duration> {
        let age = now.since(self.obtained)?;
        Some(self.lifetime?.saturating_sub(self.margin()).saturating_sub(age))
    }

    /// Returns the time until it should be renewed.
    pub fn renewal_in(&self, now: Moment) -> Option<Duration> {
        let age = now.since(self.obtained).unwrap_or(Duration::MAX);
        self.lifetime.map(|_| self.renew_at.saturating_sub(age))
    }

    /// Returns the time until it expires for the provider; `None` if that is unknown.
    pub fn ends_in(&self, now: Moment) -> Option<Duration> {
        Some(self.lifetime?.saturating_sub(now.since(self.obtained)?))
    }

    /// Returns its `Authorization` header, if it is a bearer token.
    pub fn header(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }

    /// Returns a hash that identifies it and does not reveal it.
    pub fn hash(&self) -> blake3::Hash {
        match &self.credential {
            Credential::Bearer(bearer) => blake3::hash(bearer.access_token.as_bytes()),
            Credential::Aws(session) => blake3::hash(session.session_token.as_bytes()),
        }
    }

    pub(super) fn refresh_token(&self) -> Option<Zeroizing<String>> {
        self.credential.bearer().and_then(|bearer| bearer.refresh_token.clone())
    }
}
