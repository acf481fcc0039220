//! `kill -9` of the bus at any moment under load: no acknowledged message is lost, no sequence is given
//! twice, and a repeated publish is recognized.

use std::collections::{BTreeMap, HashMap};

use harness::wait::soon;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::wire::{Came, Wire};
use super::{address, bus, make};

const ROUNDS: u32 = 8;
/// The most messages in flight.
const WINDOW: usize = 300;
const CHANNELS: u64 = 40;

/// The publisher's own record.
#[derive(Default)]
struct Book {
    /// Every id ever sent, with its text.
    sent: BTreeMap<String, String>,
    /// Acknowledged ids, with their sequences.
    acknowledged: HashMap<String, u64>,
}

impl Book {
    fn note(&mut self, came: &Came) {
        let answer: Value = serde_json::from_str(&came.payload).expect("JSON");
        let seq = answer["seq"].as_u64().filter(|_| answer["error"].is_null());
        let seq = seq.unwrap_or_else(|| panic!("{answer}"));
        let id = came.subject.strip_prefix("_I.").expect("our inbox").to_owned();
        if let Some(before) = self.acknowledged.insert(id.clone(), seq) {
            assert_eq!((before, &answer["duplicate"]), (seq, &json!(true)), "{id} is known");
        }
    }
}

/// Publishes until the connection breaks; rings `bell` after `enough` acknowledgements.
async fn load(wire: &mut Wire, book: &mut Book, round: u32, enough: usize, bell: &Notify) {
    let (mut number, mut waiting, mut count) = (0_u64, 0, 0);
    loop {
        while waiting < WINDOW {
            let id = format!("r{round}n{number}");
            let payload = format!("payload of {id} {}", "x".repeat(fastrand::usize(..300)));
            book.sent.insert(id.clone(), payload.clone());
            waiting += 1;
            number += 1;
            if !wire.publish(&format!("s.{}", number % CHANNELS), &id, &id, &payload).await {
                break;
            }
        }
        let Some(came) = wire.next().await else { return };
        book.note(&came);
        (waiting, count) = (waiting - 1, count + 1);
        if count == enough {
            bell.notify_one();
        }
    }
}

/// Compares the stored messages with the record.
async fn check(wire: &mut Wire, book: &mut Book, context: &str) {
    let there = wire.all().await;
    for (id, seq) in &book.acknowledged {
        let kept = there.get(seq).map(|(id, _)| id);
        assert_eq!(kept, Some(id), "{context}: {id} was acknowledged as {seq}");
    }
    for (seq, (id, payload)) in &there {
        assert_eq!(book.sent.get(id), Some(payload), "{context}: {seq} is something else than was sent");
    }
    // Sends everything again: stored messages are recognized as duplicates, lost ones are stored now.
    let highest = there.keys().next_back().copied().unwrap_or(0);
    let stored: HashMap<&str, u64> = there.iter().map(|(seq, (id, _))| (id.as_str(), *seq)).collect();
    for (id, payload) in &book.sent {
        let answer = wire.store("s.again", id, payload).await;
        let seq = answer["seq"].as_u64().unwrap_or_else(|| panic!("{context}: {answer}"));
        match stored.get(id.as_str()) {
            Some(before) => {
                assert_eq!((seq, &answer["duplicate"]), (*before, &json!(true)), "{context}: {id} is known");
            }
            None => assert!(seq > highest, "{context}: {id} got {seq}, and {highest} was given before"),
        }
        book.acknowledged.insert(id.clone(), seq);
    }
    let mut seqs: Vec<u64> = book.acknowledged.values().copied().collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), book.sent.len(), "{context}: each message has a sequence of its own");
}

async fn survives(sync: &str, seed: u64) {
    fastrand::seed(seed);
    let folder = TempDir::new().expect("there is room");
    let mut book = Book::default();
    for round in 0..ROUNDS {
        let context = format!("{sync}, seed {seed}, round {round}");
        let mut program = bus(folder.path(), sync).start();
        let at = address(&mut program).await;
        let mut wire = Wire::connect(at).await;
        let window = 600_000_000_000_u64;
        make(&mut wire, &json!({ "duplicate_window": window, "max_age": window })).await;
        check(&mut wire, &mut book, &context).await;
        let (bell, enough) = (Notify::new(), fastrand::usize(1..400));
        let kill = async {
            bell.notified().await;
            program.kill().await;
        };
        let both = async { tokio::join!(load(&mut wire, &mut book, round, enough, &bell), kill) };
        soon(&format!("{context}: the bus is killed"), both).await;
        assert!(book.acknowledged.len() < book.sent.len(), "{context}: something was on its way");
    }
    let mut program = bus(folder.path(), sync).start();
    let mut wire = Wire::connect(address(&mut program).await).await;
    check(&mut wire, &mut book, "at the end").await;
    assert_eq!(wire.all().await.len(), book.sent.len(), "each message once");
    program.end().await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_bus_is_killed_at_any_moment_in_strict() {
    survives("strict", 1).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_bus_is_killed_at_any_moment_in_relaxed() {
    survives("relaxed", 2).await;
}
