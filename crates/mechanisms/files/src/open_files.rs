//! Divides the limit of open files among the ends of one process: a client may have several at a time.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::atomic::{AtomicU64, Ordering};

/// Open files that a process uses at most, if the system allows it.
const OPEN: u64 = 8_192;

/// The number of ends.
static ENDS: AtomicU64 = AtomicU64::new(0);

/// One end's share of the open-file limit.
#[derive(Debug)]
pub(crate) struct OpenFileShare {
    open: u64,
}

impl OpenFileShare {
    /// Registers a new end.
    pub(crate) fn new() -> Self {
        ENDS.fetch_add(1, Ordering::Relaxed);
        Self { open: raise_limit() }
    }

    /// A quarter of this end's current share.
    pub(crate) fn quarter(&self) -> usize {
        let ends = ENDS.load(Ordering::Relaxed).max(1);
        usize::try_from(self.open / ends / 4).unwrap_or(usize::MAX).max(1)
    }
}

impl Drop for OpenFileShare {
    fn drop(&mut self) {
        ENDS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Raises the limit of open files as far as allowed, and returns it.
fn raise_limit() -> u64 {
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
        let shares: Vec<OpenFileShare> = (0..4).map(|_| OpenFileShare::new()).collect();
        let open = usize::try_from(shares[0].open).unwrap();
        let sum: usize = shares.iter().map(OpenFileShare::quarter).sum();
        assert!((4..=open / 4).contains(&sum), "{sum} of {open}");
    }
}
