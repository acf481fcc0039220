//! Recovery under load: slow readers get through, and many devices at once wait for each other, but not
//! forever.

use harness::alone::Alone;
use harness::device::Device;
use harness::link::Link;

const LARGE: usize = 64 * 1024;
/// With [`LARGE`] some 20 MB, far beyond any outbox and socket buffer.
const MANY: u64 = 320;
/// Bytes that the slow reader's link lets through at a time.
const STEP: u64 = 32 * 1024;

#[tokio::test]
async fn a_device_that_takes_a_little_at_a_time_recovers_twenty_megabytes_and_is_not_closed_for_it() {
    let alone = Alone::start().await;
    let (device, begin) = alone.begin().await;
    device.close().await;
    let publisher = alone.publisher();
    let padding = ".".repeat(LARGE);
    for number in 0..MANY {
        publisher.publish_to(0, "user:1", &format!("{number} {padding}")).await;
    }
    let link = Link::to(alone.edge()).await;
    let mut device = Device::recovered(link.address(), "user-1", &begin).await;
    link.limit(STEP);
    let mut taken = 0;
    while taken < MANY {
        tokio::select! {
            () = link.used_up() => {
                // Meanwhile other devices are served, and the slow one is counted.
                if taken == MANY / 2 {
                    alone.publish(1, [1]).await;
                }
                link.limit(STEP);
            }
            message = device.next_quietly() => {
                let message = message.expect("a slow reader is not closed");
                assert!(message.text.starts_with(&format!("{taken} ")), "in order at {taken}");
                taken += 1;
            }
        }
    }
    link.heal();
    alone.publish(1, [2]).await;
    let mut rest = device.take_until("2").await;
    rest.retain(|text| text != "1");
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(alone.metric("mc_edge_sessions_closed_total", "4503").await, 0.0);
    device.close().await;
    link.stop().await;
    alone.end().await;
}

#[tokio::test]
async fn a_storm_of_devices_that_come_back_is_served_within_the_bound_while_live_messages_go_on() {
    const DEVICES: u64 = 300;
    const NEWS: u64 = 5;
    let alone = Alone::plan()
        .set("edge.max_replays", 8)
        // The waiting time of the last device is not under test.
        .set("edge.subscribe_deadline", "60s")
        .set("edge.connections_per_second", 0)
        .set("edge.connections_per_second_per_address", 0)
        .start()
        .await;
    let mut ids = Vec::new();
    for user in 1..=DEVICES {
        let (device, recovery) = Device::back(alone.edge(), &format!("user-{user}"), "").await;
        ids.push((user, recovery.id));
        drop(device);
    }
    let publisher = alone.publisher();
    for number in 0..NEWS {
        for user in 1..=DEVICES {
            let answer = publisher.publish(&format!("user:{user}"), &number.to_string()).await;
            assert!(answer.counts().is_some(), "{answer:?}");
        }
    }
    let (mut live, _) = Device::back(alone.edge(), "user-100000", "").await;
    let storm = futures_util::future::join_all(ids.into_iter().map(async |(user, id)| {
        let mut device = Device::recovered(alone.edge(), &format!("user-{user}"), &id).await;
        device.expect_messages(0..NEWS).await;
        device
    }));
    let others = async {
        for number in 0..50_u64 {
            // On a busy machine the count may not be complete in time; only the delivery matters here.
            assert_eq!(publisher.publish("user:100000", &number.to_string()).await.status, 200);
            live.expect_message(&number.to_string()).await;
        }
    };
    let (mut devices, ()) = tokio::join!(storm, others);
    for device in &mut devices {
        device.expect_nothing().await;
    }
    drop((devices, live));
    alone.end().await;
}
