//! What all that recover share: the store, the hub, how much was heard of each partition.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::drain::Drain;
use shared::faults::{Fault, Faults};
use shared::history::{Epoch, History, PageLimit};
use shared::ids::{Channel, MessageId};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::doubt::{Question, Thread, Trust};
use super::heard::Heard;
use super::looks::Looks;
use super::metrics::RecoveryMetrics;
use super::recent::Recent;
use crate::hub::Hub;

/// What one read of the store brings at most. As many bytes as a socket is given at a time.
pub(crate) const PAGE: PageLimit = PageLimit { messages: 200, bytes: 64 << 10 };
/// The pause before a read of the store is repeated.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// The same when a replica is only a little behind.
pub(crate) const SHORT_PAUSE: Duration = Duration::from_millis(10);
/// Reads at a time for channels in which something is missing, of all partitions.
const FETCHES: usize = 64;

/// Shared by the feed, the sessions and the sweep.
#[derive(Debug)]
pub(crate) struct Keep {
    pub(crate) history: History,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: RecoveryMetrics,
    pub(crate) recent: Recent,
    pub(crate) drain: Drain,
    pub(crate) gone: CancellationToken,
    /// Places for reads of what is missing.
    pub(super) fetches: Places,
    /// Places for reads for single sessions.
    pub(super) replays: Places,
    /// Where channels end, for those who subscribe.
    pub(super) looks: Looks,
    /// Reasons to compare the tails of a partition at once.
    pub(super) sweeps_due: Vec<Notify>,
    faults: Faults,
    heard: Vec<Mutex<Ear>>,
}

/// Places for reads of the store. Each partition has its own, so that one which does not answer takes none
/// from others.
#[derive(Debug)]
pub(super) struct Places(Vec<Semaphore>);

impl Places {
    fn new(all: usize, partitions: u32) -> Self {
        let each = (all / partitions as usize).max(1);
        Self((0..partitions).map(|_| Semaphore::new(each)).collect())
    }
}

/// What was heard of one partition in one epoch.
#[derive(Debug, Default)]
struct Ear {
    epoch: Option<Epoch>,
    heard: Heard,
    thread: Thread,
}

/// Bounds of recovery.
#[derive(Debug, Clone)]
pub(crate) struct KeepLimits {
    /// Reads at a time for single sessions.
    pub(crate) replays: usize,
    /// Messages whose counts are remembered.
    pub(crate) remembered: usize,
    /// Rules that are switched off.
    pub(crate) faults: Faults,
}

impl Keep {
    pub(crate) fn new(
        history: History,
        hub: Arc<Hub>,
        limits: KeepLimits,
        metrics: RecoveryMetrics,
        drain: Drain,
        gone: CancellationToken,
    ) -> Self {
        let partitions = history.partitions();
        let heard = (0..partitions).map(|_| Mutex::default()).collect();
        Self {
            history,
            hub,
            metrics,
            recent: Recent::new(limits.remembered),
            drain,
            gone,
            fetches: Places::new(FETCHES, partitions),
            replays: Places::new(limits.replays, partitions),
            looks: Looks::default(),
            sweeps_due: (0..partitions).map(|_| Notify::new()).collect(),
            faults: limits.faults,
            heard,
        }
    }

