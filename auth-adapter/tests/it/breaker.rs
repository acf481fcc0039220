//! A business system that fails is left alone, and asked again when it is back.

use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use shared::subject;
use shared::wire::{AuthHeartbeat, AuthState, Envelope as _, Verdict};
use tokio::time::Instant;

use crate::support::{PATIENCE, Rig, Script, eventually, known, soon, unavailable};

const OPEN: &str = "mc_auth_breaker_state{state=\"open\"}";
const CLOSED: &str = "mc_auth_breaker_state{state=\"closed\"}";
const TO_OPEN: &str = "mc_auth_breaker_transitions_total{state=\"open\"}";

/// Starts an adapter whose breaker opens after four failures, for the given time.
async fn rig(open: Duration) -> Rig {
    Rig::with(|config| {
        config.breaker.min_calls = 4;
        config.breaker.open = open;
        config.breaker.open_longest = open;
    })
    .await
}

async fn fail(rig: &Rig) {
    for call in 0..4 {
        unavailable(&rig.edge.ask(&format!("user-{}", 100 + call)).await);
    }
    assert_eq!((rig.adapter.metric(OPEN), rig.adapter.metric(CLOSED)), (1, 0));
}

#[tokio::test]
async fn an_open_breaker_answers_at_once_and_remembered_tokens_are_still_good() {
    let rig = rig(Duration::from_secs(600)).await;
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    assert_eq!(rig.adapter.metric(CLOSED), 1);
    rig.business.follow(Script::Says(500, String::new()));
    fail(&rig).await;
    const REFUSED: &str = "mc_auth_drops_total{reason=\"breaker_open\"}";
    let (calls, refused) = (rig.business.call_count(), rig.adapter.metric(REFUSED));
    // The business system holds its answers, so that a call that should not be made would not be answered.
    rig.business.hold();
    for token in 0..50 {
        let verdict = rig.edge.ask(&format!("user-{}", 200 + token)).await;
        assert!(unavailable(&verdict).contains("fails too often"), "{verdict:?}");
    }
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    assert_eq!(rig.business.call_count(), calls, "nobody asked it");
    assert_eq!(rig.adapter.metric(REFUSED), refused + 50);
    assert_eq!(rig.adapter.metric(TO_OPEN), 1);
    rig.end().await;
}

#[tokio::test]
async fn a_refusal_is_no_failure() {
    let rig = rig(Duration::from_secs(600)).await;
    for token in 0..20 {
        rig.edge.ask(&format!("nobody-{token}")).await;
    }
    rig.business.follow(Script::Says(401, String::new()));
    for token in 0..20 {
        assert_eq!(rig.edge.ask(&format!("no-one-{token}")).await, Verdict::Unknown);
    }
    rig.business.follow(Script::Honest);
    assert_eq!(rig.adapter.metric(CLOSED), 1);
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    rig.end().await;
}

#[tokio::test]
async fn probes_find_out_that_it_is_back_and_then_everyone_may_ask() {
    let rig = rig(Duration::from_millis(50)).await;
    rig.business.follow(Script::Says(503, String::new()));
    fail(&rig).await;
    eventually("a probe failed", async || {
        unavailable(&rig.edge.ask("user-1").await);
        rig.adapter.metric(TO_OPEN) >= 2
    })
    .await;
    rig.business.follow(Script::Honest);
    // Each question has another token, since a yes is remembered.
    let mut uid = 1_000;
    eventually("it is closed again", async || {
        uid += 1;
        rig.edge.ask(&format!("user-{uid}")).await;
        rig.adapter.metric(CLOSED) == 1
    })
    .await;
    let tokens: Vec<String> = (2_000..2_100).map(|uid| format!("user-{uid}")).collect();
    for (token, verdict) in tokens.iter().zip(rig.ask_all(&tokens).await) {
        assert_eq!(verdict, known(token.strip_prefix("user-").unwrap()));
    }
    rig.end().await;
}

