//! Delivery of one message to everyone who subscribed to its subject.
//!
//! Under the router's read lock a message is appended to each receiver's outbox, without waiting for anybody.
//! Receivers are woken once a batch, so that a burst leaves in few writes. A publisher that fills a
//! receiver's outbox beyond three quarters is held back for at most [`HOLD`] per [`HOLD_AFTER`] bytes, as
//! long as the receiver takes anything at all.
//!
//! [`Bus::deliver`] is the only way into routing. The streams of this process stand in the router beside the
//! connections: a message for them is copied into their queue, and a publisher that fills the queue waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::bus::{Bus, Target};
use crate::jetstream::{Item, Pushed, StreamQueue};
use crate::outbox::{Outbox, Push};
use crate::routing::{Allowance, GroupPart, Subscription};
use crate::stats::{Stats, add, subtract};
use crate::wire::{Publish, encode};

/// The longest time that a publisher is held back at once.
const HOLD: Duration = Duration::from_millis(10);
/// Bytes that a publisher adds to nearly full outboxes before it is held back.
const HOLD_AFTER: usize = 64 << 10;
/// Deliveries after which a batch is settled, so that one publisher blocks neither a thread nor its receivers
/// for long.
const FULL_BATCH: u64 = 4096;

/// Deliveries of one publisher since it last settled.
#[derive(Debug)]
pub(crate) struct Batch {
    stats: Stats,
    /// Receivers whose writers have to be woken.
    sleeping: Vec<Arc<Outbox>>,
    /// Receivers whose outboxes are nearly full.
    crowded: Vec<Arc<Outbox>>,
    /// Bytes added to nearly full outboxes since this publisher was last held back.
    debt: usize,
    /// Whether the streams themselves publish. They can't wait for free space in their own queue.
    of_streams: bool,
    /// The queue of the streams, if this publisher has filled it.
    full_queue: Option<Arc<StreamQueue>>,
    received: u64,
    delivered: u64,
}

impl Batch {
    pub(crate) fn new(stats: Stats) -> Self {
        Self {
            stats,
            sleeping: Vec::new(),
            crowded: Vec::new(),
            debt: 0,
            of_streams: false,
            full_queue: None,
            received: 0,
            delivered: 0,
        }
    }

    /// Returns a batch of the stream worker.
    pub(crate) fn of_streams(stats: Stats) -> Self {
        let mut batch = Self::new(stats);
        batch.of_streams = true;
        batch
    }

    /// Counts a message that came in.
    pub(crate) fn received(&mut self) {
        self.received += 1;
    }

    /// Remembers the consequences of a push.
    pub(crate) fn note(&mut self, outbox: &Arc<Outbox>, push: Push, size: usize) {
        let Push::Queued { wake, crowded } = push else { return };
        if wake {
            self.sleeping.push(Arc::clone(outbox));
        }
        if crowded {
            self.debt += size;
            if !self.crowded.iter().any(|known| Arc::ptr_eq(known, outbox)) {
                self.crowded.push(Arc::clone(outbox));
            }
        }
    }

    /// Whether the batch has to be settled.
    pub(crate) fn is_full(&self) -> bool {
        self.delivered >= FULL_BATCH || self.debt >= HOLD_AFTER || self.full_queue.is_some()
    }

    /// Wakes the receivers and updates the counters.
    pub(crate) fn wake(&mut self) {
        for outbox in self.sleeping.drain(..) {
            outbox.wake();
        }
        add(&self.stats.counters().messages_in, std::mem::take(&mut self.received));
        add(&self.stats.counters().messages_out, std::mem::take(&mut self.delivered));
    }

    /// Settles the batch on a thread of the process itself. The thread is held back as a connection is, but
    /// never waits for the streams.
    pub(crate) fn settle_blocking(&mut self) {
        self.wake();
        if self.debt >= HOLD_AFTER {
            self.debt = 0;
            add(&self.stats.counters().publishers_held, 1);
            let deadline = std::time::Instant::now() + HOLD;
            while std::time::Instant::now() < deadline
                && self.crowded.iter().any(|outbox| !outbox.has_space())
            {
                std::thread::sleep(HOLD / 10);
            }
        }
        self.crowded.clear();
    }

    /// Wakes the receivers and holds the publisher back: for a moment if it fills a receiver faster than that
    /// one drains, and without a bound while the queue of the streams is full.
    pub(crate) async fn settle(&mut self) {
        self.wake();
        if let Some(queue) = self.full_queue.take() {
            add(&self.stats.counters().stream_publishers_held, 1);
            queue.wait_for_space().await;
        }
        if self.debt >= HOLD_AFTER {
            self.debt = 0;
            add(&self.stats.counters().publishers_held, 1);
            let deadline = Instant::now() + HOLD;
            for outbox in &self.crowded {
                outbox.wait_for_space(deadline).await;
            }
        }
        self.crowded.clear();
    }
}

