//! The beginning of a line, for whoever subscribes.
//!
//! The tail of the channel is read from the leader each time, not only for the first: what was stored before
//! the answer to a subscription is not for a plain subscriber, who may have had it elsewhere, and a
//! recovering one has its own way to it. So the line must have come to that tail before anybody joins.

use std::sync::Arc;
use std::time::Duration;

use shared::history::{Epoch, ReadError};
use shared::ids::Channel;
use tokio::time::{Instant, sleep, timeout};

use super::keep::{Keep, PAUSE};
use super::metrics::Cause;
use super::verdict::Leader;
use crate::hub::kept::Hold;

/// How long the copies that are on their way may take before what they carry is fetched.
const GRACE: Duration = Duration::from_millis(20);

/// A line that has come as far as the store when it was asked.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Keeps it.
    pub(crate) hold: Hold,
    /// What the leader said after the tail was read.
    pub(crate) leader: Leader,
    /// The channel's last sequence then.
    pub(crate) tail: u64,
}

impl Keep {
    /// Opens the line of a channel, however long that takes: give it a deadline.
    pub(crate) async fn open(self: &Arc<Self>, channel: &Channel) -> Opened {
        loop {
            match self.try_open(channel).await {
                Ok(opened) => return opened,
                Err(error) => {
                    self.metrics.read_errors.inc();
                    tracing::debug!(%channel, %error, "the tail of a channel can't be read yet");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_open(self: &Arc<Self>, channel: &Channel) -> Result<Opened, ReadError> {
        let hold = self.hub.hold(channel);
        // Boxed: a session holds the future of its subscription.
        let (epoch, tail) = self.looks.share(channel, Box::pin(self.history.tail(channel))).await?;
        self.sure(self.history.partition(channel), epoch).await;
        // Asked after the tail, so that it is known to be of this life of the stream.
        let (now, state) = self.history.fresh_epoch(self.history.partition(channel)).await?;
        if now != epoch {
            return Err(ReadError::OtherEpoch);
        }
        self.come_to(channel, epoch, tail).await?;
        let first = if state.messages == 0 { state.last_seq + 1 } else { state.first_seq };
        let leader = Leader { epoch, first, last: state.last_seq };
        Ok(Opened { hold, leader, tail })
    }

    /// Opens the line if it is not, and waits until it has come to `tail`.
    async fn come_to(self: &Arc<Self>, channel: &Channel, epoch: Epoch, tail: u64) -> Result<(), ReadError> {
        let there = || self.hub.has_come_to(channel, epoch, tail).then_some(());
        if self.hub.epoch_of(channel) == Some(epoch) && timeout(GRACE, self.hub.when(there)).await.is_ok() {
            return Ok(());
        }
        if let Some(fetching) = self.hub.open_line(channel, epoch, tail, Instant::now()) {
            self.fetch(fetching, Cause::Subscribe);
        }
        self.line_at(channel, epoch, tail).await
    }

    /// Waits until an open line has come to a sequence that is known to exist.
    pub(super) async fn catch_up_to(
        self: &Arc<Self>,
        channel: &Channel,
        epoch: Epoch,
        seq: u64,
    ) -> Result<(), ReadError> {
        let at = self.line_at(channel, epoch, seq);
        if let Ok(there) = timeout(GRACE, at).await {
            return there;
        }
        if let Some(fetching) = self.hub.want(channel, seq) {
            self.fetch(fetching, Cause::Subscribe);
        }
        self.line_at(channel, epoch, seq).await
    }

    /// Waits. An error: the line is forgotten, or of another life of the stream.
    async fn line_at(&self, channel: &Channel, epoch: Epoch, seq: u64) -> Result<(), ReadError> {
        let there = || match self.hub.has_come_to(channel, epoch, seq) {
            true => Some(Ok(())),
            false if self.hub.epoch_of(channel) != Some(epoch) => Some(Err(ReadError::OtherEpoch)),
            false => None,
        };
        self.hub.when(there).await
    }
}