    /// A place for one read of a partition of which nothing is in doubt: to be held for that read and no
    /// longer, so that whoever waits for the stream's leader keeps nobody from reading. None: there is no
    /// such partition.
    pub(super) async fn place<'k>(
        &self,
        places: &'k Places,
        partition: u32,
        epoch: Epoch,
    ) -> Option<SemaphorePermit<'k>> {
        loop {
            self.sure(partition, epoch).await;
            let place = places.0.get(partition as usize)?.acquire().await.ok()?;
            // A doubt may have come while this waited for the place.
            if self.doubt(partition, epoch).is_none() {
                return Some(place);
            }
        }
    }

    /// Whether a panic left half changed what was heard.
    pub(super) fn is_poisoned(&self) -> bool {
        self.heard.iter().any(Mutex::is_poisoned)
    }

    /// Whether a rule holds; one that is switched off does not, in a test.
    pub(crate) fn keeps(&self, rule: Fault) -> bool {
        !self.faults.has(rule)
    }

    /// Does something with what was heard of a partition in an epoch. Another epoch begins with nothing.
    pub(crate) fn with_heard<T>(
        &self,
        partition: u32,
        epoch: Epoch,
        act: impl FnOnce(&mut Heard) -> T,
    ) -> Option<T> {
        self.with_ear(partition, epoch, |ear| act(&mut ear.heard))
    }

    fn with_ear<T>(&self, partition: u32, epoch: Epoch, act: impl FnOnce(&mut Ear) -> T) -> Option<T> {
        let mut ear = lock(self.heard.get(partition as usize)?);
        if ear.epoch != Some(epoch) {
            // Whoever comes late with an epoch of before does not undo what was heard since.
            if ear.epoch.is_some() && self.history.epoch_of(partition) != Some(epoch) {
                return None;
            }
            *ear = Ear { epoch: Some(epoch), ..Ear::default() };
        }
        Some(act(&mut ear))
    }

    /// Copies were lost on their way: whatever is missing is looked for at once.
    pub(crate) fn look_again(&self) {
        self.sweeps_due.iter().for_each(Notify::notify_one);
    }

    /// The channels of a partition are compared at once.
    pub(super) fn sweep_soon(&self, partition: u32) {
        if let Some(due) = self.sweeps_due.get(partition as usize) {
            due.notify_one();
        }
    }

    /// Copies of a partition may have been missed behind this sequence: its channels are compared at once.
    pub(super) fn missed(&self, partition: u32, epoch: Epoch, behind: u64) {
        self.with_heard(partition, epoch, |heard| heard.on_missed(behind));
        self.sweep_soon(partition);
    }

    /// A live copy came: whether it surely is of this epoch.
    pub(crate) fn hear(
        &self,
        (partition, epoch): (u32, Epoch),
        channel: &str,
        seq: u64,
        id: Option<MessageId>,
    ) -> Trust {
        self.with_thread(partition, epoch, |thread| thread.on_live(channel, seq, id))
            .unwrap_or(Trust::Doubtful { first: false })
    }

    /// Does something with what is known of the sequence of copies of a partition in an epoch.
    pub(super) fn with_thread<T>(
        &self,
        partition: u32,
        epoch: Epoch,
        act: impl FnOnce(&mut Thread) -> T,
    ) -> Option<T> {
        self.with_ear(partition, epoch, |ear| act(&mut ear.thread))
    }

    /// What the stream must have to be trusted. None: it is, or it is another one by now.
    pub(super) fn doubt(&self, partition: u32, epoch: Epoch) -> Option<Question> {
        let ear = lock(self.heard.get(partition as usize)?);
        if ear.epoch == Some(epoch) { ear.thread.doubt() } else { None }
    }

    /// Everything of a channel's partition up to here was handled, or is being fetched.
    pub(crate) fn covered(&self, channel: &Channel, epoch: Epoch) -> u64 {
        self.with_heard(self.history.partition(channel), epoch, |heard| heard.covered()).unwrap_or(0)
    }
}

fn lock(ear: &Mutex<Ear>) -> MutexGuard<'_, Ear> {
    ear.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_a_share_of_the_places_and_at_least_one() {
        let shares = |all, partitions| {
            let places = Places::new(all, partitions);
            places.0.iter().map(Semaphore::available_permits).collect::<Vec<_>>()
        };
        assert_eq!(shares(64, 1), [64]);
        assert_eq!(shares(64, 3), [21; 3]);
        assert_eq!(shares(2, 4), [1; 4]);
    }
}
