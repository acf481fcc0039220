//! Makes sure that a stream is still the one that was heard, when a copy does not follow the newest one.
//!
//! A backup that is restored, or a stream that is made anew, while parts run gives sequences a second time.
//! Until the streams are looked at again, a message of the new life could pass for one of the old. So when a
//! copy is out of sequence, or the connection to the bus is another one, nothing of its partition is
//! delivered until the leader has said what stands at the newest sequence that was heard. If it is another
//! message, or none though it can't have left by age or for newer ones of its channel, the stream seems to
//! have gone back or lost its end. Mostly a copy was lost, and it is the same one.

use std::sync::Arc;

use shared::history::{Epoch, ReadError};
use shared::ids::{Channel, MessageId};
use tokio::time::sleep;

use super::keep::{Keep, PAUSE};

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) seq: u64,
    /// None if it can't be read: then it can't be told from others.
    pub(crate) id: Option<MessageId>,
    pub(crate) channel: String,
}

/// Whether copies of one partition in one epoch follow each other: pure.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    /// The newest that surely is of this epoch.
    newest: Option<Known>,
    doubt: Option<Doubt>,
}

/// What the leader is to be asked about.
#[derive(Debug, Default)]
struct Doubt {
    /// Whether the stream still has the newest that surely was of this epoch.
    newest: bool,
    /// Copies that came since and follow each other, the first and the last: of this epoch, or of the one
    /// before that a queue still held.
    since: Option<(Known, Known)>,
}

/// What the leader is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) known: Known,
    /// Whether it surely was of this epoch: if the stream does not have it, the stream went back.
    pub(crate) was_there: bool,
}

/// What may be done with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It follows.
    Sure,
    /// It may be of another life of the stream. `first`: somebody has to ask.
    Doubtful { first: bool },
}

impl Known {
    fn of(channel: &str, seq: u64, id: Option<MessageId>) -> Self {
        Self { seq, id, channel: channel.to_owned() }
    }

    /// Whether a copy is of the message behind this one, or of this one again.
    fn is_followed_by(&self, seq: u64, id: Option<MessageId>) -> bool {
        self.seq.checked_add(1) == Some(seq) || (self.seq == seq && self.id == id)
    }

    /// Without a new allocation: this is for every message.
    fn become_next(&mut self, channel: &str, seq: u64, id: Option<MessageId>) {
        (self.seq, self.id) = (seq, id);
        self.channel.clear();
        self.channel.push_str(channel);
    }
}

impl Doubt {
    fn on_live(&mut self, channel: &str, seq: u64, id: Option<MessageId>) {
        match &mut self.since {
            Some((_, last)) if last.is_followed_by(seq, id) => last.become_next(channel, seq, id),
            since => {
                let copy = Known::of(channel, seq, id);
                *since = Some((copy.clone(), copy));
            }
        }
    }
}

impl Thread {
    /// A copy came. `id` is none if it can't be read.
    pub(crate) fn on_live(&mut self, channel: &str, seq: u64, id: Option<MessageId>) -> Trust {
        if let Some(doubt) = &mut self.doubt {
            doubt.on_live(channel, seq, id);
            return Trust::Doubtful { first: false };
        }
        match &mut self.newest {
            Some(newest) if newest.is_followed_by(seq, id) => {
                newest.become_next(channel, seq, id);
                Trust::Sure
            }
            newest => {
                let mut doubt = Doubt { newest: newest.is_some(), since: None };
                doubt.on_live(channel, seq, id);
                self.doubt = Some(doubt);
                Trust::Doubtful { first: true }
            }
        }
    }

    /// The connection to the bus was another one before. True: somebody has to ask. Where nothing was ever
    /// stored there is nothing to ask about.
    pub(crate) fn on_interruption(&mut self) -> bool {
        let first = self.doubt.is_none() && self.newest.as_ref().is_some_and(|newest| newest.seq > 0);
        if first {
            self.doubt = Some(Doubt { newest: true, since: None });
        }
        first
    }

    /// Whether a stream that ends with this sequence, and is not in doubt, has something newer than was
    /// heard.
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
    pub(crate) fn doubt(&self) -> Option<Question> {
        let doubt = self.doubt.as_ref()?;
        match (&self.newest, &doubt.since) {
            (Some(newest), _) if doubt.newest => Some(Question { known: newest.clone(), was_there: true }),
            (_, Some((first, _))) => Some(Question { known: first.clone(), was_there: false }),
            (_, None) => None,
        }
    }

