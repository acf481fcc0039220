//! Messages and the questions about them come out of one loop.

use bytes::Bytes;
use shared::bus::async_nats::HeaderMap;
use shared::ids::{MessageId, NodeId};
use shared::wire::{Kind, LiveMessage};
use shared::{subject, wire};
use tokio_tungstenite::tungstenite::Message;
use wire::Counts;

use crate::support::World;
use crate::support::client::Client;

#[tokio::test]
async fn a_question_behind_messages_is_answered_with_exactly_their_counts() {
    let world = World::ready(|_| {}).await;
    let mut one = Client::listening(&world.edge).await;
    let two = Client::listening(&world.edge).await;
    let mut ids = vec![world.publish("broadcast", "to both").await];
    ids.push(world.publish("user:1", "to nobody").await);
    ids.push(MessageId(42));
    let answer = world.ask(&ids).await;
    assert_eq!(answer.edge, *world.edge.node());
    let counted = |sessions| Some(Counts { sessions, failed: 0 });
    assert_eq!(answer.counts, [counted(2), counted(0), None], "the last was never seen");

    two.leave().await;
    let id = world.publish("broadcast", "to one").await;
    assert_eq!(world.counts(id).await, (1, 0));
    one.expect("to both").await;
    one.expect("to one").await;
    one.say(r#"{"op":"unsubscribe","channel":"@broadcast"}"#).await;
    one.expect(r#"{"result":true}"#).await;
    let id = world.publish("broadcast", "to none").await;
    assert_eq!(world.counts(id).await, (0, 0));
    assert_eq!(world.metric("mc_edge_deliveries_total", "accepted"), 3);
    one.leave().await;
    world.end().await;
}

#[tokio::test]
async fn text_and_binary_arrive_byte_for_byte_whatever_their_length() {
    let world = World::ready(|_| {}).await;
    let mut client = Client::listening(&world.edge).await;
    for (number, length) in [0, 1, 125, 126, 65_535, 65_536, 200_000].into_iter().enumerate() {
        let payload = Bytes::from((0..length).map(|byte| (byte % 251) as u8).collect::<Vec<_>>());
        let binary = LiveMessage { id: MessageId(number as u128), kind: Kind::Binary, payload };
        world.send("broadcast", &binary).await;
        assert_eq!(client.next().await, Some(Message::Binary(binary.payload)));
        let text = "ü".repeat(length / 2);
        world.publish("broadcast", &text).await;
        client.expect(&text).await;
    }
    client.leave().await;
    world.end().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_counted_and_harms_nobody() {
    let world = World::ready(|_| {}).await;
    let mut client = Client::listening(&world.edge).await;
    let good = LiveMessage { id: MessageId(1), kind: Kind::Text, payload: Bytes::from_static(b"good") };
    let mut no_id = good.headers();
    no_id.insert("Nats-Msg-Id", "rubbish");
    let mut new = good.headers();
    new.insert("Mc-V", "99");
    for (place, headers, payload) in [
        ("mc.live.0.broadcast", None, &b"no headers"[..]),
        ("mc.live.0.broadcast", Some(no_id), b"no id"),
        ("mc.live.0.broadcast", Some(new), b"from the future"),
        ("mc.live.0.broadcast", Some(good.headers()), b"\xff not UTF-8"),
        ("mc.live.x.broadcast", Some(good.headers()), b"no partition"),
        ("mc.live.0.a.b", Some(good.headers()), b"no channel"),
        (subject::ASK, None, b"rubbish"),
        (subject::ASK, None, br#"{"v":1,"ids":[]}"#),
    ] {
        let headers: Option<HeaderMap> = headers;
        world.bus.publish(place, None, headers, Bytes::copy_from_slice(payload)).await.unwrap();
    }
    let id = world.publish("broadcast", "good").await;
    assert_eq!(world.counts(id).await, (1, 0));
    client.expect("good").await;
    let lost = |reason| world.metric("mc_edge_losses_total", reason);
    assert_eq!(["bad_message", "unknown_subject", "bad_ask"].map(lost), [4, 2, 2]);
    client.leave().await;
    world.end().await;
}

#[tokio::test]
async fn counts_of_messages_beyond_what_is_remembered_are_unknown_not_wrong() {
    let world = World::ready(|config| config.remembered_messages = 2).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(world.publish("broadcast", &number.to_string()).await);
    }
    let answer = world.ask(&ids).await;
    assert_eq!(answer.counts, [None, Some(Counts::default()), Some(Counts::default())]);
    assert_ne!(answer.edge, NodeId::from(""));
    world.end().await;
}
