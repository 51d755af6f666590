//! `--bwlimit`: limits the bytes per second, averaged over the last second.

use std::time::Duration;
use tokio::time::Instant;

/// A rate limiter.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// Bytes per second.
    rate: Option<u64>,
    /// When the sent bytes will be within the rate.
    until: Instant,
}

/// The burst allowed after a pause.
const BURST: Duration = Duration::from_millis(100);

impl RateLimit {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0), until: Instant::now() }
    }

    /// Maximum bytes to take at once.
    pub(crate) fn piece(&self) -> usize {
        let half = self.rate.map_or(usize::MAX, |rate| usize::try_from(rate / 2).unwrap_or(usize::MAX));
        half.max(512)
    }

    /// Waits until this many bytes may be sent.
    pub(crate) async fn take(&mut self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        let cost = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / rate);
        self.until = self.until.max(now - BURST) + cost;
        if self.until > now {
            tokio::time::sleep_until(self.until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_limited() {
        let mut limit = RateLimit::new(Some(1_000_000));
        let began = Instant::now();
        for _ in 0..100 {
            limit.take(50_000).await;
        }
        let took = began.elapsed();
        assert!((4_800..=5_050).contains(&took.as_millis()), "{took:?}");
        let mut free = RateLimit::new(None);
        free.take(usize::MAX).await;
    }
}
