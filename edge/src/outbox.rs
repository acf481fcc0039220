//! The outbox of one session: messages that wait, and the command to close.
//!
//! `offer` never waits: above the bound the session is closed as too slow, and all other sessions go on. The
//! bound is in bytes of memory: a message of 256 KiB is not like a message of 20 bytes, and a thousand
//! messages of 20 bytes take five times their bytes. Each frame counts with its body, as if no other session
//! had it, and the queue counts with its capacity. Frames that were taken but not written yet count too. An
//! empty outbox always admits a single frame. Nothing is allocated while nothing waits, since most sessions
//! are idle. After the close every offer is refused.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use crate::code::{CloseCode, CloseReason};
use crate::frame::{Frame, SubscriptionId};

/// The capacity that a queue begins with, and the least by which it grows.
const MIN_CAPACITY: usize = 4;

/// The outcome of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// The frame waits to be written.
    Accepted,
    /// The frame was one too many; the session is closed.
    Full,
    /// The session was being closed already.
    Closed,
}

/// Why the session's task was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Frames wait to be taken.
    Deliver,
    /// The session will be closed at this time, and should tell its client so, if the client can make use of
    /// it.
    Farewell(Instant),
    /// The login must be renewed by a token check that is newer than this refresh.
    Refresh(u64),
    /// The session must end.
    Close(CloseCode),
}

/// One session's outbox, shared by the session's task and all that have something for it.
#[derive(Debug)]
pub(crate) struct Outbox {
    limit: usize,
    /// The cost of frames that were taken and are not written yet.
    handed: AtomicUsize,
    /// Memory of everything else that waits for the session, without the bodies of frames.
    beside: AtomicUsize,
    /// Locked for a few instructions, never across an await; locked after a lock of the hub, never before
    /// one.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    frames: VecDeque<Frame>,
    /// The cost of the frames' bodies.
    bodies: usize,
    /// Set once; from then on nothing is accepted.
    closed: Option<CloseCode>,
    /// The text of the close frame, where it is not the text that belongs to the code.
    reason: CloseReason,
    /// When the session will be closed; none once the session knows.
    farewell: Option<Instant>,
    /// The latest refresh that the session does not know yet; 0 for none.
    refresh: u64,
    /// The session's task, while the task waits.
    task: Option<Waker>,
}

/// The amount that waits for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Frames in the outbox.
    pub(crate) frames: usize,
    /// The memory of this session alone: queues, pages, ops; not the bodies of frames, which others may have
    /// too.
    pub(crate) without_bodies: usize,
    /// The cost that counts towards the bound.
    pub(crate) cost: usize,
}

impl Inner {
    fn capacity_bytes(&self) -> usize {
        self.frames.capacity() * size_of::<Frame>()
    }

    /// Returns the capacity that one more frame needs. Doubling the queue would pass the bound by half of it.
    fn capacity_with_one(&self) -> usize {
        let capacity = self.frames.capacity();
        if self.frames.len() < capacity { capacity } else { capacity + MIN_CAPACITY.max(capacity / 4) }
    }

    fn cost_with(&self, frame: &Frame) -> usize {
        self.capacity_with_one() * size_of::<Frame>() + self.bodies + frame.cost()
    }

    fn push(&mut self, frame: Frame) {
        self.bodies += frame.cost();
        self.frames.reserve_exact(self.capacity_with_one() - self.frames.len());
        self.frames.push_back(frame);
    }

    fn take(&mut self, bytes: usize) -> VecDeque<Frame> {
        if self.bodies <= bytes {
            self.bodies = 0;
            return std::mem::take(&mut self.frames);
        }
        let mut sum = 0;
        let some = self.frames.iter().take_while(|frame| {
            let first = sum == 0;
            sum += frame.cost();
            first || sum <= bytes
        });
        let some = some.count();
        let taken: VecDeque<Frame> = self.frames.drain(..some).collect();
        self.bodies -= taken.iter().map(Frame::cost).sum::<usize>();
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        } else if self.frames.capacity() > 2 * self.frames.len() + MIN_CAPACITY {
            let spare = self.frames.len() / 4;
            self.frames.shrink_to(self.frames.len() + spare);
        }
        taken
    }
}

