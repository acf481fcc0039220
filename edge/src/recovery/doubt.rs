//! Makes sure that a stream is still the same one, when a copy does not follow the newest one.
//!
//! If a backup is restored or a stream is made anew while parts run, the stream gives out sequences a second
//! time. Until the streams are looked at again, a message of the new epoch could pass for one of the old
//! epoch. So when a copy is out of sequence, or the connection to the bus is another one, nothing of its
//! partition is delivered until the leader has said which message stands at the newest sequence that was
//! heard. If another message stands there, the stream seems to have gone back or lost its end; so too if no
//! message stands there, although the message can't have left by age or for newer ones of its channel. Mostly
//! a copy was lost, and the stream is the same one.

use std::sync::Arc;

use shared::history::{Epoch, ReadError};
use shared::ids::Channel;
use tokio::time::sleep;

use super::identity::{Known, Question, StreamIdentity};
use super::{PAUSE, Recovery};

impl Recovery {
    /// Doubts all streams, since the connection to the bus is another one.
    pub(crate) fn on_interruption(self: &Arc<Self>) {
        (0..self.history.partitions()).for_each(|partition| self.on_interruption_of(partition));
    }

    /// Doubts one stream, which has another leader.
    pub(crate) fn on_interruption_of(self: &Arc<Self>, partition: u32) {
        if let Some(epoch) = self.history.epoch_of(partition)
            && self.with_identity(partition, epoch, StreamIdentity::on_interruption) == Some(true)
        {
            self.make_sure(partition, epoch);
        }
    }

    /// Learns the last message of a stream of which not everything was heard.
    pub(super) async fn learn(&self, partition: u32, epoch: Epoch, last: u64) -> Result<(), ReadError> {
        if last == 0 {
            // Nothing was ever stored, so the first message follows.
            self.with_identity(partition, epoch, |identity| identity.know(Known::of("", 0, None)));
            return Ok(());
        }
        if self.with_identity(partition, epoch, |identity| identity.is_behind(last)) == Some(true)
            && let Some((channel, id)) = self.history.id_at(partition, last).await?
        {
            let known = Known { seq: last, id: Some(id), channel };
            self.with_identity(partition, epoch, |identity| identity.know(known));
        }
        Ok(())
    }

    /// Asks the leader, in a task of its own, until the leader has settled whether the stream is the same.
    pub(crate) fn make_sure(self: &Arc<Self>, partition: u32, epoch: Epoch) {
        self.metrics.doubts.inc();
        let (recovery, gone) = (Arc::clone(self), self.gone.clone());
        self.drain.spawn_whole("edge-doubt", async move {
            tokio::select! { () = recovery.ask_until_sure(partition, epoch) => {}, () = gone.cancelled() => {} }
        });
    }

    async fn ask_until_sure(&self, partition: u32, epoch: Epoch) {
        while let Some(question) = self.doubt(partition, epoch) {
            match self.is_same(partition, epoch, &question.known).await {
                Ok(true) => {
                    if question.was_there {
                        self.history.stands(epoch, partition);
                    }
                    self.confirm(partition, epoch, &question);
                    continue;
                }
                Ok(false) | Err(ReadError::Behind) if !question.was_there => {
                    tracing::debug!(
                        partition,
                        seq = question.known.seq,
                        "copies that are not of this epoch came"
                    );
                    self.with_identity(partition, epoch, |identity| identity.dismiss(&question));
                    continue;
                }
                // The cursors here are opened anew as soon as the epoch is another one.
                Ok(false) => self.history.seems_back(epoch, partition),
                Err(error) => {
                    // The evidence is interrupted. If the stream went back, that must last anew from the
                    // next time the leader says so.
                    self.history.stands(epoch, partition);
                    self.metrics.read_errors.inc();
                    tracing::debug!(partition, %error, "the stream can't be asked what it has yet");
                }
            }
            sleep(PAUSE).await;
        }
        self.hub.progressed();
    }

