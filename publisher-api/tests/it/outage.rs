//! The bus goes away and comes back.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::caller::{Socket, mesh_publish, publish_to};
use crate::support::edge::FakeEdge;
use crate::support::{Bed, TestBus, eventually};

#[tokio::test]
async fn while_the_bus_is_away_publishes_are_refused_and_afterwards_they_work_again() {
    let mut bed = Bed::start(|config| {
        config.bus_wait = Duration::from_millis(300);
        config.bus_grace = Duration::from_millis(50);
    })
    .await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("a", 1, 0);
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (1, 0, true));
    let mut socket = Socket::connect(bed.address).await;

    bed.bus.stop().await;
    eventually("it is unready", || bed.health.reasons().contains("the bus is gone")).await;
    let began = Instant::now();
    let refused = publish_to(bed.address, "a", "x").await;
    assert_eq!((refused.code(), refused.header("retry-after")), ((503, 108), Some("1")));
    assert!(began.elapsed() >= Duration::from_millis(300), "it waits for a bus that may come back at once");
    for i in 0..5 {
        socket.send(&mesh_publish("a", "x", i)).await;
        let answer = socket.json().await;
        assert_eq!((&answer["E"]["c"], &answer["i"]), (&108.into(), &i.into()));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "one absence is waited for once");

    bed.bus.restart().await;
    bed.ready().await;
    eventually("the edge is back", || edge.is_connected()).await;
    let acks = edge.acks();
    eventually("the edge is acknowledged again", || edge.acks() > acks).await;
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (1, 0, true));
    socket.send(&mesh_publish("a", "x", 9)).await;
    assert_eq!(socket.text().await, r#"{"E":null,"r":{"s":1,"f":0},"i":9}"#);
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn a_publish_waits_for_a_bus_that_comes_back_soon() {
    let mut bed = Bed::start(|config| config.bus_wait = Duration::from_secs(15)).await;
    bed.bus.stop().await;
    let mut socket = Socket::connect(bed.address).await;
    socket.send(&mesh_publish("a", "x", 1)).await;
    eventually("it is in flight", || bed.metric("mc_publisher_in_flight") == 1).await;
    bed.bus.restart().await;
    assert_eq!(socket.json().await["E"], serde_json::Value::Null);
    bed.finish().await;
}

#[tokio::test]
async fn it_starts_without_a_bus_says_so_and_is_ready_once_there_is_one() {
    let bus = TestBus::start().await;
    bus.stop().await;
    let mut bed = Bed::start_unready(bus, |config| config.bus_wait = Duration::from_millis(50)).await;
    eventually("it says so", || bed.health.reasons().contains("can't be reached yet")).await;
    assert_eq!(publish_to(bed.address, "a", "x").await.code(), (503, 108));
    bed.bus.restart().await;
    bed.ready().await;
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (0, 0, true));
    bed.finish().await;
}
