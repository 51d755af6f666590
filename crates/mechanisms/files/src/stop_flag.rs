//! Signals from the receiving to the sending side that content is no longer wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The entry whose content is no longer wanted. A destination receives one file at a time, so one number is
/// enough.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicU64>);

impl StopFlag {
    /// Requests that no more of this entry is sent.
    pub fn set(&self, id: u32) {
        self.0.store(u64::from(id) + 1, Ordering::Relaxed);
    }

    /// Whether that was requested for this entry.
    pub fn is_set(&self, id: u32) -> bool {
        self.0.load(Ordering::Relaxed) == u64::from(id) + 1
    }
}
