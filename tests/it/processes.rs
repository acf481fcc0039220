//! Every part as processes of its own, two of each, over each kind of bus: every publisher reaches a user on
//! every edge.

use harness::device::Device;
use harness::fleet::{Fleet, Over};
use harness::tools;
use serde_json::json;

#[tokio::test]
async fn two_of_each_part_work_together_over_message_center_bus() {
    tour(Over::Bus).await;
}

#[tokio::test]
async fn two_of_each_part_work_together_over_a_bus_that_a_publisher_embeds() {
    tour(Over::Publisher).await;
}

#[tokio::test]
async fn two_of_each_part_work_together_over_the_real_nats_server() {
    let test = "two of each part over the real nats-server";
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", test) else { return };
    tour(Over::NatsServer(binary)).await;
}

async fn tour(over: Over) {
    let fleet = Fleet::plan(over).edges(2).publishers(2).adapters(2).start().await;
    let mut devices = Vec::new();
    for edge in 0..2 {
        devices.push(fleet.online(edge, "user-1").await);
    }
    let mut other = fleet.online(0, "user-2").await;
    for publisher in 0..2 {
        let text = json!({ "event": "@user", "data": { "from": publisher } }).to_string();
        fleet.publisher(publisher).publish_to(2, "user:1", &text).await;
        for device in &mut devices {
            device.expect_text(&text).await;
        }
        fleet.publisher(publisher).publish_to(1, "user:2", "for the other").await;
        other.expect_text("for the other").await;
        fleet.publisher(publisher).publish_to(0, "user:3", "for nobody").await;
    }
    for edge in 0..2 {
        let mut stranger = Device::connect(fleet.edge(edge)).await;
        stranger.send(r#"{"op":"auth","token":"stolen"}"#).await;
        stranger.expect_error(2).await;
        stranger.expect_close(4401).await;
    }
    // One token, two sockets: each adapter asks at most once.
    assert!(fleet.business.calls_for("user-1") <= 2, "{:?}", fleet.business.calls());
    other.expect_nothing().await;
    other.close().await;
    for mut device in devices {
        device.expect_nothing().await;
        device.close().await;
    }
    fleet.end().await;
}
