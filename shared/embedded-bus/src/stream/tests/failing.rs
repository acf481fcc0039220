//! What is said and kept when the store fails, is opened anew, or has lost something.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Desk, NOW, bounds, error};
use crate::stats::Stats;
use crate::storage::{Log, LogError, Opened, Record, Saved, Store, Told, Why};
use crate::stream::api;
use crate::stream::request::{Kind, Route};
use crate::stream::streams::Streams;

/// A store that can be made to fail, and keeps only what was committed.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
pub(super) struct Kept {
    saved: Vec<Saved>,
    pub(super) records: Vec<Record>,
    highest: u64,
    pub(super) fails: bool,
    misses_some: bool,
    unreadable: Option<u64>,
}

#[derive(Debug)]
struct DiskLog {
    disk: Disk,
    waiting: Vec<Record>,
    removed: Vec<u64>,
    /// By how much what is kept counts as stored later.
    step: i64,
}

impl Disk {
    pub(super) fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().expect("no test panics while it holds this")
    }

    fn log(&self) -> Box<dyn Log> {
        Box::new(DiskLog { disk: self.clone(), waiting: Vec::new(), removed: Vec::new(), step: 0 })
    }
}

impl Store for Disk {
    fn streams(&mut self) -> Result<Vec<Saved>, LogError> {
        Ok(self.kept().saved.clone())
    }

