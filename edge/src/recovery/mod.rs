//! Nothing is lost within history: this module makes sure that every message is handled once, and in order.
//!
//! | file | decides or does |
//! | --- | --- |
//! | `mod.rs` | [`Recovery`]: what all of the others share |
//! | [`live`] | takes live copies of stored messages |
//! | `doubt`, [`identity`] | makes sure that a stream is still the one that was heard; the evidence (pure) |
//! | `gaps` | whether anything may have been missed in a partition (pure) |
//! | [`attach`] | opens a channel's cursor for each subscriber |
//! | `fetch` | reads missing messages of a channel |
//! | [`sweep`] | compares with the streams: after each interruption, and every ten seconds |
//! | [`replay`] | gives one session stored messages, as fast as it reads |
//! | [`asks`] | answers publishers, and fetches what they ask about in vain |
//! | `looks` | one tail lookup at a time for all who subscribe to a channel |
//! | `recent`, [`metrics`] | the latest counts; what is counted |
//!
//! How far a channel has come, and what may be given after a position, is decided in
//! [`channel`](crate::channel).

pub(crate) mod asks;
pub(crate) mod attach;
mod doubt;
mod fetch;
mod gaps;
pub(crate) mod identity;
pub(crate) mod live;
mod looks;
pub(crate) mod metrics;
mod recent;
pub(crate) mod replay;
pub(crate) mod sweep;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::drain::Drain;
use shared::faults::{Fault, Faults};
use shared::history::{Epoch, History, HistoryState, PageLimit};
use shared::ids::{Channel, MessageId};
use shared::wire::Counts;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use crate::channel::recoverable::NotWhole;
use crate::hub::Hub;
use gaps::GapTracker;
use identity::{Question, StreamIdentity};
use looks::Looks;
use metrics::RecoveryMetrics;
use recent::{Key, Recent};

/// The limits of one read of the store. As many bytes as a socket is given at a time.
const PAGE: PageLimit = PageLimit { messages: 200, bytes: 64 << 10 };
/// The pause before a read of the store is repeated.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause if a replica is only a little behind.
const SHORT_PAUSE: Duration = Duration::from_millis(10);
/// Reads at a time for channels with gaps, over all partitions.
const FETCHES: usize = 64;

/// The deps of recovery, shared by the feed, the sessions and the sweep.
#[derive(Debug)]
pub(crate) struct Recovery {
    history: History,
    hub: Arc<Hub>,
    metrics: RecoveryMetrics,
    recent: Recent,
    drain: Drain,
    gone: CancellationToken,
    /// Slots for reads of missing messages.
    fetches: ReadSlots,
    /// Slots for reads for single sessions.
    replays: ReadSlots,
    /// Tail lookups, for sessions that subscribe.
    looks: Looks,
    /// Reasons to compare the tails of a partition at once.
    sweeps_due: Vec<Notify>,
    faults: Faults,
    views: Vec<Mutex<PartitionView>>,
}

/// Slots for reads of the store. Each partition has its own slots, so that a partition that does not answer
/// takes none from the others.
#[derive(Debug)]
struct ReadSlots(Vec<Semaphore>);

impl ReadSlots {
    fn new(all: usize, partitions: u32) -> Self {
        let each = (all / partitions as usize).max(1);
        Self((0..partitions).map(|_| Semaphore::new(each)).collect())
    }
}

/// The view of one partition in one epoch.
#[derive(Debug, Default)]
struct PartitionView {
    epoch: Option<Epoch>,
    gaps: GapTracker,
    identity: StreamIdentity,
}

/// Bounds of recovery.
#[derive(Debug, Clone)]
pub(crate) struct RecoveryLimits {
    /// Reads at a time for single sessions.
    pub(crate) replays: usize,
    /// Messages whose counts are remembered.
    pub(crate) remembered: usize,
    /// Rules that a test switched off.
    pub(crate) faults: Faults,
}

impl Recovery {
    /// Returns a recovery that has heard nothing yet. Its tasks run on `drain` until `gone` is cancelled.
    pub(crate) fn new(
        history: History,
        hub: Arc<Hub>,
        limits: RecoveryLimits,
        metrics: RecoveryMetrics,
        drain: Drain,
        gone: CancellationToken,
    ) -> Self {
        let partitions = history.partitions();
        Self {
            history,
            hub,
            metrics,
            recent: Recent::new(limits.remembered),
            drain,
            gone,
            fetches: ReadSlots::new(FETCHES, partitions),
            replays: ReadSlots::new(limits.replays, partitions),
            looks: Looks::default(),
            sweeps_due: (0..partitions).map(|_| Notify::new()).collect(),
            faults: limits.faults,
            views: (0..partitions).map(|_| Mutex::default()).collect(),
        }
    }

    /// Tells whether stored messages can be read.
    pub(crate) fn history_state(&self) -> watch::Receiver<HistoryState> {
        self.history.state()
    }

    /// Returns whether a rule is on. A test may switch one off.
    pub(crate) fn is_on(&self, rule: Fault) -> bool {
        !self.faults.has(rule)
    }

