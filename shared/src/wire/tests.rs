//! The envelopes are a contract between processes of different versions: each shape is held here.

use super::*;
use crate::history::Epoch;
use crate::ids::{Channel, MessageId};
use bytes::Bytes;

fn text<E: Envelope>(envelope: &E) -> String {
    let encoded = envelope.encode();
    assert_eq!(E::decode(&encoded).unwrap().encode(), encoded, "it reads what it writes");
    String::from_utf8(encoded.to_vec()).unwrap()
}

#[test]
fn each_envelope_has_the_shape_of_version_1() {
    let ask = Ask { v: 1, ids: vec![MessageId(1), MessageId(u128::MAX)], stored: vec![] };
    insta::assert_snapshot!(text(&ask), @r#"{"v":1,"ids":["00000000000000000000000000000001","ffffffffffffffffffffffffffffffff"]}"#);
    let counts = vec![Some(Counts { sessions: 2, failed: 1 }), None];
    insta::assert_snapshot!(text(&Answer { v: 1, edge: "e1".into(), counts, stored: vec![] }), @r#"{"v":1,"edge":"e1","counts":[{"s":2,"f":1},null]}"#);
    let heartbeat =
        Heartbeat { v: 1, edge: "e1".into(), state: EdgeState::Serving, sessions: 7, rules: "ab".into() };
    insta::assert_snapshot!(text(&heartbeat), @r#"{"v":1,"edge":"e1","state":"serving","sessions":7,"rules":"ab"}"#);
    insta::assert_snapshot!(text(&HeartbeatAck { v: 1, publisher: "p1".into() }), @r#"{"v":1,"publisher":"p1"}"#);
    let users = vec!["1001".to_owned(), "bob".to_owned()];
    let sessions = Control { v: 1, command: Command::Sessions { users: users.clone() } };
    insta::assert_snapshot!(text(&sessions), @r#"{"v":1,"order":"sessions","users":["1001","bob"]}"#);
    let command =
        Command::Disconnect { users, reason: Some("bye".into()), deny_for_ms: Some(5), stored: None };
    insta::assert_snapshot!(text(&Control { v: 1, command }), @r#"{"v":1,"order":"disconnect","users":["1001","bob"],"reason":"bye","deny_for_ms":5}"#);
    let stored = Some(StoredAt { seq: 3, until_ms: 9 });
    let command =
        Command::Disconnect { users: vec!["bob".into()], reason: None, deny_for_ms: Some(5), stored };
    insta::assert_snapshot!(text(&Control { v: 1, command }), @r#"{"v":1,"order":"disconnect","users":["bob"],"deny_for_ms":5,"kept":{"seq":3,"until_ms":9}}"#);
    let command = Command::Refresh { users: vec!["bob".into()], newer_than_ms: 9 };
    insta::assert_snapshot!(text(&Control { v: 1, command }), @r#"{"v":1,"order":"refresh","users":["bob"],"newer_than_ms":9}"#);
    let ban = Ban { v: 1, uid: "bob".into(), until_ms: 9, reason: Some("bye".into()) };
    insta::assert_snapshot!(text(&ban), @r#"{"v":1,"uid":"bob","until_ms":9,"reason":"bye"}"#);
    let users = vec![UserAnswer { sessions: 2, since: vec![5, 7], denied: true }, UserAnswer::default()];
    let answer = ControlAnswer { v: 1, edge: "e1".into(), users };
    insta::assert_snapshot!(text(&answer), @r#"{"v":1,"edge":"e1","users":[{"n":2,"since":[5,7],"denied":true},{"n":0}]}"#);
    insta::assert_snapshot!(text(&VerifyRequest { v: 1, token: "t".into(), patience_ms: None, from: None, newer_than_ms: None }), @r#"{"v":1,"token":"t"}"#);
    let from = Some("192.0.2.7".to_owned());
    insta::assert_snapshot!(text(&VerifyRequest { v: 1, token: "t".into(), patience_ms: Some(5), from, newer_than_ms: Some(7) }), @r#"{"v":1,"token":"t","patience_ms":5,"from":"192.0.2.7","newer_than_ms":7}"#);
    let speaks = AuthHeartbeat { v: 1, adapter: "a1".into(), state: AuthState::Able };
    insta::assert_snapshot!(text(&speaks), @r#"{"v":1,"adapter":"a1","state":"able"}"#);
    for (verdict, shape) in [
        (
            Verdict::Known(Login { expires_in_ms: Some(5), ..Login::of("1001") }),
            r#"{"v":1,"verdict":"known","uid":"1001","expires_in_ms":5}"#,
        ),
        (Verdict::Known(Login::of("1001")), r#"{"v":1,"verdict":"known","uid":"1001"}"#),
        (
            Verdict::Known(Login {
                groups: vec!["vip".into(), "7".into()],
                issued_at_ms: Some(9),
                token_id: Some("0a".into()),
                ..Login::of("bob")
            }),
            r#"{"v":1,"verdict":"known","uid":"bob","groups":["vip","7"],"issued_at_ms":9,"token_id":"0a"}"#,
        ),
        (Verdict::Unknown, r#"{"v":1,"verdict":"unknown"}"#),
        (
            Verdict::Unavailable { reason: "slow".into() },
            r#"{"v":1,"verdict":"unavailable","reason":"slow"}"#,
        ),
    ] {
        assert_eq!(text(&VerifyReply { v: 1, verdict }), shape);
    }
}

#[test]
fn stored_messages_are_asked_about_by_their_places() {
    let epoch = Some(Epoch(0x2b9f));
    let stored = vec![StoredRef { channel: Channel::parse("user:\"1\"").unwrap(), seq: u64::MAX, epoch }];
    insta::assert_snapshot!(text(&Ask { v: 1, ids: vec![], stored }), @r#"{"v":1,"ids":[],"stored":[{"c":"user:\"1\"","n":18446744073709551615,"e":"0000000000002b9f"}]}"#);
    let stored = vec![Some(Counts { sessions: 2, failed: 1 }), None];
    insta::assert_snapshot!(text(&Answer { v: 1, edge: "e1".into(), counts: vec![], stored }), @r#"{"v":1,"edge":"e1","counts":[],"stored":[{"s":2,"f":1},null]}"#);
    assert!(
        matches!(Ask::decode(br#"{"ids":[],"stored":[{"c":"a b","n":1}]}"#), Err(WireError::Json(_))),
        "no channel name"
    );
    assert!(
        matches!(
            Ask::decode(br#"{"ids":[],"stored":[{"c":"a","n":1,"e":"2B9F"}]}"#),
            Err(WireError::Json(_))
        ),
        "no epoch"
    );
}

/// A part of the version before this one names no epoch, and passes over one that is named.
#[test]
fn asks_with_and_without_the_epoch_of_a_place_are_understood() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct OldRef {
        c: Channel,
        n: u64,
    }
    #[derive(serde::Serialize, serde::Deserialize)]
    struct OldAsk {
        v: u32,
        ids: Vec<MessageId>,
        stored: Vec<OldRef>,
    }
    let channel = Channel::parse("a").unwrap();
    let old = OldAsk { v: 1, ids: vec![], stored: vec![OldRef { c: channel.clone(), n: 7 }] };
    let ask = Ask::decode(&serde_json::to_vec(&old).unwrap()).unwrap();
    assert_eq!(ask.stored, [StoredRef { channel: channel.clone(), seq: 7, epoch: None }]);
    assert_eq!(ask.encode(), serde_json::to_vec(&old).unwrap(), "without an epoch it is written as before");
    let stored = vec![StoredRef { channel, seq: 7, epoch: Some(Epoch(1)) }];
    let read: OldAsk = serde_json::from_slice(&Ask { v: 1, ids: vec![], stored }.encode()).unwrap();
    assert_eq!((read.stored[0].c.as_str(), read.stored[0].n), ("a", 7));
}

/// The formats of a part without history, which is the version before this one.
#[test]
fn a_part_of_before_history_and_one_with_it_understand_each_other() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct OldAsk {
        v: u32,
        ids: Vec<MessageId>,
    }
    #[derive(serde::Serialize, serde::Deserialize)]
    struct OldAnswer {
        v: u32,
        edge: String,
        counts: Vec<Option<Counts>>,
    }
    let old = serde_json::to_vec(&OldAsk { v: 1, ids: vec![MessageId(7)] }).unwrap();
    assert_eq!(Ask::decode(&old).unwrap(), Ask { v: 1, ids: vec![MessageId(7)], stored: vec![] });
    let old = OldAnswer { v: 1, edge: "e1".into(), counts: vec![None] };
    let new = Answer { v: 1, edge: "e1".into(), counts: vec![None], stored: vec![] };
    assert_eq!(Answer::decode(&serde_json::to_vec(&old).unwrap()).unwrap(), new);

    let stored = vec![StoredRef { channel: Channel::parse("a").unwrap(), seq: 1, epoch: Some(Epoch(1)) }];
    let ask = Ask { v: 1, ids: vec![], stored }.encode();
    assert!(serde_json::from_slice::<OldAsk>(&ask).unwrap().ids.is_empty(), "it answers nothing about them");
    let answer = Answer { stored: vec![Some(Counts::default())], ..new }.encode();
    assert_eq!(serde_json::from_slice::<OldAnswer>(&answer).unwrap().counts, [None]);
}

#[test]
fn the_next_version_is_read_and_the_one_after_it_refused() {
    assert!(Ask::decode(br#"{"v":2,"ids":[],"more":true}"#).is_ok());
    assert!(Ask::decode(br#"{"ids":[]}"#).is_ok(), "absent means 1");
    assert!(matches!(Ask::decode(br#"{"v":3,"ids":[]}"#), Err(WireError::Version(3))));
    assert!(matches!(Ask::decode(b"rubbish"), Err(WireError::Json(_))));
}

#[test]
fn an_order_of_a_later_version_is_not_taken_for_another() {
    assert!(matches!(Control::decode(br#"{"v":2,"order":"greet","users":[]}"#), Err(WireError::Json(_))));
    let known = Control::decode(br#"{"v":2,"order":"disconnect","users":["1"],"more":1}"#).unwrap();
    let command =
        Command::Disconnect { users: vec!["1".into()], reason: None, deny_for_ms: None, stored: None };
    assert_eq!(known, Control { v: 2, command });
}

/// An edge of the version before this one gives no answer to an order that it can't read, so that the
/// publisher names the edge as missing.
#[test]
fn an_edge_that_knows_no_refresh_reads_none() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(tag = "order", rename_all = "lowercase")]
    enum OldCommand {
        Sessions {
            #[serde(rename = "users")]
            _users: Vec<String>,
        },
        Disconnect {
            #[serde(rename = "users")]
            _users: Vec<String>,
        },
    }
    let users = vec!["1".to_owned()];
    let read = |command| serde_json::from_slice::<OldCommand>(&Control { v: 1, command }.encode());
    assert!(matches!(read(Command::Sessions { users: users.clone() }), Ok(OldCommand::Sessions { .. })));
    let disconnect =
        Command::Disconnect { users: users.clone(), reason: None, deny_for_ms: None, stored: None };
    assert!(matches!(read(disconnect), Ok(OldCommand::Disconnect { .. })));
    let unread = read(Command::Refresh { users, newer_than_ms: 9 }).unwrap_err().to_string();
    assert!(unread.contains("unknown variant `refresh`"), "{unread}");
}

#[test]
fn a_live_message_keeps_its_bytes_and_says_its_kind_in_a_header() {
    for kind in [Kind::Text, Kind::Binary] {
        let message = LiveMessage { id: MessageId(7), kind, payload: Bytes::from_static(b"{\"a\": 1}") };
        let headers = message.headers();
        assert_eq!(headers.get("Nats-Msg-Id").unwrap().as_str(), "00000000000000000000000000000007");
        assert_eq!(headers.get("Mc-Kind").map(|v| v.as_str()), (kind == Kind::Binary).then_some("binary"));
        assert_eq!(LiveMessage::decode(Some(&headers), message.payload.clone()).unwrap(), message);
    }
}

#[test]
fn a_live_message_that_is_not_one_is_refused() {
    let mut headers = LiveMessage { id: MessageId(7), kind: Kind::Text, payload: Bytes::new() }.headers();
    assert!(matches!(LiveMessage::decode(None, Bytes::new()), Err(WireError::Header("Nats-Msg-Id"))));
    assert!(matches!(
        LiveMessage::decode(Some(&headers), Bytes::from_static(b"\xff")),
        Err(WireError::NotUtf8)
    ));
    headers.insert("Mc-V", "3");
    assert!(matches!(LiveMessage::decode(Some(&headers), Bytes::new()), Err(WireError::Version(3))));
    headers.insert("Mc-V", "2");
    headers.insert("Mc-Kind", "smell");
    assert!(matches!(LiveMessage::decode(Some(&headers), Bytes::new()), Err(WireError::Header("Mc-Kind"))));
}

#[test]
fn a_token_is_not_in_debug_output() {
    let request = VerifyRequest {
        v: 1,
        token: "very-secret".into(),
        patience_ms: None,
        from: None,
        newer_than_ms: None,
    };
    assert!(!format!("{request:?}").contains("very-secret"));
}
