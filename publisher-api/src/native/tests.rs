use super::message::Addressed;
use super::publish::read_batch;
use super::users::{Disconnect, read_users};
use crate::error::Refusal;
use crate::publisher::Counting;
use proptest::prelude::*;
use serde_json::json;
use shared::wire::Kind;
use std::time::Duration;

const LIMIT: usize = 100;

fn parse(json: &str) -> Result<Addressed, Refusal> {
    Addressed::parse(json.as_bytes(), LIMIT)
}

fn code<T>(outcome: Result<T, Refusal>) -> &'static str {
    outcome.map_or_else(|refusal| refusal.problem().row().name, |_| "ok")
}

#[test]
fn event_and_data_become_one_text_and_data_stays_byte_for_byte() {
    let message = parse(
        r#"{"to":{"users":[1]},"event":"a\"b","data":{"n": 1.0, "big":12345678901234567890123, "n":2}}"#,
    );
    let message = message.unwrap();
    assert_eq!(message.kind, Kind::Text);
    assert_eq!(
        message.payload,
        r#"{"event":"a\"b","data":{"n": 1.0, "big":12345678901234567890123, "n":2}}"#
    );
    for json in [r#"{"to":{"users":[1]},"event":"e"}"#, r#"{"to":{"users":[1]},"event":"e","data":null}"#] {
        assert_eq!(parse(json).unwrap().payload, r#"{"event":"e","data":null}"#);
    }
}

#[test]
fn raw_text_and_bytes_go_out_as_they_are() {
    let text = parse(r#"{"to":{"channels":["a"]},"raw":"","receipt":false}"#).unwrap();
    assert_eq!((text.kind, &text.payload[..], text.receipt), (Kind::Text, &b""[..], Some(false)));
    let bytes = parse(r#"{"to":{"channels":["a"]},"raw_base64":"AP8="}"#).unwrap();
    assert_eq!((bytes.kind, &bytes.payload[..]), (Kind::Binary, &[0, 255][..]));
}

#[test]
fn users_and_channels_are_checked_one_by_one_and_a_repeated_one_is_served_once() {
    let message = parse(
        r#"{"to":{"users":[1001,"1001",0,"bob",1.5,[1],"a b"],"channels":["user:bob","x y",3]},"raw":""}"#,
    );
    let targets = message.unwrap().targets;
    let told: Vec<_> = targets
        .iter()
        .map(|target| {
            let code = target.channel.as_ref().map_or_else(|refusal| refusal.problem().row().name, |_| "ok");
            (target.name.as_str(), code, target.same_as)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("user:1001", "ok", None),
            ("user:1001", "ok", Some(0)),
            ("0", "invalid_user", None),
            ("user:bob", "ok", None),
            ("1.5", "invalid_user", None),
            ("[1]", "invalid_user", None),
            ("user:a b", "ok", None),
            ("user:bob", "ok", Some(3)),
            ("x y", "invalid_channel", None),
            ("3", "invalid_request", None),
        ]
    );
}

#[test]
fn groups_and_all_come_after_users_and_channels_and_meet_channels_of_the_same_name() {
    let to = r#"{"groups":["vip",7,"7","a b",null,"group:vip"],"all":true,"users":[1],"channels":["all","group:7"]}"#;
    let targets = parse(&format!(r#"{{"to":{to},"raw":""}}"#)).unwrap().targets;
    let told: Vec<_> = targets
        .iter()
        .map(|target| {
            let code = target.channel.as_ref().map_or_else(|refusal| refusal.problem().row().name, |_| "ok");
            (target.name.as_str(), code, target.same_as)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("user:1", "ok", None),
            ("all", "ok", None),
            ("group:7", "ok", None),
            ("group:vip", "ok", None),
            ("group:7", "ok", Some(2)),
            ("group:7", "ok", Some(2)),
            ("a b", "invalid_group", None),
            ("null", "invalid_group", None),
            ("group:group:vip", "ok", None),
            ("all", "ok", Some(1)),
        ]
    );
    let only = |to: &str| parse(&format!(r#"{{"to":{to},"raw":""}}"#)).map(|message| message.targets.len());
    assert_eq!(only(r#"{"all":true}"#).ok(), Some(1));
    assert_eq!(only(r#"{"all":false,"groups":["vip"]}"#).ok(), Some(1), "false names nobody");
}

/// The id by which the store knows a repeat is made of the channel and of the message's place in the call:
/// further targets change no id.
#[test]
fn a_user_has_the_same_channel_with_and_without_groups_and_all() {
    let channels = |to: &str| {
        let targets = parse(&format!(r#"{{"to":{to},"raw":""}}"#)).unwrap().targets;
        targets.into_iter().map(|target| target.channel.unwrap()).collect::<Vec<_>>()
    };
    let before = channels(r#"{"users":[1,"bob"],"channels":["x"]}"#);
    let with = channels(r#"{"users":[1,"bob"],"channels":["x"],"groups":["g"],"all":true}"#);
    assert_eq!((with.len(), &with[..3]), (5, &before[..]));
}

#[test]
fn what_is_wrong_with_a_message_as_a_whole_is_named() {
    let long = format!(r#"{{"to":{{"users":[1]}},"raw":"{}"}}"#, "x".repeat(LIMIT + 1));
    let many = json!({ "to": { "users": vec![1; 10_001] }, "raw": "x" }).to_string();
    let full =
        json!({ "to": { "users": vec![1; 9_999], "groups": [1], "all": true }, "raw": "x" }).to_string();
    for (json, expected) in [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("[]", "invalid_request"),
        (r#"{"raw":"x"}"#, "invalid_request"),
        (r#"{"to":{},"raw":"x"}"#, "invalid_request"),
        (r#"{"to":{"users":[]},"raw":"x"}"#, "invalid_request"),
        (r#"{"to":{"groups":[],"all":false},"raw":"x"}"#, "invalid_request"),
        (r#"{"to":{"all":1},"raw":"x"}"#, "invalid_request"),
        (r#"{"to":{"all":null},"raw":"x"}"#, "invalid_request"),
        (r#"{"to":{"groups":"vip"},"raw":"x"}"#, "invalid_request"),
        (&full, "too_large"),
        (r#"{"to":{"users":1},"raw":"x"}"#, "invalid_request"),
        (r#"{"to":{"users":[1]}}"#, "invalid_request"),
        (r#"{"to":{"users":[1]},"data":1}"#, "invalid_request"),
        (r#"{"to":{"users":[1]},"event":"e","raw":"x"}"#, "invalid_request"),
        (r#"{"to":{"users":[1]},"raw":"x","raw_base64":""}"#, "invalid_request"),
        (r#"{"to":{"users":[1]},"raw_base64":"?"}"#, "invalid_request"),
        (r#"{"to":{"users":[1]},"raw":"x","receit":true}"#, "invalid_request"),
        (&long, "too_large"),
        (&many, "too_large"),
    ] {
        assert_eq!(code(parse(json)), expected, "{json:.80}");
    }
}

#[test]
fn a_bad_message_of_a_batch_stands_in_its_place() {
    let good = json!({ "to": { "users": [1] }, "raw": "x" });
    let inner = json!({ "to": { "users": [1] }, "raw": "x", "receipt": true });
    let batch = json!({ "messages": [good, 7, inner, { "to": { "users": [1] } }, good], "receipt": false });
    let (messages, counting) = read_batch(batch.to_string().as_bytes(), LIMIT).unwrap();
    let codes: Vec<_> = messages.into_iter().map(code).collect();
    assert_eq!(codes, ["ok", "invalid_request", "invalid_request", "invalid_request", "ok"]);
    assert_eq!(counting, Counting::Unwanted);

    let many = |messages: usize, targets: usize| {
        let message = json!({ "to": { "users": vec![1; targets] }, "raw": "" });
        code(read_batch(json!({ "messages": vec![message; messages] }).to_string().as_bytes(), LIMIT))
    };
    assert_eq!(
        [many(0, 1), many(1_000, 10), many(1_001, 1), many(2, 5_001)],
        ["invalid_request", "ok", "too_large", "too_large"]
    );
}

#[test]
fn the_users_of_a_question_are_checked_one_by_one() {
    let users = read_users(br#"{"users":[1001,"bob",0,{"a":1}]}"#).unwrap();
    let told: Vec<_> = users.into_iter().map(|(name, uid)| (name, uid.is_ok())).collect();
    let expected = [("1001", true), ("bob", true), ("0", false), (r#"{"a":1}"#, false)];
    assert_eq!(told, expected.map(|(name, good)| (name.to_owned(), good)));
    assert_eq!(code(read_users(br#"{"users":[]}"#)), "invalid_request");
    let many = json!({ "users": vec![1; 1_001] }).to_string();
    assert_eq!(code(read_users(many.as_bytes())), "too_large");
}

#[test]
fn a_disconnect_has_a_reason_that_fits_and_a_time_with_a_bound() {
    assert_eq!(Disconnect::parse(b"{}").unwrap(), (None, None));
    let parsed = Disconnect::parse(br#"{"reason":"bye","deny_for":"2h 30m"}"#).unwrap();
    assert_eq!(parsed, (Some("bye".into()), Some(Duration::from_secs(9_000))));
    assert_eq!(Disconnect::parse(br#"{"deny_for":"0s"}"#).unwrap().1, Some(Duration::ZERO));
    assert!(Disconnect::parse(br#"{"deny_for":"30d"}"#).is_ok());
    let long = json!({ "reason": "x".repeat(124) }).to_string();
    for bad in [
        r#"{"deny_for":"31d"}"#,
        r#"{"deny_for":"soon"}"#,
        r#"{"deny_for":10}"#,
        r#"{"reason":"a\nb"}"#,
        &long,
    ] {
        assert_eq!(code(Disconnect::parse(bad.as_bytes())), "invalid_request", "{bad}");
    }
}

proptest! {
    #[test]
    fn whatever_is_sent_is_understood_or_refused(body in "\\PC{0,80}", inner in "[\\[\\]{}\",:0-9a-z ]{0,60}") {
        let _ = parse(&body);
        let _ = parse(&format!(r#"{{"to":{{"users":[{inner}]}},"raw":"x"}}"#));
        let _ = parse(&format!(r#"{{"to":{{"groups":[{inner}],"all":true}},"raw":"x"}}"#));
        let _ = read_batch(inner.as_bytes(), LIMIT);
        let _ = read_users(body.as_bytes());
        let _ = Disconnect::parse(body.as_bytes());
    }

    #[test]
    fn any_event_and_data_come_out_as_json_that_says_the_same(
        event in "\\PC{0,10}", number: i64, text in "\\PC{0,10}",
    ) {
        let data = json!({ "n": number, "t": text });
        let message = json!({ "to": { "users": ["u"] }, "event": event, "data": data });
        let message = Addressed::parse(message.to_string().as_bytes(), 10_000).unwrap();
        let sent: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        prop_assert_eq!(sent, json!({ "event": event, "data": data }));
    }
}
