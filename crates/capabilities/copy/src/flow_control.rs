//! Limits the bytes in flight to a pod whose connections break: bytes in flight are lost with the connection
//! and have to be sent again.
//!
//! Until the first connection is lost, the network is the only limit. After that, the destination
//! acknowledges its progress, and unacknowledged bytes are limited to a fraction of what a connection is
//! expected to transfer: the larger of what this one has transferred and the average of the earlier ones.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Minimum limit of bytes in flight: two blocks of content.
const LEAST: u64 = 2 * postern_wire::copy::BLOCK as u64;

/// The fraction of a connection's data that may be lost with it.
const SHARE: u64 = 16;

/// Flow control of a copy.
#[derive(Debug, Default)]
pub(crate) struct FlowControl {
    /// The number of connections including this one, and the bytes sent on earlier ones.
    connections: Cell<u64>,
    before: Cell<u64>,
    /// Whether this destination answers pings.
    answers: Cell<bool>,
    /// Bytes sent on this connection, and bytes known to have arrived.
    sent: Cell<u64>,
    arrived: Cell<u64>,
    /// Offsets of unanswered pings, and of the last ping.
    pings: RefCell<VecDeque<u64>>,
    last: Cell<u64>,
    answered: Notify,
}

impl FlowControl {
    /// Starts a connection to a destination that answers pings or not. The earlier connection, if any, was
    /// lost.
    pub(crate) fn begin(&self, answers: bool) {
        self.connections.set(self.connections.get() + 1);
        self.before.set(self.before.get().saturating_add(self.sent.get()));
        self.answers.set(answers);
        for count in [&self.sent, &self.arrived, &self.last] {
            count.set(0);
        }
        self.pings.borrow_mut().clear();
    }

    /// Maximum bytes in flight; `None` for no limit.
    fn limit(&self) -> Option<u64> {
        let lost = self.connections.get().saturating_sub(1);
        let usual = self.before.get().checked_div(lost).filter(|_| self.answers.get())?;
        Some((usual.max(self.arrived.get()) / SHARE).max(LEAST))
    }

    /// Whether a ping is due after the next `next` bytes. If so, it is recorded as sent.
    pub(crate) fn ping(&self, next: usize) -> bool {
        let at = self.sent.get() + next as u64;
        let due = self.limit().is_some_and(|limit| at - self.last.get() >= limit / 4);
        if due {
            self.last.set(at);
            self.pings.borrow_mut().push_back(at);
        }
        due
    }

    /// Maximum bytes to send at once.
    pub(crate) fn piece(&self) -> usize {
        self.limit().map_or(usize::MAX, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX))
    }

    /// Waits until this many bytes may be sent, and records them as sent.
    pub(crate) async fn take(&self, bytes: usize) {
        let bytes = bytes as u64;
        while let Some(limit) = self.limit()
            && self.sent.get() - self.arrived.get() + bytes > limit
            && self.pings.borrow().front().is_some_and(|at| *at < self.sent.get())
        {
            self.answered.notified().await;
        }
        self.sent.set(self.sent.get() + bytes);
    }

    /// Records an answered ping; false if none was sent.
    pub(crate) fn pong(&self) -> bool {
        let mut pings = self.pings.borrow_mut();
        let Some(at) = pings.pop_front().filter(|at| *at < self.sent.get()) else { return false };
        self.arrived.set(at);
        self.answered.notify_one();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn takes(flow: &FlowControl, bytes: usize) -> bool {
        let future = pin!(flow.take(bytes));
        future.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn there_is_no_limit_before_a_loss() {
        let flow = FlowControl::default();
        flow.begin(true);
        assert!(takes(&flow, 100_000_000) && !flow.ping(100_000_000) && !flow.pong());
        // No limit either if pings are not answered.
        flow.begin(false);
        assert!(takes(&flow, 100_000_000) && !flow.ping(100_000_000));
    }

    #[test]
    fn after_a_loss_the_limit_starts_low_and_grows() {
        let flow = FlowControl::default();
        flow.begin(true);
        flow.begin(true);
        let mut most = 0;
        for round in 0..1_000 {
            let frame = flow.piece().min(128 * 1024);
            let asked = flow.ping(frame);
            while !takes(&flow, frame) {
                assert!(flow.pong(), "{round}: it waits for what nobody asked for");
            }
            let under_way = flow.sent.get() - flow.arrived.get();
            assert!(under_way <= LEAST.max(flow.arrived.get() / SHARE) + frame as u64, "{under_way}");
            most = most.max(under_way);
            assert!(asked || round > 20);
        }
        assert!(most > 2_000_000, "{most}");
    }

    #[test]
    fn earlier_connections_raise_the_limit() {
        let flow = FlowControl::default();
        flow.begin(true);
        assert!(takes(&flow, 1 << 30));
        flow.begin(true);
        assert_eq!(flow.limit(), Some((1 << 30) / SHARE));
        flow.begin(true);
        assert_eq!(flow.limit(), Some((1 << 29) / SHARE));
    }

    #[test]
    fn unexpected_pongs_are_detected() {
        let flow = FlowControl::default();
        flow.begin(true);
        flow.begin(true);
        assert!(flow.ping(100_000) && !flow.pong());
    }
}
