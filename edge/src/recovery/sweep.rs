//! Compares the channels here with the streams, so that no lost copy stays unnoticed.
//!
//! After each connect of the bus, each change of a stream's leader, and every interval without either: a route between two
//! servers may have lost a copy while nobody's connection broke. Where every copy was heard without a hole there is
//! nothing to compare. Followers that hear nothing are told how far they have come in the same rounds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use shared::bus::async_nats::Subscriber;
use shared::faults::Fault;
use shared::history::{Epoch, HistoryState, ReadError};
use shared::ids::Channel;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::keep::{Keep, PAUSE};
use super::metrics::Cause;
use crate::hub::kept::Fetching;

/// Where the bus tells that a stream has another leader.
pub(crate) const LEADER_ELECTED: &str = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.>";

/// Channels that are compared with one request.
const COMPARED: usize = 1_000;
/// Channels that are caught up with at a time.
const AT_ONCE: usize = 64;
/// How long copies that are on their way may take before channels are compared.
const GRACE: Duration = Duration::from_millis(100);
/// How long one comparison may take before it is begun anew.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a sweep follows.
pub(crate) struct Sweeper {
    keep: Arc<Keep>,
    /// Whether messages surely arrive from the bus.
    active: watch::Receiver<bool>,
    leaders: Subscriber,
    every: Duration,
    /// How long a follower may hear nothing before it is told its position.
    quiet: Duration,
    /// The epochs of the lines here.
    known: HashMap<u32, Epoch>,
}

impl Sweeper {
    pub(crate) fn new(
        keep: Arc<Keep>,
        active: watch::Receiver<bool>,
        leaders: Subscriber,
        every: Duration,
    ) -> Self {
        let quiet = keep.history.config().max_age / 4;
        Self { keep, active, leaders, every: every.min(quiet / 4).max(PAUSE), quiet, known: HashMap::new() }
    }

    /// Sweeps until the edge is gone.
    pub(crate) async fn run(mut self) {
        let gone = self.keep.gone.clone();
        tokio::select! { () = self.sweep_on() => {}, () = gone.cancelled() => {} }
    }

