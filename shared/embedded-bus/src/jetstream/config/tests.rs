//! Requests as clients write them, and the answers of nats-server 2.15.1 as captured.

use serde_json::{Value, json};

use super::*;

fn check(fields: Value) -> Result<StreamConfig, ApiError> {
    let mut config = json!({ "name": "S1", "subjects": ["s1.>"] });
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    StreamConfig::read(config.to_string().as_bytes())?.check()
}

#[test]
fn what_async_nats_sends_becomes_what_nats_server_answers() {
    let sent = br#"{"name":"MC","max_bytes":0,"max_msgs":0,"max_msgs_per_subject":100,"discard":"old",
        "subjects":["mc.log.>"],"retention":"limits","max_consumers":0,"max_age":259200000000000,"storage":"file",
        "num_replicas":0,"duplicate_window":60000000000,"republish":{"src":"mc.log.>","dest":"mc.live.>",
        "headers_only":false},"allow_direct":true,"consumer_limits":null}"#;
    let config = StreamConfig::read(sent).unwrap().check().unwrap();
    let mut answered = serde_json::to_value(&config).unwrap();
    answered.as_object_mut().unwrap().remove("metadata");
    let expected = json!({
        "name": "MC", "subjects": ["mc.log.>"], "retention": "limits", "max_consumers": -1, "max_msgs": -1,
        "max_bytes": -1, "max_age": 259_200_000_000_000_u64, "max_msgs_per_subject": 100, "max_msg_size": -1,
        "discard": "old", "storage": "file", "num_replicas": 1, "duplicate_window": 60_000_000_000_u64,
        "compression": "none", "republish": { "src": "mc.log.>", "dest": "mc.live.>" }, "allow_direct": true,
        "mirror_direct": false, "sealed": false, "deny_delete": false, "deny_purge": false,
        "allow_rollup_hdrs": false, "consumer_limits": {}, "allow_msg_ttl": false,
    });
    assert_eq!(answered, expected);
    // A configuration that a client sends back is the same, and so is a stored one.
    let again = serde_json::to_vec(&config).unwrap();
    assert!(StreamConfig::read(&again).unwrap().check().unwrap().is_same(&config));
    assert_eq!(serde_json::from_slice::<StreamConfig>(&again).unwrap(), config);
}

