//! Memory is bounded as bytes are: what is new is refused, and everything else goes on.

use serde_json::{Value, json};

use super::failing::Disk;
use super::{Desk, NOW, bounds, error};
use crate::stats::Stats;
use crate::stream::request::{Kind, Route};
use crate::stream::streams::{Bounds, Streams};

const SECOND: u64 = 1_000_000_000;
/// Some sixty subjects with one message each.
const SMALL: u64 = 20_000;

fn small() -> Bounds {
    let mut bounds = bounds();
    bounds.memory.max = SMALL;
    bounds
}

fn opened(disk: &Disk, now: u64) -> (Desk, Stats) {
    let stats = Stats::default();
    let streams = Streams::open(Box::new(disk.clone()), small(), stats.clone(), Some(now)).expect("opened");
    (Desk { streams, now }, stats)
}

/// Publishes to new subjects until one is refused, and says how many were not.
fn fill(desk: &mut Desk) -> usize {
    for number in 0.. {
        let answer = desk.publish(&format!("s.{number}"), &[("Nats-Msg-Id", &format!("m{number}"))], "x");
        if answer.contains("error") {
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            assert_eq!(error(&answer), (503, 10077, "no memory left for more messages"));
            return number;
        }
    }
    unreachable!("there is a bound")
}

fn publish_to(desk: &mut Desk, stream: &str, subject: &str, headers: &str) -> String {
    let outputs = desk.give(Route::Publish(stream), subject, headers, "x");
    let ack = outputs.into_iter().find(|output| output.kind == Kind::Ack).expect("an acknowledgement");
    String::from_utf8(ack.payload.into()).expect("text")
}

#[test]
fn without_memory_what_is_new_is_refused_and_all_else_goes_on() {
    let (mut desk, stats) = opened(&Disk::default(), NOW);
    desk.make("S", "s.>", json!({ "max_age": 100 * SECOND, "duplicate_window": 50 * SECOND }));
    desk.make("BANS", "b.>", json!({ "duplicate_window": SECOND }));
    let stored = fill(&mut desk);
    assert!((40..80).contains(&stored), "{stored}");
    desk.streams.on_tick(desk.now);
    let memory = stats.memory();
    assert!(memory.full && memory.bytes >= SMALL && memory.max_bytes == SMALL, "{memory:?}");
    assert_eq!(stats.store().refused, 1);
    assert!(desk.publish("s.0", &[("Nats-Msg-Id", "m0")], "x").contains("duplicate"), "a repeat is known");
    assert_eq!(desk.ask("STREAM.MSG.GET.S", r#"{"seq":1}"#)["message"]["seq"], 1);

    let marked = "NATS/1.0\r\nErased: 1\r\n\r\n";
    assert!(publish_to(&mut desk, "S", "s.0", marked).contains("\"seq\""), "a mark finds room");
    assert!(publish_to(&mut desk, "BANS", "b.1", "").contains("\"seq\":1}"), "and a ban");
    let bans = (2..100)
        .take_while(|number| !publish_to(&mut desk, "BANS", &format!("b.{number}"), "").contains("error"));
    assert!(bans.count() < 8, "a sixteenth is kept, and no more");

    assert_eq!(desk.ask("STREAM.PURGE.S", r#"{"filter":"s.0"}"#)["purged"], 2);
    assert_eq!(desk.ask("STREAM.PURGE.S", r#"{"keep":1}"#)["success"], true);
    desk.streams.on_tick(desk.now);
    assert!(desk.publish("s.again", &[], "x").contains("\"seq\""), "there is room again");
    fill(&mut desk);
    desk.now += 101 * SECOND;
    desk.streams.on_tick(desk.now);
    assert!(!stats.memory().full, "{:?}", stats.memory());
    assert!(desk.publish("s.later", &[], "x").contains("\"seq\""));
}

#[test]
fn streams_that_take_more_than_they_may_are_opened_all_the_same() {
    let disk = Disk::default();
    let mut desk = Desk::new(Box::new(disk.clone()));
    desk.make("S", "s.>", json!({}));
    for number in 0..200 {
        desk.publish(&format!("s.{number}"), &[], "x");
    }
    let (mut desk, _) = opened(&disk, NOW);
    assert_eq!(desk.ask("STREAM.INFO.S", "")["state"]["messages"], 200);
    assert!(desk.publish("s.new", &[], "x").contains("no memory left"));
    assert_eq!(desk.ask("STREAM.PURGE.S", r#"{"keep":2}"#)["purged"], 198);
    desk.streams.on_tick(desk.now);
    assert!(desk.publish("s.new", &[], "x").contains("\"seq\":201}"));
}

#[test]
fn messages_that_are_in_memory_count_with_their_bytes() {
    let mut bounds = small();
    bounds.memory.max = 10_000;
    bounds.memory.keeps_messages = true;
    let store = crate::storage::open(&crate::Storage::Memory).expect("memory");
    let streams = Streams::open(store, bounds, Stats::default(), Some(NOW)).expect("opened");
    let mut desk = Desk { streams, now: NOW };
    desk.make("S", "s.>", json!({}));
    let large = "x".repeat(4_000);
    let stored = (0..10).take_while(|_| !desk.publish("s.a", &[], &large).contains("error")).count();
    assert_eq!(stored, 3);
}
