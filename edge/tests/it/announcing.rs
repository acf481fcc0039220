//! An edge takes clients only when publishers know of it, and tells them when it is gone.

use std::sync::atomic::Ordering;

use shared::wire::EdgeState;

use crate::support::client::Client;
use crate::support::{Ground, World, eventually};

#[tokio::test]
async fn the_first_client_is_taken_only_after_a_publisher_acknowledged() {
    let ground = Ground::new().await;
    let publisher = ground.publisher().await;
    let world = ground.start(|_| {}).await;
    eventually("several heartbeats are out", || publisher.heartbeats().len() > 5).await;
    assert_eq!(publisher.states(), [EdgeState::Starting]);
    assert!(world.health.reasons().contains("announcing"), "{}", world.health.reasons());
    let (status, retry_after) = Client::try_connect(&world.edge).await.err().unwrap();
    assert_eq!((status.as_u16(), retry_after.as_deref()), (503, Some("1")));
    assert_eq!(world.metric("mc_edge_refusals_total", "starting"), 1);

    publisher.acknowledges.store(true, Ordering::SeqCst);
    eventually("the edge is ready", || world.health.is_ready()).await;
    let client = Client::connect(&world.edge).await;
    eventually("the publisher hears of the session", || {
        publisher
            .heartbeats()
            .last()
            .is_some_and(|last| last.sessions == 1 && last.state == EdgeState::Serving)
    })
    .await;
    assert_eq!(publisher.heartbeats().last().unwrap().edge, *world.edge.node());
    client.leave().await;
    world.end().await;
    assert!(publisher.states().starts_with(&[EdgeState::Starting, EdgeState::Serving]));
}

#[tokio::test]
async fn where_nobody_publishes_nobody_is_waited_for() {
    let world = World::ready(|_| {}).await;
    Client::connect(&world.edge).await.leave().await;
    world.end().await;
}

#[tokio::test]
async fn the_last_word_is_bye_and_it_comes_when_the_last_session_is_gone() {
    let ground = Ground::new().await;
    let publisher = ground.publisher().await;
    publisher.acknowledges.store(true, Ordering::SeqCst);
    let world = ground.start(|_| {}).await;
    eventually("the edge is ready", || world.health.is_ready()).await;
    let mut client = Client::of(&world.edge, "user-1").await;
    world.drain.begin();
    eventually("it says that it leaves", || publisher.states().last() == Some(&EdgeState::Draining)).await;
    assert!(world.health.reasons().contains("leaving"));
    client.expect_close(1012).await;
    eventually("it says bye", || publisher.states().last() == Some(&EdgeState::Bye)).await;
    assert_eq!(
        publisher.states(),
        [EdgeState::Starting, EdgeState::Serving, EdgeState::Draining, EdgeState::Bye]
    );
    assert_eq!(publisher.heartbeats().last().unwrap().sessions, 0);
    world.end().await;
}
