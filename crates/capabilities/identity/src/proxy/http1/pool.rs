//! Connections to an API that wait for a next request.

use hyper_util::rt::TokioIo;
use postern_kube::upstream::{IDLE, Stream};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::task::coop::has_budget_remaining;

/// A connection to an API.
pub(super) type Upstream = TokioIo<Stream>;

/// What waits, the last used last.
#[derive(Default)]
pub(in crate::proxy) struct Pool(Mutex<Vec<(Upstream, Instant)>>);

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<(Upstream, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One on which the server has said nothing since: neither an end nor what nobody asked for.
    pub(super) fn take(&self) -> Option<Upstream> {
        let mut idle = self.idle();
        loop {
            let (mut stream, since) = idle.pop()?;
            if since.elapsed() >= IDLE {
                // All others are older.
                idle.clear();
                return None;
            }
            let mut byte = [0];
            let mut nothing = Context::from_waker(Waker::noop());
            if Pin::new(&mut stream).poll_read(&mut nothing, &mut ReadBuf::new(&mut byte)).is_pending() {
                // A task that has read enough for once is told that there is nothing, whatever there is.
                return has_budget_remaining().then_some(stream);
            }
        }
    }

    pub(super) fn put(&self, stream: Upstream) {
        self.idle().push((stream, Instant::now()));
    }

    /// Closes those that nobody has used for a while.
    pub(in crate::proxy) fn sweep(&self) {
        let mut idle = self.idle();
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle.shrink_to_fit();
    }
}
