//! A stopped process that continues, as after a pause of the machine, holds nothing of the pause against
//! anybody.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use harness::alone::Alone;
use harness::device::{Device, Received};
use harness::fleet::{Fleet, Over};
use harness::program::Program;
use harness::raw;
use harness::wait::eventually;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

/// How long a process stands still: longer than every timeout that the tests set.
const PAUSE: Duration = Duration::from_secs(3);

/// Stops a process for [`PAUSE`].
async fn pause(program: &Program) {
    pause_while(program, async || {}).await;
}

/// Stops a process for [`PAUSE`], and runs `work` meanwhile.
async fn pause_while(program: &Program, work: impl AsyncFnOnce()) {
    program.signal("STOP").await;
    work().await;
    // A fixed delay, since the pause itself is under test.
    tokio::time::sleep(PAUSE).await;
    program.signal("CONT").await;
}

#[tokio::test]
async fn a_process_that_goes_on_after_a_pause_calls_nobody_silent_slow_or_late() {
    let alone = Alone::plan()
        .in_memory()
        .set("publisher_api.silent_after", "500ms")
        .set("edge.ping_interval", "400ms")
        .set("edge.silence", "1s")
        .set("edge.login_timeout", "2s")
        .set("auth_adapter.deadline", "1s")
        .start()
        .await;
    let mut online = Device::online(alone.edge(), "user-1").await;
    let publisher = alone.publisher();
    // Reading answers the pings.
    let reading = async {
        loop {
            match online.next_whenever().await {
                Received::Text(text) if text == "last" => return,
                Received::Text(_) => {}
                ended @ (Received::Binary(_) | Received::Close(..) | Received::Gone) => {
                    panic!("the session ended: {ended:?}")
                }
            }
        }
    };
    let rounds = async {
        for round in 0..4 {
            // This device has not logged in, and the process reads its token only after the pause.
            let mut late = Device::connect(alone.edge()).await;
            let over = Cell::new(false);
            // Publishes are in flight all the time, so also when the process stops and when it continues.
            let publishing = async {
                while !over.get() {
                    let answer = publisher.publish("user:1", "more").await;
                    assert!(answer.is_complete() && answer.counts() == Some((1, 0)), "{answer:?}");
                }
            };
            let pausing = async {
                pause(&alone.program).await;
                late.auth(&format!("user-{}", 2 + round)).await;
                over.set(true);
            };
            tokio::join!(publishing, pausing);
            late.close().await;
        }
        publisher.publish_to(1, "user:1", "last").await;
    };
    tokio::join!(reading, rounds);
    let log = alone.program.stderr();
    assert!(!log.contains("an edge is silent"), "{log}");
    assert!(!log.contains("the bus is gone"), "{log}");
    drop(online);
    alone.end().await;
}

/// Every bound of a login counts only time in which the process runs: the call to the business system, and
/// waiting for another check of the same token, at the edge and at the auth-adapter.
#[tokio::test]
async fn logins_under_way_when_a_process_stops_go_on_with_it() {
    for (one_at_a_time, at_the_adapter) in
        [("edge.max_token_checks", 1.0), ("auth_adapter.max_in_flight", 2.0)]
    {
        let alone = Alone::plan()
            .in_memory()
            .set("edge.auth_deadline", "2s")
            .set("auth_adapter.deadline", "2s")
            .set(one_at_a_time, 1)
            .start()
            .await;
        alone.business.hold();
        let mut devices = Vec::new();
        for user in 1..=2 {
            let mut device = Device::connect(alone.edge()).await;
            device.send(&format!("{{\"op\":\"auth\",\"token\":\"user-{user}\"}}")).await;
            // The edge reads the frames of a device in order.
            device.send_frame(Message::Ping(Bytes::from_static(b"x"))).await;
            device.expect_pong(b"x").await;
            devices.push(device);
        }
        eventually("the business system is asked, and the other check waits", async || {
            let waiting = alone.metric("mc_auth_waiting", "").await;
            alone.business.calls().len() == 1 && (waiting - at_the_adapter).abs() < 0.5
        })
        .await;
        pause_while(&alone.program, async || alone.business.open()).await;
        for device in &mut devices {
            device.expect_json(&json!({ "result": true })).await;
        }
        for reason in ["edge_gave_up", "no_call_in_time"] {
            assert_eq!(alone.metric("mc_auth_drops_total", reason).await, 0.0, "{reason}: it was in time");
        }
        for device in devices {
            device.close().await;
        }
        alone.end().await;
    }
}

/// Every bound of a publish counts only time in which the process runs: a store that answers while the
/// publisher-api stands still has answered in time.
#[tokio::test]
async fn publishes_under_way_when_a_publisher_stops_go_on_with_it() {
    let fleet = Fleet::plan(Over::Bus)
        .edges(1)
        .set("publisher_api.store_wait", "2s")
        .set("publisher_api.bus_wait", "2s")
        .start()
        .await;
    let (publisher, member) = (fleet.publisher(0), &fleet.publishers[0]);
    let bus = &fleet.bus.as_ref().expect("it is ours").program;
    for round in 0..3 {
        let plain = publisher.publish("user:1", "stored");
        let keyed = publisher.request(reqwest::Method::POST, "/v1/mesh/publish");
        let keyed = keyed.header("idempotency-key", format!("round-{round}"));
        let keyed = publisher.send(keyed.json(&json!({ "c": "user:1", "d": "keyed" })));
        let pausing = async {
            eventually("both wait for the store", async || {
                let waiting = raw::metric(member.admin, "mc_publisher_in_flight", "").await
                    + raw::metric(member.admin, "mc_publisher_idempotent_calls_open", "").await;
                waiting > 1.5
            })
            .await;
            pause_while(&member.program, async || bus.signal("CONT").await).await;
        };
        bus.signal("STOP").await;
        let (plain, keyed, ()) = tokio::join!(plain, keyed, pausing);
        assert!(plain.is_complete(), "{plain:?}");
        assert_eq!(keyed.status, 200, "{keyed:?}");
    }
    fleet.end().await;
}

#[tokio::test]
async fn a_publisher_that_goes_on_after_a_pause_has_heard_nothing_and_says_so_of_nobody() {
    let fleet = Fleet::plan(Over::Bus).edges(2).set("publisher_api.silent_after", "500ms").start().await;
    let devices = [fleet.online(0, "user-1").await, fleet.online(1, "user-1").await];
    let publisher = fleet.publisher(0);
    publisher.publish_to(2, "user:1", "before").await;
    for _ in 0..3 {
        pause(&fleet.publishers[0].program).await;
        publisher.publish_to(2, "user:1", "after").await;
    }
    let log = fleet.publishers[0].program.stderr();
    assert!(!log.contains("an edge is silent"), "{log}");

    // An edge that is silent while the publisher-api runs is still found.
    fleet.edges[1].program.signal("STOP").await;
    eventually("the edge that stands still is called silent", async || {
        publisher.publish("user:1", "x").await.expect_incomplete(1, 0);
        fleet.publishers[0].program.stderr().contains("an edge is silent")
    })
    .await;
    fleet.edges[1].program.signal("CONT").await;
    eventually("counts are complete again", async || publisher.publish("user:1", "x").await.is_complete())
        .await;
    drop(devices);
    fleet.end().await;
}
