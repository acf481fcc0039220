//! Decides whether a stream is still the same one: pure.
//!
//! If a backup is restored or a stream is made anew while parts run, the stream gives out sequences a second
//! time. A copy that does not follow the newest one may be of another epoch, and so may every copy behind a
//! break of the connection. From then on the stream is in doubt, and this module remembers which message the
//! stream's leader must still have.

use shared::ids::MessageId;

use crate::channel::Trust;

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) seq: u64,
    /// The message's id; none if the message can't be read, and so can't be told from others.
    pub(crate) id: Option<MessageId>,
    pub(crate) channel: String,
}

/// Tracks whether copies of one partition in one epoch follow each other: pure.
#[derive(Debug, Default)]
pub(crate) struct StreamIdentity {
    /// The newest message that surely is of this epoch.
    newest: Option<Known>,
    doubt: Option<Doubt>,
}

/// The evidence that the leader must settle.
#[derive(Debug, Default)]
struct Doubt {
    /// Whether to ask if the stream still has the newest message that surely was of this epoch.
    newest: bool,
    /// The first and the last of the copies that came since and follow each other. They are of this epoch, or
    /// of the epoch before if a queue still held them.
    since: Option<(Known, Known)>,
}

/// A question to the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) known: Known,
    /// Whether the message surely was of this epoch: if the stream does not have it, the stream went back.
    pub(crate) was_there: bool,
}

impl Known {
    pub(super) fn of(channel: &str, seq: u64, id: Option<MessageId>) -> Self {
        Self { seq, id, channel: channel.to_owned() }
    }

    /// Returns whether a copy is of the message behind this one, or of this one again.
    fn is_followed_by(&self, seq: u64, id: Option<MessageId>) -> bool {
        self.seq.checked_add(1) == Some(seq) || (self.seq == seq && self.id == id)
    }

    /// Takes over the next message without a new allocation, since this happens for every message.
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

impl StreamIdentity {
    /// Takes a copy. `id` is none if the message can't be read.
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

    /// Doubts the stream, since the connection to the bus or the stream's leader is a new one. True: the
    /// caller must ask. If nothing was ever stored, there is nothing to ask about.
    pub(crate) fn on_interruption(&mut self) -> bool {
        let first = self.doubt.is_none() && self.newest.as_ref().is_some_and(|newest| newest.seq > 0);
        if first {
            self.doubt = Some(Doubt { newest: true, since: None });
        }
        first
    }

    /// Returns whether a stream that ends with this sequence, and is not in doubt, has something newer than
    /// was heard.
    pub(crate) fn is_behind(&self, last: u64) -> bool {
        self.doubt.is_none() && self.newest.as_ref().is_none_or(|newest| newest.seq < last)
    }

    /// Notes a message that the leader has. The message counts as heard: what did not come is fetched.
    pub(crate) fn know(&mut self, known: Known) {
        if self.is_behind(known.seq) {
            self.newest = Some(known);
        }
    }

    /// Returns what the stream must have to be trusted. None: the stream is trusted.
    pub(crate) fn doubt(&self) -> Option<Question> {
        let doubt = self.doubt.as_ref()?;
        match (&self.newest, &doubt.since) {
            (Some(newest), _) if doubt.newest => Some(Question { known: newest.clone(), was_there: true }),
            (_, Some((first, _))) => Some(Question { known: first.clone(), was_there: false }),
            (_, None) => None,
        }
    }

    /// Notes that the leader has the message of the question, or had it before it expired. Some: the copies
    /// up to here are of this epoch.
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

