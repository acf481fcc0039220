//! Jumps of the system's clock in either direction: ages and the duplicate window go on by elapsed time.

use proptest::prelude::*;
use serde_json::json;

use super::failing::FailingStore;
use super::harness::{Harness, NOW, bounds};
use crate::jetstream::clock::Reading;
use crate::jetstream::request::Route;
use crate::jetstream::streams::Streams;
use crate::jetstream::time;
use crate::stats::Stats;

const SECOND: u64 = 1_000_000_000;
const AGE: u64 = 100 * SECOND;
const WINDOW: u64 = 60 * SECOND;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// The start of a process: elapsed time, and the time of day.
#[derive(Clone, Copy)]
struct Begin {
    passed: u64,
    wall: u64,
}

/// A machine with a clock that goes on steadily and a clock that people set.
struct Machine {
    store: FailingStore,
    harness: Harness,
    /// Nanoseconds that have passed.
    passed: u64,
    /// The error of the time of day, in nanoseconds.
    wrong: i64,
    /// When the process began, and the time of day then.
    begun: Begin,
}

impl Machine {
    fn new() -> Self {
        let store = FailingStore::default();
        let mut harness = Harness::new(Box::new(store.clone()));
        let limits = json!({ "max_age": AGE, "duplicate_window": WINDOW, "allow_direct": true });
        harness.make("S", "s.>", limits);
        Self { store, harness, passed: 0, wrong: 0, begun: Begin { passed: 0, wall: NOW } }
    }

    fn wall(&self) -> u64 {
        (NOW + self.passed).saturating_add_signed(self.wrong)
    }

    /// Does the stream worker's work of a tick.
    fn look(&mut self) {
        self.harness.now = self.begun.wall + (self.passed - self.begun.passed);
        let reading = Reading { now: self.harness.now, wall: self.wall() };
        self.harness.streams.look_at_clock(reading);
        self.harness.streams.on_tick(self.harness.now);
        assert!(self.harness.streams.settle(self.harness.now).is_empty(), "nobody asked");
    }

    fn wait(&mut self, seconds: u64) {
        self.passed += seconds * SECOND;
        self.look();
    }

    fn set_clock(&mut self, seconds: i64) {
        self.wrong += seconds * SECOND.cast_signed();
    }

    fn jump(&mut self, seconds: i64) {
        self.set_clock(seconds);
        self.look();
    }

    fn restart(&mut self) {
        self.begun = Begin { passed: self.passed, wall: self.wall() };
        self.harness = Harness::opened_at(Box::new(self.store.clone()), self.wall());
        self.look();
    }

    /// Publishes, and returns the answer: a sequence, and whether it is a duplicate.
    fn publish(&mut self, id: &str) -> (u64, bool) {
        let headers = [("Nats-Msg-Id", id)];
        let answer = self.harness.publish("s.a", if id.is_empty() { &[] } else { &headers }, "x");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        (answer["seq"].as_u64().expect("stored"), answer["duplicate"] == true)
    }

    /// Returns the sequences of the stream.
    fn there(&mut self) -> Vec<u64> {
        let info = self.harness.ask("STREAM.INFO.S", "");
        let (first, last) = (&info["state"]["first_seq"], &info["state"]["last_seq"]);
        (first.as_u64().expect("a number")..=last.as_u64().expect("a number"))
            .filter(|seq| *seq > 0)
            .collect()
    }
}

#[test]
fn a_message_stored_while_the_clock_was_ahead_holds_nothing_up() {
    for seconds in [1, HOUR, DAY] {
        let mut machine = Machine::new();
        machine.jump(seconds);
        assert_eq!(machine.publish("k"), (1, false));
        machine.jump(-seconds);
        machine.wait(59);
        assert_eq!(machine.publish("k"), (1, true), "{seconds}: within the window");
        machine.wait(2);
        assert_eq!(machine.publish("k"), (2, false), "{seconds}: the window has passed");
        machine.wait(38);
        assert_eq!(machine.there(), [1, 2]);
        machine.wait(1);
        assert_eq!(machine.there(), [2], "{seconds}");
    }
}

#[test]
fn so_it_is_if_the_process_ends_before_the_clock_is_right_again() {
    for seconds in [1, HOUR, DAY] {
        let mut machine = Machine::new();
        machine.publish("before");
        machine.jump(seconds);
        assert_eq!(machine.publish("k"), (2, false));
        machine.set_clock(-seconds);
        machine.restart();
        assert_eq!(machine.publish("before"), (1, true), "{seconds}: no time has passed");
        assert_eq!(machine.publish("k"), (2, true), "{seconds}");
        machine.wait(61);
        assert_eq!(
            machine.publish("k"),
            (3, false),
            "{seconds}: the window begins with the start at the latest"
        );
        for _ in 0..3 {
            machine.wait(13);
            machine.restart();
        }
        assert_eq!(machine.there(), [3], "{seconds}: and so does the age, however often it is started");
    }
}

