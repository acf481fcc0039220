//! Opens a channel's cursor for each session that subscribes.
//!
//! The tail of the channel is read from the leader for each subscription, not only for the first. Messages
//! stored before the answer to a subscription are not for a plain subscriber, who may have got them
//! elsewhere; a recovering subscriber gets them in a replay. So the cursor must have come to that tail before
//! a session joins.

use std::sync::Arc;
use std::time::Duration;

use shared::history::{Epoch, Position, ReadError};
use shared::ids::Channel;
use tokio::time::{Instant, sleep, timeout};

use super::metrics::Cause;
use super::{PAUSE, Recovery};
use crate::channel::recoverable::Leader;
use crate::hub::guards::ChannelGuard;

/// How long live copies on their way may take before their messages are fetched.
const GRACE: Duration = Duration::from_millis(20);

/// A channel whose cursor has come as far as the store had when it was asked.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Keeps the cursor alive.
    pub(crate) guard: ChannelGuard,
    /// The leader's state, asked after the tail was read.
    pub(crate) leader: Leader,
    /// The channel's last sequence at that time.
    pub(crate) tail: u64,
}

impl Recovery {
    /// Opens the cursor of a channel. There is no time limit: the caller sets a deadline.
    pub(crate) async fn attach(self: &Arc<Self>, channel: &Channel) -> Attached {
        loop {
            match self.try_attach(channel).await {
                Ok(attached) => return attached,
                Err(error) => {
                    self.metrics.read_errors.inc();
                    tracing::debug!(%channel, %error, "the tail of a channel can't be read yet");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_attach(self: &Arc<Self>, channel: &Channel) -> Result<Attached, ReadError> {
        let guard = self.hub.guard(channel);
        // Boxed: a session holds the future of its subscription.
        let look = Box::pin(async {
            self.metrics.tail_lookups.inc();
            self.history.tail(channel).await
        });
        let Position { epoch, seq: tail } = self.looks.share(channel, look).await?;
        self.sure(self.history.partition(channel), epoch).await;
        // Asked after the tail, so that the tail is known to be of this epoch.
        let (now, state) = self.history.fresh_epoch(self.history.partition(channel)).await?;
        if now != epoch {
            return Err(ReadError::OtherEpoch);
        }
        self.come_to(channel, epoch, tail).await?;
        let first = if state.messages == 0 { state.last_seq + 1 } else { state.first_seq };
        let leader = Leader { epoch, first, last: state.last_seq };
        Ok(Attached { guard, leader, tail })
    }

    /// Opens the cursor if it is not open, and waits until the cursor has come to `tail`.
    async fn come_to(self: &Arc<Self>, channel: &Channel, epoch: Epoch, tail: u64) -> Result<(), ReadError> {
        let there = || self.hub.has_come_to(channel, epoch, tail).then_some(());
        if self.hub.epoch_of(channel) == Some(epoch) && timeout(GRACE, self.hub.when(there)).await.is_ok() {
            return Ok(());
        }
        if let Some(fetching) = self.hub.open_cursor(channel, epoch, tail, Instant::now()) {
            self.fetch(fetching, Cause::Subscribe);
        }
        self.cursor_at(channel, epoch, tail).await
    }

    /// Waits until an open cursor has come to a sequence that is known to exist.
    pub(super) async fn catch_up_to(
        self: &Arc<Self>,
        channel: &Channel,
        epoch: Epoch,
        seq: u64,
    ) -> Result<(), ReadError> {
        let at = self.cursor_at(channel, epoch, seq);
        if let Ok(there) = timeout(GRACE, at).await {
            return there;
        }
        if let Some(fetching) = self.hub.want(channel, seq) {
            self.fetch(fetching, Cause::Subscribe);
        }
        self.cursor_at(channel, epoch, seq).await
    }

    /// Waits until the cursor has come to a sequence.
    ///
    /// # Errors
    /// The cursor is forgotten, or in another epoch.
    async fn cursor_at(&self, channel: &Channel, epoch: Epoch, seq: u64) -> Result<(), ReadError> {
        let there = || match self.hub.has_come_to(channel, epoch, seq) {
            true => Some(Ok(())),
            false if self.hub.epoch_of(channel) != Some(epoch) => Some(Err(ReadError::OtherEpoch)),
            false => None,
        };
        self.hub.when(there).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use prometheus_client::registry::Registry;
    use shared::bus::{self, Bus, BusConfig};
    use shared::drain::Drain;
    use shared::faults::Faults;
    use shared::history::{History, HistoryConfig, Role};

    use super::*;
    use crate::hub::{Hub, SessionLimits, SessionPolicy};
    use crate::recovery::RecoveryLimits;
    use crate::recovery::metrics::RecoveryMetrics;

    const MINUTE: Duration = Duration::from_secs(60);
    const CROWD: u64 = 300;

    async fn recovery(server: &bus::BusServer, rest: &Drain) -> Arc<Recovery> {
        let bus = Bus::connect(server, "test", rest).await.unwrap();
        let sessions =
            SessionLimits { sessions: 0, watermark: 0, per_user: 1, policy: SessionPolicy::default() };
        let history = History::open(&bus, &HistoryConfig::default(), Role::Publisher, rest);
        let mut state = history.state();
        let ready = state.wait_for(|state| state.epochs().is_some());
        timeout(MINUTE, ready).await.expect("history is ready").unwrap();
        let limits = RecoveryLimits { replays: 1, remembered: 1, faults: Faults::default() };
        let metrics = RecoveryMetrics::register(&mut Registry::default());
        let hub = Arc::new(Hub::new(sessions));
        Arc::new(Recovery::new(history, hub, limits, metrics, rest.clone(), rest.token()))
    }

    /// The sessions of an edge that restarted, all back at the same channel: the store must not feel how many
    /// there are.
    #[tokio::test]
    async fn a_crowd_shares_a_few_tail_lookups_and_reads_nothing_from_the_tail_on() {
        let rest = Drain::new();
        let server = bus::provide(&BusConfig::default(), &rest).await.unwrap();
        let recovery = recovery(&server, &rest).await;
        let channel = Channel::parse("all").unwrap();
        let held = recovery.attach(&channel).await;
        let tail = Position { epoch: held.leader.epoch, seq: held.tail };
        let lookups = || recovery.metrics.tail_lookups.get();

        let before = lookups();
        let attached =
            timeout(MINUTE, join_all((0..CROWD).map(|_| recovery.attach(&channel)))).await.unwrap();
        assert!(attached.iter().all(|one| one.tail == tail.seq));
        // One lookup was on its way when the others came; they share the next. Some may come later still.
        let plain = lookups() - before;
        assert!((1..=CROWD / 30).contains(&plain), "{plain} lookups");

        let before = lookups();
        let found =
            timeout(MINUTE, join_all((0..CROWD).map(|_| recovery.find(&channel, tail)))).await.unwrap();
        assert!(found.iter().all(|one| matches!(one.first, Ok(None))), "everyone is up to date");
        let recovering = lookups() - before;
        assert!((1..=CROWD / 30).contains(&recovering), "{recovering} lookups");
        assert_eq!(recovery.metrics.replay_reads.get(), 0);
        drop((held, attached, found));
        assert_eq!(rest.finish(MINUTE).await, 0);
    }
}
