//! Compares the channels here with the streams, so that no lost copy stays unnoticed.
//!
//! A sweep runs after each connect to the bus, after each change of a stream's leader, and at every interval
//! without either: a route between two servers may have lost a copy although no connection broke. Where every
//! copy was heard without a gap there is nothing to compare. In the same rounds, followers that heard nothing
//! are told how far they have come.
//!
//! Each partition is swept by itself: a partition whose stream does not answer delays no other. Gaps that a
//! comparison shows are fetched in a task of their own, so no round waits for them either.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use shared::bus::async_nats::Subscriber;
use shared::bus::jetstream::ApiError;
use shared::faults::Fault;
use shared::history::{Epoch, Position, ReadError};
use shared::ids::Channel;
use shared::subject;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::metrics::Cause;
use super::{PAUSE, Recovery};
use crate::hub::guards::Fetching;

/// The subject of advisories that a stream has another leader; the stream's name stands behind it.
pub(crate) const LEADER_ELECTED: &str = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.>";

/// Channels that are compared with one request.
const COMPARED: usize = 1_000;
/// Channels whose cursors are opened at a time.
const AT_ONCE: usize = 64;
/// How long copies on their way may take before channels are compared.
const GRACE: Duration = Duration::from_millis(100);
/// How long a round may take to open cursors, or to compare the channels of one request, before it is given
/// up.
const DEADLINE: Duration = Duration::from_secs(30);
/// The pause after a round that was given up.
const AGAIN: Duration = Duration::from_secs(1);

/// The sweeps of all partitions, and their reasons to begin.
pub(crate) struct Sweeper {
    recovery: Arc<Recovery>,
    /// Whether messages surely arrive from the bus.
    active: watch::Receiver<bool>,
    leaders: Subscriber,
    every: Duration,
    /// How long a follower may hear nothing before it is told a position.
    quiet: Duration,
}

/// The sweep of one partition.
struct Sweep<'a> {
    recovery: &'a Arc<Recovery>,
    partition: u32,
    active: watch::Receiver<bool>,
    /// Notified when there is a reason to sweep at once.
    due: &'a Notify,
    every: Duration,
    quiet: Duration,
    /// The epoch of the cursors here.
    known: Option<Epoch>,
}

impl Sweeper {
    pub(crate) fn new(
        recovery: Arc<Recovery>,
        active: watch::Receiver<bool>,
        leaders: Subscriber,
        every: Duration,
    ) -> Self {
        let quiet = recovery.history.config().max_age / 4;
        Self { recovery, active, leaders, every: every.min(quiet / 4).max(PAUSE), quiet }
    }

    /// Sweeps until the edge is gone.
    pub(crate) async fn run(mut self) {
        let (recovery, gone) = (Arc::clone(&self.recovery), self.recovery.gone.clone());
        let sweeps: Vec<_> = recovery
            .sweeps_due
            .iter()
            .zip(0..)
            .map(|(due, partition)| self.of(&recovery, partition, due))
            .collect();
        tokio::select! {
            () = self.watch() => {}
            _ = join_all(sweeps.into_iter().map(Sweep::run)) => {}
            () = gone.cancelled() => {}
        }
    }

    fn of<'a>(&self, recovery: &'a Arc<Recovery>, partition: u32, due: &'a Notify) -> Sweep<'a> {
        let (active, every, quiet) = (self.active.clone(), self.every, self.quiet);
        Sweep { recovery, partition, active, due, every, quiet, known: None }
    }

    /// Tells the sweeps when they have a reason to begin. This loop waits for nothing else, so that the
    /// copies that may have been missed are known at once.
    async fn watch(&mut self) {
        let mut history = self.recovery.history.state();
        let partitions = self.recovery.history.partitions();
        let mut epochs = vec![None; partitions as usize];
        loop {
            tokio::select! {
                Ok(()) = self.active.changed() => {
                    if *self.active.borrow_and_update() {
                        (0..partitions).for_each(|partition| self.interrupted(partition));
                    }
                }
                Ok(()) = history.changed() => {
                    let state = history.borrow_and_update().clone();
                    for (known, partition) in epochs.iter_mut().zip(0..) {
                        let epoch = state.epochs().and_then(|epochs| epochs.of(partition));
                        if std::mem::replace(known, epoch) != epoch {
                            self.recovery.sweep_soon(partition);
                        }
                    }
                }
                // Only the stream with another leader is doubted: a server that ends changes the leaders of
                // many streams at once.
                Some(message) = self.leaders.next() => {
                    let partition = message.subject.rsplit('.').next().and_then(subject::parse_log_stream);
                    if let Some(partition) = partition && *self.active.borrow() {
                        self.interrupted(partition);
                    }
                }
                else => return,
            }
        }
    }

    /// Notes that copies of a partition may have been missed.
    fn interrupted(&self, partition: u32) {
        self.recovery.on_interruption_of(partition);
        if let Some(epoch) = self.recovery.history.epoch_of(partition) {
            self.recovery.with_gaps(partition, epoch, |gaps| gaps.on_interruption());
        }
        self.recovery.sweep_soon(partition);
    }
}

