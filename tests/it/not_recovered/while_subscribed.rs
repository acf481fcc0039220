//! A gap that can no longer be filled while a device is subscribed: the edge was away for too long, says so,
//! then continues.

use harness::alone::Alone;
use harness::device::Device;
use harness::fleet::Member;
use harness::link::Link;
use harness::program::Launch;
use harness::raw;
use harness::wait::eventually;

/// An edge with a link of its own to the bus of `alone`.
async fn far_edge(alone: &Alone, settings: &[(&str, &str)]) -> (Member, Link) {
    let link = Link::to(alone.bus()).await;
    let mut launch = Launch::of("edge")
        .set("edge.listen", "127.0.0.1:0")
        .set("edge.heartbeat", "50ms")
        .set("bus.url", format!("nats://{}", link.address()));
    for (key, value) in settings {
        launch = launch.set(key, value);
    }
    let mut edge = Member::start(launch, "edge", Some("edge listens")).await;
    edge.program.expect_errors();
    edge.ready().await;
    (edge, link)
}

async fn publish(alone: &Alone, texts: impl IntoIterator<Item = u64>) {
    let publisher = alone.publisher();
    for number in texts {
        // The far edge is silent: the count is incomplete, but the message is stored.
        let answer = publisher.publish("user:1", &number.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn an_edge_that_was_cut_off_fetches_what_it_missed_before_anything_later() {
    let alone = Alone::start().await;
    let (mut edge, link) = far_edge(&alone, &[]).await;
    let address = edge.address.expect("edges listen");
    let (mut device, _) = Device::back(address, "user-1", "").await;
    let mut plain = Device::online(address, "user-1").await;
    publish(&alone, [1, 2]).await;
    device.expect_messages([1, 2]).await;
    link.cut();
    publish(&alone, 3..=20).await;
    link.heal();
    device.expect_messages(3..=20).await;
    publish(&alone, [21]).await;
    device.expect_message("21").await;
    // A plain session of an edge that was never away receives all messages, too, once and in order.
    let plain_got = plain.take_until("21").await;
    let numbers: Vec<u64> = plain_got.iter().map(|text| text.parse().expect("a number")).collect();
    assert!(numbers.is_sorted_by(|one, two| one < two), "{numbers:?}");
    // A delivered message counts, whether live or fetched.
    assert!(raw::metric(edge.admin, "mc_edge_messages_fetched_total", "").await > 0.0);
    let given = 21 + numbers.len() + 1;
    eventually("all deliveries are counted", async || {
        raw::metric(edge.admin, "mc_edge_deliveries_total", "accepted").await == given as f64
    })
    .await;
    drop((device, plain));
    edge.program.signal("TERM").await;
    edge.program.expect_success().await;
    link.stop().await;
    alone.end().await;
}

#[tokio::test]
async fn an_edge_cut_off_for_longer_than_the_history_lasts_says_so_before_anything_later() {
    let alone = Alone::plan().set("history.per_channel", 5).start().await;
    let (mut edge, link) = far_edge(&alone, &[("history.per_channel", "5")]).await;
    let address = edge.address.expect("edges listen");
    let (mut device, begin) = Device::back(address, "user-1", "").await;
    let mut plain = Device::online(address, "user-1").await;
    publish(&alone, [1]).await;
    device.expect_message("1").await;
    link.cut();
    publish(&alone, 2..=20).await;
    link.heal();
    let position = device.expect_event("@reload").await;
    assert_ne!(position, begin.id);
    // Every later message follows the new position.
    publish(&alone, [21]).await;
    let between = device.take_until("21").await;
    let again = between.len() as u64;
    assert_eq!(between, (21 - again..21).map(|number| number.to_string()).collect::<Vec<_>>());
    let plain_got = plain.take_until("21").await;
    let numbers: Vec<u64> = plain_got.iter().map(|text| text.parse().expect("a number")).collect();
    assert!(numbers.is_sorted_by(|one, two| one < two), "{numbers:?}");
    publish(&alone, [22]).await;
    device.expect_message("22").await;
    plain.expect_text("22").await;
    drop((device, plain));
    let mut device = Device::recovered(alone.edge(), "user-1", &position).await;
    device.take_until("22").await;
    device.close().await;
    eventually("nobody is left", async || alone.metric("mc_edge_sessions", "").await == 0.0).await;
    edge.program.signal("TERM").await;
    edge.program.expect_success().await;
    link.stop().await;
    alone.end().await;
}
