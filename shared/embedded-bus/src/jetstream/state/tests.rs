//! The state compared with a model: a plain list that does everything the long way.

use proptest::prelude::*;

use super::*;

/// One message of the model.
#[derive(Clone, Debug, PartialEq)]
struct ModelMessage {
    seq: u64,
    time: u64,
    subject: String,
    size: u64,
}

#[derive(Debug, Default)]
struct Model {
    limits: Limits,
    messages: Vec<ModelMessage>,
    ids: Vec<(String, u64, u64)>,
    last_seq: u64,
}

impl Model {
    fn of<'a>(&'a self, pattern: &'a str) -> impl DoubleEndedIterator<Item = &'a ModelMessage> {
        self.messages
            .iter()
            .filter(move |message| crate::subject::matches(pattern.as_bytes(), message.subject.as_bytes()))
    }

    fn bytes(&self) -> u64 {
        self.messages.iter().map(|message| message.size).sum()
    }

    fn is_refused(&self, subject: &str, size: u64) -> bool {
        if !self.limits.refuse {
            return false;
        }
        let own: Vec<&ModelMessage> = self.of(subject).collect();
        let replaces = self.limits.per_subject.is_some_and(|limit| own.len() as u64 >= limit);
        if replaces && self.limits.refuse_per_subject {
            return true;
        }
        let many = self.limits.messages.is_some_and(|limit| self.messages.len() as u64 >= limit);
        let large = self.limits.bytes.is_some_and(|limit| self.bytes() + size > limit);
        (many && !replaces) || (large && (!replaces || own.first().is_none_or(|first| first.size < size)))
    }

    fn trim(&mut self) {
        if let Some(limit) = self.limits.per_subject {
            let subjects: std::collections::BTreeSet<String> =
                self.messages.iter().map(|message| message.subject.clone()).collect();
            for subject in subjects {
                while self.of(&subject).count() as u64 > limit {
                    let first = self.of(&subject).next().map(|message| message.seq).unwrap();
                    self.messages.retain(|message| message.seq != first);
                }
            }
        }
        while self.limits.messages.is_some_and(|limit| self.messages.len() as u64 > limit)
            || self.limits.bytes.is_some_and(|limit| self.bytes() > limit)
        {
            self.messages.remove(0);
        }
    }
}

#[derive(Clone, Debug)]
enum StateCall {
    Publish { subject: u8, size: u64, id: Option<u8> },
    Remove(prop::sample::Index),
    Purge { subject: Option<u8>, before: Option<u64>, keep: u64 },
    Wait(u64),
    Limits(Limits),
}

fn limits() -> impl Strategy<Value = Limits> {
    let some = |range| proptest::option::of(range);
    let policy = (any::<bool>(), any::<bool>());
    (some(1_u64..30), some(50_u64..600), some(1_u64..5), some(5_u64..200), policy).prop_map(
        |(messages, bytes, per_subject, age, (refuse, refuse_per_subject))| Limits {
            messages,
            bytes,
            per_subject,
            age,
            refuse,
            refuse_per_subject,
            window: 20,
        },
    )
}

fn step() -> impl Strategy<Value = StateCall> {
    let publish = (0_u8..6, 1_u64..60, proptest::option::of(0_u8..8))
        .prop_map(|(subject, size, id)| StateCall::Publish { subject, size, id });
    let purge = (proptest::option::of(0_u8..6), proptest::option::of(0_u64..120), 0_u64..4)
        .prop_map(|(subject, before, keep)| StateCall::Purge { subject, before, keep });
    prop_oneof![
        20 => publish,
        2 => any::<prop::sample::Index>().prop_map(StateCall::Remove),
        1 => purge,
        4 => (1_u64..15).prop_map(StateCall::Wait),
        1 => limits().prop_map(StateCall::Limits),
    ]
}

fn name(subject: u8) -> String {
    format!("log.{}.{subject}", subject % 2)
}

