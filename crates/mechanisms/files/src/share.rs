//! How many files the ends of one process may have open: a client may have several at a time.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::atomic::{AtomicU64, Ordering};

/// Files that a process may have open at once, where the system lets it.
const OPEN: u64 = 8_192;

/// The ends that there are now.
static ENDS: AtomicU64 = AtomicU64::new(0);

/// One end's share of the files that may be open.
#[derive(Debug)]
pub(crate) struct Share {
    open: u64,
}

impl Share {
    /// For an end that begins.
    pub(crate) fn new() -> Self {
        ENDS.fetch_add(1, Ordering::Relaxed);
        Self { open: may_open() }
    }

    /// A quarter of what this end may have open now.
    pub(crate) fn quarter(&self) -> usize {
        let ends = ENDS.load(Ordering::Relaxed).max(1);
        usize::try_from(self.open / ends / 4).unwrap_or(usize::MAX).max(1)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        ENDS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many files may be open at once, made as many as the system lets us.
fn may_open() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(OPEN);
    let now = limit.current.unwrap_or(u64::MAX);
    if now >= wanted {
        return now;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(_) => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_share_what_may_be_open() {
        let shares: Vec<Share> = (0..4).map(|_| Share::new()).collect();
        let open = usize::try_from(shares[0].open).unwrap();
        let sum: usize = shares.iter().map(Share::quarter).sum();
        assert!((4..=open / 4).contains(&sum), "{sum} of {open}");
    }
}
