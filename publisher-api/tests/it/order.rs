//! Many publishes over one socket: in order on the bus, each with its own answer.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::Bed;
use crate::support::caller::{Socket, mesh_publish};
use crate::support::edge::FakeEdge;

#[tokio::test]
async fn a_thousand_publishes_of_one_socket_reach_the_edge_in_order_and_share_asks() {
    const PUBLISHES: u64 = 1_000;
    // The deadline is long, since this test is not about how fast the edge answers.
    let bed = Bed::start(|config| config.answer_deadline = Duration::from_secs(10)).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("a", 1, 0);
    edge.holds("b", 2, 0);
    let mut socket = Socket::connect(bed.address).await;
    let mut sent = 0;
    let mut answered = HashSet::new();
    while answered.len() < 1_000 {
        // More publishes without an answer than the socket's bound, so that the server stops reading.
        while sent < PUBLISHES && sent < answered.len() as u64 + 400 {
            let channel = if sent.is_multiple_of(3) { "b" } else { "a" };
            socket.send(&mesh_publish(channel, &sent.to_string(), sent)).await;
            sent += 1;
        }
        let answer = socket.json().await;
        let i = answer["i"].as_u64().unwrap();
        let sessions = if i.is_multiple_of(3) { 2 } else { 1 };
        assert_eq!(answer["r"], serde_json::json!({"s": sessions, "f": 0}), "{answer}");
        assert!(answered.insert(i), "{i} was answered twice");
    }
    let seen: Vec<String> =
        edge.seen().iter().map(|(_, live)| String::from_utf8(live.payload.to_vec()).unwrap()).collect();
    let expected: Vec<String> = (0..PUBLISHES).map(|n| n.to_string()).collect();
    assert_eq!(seen, expected);
    let asks = edge.state.asks.load(Ordering::SeqCst);
    assert!(asks < 500, "{asks} asks for {PUBLISHES} publishes: they share none");
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn answers_do_not_wait_for_each_other() {
    let bed = Bed::start(|_| {}).await;
    let mut socket = Socket::connect(bed.address).await;
    socket.send("ping").await;
    socket.send(&mesh_publish("a", "x", "first")).await;
    socket.send(r#"{"m":"queue.pop","id":"second"}"#).await;
    assert_eq!(socket.text().await, "pong");
    let mut echoes = [socket.json().await["i"].clone(), socket.json().await["i"].clone()];
    echoes.sort_by_key(ToString::to_string);
    assert_eq!(echoes, ["first", "second"]);
    bed.finish().await;
}