/// Makes a call in both. Both must give the same sequences that left, and the same answers.
fn apply(state: &mut StreamState, model: &mut Model, step: &StateCall, now: &mut u64) {
    let before: Vec<u64> = model.messages.iter().map(|message| message.seq).collect();
    let mut left = match step {
        StateCall::Publish { subject, size, id } => {
            let (subject, id) = (name(*subject), id.map(|id| format!("id-{id}")));
            if let Some(id) = &id {
                model.ids.retain(|(_, _, time)| time + model.limits.window > *now);
                let known = model.ids.iter().find(|(known, _, _)| known == id).map(|(_, seq, _)| *seq);
                assert_eq!(state.duplicate(id.as_bytes(), *now), known);
                if known.is_some() {
                    return;
                }
            }
            let refused = model.is_refused(&subject, *size);
            assert_eq!(state.admit(subject.as_bytes(), *size, false).is_err(), refused);
            if refused {
                return;
            }
            let previous = model.of(&subject).next_back().map_or(0, |message| message.seq);
            model.last_seq += 1;
            let seq = model.last_seq;
            model.messages.push(ModelMessage { seq, time: *now, subject: subject.clone(), size: *size });
            if let Some(id) = &id {
                model.ids.push((id.clone(), seq, *now));
            }
            model.trim();
            let appended = state.append(*now, subject.as_bytes(), *size, id.as_deref().map(str::as_bytes));
            assert_eq!((appended.seq, appended.previous), (seq, previous));
            let mut left = appended.evicted;
            left.sort_unstable();
            let all: Vec<u64> = before.iter().copied().chain([seq]).collect();
            assert_eq!(left, gone(&all, model));
            return;
        }
        StateCall::Remove(which) => {
            let seq = which.index(usize::try_from(model.last_seq).unwrap() + 2) as u64;
            let there = before.contains(&seq);
            model.messages.retain(|message| message.seq != seq);
            assert_eq!(state.remove(seq), there);
            if there { vec![seq] } else { Vec::new() }
        }
        StateCall::Purge { subject, before, keep } => {
            let subject = subject.map(name);
            let pattern = subject.as_deref().unwrap_or(">");
            let mut named: Vec<u64> = model.of(pattern).map(|message| message.seq).collect();
            named.retain(|seq| before.is_none_or(|before| *seq < before));
            named.truncate(named.len().saturating_sub(usize::try_from(*keep).unwrap()));
            model.messages.retain(|message| !named.contains(&message.seq));
            state.purge(Purge { filter: Filter::new(pattern), before: *before, keep: *keep })
        }
        StateCall::Wait(span) => {
            *now += span;
            if let Some(age) = model.limits.age {
                model.messages.retain(|message| message.time + age > *now);
            }
            state.expire(*now)
        }
        StateCall::Limits(limits) => {
            model.limits = *limits;
            model.trim();
            state.set_limits(*limits)
        }
    };
    left.sort_unstable();
    assert_eq!(left, gone(&before, model));
}

fn gone(before: &[u64], model: &Model) -> Vec<u64> {
    before.iter().copied().filter(|seq| !model.messages.iter().any(|message| message.seq == *seq)).collect()
}

