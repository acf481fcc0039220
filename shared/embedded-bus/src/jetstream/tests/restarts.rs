//! A stream on a disk that is closed, killed and opened again at any moment answers like one in memory that
//! never was.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::harness::{Harness, block};
use crate::jetstream::request::Route;
use crate::storage;

const SECOND: u64 = 1_000_000_000;
/// A size with which segments are rewritten and unlinked all the time, and one that takes everything.
const SMALL: u64 = 1_500;
const LARGE: u64 = 32 << 20;

#[derive(Clone, Debug)]
enum StreamCall {
    /// Subject, payload, message id, rollup.
    Publish(u8, usize, Option<u8>, bool),
    Delete(u64),
    Purge(Option<u8>, Option<u64>, Option<u64>),
    /// Time passes, in tenths of seconds.
    Wait(u64),
    /// A change of limits: age in seconds, messages of a subject, messages, bytes.
    Limits(u64, i64, i64, i64),
    /// The process ends, well or by kill -9, and starts again.
    Restart(bool),
}

fn step() -> impl Strategy<Value = StreamCall> {
    let some = |most: u64| prop::option::of(0..most);
    prop_oneof![
        12 => (0..5_u8, 0..200_usize, prop::option::of(0..30_u8), prop::bool::weighted(0.05))
            .prop_map(|(subject, size, id, rollup)| StreamCall::Publish(subject, size, id, rollup)),
        1 => (1..150_u64).prop_map(StreamCall::Delete),
        1 => (prop::option::of(0..5_u8), some(150), some(4)).prop_map(|(subject, seq, keep)| {
            // Both at once are refused.
            StreamCall::Purge(subject, seq, keep.filter(|_| seq.is_none()))
        }),
        3 => (1..30_u64).prop_map(StreamCall::Wait),
        1 => (1..9_u64, 1..6_i64, 1..40_i64, 500..5_000_i64)
            .prop_map(|(age, own, all, bytes)| StreamCall::Limits(age, own, all, bytes)),
        3 => any::<bool>().prop_map(StreamCall::Restart),
    ]
}

fn limits(age: u64, own: i64, all: i64, bytes: i64) -> Value {
    json!({
        "max_age": age * SECOND, "max_msgs_per_subject": own, "max_msgs": all, "max_bytes": bytes,
        "duplicate_window": SECOND, "allow_direct": true, "allow_rollup_hdrs": true,
        "republish": { "src": "s.>", "dest": "live.>" },
    })
}

/// Removes the time of the last message, which is not known once that message and its file are gone.
fn known(mut info: Value) -> Value {
    info["state"]["last_ts"] = Value::Null;
    info
}

/// Returns the answers to every question.
fn all(harness: &mut Harness) -> BTreeMap<String, Value> {
    let info = known(harness.ask("STREAM.INFO.S", r#"{"deleted_details":true,"subjects_filter":">"}"#));
    let mut told = BTreeMap::from([("info".to_owned(), info)]);
    for (name, body) in [
        ("batch", r#"{"batch":1000,"seq":1}"#),
        ("last of each", r#"{"multi_last":["s.>"]}"#),
        ("next of one", r#"{"batch":100,"next_by_subj":"s.2"}"#),
    ] {
        let outputs = harness.give(Route::Direct("S"), "$JS.API.DIRECT.GET.S", "", body);
        let texts: Vec<String> = outputs
            .iter()
            .map(|one| String::from_utf8_lossy(&[&one.headers[..], &one.payload[..]].concat()).into_owned())
            .collect();
        told.insert(name.to_owned(), json!(texts));
    }
    told
}

/// Returns the answers to a call, live copies and acknowledgements.
fn carry_out(harness: &mut Harness, step: &StreamCall) -> Vec<String> {
    match step {
        StreamCall::Publish(subject, size, id, rollup) => {
            let id = id.map(|id| id.to_string()).unwrap_or_default();
            let mut headers = Vec::new();
            headers.extend((!id.is_empty()).then_some(("Nats-Msg-Id", id.as_str())));
            headers.extend(rollup.then_some(("Nats-Rollup", "sub")));
            let (subject, payload) = (format!("s.{subject}"), "x".repeat(*size));
            let outputs = harness.give(Route::Publish("S"), &subject, &block(&headers), &payload);
            outputs
                .iter()
                .map(|one| {
                    String::from_utf8_lossy(&[&one.headers[..], &one.payload[..]].concat()).into_owned()
                })
                .collect()
        }
        StreamCall::Delete(seq) => {
            vec![harness.ask("STREAM.MSG.DELETE.S", &format!(r#"{{"seq":{seq}}}"#)).to_string()]
        }
        StreamCall::Purge(subject, seq, keep) => {
            let mut body = json!({});
            if let Some(subject) = subject {
                body["filter"] = json!(format!("s.{subject}"));
            }
            if let Some(seq) = seq {
                body["seq"] = json!(seq);
            }
            if let Some(keep) = keep {
                body["keep"] = json!(keep);
            }
            vec![harness.ask("STREAM.PURGE.S", &body.to_string()).to_string()]
        }
        StreamCall::Wait(tenths) => {
            harness.now += tenths * SECOND / 10;
            harness.streams.on_tick(harness.now);
            assert!(harness.streams.settle(harness.now).is_empty(), "nobody asked");
            Vec::new()
        }
        StreamCall::Limits(age, own, all, bytes) => {
            let mut config = limits(*age, *own, *all, *bytes);
            config["name"] = json!("S");
            config["subjects"] = json!(["s.>"]);
            vec![known(harness.ask("STREAM.UPDATE.S", &config.to_string())).to_string()]
        }
        StreamCall::Restart(_) => {
            // A stream looks at the clock when it is opened.
            harness.streams.on_tick(harness.now);
            Vec::new()
        }
    }
}

fn compare(segment: u64, steps: &[StreamCall]) -> Result<(), TestCaseError> {
    let disk = storage::Simulated::new(segment);
    let mut lasting = Harness::new(storage::open(&crate::Storage::Memory).expect("memory"));
    let mut restarted = Harness::new(disk.open());
    for harness in [&mut lasting, &mut restarted] {
        harness.make("S", "s.>", limits(5, 3, 30, 3_000));
    }
    for step in steps {
        prop_assert_eq!(carry_out(&mut lasting, step), carry_out(&mut restarted, step), "{:?}", step);
        if let StreamCall::Restart(killed) = step {
            let now = restarted.now;
            if *killed {
                disk.kill(restarted);
            } else {
                drop(restarted);
            }
            restarted = Harness::opened_at(disk.open(), now);
        }
        prop_assert_eq!(all(&mut lasting), all(&mut restarted), "after {:?}", step);
        prop_assert_eq!(restarted.streams.check(), None);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_that_is_opened_again_and_again_answers_as_one_that_never_was(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        compare(LARGE, &steps)?;
    }

    #[test]
    fn so_it_does_while_its_files_are_given_back_and_rewritten(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        compare(SMALL, &steps)?;
    }
}
