//! The seam between stored and live messages: no gap, no duplicate, no other order, whatever happens at once.

use harness::alone::Alone;
use harness::device::Device;
use harness::publisher::PublishingSocket;
use serde_json::json;
use tokio::sync::watch;

/// Reconnects per device.
const ROUNDS: u64 = 25;

#[tokio::test]
async fn devices_that_come_and_go_while_others_publish_miss_nothing_and_see_nothing_twice() {
    let alone = Alone::start().await;
    let (first, begin) = alone.begin().await;
    first.close().await;
    let sent = watch::Sender::new(0_u64);
    let enough = watch::Sender::new(false);
    let publish = async {
        let publisher = alone.publisher();
        while !*enough.borrow() {
            let number = *sent.borrow() + 1;
            let answer = publisher.publish("user:1", &number.to_string()).await;
            assert!(answer.counts().is_some(), "{answer:?}");
            sent.send_replace(number);
        }
        *sent.borrow()
    };
    let devices = async {
        let (one, two, three) = tokio::join!(
            wander(&alone, &begin, 1, sent.subscribe()),
            wander(&alone, &begin, 2, sent.subscribe()),
            wander(&alone, &begin, 3, sent.subscribe()),
        );
        enough.send_replace(true);
        [one, two, three]
    };
    let (last, wanderers) = tokio::join!(publish, devices);
    for (id, number) in wanderers {
        let mut device = Device::recovered(alone.edge(), "user-1", &id).await;
        device.expect_messages(number + 1..=last).await;
        device.expect_nothing().await;
        device.close().await;
    }
    assert!(last > ROUNDS, "{last} were published meanwhile");
    alone.end().await;
}

/// Reconnects again and again, for a few messages each time; returns the last id and the last number.
async fn wander(alone: &Alone, begin: &str, seed: u64, mut sent: watch::Receiver<u64>) -> (String, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut id, mut number) = (begin.to_owned(), 0);
    for _ in 0..ROUNDS {
        // Stays away for a few messages, or for none.
        let away = *sent.borrow() + random.u64(0..8);
        sent.wait_for(|sent| *sent >= away).await.expect("the publisher goes on");
        let mut device = Device::recovered(alone.edge(), "user-1", &id).await;
        for _ in 0..random.u64(0..12) {
            id = device.expect_message(&(number + 1).to_string()).await;
            number += 1;
        }
        // Half of the disconnects are proper closes.
        match random.bool() {
            true => drop(device),
            false => drop(device.into_stream()),
        }
    }
    (id, number)
}

#[tokio::test]
async fn what_one_socket_publishes_in_one_go_arrives_in_its_order_on_both_sides_of_the_seam() {
    let alone = Alone::start().await;
    let (mut online, begin) = alone.begin().await;
    let mut socket = PublishingSocket::connect(alone.publisher_address()).await;
    const COUNT: u64 = 200;
    for number in 1..=COUNT {
        socket.publish(&json!(number), "user:1", &number.to_string()).await;
    }
    let mut late = Device::recovered(alone.edge(), "user-1", &begin).await;
    let last = online.expect_messages(1..=COUNT).await;
    assert_eq!(late.expect_messages(1..=COUNT).await, last);
    for _ in 1..=COUNT {
        let answer = socket.answer().await;
        assert!(answer["E"].is_null(), "{answer}");
    }
    socket.close().await;
    for mut device in [online, late] {
        device.expect_nothing().await;
        device.close().await;
    }
    alone.end().await;
}

#[tokio::test]
async fn many_that_come_back_at_once_are_each_sent_all_that_they_missed() {
    let alone = Alone::plan().set("edge.max_replays", 4).start().await;
    let (device, begin) = alone.begin().await;
    device.close().await;
    alone.publish(0, 1..=50).await;
    // More devices than may replay at once: the others wait their turn, and none is refused.
    let devices = (0..24).map(async |_| {
        let mut device = Device::recovered(alone.edge(), "user-1", &begin).await;
        device.expect_messages(1..=50).await;
        device
    });
    let devices = futures_util::future::join_all(devices).await;
    alone.publish(24, [51]).await;
    for mut device in devices {
        device.expect_message("51").await;
        device.close().await;
    }
    alone.end().await;
}
