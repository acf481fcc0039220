//! Requests that publishers may write, and the form of every answer.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;
use serde_json::value::RawValue;
use shared::wire::{Counts, Kind};

use super::answer::{http_answer, ws_answer};
use super::call::{Call, read_message};
use crate::error::Refusal;
use crate::publisher::Message;
use crate::receipts::Receipt;

const LIMIT: usize = 64;

fn publish(json: &str) -> Result<Message, Refusal> {
    read_message(json.as_bytes(), LIMIT)
}

/// Code and text of the refusal.
fn refusal(json: &str) -> String {
    match publish(json) {
        Ok(publish) => format!("accepted: {publish:?}"),
        Err(refusal) => format!("{} {refusal}", refusal.code().row().number),
    }
}

#[test]
fn a_publish_keeps_its_text_byte_for_byte() {
    let text = publish(r#"{"c":"user:1001","d":"{\"event\": \"@user\"}\n","later":[1]}"#).unwrap();
    assert_eq!(text.channel.as_str(), "user:1001");
    assert_eq!((text.kind, &text.payload[..]), (Kind::Text, &b"{\"event\": \"@user\"}\n"[..]));
    for same in [r#"{"c":"a","d":"","t":"text"}"#, r#" {"t":null,"d":"","c":"a"} "#] {
        assert_eq!(publish(same).unwrap().kind, Kind::Text, "{same}");
    }
}

#[test]
fn a_binary_publish_is_base64() {
    let binary = publish(r#"{"c":"a","d":"/wA+","t":"binary"}"#).unwrap();
    assert_eq!((binary.kind, &binary.payload[..]), (Kind::Binary, &[0xff, 0x00, 0x3e][..]));
    for bad in ["_wA-", "/w", "/wA+=", "ä", "/w A"] {
        let refused = refusal(&json!({"c": "a", "d": bad, "t": "binary"}).to_string());
        assert!(refused.starts_with("101 \"d\" must be standard base64"), "{bad}: {refused}");
    }
}

#[test]
fn every_fault_is_named() {
    for (request, expected) in [
        ("", "101 this is not JSON: EOF while parsing a value at line 1 column 0"),
        ("{", "101 this is not JSON: EOF while parsing an object at line 1 column 1"),
        (r#"{"c":"a","d":"\ud800"}"#, "101 this is not JSON: "),
        (r#"["a","b"]"#, r#"101 a JSON object is expected, like {"c":"user:1001","d":"text"}"#),
        ("null", "101 a JSON object is expected"),
        ("{}", r#"101 "c" is missing; it must be the channel's name as a string"#),
        (r#"{"c":1,"d":""}"#, r#"101 "c" is a number; it must be the channel's name"#),
        (r#"{"c":true,"d":""}"#, r#"101 "c" is a boolean; it must be"#),
        (r#"{"c":["a"],"d":""}"#, r#"101 "c" is a list; it must be"#),
        (
            r#"{"c":"a"}"#,
            r#"101 "d" is missing; it must be what the devices shall receive, as a JSON string"#,
        ),
        (r#"{"c":"a","d":null}"#, r#"101 "d" is missing"#),
        (r#"{"c":"a","d":{"x":{}}}"#, r#"101 "d" is an object; it must be"#),
        (r#"{"c":"a","d":"","t":"bin"}"#, r#"101 "t" must be "text" or "binary""#),
        (r#"{"c":"a","d":"","t":1}"#, r#"101 "t" must be "text" or "binary""#),
        (r#"{"c":"","d":""}"#, r#"103 "c" is no channel name: it is empty"#),
        (r#"{"c":"a b","d":""}"#, r#"103 "c" is no channel name: it holds a blank"#),
        (
            &json!({"c": "x".repeat(201), "d": ""}).to_string(),
            r#"103 "c" is no channel name: it has 201 bytes"#,
        ),
        (
            &json!({"c": "a", "d": "x".repeat(65)}).to_string(),
            r#"104 the message in "d" is larger than 64 bytes"#,
        ),
    ] {
        assert!(refusal(request).starts_with(expected), "{request}\n{}", refusal(request));
    }
    assert_eq!(read_message(b"{\"c\":\"\xff\"}", LIMIT).unwrap_err().code().row().number, 101);
}

#[test]
fn the_limit_is_on_the_bytes_that_go_out() {
    assert!(
        publish(&json!({"c": "a", "d": "\u{1}".repeat(64)}).to_string()).is_ok(),
        "escaped, it is 384 bytes"
    );
    assert!(publish(&json!({"c": "a", "d": STANDARD.encode([0; 64]), "t": "binary"}).to_string()).is_ok());
    assert!(
        refusal(&json!({"c": "a", "d": STANDARD.encode([0; 65]), "t": "binary"}).to_string())
            .starts_with("104")
    );
}

#[test]
fn deep_nesting_is_refused_without_being_built() {
    let deep = format!(r#"{{"c":"a","d":{}"#, "[".repeat(100_000));
    assert!(refusal(&deep).starts_with("101"));
    let closed = format!(r#"{{"c":"a","d":{}{}}}"#, "[".repeat(100), "]".repeat(100));
    assert!(refusal(&closed).starts_with("101 \"d\" is a list"), "{}", refusal(&closed));
}

fn call(json: &str) -> (Option<&str>, String) {
    let Call { echo, message, .. } = Call::parse(json, LIMIT);
    let publish = match message {
        Ok(publish) => publish.channel.to_string(),
        Err(refusal) => format!("{} {refusal}", refusal.code().row().number),
    };
    (echo.map(RawValue::get), publish)
}

#[test]
fn a_call_echoes_i_as_it_was_written() {
    let with = |i: &str| format!(r#"{{"m":"mesh.publish","p":{{"c":"a","d":""}}{i}}}"#);
    for (i, echo) in [
        ("", None),
        (r#","i":12345"#, Some("12345")),
        (r#","i":1e400"#, Some("1e400")),
        (r#","i":123456789012345678901234567890"#, Some("123456789012345678901234567890")),
        (r#","i":"\u0041""#, Some(r#""\u0041""#)),
        (r#","i":null"#, Some("null")),
        (r#","i":false"#, Some("false")),
        (r#","id":7"#, Some("7")),
        (r#","id":7,"i":8"#, Some("8")),
    ] {
        assert_eq!(call(&with(i)), (echo, "a".into()), "{i}");
    }
    for bad in [",\"i\":[1]".to_owned(), ",\"i\":{}".into(), format!(",\"i\":\"{}\"", "x".repeat(255))] {
        let request = with(&bad);
        let (echo, refused) = call(&request);
        assert!(echo.is_none() && refused.starts_with("101 \"i\" must be"), "{bad}: {refused}");
    }
}

#[test]
fn a_call_that_is_refused_says_why() {
    for (request, echo, expected) in [
        ("rubbish", None, "101 this is not JSON"),
        ("[]", None, r#"101 a JSON object is expected, like {"m":"mesh.publish""#),
        (r#"{"i":1}"#, Some("1"), r#"101 "m" is missing; it must be the method, "mesh.publish""#),
        (r#"{"m":7,"i":1}"#, Some("1"), r#"101 "m" is a number"#),
        (r#"{"m":"mesh.publis","i":1}"#, Some("1"), r#"101 "m" is unknown; use "mesh.publish""#),
        (r#"{"m":"mesh.publish","i":1}"#, Some("1"), r#"101 "p" is missing"#),
        (r#"{"m":"mesh.publish","p":["a","b"],"i":1}"#, Some("1"), r#"101 "p" is not an object"#),
        (r#"{"m":"mesh.publish","p":{"c":" ","d":""},"i":1}"#, Some("1"), "103 "),
        (r#"{"m":"mesh.send","p":{},"i":1}"#, Some("1"), "109 mesh.send is not offered; "),
        (r#"{"m":"conn.call","i":1}"#, Some("1"), "109 conn.call is not offered; "),
        (r#"{"m":"queue.pop","i":1}"#, Some("1"), "109 queue.* is not offered; "),
    ] {
        let (got, refused) = call(request);
        assert_eq!(got, echo, "{request}");
        assert!(refused.starts_with(expected), "{request}\n{refused}");
        assert!(
            !refused.starts_with("109") || refused.contains("mesh.publish"),
            "{refused} names a replacement"
        );
    }
}

fn receipt(complete: bool) -> Result<Receipt, Refusal> {
    Ok(Receipt { counts: Counts { sessions: 2, failed: 0 }, complete, expected: 1, missing: Arc::default() })
}

#[test]
fn every_answer_has_its_shape() {
    let echo: Box<RawValue> = serde_json::from_str("12345").unwrap();
    let refused = || Err(Refusal::UnknownMethod);
    insta::assert_snapshot!(http_answer(&receipt(true)), @r#"{"E":null,"r":{"s":2,"f":0}}"#);
    insta::assert_snapshot!(http_answer(&receipt(false)), @r#"{"E":null,"r":{"s":2,"f":0}}"#);
    insta::assert_snapshot!(http_answer(&refused()), @r#"{"E":{"c":101,"m":"\"m\" is unknown; use \"mesh.publish\""}}"#);
    insta::assert_snapshot!(ws_answer(&receipt(true), Some(&echo)), @r#"{"E":null,"r":{"s":2,"f":0},"i":12345}"#);
    insta::assert_snapshot!(ws_answer(&receipt(true), None), @r#"{"E":null,"r":{"s":2,"f":0}}"#);
    insta::assert_snapshot!(ws_answer(&receipt(false), Some(&echo)), @r#"{"E":null,"r":{"s":2,"f":0,"complete":false},"i":12345}"#);
    insta::assert_snapshot!(ws_answer(&refused(), Some(&echo)), @r#"{"E":{"c":101,"m":"\"m\" is unknown; use \"mesh.publish\""},"i":12345}"#);
    insta::assert_snapshot!(ws_answer(&refused(), None), @r#"{"E":{"c":101,"m":"\"m\" is unknown; use \"mesh.publish\""}}"#);
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<f64>().prop_map(|n| json!(n)),
        prop_oneof![Just("mesh.publish".to_owned()), Just("binary".to_owned()), "\\PC{0,12}"]
            .prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let key = prop_oneof![
            Just("c"),
            Just("d"),
            Just("t"),
            Just("m"),
            Just("p"),
            Just("i"),
            Just("id"),
            Just("x")
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|list| json!(list)),
            prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..8).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_message(&bytes, LIMIT);
        let _ = Call::parse(&String::from_utf8_lossy(&bytes), LIMIT);
    }

    #[test]
    fn any_json_is_read_or_refused_and_every_answer_is_json(value in any_json()) {
        let text = value.to_string();
        let outcomes = [(None, publish(&text)), {
            let Call { echo, message, .. } = Call::parse(&text, LIMIT);
            (echo, message)
        }];
        for (echo, outcome) in outcomes {
            let answer = match outcome {
                Ok(publish) => {
                    prop_assert!(publish.payload.len() <= LIMIT);
                    ws_answer(&receipt(false), echo)
                }
                Err(refusal) => ws_answer(&Err(refusal), echo),
            };
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            prop_assert!(answer.get("E").is_some());
        }
    }

    #[test]
    fn what_goes_in_goes_out(channel in "[a-z:0-9]{1,20}", data in "\\PC{0,16}", binary: bool) {
        let (d, t) = if binary { (STANDARD.encode(&data), "binary") } else { (data.clone(), "text") };
        let publish = publish(&json!({"c": channel, "d": d, "t": t}).to_string()).unwrap();
        prop_assert_eq!(publish.channel.as_str(), channel);
        prop_assert_eq!(&publish.payload[..], data.as_bytes());
        prop_assert_eq!(publish.kind == Kind::Binary, binary);
    }
}
