//! Leaving gently: paced, to the last message, and then at once.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::{PATIENCE, World, eventually};

#[tokio::test]
async fn sessions_are_sent_away_one_after_the_other_with_what_was_meant_for_them() {
    let world = World::ready(|_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::listening(&world.edge).await);
    }
    world.drain.begin();
    let began = Instant::now();
    let id = world.publish("broadcast", "one more").await;
    let (sessions, failed) = world.counts(id).await;
    assert_eq!(sessions + failed, 20, "those that close still count, as failed");
    let mut received = 0;
    for client in &mut clients {
        // The clients are sent away in any order.
        let first = client.next().await.unwrap();
        if first.is_text() {
            received += 1;
            client.expect_close(1012).await;
        } else {
            assert!(first.is_close());
            assert_eq!(client.next().await, None);
        }
    }
    assert_eq!(received, sessions, "what was accepted arrived");
    assert!(began.elapsed() >= Duration::from_millis(190), "not all at once");
    assert_eq!(world.metric("mc_edge_sessions_closed_total", r#"code="1012""#), 20);
    world.end().await;
}

#[tokio::test]
async fn the_port_is_closed_at_once_and_who_does_not_answer_is_left() {
    let world = World::ready(|_| {}).await;
    let silent = Client::of(&world.edge, "user-1").await;
    world.drain.begin();
    let address = world.edge.local_addr();
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            look.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("nobody new is let in");
    assert_eq!(world.edge.sessions(), 1, "the silent one may still answer");
    eventually("the silent one is left", || world.edge.sessions() == 0).await;
    drop(silent);
    world.end().await;
}

#[tokio::test]
async fn without_sessions_it_leaves_at_once() {
    let world = World::ready(|config| config.drain_window = Duration::from_secs(3_600)).await;
    let began = Instant::now();
    assert_eq!(world.drain.finish(PATIENCE).await, 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    world.end().await;
}

#[tokio::test]
async fn a_handshake_that_has_not_ended_does_not_hold_it() {
    let world = World::ready(|_| {}).await;
    let half_open = TcpStream::connect(world.edge.local_addr()).await.unwrap();
    eventually("the handshake is under way", || world.metric("mc_edge_handshakes", "") == 1).await;
    let began = Instant::now();
    assert_eq!(world.drain.finish(PATIENCE).await, 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(half_open);
    world.end().await;
}
