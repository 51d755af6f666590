//! How much may be on its way to a pod whose connections break: what is on its way is lost with a connection, and has to be
//! sent again.
//!
//! Until a connection was lost, as much is under way as the network takes. From then on the destination is asked how far
//! it is, and what it has not answered for is kept to a share of what a connection is likely to carry: by what this one has
//! carried, or by what those before it did on average.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use tokio::sync::Notify;

/// What may be under way in any case: two blocks of content.
const LEAST: u64 = 2 * postern_wire::copy::BLOCK as u64;

/// The part of what a connection carries that may be lost with it.
const SHARE: u64 = 16;

/// Bytes on their way.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Connections that there were, with this one, and the bytes sent on those before it.
    connections: Cell<u64>,
    before: Cell<u64>,
    /// This one's destination answers pings.
    answers: Cell<bool>,
    /// Bytes sent on this one, and those that have arrived as far as is known.
    sent: Cell<u64>,
    arrived: Cell<u64>,
    /// Where pings that are not answered lie, and where the last one does.
    pings: RefCell<VecDeque<u64>>,
    last: Cell<u64>,
    answered: Notify,
}

impl Flow {
    /// A connection begins, to a destination that answers pings or not; if there was one before, it was lost.
    pub(crate) fn begin(&self, answers: bool) {
        self.connections.set(self.connections.get() + 1);
        self.before.set(self.before.get().saturating_add(self.sent.get()));
        self.answers.set(answers);
        for count in [&self.sent, &self.arrived, &self.last] {
            count.set(0);
        }
        self.pings.borrow_mut().clear();
    }

    /// Bytes that may be under way; nothing for as many as there is room for.
    fn limit(&self) -> Option<u64> {
        let lost = self.connections.get().saturating_sub(1);
        let usual = self.before.get().checked_div(lost).filter(|_| self.answers.get())?;
        Some((usual.max(self.arrived.get()) / SHARE).max(LEAST))
    }

    /// Whether a ping belongs behind this many bytes that are to be sent next; it is taken for put there.
    pub(crate) fn ping(&self, next: usize) -> bool {
        let at = self.sent.get() + next as u64;
        let due = self.limit().is_some_and(|limit| at - self.last.get() >= limit / 4);
        if due {
            self.last.set(at);
            self.pings.borrow_mut().push_back(at);
        }
        due
    }

    /// Bytes to be sent at once, at most.
    pub(crate) fn piece(&self) -> usize {
        self.limit().map_or(usize::MAX, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX))
    }

    /// Waits until so many bytes may be sent, which they then are.
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

    /// The destination answered a ping; false when there was none.
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

    fn takes(flow: &Flow, bytes: usize) -> bool {
        let future = pin!(flow.take(bytes));
        future.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn nothing_is_held_back_until_a_connection_is_lost() {
        let flow = Flow::default();
        flow.begin(true);
        assert!(takes(&flow, 100_000_000) && !flow.ping(100_000_000) && !flow.pong());
        // And never where pings are not answered.
        flow.begin(false);
        assert!(takes(&flow, 100_000_000) && !flow.ping(100_000_000));
    }

    #[test]
    fn after_a_loss_little_is_under_way_and_more_as_more_arrives() {
        let flow = Flow::default();
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
    fn what_connections_carried_before_they_were_lost_counts() {
        let flow = Flow::default();
        flow.begin(true);
        assert!(takes(&flow, 1 << 30));
        flow.begin(true);
        assert_eq!(flow.limit(), Some((1 << 30) / SHARE));
        flow.begin(true);
        assert_eq!(flow.limit(), Some((1 << 29) / SHARE));
    }

    #[test]
    fn an_answer_to_what_was_not_sent_is_none() {
        let flow = Flow::default();
        flow.begin(true);
        flow.begin(true);
        assert!(flow.ping(100_000) && !flow.pong());
    }
}
