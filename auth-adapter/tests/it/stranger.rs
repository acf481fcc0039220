//! A stranger, whose tokens make the business system fail, must not keep other devices out.

use std::time::Duration;

use shared::wire::Verdict;
use tokio::time::Instant;

use crate::support::{Rig, Script, known, unavailable};

const OPEN: &str = "mc_auth_breaker_state{state=\"open\"}";
const TO_OPEN: &str = "mc_auth_breaker_transitions_total{state=\"open\"}";
const STOPPED: &str = "mc_auth_drops_total{reason=\"address_stopped\"}";
const POSTPONED: &str = "mc_auth_drops_total{reason=\"postponed\"}";
const STRANGER: &str = "192.0.2.66";

/// Starts an adapter whose business system fails for the stranger's tokens only.
async fn rig(answer: Script) -> Rig {
    let rig = Rig::with(|config| {
        config.breaker.open = Duration::from_secs(600);
        config.breaker.open_longest = Duration::from_secs(600);
    })
    .await;
    rig.business.follow(Script::StumblesOver("bad-", Box::new(answer)));
    rig
}

#[tokio::test]
async fn a_stranger_with_an_address_of_its_own_stops_nobody() {
    for answer in
        [Script::Says(500, String::new()), Script::ComeBackIn(429, 600), Script::Says(200, "<html>".into())]
    {
        let rig = rig(answer).await;
        // At first only the stranger calls: failures of one address alone say nothing about the business
        // system.
        for call in 0..100 {
            unavailable(&rig.edge.ask_from(STRANGER, &format!("bad-{call}")).await);
        }
        assert!(rig.adapter.metric(STOPPED) >= 80, "nothing of it succeeds, so it is left alone itself");
        for uid in 1_u32..=200 {
            unavailable(&rig.edge.ask_from(STRANGER, &format!("bad-again-{uid}")).await);
            let from = format!("198.51.100.{}", uid % 50);
            assert_eq!(rig.edge.ask_from(&from, &format!("user-{uid}")).await, known(&uid.to_string()));
        }
        assert_eq!((rig.adapter.metric(TO_OPEN), rig.adapter.metric(OPEN)), (0, 0));
        rig.end().await;
    }
}

/// The stranger makes three calls for each call of the others, all from the same address, as behind a proxy
/// that does not pass addresses on.
#[tokio::test]
async fn a_stranger_behind_the_same_address_stops_nobody_either() {
    for from in [Some("192.0.2.1"), None] {
        let rig = rig(Script::Says(500, String::new())).await;
        let ask = async |token: &str| match from {
            Some(from) => rig.edge.ask_from(from, token).await,
            None => rig.edge.ask(token).await,
        };
        for uid in 1_u32..=100 {
            assert_eq!(ask(&format!("user-{uid}")).await, known(&uid.to_string()), "{from:?}");
            for call in 0..3 {
                unavailable(&ask(&format!("bad-{uid}-{call}")).await);
            }
        }
        assert_eq!(rig.adapter.metric(TO_OPEN), 0);
        rig.end().await;
    }
}

#[tokio::test]
async fn a_wish_not_to_be_asked_about_a_token_is_followed_for_that_token() {
    let rig = rig(Script::ComeBackIn(429, 300)).await;
    assert!(unavailable(&rig.edge.ask("bad-1").await).contains("429"));
    let verdict = rig.edge.ask("bad-1").await;
    assert!(unavailable(&verdict).contains("for another 29"), "{verdict:?}");
    assert_eq!((rig.business.call_count(), rig.adapter.metric(POSTPONED)), (1, 1));
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    rig.end().await;
}

#[tokio::test]
async fn a_token_with_control_characters_is_refused_without_a_question() {
    let rig = rig(Script::Says(500, String::new())).await;
    for token in ["bad-\0", "\0", "user-1\n", "user-1\u{7f}", "user-\u{85}1"] {
        assert_eq!(rig.edge.ask(token).await, Verdict::Unknown, "{token:?}");
    }
    assert_eq!(rig.business.call_count(), 0);
    assert_eq!(rig.edge.ask("user-ümläut").await, known("ümläut"), "these are none");
    rig.end().await;
}

/// A real outage is still noticed: a thousand devices that come back cost the business system only a few
/// calls.
#[tokio::test]
async fn a_system_that_is_down_is_spared_by_all_addresses_together_and_by_each() {
    for one_address in [false, true] {
        let rig = rig(Script::Honest).await;
        assert_eq!(rig.edge.ask_from("198.51.100.1", "user-1").await, known("1"));
        rig.business.follow(Script::Says(500, String::new()));
        let began = Instant::now();
        for call in 2..1_000 {
            let from = if one_address {
                "198.51.100.1".into()
            } else {
                format!("10.0.{}.{}", call / 250, call % 250)
            };
            unavailable(&rig.edge.ask_from(&from, &format!("user-{call}")).await);
        }
        let calls = rig.business.call_count();
        // An address with a success is allowed more failures, since other devices may share the address.
        assert!(calls <= if one_address { 60 } else { 20 }, "{calls} calls in {:?}", began.elapsed());
        assert_eq!(rig.adapter.metric(OPEN), u64::from(!one_address));
        rig.end().await;
    }
}

#[tokio::test]
async fn a_token_that_was_good_finds_out_that_the_system_is_back() {
    let rig = Rig::with(|config| {
        config.remember_yes = Duration::ZERO;
        config.breaker.min_calls = 4;
        config.breaker.probes = 1;
        config.breaker.open = Duration::from_millis(50);
        config.breaker.open_longest = Duration::from_secs(600);
    })
    .await;
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    // The breaker opens again and again, until it stays open for longer than this test may take.
    rig.business.follow(Script::Says(500, String::new()));
    crate::support::eventually("it has opened often", async || {
        rig.edge.ask(&format!("user-{}", fastrand::u32(2..))).await;
        rig.adapter.metric(TO_OPEN) >= 6
    })
    .await;
    rig.business.follow(Script::Honest);
    let began = Instant::now();
    unavailable(&rig.edge.ask("user-2").await);
    crate::support::eventually("a good token gets through", async || {
        rig.edge.ask("user-1").await == known("1")
    })
    .await;
    // Without the good token, the business system would have been left alone for at least 1.2 s.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(rig.edge.ask("user-2").await, known("2"), "and so everyone does");
    rig.end().await;
}