#[test]
fn a_clock_that_is_set_ahead_ends_nothing_early() {
    for seconds in [1, HOUR, DAY, 400 * DAY] {
        let mut machine = Machine::new();
        machine.publish("k");
        machine.jump(seconds);
        assert_eq!((machine.publish("k"), machine.there()), ((1, true), vec![1]), "{seconds}");
        machine.restart();
        assert_eq!(
            (machine.publish("k"), machine.there()),
            ((1, true), vec![1]),
            "{seconds}: the log was told"
        );
    }
}

#[test]
fn a_step_that_the_log_could_not_keep_is_told_again() {
    let mut machine = Machine::new();
    machine.publish("k");
    machine.store.contents().fails = true;
    machine.jump(DAY);
    machine.wait(1);
    machine.store.contents().fails = false;
    machine.wait(40);
    assert_eq!((machine.publish("k"), machine.there()), ((1, true), vec![1]));
    machine.publish("later");
    machine.restart();
    assert_eq!((machine.publish("k"), machine.there()), ((1, true), vec![1, 2]));
}

#[test]
fn times_are_told_and_asked_for_by_the_time_of_day() {
    let mut machine = Machine::new();
    machine.publish("1");
    machine.jump(HOUR);
    machine.wait(10);
    machine.publish("2");
    let told = |machine: &mut Machine, field: &str| {
        let info = machine.harness.ask("STREAM.INFO.S", "");
        time::parse(info["state"][field].as_str().unwrap_or_default()).expect("a time")
    };
    assert_eq!(machine.harness.ask("STREAM.INFO.S", "")["ts"], time::format(machine.wall()));
    let (first, last) = (told(&mut machine, "first_ts"), told(&mut machine, "last_ts"));
    assert_eq!((first, last), (machine.wall() - 10 * SECOND, machine.wall()));
    let kept: Vec<u64> = machine.store.contents().records.iter().map(|record| record.time).collect();
    assert_eq!(kept, [first, last], "and so it is kept");
    for (start, seq) in [(first, 1), (first + 1, 2), (last, 2)] {
        let body = json!({ "start_time": time::format(start), "batch": 1 }).to_string();
        let outputs = machine.harness.give(Route::Direct("S"), "$JS.API.DIRECT.GET.S", "", &body);
        let text = String::from_utf8_lossy(&outputs[0].headers).into_owned();
        let own = time::format(if seq == 1 { first } else { last });
        assert!(text.contains(&format!("Nats-Sequence: {seq}\r\nNats-Time-Stamp: {own}")), "{text}");
    }
    let up_to = json!({ "multi_last": ["s.>"], "up_to_time": time::format(first) }).to_string();
    let outputs = machine.harness.give(Route::Direct("S"), "$JS.API.DIRECT.GET.S", "", &up_to);
    assert!(String::from_utf8_lossy(&outputs[0].headers).contains("Nats-Sequence: 1"));
}

#[test]
fn while_the_clock_is_not_set_nothing_ends_because_of_it() {
    let mut machine = Machine::new();
    machine.publish("old");
    machine.wait(50);
    machine.publish("k");
    let store = Box::new(machine.store.clone());
    let streams = Streams::open(store, bounds(), Stats::default(), None).expect("opened");
    assert_eq!(streams.newest(), machine.wall());
    machine.begun = Begin { passed: machine.passed, wall: streams.newest() };
    machine.harness = Harness { now: streams.newest(), streams };
    assert_eq!((machine.publish("k"), machine.there()), ((2, true), vec![1, 2]));
    machine.jump(DAY);
    assert_eq!((machine.publish("k"), machine.there()), ((2, true), vec![1, 2]), "set at last");
    machine.wait(61);
    assert_eq!((machine.publish("k"), machine.there()), ((3, false), vec![2, 3]));
}

#[derive(Clone, Debug)]
enum ClockEvent {
    Publish(Option<u8>),
    Wait(u64),
    /// The clock is set while the process runs.
    Jump(i64),
    /// The process ends. It starts again after so many seconds, with a clock that was set by so many.
    Restart(u64, i64),
}

