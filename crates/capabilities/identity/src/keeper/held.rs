//! A credential with its times.

use super::Moment;
use crate::call::jitter;
use crate::exchange::{Credential, Issued};
use http::HeaderValue;
use std::time::Duration;
use zeroize::Zeroizing;

/// Before its end a credential is not used any more: it must survive its way to the API.
const MARGIN: Duration = Duration::from_secs(10);

/// A credential that was got, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The credential.
    pub credential: Credential,
    /// When it was got.
    pub obtained: Moment,
    /// How long it lives from then; unknown when the provider did not say.
    pub lifetime: Option<Duration>,
    renew_at: Duration,
    header: Option<HeaderValue>,
}

impl Held {
    pub(crate) fn new(issued: Issued, obtained: Moment) -> Self {
        let Issued { credential, lifetime } = issued;
        // Between 75 and 80 % of its life, so that many who started together do not renew together.
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

    /// Ten seconds; a tenth of lives so short that nothing would be left between renewal and then.
    fn margin(&self) -> Duration {
        let life = self.lifetime.unwrap_or_default();
        if life >= MARGIN * 5 { MARGIN } else { life / 10 }
    }

    /// Whether it needs no renewal yet. One of unknown life is fresh to nobody but who waited for it.
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.lifetime.is_some() && now.since(self.obtained).is_some_and(|age| age < self.renew_at)
    }

    /// For how long it may still be used; `None` when that is unknown.
    pub fn usable_for(&self, now: Moment) -> Option<Duration> {
        let age = now.since(self.obtained)?;
        Some(self.lifetime?.saturating_sub(self.margin()).saturating_sub(age))
    }

    /// How long until it should be renewed.
    pub fn renewal_in(&self, now: Moment) -> Option<Duration> {
        let age = now.since(self.obtained).unwrap_or(Duration::MAX);
        self.lifetime.map(|_| self.renew_at.saturating_sub(age))
    }

    /// How long until the provider takes it for ended; `None` when that is unknown.
    pub fn ends_in(&self, now: Moment) -> Option<Duration> {
        Some(self.lifetime?.saturating_sub(now.since(self.obtained)?))
    }

    /// The `Authorization` that it makes, where it is a bearer token.
    pub fn header(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }

    /// What tells it from others without being it.
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
