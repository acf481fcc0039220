//! Several adapters, a bus that is away, and leaving.

use std::time::Duration;

use auth_adapter::Config;
use futures_util::StreamExt as _;
use shared::bus::RequestError;
use shared::bus::async_nats::Subscriber;
use shared::subject;
use shared::wire::{AuthHeartbeat, AuthState, Envelope as _, Verdict};

use crate::support::{Adapter, PATIENCE, Rig, eventually, known, soon};

#[tokio::test]
async fn two_adapters_share_the_questions() {
    let rig = Rig::start().await;
    let second =
        Adapter::start(&rig.bus.server, Config { url: rig.business.url(), ..Config::default() }).await;
    second.ready().await;
    let tokens: Vec<String> = (1..=200).map(|uid| format!("user-{uid}")).collect();
    let answers = rig.ask_all(&tokens).await;
    assert!(answers.iter().all(|answer| matches!(answer, Verdict::Known(_))), "{answers:?}");
    let known = "mc_auth_verdicts_total{verdict=\"known\"}";
    let (first_part, second_part) = (rig.adapter.metric(known), second.metric(known));
    assert_eq!(first_part + second_part, 200, "each question was answered once");
    assert!(first_part > 0 && second_part > 0, "{first_part} and {second_part}");

    // One adapter leaves; the other goes on alone.
    second.leave().await;
    assert_eq!(rig.edge.ask("user-201").await, self::known("201"));
    rig.end().await;
}

#[tokio::test]
async fn an_adapter_says_who_it_is_answers_there_and_says_bye() {
    let rig = Rig::start().await;
    let mut heartbeats = rig.edge.bus.subscribe(subject::VERIFY_HEARTBEAT, None, PATIENCE).await.unwrap();
    rig.edge.bus.publish(subject::VERIFY_HELLO, None, None, Vec::new().into()).await.unwrap();
    let said = async |heartbeats: &mut Subscriber| {
        let message = soon("a heartbeat", heartbeats.next()).await.unwrap();
        AuthHeartbeat::decode(&message.payload).unwrap()
    };
    let heartbeat = said(&mut heartbeats).await;
    assert_eq!(heartbeat.state, AuthState::Able);
    let own = subject::verify_at(&heartbeat.adapter);
    assert_eq!(rig.edge.ask_at(own.clone(), "user-1").await, Ok(known("1")));

    rig.adapter.drain.begin();
    while said(&mut heartbeats).await.state != AuthState::Bye {}
    eventually("nobody listens there", async || {
        rig.edge.ask_at(own.clone(), "user-2").await == Err(RequestError::NoResponders)
    })
    .await;
    rig.end().await;
}

#[tokio::test]
async fn it_is_unready_while_the_bus_is_away_and_says_so() {
    let mut rig = Rig::with(|config| config.bus_grace = Duration::from_millis(50)).await;
    rig.bus.stop().await;
    let health = rig.adapter.health.clone();
    eventually("it is unready", async || health.reasons().contains("the bus is gone")).await;

    // An adapter that starts meanwhile is unready from the start, and tries again and again.
    let config = Config { url: rig.business.url(), ..Config::default() };
    let late = Adapter::start(&rig.bus.server, config).await;
    eventually("it says so", async || late.health.reasons().contains("can't be reached yet")).await;

    rig.bus.restart().await;
    rig.adapter.ready().await;
    late.ready().await;
    eventually("the edge is back", async || rig.edge.bus.is_connected()).await;
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    late.leave().await;
    rig.end().await;
}

#[tokio::test]
async fn an_outage_within_the_grace_makes_nothing_unready() {
    let mut rig = Rig::with(|config| config.bus_grace = Duration::from_secs(600)).await;
    rig.bus.stop().await;
    eventually("the edge noticed", async || !rig.edge.bus.is_connected()).await;
    assert!(rig.adapter.health.is_ready());
    rig.bus.restart().await;
    eventually("questions arrive again", async || {
        rig.edge.ask_within("user-1", PATIENCE).await == Ok(known("1"))
    })
    .await;
    assert!(rig.adapter.health.is_ready());
    rig.end().await;
}

#[tokio::test]
async fn leaving_answers_what_was_asked_and_takes_nothing_new() {
    let rig = Rig::start().await;
    rig.business.hold();
    let leave = async {
        eventually("the question is under way", async || rig.business.in_flight() == 1).await;
        rig.adapter.drain.begin();
        eventually("it is unready", async || rig.adapter.health.reasons().contains("leaving")).await;
        eventually("new questions find nobody", async || {
            rig.edge.ask_within("user-2", Duration::from_millis(50)).await == Err(RequestError::NoResponders)
        })
        .await;
        rig.business.open();
    };
    let (answer, ()) = tokio::join!(rig.edge.ask("user-1"), leave);
    assert_eq!(answer, known("1"));
    soon("it has left", rig.adapter.leave()).await;
    rig.end().await;
}
