//! Subscribing again: with another id, under two names, and during a replay.

use harness::alone::Alone;
use harness::device::{Device, Received};
use harness::wait::eventually;
use serde_json::{Value, json};

/// Size and number exceed every outbox and socket buffer, so that a replay of them is under way for a while.
const LARGE: usize = 64 * 1024;
const MANY: u64 = 200;

#[tokio::test]
async fn who_comes_back_is_sent_what_was_missed_in_order_and_then_what_comes() {
    let alone = Alone::start().await;
    let (mut device, _) = alone.begin().await;
    alone.publish(1, 1..=5).await;
    let last = device.expect_messages(1..=5).await;
    device.close().await;
    alone.publish(0, 6..=30).await;
    // Messages of other channels are not replayed.
    alone.publisher().publish_to(0, "user:2", "for another").await;
    let mut device = Device::recovered(alone.edge(), "user-1", &last).await;
    let last = device.expect_messages(6..=30).await;
    alone.publish(1, 31..=35).await;
    device.expect_messages(31..=35).await;
    device.close().await;
    let mut device = Device::recovered(alone.edge(), "user-1", &last).await;
    device.expect_messages(31..=35).await;
    device.expect_nothing().await;
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn subscribing_again_with_an_id_begins_anew_and_without_one_changes_nothing() {
    let alone = Alone::start().await;
    let (mut first, begin) = alone.begin().await;
    alone.publish(1, 1..=3).await;
    let second = first.expect_messages([1, 2]).await;
    first.expect_message("3").await;
    first.close().await;

    // A plain subscription becomes a recovering one.
    let mut device = Device::online(alone.edge(), "user-1").await;
    alone.publish(1, [4]).await;
    device.expect_text("4").await;
    assert!(device.subscribe_after("@user", &second).await.recovered);
    device.expect_messages([3, 4]).await;
    alone.publish(1, [5]).await;
    device.expect_message("5").await;
    // Without an id the subscription stays as it is.
    device.subscribe("@user").await;
    alone.publish(1, [6]).await;
    device.expect_message("6").await;
    // And again, from an earlier id.
    assert!(device.subscribe_after("@user", &begin).await.recovered);
    device.expect_messages(1..=6).await;
    assert!(device.subscribe_after("@user", "").await.recovered);
    alone.publish(1, [7]).await;
    device.expect_message("7").await;
    device.expect_nothing().await;
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn two_names_of_one_channel_can_recover_each_from_its_own_position() {
    let rules = r#"[{ name = "@user", channel = "user:{uid}", login = true, history = true },
                    { name = "{id}@inbox", channel = "user:{id}", login = true, history = true }]"#;
    let alone = Alone::plan().set("channels", rules).start().await;
    let (mut device, begin) = alone.begin().await;
    alone.publish(1, 1..=3).await;
    let last = device.expect_messages(1..=3).await;
    device.close().await;

    // Two sessions, each from its own position and under its own name.
    let mut user = Device::recovered(alone.edge(), "user-1", &last).await;
    let mut inbox = Device::login(alone.edge(), "user-2").await;
    assert!(inbox.subscribe_after("1@inbox", &begin).await.recovered);
    for number in 1..=3 {
        assert_eq!(inbox.next_message("1@inbox").await.text, number.to_string());
    }
    alone.publish(2, [4]).await;
    let id = user.expect_message("4").await;
    let message = inbox.next_message("1@inbox").await;
    assert_eq!((message.text.as_str(), &message.id), ("4", &id), "one message has one id");
    user.close().await;
    inbox.close().await;
    alone.end().await;
}

#[tokio::test]
async fn unsubscribing_ends_a_replay_that_is_under_way() {
    let alone = Alone::start().await;
    let (device, begin) = alone.begin().await;
    device.close().await;
    publish_large(&alone).await;
    let mut device = begin_large_replay(&alone, &begin).await;
    device.send(&json!({ "op": "unsubscribe", "channel": "@user", "i": "off" }).to_string()).await;
    let mut taken = 0;
    loop {
        let frame = device.next_json().await;
        if frame["i"] == "off" {
            assert_eq!(frame["result"], true, "{frame}");
            break;
        }
        taken += 1;
    }
    assert!(taken < MANY, "the replay went on to its end");
    alone.publish(0, [1]).await;
    // Messages already in flight may follow the answer; no message published later does.
    let rest = taken_until_pong(&mut device).await;
    assert!(
        taken + rest.len() as u64 <= MANY && rest.iter().all(|text| text.len() > LARGE),
        "{}",
        rest.len()
    );
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn a_session_in_replay_is_counted_and_is_sent_what_was_counted() {
    let alone = Alone::start().await;
    let (device, begin) = alone.begin().await;
    device.close().await;
    publish_large(&alone).await;
    let mut replaying = begin_large_replay(&alone, &begin).await;
    let (mut online, _) = alone.begin().await;
    let mut plain = Device::online(alone.edge(), "user-1").await;
    // Exact: the session that is still replaying counts.
    alone.publish(3, [1, 2]).await;
    online.expect_messages([1, 2]).await;
    plain.expect_text("1").await;
    plain.expect_text("2").await;
    let before = replaying.take_until("1").await;
    assert_eq!(before.len() as u64, MANY, "the whole replay comes first");
    replaying.expect_message("2").await;
    alone.publish(3, [3]).await;
    replaying.expect_message("3").await;
    for device in [replaying, online, plain] {
        drop(device);
    }
    eventually("nobody is counted who has left", async || {
        alone.publisher().publish("user:1", "nobody").await.counts() == Some((0, 0))
    })
    .await;
    alone.end().await;
}

async fn publish_large(alone: &Alone) {
    let publisher = alone.publisher();
    for number in 0..MANY {
        let text = format!("{number:>8}{}", ".".repeat(LARGE));
        publisher.publish_to(0, "user:1", &text).await;
    }
}

/// A device that stops reading once its replay has begun.
async fn begin_large_replay(alone: &Alone, after: &str) -> Device {
    let mut device = Device::connect_narrow(alone.edge()).await;
    device.auth("user-1").await;
    assert!(device.subscribe_after("@user", after).await.recovered);
    device
}

/// The texts of the messages before the second answer to a ping.
async fn taken_until_pong(device: &mut Device) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..2 {
        device.send("ping").await;
        loop {
            let received = device.next().await;
            let Received::Text(text) = received else { panic!("{received:?}") };
            if text == "pong" {
                break;
            }
            let frame: Value = serde_json::from_str(&text).expect("it is JSON");
            texts.push(frame["d"].as_str().expect("a message").to_owned());
        }
    }
    texts
}