    async fn sweep_on(&mut self) {
        let mut history = self.keep.history.state();
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut interrupted = false;
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = self.active.changed() => interrupted = true,
                Ok(()) = history.changed() => {}
                Some(_) = self.leaders.next() => interrupted = true,
                () = self.keep.look.notified() => {}
                else => return,
            }
            interrupted |= self.active.has_changed().unwrap_or(false);
            if !*self.active.borrow_and_update() {
                continue;
            }
            if interrupted {
                self.keep.on_interruption();
            }
            let Some(epochs) = epochs(&history.borrow_and_update().clone(), self.keep.history.partitions())
            else {
                continue;
            };
            for (partition, epoch) in epochs {
                if interrupted {
                    self.keep.with_heard(partition, epoch, |heard| heard.on_interruption());
                }
                self.renew(partition, epoch).await;
                self.take_over(partition);
                if self.keep.keeps(Fault::Sweep) {
                    self.compare(partition, epoch).await;
                }
                self.tell_positions(partition, epoch);
            }
        }
    }

    /// Lines of another life of the stream begin anew, and whoever follows one is told.
    async fn renew(&mut self, partition: u32, epoch: Epoch) {
        let keep = &self.keep;
        let of_partition = |channel: &Channel| keep.history.partition(channel) == partition;
        if self.known.insert(partition, epoch).is_some_and(|known| known != epoch) {
            for channel in
                keep.hub.lines(|channel, known| known.is_some_and(|it| it != epoch) && of_partition(channel))
            {
                keep.hub.forget_line(&channel);
            }
        }
        let unopened = keep.hub.lines(|channel, known| known.is_none() && of_partition(channel));
        stream::iter(unopened)
            .for_each_concurrent(AT_ONCE, async |channel| {
                // Whoever subscribes opens a line too; what is not open after a while is tried again next time.
                if timeout(DEADLINE, keep.open(&channel)).await.is_err() {
                    tracing::warn!(%channel, "the store does not tell where a channel ends");
                }
            })
            .await;
    }

    /// Fetches what is known to be missing, where whoever fetched it gave up.
    fn take_over(&self, partition: u32) {
        let keep = &self.keep;
        for fetching in keep.hub.abandoned(|channel| keep.history.partition(channel) == partition) {
            keep.fetch(fetching, Cause::Sweep);
        }
    }

    async fn compare(&self, partition: u32, epoch: Epoch) {
        let behind = match timeout(DEADLINE, self.behind(partition, epoch)).await {
            Ok(Ok(behind)) => behind,
            Ok(Err(error)) => {
                self.keep.metrics.read_errors.inc();
                tracing::debug!(partition, %error, "the channels here can't be compared with the stream yet");
                return;
            }
            Err(_) => {
                return tracing::warn!(
                    partition,
                    "comparing the channels here with the stream takes too long"
                );
            }
        };
        if !behind.is_empty() {
            tracing::info!(partition, channels = behind.len(), "fetching what did not come");
        }
        // Whatever is begun is brought to its end.
        let keep = &self.keep;
        stream::iter(behind)
            .for_each_concurrent(AT_ONCE, |fetching| keep.catch_up(fetching, Cause::Sweep))
            .await;
    }

    /// The channels that miss something.
    async fn behind(&self, partition: u32, epoch: Epoch) -> Result<Vec<Fetching>, ReadError> {
        let keep = &self.keep;
        let may_miss =
            |last| keep.with_heard(partition, epoch, |heard| heard.may_miss(last)).unwrap_or(false);
        // Before the question where the stream ends, so that no hole that comes later counts as compared.
        let holes = keep.with_heard(partition, epoch, |heard| heard.holes()).unwrap_or(0);
        let (now, state) = keep.history.fresh_epoch(partition).await?;
        if now != epoch {
            return Err(ReadError::OtherEpoch);
        }
        let last = state.last_seq;
        if last == 0 {
            keep.learn(partition, epoch, last).await?;
        }
        if may_miss(last) {
            sleep(GRACE).await;
        }
        if !may_miss(last) {
            return Ok(Vec::new());
        }
        keep.learn(partition, epoch, last).await?;
        keep.metrics.sweeps.inc();
        let channels = keep
            .hub
            .lines(|channel, known| known == Some(epoch) && keep.history.partition(channel) == partition);
        let mut seen = Vec::with_capacity(channels.len());
        for some in channels.chunks(COMPARED) {
            loop {
                match keep.history.tails(partition, some, last).await? {
                    Some(tails) => break seen.extend(some.iter().zip(tails)),
                    None => sleep(PAUSE).await,
                }
            }
        }
        // From here on nothing waits, so that no fetch is begun and not brought to its end.
        let behind = seen.into_iter().filter_map(|(channel, tail)| keep.hub.want(channel, tail));
        let behind = behind.collect();
        keep.with_heard(partition, epoch, |heard| heard.on_compared(last, holes));
        Ok(behind)
    }

    fn tell_positions(&self, partition: u32, epoch: Epoch) {
        let keep = &self.keep;
        let now = Instant::now();
        let Some(before) = now.checked_sub(self.quiet) else { return };
        let covered = keep.with_heard(partition, epoch, |heard| heard.covered()).unwrap_or(0);
        for channel in keep.hub.quiet(before, |channel| keep.history.partition(channel) == partition) {
            let told = keep.hub.tell_positions(&channel, (epoch, covered), before, now);
            keep.metrics.positions.inc_by(told);
        }
    }
}

/// The epochs of all partitions; none while history can't be used.
fn epochs(state: &HistoryState, partitions: u32) -> Option<Vec<(u32, Epoch)>> {
    let epochs = state.epochs()?;
    (0..partitions).map(|partition| Some((partition, epochs.of(partition)?))).collect()
}