/// Wakes the receivers of a publisher that ends in the middle of a batch.
impl Drop for Batch {
    fn drop(&mut self) {
        self.wake();
    }
}

impl Bus {
    /// Queues a message for every matching subscription and one member of each matching queue group, except
    /// for subscriptions of the connection `except`. Returns whether anybody received it.
    pub(crate) fn deliver(&self, message: &Publish<'_>, except: Option<u64>, batch: &mut Batch) -> bool {
        let mut expired = Vec::new();
        let mut reached = false;
        let router = self.router();
        let mut give = |subscription: &Arc<Subscription<Target>>| {
            let given = except != Some(subscription.connection)
                && self.give(subscription, message, batch, &mut expired);
            reached |= given;
            given
        };
        let mut queues = Vec::new();
        router.matching(message.subject, &mut queues, &mut |subscription| {
            give(subscription);
        });
        for group in queues.chunk_by(|one, next| one.0 == next.0) {
            give_to_one(group, &mut give);
        }
        drop(queues);
        drop(router);
        if !expired.is_empty() {
            let mut router = self.router_mut();
            let gone = expired.iter().filter(|subscription| router.expire(subscription)).count();
            subtract(&self.stats.counters().subscriptions, gone as u64);
        }
        reached
    }

    /// Answers a request that nobody receives: sends a 503 to the publisher's own subscription on `reply`.
    pub(crate) fn answer_no_responders(
        &self,
        connection: u64,
        reply: &[u8],
        subject: &[u8],
        batch: &mut Batch,
    ) {
        let router = self.router();
        let mut own = None;
        router.matching(reply, &mut Vec::new(), &mut |subscription| {
            if subscription.connection == connection && own.is_none() {
                own = Some(subscription);
            }
        });
        let Some(subscription) = own else { return };
        let Target::Connection(outbox) = &subscription.target else { return };
        let mut answer = Vec::new();
        encode::no_responders(&mut answer, reply, &subscription.sid, subject);
        batch.note(outbox, outbox.answer(&answer), answer.len());
        add(&self.stats.counters().no_responders, 1);
    }

    /// Queues a message for one subscription, unless that one has reached its maximum or its connection is
    /// closing.
    fn give(
        &self,
        subscription: &Arc<Subscription<Target>>,
        message: &Publish<'_>,
        batch: &mut Batch,
        expired: &mut Vec<Arc<Subscription<Target>>>,
    ) -> bool {
        let outbox = match &subscription.target {
            Target::Connection(outbox) => outbox,
            Target::Streams => return self.give_to_streams(subscription, message, batch),
        };
        match subscription.count_one() {
            Allowance::Exhausted => return false,
            Allowance::Last => expired.push(Arc::clone(subscription)),
            Allowance::Granted => {}
        }
        let push = outbox.deliver(message, &subscription.sid);
        batch.note(outbox, push, encode::message_bound(message, &subscription.sid));
        let given = push != Push::Refused;
        batch.delivered += u64::from(given);
        given
    }

    /// Copies a message into the queue of the streams. Returns false if they have ended, so that nobody will
    /// answer.
    fn give_to_streams(
        &self,
        subscription: &Subscription<Target>,
        message: &Publish<'_>,
        batch: &mut Batch,
    ) -> bool {
        let Some(queue) = &self.stream_queue else { return false };
        let item = Item::copy(&subscription.sid, message);
        let pushed = if batch.of_streams { queue.push_if_space(item) } else { queue.push(item) };
        match pushed {
            Pushed::Taken => {}
            Pushed::Full => batch.full_queue = Some(Arc::clone(queue)),
            Pushed::Refused => add(&self.stats.counters().stream_dropped, 1),
        }
        pushed != Pushed::Refused
    }
}

/// Gives a message to a random member of a group, or to the next member that takes it.
fn give_to_one(
    group: &[GroupPart<'_, Target>],
    give: &mut impl FnMut(&Arc<Subscription<Target>>) -> bool,
) -> bool {
    let size: usize = group.iter().map(|(_, members)| members.len()).sum();
    let start = fastrand::usize(..size.max(1));
    let members = || group.iter().flat_map(|(_, members)| members.iter());
    members().skip(start).chain(members().take(start)).any(give)
}
