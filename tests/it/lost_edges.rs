//! Edges that freeze, die, join and leave: counts stay exact, or say that they are not.

use std::time::{Duration, Instant};

use harness::fleet::{Fleet, Over};
use harness::wait::eventually;

#[tokio::test]
async fn a_frozen_edge_makes_counts_incomplete_in_time_and_exact_again_when_it_goes_on() {
    let fleet = Fleet::plan(Over::Bus).edges(2).start().await;
    let mut awake = fleet.online(0, "user-1").await;
    let mut frozen = fleet.online(1, "user-1").await;
    let publisher = fleet.publisher(0);
    publisher.publish_to(2, "user:1", "before").await;

    fleet.edges[1].program.signal("STOP").await;
    let began = Instant::now();
    publisher.publish("user:1", "while frozen").await.expect_incomplete(1, 0);
    let took = began.elapsed();
    // The answer deadline is 250 ms.
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(2), "{took:?}");

    fleet.edges[1].program.signal("CONT").await;
    eventually("counts are exact again", async || {
        let answer = publisher.publish("user:1", "thawed").await;
        answer.is_complete() && answer.counts() == Some((2, 0))
    })
    .await;
    // The messages that the bus buffered for the frozen edge arrive.
    awake.expect_text("before").await;
    awake.expect_text("while frozen").await;
    frozen.expect_text("before").await;
    frozen.expect_text("while frozen").await;
    frozen.expect_text("thawed").await;
    drop((awake, frozen));
    fleet.end().await;
}

#[tokio::test]
async fn an_edge_that_stays_frozen_is_not_waited_for_but_not_forgotten() {
    let fleet = Fleet::plan(Over::Bus).edges(2).set("publisher_api.silent_after", "300ms").start().await;
    let device = fleet.online(0, "user-1").await;
    let publisher = fleet.publisher(0);
    fleet.edges[1].program.signal("STOP").await;
    eventually("the frozen edge is not waited for", async || {
        let began = Instant::now();
        let answer = publisher.publish("user:1", "hello").await;
        answer.expect_incomplete(1, 0);
        began.elapsed() < Duration::from_millis(200)
    })
    .await;
    fleet.edges[1].program.signal("CONT").await;
    eventually("counts are complete again", async || publisher.publish("user:1", "x").await.is_complete())
        .await;
    drop(device);
    fleet.end().await;
}

#[tokio::test]
async fn a_killed_edge_is_named_for_a_while_and_then_forgotten() {
    let mut fleet = Fleet::plan(Over::Bus)
        .edges(2)
        .set("publisher_api.silent_after", "300ms")
        .set("publisher_api.named_for", "2s")
        .start()
        .await;
    let mut device = fleet.online(0, "user-1").await;
    let lost = fleet.online(1, "user-1").await;
    let publisher = fleet.publisher(0);
    publisher.publish_to(2, "user:1", "to both").await;
    fleet.edges.remove(1).program.kill().await;
    publisher.publish("user:1", "to one").await.expect_incomplete(1, 0);
    eventually("the killed edge is forgotten", async || {
        let answer = publisher.publish("user:1", "again").await;
        assert_eq!(answer.counts(), Some((1, 0)), "{answer:?}");
        answer.is_complete()
    })
    .await;
    device.expect_text("to both").await;
    device.expect_text("to one").await;
    drop((device, lost));

    // A new edge takes the dead edge's place, and counts from its first device on.
    fleet.add_edge().await;
    fleet.ready().await;
    let device = fleet.online(1, "user-1").await;
    publisher.publish_to(1, "user:1", "to the new one").await;
    drop(device);
    fleet.end().await;
}
