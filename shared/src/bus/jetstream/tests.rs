//! Answers that the parsers take.

use super::message::{nanos, parse_headers};
use super::stream::ClusterAnswer;
use super::*;

#[test]
fn a_header_block_is_taken_apart() {
    let headers = parse_headers(b"NATS/1.0\r\nNats-Msg-Id: m-1\r\nnonsense\r\nA:b: c\r\n\r\n");
    assert_eq!(headers.get("Nats-Msg-Id").map(|value| value.as_str()), Some("m-1"));
    assert_eq!(headers.get("A").map(|value| value.as_str()), Some("b: c"));
    assert_eq!(headers.len(), 2);
}

#[test]
fn a_leader_that_hears_of_too_few_copies_leads_nobody() {
    let quorum = |replicas: serde_json::Value| {
        let cluster = serde_json::json!({ "leader": "n0", "replicas": replicas });
        serde_json::from_value::<ClusterAnswer>(cluster).unwrap().has_quorum()
    };
    let (fresh, old) = (400_000_000_u64, 3_500_000_000_u64);
    assert!(quorum(serde_json::json!([])), "a stream with one copy");
    assert!(quorum(serde_json::json!([{ "active": fresh }, { "active": old }])));
    assert!(quorum(serde_json::json!([{ "active": fresh }, { "active": 0, "offline": true }])));
    assert!(!quorum(serde_json::json!([{ "active": old }, { "active": old }])));
    assert!(!quorum(serde_json::json!([{ "active": fresh, "offline": true }, { "active": old }])));
}

#[test]
fn an_error_is_told_by_its_code() {
    let answer = br#"{"type":"x","error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
    assert_eq!(checked(answer), Err(ApiError::NoStream));
    let answer = br#"{"error":{"code":400,"err_code":10071,"description":"wrong"},"stream":"MC","seq":0}"#;
    let expected = ApiError::Api { code: 400, err_code: WRONG_LAST_SEQUENCE, description: "wrong".into() };
    assert_eq!(checked(answer), Err(expected));
    assert!(matches!(checked(b"+OK"), Err(ApiError::Unreadable(_))));
}

#[test]
fn a_time_is_read_to_the_nanosecond() {
    assert_eq!(nanos("1970-01-01T00:00:01.000000005Z"), Ok(1_000_000_005));
    assert!(nanos("yesterday").is_err());
}

#[test]
fn only_limits_and_a_disk_without_room_are_full() {
    let error =
        |err_code, description: &str| ApiError::Api { code: 503, err_code, description: description.into() };
    for (err_code, words) in [
        (10_077, "maximum bytes exceeded"),
        (10_077, "maximum messages exceeded"),
        (10_077, "maximum messages per subject exceeded"),
        (10_077, "no space left on device"),
        (10_077, "no memory left for more messages"),
        (10_077, "write /data/1.blk: no space left on device"),
        (10_023, "insufficient resources"),
        (10_047, "insufficient storage resources available"),
        (10_002, "resource limits exceeded for account"),
    ] {
        assert!(error(err_code, words).is_full(), "{words}");
    }
    for (err_code, words) in [
        (10_077, "the stream's store failed"),
        (10_077, "the stream's store is damaged"),
        (10_077, "open /data/1.blk: too many open files"),
        (10_077, "write /data/1.blk: file too large"),
        (10_077, "input/output error"),
        (10_008, "JetStream system temporarily unavailable"),
    ] {
        let error = error(err_code, words);
        assert!(!error.is_full() && error.passes(), "{words}");
    }
}
