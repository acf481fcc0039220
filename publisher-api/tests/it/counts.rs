//! The counts of sessions that a message went to are exact, or marked as incomplete.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use shared::wire::Kind;
use tokio::time::Instant;

use crate::support::caller::{Socket, call, mesh_publish, publish, publish_to, request};
use crate::support::edge::FakeEdge;
use crate::support::log::Log;
use crate::support::{Bed, HEARTBEAT, eventually};

#[tokio::test]
async fn without_an_edge_the_count_is_zero_at_once_and_sure() {
    let bed = Bed::start(|config| config.answer_deadline = Duration::from_secs(10)).await;
    let began = Instant::now();
    let answer = publish_to(bed.address, "user:1001", "hello").await;
    assert_eq!(answer.body, r#"{"E":null,"r":{"s":0,"f":0}}"#);
    assert_eq!(answer.counts(), (0, 0, true));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(began.elapsed() < Duration::from_secs(5), "nobody was waited for");
    bed.finish().await;
}

#[tokio::test]
async fn the_count_is_that_of_one_edge_and_the_text_arrives_byte_for_byte() {
    let bed = Bed::start(|_| {}).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("user:1001", 2, 0);
    let d = "{\"event\": \"@user\",\"data\":{\"uid\":1001,\"msg\":\"Hällo\\n\"}}";
    let answer = publish_to(bed.address, "user:1001", d).await;
    assert_eq!(answer.body, r#"{"E":null,"r":{"s":2,"f":0}}"#);
    assert_eq!(answer.counts(), (2, 0, true));
    assert_eq!(publish_to(bed.address, "user:1002", "x").await.counts(), (0, 0, true));

    let body = json!({"c": "user:1001", "d": STANDARD.encode([0, 255]), "t": "binary"});
    assert_eq!(publish(bed.address, &body).await.counts(), (2, 0, true));
    let seen = edge.seen();
    assert_eq!((seen[0].0.as_str(), &seen[0].1.payload[..]), ("user:1001", d.as_bytes()));
    assert_eq!((seen[0].1.kind, seen[2].1.kind), (Kind::Text, Kind::Binary));
    assert_eq!(&seen[2].1.payload[..], [0, 255]);
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn a_caller_with_a_key_in_its_url_is_served_while_there_are_no_keys() {
    let bed = Bed::start(|_| {}).await;
    let headers = [("authorization", "Basic bmFtZTprZXk="), ("content-type", "application/json")];
    let answer = call(bed.address, &request("POST /v1/mesh/publish", &headers, r#"{"c":"a","d":"x"}"#)).await;
    assert_eq!(answer.counts(), (0, 0, true));
    bed.finish().await;
}

#[tokio::test]
async fn the_count_is_the_sum_over_all_edges() {
    let bed = Bed::start(|_| {}).await;
    let mut edges = Vec::new();
    for (id, sessions, failed) in [("e1", 1, 0), ("e2", 5_000, 3), ("e3", 0, 0)] {
        let edge = FakeEdge::start(&bed.bus.server, id, true).await;
        edge.holds("broadcast", sessions, failed);
        edges.push(edge);
    }
    assert_eq!(publish_to(bed.address, "broadcast", "x").await.counts(), (5_001, 3, true));
    let mut socket = Socket::connect(bed.address).await;
    socket.send(&mesh_publish("broadcast", "x", 12345)).await;
    assert_eq!(socket.text().await, r#"{"E":null,"r":{"s":5001,"f":3},"i":12345}"#);
    for edge in edges {
        edge.leave().await;
    }
    bed.finish().await;
}

#[tokio::test]
async fn an_edge_that_does_not_answer_makes_counts_incomplete_after_the_deadline_and_is_named() {
    let (log, _logging) = Log::start();
    let bed = Bed::start(|_| {}).await;
    let (good, frozen) = (
        FakeEdge::start(&bed.bus.server, "good", true).await,
        FakeEdge::start(&bed.bus.server, "frozen", true).await,
    );
    good.holds("a", 1, 0);
    frozen.holds("a", 1, 0);
    frozen.state.answers.store(false, Ordering::SeqCst);
    let began = Instant::now();
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (1, 0, false));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(250), "{took:?}");
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    assert!(log.has(&["missing=", "frozen"]) && !log.has(&["missing=", "good"]));

    let mut socket = Socket::connect(bed.address).await;
    socket.send(&mesh_publish("a", "x", 1)).await;
    assert_eq!(socket.text().await, r#"{"E":null,"r":{"s":1,"f":0,"complete":false},"i":1}"#);

    frozen.state.answers.store(true, Ordering::SeqCst);
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (2, 0, true), "it thawed");
    assert_eq!(bed.metric("mc_publisher_incomplete_total"), 2);
    good.leave().await;
    frozen.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn a_silent_edge_is_not_waited_for_but_makes_counts_incomplete_until_it_is_taken_for_gone() {
    let bed = Bed::start(|config| config.answer_deadline = Duration::from_secs(10)).await;
    let edge = FakeEdge::start(&bed.bus.server, "lost", true).await;
    edge.crash().await;
    eventually("the edge is silent", || bed.metric(r#"mc_publisher_edges{state="silent"}"#) == 1).await;
    let began = Instant::now();
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (0, 0, false));
    assert!(began.elapsed() < Duration::from_secs(5), "it was not waited for");
    eventually("the edge is forgotten", || bed.metric(r#"mc_publisher_edges{state="silent"}"#) == 0).await;
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (0, 0, true));
    bed.finish().await;
}

#[tokio::test]
async fn an_edge_that_said_bye_is_forgotten_at_once() {
    let bed = Bed::start(|config| config.answer_deadline = Duration::from_secs(10)).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("a", 1, 0);
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (1, 0, true));
    edge.leave().await;
    eventually("bye is heard", || bed.metric(r#"mc_publisher_edges{state="live"}"#) == 0).await;
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (0, 0, true));
    bed.finish().await;
}

#[tokio::test]
async fn an_edge_that_was_never_heard_is_counted_and_remembered() {
    let bed = Bed::start(|_| {}).await;
    let known = FakeEdge::start(&bed.bus.server, "known", true).await;
    let stranger = FakeEdge::start(&bed.bus.server, "stranger", false).await;
    stranger.holds("a", 3, 0);
    known.holds("a", 1, 0);
    // The known edge does not answer, so the ask stays open and the stranger's answer is surely in time.
    known.state.answers.store(false, Ordering::SeqCst);
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (3, 0, false));
    known.state.answers.store(true, Ordering::SeqCst);
    assert_eq!(bed.metric(r#"mc_publisher_edges{state="live"}"#), 2, "it is waited for now");
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (4, 0, true));
    known.leave().await;
    stranger.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn an_edge_that_has_not_seen_the_message_makes_its_count_incomplete() {
    let bed = Bed::start(|_| {}).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("a", 1, 0);
    edge.state.listens.store(false, Ordering::SeqCst);
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (0, 0, false));
    edge.state.listens.store(true, Ordering::SeqCst);
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (1, 0, true));
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn before_it_is_ready_counts_are_incomplete() {
    let bus = crate::support::TestBus::start().await;
    let slow = |config: &mut publisher_api::Config| {
        (config.heartbeat, config.silent_after, config.named_for) =
            (HEARTBEAT * 30, HEARTBEAT * 90, HEARTBEAT * 90);
    };
    let bed = Bed::start_unready(bus, slow).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("a", 1, 0);
    assert!(
        bed.health.reasons().contains("waiting for the heartbeats of the edges"),
        "{}",
        bed.health.reasons()
    );
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (1, 0, false));
    bed.ready().await;
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (1, 0, true));
    edge.leave().await;
    bed.finish().await;
}
