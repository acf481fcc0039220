//! How long a yes and a no are remembered.

use std::time::Duration;

use serde_json::json;
use shared::wire::{Login, Verdict};
use tokio::time::Instant;

use crate::support::{Rig, Script, eventually, known};

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_yes_is_remembered_for_its_time() {
    let rig = Rig::with(|config| (config.remember_yes, config.remember_no) = (LONG, SHORT)).await;
    for _ in 0..10 {
        assert_eq!(rig.edge.ask("user-1").await, known("1"));
    }
    assert_eq!(rig.business.call_count(), 1);
    assert_eq!(rig.adapter.metric("mc_auth_lookups_total{source=\"memory\"}"), 9);
    rig.end().await;

    let rig = Rig::with(|config| (config.remember_yes, config.remember_no) = (SHORT, LONG)).await;
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    rig.business.follow(Script::Says(401, String::new()));
    eventually("the yes is forgotten", async || rig.edge.ask("user-1").await == Verdict::Unknown).await;
    assert_eq!(rig.business.call_count(), 2);
    rig.end().await;
}

#[tokio::test]
async fn a_no_is_remembered_for_its_time() {
    let rig = Rig::with(|config| (config.remember_yes, config.remember_no) = (SHORT, LONG)).await;
    for _ in 0..10 {
        assert_eq!(rig.edge.ask("nobody").await, Verdict::Unknown);
    }
    assert_eq!(rig.business.call_count(), 1);
    rig.end().await;

    let rig = Rig::with(|config| (config.remember_yes, config.remember_no) = (LONG, SHORT)).await;
    assert_eq!(rig.edge.ask("late").await, Verdict::Unknown);
    rig.business.say(&json!({ "uid": 5 }));
    eventually("the no is forgotten", async || rig.edge.ask("late").await == known("5")).await;
    for _ in 0..10 {
        assert_eq!(rig.edge.ask("late").await, known("5"), "the yes that followed is remembered as one");
    }
    assert_eq!(rig.business.call_count(), 2);
    rig.end().await;
}

#[tokio::test]
async fn a_remembered_login_has_only_the_rest_of_its_life() {
    let rig = Rig::with(|config| config.remember_yes = LONG).await;
    rig.business.say(&json!({ "uid": 5, "expires_in": 1.0 }));
    let (began, mut last) = (Instant::now(), 1_000);
    let answers_once = async || match rig.edge.ask("limited").await {
        Verdict::Known(Login { expires_in_ms: Some(left), .. }) => Some(left),
        Verdict::Known(Login { expires_in_ms: None, .. }) => panic!("the login expires"),
        Verdict::Unknown | Verdict::Unavailable { .. } => None,
    };
    assert!(answers_once().await.is_some_and(|left| left <= last));
    // From here on the business system would refuse the token, but the adapter asks only after the login has
    // ended.
    rig.business.follow(Script::Says(403, String::new()));
    eventually("the login ends", async || {
        let left = answers_once().await;
        if let Some(left) = left {
            assert!(left <= last, "{left} ms after {last} ms");
            last = left;
        }
        left.is_none()
    })
    .await;
    // Verdicts count whole milliseconds, so a login can end up to a millisecond early.
    assert!(began.elapsed() >= Duration::from_millis(999), "it ended after {:?}", began.elapsed());
    eventually("the business system is asked again", async || {
        assert_eq!(rig.edge.ask("limited").await, Verdict::Unknown);
        rig.business.call_count() == 2
    })
    .await;
    rig.end().await;
}

#[tokio::test]
async fn nothing_is_remembered_where_the_times_are_zero() {
    let rig =
        Rig::with(|config| (config.remember_yes, config.remember_no) = (Duration::ZERO, Duration::ZERO))
            .await;
    for calls in 1..=5 {
        assert_eq!(rig.edge.ask("user-1").await, known("1"));
        assert_eq!(rig.business.call_count(), calls);
    }
    rig.end().await;
}

#[tokio::test]
async fn an_answer_from_before_a_refresh_is_not_given_to_who_wants_a_newer_one() {
    let rig = Rig::with(|config| config.remember_yes = LONG).await;
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    for (newer_than, calls) in [
        (Some(7), 2),
        (Some(7), 2),
        (None, 2),
        (Some(6), 2),
        (Some(8), 3),
        (Some(7), 3),
        // A wish of the far future is a number like any other.
        (Some(u64::MAX), 4),
        (Some(9), 4),
    ] {
        assert_eq!(rig.edge.ask_newer("user-1", newer_than).await, known("1"));
        assert_eq!(rig.business.call_count(), calls, "{newer_than:?}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_business_system_without_an_answer_leaves_who_wants_a_newer_one_without_the_old() {
    let rig = Rig::with(|config| config.remember_yes = LONG).await;
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    rig.business.follow(Script::Says(500, String::new()));
    let answer = rig.edge.ask_newer("user-1", Some(7)).await;
    assert!(matches!(answer, Verdict::Unavailable { .. }), "{answer:?}");
    let answer = rig.edge.ask("user-1").await;
    assert!(matches!(answer, Verdict::Unavailable { .. }), "the old answer is not given again: {answer:?}");
    rig.end().await;
}