fn step() -> impl Strategy<Value = ClockEvent> {
    let jump = || {
        let size = prop_oneof![Just(1), Just(HOUR), Just(DAY), 1..200_i64];
        (size, any::<bool>()).prop_map(|(size, back)| if back { -size } else { size })
    };
    prop_oneof![
        8 => prop::option::of(0..4_u8).prop_map(ClockEvent::Publish),
        5 => (1..70_u64).prop_map(ClockEvent::Wait),
        2 => jump().prop_map(ClockEvent::Jump),
        2 => (0..20_u64, prop_oneof![Just(0), jump()]).prop_map(|(down, jump)| ClockEvent::Restart(down, jump)),
    ]
}

/// One message of the model.
#[derive(Debug)]
struct ModelMessage {
    seq: u64,
    id: Option<u8>,
    /// Elapsed time at which the message counts as stored; below 0: before the test began.
    at: i64,
    /// The time of day in the log.
    kept: u64,
    /// Whether the message is there, and whether its id counts.
    lives: bool,
    counts: bool,
    /// Whether the stream begins behind the message for good, and whether the log has forgotten it.
    passed_by: bool,
    removed: bool,
}

#[derive(Debug, Default)]
struct Model {
    messages: Vec<ModelMessage>,
    /// Whether the stream has noted a cap on the times of its messages.
    noted: bool,
}

impl Model {
    /// Expires by elapsed time, whatever any clock shows.
    fn expire(&mut self, passed: u64) {
        for message in &mut self.messages {
            let age = passed.cast_signed() - message.at;
            message.lives &= age < AGE.cast_signed();
            message.counts &= age < WINDOW.cast_signed();
        }
    }

    /// Restarts with only the times in the log and the time of day. A message stored later is not older than
    /// one before it, messages that had expired when the last one was stored stay gone, and no message is
    /// from the future.
    fn restart(&mut self, passed: u64, wall: u64) {
        let last = self.messages.iter().rfind(|message| !message.removed).map_or(0, |message| message.kept);
        let mut earliest = u64::MAX;
        self.messages.iter_mut().for_each(|message| message.counts &= !message.removed);
        for message in self.messages.iter_mut().rev().filter(|message| !message.removed) {
            earliest = earliest.min(message.kept);
            let gone = |span: u64| earliest + span <= wall.max(last);
            message.counts = !gone(WINDOW);
            message.removed = gone(AGE) || message.passed_by;
            message.lives = !message.removed;
            message.at = passed.cast_signed() - (wall - earliest.min(wall)).cast_signed();
        }
        // A clock that was ahead is noticed once, and noted.
        if last >= wall + SECOND {
            self.noted = true;
            self.messages.iter_mut().for_each(|message| message.kept = message.kept.min(wall));
        }
        // Of several messages with one id the last counts.
        for index in 0..self.messages.len() {
            let later = self.messages[index + 1..].iter().any(|other| other.id == self.messages[index].id);
            self.messages[index].counts &= !later;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_clock_does_ages_are_of_time_that_has_passed(steps in prop::collection::vec(step(), 1..60)) {
        let (mut machine, mut model) = (Machine::new(), Model::default());
        for step in steps {
            match step {
                ClockEvent::Publish(id) => {
                    let name = id.map(|id| format!("id-{id}")).unwrap_or_default();
                    let (seq, duplicate) = machine.publish(&name);
                    let known = model.messages.iter().find(|message| message.counts && message.id == id && id.is_some());
                    prop_assert_eq!((Some(seq), duplicate), match known {
                        Some(known) => (Some(known.seq), true),
                        None => (Some(model.messages.len() as u64 + 1), false),
                    });
                    if !duplicate {
                        let (at, kept) = (machine.passed.cast_signed(), machine.wall());
                        model.messages.push(ModelMessage { seq, id, at, kept, lives: true, counts: id.is_some(), passed_by: false, removed: false });
                    }
                }
                ClockEvent::Wait(seconds) => machine.wait(seconds),
                ClockEvent::Jump(seconds) => {
                    machine.jump(seconds);
                    for message in &mut model.messages {
                        message.kept = message.kept.saturating_add_signed(seconds * SECOND.cast_signed());
                        // The note is written anew, together with the first sequence of the stream.
                        message.passed_by |= model.noted && !message.lives;
                    }
                }
                ClockEvent::Restart(down, seconds) => {
                    machine.passed += down * SECOND;
                    machine.set_clock(seconds);
                    machine.restart();
                    model.restart(machine.passed, machine.wall());
                }
            }
            model.expire(machine.passed);
            let lives: Vec<u64> = model.messages.iter().filter(|message| message.lives).map(|message| message.seq).collect();
            prop_assert_eq!(machine.there(), lives);
            prop_assert_eq!(machine.harness.streams.check(), None);
        }
    }
}
