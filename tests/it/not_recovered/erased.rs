//! An erased channel: a user's right to be forgotten. Devices that were connected or away are told.

use harness::alone::Alone;
use harness::device::Device;
use reqwest::Method;

use super::{ids, must_recover, must_reload};

async fn erase(alone: &Alone, channel: &str) {
    let publisher = alone.publisher();
    let answer =
        publisher.send(publisher.request(Method::DELETE, &format!("/v1/channels/{channel}/messages"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_channel_that_was_erased_while_a_device_was_away_is_told() {
    let alone = Alone::start().await;
    let ids = ids(&alone, 1..=3).await;
    erase(&alone, "user:1").await;
    must_reload(&alone, &ids[0]).await;
    must_reload(&alone, &ids[1]).await;
    // The device missed no message, but must drop the messages it shows.
    must_reload(&alone, &ids[2]).await;
    alone.end().await;
}

#[tokio::test]
async fn a_channel_that_is_erased_while_a_device_is_connected_is_told_and_others_are_not() {
    let alone = Alone::start().await;
    // A message of another channel, so that the stream begins before every device's first position.
    alone.publisher().publish_to(0, "user:3", "the first").await;
    let (mut device, begin) = alone.begin().await;
    let mut plain = Device::online(alone.edge(), "user-1").await;
    let (mut other, recovery) = Device::back(alone.edge(), "user-2", "").await;
    alone.publish(2, 1..=3).await;
    device.expect_messages(1..=3).await;
    erase(&alone, "user:1").await;
    let position = device.expect_event("@reload").await;
    alone.publish(2, [4]).await;
    let last = device.expect_message("4").await;
    for number in 1..=4 {
        plain.expect_text(&number.to_string()).await;
    }
    plain.expect_nothing().await;
    alone.publisher().publish_to(1, "user:2", "for the other").await;
    other.expect_message("for the other").await;
    other.expect_nothing().await;
    for device in [device, plain, other] {
        device.close().await;
    }
    must_recover(&alone, &position, [4]).await;
    must_recover(&alone, &last, []).await;
    must_reload(&alone, &begin).await;
    let mut other = Device::recovered(alone.edge(), "user-2", &recovery.id).await;
    other.expect_message("for the other").await;
    other.close().await;
    alone.end().await;
}

#[tokio::test]
async fn what_was_erased_is_in_no_answer_any_more() {
    let alone = Alone::start().await;
    let publisher = alone.publisher();
    publisher.publish_to(0, "user:1", "a secret of user 1").await;
    publisher.publish_to(0, "user:2", "kept").await;
    erase(&alone, "user:1").await;
    let answer =
        publisher.send(publisher.request(Method::GET, "/v1/channels/user:1/messages?limit=10")).await;
    assert!(answer.status == 200 && !answer.text.contains("a secret"), "{answer:?}");
    let answer =
        publisher.send(publisher.request(Method::GET, "/v1/channels/user:2/messages?limit=10")).await;
    assert!(answer.status == 200 && answer.text.contains("kept"), "{answer:?}");
    alone.end().await;
}
