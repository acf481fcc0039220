//! The bound on memory: new messages are refused, and everything else goes on.

use serde_json::{Value, json};

use super::failing::FailingStore;
use super::harness::{Harness, NOW, bounds, error};
use crate::jetstream::request::{OutputKind, Route};
use crate::jetstream::streams::{Bounds, Streams};
use crate::stats::Stats;

const SECOND: u64 = 1_000_000_000;
/// Some sixty subjects with one message each.
const SMALL: u64 = 20_000;

fn small() -> Bounds {
    let mut bounds = bounds();
    bounds.memory.max = SMALL;
    bounds
}

fn opened(store: &FailingStore, now: u64) -> (Harness, Stats) {
    let stats = Stats::default();
    let streams = Streams::open(Box::new(store.clone()), small(), stats.clone(), Some(now)).expect("opened");
    (Harness { streams, now }, stats)
}

/// Publishes to new subjects until a message is refused, and returns how many were stored.
fn fill(harness: &mut Harness) -> usize {
    for number in 0.. {
        let answer = harness.publish(&format!("s.{number}"), &[("Nats-Msg-Id", &format!("m{number}"))], "x");
        if answer.contains("error") {
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            assert_eq!(error(&answer), (503, 10077, "no memory left for more messages"));
            return number;
        }
    }
    unreachable!("there is a bound")
}

fn publish_to(harness: &mut Harness, stream: &str, subject: &str, headers: &str) -> String {
    let outputs = harness.give(Route::Publish(stream), subject, headers, "x");
    let ack = outputs.into_iter().find(|output| output.kind == OutputKind::Ack).expect("an acknowledgement");
    String::from_utf8(ack.payload.into()).expect("text")
}

#[test]
fn without_memory_what_is_new_is_refused_and_all_else_goes_on() {
    let (mut harness, stats) = opened(&FailingStore::default(), NOW);
    harness.make("S", "s.>", json!({ "max_age": 100 * SECOND, "duplicate_window": 50 * SECOND }));
    harness.make("BANS", "b.>", json!({ "duplicate_window": SECOND }));
    let stored = fill(&mut harness);
    assert!((40..80).contains(&stored), "{stored}");
    harness.streams.on_tick(harness.now);
    let memory = stats.memory();
    assert!(memory.full && memory.bytes >= SMALL && memory.max_bytes == SMALL, "{memory:?}");
    assert_eq!(stats.store().refused, 1);
    assert!(harness.publish("s.0", &[("Nats-Msg-Id", "m0")], "x").contains("duplicate"), "a repeat is known");
    assert_eq!(harness.ask("STREAM.MSG.GET.S", r#"{"seq":1}"#)["message"]["seq"], 1);

    let marked = "NATS/1.0\r\nErased: 1\r\n\r\n";
    assert!(publish_to(&mut harness, "S", "s.0", marked).contains("\"seq\""), "a mark finds room");
    assert!(publish_to(&mut harness, "BANS", "b.1", "").contains("\"seq\":1}"), "and a ban");
    let bans = (2..100)
        .take_while(|number| !publish_to(&mut harness, "BANS", &format!("b.{number}"), "").contains("error"));
    assert!(bans.count() < 8, "a sixteenth is kept, and no more");

    assert_eq!(harness.ask("STREAM.PURGE.S", r#"{"filter":"s.0"}"#)["purged"], 2);
    assert_eq!(harness.ask("STREAM.PURGE.S", r#"{"keep":1}"#)["success"], true);
    harness.streams.on_tick(harness.now);
    assert!(harness.publish("s.again", &[], "x").contains("\"seq\""), "there is room again");
    fill(&mut harness);
    harness.now += 101 * SECOND;
    harness.streams.on_tick(harness.now);
    assert!(!stats.memory().full, "{:?}", stats.memory());
    assert!(harness.publish("s.later", &[], "x").contains("\"seq\""));
}

#[test]
fn streams_that_take_more_than_they_may_are_opened_all_the_same() {
    let store = FailingStore::default();
    let mut harness = Harness::new(Box::new(store.clone()));
    harness.make("S", "s.>", json!({}));
    for number in 0..200 {
        harness.publish(&format!("s.{number}"), &[], "x");
    }
    let (mut harness, _) = opened(&store, NOW);
    assert_eq!(harness.ask("STREAM.INFO.S", "")["state"]["messages"], 200);
    assert!(harness.publish("s.new", &[], "x").contains("no memory left"));
    assert_eq!(harness.ask("STREAM.PURGE.S", r#"{"keep":2}"#)["purged"], 198);
    harness.streams.on_tick(harness.now);
    assert!(harness.publish("s.new", &[], "x").contains("\"seq\":201}"));
}

#[test]
fn messages_that_are_in_memory_count_with_their_bytes() {
    let mut bounds = small();
    bounds.memory.max = 10_000;
    bounds.memory.holds_messages = true;
    let store = crate::storage::open(&crate::Storage::Memory).expect("memory");
    let streams = Streams::open(store, bounds, Stats::default(), Some(NOW)).expect("opened");
    let mut harness = Harness { streams, now: NOW };
    harness.make("S", "s.>", json!({}));
    let large = "x".repeat(4_000);
    let stored = (0..10).take_while(|_| !harness.publish("s.a", &[], &large).contains("error")).count();
    assert_eq!(stored, 3);
}