#[tokio::test]
async fn while_it_finds_out_only_the_probes_are_asked() {
    let rig = rig(Duration::from_millis(50)).await;
    rig.business.follow(Script::Says(500, String::new()));
    fail(&rig).await;
    rig.business.follow(Script::Honest);
    rig.business.hold();
    let before = rig.business.call_count();
    // One question after the other, since the breaker may let calls through between any two. The test does
    // not wait for questions whose answer is held.
    let (mut asked, mut uid) = (FuturesUnordered::new(), 0);
    eventually("probes are under way", async || {
        uid += 1;
        asked.push(ask_of(&rig, uid));
        while let Some(Some(verdict)) = asked.next().now_or_never() {
            unavailable(&verdict);
        }
        rig.business.in_flight() == 3
    })
    .await;
    let tokens: Vec<String> = (1_001..=1_100).map(|uid| format!("user-{uid}")).collect();
    for verdict in rig.ask_all(&tokens).await {
        unavailable(&verdict);
    }
    soon("all but the probes are answered", async {
        while asked.len() > 3 {
            unavailable(&asked.next().await.unwrap());
        }
    })
    .await;
    rig.business.open();
    for verdict in soon("the probes are answered", asked.collect::<Vec<_>>()).await {
        assert!(matches!(verdict, Verdict::Known(_)), "{verdict:?}");
    }
    assert_eq!((rig.business.call_count(), rig.business.most_in_flight()), (before + 3, 3));
    assert_eq!(rig.adapter.metric(CLOSED), 1);
    assert_eq!(rig.edge.ask("user-1001").await, known("1001"));
    rig.end().await;
}

async fn ask_of(rig: &Rig, uid: u32) -> Verdict {
    rig.edge.ask(&format!("user-{uid}")).await
}

#[tokio::test]
async fn a_system_that_asks_everyone_for_time_gets_it() {
    for status in [429, 503] {
        let rig = Rig::with(|config| {
            config.breaker.min_calls = 4;
            config.breaker.open_longest = Duration::from_secs(600);
        })
        .await;
        rig.business.follow(Script::ComeBackIn(status, 300));
        for call in 1..=4 {
            assert_eq!(rig.adapter.metric(OPEN), 0, "one wish may be about one token");
            assert!(unavailable(&rig.edge.ask(&format!("user-{call}")).await).contains(&status.to_string()));
        }
        assert_eq!(rig.adapter.metric(OPEN), 1);
        rig.business.follow(Script::Honest);
        let verdict = rig.edge.ask("user-5").await;
        assert!(unavailable(&verdict).contains("for another 29"), "{verdict:?}");
        assert_eq!(rig.business.call_count(), 4);
        rig.end().await;
    }
}

#[tokio::test]
async fn those_who_wait_for_a_turn_are_told_when_it_opens() {
    let rig = Rig::with(|config| {
        config.max_in_flight = 4;
        config.deadline = Duration::from_millis(500);
        config.breaker.min_calls = 4;
        config.breaker.open = Duration::from_secs(600);
        config.breaker.open_longest = Duration::from_secs(600);
    })
    .await;
    rig.business.hold();
    let tokens: Vec<String> = (1..=400).map(|uid| format!("user-{uid}")).collect();
    let began = Instant::now();
    let verdicts = rig.ask_all(&tokens).await;
    assert!(verdicts.iter().all(|verdict| !unavailable(verdict).is_empty()));
    // Four calls at a time, each for its deadline of half a second: calling for every token would take fifty
    // seconds.
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert!(rig.business.call_count() <= 8, "{}", rig.business.call_count());
    rig.end().await;
}

#[tokio::test]
async fn the_edges_are_told_when_it_opens_and_when_it_is_worth_asking_again() {
    let rig = rig(Duration::from_millis(100)).await;
    let mut heartbeats = rig.edge.bus.subscribe(subject::VERIFY_HEARTBEAT, None, PATIENCE).await.unwrap();
    rig.edge.bus.barrier(PATIENCE).await.unwrap();
    rig.business.follow(Script::Says(500, String::new()));
    fail(&rig).await;
    for state in [AuthState::Unable, AuthState::Able] {
        soon("it says so", async {
            loop {
                let message = heartbeats.next().await.unwrap();
                if AuthHeartbeat::decode(&message.payload).unwrap().state == state {
                    return;
                }
            }
        })
        .await;
    }
    rig.end().await;
}
