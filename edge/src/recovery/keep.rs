//! What all that recover share: the store, the hub, how much was heard of each partition.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::drain::Drain;
use shared::faults::{Fault, Faults};
use shared::history::{Epoch, History, PageLimit};
use shared::ids::Channel;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::heard::Heard;
use super::metrics::RecoveryMetrics;
use super::recent::Recent;
use crate::hub::Hub;

/// What one read of the store brings at most. As many bytes as a socket is given at a time.
pub(crate) const PAGE: PageLimit = PageLimit { messages: 200, bytes: 64 << 10 };
/// The pause before a read of the store is repeated.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// The same when a replica is only a little behind.
pub(crate) const SHORT_PAUSE: Duration = Duration::from_millis(10);
/// Reads at a time for channels in which something is missing.
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
    pub(crate) fetches: Semaphore,
    /// Places for reads for single sessions.
    pub(crate) replays: Semaphore,
    faults: Faults,
    heard: Vec<Mutex<Ear>>,
}

/// What was heard of one partition in one epoch.
#[derive(Debug, Default)]
struct Ear {
    epoch: Option<Epoch>,
    heard: Heard,
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
        let heard = (0..history.partitions()).map(|_| Mutex::default()).collect();
        Self {
            history,
            hub,
            metrics,
            recent: Recent::new(limits.remembered),
            drain,
            gone,
            fetches: Semaphore::new(FETCHES),
            replays: Semaphore::new(limits.replays),
            faults: limits.faults,
            heard,
        }
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
        let mut ear = lock(self.heard.get(partition as usize)?);
        if ear.epoch != Some(epoch) {
            *ear = Ear { epoch: Some(epoch), heard: Heard::default() };
        }
        Some(act(&mut ear.heard))
    }

    /// Everything of a channel's partition up to here was handled, or is being fetched.
    pub(crate) fn covered(&self, channel: &Channel, epoch: Epoch) -> u64 {
        self.with_heard(self.history.partition(channel), epoch, |heard| heard.covered()).unwrap_or(0)
    }
}

fn lock(ear: &Mutex<Ear>) -> MutexGuard<'_, Ear> {
    ear.lock().unwrap_or_else(PoisonError::into_inner)
}