    /// Remembers how many sessions got a message that is stored nowhere.
    pub(crate) fn remember(&self, id: MessageId, counts: Counts) {
        self.recent.remember(Key::Id(id), counts);
    }

    /// Counts a subscription that named a position, with the reason if not everything after the position can
    /// be given.
    pub(crate) fn count_recovery(&self, outcome: Result<(), NotWhole>) {
        self.metrics.recovery(outcome);
    }

    /// Counts subscribers that are told to reload.
    pub(crate) fn count_reloads(&self, why: NotWhole, subscribers: u64) {
        self.metrics.reload(why, subscribers);
    }

    /// Looks for missing messages at once, since copies were lost on their way.
    pub(crate) fn look_again(&self) {
        self.sweeps_due.iter().for_each(Notify::notify_one);
    }

    /// Returns the sequence up to which everything of a channel's partition was handled, or is being fetched.
    pub(crate) fn covered(&self, channel: &Channel, epoch: Epoch) -> u64 {
        self.with_gaps(self.history.partition(channel), epoch, |gaps| gaps.covered()).unwrap_or(0)
    }

    /// Returns a check for state that a panic left half changed, so that no message is lost by it unnoticed.
    pub(crate) fn half_changed(self: &Arc<Self>) -> impl Fn() -> Option<&'static str> + Send + Sync + use<> {
        // Weak, since the drain that runs the check also holds the tasks that share recovery.
        let recovery = Arc::downgrade(self);
        move || {
            let recovery = recovery.upgrade()?;
            let what = [
                (recovery.hub.is_poisoned(), "the sessions and channels of this edge"),
                (recovery.views.iter().any(Mutex::is_poisoned), "what was heard of the streams"),
            ];
            what.into_iter().find_map(|(poisoned, what)| poisoned.then_some(what))
        }
    }

    /// Waits for a slot for one read of a partition that is not in doubt. The slot is held for that read and
    /// no longer, so that a task that waits for the stream's leader keeps no other from reading. None: there
    /// is no such partition.
    async fn read_slot<'r>(
        &self,
        slots: &'r ReadSlots,
        partition: u32,
        epoch: Epoch,
    ) -> Option<SemaphorePermit<'r>> {
        loop {
            self.sure(partition, epoch).await;
            let slot = slots.0.get(partition as usize)?.acquire().await.ok()?;
            // A doubt may have come during the wait for the slot.
            if self.doubt(partition, epoch).is_none() {
                return Some(slot);
            }
        }
    }

    /// Compares the channels of a partition at once.
    fn sweep_soon(&self, partition: u32) {
        if let Some(due) = self.sweeps_due.get(partition as usize) {
            due.notify_one();
        }
    }

    /// Compares the channels of a partition at once, since copies behind this sequence may have been missed.
    fn missed(&self, partition: u32, epoch: Epoch, behind: u64) {
        self.with_gaps(partition, epoch, |gaps| gaps.on_missed(behind));
        self.sweep_soon(partition);
    }

    /// Works on the gaps of a partition in an epoch. Another epoch begins without any. None: the epoch is
    /// over.
    fn with_gaps<T>(
        &self,
        partition: u32,
        epoch: Epoch,
        act: impl FnOnce(&mut GapTracker) -> T,
    ) -> Option<T> {
        self.with_view(partition, epoch, |view| act(&mut view.gaps))
    }

    /// Works on the identity of a partition's stream in an epoch. None: the epoch is over.
    fn with_identity<T>(
        &self,
        partition: u32,
        epoch: Epoch,
        act: impl FnOnce(&mut StreamIdentity) -> T,
    ) -> Option<T> {
        self.with_view(partition, epoch, |view| act(&mut view.identity))
    }

    fn with_view<T>(
        &self,
        partition: u32,
        epoch: Epoch,
        act: impl FnOnce(&mut PartitionView) -> T,
    ) -> Option<T> {
        let mut view = lock(self.views.get(partition as usize)?);
        if view.epoch != Some(epoch) {
            // A late caller with an earlier epoch does not undo what was heard since.
            if view.epoch.is_some() && self.history.epoch_of(partition) != Some(epoch) {
                return None;
            }
            *view = PartitionView { epoch: Some(epoch), ..PartitionView::default() };
        }
        Some(act(&mut view))
    }

    /// Returns the message that the stream must have to be trusted. None: nothing is in doubt, or the stream
    /// has another epoch by now.
    fn doubt(&self, partition: u32, epoch: Epoch) -> Option<Question> {
        let view = lock(self.views.get(partition as usize)?);
        if view.epoch == Some(epoch) { view.identity.doubt() } else { None }
    }
}

fn lock(view: &Mutex<PartitionView>) -> MutexGuard<'_, PartitionView> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_a_share_of_the_slots_and_at_least_one() {
        let shares = |all, partitions| {
            let slots = ReadSlots::new(all, partitions);
            slots.0.iter().map(Semaphore::available_permits).collect::<Vec<_>>()
        };
        assert_eq!(shares(64, 1), [64]);
        assert_eq!(shares(64, 3), [21; 3]);
        assert_eq!(shares(2, 4), [1; 4]);
    }
}
