//! The answers of a bus with streams, without a thread: each request beside the answer of nats-server 2.15.1.

mod clocks;
mod day;
mod failing;
mod free_space;
mod full_memory;
mod harness;
mod restarts;

use proptest::prelude::*;
use serde_json::{Value, json};

use self::harness::{Harness, block, error};
use super::api;
use super::request::Route;

#[test]
fn expectations_are_checked_before_a_message_is_stored() {
    let mut harness = Harness::with(json!({ "max_msg_size": 1000 }));
    assert_eq!(harness.publish("s.a", &[], "one"), r#"{"stream":"S","seq":1}"#);
    assert_eq!(harness.publish("s.a", &[("Nats-Msg-Id", "i1")], "two"), r#"{"stream":"S","seq":2}"#);
    assert_eq!(
        harness.publish("s.a", &[("Nats-Msg-Id", "i1")], "two"),
        r#"{"stream":"S","seq":2,"duplicate": true}"#
    );
    let large = "y".repeat(1001);
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, u64, u64, &'a str);
    let cases: [Case<'_>; 18] = [
        (&[("Nats-Expected-Stream", "S9")], "x", 400, 10060, "expected stream does not match"),
        (&[("Nats-Expected-Last-Sequence", "99")], "x", 400, 10071, "wrong last sequence: 2"),
        (&[("Nats-Expected-Last-Sequence", "abc")], "x", 400, 10071, "wrong last sequence: 2"),
        (&[("Nats-Expected-Last-Subject-Sequence", "7")], "x", 400, 10071, "wrong last sequence: 2"),
        (&[("Nats-Expected-Last-Subject-Sequence", "x")], "x", 400, 10071, "wrong last sequence: 2"),
        (
            &[
                ("Nats-Expected-Last-Subject-Sequence", "1"),
                ("Nats-Expected-Last-Subject-Sequence-Subject", "s.*"),
            ],
            "x",
            400,
            10071,
            "wrong last sequence: 2",
        ),
        (
            &[("Nats-Expected-Last-Subject-Sequence-Subject", "s.a")],
            "x",
            400,
            10193,
            "missing sequence for expected last sequence per subject",
        ),
        (&[("Nats-Expected-Last-Msg-Id", "zz")], "x", 400, 10070, "wrong last msg ID: i1"),
        (&[("Nats-Rollup", "sub")], "x", 500, 10111, "rollup not permitted"),
        (&[("Nats-Rollup", "foo")], "x", 500, 10111, "rollup not permitted"),
        (&[("Nats-TTL", "5s")], "x", 400, 10166, "per-message TTL is disabled"),
        (&[("Nats-Batch-Id", "5s")], "x", 400, 10174, "atomic publish is disabled"),
        (&[("Nats-Incr", "1")], "x", 400, 10168, "message counters is disabled"),
        (&[("Nats-Schedule", "@every 5s")], "x", 400, 10188, "message schedules is disabled"),
        (&[], &large, 400, 10054, "message size exceeds maximum allowed"),
        (&[("Nats-Expected-Last-Sequence", "-1")], "x", 400, 10071, "wrong last sequence: 2"),
        (&[("Nats-Expected-Stream", "s")], "x", 400, 10060, "expected stream does not match"),
        (&[("Nats-Expected-Last-Subject-Sequence", "0")], "x", 400, 10071, "wrong last sequence: 2"),
    ];
    for (headers, payload, code, err_code, text) in cases {
        let answer: Value = serde_json::from_str(&harness.publish("s.a", headers, payload)).expect("JSON");
        assert_eq!(error(&answer), (code, err_code, text), "{headers:?}");
        assert_eq!((&answer["stream"], &answer["seq"]), (&json!("S"), &json!(0)));
    }
    let right = [
        ("Nats-Expected-Last-Sequence", "2"),
        ("Nats-Expected-Stream", "S"),
        ("Nats-Expected-Last-Msg-Id", "i1"),
    ];
    assert_eq!(harness.publish("s.new", &right, "x"), r#"{"stream":"S","seq":3}"#);
    assert_eq!(
        harness.publish("s.none", &[("Nats-Expected-Last-Subject-Sequence", "0")], "x"),
        r#"{"stream":"S","seq":4}"#
    );
}

#[test]
fn a_rollup_takes_the_place_of_what_was_there() {
    let mut harness =
        Harness::with(json!({ "allow_rollup_hdrs": true, "max_msgs_per_subject": 1, "discard": "new",
        "discard_new_per_subject": true }));
    for subject in ["s.a", "s.b", "s.c"] {
        harness.publish(subject, &[], "x");
    }
    let refused: Value = serde_json::from_str(&harness.publish("s.a", &[], "x")).expect("JSON");
    assert_eq!(error(&refused), (503, 10077, "maximum messages per subject exceeded"));
    assert_eq!(harness.publish("s.b", &[("Nats-Rollup", "sub")], "r"), r#"{"stream":"S","seq":4}"#);
    let info = harness.ask("STREAM.INFO.S", r#"{"deleted_details":true,"subjects_filter":">"}"#);
    assert_eq!(info["state"]["subjects"], json!({ "s.a": 1, "s.b": 1, "s.c": 1 }));
    assert_eq!((&info["state"]["deleted"], &info["state"]["num_deleted"]), (&json!([2]), &json!(1)));
    harness.publish("s.b", &[("Nats-Rollup", "all")], "r");
    assert_eq!(harness.ask("STREAM.INFO.S", "")["state"]["messages"], 1);
}

#[test]
fn a_stream_that_refuses_new_messages_says_which_limit() {
    let mut harness = Harness::with(json!({ "discard": "new", "max_msgs": 2, "max_bytes": 100 }));
    assert_eq!(harness.publish("s.a", &[], &"x".repeat(60)), r#"{"stream":"S","seq":1}"#);
    let refused: Value = serde_json::from_str(&harness.publish("s.a", &[], "")).expect("JSON");
    assert_eq!(error(&refused), (503, 10077, "maximum bytes exceeded"));
    assert_eq!(harness.ask("STREAM.PURGE.S", "")["purged"], 1);
    for seq in 2..=3 {
        assert_eq!(harness.publish("s.a", &[], ""), format!("{{\"stream\":\"S\",\"seq\":{seq}}}"));
    }
    let refused: Value = serde_json::from_str(&harness.publish("s.a", &[], "")).expect("JSON");
    assert_eq!(error(&refused), (503, 10077, "maximum messages exceeded"));
}

#[test]
fn the_api_answers_as_nats_server_does() {
    let mut harness = Harness::with(json!({}));
    harness.publish("s.a", &[("Nats-Msg-Id", "m-1")], "hello");
    let cases = [
        ("STREAM.INFO.NONE", "", 404, 10059, "stream not found"),
        ("STREAM.CREATE.S", "", 400, 10056, "stream name in subject does not match request"),
        (
            "STREAM.CREATE.S",
            r#"{"name":"S","subjects":["x"]}"#,
            400,
            10058,
            "stream name already in use with a different configuration",
        ),
        (
            "STREAM.CREATE.T",
            r#"{"name":"T","subjects":["s.a"]}"#,
            400,
            10065,
            "subjects overlap with an existing stream",
        ),
        (
            "STREAM.CREATE.T",
            r#"{"name":"T","sealed":true}"#,
            500,
            10052,
            "stream configuration for create can not be sealed",
        ),
        ("STREAM.UPDATE.T", r#"{"name":"T"}"#, 404, 10059, "stream not found"),
        ("STREAM.DELETE.NONE", "{}", 404, 10059, "stream not found"),
        ("STREAM.DELETE.S", "{bad", 400, 10038, "expected an empty request payload"),
        ("STREAM.PURGE.S", r#"{"keep":2,"seq":3}"#, 400, 10003, "bad request"),
        ("STREAM.PURGE.NONE", "", 404, 10059, "stream not found"),
        ("STREAM.MSG.GET.S", "", 400, 10003, "bad request"),
        ("STREAM.MSG.GET.S", "{}", 400, 10003, "bad request"),
        ("STREAM.MSG.GET.S", r#"{"seq":999}"#, 404, 10037, "no message found"),
        ("STREAM.MSG.GET.S", r#"{"seq":1,"batch":3}"#, 400, 10003, "bad request"),
        ("STREAM.MSG.GET.S", r#"{"multi_last":["s.a"]}"#, 400, 10003, "bad request"),
        ("STREAM.MSG.GET.NONE", r#"{"seq":1}"#, 404, 10059, "stream not found"),
        ("STREAM.MSG.DELETE.S", "{}", 400, 10003, "bad request"),
        ("STREAM.MSG.DELETE.S", r#"{"seq":99}"#, 500, 10057, "stream store EOF"),
        ("CONSUMER.CREATE.S", "{}", 500, 10012, "the embedded bus has no consumers; a NATS server has"),
        ("CONSUMER.CREATE.S.c.s.a", "{}", 500, 10012, "the embedded bus has no consumers; a NATS server has"),
        (
            "CONSUMER.DURABLE.CREATE.S.c",
            "",
            500,
            10012,
            "the embedded bus has no consumers; a NATS server has",
        ),
        ("CONSUMER.CREATE.NONE.c", "{}", 404, 10059, "stream not found"),
        ("CONSUMER.INFO.S.c", "", 404, 10014, "consumer not found"),
        ("CONSUMER.DELETE.S.c", "", 404, 10014, "consumer not found"),
        ("CONSUMER.PAUSE.S.c", "{}", 404, 10014, "consumer not found"),
        ("CONSUMER.UNPIN.S.c", "{}", 404, 10014, "consumer not found"),
        ("CONSUMER.NAMES.NONE", "", 404, 10059, "stream not found"),
        ("CONSUMER.LEADER.STEPDOWN.S.c", "", 503, 10010, "JetStream clustering support required"),
        ("STREAM.LEADER.STEPDOWN.S", "", 503, 10010, "JetStream clustering support required"),
    ];
    for (call, body, code, err_code, text) in cases {
        assert_eq!(error(&harness.ask(call, body)), (code, err_code, text), "{call} {body}");
    }
    for call in [
        "STREAM.INFO.S",
        "STREAM.NAMES",
        "STREAM.LIST",
        "STREAM.PURGE.S",
        "STREAM.MSG.GET.S",
        "STREAM.CREATE.S",
    ] {
        for body in ["{bad", "[]"] {
            assert_eq!(error(&harness.ask(call, body)).1, 10025, "{call} {body}");
        }
    }
    assert_eq!(
        harness.ask("STREAM.MSG.GET.S", r#"{"seq":1}"#),
        json!({ "type": "io.nats.jetstream.api.v1.stream_msg_get_response", "message": { "subject": "s.a", "seq": 1,
            "hdrs": "TkFUUy8xLjANCk5hdHMtTXNnLUlkOiBtLTENCg0K", "data": "aGVsbG8=", "time": "2017-07-14T02:40:00Z" } })
    );
    assert_eq!(harness.ask("STREAM.MSG.DELETE.S", r#"{"seq":1}"#)["success"], true);
    assert_eq!(error(&harness.ask("STREAM.MSG.DELETE.S", r#"{"seq":1}"#)), (500, 10057, "no message found"));
    assert_eq!(harness.ask("STREAM.DELETE.S", "{}")["success"], true);
}

#[test]
fn a_stream_is_told_of_with_what_it_holds() {
    let mut harness = Harness::with(json!({}));
    let empty = harness.ask("STREAM.INFO.S", "null");
    assert_eq!(
        empty["state"],
        json!({ "messages": 0, "bytes": 0, "first_seq": 0, "first_ts": "0001-01-01T00:00:00Z", "last_seq": 0,
            "last_ts": "0001-01-01T00:00:00Z", "consumer_count": 0 })
    );
    assert_eq!(
        (&empty["cluster"]["leader"], &empty["created"]),
        (&json!("L"), &json!("2017-07-14T02:40:00Z"))
    );
    harness.publish("s.a", &[("Nats-Msg-Id", "m-1")], "hello");
    harness.publish("s.b", &[], "hello");
    let info =
        harness.ask("STREAM.INFO.S", r#"{"offset":1,"deleted_details":false,"subjects_filter":"s.>"}"#);
    assert_eq!((&info["total"], &info["offset"], &info["limit"]), (&json!(2), &json!(1), &json!(100_000)));
    assert_eq!(
        (&info["state"]["subjects"], &info["state"]["num_subjects"]),
        (&json!({ "s.b": 1 }), &json!(2))
    );
    assert_eq!(harness.ask("STREAM.NAMES", r#"{"offset":0,"subject":null}"#)["streams"], json!(["S"]));
    assert_eq!(harness.ask("STREAM.NAMES", r#"{"subject":"zz"}"#)["streams"], Value::Null);
    assert_eq!(harness.ask("STREAM.LIST", "")["streams"][0]["config"]["name"], "S");
    let account = harness.ask("INFO", "[]");
    assert_eq!((&account["streams"], &account["storage"]), (&json!(1), &info["state"]["bytes"]));
    assert_eq!(account["api"], json!({ "level": 1, "total": 6, "errors": 0 }));
    harness.make("T", "t", json!({}));
    harness.make("U", "u", json!({}));
    let one_more = harness.ask("STREAM.CREATE.V", r#"{"name":"V"}"#);
    assert_eq!(error(&one_more), (400, 10027, "maximum number of streams reached"));
}

#[test]
fn direct_reads_answer_as_nats_server_does() {
    let mut harness = Harness::with(json!({ "allow_direct": true }));
    for (subject, payload) in [("s.a", "1"), ("s.b", "2"), ("s.a", "3"), ("s.c", "4"), ("s.a", "5")] {
        harness.publish(subject, &[], payload);
    }
    let message = |subject: &str, seq: u64, more: &str| {
        format!("NATS/1.0|Nats-Stream: S|Nats-Subject: {subject}|Nats-Sequence: {seq}|{more}|{seq}")
    };
    let batch = |seqs: &[(&str, u64, u64, u64)]| -> Vec<String> {
        let one = |(subject, seq, pending, last): &(&str, u64, u64, u64)| {
            message(subject, *seq, &format!("Nats-Num-Pending: {pending}|Nats-Last-Sequence: {last}|"))
        };
        seqs.iter().map(one).collect()
    };
    for (body, answer) in [
        ("", "408 Empty Request"),
        ("{bad", "408 Malformed Request"),
        ("[]", "408 Malformed Request"),
        ("{}", "408 Empty Request"),
        (r#"{"batch":3}"#, "408 Empty Request"),
        (r#"{"seq":99}"#, "404 Message Not Found"),
        (r#"{"last_by_subj":"s.a","seq":1}"#, "408 Bad Request"),
        (r#"{"last_by_subj":"s.a","batch":3}"#, "408 Bad Request"),
        (r#"{"seq":1,"start_time":"2020-01-01T00:00:00Z"}"#, "408 Bad Request"),
        (r#"{"start_time":"bad"}"#, "408 Malformed Request"),
        (r#"{"start_time":"2030-01-01T00:00:00Z","batch":2}"#, "404 Message Not Found"),
        (r#"{"multi_last":["s.a"],"next_by_subj":"x"}"#, "408 Bad Request"),
        (r#"{"multi_last":["s.zz"]}"#, "404 No Results"),
        (r#"{"multi_last":["s.>"],"up_to_seq":3,"up_to_time":"2020-01-01T00:00:00Z"}"#, "408 Bad Request"),
        (r#"{"seq":1,"next_by_subj":"s.zz","batch":5}"#, "404 Message Not Found"),
    ] {
        assert_eq!(harness.direct("", body), [format!("NATS/1.0 {answer}||")], "{body}");
    }
    assert_eq!(harness.direct("", r#"{"seq":2}"#), [message("s.b", 2, "")]);
    assert_eq!(harness.direct("", r#"{"seq":2,"next_by_subj":"s.a"}"#), [message("s.a", 3, "")]);
    assert_eq!(harness.direct(".s.a", ""), [message("s.a", 5, "")]);
    assert_eq!(harness.direct(".s.*", ""), [message("s.a", 5, "")]);
    assert_eq!(harness.direct(".s.zz", ""), ["NATS/1.0 404 Message Not Found||"]);
    assert_eq!(harness.direct(".s.a", r#"{"seq":1}"#), ["NATS/1.0 408 Bad Request||"]);

    let end = |text: &str| format!("NATS/1.0 204 EOB|{text}||");
    let mut expected = batch(&[("s.a", 1, 2, 0), ("s.a", 3, 1, 1)]);
    expected.push(end("Nats-Num-Pending: 1|Nats-Last-Sequence: 3"));
    assert_eq!(harness.direct("", r#"{"seq":1,"next_by_subj":"s.a","batch":2}"#), expected);
    let mut expected = batch(&[("s.a", 3, 2, 0)]);
    expected.push(end("Nats-Num-Pending: 2|Nats-Last-Sequence: 3"));
    assert_eq!(harness.direct("", r#"{"seq":3,"batch":9,"max_bytes":1}"#), expected);
    let mut expected = batch(&[("s.b", 2, 2, 0), ("s.c", 4, 1, 2), ("s.a", 5, 0, 4)]);
    expected.push(end("Nats-Num-Pending: 0|Nats-Last-Sequence: 5|Nats-UpTo-Sequence: 5"));
    assert_eq!(harness.direct("", r#"{"multi_last":["s.a","s.b","s.none","s.*"]}"#), expected);
    let mut expected = batch(&[("s.b", 2, 1, 0), ("s.a", 3, 0, 2)]);
    expected.push(end("Nats-Num-Pending: 0|Nats-Last-Sequence: 3|Nats-UpTo-Sequence: 3"));
    assert_eq!(harness.direct("", r#"{"multi_last":["s.>"],"up_to_seq":3}"#), expected);
    for number in 0..1025 {
        harness.publish(&format!("s.many.{number}"), &[], "x");
    }
    assert_eq!(harness.direct("", r#"{"multi_last":["s.many.>"]}"#), ["NATS/1.0 413 Too Many Results||"]);
}

#[test]
fn messages_that_are_too_old_go_and_nothing_in_the_window_is_stored_twice() {
    let mut harness = Harness::with(json!({ "max_age": 1_000_000_000, "duplicate_window": 500_000_000 }));
    harness.publish("s.a", &[("Nats-Msg-Id", "m")], "x");
    harness.now += 400_000_000;
    assert!(harness.publish("s.a", &[("Nats-Msg-Id", "m")], "x").contains("duplicate"));
    harness.now += 200_000_000;
    assert_eq!(harness.publish("s.a", &[("Nats-Msg-Id", "m")], "x"), r#"{"stream":"S","seq":2}"#);
    harness.now += 500_000_000;
    harness.streams.on_tick(harness.now);
    let state = harness.ask("STREAM.INFO.S", "")["state"].clone();
    assert_eq!((&state["messages"], &state["first_seq"]), (&json!(1), &json!(2)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_or_published_is_answered_and_the_stream_stays_whole(
        steps in proptest::collection::vec((any::<u8>(), "[sx]\\.[a-c*>]", body(), headers()), 1..30),
    ) {
        let mut harness = Harness::with(json!({ "allow_direct": true, "max_msgs": 20, "allow_rollup_hdrs": true }));
        for (kind, subject, body, headers) in steps {
            let route = match kind % 4 {
                0 | 1 => Route::Publish("S"),
                2 => Route::Direct("S"),
                _ => Route::Api(usize::from(kind) % api::ENDPOINTS.len()),
            };
            let subject = match route {
                Route::Api(number) => api::ENDPOINTS[number].0.replace(['*', '>'], "S"),
                Route::Publish(_) | Route::Direct(_) => subject,
            };
            let gone = matches!(harness.streams.count(), 0);
            let outputs = harness.give(route, &subject, &headers, &body);
            prop_assert!(!outputs.is_empty() || gone, "{route:?} {body}");
            let found = harness.streams.check();
            prop_assert!(found.is_none(), "{found:?}");
        }
    }
}

fn body() -> impl Strategy<Value = String> {
    let number = || prop_oneof![Just("0".to_owned()), Just("-1".to_owned()), "[0-9]{1,20}"];
    let field = (
        proptest::sample::select(vec![
            "seq",
            "batch",
            "max_bytes",
            "up_to_seq",
            "keep",
            "offset",
            "last_by_subj",
            "next_by_subj",
            "multi_last",
            "start_time",
            "up_to_time",
            "filter",
            "subjects_filter",
            "no_hdr",
            "name",
            "subjects",
        ]),
        prop_oneof![
            3 => number(),
            2 => Just("\"s.>\"".to_owned()),
            2 => Just("[\"s.a\",\"s.*\"]".to_owned()),
            1 => Just("\"2020-01-01T00:00:00Z\"".to_owned()),
            1 => Just("\"S\"".to_owned()),
            1 => Just("null".to_owned()),
        ],
    );
    let object = proptest::collection::vec(field, 0..4).prop_map(|fields| {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    });
    prop_oneof![6 => object, 1 => ".{0,30}", 1 => Just(String::new())]
}

fn headers() -> impl Strategy<Value = String> {
    let name = proptest::sample::select(vec![
        "Nats-Msg-Id",
        "Nats-Rollup",
        "Nats-Expected-Last-Sequence",
        "Nats-Expected-Last-Subject-Sequence",
        "Nats-Expected-Last-Subject-Sequence-Subject",
        "Nats-Expected-Last-Msg-Id",
        "Other",
    ]);
    let value = prop_oneof![Just("sub".to_owned()), Just("all".to_owned()), "[0-9]{1,3}", "[a-c]?"];
    let lines = proptest::collection::vec((name, value), 0..4);
    lines.prop_map(|lines| {
        let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        block(&lines)
    })
}