impl Sweep<'_> {
    async fn run(mut self) {
        let partitions = self.recovery.history.partitions();
        // The partitions are spread over the interval, so that the leaders are not all asked in the same
        // moment.
        let mut next = Instant::now() + self.every * self.partition / partitions;
        loop {
            tokio::select! { () = sleep_until(next) => {}, () = self.due.notified() => {} }
            let done = self.round().await;
            next = Instant::now() + if done { self.every } else { AGAIN.min(self.every) };
        }
    }

    /// Makes one round. False: the round was given up.
    async fn round(&mut self) -> bool {
        let epoch = self.recovery.history.epoch_of(self.partition);
        let Some(epoch) = epoch.filter(|_| *self.active.borrow()) else { return true };
        let opened = self.renew(epoch).await;
        self.take_over();
        let compared = !self.recovery.is_on(Fault::Sweep) || self.compare(epoch).await;
        self.tell_positions(epoch);
        opened && compared
    }

    fn is_mine(&self, channel: &Channel) -> bool {
        self.recovery.history.partition(channel) == self.partition
    }

    /// Opens the cursors of another epoch anew, and tells their followers.
    async fn renew(&mut self, epoch: Epoch) -> bool {
        if self.known.replace(epoch).is_some_and(|known| known != epoch) {
            let others = |channel: &Channel, known: Option<Epoch>| {
                known.is_some_and(|known| known != epoch) && self.is_mine(channel)
            };
            for channel in self.recovery.hub.with_history(others) {
                self.recovery.hub.forget_cursor(&channel);
            }
        }
        let unopened =
            self.recovery.hub.with_history(|channel, known| known.is_none() && self.is_mine(channel));
        let opening = stream::iter(unopened)
            .for_each_concurrent(AT_ONCE, async |channel| drop(self.recovery.attach(&channel).await));
        // Every subscription opens a cursor too; a cursor that is not open by then is tried again in the next
        // round.
        let opened = timeout(DEADLINE, opening).await.is_ok();
        if !opened {
            tracing::warn!(partition = self.partition, "the store does not tell where channels end");
        }
        opened
    }

    /// Takes over the fetch of known gaps where another fetch gave up.
    fn take_over(&self) {
        for fetching in self.recovery.hub.abandoned(|channel| self.is_mine(channel)) {
            self.recovery.fetch(fetching, Cause::Sweep);
        }
    }

    /// Compares the channels with the stream. False: that was not possible.
    async fn compare(&self, epoch: Epoch) -> bool {
        match self.try_to_compare(epoch).await {
            Ok(()) => true,
            Err(error) => {
                self.recovery.metrics.read_errors.inc();
                let partition = self.partition;
                tracing::debug!(partition, %error, "the channels here can't be compared with the stream yet");
                false
            }
        }
    }

    async fn try_to_compare(&self, epoch: Epoch) -> Result<(), ReadError> {
        let (recovery, partition) = (self.recovery, self.partition);
        let may_miss =
            |last| recovery.with_gaps(partition, epoch, |gaps| gaps.may_miss(last)).unwrap_or(false);
        // Read before the leader is asked where the stream ends, so that no later gap counts as compared.
        let count = recovery.with_gaps(partition, epoch, |gaps| gaps.count()).unwrap_or(0);
        let seen = recovery.history.seen(partition);
        let (now, state) = recovery.history.fresh_epoch(partition).await?;
        if now != epoch {
            return Err(ReadError::OtherEpoch);
        }
        if state.last_seq < seen {
            // Copies that were heard beyond the answer would count as compared.
            return Err(ReadError::Behind);
        }
        let last = state.last_seq;
        if last == 0 {
            recovery.learn(partition, epoch, last).await?;
        }
        if may_miss(last) {
            sleep(GRACE).await;
        }
        if !may_miss(last) {
            return Ok(());
        }
        recovery.learn(partition, epoch, last).await?;
        recovery.metrics.sweeps.inc();
        // Messages up to here were handled, or are being fetched: only messages beyond may be missing.
        let covered = recovery.with_gaps(partition, epoch, |gaps| gaps.covered()).unwrap_or(0);
        let channels =
            recovery.hub.with_history(|channel, known| known == Some(epoch) && self.is_mine(channel));
        for some in channels.chunks(COMPARED) {
            let tails = timeout(DEADLINE, recovery.history.tails(partition, some, covered, last)).await;
            self.fetch_behind(some, tails.map_err(|_| ReadError::Api(ApiError::Timeout))??);
        }
        recovery.with_gaps(partition, epoch, |gaps| gaps.on_compared(last, count));
        Ok(())
    }

    /// Begins to fetch the stored messages that these channels miss.
    fn fetch_behind(&self, channels: &[Channel], tails: Vec<Option<u64>>) {
        let behind: Vec<Fetching> = channels
            .iter()
            .zip(tails)
            .filter_map(|(channel, tail)| self.recovery.hub.want(channel, tail?))
            .collect();
        if !behind.is_empty() {
            tracing::info!(partition = self.partition, channels = behind.len(), "fetching what did not come");
            self.recovery.fetch_all(behind, Cause::Sweep);
        }
    }

    fn tell_positions(&self, epoch: Epoch) {
        let (recovery, now) = (self.recovery, Instant::now());
        let Some(before) = now.checked_sub(self.quiet) else { return };
        let seq = recovery.with_gaps(self.partition, epoch, |gaps| gaps.covered()).unwrap_or(0);
        let covered = Position { epoch, seq };
        for channel in recovery.hub.quiet(before, |channel| self.is_mine(channel)) {
            let followers = recovery.hub.tell_position(&channel, covered, before, now);
            recovery.metrics.positions.inc_by(followers);
        }
    }
}
