//! Ids of another epoch, and positions that the stream has not reached.

use std::time::Duration;

use harness::alone::Alone;

use super::{ids, must_recover, must_reload};

const STREAM: &str = "MC_LOG_0";
const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_id_of_another_epoch_is_not_recovered() {
    let alone = Alone::start().await;
    let ids = ids(&alone, 1..=3).await;
    must_recover(&alone, &ids[0], [2, 3]).await;
    // The same sequence in another epoch, and in an epoch that never was.
    let (_, seq) = ids[0].split_once('.').expect("epoch and sequence");
    must_reload(&alone, &format!("{:016x}.{seq}", 7)).await;
    must_reload(&alone, "0000000000000000.0").await;
    alone.end().await;
}

#[tokio::test]
async fn an_id_ahead_of_the_stream_is_not_recovered() {
    let alone = Alone::start().await;
    let ids = ids(&alone, 1..=3).await;
    let (epoch, seq) = ids[2].split_once('.').expect("epoch and sequence");
    let next = seq.parse::<u64>().expect("a number") + 1;
    must_recover(&alone, &ids[2], []).await;
    for ahead in [next + 1_000, u64::MAX] {
        must_reload(&alone, &format!("{epoch}.{ahead}")).await;
    }
    alone.end().await;
}

#[tokio::test]
async fn a_stream_that_was_made_anew_while_a_device_was_away_is_told() {
    let alone = Alone::start().await;
    let ids = ids(&alone, 1..=3).await;
    alone.on_bus(async |bus| bus.delete_stream(STREAM, DEADLINE).await.expect("the stream is there")).await;
    // The next publisher finds the stream made anew; its sequences begin at 1, as the old ones did.
    let publisher = alone.publisher();
    harness::wait::eventually("the stream is there again", async || {
        publisher.publish("user:1", "anew").await.counts().is_some()
    })
    .await;
    for id in &ids {
        must_reload(&alone, id).await;
    }
    alone.end().await;
}

#[tokio::test]
async fn a_stream_that_is_made_anew_while_a_device_is_connected_is_told_before_any_later_message() {
    let alone = Alone::start().await;
    let (mut device, _) = alone.begin().await;
    let mut plain = harness::device::Device::online(alone.edge(), "user-1").await;
    alone.publish(2, 1..=3).await;
    device.expect_messages(1..=3).await;
    alone.on_bus(async |bus| bus.delete_stream(STREAM, DEADLINE).await.expect("the stream is there")).await;
    let publisher = alone.publisher();
    harness::wait::eventually("the stream is there again", async || {
        publisher.publish("user:1", "anew").await.counts() == Some((2, 0))
    })
    .await;
    let position = device.expect_event("@reload").await;
    publisher.publish_to(2, "user:1", "later").await;
    // "anew" may have been stored before the new position or after it.
    let between = device.take_until("later").await;
    assert!(between.iter().all(|text| text == "anew"), "{between:?}");
    assert_eq!(plain.take_until("later").await[..3], ["1", "2", "3"], "plain sessions go on");
    device.close().await;
    plain.close().await;
    let mut device = harness::device::Device::recovered(alone.edge(), "user-1", &position).await;
    device.take_until("later").await;
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn a_store_in_memory_that_was_restarted_is_told() {
    let mut alone = Alone::plan().in_memory().start().await;
    let ids = ids(&alone, 1..=3).await;
    must_recover(&alone, &ids[0], [2, 3]).await;
    alone.restart(&[]).await;
    for id in &ids {
        must_reload(&alone, id).await;
    }
    alone.end().await;
}