    fn confirm(&self, partition: u32, epoch: Epoch, question: &Question) {
        if let Some(Some(seq)) = self.with_identity(partition, epoch, |identity| identity.confirm(question)) {
            self.history.saw(epoch, partition, seq);
            // The copies that were in doubt are not counted as heard: comparing tails tells how far this edge
            // has come.
            self.sweep_soon(partition);
        }
    }

    async fn is_same(&self, partition: u32, epoch: Epoch, known: &Known) -> Result<bool, ReadError> {
        let (now, state) = self.history.fresh_epoch(partition).await?;
        if now != epoch {
            return Err(ReadError::OtherEpoch);
        }
        if known.seq == 0 {
            return Ok(true);
        }
        if state.last_seq < known.seq {
            // Either the leader is still loading its messages, or the stream went back: the watch over the
            // streams decides.
            return Err(ReadError::Behind);
        }
        if let Some((_, id)) = self.history.id_at(partition, known.seq).await? {
            return Ok(known.id.is_none_or(|known| known == id));
        }
        // The message has expired, and the stream begins behind it; or the message left for newer ones of its
        // channel.
        if state.messages == 0 || state.first_seq > known.seq {
            return Ok(true);
        }
        let Ok(channel) = Channel::parse(&known.channel) else { return Ok(true) };
        let tail = self.history.tail(&channel).await?;
        Ok(tail.seq > known.seq)
    }

    /// Waits until nothing of a partition is in doubt. In another epoch nothing is in doubt.
    pub(crate) async fn sure(&self, partition: u32, epoch: Epoch) {
        let sure = self.hub.when(|| self.doubt(partition, epoch).is_none().then_some(()));
        let mut history = self.history.state();
        let other =
            history.wait_for(|state| state.epochs().and_then(|epochs| epochs.of(partition)) != Some(epoch));
        // No task asks about an epoch that is over, so nothing else would wake this one.
        tokio::select! { () = sure => {}, _ = other => {} }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::registry::Registry;
    use shared::bus::{self, Bus, BusConfig};
    use shared::drain::Drain;
    use shared::faults::Faults;
    use shared::history::{History, HistoryConfig, Role};
    use shared::ids::MessageId;
    use tokio::time::timeout;

    use super::*;
    use crate::hub::{Hub, SessionLimits, SessionPolicy};
    use crate::recovery::RecoveryLimits;
    use crate::recovery::metrics::RecoveryMetrics;

    #[tokio::test]
    async fn nobody_waits_for_an_epoch_that_is_over_or_undoes_what_the_next_one_knows() {
        let rest = Drain::new();
        let server = bus::provide(&BusConfig::default(), &rest).await.unwrap();
        let bus = Bus::connect(&server, "test", &rest).await.unwrap();
        let sessions =
            SessionLimits { sessions: 0, watermark: 0, per_user: 1, policy: SessionPolicy::default() };
        let history = History::open(&bus, &HistoryConfig::default(), Role::Reader, &rest);
        let limits = RecoveryLimits { replays: 1, remembered: 1, faults: Faults::default() };
        let counters = RecoveryMetrics::register(&mut Registry::default());
        let hub = Arc::new(Hub::new(sessions));
        let recovery = Recovery::new(history, hub, limits, counters, rest.clone(), rest.token());
        // The stream's own epoch is another one.
        let doubted = recovery.with_identity(0, Epoch(1), |identity| {
            identity.know(Known::of("user:1", 10, Some(MessageId(10))));
            identity.on_interruption()
        });
        assert_eq!(doubted, Some(true));
        let sure = timeout(Duration::from_secs(20), recovery.sure(0, Epoch(1)));
        assert!(sure.await.is_ok(), "nothing would wake who waits");
        assert_eq!(recovery.with_gaps(0, Epoch(2), |_| ()), None, "it is over too");
        assert!(recovery.doubt(0, Epoch(1)).is_some(), "what is known stays known");
        rest.begin();
        drop((recovery, bus));
        assert_eq!(rest.finish(Duration::from_secs(20)).await, 0);
    }
}
