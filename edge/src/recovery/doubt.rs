//! Makes sure that a stream is still the one that was heard, when a copy does not follow the newest one.
//!
//! A backup that is restored, or a stream that is made anew, while parts run gives sequences a second time. Until the
//! streams are looked at again, a message of the new life could pass for one of the old. So when a copy is out of sequence,
//! or the connection to the bus is another one, nothing of its partition is delivered until the leader has said what stands
//! at the newest sequence that was heard. If it is another message, or none though it can't have left by age or for newer
//! ones of its channel, the stream seems to have gone back or lost its end. Mostly a copy was lost, and it is the same one.

use std::sync::Arc;

use shared::history::{Epoch, ReadError};
use shared::ids::{Channel, MessageId};
use tokio::time::sleep;

use super::keep::{Keep, PAUSE};

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) seq: u64,
    pub(crate) id: MessageId,
    pub(crate) channel: String,
}

/// Whether copies of one partition in one epoch follow each other: pure.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    /// The newest that was heard, if it can be told from others.
    newest: Option<Known>,
    /// What the stream must still have, to be trusted again.
    doubt: Option<Known>,
}

/// What may be done with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It follows.
    Sure,
    /// It may be of another life of the stream. `first`: somebody has to ask.
    Doubtful { first: bool },
}

impl Thread {
    /// A copy came. `id` is none if it can't be read.
    pub(crate) fn on_live(&mut self, channel: &str, seq: u64, id: Option<MessageId>) -> Trust {
        let trust = match (&self.doubt, &self.newest) {
            (Some(_), _) => Trust::Doubtful { first: false },
            (None, Some(newest)) if seq != newest.seq + 1 && (seq, id) != (newest.seq, Some(newest.id)) => {
                self.doubt.clone_from(&self.newest);
                Trust::Doubtful { first: true }
            }
            (None, _) => Trust::Sure,
        };
        match (&mut self.newest, id) {
            (Some(newest), _) if seq <= newest.seq => {}
            // Without a new allocation: this is for every message.
            (Some(newest), Some(id)) => {
                (newest.seq, newest.id) = (seq, id);
                newest.channel.clear();
                newest.channel.push_str(channel);
            }
            (newest, id) => *newest = id.map(|id| Known { seq, id, channel: channel.to_owned() }),
        }
        trust
    }

    /// The connection to the bus was another one before. True: somebody has to ask.
    pub(crate) fn on_interruption(&mut self) -> bool {
        let first = self.doubt.is_none() && self.newest.is_some();
        if first {
            self.doubt.clone_from(&self.newest);
        }
        first
    }

    /// Whether a stream that ends with this sequence, and is not in doubt, has something newer than was heard.
    pub(crate) fn is_behind(&self, last: u64) -> bool {
        self.doubt.is_none() && self.newest.as_ref().is_none_or(|newest| newest.seq < last)
    }

    /// The leader has this. It counts as heard: whatever did not come is fetched.
    pub(crate) fn know(&mut self, known: Known) {
        if self.is_behind(known.seq) {
            self.newest = Some(known);
        }
    }

    /// What the stream must have to be trusted. None: it is.
    pub(crate) fn doubt(&self) -> Option<&Known> {
        self.doubt.as_ref()
    }

    /// The stream is the one that was heard.
    pub(crate) fn trust(&mut self) {
        self.doubt = None;
    }
}

impl Keep {
    /// The connection to the bus is another one: all streams are in doubt.
    pub(crate) fn on_interruption(self: &Arc<Self>) {
        for partition in 0..self.history.partitions() {
            if let Some(epoch) = self.history.epoch_of(partition)
                && self.with_thread(partition, epoch, Thread::on_interruption) == Some(true)
            {
                self.make_sure(partition, epoch);
            }
        }
    }

    /// Learns what stands at the end of a stream of which not everything was heard.
    pub(super) async fn learn(&self, partition: u32, epoch: Epoch, last: u64) -> Result<(), ReadError> {
        if self.with_thread(partition, epoch, |thread| thread.is_behind(last)) == Some(true)
            && let Some((channel, id)) = self.history.id_at(partition, last).await?
        {
            self.with_thread(partition, epoch, |thread| thread.know(Known { seq: last, id, channel }));
        }
        Ok(())
    }

