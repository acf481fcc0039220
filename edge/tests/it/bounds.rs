//! The bounds of one session and of one user: a client learns which one it reached, and each refusal counts.

use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Client;
use crate::support::{World, eventually};

const YES: &str = r#"{"result":true}"#;

#[tokio::test]
async fn ops_beyond_the_rate_are_refused_and_who_goes_on_is_closed() {
    let world = World::ready(|config| (config.ops_per_second, config.first_ops) = (1, 0)).await;
    let mut client = Client::connect(&world.edge).await;
    for _ in 0..40 {
        client.say(r#"{"op":"unsubscribe","channel":"@broadcast"}"#).await;
    }
    let (mut refused, mut last) = (0, None);
    while let Some(message) = client.next().await {
        refused += u64::from(message == Message::text(r#"{"code":7,"msg":"Too Many Requests"}"#));
        last = Some(message);
    }
    assert!(refused >= 10, "{refused}");
    let Some(Message::Close(Some(close))) = last else { panic!("{last:?}") };
    assert_eq!(u16::from(close.code), 4429);
    assert_eq!(world.metric("mc_edge_errors_total", "too_many_requests"), refused);
    assert_eq!(world.metric("mc_edge_sessions_closed_total", "too_many_ops"), 1);
    world.end().await;
}

#[tokio::test]
async fn a_connection_may_begin_with_a_hundred_ops_at_once() {
    let world = World::ready(|_| {}).await;
    let mut client = Client::of(&world.edge, "user-1").await;
    for number in 0..80 {
        client.say(&format!(r#"{{"op":"subscribe","channel":"{number}@open"}}"#)).await;
    }
    for _ in 0..80 {
        client.expect(YES).await;
    }
    client.say(r#"{"op":"subscribe","channel":"80@open"}"#).await;
    client.expect(r#"{"code":8,"msg":"Too Many Subscriptions"}"#).await;
    client.leave().await;
    world.end().await;
}

#[tokio::test]
async fn subscriptions_beyond_the_limit_are_refused() {
    let world = World::ready(|config| config.max_subscriptions = 1).await;
    let mut client = Client::of(&world.edge, "user-1").await;
    for (channel, answer) in
        [("@user", YES), ("@broadcast", r#"{"code":8,"msg":"Too Many Subscriptions"}"#), ("@user", YES)]
    {
        client.say(&format!(r#"{{"op":"subscribe","channel":"{channel}"}}"#)).await;
        client.expect(answer).await;
    }
    assert_eq!(world.metric("mc_edge_errors_total", "too_many_subscriptions"), 1);
    client.leave().await;
    world.end().await;
}

#[tokio::test]
async fn a_user_s_session_too_many_takes_the_place_of_the_oldest() {
    let world = World::ready(|config| config.sessions_per_user = 1).await;
    let mut oldest = Client::of(&world.edge, "user-1").await;
    let newest = Client::of(&world.edge, "user-1").await;
    oldest.expect_close(4409).await;
    assert_eq!(world.metric("mc_edge_sessions_closed_total", "replaced"), 1);
    newest.leave().await;
    world.end().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_when_its_outbox_is_full() {
    let world = World::ready(|config| config.outbox = shared::config::ByteSize(64 << 10)).await;
    let slow = Client::listening(&world.edge).await;
    let text = "x".repeat(32 << 10);
    let closed = |world: &World| world.metric("mc_edge_sessions_closed_total", "too_slow");
    // As many messages as the system buffers for the socket, and a few more.
    while closed(&world) == 0 {
        let id = world.publish("broadcast", &text).await;
        world.counts(id).await;
    }
    drop(slow);
    eventually("it has left", || world.edge.sessions() == 0).await;
    world.end().await;
}