    fn open(&mut self, _: &str, tell: &mut dyn FnMut(Told<'_>)) -> Result<(Box<dyn Log>, Opened), LogError> {
        let kept = self.kept();
        kept.records.iter().for_each(|record| tell(Told::Stored(record)));
        kept.records.iter().for_each(|record| tell(Told::There(record.clone())));
        let opened = Opened { last_seq: kept.highest, may_miss_some: kept.misses_some };
        drop(kept);
        Ok((self.log(), opened))
    }

    fn create(&mut self, stream: &Saved) -> Result<Box<dyn Log>, LogError> {
        self.kept().saved.push(stream.clone());
        Ok(self.log())
    }

    fn save(&mut self, stream: &Saved) -> Result<(), LogError> {
        let mut kept = self.kept();
        kept.saved.retain(|saved| saved.name != stream.name);
        kept.saved.push(stream.clone());
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Result<(), LogError> {
        self.kept().saved.retain(|saved| saved.name != name);
        Ok(())
    }
}

impl Log for DiskLog {
    fn append(&mut self, record: Record) -> Result<(), LogError> {
        self.disk.kept().highest = record.seq;
        self.waiting.push(record);
        Ok(())
    }

    fn read(&mut self, seq: u64) -> Result<Option<Record>, LogError> {
        let kept = self.disk.kept();
        let readable = |record: &&Record| record.seq == seq && kept.unreadable != Some(seq);
        Ok(kept.records.iter().chain(&self.waiting).find(readable).cloned())
    }

    fn forget(&mut self, _: &[u64]) -> Result<(), LogError> {
        Ok(())
    }

    fn remove(&mut self, seqs: &[u64], _: Why) -> Result<(), LogError> {
        self.removed.extend(seqs);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LogError> {
        let mut kept = self.disk.kept();
        if kept.fails {
            return Err(LogError::Full("disk".into()));
        }
        later(&mut kept.records, std::mem::take(&mut self.step));
        kept.records.append(&mut self.waiting);
        kept.records.retain(|record| !self.removed.contains(&record.seq));
        Ok(())
    }

    fn on_step(&mut self, by: i64) -> Result<(), LogError> {
        later(&mut self.waiting, by);
        self.step += by;
        Ok(())
    }

    fn size(&self) -> u64 {
        0
    }

    fn on_tick(&mut self, _: u64) -> Result<(), LogError> {
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
    let disk = Disk::default();
    let mut desk = Desk::new(Box::new(disk.clone()));
    desk.make("S", "s.>", json!({ "republish": { "src": "s.>", "dest": "live.>" }, "allow_direct": true }));
    desk.make("T", "t.>", json!({}));
    assert_eq!(desk.publish("s.a", &[], "kept"), r#"{"stream":"S","seq":1}"#);

    disk.kept().fails = true;
    desk.send(Route::Publish("S"), "s.a", "", "lost");
    desk.send(Route::Direct("S"), "$JS.API.DIRECT.GET.S", "", r#"{"seq":2}"#);
    desk.send(Route::Api(8), "$JS.API.STREAM.MSG.GET.S", "", r#"{"seq":2}"#);
    desk.send(Route::Api(0), "$JS.API.INFO", "", "");
    let outputs = desk.streams.settle(NOW);
    let kinds: Vec<Kind> = outputs.iter().map(|output| output.kind).collect();
    let (get, account) = (Kind::Api("stream_msg_get_response"), Kind::Api("account_info_response"));
    assert_eq!(kinds, [Kind::Ack, Kind::Direct, get, account], "no copy leaves");
    let ack: Value = serde_json::from_slice(&outputs[0].payload).expect("JSON");
    assert_eq!(error(&ack), (503, 10077, "no space left on device"));
    assert_eq!(&outputs[1].headers[..], b"NATS/1.0 500 Storage Failed\r\n\r\n");
    assert_eq!(error(&serde_json::from_slice(&outputs[2].payload).expect("JSON")).1, 10077);

    disk.kept().fails = false;
    let state = desk.ask("STREAM.INFO.S", "")["state"].clone();
    assert_eq!(
        (&state["messages"], &state["last_seq"]),
        (&json!(1), &json!(2)),
        "no sequence is given twice"
    );
    let paused: Value = serde_json::from_str(&desk.publish("s.a", &[], "again")).expect("JSON");
    assert_eq!(
        error(&paused).1,
        10077,
        "nothing is stored for a while, so that it is not read anew each time"
    );
    desk.now += 1_000_000_000;
    assert_eq!(desk.publish("s.a", &[], "again"), r#"{"stream":"S","seq":3}"#);
}

#[test]
fn a_message_that_was_queued_for_a_stream_that_is_gone_is_told_so() {
    let mut desk = Desk::with(json!({}));
    assert_eq!(desk.ask("STREAM.DELETE.S", "")["success"], true);
    let outputs = desk.give(Route::Publish("S"), "s.a", "", "x");
    assert_eq!(&outputs[0].headers[..], b"NATS/1.0 503\r\nNats-Subject: s.a\r\n\r\n");
}

#[test]
fn a_restart_finds_messages_settings_and_the_duplicate_window() {
    let disk = Disk::default();
    let mut desk = Desk::new(Box::new(disk.clone()));
    desk.make("S", "s.>", json!({ "max_msgs_per_subject": 2 }));
    for id in ["1", "2", "3"] {
        desk.publish("s.a", &[("Nats-Msg-Id", id)], id);
    }
    let before = desk.ask("STREAM.INFO.S", "");
    drop(desk);
    let mut desk = Desk::new(Box::new(disk.clone()));
    assert_eq!(desk.ask("STREAM.INFO.S", ""), before);
    assert_eq!(
        desk.publish("s.a", &[("Nats-Msg-Id", "3")], "3"),
        r#"{"stream":"S","seq":3,"duplicate": true}"#
    );
    assert!(desk.streams.take_routes().len() > api::ENDPOINTS.len(), "its subjects lead to it again");

    drop(desk);
    disk.kept().misses_some = true;
    let streams =
        Streams::open(Box::new(disk.clone()), bounds(), Stats::default(), Some(NOW + 1)).expect("opened");
    let mut desk = Desk { streams, now: NOW + 1 };
    let after = desk.ask("STREAM.INFO.S", "");
    assert_eq!(
        (&after["created"], &after["state"]),
        (&json!("2017-07-14T02:40:00.000000001Z"), &before["state"])
    );
    assert_eq!(disk.kept().saved[0].created, NOW + 1);
}

#[test]
fn an_answer_ends_at_a_message_that_can_not_be_read_and_is_not_called_whole() {
    let disk = Disk::default();
    let mut desk = Desk::new(Box::new(disk.clone()));
    desk.make("S", "s.>", json!({ "allow_direct": true }));
    for subject in ["s.a", "s.b", "s.c"] {
        desk.publish(subject, &[], "text");
    }
    disk.kept().unreadable = Some(2);
    for request in [r#"{"multi_last":["s.a","s.b","s.c"]}"#, r#"{"seq":1,"next_by_subj":"s.>","batch":9}"#] {
        let answers = desk.direct("", request);
        assert_eq!(answers.len(), 2, "{answers:?}");
        assert!(answers[0].contains("Nats-Num-Pending: 2"), "{answers:?}");
        assert!(answers[1].starts_with("NATS/1.0 404 Message Not Found"), "{answers:?}");
    }
}

#[test]
fn a_longer_life_does_not_bring_back_what_had_gone() {
    let disk = Disk::default();
    let mut desk = Desk::new(Box::new(disk.clone()));
    desk.make("S", "s.>", json!({ "max_age": 1_000_000_000 }));
    desk.publish("s.a", &[], "old");
    desk.now += 2_000_000_000;
    desk.streams.on_tick(desk.now);
    desk.publish("s.a", &[], "new");
    let longer = r#"{"name":"S","subjects":["s.>"],"max_age":9000000000}"#;
    assert_eq!(desk.ask("STREAM.UPDATE.S", longer)["config"]["max_age"], 9_000_000_000_u64);
    assert_eq!(disk.kept().records.len(), 2, "the log has the old message yet");
    let mut desk = Desk { streams: Desk::new(Box::new(disk)).streams, now: desk.now };
    let state = desk.ask("STREAM.INFO.S", "")["state"].clone();
    assert_eq!((&state["messages"], &state["first_seq"]), (&json!(1), &json!(2)));
}