/// Compares the answers to every question.
fn compare(state: &StreamState, model: &Model) {
    assert_eq!((state.len(), state.bytes()), (model.messages.len() as u64, model.bytes()));
    assert_eq!(state.last_seq(), model.last_seq);
    let first = model.messages.first().map(|message| message.seq);
    assert_eq!(state.first_seq(), first.unwrap_or(if model.last_seq == 0 { 0 } else { model.last_seq + 1 }));
    let seqs: Vec<u64> = model.messages.iter().map(|message| message.seq).collect();
    let deleted: Vec<u64> =
        (first.unwrap_or(1)..=model.last_seq).filter(|seq| !seqs.contains(seq) && first.is_some()).collect();
    assert_eq!((state.deleted(usize::MAX), state.deleted_count()), (deleted.clone(), deleted.len() as u64));
    for pattern in [">", "log.0.>", "log.*.3", "log.1.3", "none.>"] {
        let filter = Filter::new(pattern);
        let of: Vec<u64> = model.of(pattern).map(|message| message.seq).collect();
        assert_eq!(state.last_of(filter), of.last().copied());
        let mut counts = BTreeMap::new();
        for message in model.of(pattern) {
            *counts.entry(message.subject.clone()).or_insert(0) += 1;
        }
        assert_eq!(state.counts(filter), counts);
        for from in [0, 1, model.last_seq / 2, model.last_seq, model.last_seq + 1] {
            let after: Vec<u64> = of.iter().copied().filter(|seq| *seq >= from).collect();
            assert_eq!(state.next_of(filter, from), after.first().copied());
            assert_eq!(state.count_from(filter, from), after.len() as u64);
            let mut last_of_each: Vec<u64> = counts
                .keys()
                .filter_map(|subject| {
                    model.of(subject).rfind(|message| message.seq <= from).map(|message| message.seq)
                })
                .collect();
            last_of_each.sort_unstable();
            assert_eq!(state.last_of_each(&[filter, filter], from, 100), Some(last_of_each));
        }
        let most = counts.len().saturating_sub(1);
        assert_eq!(state.last_of_each(&[filter], u64::MAX, most).is_none(), !counts.is_empty());
    }
    for message in &model.messages {
        let meta = state.get(message.seq).unwrap();
        assert_eq!((meta.time, u64::from(meta.size)), (message.time, message.size));
        let at = model.messages.iter().find(|other| other.time >= message.time).unwrap();
        assert_eq!(state.first_at(message.time), Some(at.seq));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_a_plain_list(start in limits(), steps in proptest::collection::vec(step(), 1..150)) {
        let mut state = StreamState::new(start, 0);
        let mut model = Model { limits: start, ..Model::default() };
        let mut now = 1000;
        for step in &steps {
            apply(&mut state, &mut model, step, &mut now);
            compare(&state, &model);
        }
    }

    #[test]
    fn a_replay_finds_the_same_even_if_the_last_removals_were_torn_off(
        limits in limits(), steps in proptest::collection::vec((0_u8..6, 1_u64..60, 1_u64..4), 1..150),
    ) {
        let limits = Limits { refuse: false, age: None, ..limits };
        let (mut state, mut replayed, mut now) = (StreamState::new(limits, 0), StreamState::new(limits, 0), 0);
        let mut log: Vec<(u64, u64, String, u64)> = Vec::new();
        let mut torn_off: Vec<u64> = Vec::new();
        for (subject, size, span) in steps {
            now += span;
            let subject = name(subject);
            let appended = state.append(now, subject.as_bytes(), size, None);
            log.retain(|(seq, ..)| !torn_off.contains(seq));
            log.push((appended.seq, now, subject, size));
            torn_off = appended.evicted;
        }
        for (seq, time, subject, size) in &log {
            replayed.restore(*seq, *time, subject.as_bytes(), *size);
        }
        let seqs = |state: &StreamState| state.messages.from(0).map(|meta| (meta.seq, meta.time, meta.size)).collect::<Vec<_>>();
        prop_assert_eq!(seqs(&state), seqs(&replayed));
        prop_assert_eq!((state.bytes(), state.last_seq()), (replayed.bytes(), replayed.last_seq()));
    }
}

#[test]
fn an_id_counts_until_its_window_has_passed_even_if_its_message_is_gone() {
    let mut state = StreamState::new(Limits { window: 20, ..Limits::default() }, 0);
    state.append(100, b"a", 1, Some(b"x"));
    state.purge(Purge { filter: Filter::All, before: None, keep: 0 });
    assert_eq!(state.duplicate(b"x", 119), Some(1));
    assert_eq!(state.duplicate(b"x", 120), None);
    assert_eq!(state.ids_in_window(), 0);
}

#[test]
fn a_clock_that_runs_backwards_does_not_turn_messages_around() {
    let mut state = StreamState::new(Limits { age: Some(10), window: 1, ..Limits::default() }, 0);
    state.append(100, b"a", 1, None);
    state.append(50, b"a", 1, None);
    assert_eq!(state.get(2).map(|meta| meta.time), Some(100));
    assert_eq!(state.expire(110), [1, 2]);
    assert_eq!(state.first_seq(), 3);
}

#[test]
fn what_was_stored_before_another_message_is_never_younger_than_it() {
    let mut state = StreamState::new(Limits { age: Some(1000), window: 1000, ..Limits::default() }, 0);
    let kept = [(1, 10), (2, 500), (3, 20), (4, 30)];
    for (seq, time) in kept {
        state.remember(Some(&[seq]), seq.into(), time, 0);
    }
    for (seq, time) in kept {
        state.restore(seq.into(), time, b"a", 1);
    }
    state.go_on_after(4, Some(LastStored { seq: 4, time: 30, id: None }));
    let times: Vec<u64> = state.messages.from(0).map(|meta| meta.time).collect();
    assert_eq!((times, state.last_time()), (vec![10, 20, 20, 30], 30));
    assert_eq!((state.first_at(20), state.first_at(21)), (Some(2), Some(4)));
    assert_eq!((state.duplicate(&[2], 1019), state.duplicate(&[2], 1020)), (Some(2), None));
    state.cap_times(25);
    assert_eq!((state.last_time(), state.get(4).map(|meta| meta.time)), (25, Some(25)));
}

#[test]
fn a_message_costs_little_memory_and_shares_its_subject() {
    let mut state = StreamState::new(Limits { window: 1, ..Limits::default() }, 0);
    for number in 0..100_000_u64 {
        state.append(number, format!("log.user.{:06}", number % 1000).as_bytes(), 100, None);
    }
    let lists: usize = state.subjects.matching(Filter::All).map(|own| own.seqs.capacity() * 8).sum();
    let each = (state.messages.memory() + lists) as f64 / 100_000.0;
    assert!(each < 48.0, "{each} bytes a message");
}
