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
        let Position { epoch, seq: tail } =
            self.looks.share(channel, Box::pin(self.history.tail(channel))).await?;
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
