//! Answers and stored messages when the store fails, is opened anew, or has lost something.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::harness::{Harness, NOW, bounds, error};
use crate::jetstream::api;
use crate::jetstream::request::{OutputKind, Route};
use crate::jetstream::streams::Streams;
use crate::stats::Stats;
use crate::storage::{Log, Opened, Record, RemovalReason, Replayed, Store, StoreError, StoredStream};

/// A store that can be made to fail, and stores only what was committed.
#[derive(Clone, Debug, Default)]
pub(super) struct FailingStore(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
pub(super) struct Contents {
    saved: Vec<StoredStream>,
    pub(super) records: Vec<Record>,
    highest: u64,
    pub(super) fails: bool,
    misses_some: bool,
    unreadable: Option<u64>,
}

#[derive(Debug)]
struct FailingLog {
    store: FailingStore,
    waiting: Vec<Record>,
    removed: Vec<u64>,
    /// Nanoseconds by which stored messages count as stored later.
    step: i64,
}

impl FailingStore {
    pub(super) fn contents(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.0.lock().expect("no test panics while it holds this")
    }

    fn log(&self) -> Box<dyn Log> {
        Box::new(FailingLog { store: self.clone(), waiting: Vec::new(), removed: Vec::new(), step: 0 })
    }
}

impl Store for FailingStore {
    fn streams(&mut self) -> Result<Vec<StoredStream>, StoreError> {
        Ok(self.contents().saved.clone())
    }

    fn open(
        &mut self,
        _: &str,
        replay: &mut dyn FnMut(Replayed<'_>),
    ) -> Result<(Box<dyn Log>, Opened), StoreError> {
        let contents = self.contents();
        contents.records.iter().for_each(|record| replay(Replayed::Stored(record)));
        contents.records.iter().for_each(|record| replay(Replayed::Present(record.clone())));
        let opened = Opened { last_seq: contents.highest, may_miss_some: contents.misses_some };
        drop(contents);
        Ok((self.log(), opened))
    }

    fn create(&mut self, stream: &StoredStream) -> Result<Box<dyn Log>, StoreError> {
        self.contents().saved.push(stream.clone());
        Ok(self.log())
    }

    fn save(&mut self, stream: &StoredStream) -> Result<(), StoreError> {
        let mut contents = self.contents();
        contents.saved.retain(|saved| saved.name != stream.name);
        contents.saved.push(stream.clone());
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Result<(), StoreError> {
        self.contents().saved.retain(|saved| saved.name != name);
        Ok(())
    }
}

impl Log for FailingLog {
    fn append(&mut self, record: Record) -> Result<(), StoreError> {
        self.store.contents().highest = record.seq;
        self.waiting.push(record);
        Ok(())
    }

    fn read(&mut self, seq: u64) -> Result<Option<Record>, StoreError> {
        let contents = self.store.contents();
        let readable = |record: &&Record| record.seq == seq && contents.unreadable != Some(seq);
        Ok(contents.records.iter().chain(&self.waiting).find(readable).cloned())
    }

    fn forget(&mut self, _: &[u64]) -> Result<(), StoreError> {
        Ok(())
    }

    fn remove(&mut self, seqs: &[u64], _: RemovalReason) -> Result<(), StoreError> {
        self.removed.extend(seqs);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let mut contents = self.store.contents();
        if contents.fails {
            return Err(StoreError::Full("disk".into()));
        }
        later(&mut contents.records, std::mem::take(&mut self.step));
        contents.records.append(&mut self.waiting);
        contents.records.retain(|record| !self.removed.contains(&record.seq));
        Ok(())
    }

    fn on_step(&mut self, by: i64) -> Result<(), StoreError> {
        later(&mut self.waiting, by);
        self.step += by;
        Ok(())
    }

    fn size(&self) -> u64 {
        0
    }

    fn on_tick(&mut self, _: u64) -> Result<(), StoreError> {
        if self.removed.is_empty() { Ok(()) } else { self.commit() }
    }
}

fn later(records: &mut [Record], by: i64) {
    for record in records {
        record.time = record.time.saturating_add_signed(by);
    }
}

#[test]
fn when_the_store_fails_nobody_hears_of_what_it_did_not_keep() {
    let store = FailingStore::default();
    let mut harness = Harness::new(Box::new(store.clone()));
    harness.make(
        "S",
        "s.>",
        json!({ "republish": { "src": "s.>", "dest": "live.>" }, "allow_direct": true }),
    );
    harness.make("T", "t.>", json!({}));
    assert_eq!(harness.publish("s.a", &[], "kept"), r#"{"stream":"S","seq":1}"#);

    store.contents().fails = true;
    harness.send(Route::Publish("S"), "s.a", "", "lost");
    harness.send(Route::Direct("S"), "$JS.API.DIRECT.GET.S", "", r#"{"seq":2}"#);
    harness.send(Route::Api(8), "$JS.API.STREAM.MSG.GET.S", "", r#"{"seq":2}"#);
    harness.send(Route::Api(0), "$JS.API.INFO", "", "");
    let outputs = harness.streams.settle(NOW);
    let kinds: Vec<OutputKind> = outputs.iter().map(|output| output.kind).collect();
    let (get, account) =
        (OutputKind::Api("stream_msg_get_response"), OutputKind::Api("account_info_response"));
    assert_eq!(kinds, [OutputKind::Ack, OutputKind::Direct, get, account], "no copy leaves");
    let ack: Value = serde_json::from_slice(&outputs[0].payload).expect("JSON");
    assert_eq!(error(&ack), (503, 10077, "no space left on device"));
    assert_eq!(&outputs[1].headers[..], b"NATS/1.0 500 Storage Failed\r\n\r\n");
    assert_eq!(error(&serde_json::from_slice(&outputs[2].payload).expect("JSON")).1, 10077);

    store.contents().fails = false;
    let state = harness.ask("STREAM.INFO.S", "")["state"].clone();
    assert_eq!(
        (&state["messages"], &state["last_seq"]),
        (&json!(1), &json!(2)),
        "no sequence is given twice"
    );
    let paused: Value = serde_json::from_str(&harness.publish("s.a", &[], "again")).expect("JSON");
    assert_eq!(
        error(&paused).1,
        10077,
        "nothing is stored for a while, so that it is not read anew each time"
    );
    harness.now += 1_000_000_000;
    assert_eq!(harness.publish("s.a", &[], "again"), r#"{"stream":"S","seq":3}"#);
}

#[test]
fn a_message_that_was_queued_for_a_stream_that_is_gone_is_told_so() {
    let mut harness = Harness::with(json!({}));
    assert_eq!(harness.ask("STREAM.DELETE.S", "")["success"], true);
    let outputs = harness.give(Route::Publish("S"), "s.a", "", "x");
    assert_eq!(&outputs[0].headers[..], b"NATS/1.0 503\r\nNats-Subject: s.a\r\n\r\n");
}

#[test]
fn a_restart_finds_messages_settings_and_the_duplicate_window() {
    let store = FailingStore::default();
    let mut harness = Harness::new(Box::new(store.clone()));
    harness.make("S", "s.>", json!({ "max_msgs_per_subject": 2 }));
    for id in ["1", "2", "3"] {
        harness.publish("s.a", &[("Nats-Msg-Id", id)], id);
    }
    let before = harness.ask("STREAM.INFO.S", "");
    drop(harness);
    let mut harness = Harness::new(Box::new(store.clone()));
    assert_eq!(harness.ask("STREAM.INFO.S", ""), before);
    assert_eq!(
        harness.publish("s.a", &[("Nats-Msg-Id", "3")], "3"),
        r#"{"stream":"S","seq":3,"duplicate": true}"#
    );
    assert!(harness.streams.take_routes().len() > api::ENDPOINTS.len(), "its subjects lead to it again");

    drop(harness);
    store.contents().misses_some = true;
    let streams =
        Streams::open(Box::new(store.clone()), bounds(), Stats::default(), Some(NOW + 1)).expect("opened");
    let mut harness = Harness { streams, now: NOW + 1 };
    let after = harness.ask("STREAM.INFO.S", "");
    assert_eq!(
        (&after["created"], &after["state"]),
        (&json!("2017-07-14T02:40:00.000000001Z"), &before["state"])
    );
    assert_eq!(store.contents().saved[0].created, NOW + 1);
}

#[test]
fn an_answer_ends_at_a_message_that_can_not_be_read_and_is_not_called_whole() {
    let store = FailingStore::default();
    let mut harness = Harness::new(Box::new(store.clone()));
    harness.make("S", "s.>", json!({ "allow_direct": true }));
    for subject in ["s.a", "s.b", "s.c"] {
        harness.publish(subject, &[], "text");
    }
    store.contents().unreadable = Some(2);
    for request in [r#"{"multi_last":["s.a","s.b","s.c"]}"#, r#"{"seq":1,"next_by_subj":"s.>","batch":9}"#] {
        let answers = harness.direct("", request);
        assert_eq!(answers.len(), 2, "{answers:?}");
        assert!(answers[0].contains("Nats-Num-Pending: 2"), "{answers:?}");
        assert!(answers[1].starts_with("NATS/1.0 404 Message Not Found"), "{answers:?}");
    }
}

#[test]
fn a_longer_life_does_not_bring_back_what_had_gone() {
    let store = FailingStore::default();
    let mut harness = Harness::new(Box::new(store.clone()));
    harness.make("S", "s.>", json!({ "max_age": 1_000_000_000 }));
    harness.publish("s.a", &[], "old");
    harness.now += 2_000_000_000;
    harness.streams.on_tick(harness.now);
    harness.publish("s.a", &[], "new");
    let longer = r#"{"name":"S","subjects":["s.>"],"max_age":9000000000}"#;
    assert_eq!(harness.ask("STREAM.UPDATE.S", longer)["config"]["max_age"], 9_000_000_000_u64);
    assert_eq!(store.contents().records.len(), 2, "the log has the old message yet");
    let mut harness = Harness { streams: Harness::new(Box::new(store)).streams, now: harness.now };
    let state = harness.ask("STREAM.INFO.S", "")["state"].clone();
    assert_eq!((&state["messages"], &state["first_seq"]), (&json!(1), &json!(2)));
}