    /// The leader has what it was asked about, or had it before it expired. Some: up to here the copies are
    /// of this epoch.
    pub(crate) fn confirm(&mut self, asked: &Question) -> Option<u64> {
        if self.doubt().as_ref() != Some(asked) {
            return None;
        }
        let doubt = self.doubt.as_mut()?;
        if asked.was_there {
            doubt.newest = false;
            let follows = |known: &Known| {
                doubt.since.as_ref().is_none_or(|(first, _)| known.is_followed_by(first.seq, first.id))
            };
            if !self.newest.as_ref().is_some_and(follows) {
                return None;
            }
        }
        let since = self.doubt.take().and_then(|doubt| doubt.since);
        if let Some((_, last)) =
            since.filter(|(_, last)| self.newest.as_ref().is_none_or(|it| it.seq < last.seq))
        {
            self.newest = Some(last);
        }
        self.newest.as_ref().map(|newest| newest.seq)
    }

    /// The leader does not have the copies that it was asked about: they are of another epoch, or it has not
    /// come so far. Nothing of them is counted.
    pub(crate) fn dismiss(&mut self, asked: &Question) {
        if !asked.was_there && self.doubt().as_ref() == Some(asked) {
            self.doubt = None;
        }
    }
}

impl Keep {
    /// The connection to the bus is another one: all streams are in doubt.
    pub(crate) fn on_interruption(self: &Arc<Self>) {
        (0..self.history.partitions()).for_each(|partition| self.on_interruption_of(partition));
    }

    /// The same for one stream, which has another leader.
    pub(crate) fn on_interruption_of(self: &Arc<Self>, partition: u32) {
        if let Some(epoch) = self.history.epoch_of(partition)
            && self.with_thread(partition, epoch, Thread::on_interruption) == Some(true)
        {
            self.make_sure(partition, epoch);
        }
    }

    /// Learns what stands at the end of a stream of which not everything was heard.
    pub(super) async fn learn(&self, partition: u32, epoch: Epoch, last: u64) -> Result<(), ReadError> {
        if last == 0 {
            // Nothing was ever stored, so the first message follows.
            self.with_thread(partition, epoch, |thread| thread.know(Known::of("", 0, None)));
            return Ok(());
        }
        if self.with_thread(partition, epoch, |thread| thread.is_behind(last)) == Some(true)
            && let Some((channel, id)) = self.history.id_at(partition, last).await?
        {
            let known = Known { seq: last, id: Some(id), channel };
            self.with_thread(partition, epoch, |thread| thread.know(known));
        }
        Ok(())
    }

