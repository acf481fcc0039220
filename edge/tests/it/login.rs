//! Whatever an auth-adapter does, a client hears yes, no, or "can't tell".

use std::time::Duration;

use futures_util::StreamExt as _;
use shared::subject;
use shared::wire::{Envelope as _, VerifyRequest};

use crate::support::client::Client;
use crate::support::{Ground, PATIENCE, World, eventually, soon};

#[tokio::test]
async fn no_answer_and_rubbish_are_never_a_yes_or_a_no() {
    let world = World::ready(|config| config.auth_deadline = Duration::from_millis(300)).await;
    for token in ["away-for-lunch", "rubbish-!", r"rubbish-{}", "silent-forever", "user-0"] {
        let mut client = Client::connect(&world.edge).await;
        client.auth(token).await;
        client.expect(r#"{"code":3,"msg":"Auth Unavailable"}"#).await;
        client.expect_close(1013).await;
    }
    let mut client = Client::connect(&world.edge).await;
    client.auth("stolen").await;
    client.expect(r#"{"code":2,"msg":"Auth Failed"}"#).await;
    client.expect_close(4401).await;
    let outcomes =
        ["unavailable", "unknown", "known"].map(|outcome| world.metric("mc_edge_logins_total", outcome));
    // "unknown" holds "known".
    assert_eq!(outcomes, [5, 1, 1]);
    world.end().await;
}

#[tokio::test]
async fn a_token_check_waits_a_moment_for_somebody_to_ask() {
    let world = Ground::without_adapter().await.start(|_| {}).await;
    soon("the edge is ready", world.health.wait_ready()).await;
    let questions = || world.metric("mc_edge_token_questions_total", "");
    let mut client = Client::connect(&world.edge).await;
    client.auth("user-1").await;
    client.expect(r#"{"code":3,"msg":"Auth Unavailable"}"#).await;
    client.expect_close(1013).await;
    let asked = questions();
    assert!(asked > 1, "it was asked again");

    let mut client = Client::connect(&world.edge).await;
    client.auth("user-1").await;
    eventually("it is asked", || questions() > asked).await;
    world.serve_tokens().await;
    client.expect(r#"{"result":true}"#).await;
    client.leave().await;
    world.end().await;
}

#[tokio::test]
async fn a_token_check_waits_for_its_place_but_not_longer_than_its_deadline() {
    let world = World::ready(|config| {
        config.max_token_checks = 1;
        config.auth_deadline = Duration::from_millis(300);
    })
    .await;
    let mut first = Client::connect(&world.edge).await;
    first.auth("silent-forever").await;
    let mut second = Client::connect(&world.edge).await;
    second.auth("silent-as-well").await;
    for client in [&mut first, &mut second] {
        client.expect(r#"{"code":3,"msg":"Auth Unavailable"}"#).await;
        client.expect_close(1013).await;
    }
    Client::of(&world.edge, "user-1").await.leave().await;
    world.end().await;
}

#[tokio::test]
async fn messages_held_back_for_one_user_are_not_given_to_the_next() {
    let world = World::ready(|_| {}).await;
    let mut client = Client::of(&world.edge, "short-1").await;
    client.say(r#"{"op":"subscribe","channel":"@user"}"#).await;
    client.expect(r#"{"result":true}"#).await;
    client.expect(r#"{"code":9,"msg":"Auth Expired"}"#).await;
    let id = world.publish("user:1", "for user 1").await;
    assert_eq!(world.counts(id).await, (1, 0));
    client.auth("user-2").await;
    client.expect(r#"{"result":true}"#).await;
    client.say("ping").await;
    client.expect("pong").await;
    assert_eq!(world.metric("mc_edge_losses_total", "other_user"), 1, "but it is counted");
    client.leave().await;
    world.end().await;
}

/// The adapters need the source, to tell the failures of one device from those of all.
#[tokio::test]
async fn the_question_says_where_the_device_is() {
    let world = World::ready(|_| {}).await;
    let mut questions = world.bus.subscribe(subject::VERIFY, None, PATIENCE).await.unwrap();
    world.bus.barrier(PATIENCE).await.unwrap();
    let mut client = Client::connect(&world.edge).await;
    client.auth("user-1").await;
    client.expect(r#"{"result":true}"#).await;
    let question = soon("the question", questions.next()).await.unwrap();
    let from = VerifyRequest::decode(&question.payload).unwrap().from;
    assert_eq!(from.as_deref(), Some("127.0.0.1"));
    drop(client);
    world.end().await;
}
