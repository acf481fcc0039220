//! What was published and what arrived, and the judgement over both.
//!
//! Pure: no sockets, no clocks; times are milliseconds since the case began. Publishers are the only source of truth: a
//! message is owed to a user once its publisher was told that it is stored, whatever the message center says later.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};
use shared::history::Position;

/// What is in a message: enough to judge order against the publisher's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    /// Who published it. A user's messages all come from one lane.
    pub(crate) lane: u32,
    /// For whom.
    pub(crate) user: u32,
    /// The how manieth message for this user, from 1 on.
    pub(crate) number: u32,
}

impl Note {
    /// As it is published, with so many bytes behind it.
    pub(crate) fn text(self, bytes: usize) -> String {
        let Self { lane, user, number } = self;
        let rest = "x".repeat(bytes);
        json!({ "lane": lane, "user": user, "number": number, "bytes": bytes, "rest": rest }).to_string()
    }

    /// What `text` made.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let field = |name: &str| value[name].as_u64().and_then(|number| u32::try_from(number).ok());
        let rest = value["rest"].as_str()?;
        if value["bytes"].as_u64() != Some(rest.len() as u64) || rest.bytes().any(|byte| byte != b'x') {
            return None;
        }
        Some(Self { lane: field("lane")?, user: field("user")?, number: field("number")? })
    }
}

/// What became of one message at its publisher.
#[derive(Debug, Clone, Copy)]
struct Sent {
    lane: u32,
    /// When its publisher was told that it is stored. None: it never was, so that it may be anywhere, once.
    acknowledged: Option<u64>,
}

/// What publishers did.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    users: HashMap<u32, BTreeMap<u32, Sent>>,
    acknowledged: u64,
}

/// One message at one session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    /// When.
    pub(crate) at: u64,
    /// Which.
    pub(crate) note: Note,
    /// Its id; plain sessions get none.
    pub(crate) place: Option<Position>,
}

/// What one session saw over all its connections.
#[derive(Debug)]
pub(crate) struct Diary {
    user: u32,
    recovering: bool,
    heard: Vec<Heard>,
    numbers: HashSet<u32>,
    /// Subscribes that were answered with `recovered:false`.
    pub(crate) unrecovered: u64,
    /// `@reload` events.
    pub(crate) reloads: u64,
    /// Frames that were nothing that the protocol promises, places that went back.
    pub(crate) oddities: Vec<String>,
}

/// The judgement over a case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) published: u64,
    pub(crate) acknowledged: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    pub(crate) unrecovered: u64,
    pub(crate) reloads: u64,
    /// The longest time in which nobody got anything, in ms.
    pub(crate) longest_gap: u64,
    /// The longest time from an acknowledgement to the message's last recovering session, in ms.
    pub(crate) late: u64,
    /// Examples of what went wrong.
    pub(crate) faults: Vec<String>,
}

/// So many examples are kept of a case.
const MOST_FAULTS: usize = 20;

impl Ledger {
    /// A publisher begins to send this; repeats of it are the same message.
    pub(crate) fn publish(&mut self, note: Note) {
        let sent = Sent { lane: note.lane, acknowledged: None };
        let before = self.users.entry(note.user).or_default().insert(note.number, sent);
        assert!(before.is_none(), "the caller used a number twice: {note:?}");
    }

    /// Its publisher was told that it is stored.
    pub(crate) fn acknowledge(&mut self, note: Note, at: u64) {
        let sent = self.users.get_mut(&note.user).and_then(|numbers| numbers.get_mut(&note.number));
        let sent = sent.unwrap_or_else(|| panic!("acknowledged but never published: {note:?}"));
        assert!(sent.acknowledged.is_none(), "the caller counted an acknowledgement twice: {note:?}");
        sent.acknowledged = Some(at);
        self.acknowledged += 1;
    }

    /// Messages acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether this session has everything that its user is owed.
    pub(crate) fn is_caught_up(&self, diary: &Diary) -> bool {
        self.owed(diary.user).all(|number| diary.numbers.contains(&number))
    }

    fn owed(&self, user: u32) -> impl Iterator<Item = u32> {
        let numbers = self.users.get(&user).into_iter().flatten();
        numbers.filter(|(_, sent)| sent.acknowledged.is_some()).map(|(number, _)| *number)
    }

    fn sent(&self, note: Note) -> Option<Sent> {
        let sent = self.users.get(&note.user)?.get(&note.number)?;
        (sent.lane == note.lane).then_some(*sent)
    }

