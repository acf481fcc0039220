//! The list of those who may not log in, as the bus keeps it.

use std::time::Duration;

use shared::denials::{Denials, now_ms};
use shared::ids::Uid;
use shared::subject;
use shared::wire::Denial;
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::{Ground, PATIENCE, World, eventually, soon};

const HOUR: u64 = 3_600_000;

/// Writes on the list as a publisher does, and tells no edge.
async fn write(list: &Denials, user: &str, milliseconds: u64) -> u64 {
    let until_ms = if milliseconds == 0 { 0 } else { now_ms() + milliseconds };
    let denial = Denial { v: 1, uid: user.into(), until_ms, reason: Some(format!("not {user}")) };
    list.keep(&Uid::parse(user).unwrap(), &denial, Instant::now() + PATIENCE).await.unwrap()
}

/// Whether a login is let in.
async fn is_let_in(world: &World, user: &str) -> bool {
    let mut client = Client::connect(&world.edge).await;
    client.auth(&format!("user-{user}")).await;
    let let_in = matches!(client.next().await, Some(tokio_tungstenite::tungstenite::Message::Text(_)));
    if let_in {
        client.leave().await;
    }
    let_in
}

/// Logs in until it is let in, or not.
async fn until_let_in(world: &World, user: &str, let_in: bool) {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    soon("the edge knows", async {
        while is_let_in(world, user).await != let_in {
            look.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_written_before_an_edge_started_holds() {
    let ground = Ground::new().await;
    let list = Denials::new(&ground.bus, 1);
    for user in 1..=1_200 {
        write(&list, &user.to_string(), HOUR).await;
    }
    write(&list, "7", 0).await;
    write(&list, "8", 1).await;
    let world = ground.start(|_| {}).await;
    soon("the edge is ready", world.health.wait_ready()).await;
    assert!(!is_let_in(&world, "1").await && !is_let_in(&world, "1200").await);
    assert!(is_let_in(&world, "7").await && is_let_in(&world, "8").await && is_let_in(&world, "1201").await);
    assert_eq!(world.metric("mc_edge_denied_users", ""), 1_198);
    world.end().await;
}

#[tokio::test]
async fn an_order_that_only_the_list_knows_is_heard() {
    let world = World::ready(|_| {}).await;
    let list = Denials::new(&world.bus, 1);
    assert!(is_let_in(&world, "1").await);
    write(&list, "1", HOUR).await;
    until_let_in(&world, "1", false).await;
    write(&list, "1", 0).await;
    until_let_in(&world, "1", true).await;
    eventually("nothing is remembered", || world.metric("mc_edge_denied_users", "") == 0).await;
    world.end().await;
}

#[tokio::test]
async fn nobody_is_taken_while_the_list_cannot_be_read() {
    let ground = Ground::new().await;
    let list = Denials::new(&ground.bus, 1);
    write(&list, "1", HOUR).await;
    let mut other = ground.bus.stream_info(subject::DENY_STREAM, PATIENCE).await.unwrap().config;
    ground.bus.delete_stream(subject::DENY_STREAM, PATIENCE).await.unwrap();
    other.name = "OTHER".into();
    other.metadata.clear();
    ground.bus.create_stream(&other, PATIENCE).await.unwrap();
    let world = ground.start(|_| {}).await;
    eventually("it says why", || world.health.reasons().contains("MC_DENY")).await;
    assert_eq!(Client::try_connect(&world.edge).await.err().unwrap().0.as_u16(), 503);
    world.bus.delete_stream("OTHER", PATIENCE).await.unwrap();
    soon("the edge is ready", world.health.wait_ready()).await;
    Client::of(&world.edge, "user-1").await.leave().await;
    world.end().await;
}

#[tokio::test]
async fn a_list_that_is_made_anew_is_followed_and_who_was_kept_out_stays_out() {
    let world = World::ready(|_| {}).await;
    let list = Denials::new(&world.bus, 1);
    for user in 1..=5 {
        write(&list, &user.to_string(), HOUR).await;
    }
    until_let_in(&world, "5", false).await;
    world.bus.delete_stream(subject::DENY_STREAM, PATIENCE).await.unwrap();
    assert_eq!(write(&list, "6", HOUR).await, 1);
    write(&list, "2", 0).await;
    until_let_in(&world, "6", false).await;
    until_let_in(&world, "2", true).await;
    assert!(!is_let_in(&world, "1").await);
    world.end().await;
}