#[test]
fn what_is_left_open_has_the_defaults_of_nats_server() {
    let config = StreamConfig::read(br#"{"name":"S1"}"#).unwrap().check().unwrap();
    assert_eq!((config.subjects, config.duplicate_window), (vec!["S1".to_owned()], 120_000_000_000));
    assert_eq!(check(json!({ "max_age": 60_000_000_000_i64 })).unwrap().duplicate_window, 60_000_000_000);
    let limits = ["max_msgs", "max_bytes", "max_msgs_per_subject", "max_msg_size", "max_consumers"];
    let config =
        serde_json::to_value(check(limits.iter().map(|limit| (*limit, -7)).collect::<Value>()).unwrap())
            .unwrap();
    for limit in limits {
        assert_eq!(config[limit], -1, "{limit}");
    }
}

#[test]
fn every_fault_has_the_code_and_the_words_of_nats_server() {
    let long = "x".repeat(5000);
    let cases = [
        (json!({ "num_replicas": -1 }), 10133, "replicas count cannot be negative"),
        (json!({ "num_replicas": 3 }), 10074, "replicas > 1 not supported in non-clustered mode"),
        (json!({ "num_replicas": 6 }), 10052, "maximum replicas is 5"),
        (json!({ "max_age": 1000 }), 10052, "max age needs to be >= 100ms"),
        (json!({ "max_age": -5 }), 10052, "max age can not be negative"),
        (json!({ "duplicate_window": -5 }), 10052, "duplicates window can not be negative"),
        (json!({ "duplicate_window": 1000 }), 10052, "duplicates window needs to be >= 100ms"),
        (
            json!({ "max_age": 1_000_000_000, "duplicate_window": 2_000_000_000_i64 }),
            10052,
            "duplicates window can not be larger then max age",
        ),
        (
            json!({ "deny_purge": true, "allow_rollup_hdrs": true }),
            10052,
            "roll-ups require the purge permission",
        ),
        (
            json!({ "discard_new_per_subject": true }),
            10052,
            "discard new per subject requires discard new policy to be set",
        ),
        (
            json!({ "discard": "new", "discard_new_per_subject": true }),
            10052,
            "discard new per subject requires max msgs per subject > 0",
        ),
        (json!({ "subjects": ["a", "a"] }), 10052, "subject \"a\" overlaps with \"a\""),
        (json!({ "subjects": ["a.>", "a.b"] }), 10052, "subject \"a.>\" overlaps with \"a.b\""),
        (json!({ "subjects": ["a..b"] }), 10052, "invalid subject"),
        (json!({ "subjects": [""] }), 10052, "invalid subject"),
        (json!({ "subjects": [">"] }), 10052, "capturing all subjects requires no-ack to be true"),
        (
            json!({ "subjects": ["$JS.API.>"] }),
            10052,
            "subjects that overlap with jetstream api require no-ack to be true",
        ),
        (
            json!({ "subjects": ["$SYS.x"] }),
            10052,
            "subjects that overlap with system api require no-ack to be true",
        ),
        (
            json!({ "republish": { "src": "s1.>", "dest": "s1.x.>" } }),
            10052,
            "stream configuration for republish destination forms a cycle",
        ),
        (
            json!({ "republish": { "src": "", "dest": "live.x" } }),
            10052,
            "stream configuration for republish with transform from '>' to 'live.x' not valid",
        ),
        (json!({ "description": long }), 10052, "stream description is too long, maximum allowed is 4096"),
        (json!({ "mirror_direct": true }), 10052, "stream has no mirror but does have mirror direct"),
        (
            json!({ "name": "a*b" }),
            10052,
            "stream name is required and can not contain '.', '*', '>', '\\', '/'",
        ),
    ];
    for (fields, code, text) in cases {
        let error = check(fields.clone()).expect_err("it is refused");
        assert_eq!((error.err_code, error.description.as_str()), (code, text), "{fields}");
    }
}

#[test]
fn what_this_bus_does_not_have_is_refused_and_not_ignored() {
    for fields in [
        json!({ "mirror": { "name": "X" } }),
        json!({ "sources": [{ "name": "X" }] }),
        json!({ "retention": "workqueue" }),
        json!({ "retention": "interest" }),
        json!({ "compression": "s2" }),
        json!({ "subject_transform": { "src": "s1.>", "dest": "t.>" } }),
        json!({ "allow_msg_ttl": true }),
        json!({ "subject_delete_marker_ttl": 1_000_000_000 }),
        json!({ "allow_msg_counter": true }),
        json!({ "allow_atomic": true }),
        json!({ "allow_msg_schedules": true }),
        json!({ "persist_mode": "async" }),
    ] {
        let error = check(fields.clone()).expect_err("it is refused");
        assert_eq!(error.err_code, 10052, "{fields}");
        assert!(error.description.contains("the embedded bus has no"), "{}", error.description);
    }
    check(json!({ "sources": [], "persist_mode": "default", "no_ack": false })).unwrap();
}

#[test]
fn json_that_can_not_be_read_is_said_to_be() {
    for bad in [
        "{bad",
        "[]",
        "7",
        r#"{"name":"S1","subjects":"x"}"#,
        r#"{"name":"S1","foo":1}"#,
        r#"{"retention":"foo"}"#,
    ] {
        assert_eq!(StreamConfig::read(bad.as_bytes()).expect_err("it is refused").err_code, 10025, "{bad}");
    }
    assert_eq!(StreamConfig::read(b"").unwrap(), StreamConfig::read(b"null").unwrap());
}

#[test]
fn some_things_can_not_be_changed_later() {
    let old = check(json!({ "deny_delete": true, "deny_purge": true })).unwrap();
    for (fields, text) in [
        (json!({ "deny_purge": true }), "cancel deny message deletes"),
        (json!({ "deny_delete": true }), "cancel deny purge"),
        (json!({ "deny_delete": true, "deny_purge": true, "storage": "memory" }), "change storage type"),
    ] {
        let error = check(fields).unwrap().check_update_of(&old).expect_err("it is refused");
        assert_eq!(error.description, format!("stream configuration update can not {text}"));
    }
    check(json!({ "deny_delete": true, "deny_purge": true, "max_msgs": 7 }))
        .unwrap()
        .check_update_of(&old)
        .unwrap();
}

#[test]
fn sizes_are_counted_as_nats_server_counts_them() {
    let file = check(json!({})).unwrap();
    let memory = check(json!({ "storage": "memory" })).unwrap();
    assert_eq!((file.size_of(14, 54, 5), file.size_of(3, 0, 60), memory.size_of(3, 0, 60)), (107, 93, 79));
}
