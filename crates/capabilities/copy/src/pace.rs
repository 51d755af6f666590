//! `--bwlimit`: so many bytes in a second, on average over the last one.

use std::time::Duration;
use tokio::time::Instant;

/// Bytes that may go, as time passes.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes in a second.
    rate: Option<u64>,
    /// When what was sent will have been paid for.
    until: Instant,
}

/// What may go at once after a pause.
const BURST: Duration = Duration::from_millis(100);

impl Pace {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0), until: Instant::now() }
    }

    /// Bytes that may be taken at once.
    pub(crate) fn piece(&self) -> usize {
        let half = self.rate.map_or(usize::MAX, |rate| usize::try_from(rate / 2).unwrap_or(usize::MAX));
        half.max(512)
    }

    /// Waits until so many bytes may go.
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
    async fn bytes_take_their_time() {
        let mut pace = Pace::new(Some(1_000_000));
        let began = Instant::now();
        for _ in 0..100 {
            pace.take(50_000).await;
        }
        let took = began.elapsed();
        assert!((4_800..=5_050).contains(&took.as_millis()), "{took:?}");
        let mut free = Pace::new(None);
        free.take(usize::MAX).await;
    }
}
