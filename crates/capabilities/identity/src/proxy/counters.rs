//! The counters of one route.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of one route.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Answers by the class of their status, from 1xx.
    pub(super) by_class: [AtomicU64; 5],
    pub(super) failed: AtomicU64,
    pub(super) without_token: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) open: AtomicU64,
}

impl Counters {
    pub(super) fn answered(&self, status: http::StatusCode) {
        if let Some(class) = self.by_class.get(usize::from(status.as_u16() / 100).wrapping_sub(1)) {
            class.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts an open request until it is dropped.
pub(super) struct Open(Arc<Counters>);

impl Open {
    pub(super) fn new(counters: &Arc<Counters>) -> Self {
        counters.open.fetch_add(1, Ordering::Relaxed);
        Self(counters.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
