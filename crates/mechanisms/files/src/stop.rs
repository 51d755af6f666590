//! Content that the destination has given up on, from who hears it to who sends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which entry's content is of no use any more. A destination takes one file's content at a time, so one number does.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicU64>);

impl Stop {
    /// Nothing more of this entry is to be sent.
    pub fn set(&self, id: u32) {
        self.0.store(u64::from(id) + 1, Ordering::Relaxed);
    }

    /// Whether that was said of this entry.
    pub fn is_set(&self, id: u32) -> bool {
        self.0.load(Ordering::Relaxed) == u64::from(id) + 1
    }
}