    /// Asks the leader in a task of its own, until it has said what a stream is.
    pub(crate) fn make_sure(self: &Arc<Self>, partition: u32, epoch: Epoch) {
        self.metrics.doubts.inc();
        let (keep, gone) = (Arc::clone(self), self.gone.clone());
        self.drain.spawn(async move {
            tokio::select! { () = keep.ask_until_sure(partition, epoch) => {}, () = gone.cancelled() => {} }
        });
    }

    async fn ask_until_sure(&self, partition: u32, epoch: Epoch) {
        while let Some(known) = self.doubt(partition, epoch) {
            match self.is_same(partition, epoch, &known).await {
                Ok(true) => {
                    self.history.stands(epoch, partition);
                    return self.trust(partition, epoch);
                }
                // The lines here begin anew as soon as the epoch is another one.
                Ok(false) => self.history.seems_back(epoch, partition),
                Err(error) => {
                    // Nobody says any more that it went back: if it did, that must last from when it is said again.
                    self.history.stands(epoch, partition);
                    self.metrics.read_errors.inc();
                    tracing::debug!(partition, %error, "the stream can't be asked what it has yet");
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn is_same(&self, partition: u32, epoch: Epoch, known: &Known) -> Result<bool, ReadError> {
        let (now, state) = self.history.fresh_epoch(partition).await?;
        if now != epoch {
            return Err(ReadError::OtherEpoch);
        }
        if state.last_seq < known.seq {
            // A leader that still takes in what it has, or a stream that went back: what watches the streams decides.
            return Err(ReadError::Behind);
        }
        if let Some((_, id)) = self.history.id_at(partition, known.seq).await? {
            return Ok(id == known.id);
        }
        // It has expired, and the stream begins behind it; or left for newer messages of its channel.
        if state.messages == 0 || state.first_seq > known.seq {
            return Ok(true);
        }
        let Ok(channel) = Channel::parse(&known.channel) else { return Ok(true) };
        let (_, tail) = self.history.tail(&channel).await?;
        Ok(tail > known.seq)
    }

    /// Waits until nothing of a partition is in doubt. In another epoch nothing is.
    pub(crate) async fn sure(&self, partition: u32, epoch: Epoch) {
        self.hub.when(|| self.doubt(partition, epoch).is_none().then_some(())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(of: u128) -> Option<MessageId> {
        Some(MessageId(of))
    }

    fn known(seq: u64) -> Known {
        Known { seq, id: MessageId(seq.into()), channel: "user:1".into() }
    }

    #[test]
    fn copies_in_sequence_and_repeated_ones_are_sure() {
        let mut thread = Thread::default();
        for seq in [7, 8, 9, 9, 10] {
            assert_eq!(thread.on_live("user:1", seq, id(seq.into())), Trust::Sure, "{seq}");
        }
        assert_eq!(thread.doubt(), None);
    }

    #[test]
    fn after_a_hole_or_a_step_back_the_newest_must_still_be_there() {
        for odd in [12, 10, 9, 1] {
            let mut thread = Thread::default();
            thread.on_live("user:1", 10, id(10));
            assert_eq!(thread.on_live("user:1", odd, id(99)), Trust::Doubtful { first: true }, "{odd}");
            assert_eq!(thread.doubt(), Some(&known(10)));
            assert_eq!(thread.on_live("user:1", odd + 1, id(100)), Trust::Doubtful { first: false });
            thread.trust();
            assert_eq!(
                thread.on_live("user:1", odd.max(10) + 2, id(101)).eq(&Trust::Sure),
                odd == 12 || odd == 10
            );
        }
    }

    #[test]
    fn after_an_interruption_even_what_follows_is_in_doubt() {
        let mut thread = Thread::default();
        assert!(!thread.on_interruption(), "nothing was heard");
        thread.know(known(10));
        thread.know(known(9));
        assert_eq!((thread.on_interruption(), thread.on_interruption()), (true, false));
        assert_eq!(thread.on_live("user:1", 11, id(11)), Trust::Doubtful { first: false });
        assert_eq!(thread.doubt(), Some(&known(10)));
        thread.trust();
        assert_eq!(thread.on_live("user:1", 12, id(12)), Trust::Sure);
    }

    #[test]
    fn what_can_not_be_told_from_others_is_no_reason_to_doubt() {
        let mut thread = Thread::default();
        thread.on_live("user:1", 10, None);
        assert_eq!(thread.on_live("user:1", 15, id(15)), Trust::Sure);
    }
}