    /// Judges.
    pub(crate) fn judge<'a>(&self, diaries: impl IntoIterator<Item = &'a Diary>) -> Verdict {
        let published = self.users.values().map(|numbers| numbers.len() as u64).sum();
        let mut verdict = Verdict { published, acknowledged: self.acknowledged, ..Verdict::default() };
        let mut times = BTreeSet::new();
        for diary in diaries {
            self.judge_one(diary, &mut verdict);
            times.extend(diary.heard.iter().map(|heard| heard.at));
        }
        let times: Vec<_> = times.into_iter().collect();
        verdict.longest_gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        verdict
    }

    fn judge_one(&self, diary: &Diary, verdict: &mut Verdict) {
        verdict.delivered += diary.heard.len() as u64;
        verdict.unrecovered += diary.unrecovered;
        verdict.reloads += diary.reloads;
        for oddity in &diary.oddities {
            verdict.fault(|| format!("user {}: {oddity}", diary.user));
        }
        let (mut seen, mut highest, mut last) = (HashSet::new(), 0, None::<Position>);
        for heard in &diary.heard {
            let Some(sent) = self.sent(heard.note).filter(|_| heard.note.user == diary.user) else {
                verdict.fault(|| format!("user {} got what nobody sent it: {heard:?}", diary.user));
                continue;
            };
            if !seen.insert(heard.note.number) {
                verdict.doubled += 1;
                verdict.fault(|| format!("doubled: {heard:?}"));
                continue;
            }
            let back = heard
                .place
                .zip(last)
                .is_some_and(|(place, last)| place.epoch == last.epoch && place.seq <= last.seq);
            last = heard.place.or(last);
            // What its publisher was never told to be stored has no place in the publisher's order.
            let overtaken = sent.acknowledged.is_some() && heard.note.number < highest;
            if back || overtaken {
                verdict.reordered += 1;
                verdict.fault(|| format!("reordered, after number {highest}: {heard:?}"));
            }
            if let Some(acknowledged) = sent.acknowledged {
                highest = highest.max(heard.note.number);
                if diary.recovering {
                    verdict.late = verdict.late.max(heard.at.saturating_sub(acknowledged));
                }
            }
        }
        if diary.recovering {
            for number in self.owed(diary.user).filter(|number| !seen.contains(number)) {
                verdict.lost += 1;
                verdict.fault(|| format!("lost: user {}, number {number}", diary.user));
            }
        }
    }
}

impl Diary {
    /// Of a session that has just been opened.
    pub(crate) fn new(user: u32, recovering: bool) -> Self {
        let (heard, numbers, oddities) = (Vec::new(), HashSet::new(), Vec::new());
        Self { user, recovering, heard, numbers, unrecovered: 0, reloads: 0, oddities }
    }

    /// A message came.
    pub(crate) fn hear(&mut self, heard: Heard) {
        self.numbers.insert(heard.note.number);
        self.heard.push(heard);
    }

    /// Something came that the protocol does not promise.
    pub(crate) fn wonder(&mut self, what: String) {
        if self.oddities.len() < MOST_FAULTS {
            self.oddities.push(what);
        }
    }

    /// Whether nothing may be missing here.
    pub(crate) fn recovers(&self) -> bool {
        self.recovering
    }
}