impl Outbox {
    /// Returns an empty outbox for `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        let (handed, beside) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { limit, handed, beside, inner: Mutex::default() }
    }

    /// Offers a frame for one of the session's subscriptions.
    pub(crate) fn offer(&self, frame: &Frame, subscription: SubscriptionId) -> Offer {
        // Made before the lock, since a trace takes time.
        let frame = frame.for_subscription(subscription);
        let mut inner = self.lock();
        if inner.closed.is_some() {
            return Offer::Closed;
        }
        let handed = self.handed.load(Ordering::Relaxed);
        let fits = inner.frames.is_empty() || handed + inner.cost_with(&frame) <= self.limit;
        if fits {
            inner.push(frame);
        } else {
            inner.closed = Some(CloseCode::TooSlow);
        }
        wake(inner);
        if fits { Offer::Accepted } else { Offer::Full }
    }

    /// Tells the session to end. False: the session was ending already, and its reason stands.
    pub(crate) fn close(&self, code: CloseCode) -> bool {
        self.close_saying(code, None)
    }

    /// Tells the session to end, with a reason of its own for the close frame.
    pub(crate) fn close_saying(&self, code: CloseCode, reason: CloseReason) -> bool {
        let mut inner = self.lock();
        if inner.closed.is_some() {
            return false;
        }
        inner.closed = Some(code);
        inner.reason = reason;
        wake(inner);
        true
    }

    /// Tells the session when it will be closed.
    pub(crate) fn announce_close(&self, at: Instant) {
        let mut inner = self.lock();
        inner.farewell = Some(at);
        wake(inner);
    }

    /// Tells the session to renew its login. False: the session is ending.
    pub(crate) fn refresh(&self, newer_than: u64) -> bool {
        let mut inner = self.lock();
        if inner.closed.is_some() {
            return false;
        }
        inner.refresh = inner.refresh.max(newer_than);
        wake(inner);
        true
    }

    /// Returns whether the session is ending.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    /// The reason that the close frame gives in place of its code's own.
    pub(crate) fn close_reason(&self) -> CloseReason {
        self.lock().reason.clone()
    }

    /// Waits until there is something to do for the session; waits for frames only if the session `takes` any
    /// now.
    pub(crate) fn poll_call(&self, takes: bool, context: &mut Context<'_>) -> Poll<Call> {
        let mut inner = self.lock();
        if let Some(code) = inner.closed {
            return Poll::Ready(Call::Close(code));
        }
        if let Some(at) = inner.farewell.take() {
            return Poll::Ready(Call::Farewell(at));
        }
        match std::mem::take(&mut inner.refresh) {
            0 => {}
            newer_than => return Poll::Ready(Call::Refresh(newer_than)),
        }
        if takes && !inner.frames.is_empty() {
            return Poll::Ready(Call::Deliver);
        }
        if !inner.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            inner.task = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Takes frames in order, up to a cost of `bytes`, but at least one if any waits. The frames count until
    /// [`Outbox::all_written`]. Takes none while the session does not know of a refresh yet.
    pub(crate) fn take(&self, bytes: usize) -> VecDeque<Frame> {
        let mut inner = self.lock();
        if inner.refresh > 0 {
            return VecDeque::new();
        }
        let taken = inner.take(bytes);
        self.hand_over(&taken);
        taken
    }

    /// Takes all frames of one subscription, in order; the others stay. Frames that are then written count as
    /// with [`Outbox::take`].
    pub(crate) fn withdraw(&self, subscription: SubscriptionId) -> VecDeque<Frame> {
        let mut inner = self.lock();
        let frames = std::mem::take(&mut inner.frames);
        let (withdrawn, mut left): (VecDeque<_>, VecDeque<_>) =
            frames.into_iter().partition(|frame| frame.is_of(subscription));
        left.shrink_to_fit();
        inner.bodies = left.iter().map(Frame::cost).sum();
        inner.frames = left;
        self.hand_over(&withdrawn);
        withdrawn
    }

    fn hand_over(&self, frames: &VecDeque<Frame>) {
        let cost = frames.iter().map(|frame| frame.cost() + size_of::<Frame>()).sum();
        self.handed.fetch_add(cost, Ordering::Relaxed);
    }

    /// Notes that all taken frames are written, or thrown away.
    pub(crate) fn all_written(&self) {
        // Only the session's task changes the value, most often to what it is already.
        if self.handed.load(Ordering::Relaxed) > 0 {
            self.handed.store(0, Ordering::Relaxed);
        }
    }

    /// Notes how much else waits for this session, without the bodies of frames: for [`Outbox::load`] alone.
    pub(crate) fn note_beside(&self, bytes: usize) {
        if self.beside.load(Ordering::Relaxed) != bytes {
            self.beside.store(bytes, Ordering::Relaxed);
        }
    }

    /// Returns what waits.
    pub(crate) fn load(&self) -> Load {
        let inner = self.lock();
        let (capacity_bytes, handed) = (inner.capacity_bytes(), self.handed.load(Ordering::Relaxed));
        Load {
            frames: inner.frames.len(),
            without_bodies: capacity_bytes + self.beside.load(Ordering::Relaxed),
            cost: capacity_bytes + inner.bodies + handed,
        }
    }

    /// Throws away what waits. Returns the number of frames, for the caller to count.
    pub(crate) fn discard(&self) -> usize {
        let mut inner = self.lock();
        inner.bodies = 0;
        std::mem::take(&mut inner.frames).len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the session's task, once the lock is released.
fn wake(mut inner: MutexGuard<'_, Inner>) {
    let task = inner.task.take();
    drop(inner);
    if let Some(task) = task {
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    const ONE: SubscriptionId = SubscriptionId(1);

    /// Returns a frame of so many bytes on the wire (at least 2).
    fn frame(bytes: usize) -> Frame {
        Frame::already_encoded(vec![0; bytes])
    }

    #[derive(Default)]
    struct Alarm(AtomicUsize);

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn an_empty_outbox_takes_any_frame_and_a_full_one_ends_the_session() {
        let outbox = Outbox::new(MIN_CAPACITY * 24 + frame(60).cost() + frame(40).cost());
        assert_eq!(outbox.offer(&frame(1000), ONE), Offer::Accepted, "it was empty");
        assert_eq!(outbox.take(10).len(), 1, "at least one");
        outbox.all_written();
        assert_eq!([60, 40].map(|bytes| outbox.offer(&frame(bytes), ONE)), [Offer::Accepted; 2]);
        assert_eq!(outbox.offer(&frame(2), ONE), Offer::Full);
        assert_eq!(outbox.offer(&frame(2), ONE), Offer::Closed);
        let context = &mut Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_call(false, context), Poll::Ready(Call::Close(CloseCode::TooSlow)));
        assert_eq!(outbox.discard(), 2);
    }

    #[test]
    fn what_was_taken_counts_until_it_is_written() {
        let outbox = Outbox::new(MIN_CAPACITY * 24 + 2 * frame(60).cost());
        outbox.offer(&frame(60), ONE);
        let taken = outbox.take(usize::MAX);
        assert_eq!(outbox.load().cost, 24 + frame(60).cost());
        assert_eq!(outbox.offer(&frame(60), ONE), Offer::Accepted, "it was empty");
        drop(taken);
        outbox.all_written();
        assert_eq!(outbox.offer(&frame(60), ONE), Offer::Accepted);
        outbox.take(1);
        assert_eq!(outbox.offer(&frame(60), ONE), Offer::Full, "two wait, and one is being written");
    }

    #[test]
    fn what_one_subscription_has_waiting_can_be_taken_out() {
        let (outbox, two) = (Outbox::new(1 << 10), SubscriptionId(2));
        for (bytes, subscription) in [(10, ONE), (11, two), (12, ONE), (13, two)] {
            outbox.offer(&frame(bytes), subscription);
        }
        let lengths = |frames: VecDeque<Frame>| frames.iter().map(Frame::len).collect::<Vec<_>>();
        assert_eq!(lengths(outbox.withdraw(two)), [11, 13]);
        assert!(outbox.withdraw(two).is_empty());
        assert_eq!(lengths(outbox.take(usize::MAX)), [10, 12]);
    }

    #[test]
    fn the_first_reason_to_close_stands() {
        let outbox = Outbox::new(1 << 10);
        outbox.offer(&frame(10), ONE);
        assert!(outbox.close(CloseCode::Leaving));
        assert!(!outbox.close(CloseCode::Replaced));
        assert_eq!(outbox.offer(&frame(10), ONE), Offer::Closed);
        let context = &mut Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_call(true, context), Poll::Ready(Call::Close(CloseCode::Leaving)));
        assert_eq!(outbox.take(100).len(), 1, "what was accepted can still be written");
    }

    #[test]
    fn the_task_is_woken_for_frames_and_orders_but_takes_frames_only_when_it_wants_them() {
        let (outbox, alarm) = (Outbox::new(1 << 10), Arc::new(Alarm::default()));
        let waker = Waker::from(Arc::clone(&alarm));
        let context = &mut Context::from_waker(&waker);
        assert_eq!(outbox.poll_call(true, context), Poll::Pending);
        outbox.offer(&frame(10), ONE);
        outbox.offer(&frame(10), ONE);
        assert_eq!(alarm.0.load(Ordering::SeqCst), 1, "once for all that waits");
        assert_eq!(outbox.poll_call(true, context), Poll::Ready(Call::Deliver));
        assert_eq!(outbox.poll_call(false, context), Poll::Pending, "deliveries are paused");
        outbox.close(CloseCode::Leaving);
        assert_eq!(alarm.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_refresh_comes_before_messages_that_wait_and_the_latest_stands_for_all() {
        let outbox = Outbox::new(1 << 10);
        outbox.offer(&frame(10), ONE);
        assert!([7, 9, 8].into_iter().all(|refresh| outbox.refresh(refresh)));
        assert!(outbox.take(usize::MAX).is_empty(), "nothing goes out before the session knows");
        let context = &mut Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_call(true, context), Poll::Ready(Call::Refresh(9)));
        assert_eq!(outbox.poll_call(true, context), Poll::Ready(Call::Deliver));
        assert_eq!(outbox.take(usize::MAX).len(), 1);
        outbox.close(CloseCode::Leaving);
        assert!(!outbox.refresh(10), "the session is ending");
    }

    #[test]
    fn an_outbox_holds_no_memory_once_it_is_empty() {
        let outbox = Outbox::new(1 << 20);
        for _ in 0..1000 {
            outbox.offer(&frame(10), ONE);
        }
        while !outbox.take(200).is_empty() {
            let waiting = outbox.lock();
            assert!(
                waiting.frames.capacity() <= 2 * waiting.frames.len() + 2 * MIN_CAPACITY,
                "nor much spare capacity"
            );
        }
        assert_eq!(outbox.lock().frames.capacity(), 0);
    }

    proptest! {
        #[test]
        fn what_is_accepted_comes_out_in_order_and_the_bound_holds(
            steps in prop::collection::vec((2_usize..200, prop::bool::ANY), 1..100),
        ) {
            let limit = 1_024;
            let outbox = Outbox::new(limit);
            let (mut accepted, mut taken) = (Vec::new(), Vec::new());
            for (bytes, takes) in steps {
                if takes {
                    taken.extend(outbox.take(bytes));
                    outbox.all_written();
                } else if outbox.offer(&frame(bytes), ONE) == Offer::Accepted {
                    accepted.push(frame(bytes));
                }
                let waiting = outbox.lock();
                let bodies = waiting.frames.iter().map(Frame::cost).sum::<usize>();
                prop_assert_eq!(waiting.bodies, bodies);
                prop_assert!(waiting.capacity_bytes() + bodies <= limit || waiting.frames.len() == 1);
            }
            while let Some(last) = Some(outbox.take(64)).filter(|last| !last.is_empty()) {
                taken.extend(last);
            }
            prop_assert_eq!(taken, accepted);
        }
    }
}
