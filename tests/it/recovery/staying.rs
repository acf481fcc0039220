//! A recovering device that stays online: position events, an expired login, restarts of everything, an
//! absent store.

use harness::alone::Alone;
use harness::device::Device;
use harness::fleet::Member;
use harness::link::Link;
use harness::program::Launch;
use harness::wait::eventually;
use serde_json::json;

#[tokio::test]
async fn a_quiet_device_is_given_a_position_from_which_it_can_go_on() {
    let alone =
        Alone::plan().set("history.max_age", "4s").set("history.duplicate_window", "1s").start().await;
    let (mut device, begin) = alone.begin().await;
    // Messages for others move the stream on; this user receives none.
    alone.publisher().publish_to(0, "user:2", "for another").await;
    let position = device.expect_event("@position").await;
    assert_ne!(position, begin, "it has moved on with the stream");
    device.close().await;
    alone.publish(0, [1]).await;
    let mut device = Device::recovered(alone.edge(), "user-1", &position).await;
    device.expect_message("1").await;
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn a_login_that_expires_holds_messages_back_and_a_new_one_lets_them_go() {
    let alone = Alone::start().await;
    alone.business.add_token("short", json!({ "uid": 1, "expires_in": 1 }));
    let mut device = Device::login(alone.edge(), "short").await;
    let begin = device.subscribe_after("@user", "").await.id;
    alone.publish(1, [1]).await;
    device.expect_message("1").await;
    device.expect_error(9).await;
    alone.publish(1, 2..=20).await;
    device.expect_nothing().await;
    device.auth("user-1").await;
    let last = device.expect_messages(2..=20).await;
    alone.publish(1, [21]).await;
    device.expect_message("21").await;
    device.close().await;

    // The same for a login that expires during the replay.
    alone.business.add_token("again", json!({ "uid": 1, "expires_in": 1 }));
    let mut device = Device::login(alone.edge(), "again").await;
    device.expect_error(9).await;
    device.auth("user-1").await;
    assert!(device.subscribe_after("@user", &begin).await.recovered);
    assert_eq!(device.expect_messages(1..=20).await, last);
    device.expect_message("21").await;
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn a_kill_and_restart_of_everything_loses_nothing_that_was_acknowledged() {
    let mut alone = Alone::start().await;
    let (mut device, begin) = alone.begin().await;
    alone.publish(1, 1..=20).await;
    let last = device.expect_messages(1..=10).await;
    let mut expected = 21;
    for round in 0..3 {
        alone.restart(&[]).await;
        let mut all = Device::recovered(alone.edge(), "user-1", &begin).await;
        all.expect_messages(1..expected).await;
        let mut rest = Device::recovered(alone.edge(), "user-1", &last).await;
        rest.expect_messages(11..expected).await;
        alone.publish(2, expected..expected + 5).await;
        all.expect_messages(expected..expected + 5).await;
        rest.expect_messages(expected..expected + 5).await;
        expected += 5;
        drop((all, rest));
        eventually(&format!("the devices of round {round} have left"), async || {
            alone.metric("mc_edge_sessions", "").await == 0.0
        })
        .await;
    }
    drop(device);
    alone.end().await;
}

#[tokio::test]
async fn while_the_store_is_away_a_recovering_subscribe_says_so_and_nothing_is_subscribed() {
    let alone = Alone::start().await;
    let link = Link::to(alone.bus()).await;
    let launch = Launch::of("edge")
        .set("edge.listen", "127.0.0.1:0")
        .set("edge.heartbeat", "50ms")
        .set("bus.url", format!("nats://{}", link.address()));
    let mut edge = Member::start(launch, "edge", Some("edge listens")).await;
    edge.program.expect_errors();
    edge.ready().await;
    let address = edge.address.expect("edges listen");
    let (mut first, begin) = Device::back(address, "user-1", "").await;
    let mut second = Device::login(address, "user-2").await;
    link.stall();
    for after in ["", &begin.id] {
        second.send(&json!({ "op": "subscribe", "channel": "@user", "after": after }).to_string()).await;
        second.expect_error(10).await;
    }
    second.send(r#"{"op":"subscribe","channel":"@user"}"#).await;
    second.expect_error(10).await;
    link.heal();
    eventually("a subscribe is taken again", async || {
        second.send(r#"{"op":"subscribe","channel":"@user","after":""}"#).await;
        second.next_json().await["result"] == true
    })
    .await;
    edge.ready().await;
    let publisher = alone.publisher();
    eventually("counts are exact again", async || publisher.publish("user:3", "x").await.is_complete()).await;
    publisher.publish_to(1, "user:1", "still subscribed").await;
    first.expect_message("still subscribed").await;
    publisher.publish_to(1, "user:2", "subscribed again").await;
    assert_eq!(second.next_message("@user").await.text, "subscribed again");
    drop((first, second));
    edge.program.end().await;
    link.stop().await;
    alone.end().await;
}