impl Verdict {
    /// Whether every promise was kept.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.reordered + self.unrecovered + self.reloads == 0
            && self.faults.is_empty()
    }

    fn fault(&mut self, what: impl FnOnce() -> String) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(what());
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::history::Epoch;

    use super::*;

    fn note(number: u32) -> Note {
        Note { lane: 7, user: 1, number }
    }

    /// Messages 1 to `count`, each acknowledged at its number.
    fn ledger(count: u32) -> Ledger {
        let mut ledger = Ledger::default();
        for number in 1..=count {
            ledger.publish(note(number));
            ledger.acknowledge(note(number), number.into());
        }
        ledger
    }

    fn diary(recovering: bool, numbers: &[u32]) -> Diary {
        let mut diary = Diary::new(1, recovering);
        for (index, number) in numbers.iter().enumerate() {
            let at = 10 * (index as u64 + 1);
            let place = recovering.then_some(Position { epoch: Epoch(1), seq: u64::from(*number) });
            diary.hear(Heard { at, note: note(*number), place });
        }
        diary
    }

    fn judge(ledger: &Ledger, diary: &Diary) -> Verdict {
        ledger.judge([diary])
    }

    #[test]
    fn a_note_survives_the_way_through_a_message() {
        for bytes in [0, 100_000] {
            assert_eq!(Note::parse(&note(3).text(bytes)), Some(note(3)));
        }
        let short = note(3).text(5).replace("xxxxx", "xxxx");
        let bad = [
            "",
            "{}",
            "[]",
            r#"{"lane":1,"user":2,"bytes":0,"rest":""}"#,
            r#"{"lane":1,"user":2,"number":-1,"bytes":0,"rest":""}"#,
            r#"{"lane":1,"user":2,"number":1}"#,
            &short,
        ];
        for text in bad {
            assert_eq!(Note::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_came_once_and_in_order_is_clean() {
        let verdict = judge(&ledger(3), &diary(true, &[1, 2, 3]));
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.published, verdict.acknowledged, verdict.delivered), (3, 3, 3));
        assert_eq!((verdict.longest_gap, verdict.late), (10, 27));
    }

    #[test]
    fn a_planted_loss_is_found() {
        let (ledger, diary) = (ledger(3), diary(true, &[1, 3]));
        assert!(!ledger.is_caught_up(&diary));
        let verdict = judge(&ledger, &diary);
        assert_eq!((verdict.lost, verdict.doubled, verdict.reordered), (1, 0, 0));
        assert!(!verdict.is_clean());
    }

    #[test]
    fn a_planted_double_is_found_with_ids_and_without() {
        for recovering in [true, false] {
            let verdict = judge(&ledger(3), &diary(recovering, &[1, 2, 2, 3]));
            assert_eq!((verdict.lost, verdict.doubled, verdict.reordered), (0, 1, 0));
            assert!(!verdict.is_clean());
        }
    }

    #[test]
    fn a_planted_change_of_order_is_found_with_ids_and_without() {
        for recovering in [true, false] {
            let verdict = judge(&ledger(3), &diary(recovering, &[1, 3, 2]));
            assert_eq!((verdict.lost, verdict.doubled, verdict.reordered), (0, 0, 1));
            assert!(!verdict.is_clean());
        }
    }

    #[test]
    fn an_order_of_the_stream_that_is_not_the_publishers_is_found() {
        let mut diary = Diary::new(1, true);
        for (seq, number) in [(1, 2), (2, 1)] {
            let place = Some(Position { epoch: Epoch(1), seq });
            diary.hear(Heard { at: seq, note: note(number), place });
        }
        assert_eq!(judge(&ledger(2), &diary).reordered, 1);
    }

    #[test]
    fn ids_that_go_back_are_found() {
        let mut diary = Diary::new(1, true);
        for (seq, number) in [(5, 1), (4, 2)] {
            let place = Some(Position { epoch: Epoch(1), seq });
            diary.hear(Heard { at: seq, note: note(number), place });
        }
        assert_eq!(judge(&ledger(2), &diary).reordered, 1);
    }

    #[test]
    fn plain_sessions_may_miss_messages() {
        let verdict = judge(&ledger(3), &diary(false, &[3]));
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(verdict.late, 0, "they do not count");
    }

    #[test]
    fn what_was_never_acknowledged_may_come_once_late_or_never() {
        let mut ledger = ledger(2);
        ledger.publish(note(3));
        assert!(judge(&ledger, &diary(true, &[1, 2])).is_clean());
        assert!(judge(&ledger, &diary(true, &[1, 2, 3])).is_clean());
        assert_eq!(judge(&ledger, &diary(true, &[1, 2, 3, 3])).doubled, 1);
        ledger.publish(note(4));
        ledger.acknowledge(note(4), 4);
        let mut late = Diary::new(1, true);
        for (seq, number) in [(1, 1), (2, 2), (3, 4), (4, 3)] {
            late.hear(Heard { at: seq, note: note(number), place: Some(Position { epoch: Epoch(1), seq }) });
        }
        assert!(judge(&ledger, &late).is_clean());
    }

    #[test]
    fn what_nobody_sent_is_found() {
        let mut diary = diary(true, &[1, 2]);
        let strange = Note { lane: 8, ..note(2) };
        diary.hear(Heard { at: 90, note: strange, place: None });
        assert!(!judge(&ledger(2), &diary).is_clean());
    }

    #[test]
    fn what_the_message_center_admits_is_counted() {
        let mut diary = diary(true, &[1]);
        (diary.unrecovered, diary.reloads) = (1, 2);
        let verdict = judge(&ledger(1), &diary);
        assert_eq!((verdict.unrecovered, verdict.reloads), (1, 2));
        assert!(!verdict.is_clean());
    }
}