    /// Asks the leader in a task of its own, until it has said what a stream is.
    pub(crate) fn make_sure(self: &Arc<Self>, partition: u32, epoch: Epoch) {
        self.metrics.doubts.inc();
        let (keep, gone) = (Arc::clone(self), self.gone.clone());
        self.drain.spawn_whole("edge-doubt", async move {
            tokio::select! { () = keep.ask_until_sure(partition, epoch) => {}, () = gone.cancelled() => {} }
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
                    self.with_thread(partition, epoch, |thread| thread.dismiss(&question));
                    continue;
                }
                // The lines here begin anew as soon as the epoch is another one.
                Ok(false) => self.history.seems_back(epoch, partition),
                Err(error) => {
                    // Nobody says any more that it went back: if it did, that must last from when it is said
                    // again.
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
        if let Some(Some(seq)) = self.with_thread(partition, epoch, |thread| thread.confirm(question)) {
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
            // A leader that still takes in what it has, or a stream that went back: what watches the streams
            // decides.
            return Err(ReadError::Behind);
        }
        if let Some((_, id)) = self.history.id_at(partition, known.seq).await? {
            return Ok(known.id.is_none_or(|known| known == id));
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
        let sure = self.hub.when(|| self.doubt(partition, epoch).is_none().then_some(()));
        let mut history = self.history.state();
        let other =
            history.wait_for(|state| state.epochs().and_then(|epochs| epochs.of(partition)) != Some(epoch));
        // Of an epoch that is over nobody asks any more, so nothing would wake who waits.
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
    use tokio::time::timeout;

    use super::*;
    use crate::hub::{Hub, Places, SessionPolicy};
    use crate::recovery::keep::KeepLimits;
    use crate::recovery::metrics::RecoveryMetrics;

    const fn id(of: u128) -> Option<MessageId> {
        Some(MessageId(of))
    }

    fn known(seq: u64) -> Known {
        Known::of("user:1", seq, id(seq.into()))
    }

    fn knowing(seq: u64) -> Thread {
        Thread { newest: Some(known(seq)), doubt: None }
    }

    fn asks(thread: &Thread) -> Option<(u64, bool)> {
        thread.doubt().map(|question| (question.known.seq, question.was_there))
    }

    fn confirm(thread: &mut Thread) -> Option<u64> {
        let question = thread.doubt().unwrap();
        thread.confirm(&question)
    }

    #[test]
    fn copies_in_sequence_and_repeated_ones_are_sure() {
        let mut thread = knowing(6);
        for seq in [7, 8, 9, 9, 10] {
            assert_eq!(thread.on_live("user:1", seq, id(seq.into())), Trust::Sure, "{seq}");
        }
        assert_eq!(thread.doubt(), None);
    }

    #[test]
    fn after_a_hole_or_a_step_back_the_newest_must_still_be_there_and_what_came_too() {
        for odd in [12, 9, 1] {
            let mut thread = knowing(10);
            assert_eq!(thread.on_live("user:1", odd, id(99)), Trust::Doubtful { first: true }, "{odd}");
            assert_eq!(asks(&thread), Some((10, true)));
            assert_eq!(thread.on_live("user:1", odd + 1, id(100)), Trust::Doubtful { first: false });
            assert_eq!(confirm(&mut thread), None);
            assert_eq!(asks(&thread), Some((odd, false)));
            let newest = (odd + 1).max(10);
            assert_eq!(confirm(&mut thread), Some(newest));
            assert_eq!(thread.on_live("user:1", newest + 1, id(101)), Trust::Sure);
        }
    }

    #[test]
    fn copies_that_are_not_of_this_epoch_count_for_nothing() {
        let mut thread = Thread::default();
        assert_eq!(thread.on_live("user:1", 500, id(1)), Trust::Doubtful { first: true });
        let asked = thread.doubt().unwrap();
        assert!(!asked.was_there);
        thread.on_live("user:1", 501, id(2));
        thread.dismiss(&asked);
        assert_eq!(thread.doubt(), None);
        assert_eq!(thread.on_live("user:1", 4, id(3)), Trust::Doubtful { first: true });
        assert_eq!(confirm(&mut thread), Some(4));
        assert_eq!(thread.on_live("user:1", 5, id(4)), Trust::Sure);
        assert_eq!(thread.on_live("user:1", u64::MAX, id(5)), Trust::Doubtful { first: true });
        thread.on_live("user:1", 6, id(6));
        confirm(&mut thread);
        assert_eq!(thread.on_live("user:1", 7, id(7)), Trust::Sure, "6 was next to what is known");
    }

    #[test]
    fn an_answer_about_other_copies_than_those_of_now_decides_nothing() {
        let mut thread = Thread::default();
        thread.on_live("user:1", 500, id(1));
        let asked = thread.doubt().unwrap();
        thread.on_live("user:1", 4, id(2));
        assert_eq!(thread.confirm(&asked), None);
        thread.dismiss(&asked);
        assert_eq!(asks(&thread), Some((4, false)));
    }

    #[test]
    fn after_an_interruption_even_what_follows_is_in_doubt() {
        let mut thread = Thread::default();
        assert!(!thread.on_interruption(), "nothing was heard");
        thread.know(known(10));
        thread.know(known(9));
        assert_eq!((thread.on_interruption(), thread.on_interruption()), (true, false));
        assert_eq!(thread.on_live("user:1", 11, id(11)), Trust::Doubtful { first: false });
        assert_eq!(asks(&thread), Some((10, true)));
        assert_eq!(confirm(&mut thread), Some(11), "11 follows");
        assert_eq!(thread.on_live("user:1", 12, id(12)), Trust::Sure);
        assert!(thread.on_interruption());
        assert_eq!(confirm(&mut thread), Some(12));
    }

    #[test]
    fn what_can_not_be_told_from_others_follows_by_its_sequence() {
        let mut thread = knowing(9);
        assert_eq!(thread.on_live("user:1", 10, None), Trust::Sure);
        assert_eq!(thread.on_live("user:1", 11, id(11)), Trust::Sure);
    }

    #[tokio::test]
    async fn nobody_waits_for_an_epoch_that_is_over_or_undoes_what_the_next_one_knows() {
        let rest = Drain::new();
        let server = bus::provide(&BusConfig::default(), &rest).await.unwrap();
        let bus = Bus::connect(&server, "test", &rest).await.unwrap();
        let places = Places { sessions: 0, watermark: 0, per_user: 1, policy: SessionPolicy::default() };
        let history = History::open(&bus, &HistoryConfig::default(), Role::Reader, &rest);
        let limits = KeepLimits { replays: 1, remembered: 1, faults: Faults::default() };
        let counters = RecoveryMetrics::register(&mut Registry::default());
        let hub = Arc::new(Hub::new(places));
        let keep = Keep::new(history, hub, limits, counters, rest.clone(), rest.token());
        // The stream's own epoch is another one.
        let doubted = keep.with_thread(0, Epoch(1), |thread| {
            thread.know(known(10));
            thread.on_interruption()
        });
        assert_eq!(doubted, Some(true));
        let sure = timeout(Duration::from_secs(20), keep.sure(0, Epoch(1)));
        assert!(sure.await.is_ok(), "nothing would wake who waits");
        assert_eq!(keep.with_heard(0, Epoch(2), |_| ()), None, "it is over too");
        assert!(keep.doubt(0, Epoch(1)).is_some(), "what is known stays known");
        rest.begin();
        drop((keep, bus));
        assert_eq!(rest.finish(Duration::from_secs(20)).await, 0);
    }
}