    /// Notes that the leader does not have the copies of the question: the copies are of another epoch, or
    /// the leader has not come so far. None of them counts as heard.
    pub(crate) fn dismiss(&mut self, asked: &Question) {
        if !asked.was_there && self.doubt().as_ref() == Some(asked) {
            self.doubt = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(of: u128) -> Option<MessageId> {
        Some(MessageId(of))
    }

    fn known(seq: u64) -> Known {
        Known::of("user:1", seq, id(seq.into()))
    }

    fn knowing(seq: u64) -> StreamIdentity {
        StreamIdentity { newest: Some(known(seq)), doubt: None }
    }

    fn asks(identity: &StreamIdentity) -> Option<(u64, bool)> {
        identity.doubt().map(|question| (question.known.seq, question.was_there))
    }

    fn confirm(identity: &mut StreamIdentity) -> Option<u64> {
        let question = identity.doubt().unwrap();
        identity.confirm(&question)
    }

    #[test]
    fn copies_in_sequence_and_repeated_ones_are_sure() {
        let mut identity = knowing(6);
        for seq in [7, 8, 9, 9, 10] {
            assert_eq!(identity.on_live("user:1", seq, id(seq.into())), Trust::Sure, "{seq}");
        }
        assert_eq!(identity.doubt(), None);
    }

    #[test]
    fn after_a_hole_or_a_step_back_the_newest_must_still_be_there_and_what_came_too() {
        for odd in [12, 9, 1] {
            let mut identity = knowing(10);
            assert_eq!(identity.on_live("user:1", odd, id(99)), Trust::Doubtful { first: true }, "{odd}");
            assert_eq!(asks(&identity), Some((10, true)));
            assert_eq!(identity.on_live("user:1", odd + 1, id(100)), Trust::Doubtful { first: false });
            assert_eq!(confirm(&mut identity), None);
            assert_eq!(asks(&identity), Some((odd, false)));
            let newest = (odd + 1).max(10);
            assert_eq!(confirm(&mut identity), Some(newest));
            assert_eq!(identity.on_live("user:1", newest + 1, id(101)), Trust::Sure);
        }
    }

    #[test]
    fn copies_that_are_not_of_this_epoch_count_for_nothing() {
        let mut identity = StreamIdentity::default();
        assert_eq!(identity.on_live("user:1", 500, id(1)), Trust::Doubtful { first: true });
        let asked = identity.doubt().unwrap();
        assert!(!asked.was_there);
        identity.on_live("user:1", 501, id(2));
        identity.dismiss(&asked);
        assert_eq!(identity.doubt(), None);
        assert_eq!(identity.on_live("user:1", 4, id(3)), Trust::Doubtful { first: true });
        assert_eq!(confirm(&mut identity), Some(4));
        assert_eq!(identity.on_live("user:1", 5, id(4)), Trust::Sure);
        assert_eq!(identity.on_live("user:1", u64::MAX, id(5)), Trust::Doubtful { first: true });
        identity.on_live("user:1", 6, id(6));
        confirm(&mut identity);
        assert_eq!(identity.on_live("user:1", 7, id(7)), Trust::Sure, "6 was next to what is known");
    }

    #[test]
    fn an_answer_about_other_copies_than_those_of_now_decides_nothing() {
        let mut identity = StreamIdentity::default();
        identity.on_live("user:1", 500, id(1));
        let asked = identity.doubt().unwrap();
        identity.on_live("user:1", 4, id(2));
        assert_eq!(identity.confirm(&asked), None);
        identity.dismiss(&asked);
        assert_eq!(asks(&identity), Some((4, false)));
    }

    #[test]
    fn after_an_interruption_even_what_follows_is_in_doubt() {
        let mut identity = StreamIdentity::default();
        assert!(!identity.on_interruption(), "nothing was heard");
        identity.know(known(10));
        identity.know(known(9));
        assert_eq!((identity.on_interruption(), identity.on_interruption()), (true, false));
        assert_eq!(identity.on_live("user:1", 11, id(11)), Trust::Doubtful { first: false });
        assert_eq!(asks(&identity), Some((10, true)));
        assert_eq!(confirm(&mut identity), Some(11), "11 follows");
        assert_eq!(identity.on_live("user:1", 12, id(12)), Trust::Sure);
        assert!(identity.on_interruption());
        assert_eq!(confirm(&mut identity), Some(12));
    }

    #[test]
    fn what_can_not_be_told_from_others_follows_by_its_sequence() {
        let mut identity = knowing(9);
        assert_eq!(identity.on_live("user:1", 10, None), Trust::Sure);
        assert_eq!(identity.on_live("user:1", 11, id(11)), Trust::Sure);
    }
}
