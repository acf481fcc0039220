//! Published messages, received messages, and the verdict over both.
//!
//! Pure: no sockets, no clocks; times are milliseconds since the start of the case. Publishers are the only
//! source of truth: a message is owed to a user once its publisher was told that it is stored, whatever the
//! message center says later.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};
use shared::history::Position;

/// The content of a message: enough to check the publisher's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    /// The caller. All messages of a user come from one lane.
    pub(crate) lane: u32,
    /// The user.
    pub(crate) user: u32,
    /// Number of the message for this user, from 1 on.
    pub(crate) number: u32,
}

impl Note {
    /// The text as published, with `bytes` bytes of padding.
    pub(crate) fn text(self, bytes: usize) -> String {
        let Self { lane, user, number } = self;
        let rest = "x".repeat(bytes);
        json!({ "lane": lane, "user": user, "number": number, "bytes": bytes, "rest": rest }).to_string()
    }

    /// Parses a text made by [`Note::text`].
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

/// Fate of one message at its publisher.
#[derive(Debug, Clone, Copy)]
struct Sent {
    lane: u32,
    /// When the publisher was told that the message is stored. `None`: never told, so the message may be
    /// stored, once.
    acknowledged: Option<u64>,
}

/// The record of the publishers.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    users: HashMap<u32, BTreeMap<u32, Sent>>,
    acknowledged: u64,
}

/// A message received by one session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    /// When it was received.
    pub(crate) at: u64,
    /// Its content.
    pub(crate) note: Note,
    /// Its id; plain sessions get none.
    pub(crate) position: Option<Position>,
}

/// Everything that one session received over all its connections.
#[derive(Debug)]
pub(crate) struct Diary {
    user: u32,
    recovering: bool,
    heard: Vec<Heard>,
    numbers: HashSet<u32>,
    /// Subscribes answered with `recovered:false`.
    pub(crate) unrecovered: u64,
    /// `@reload` events.
    pub(crate) reloads: u64,
    /// Frames that the protocol does not promise, and positions that went back.
    pub(crate) oddities: Vec<String>,
}

/// The verdict over a case.
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
    /// The longest time in which no session received anything, in ms.
    pub(crate) longest_gap: u64,
    /// The longest time from an acknowledgement to the message's last recovering session, in ms.
    pub(crate) late: u64,
    /// Examples of broken promises.
    pub(crate) violations: Vec<String>,
}

/// Most examples per case.
const MOST_VIOLATIONS: usize = 20;

impl Ledger {
    /// Records that a publisher begins to send this message; repeats count as the same message.
    pub(crate) fn publish(&mut self, note: Note) {
        let sent = Sent { lane: note.lane, acknowledged: None };
        let before = self.users.entry(note.user).or_default().insert(note.number, sent);
        assert!(before.is_none(), "the caller used a number twice: {note:?}");
    }

    /// Records that the publisher was told that the message is stored.
    pub(crate) fn acknowledge(&mut self, note: Note, at: u64) {
        let sent = self.users.get_mut(&note.user).and_then(|numbers| numbers.get_mut(&note.number));
        let sent = sent.unwrap_or_else(|| panic!("acknowledged but never published: {note:?}"));
        assert!(sent.acknowledged.is_none(), "the caller counted an acknowledgement twice: {note:?}");
        sent.acknowledged = Some(at);
        self.acknowledged += 1;
    }

    /// Acknowledged messages so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether this session has received every message owed to its user.
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

    /// Checks every diary against the record.
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
            verdict.violation(|| format!("user {}: {oddity}", diary.user));
        }
        let (mut seen, mut highest, mut last) = (HashSet::new(), 0, None::<Position>);
        for heard in &diary.heard {
            let Some(sent) = self.sent(heard.note).filter(|_| heard.note.user == diary.user) else {
                verdict.violation(|| format!("user {} got what nobody sent it: {heard:?}", diary.user));
                continue;
            };
            if !seen.insert(heard.note.number) {
                verdict.doubled += 1;
                verdict.violation(|| format!("doubled: {heard:?}"));
                continue;
            }
            let back = heard
                .position
                .zip(last)
                .is_some_and(|(position, last)| position.epoch == last.epoch && position.seq <= last.seq);
            last = heard.position.or(last);
            // A message that was never acknowledged has no place in its publisher's order.
            let overtaken = sent.acknowledged.is_some() && heard.note.number < highest;
            if back || overtaken {
                verdict.reordered += 1;
                verdict.violation(|| format!("reordered, after number {highest}: {heard:?}"));
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
                verdict.violation(|| format!("lost: user {}, number {number}", diary.user));
            }
        }
    }
}

impl Diary {
    /// The diary of a session that has just been opened.
    pub(crate) fn new(user: u32, recovering: bool) -> Self {
        let (heard, numbers, oddities) = (Vec::new(), HashSet::new(), Vec::new());
        Self { user, recovering, heard, numbers, unrecovered: 0, reloads: 0, oddities }
    }

    /// Records a message.
    pub(crate) fn hear(&mut self, heard: Heard) {
        self.numbers.insert(heard.note.number);
        self.heard.push(heard);
    }

    /// Records a frame that the protocol does not promise.
    pub(crate) fn wonder(&mut self, what: String) {
        if self.oddities.len() < MOST_VIOLATIONS {
            self.oddities.push(what);
        }
    }

    /// Whether this session must not miss a message.
    pub(crate) fn recovers(&self) -> bool {
        self.recovering
    }
}

impl Verdict {
    /// Whether every promise was kept.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.reordered + self.unrecovered + self.reloads == 0
            && self.violations.is_empty()
    }

    fn violation(&mut self, what: impl FnOnce() -> String) {
        if self.violations.len() < MOST_VIOLATIONS {
            self.violations.push(what());
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

    /// A ledger of messages 1 to `count`, each acknowledged at the time of its number.
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
            let position = recovering.then_some(Position { epoch: Epoch(1), seq: u64::from(*number) });
            diary.hear(Heard { at, note: note(*number), position });
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
            let position = Some(Position { epoch: Epoch(1), seq });
            diary.hear(Heard { at: seq, note: note(number), position });
        }
        assert_eq!(judge(&ledger(2), &diary).reordered, 1);
    }

    #[test]
    fn ids_that_go_back_are_found() {
        let mut diary = Diary::new(1, true);
        for (seq, number) in [(5, 1), (4, 2)] {
            let position = Some(Position { epoch: Epoch(1), seq });
            diary.hear(Heard { at: seq, note: note(number), position });
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
            late.hear(Heard {
                at: seq,
                note: note(number),
                position: Some(Position { epoch: Epoch(1), seq }),
            });
        }
        assert!(judge(&ledger, &late).is_clean());
    }

    #[test]
    fn what_nobody_sent_is_found() {
        let mut diary = diary(true, &[1, 2]);
        let strange = Note { lane: 8, ..note(2) };
        diary.hear(Heard { at: 90, note: strange, position: None });
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
