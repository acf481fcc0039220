//! The three verdicts; an answer that is neither yes nor no is never taken for one of these.

use std::time::Duration;

use serde_json::{Value, json};
use shared::config::Secret;
use shared::wire::{Login, Verdict};
use tokio::time::Instant;

use crate::support::{PATIENCE, Rig, Script, known, unavailable};

#[tokio::test]
async fn yes_no_and_no_answer_are_kept_apart() {
    let rig = Rig::start().await;
    assert_eq!(rig.edge.ask("user-1001").await, known("1001"));
    assert_eq!(rig.edge.ask("nobody").await, Verdict::Unknown);
    rig.business.follow(Script::Says(401, String::new()));
    assert_eq!(rig.edge.ask("refused by the status").await, Verdict::Unknown);
    rig.business.follow(Script::Says(500, r#"{"uid":1}"#.into()));
    let verdict = rig.edge.ask("user-1002").await;
    assert!(unavailable(&verdict).contains("HTTP status 500"), "{verdict:?}");

    rig.business.say(&json!({ "uid": 7, "expires_in": 3600 }));
    match rig.edge.ask("limited").await {
        Verdict::Known(Login { uid, expires_in_ms: Some(left), .. }) => {
            assert!(uid == "7" && (3_500_000..=3_600_000).contains(&left), "{uid} {left}");
        }
        other @ (Verdict::Known(_) | Verdict::Unknown | Verdict::Unavailable { .. }) => {
            panic!("a login that expires was expected: {other:?}")
        }
    }
    for verdict in ["known", "unknown", "unavailable"] {
        let line = format!("mc_auth_verdicts_total{{verdict=\"{verdict}\"}}");
        assert!(rig.adapter.metric(&line) >= 1, "{line}");
    }
    assert_eq!(rig.adapter.metric("mc_auth_business_calls_total{outcome=\"status\"}"), 1);
    rig.end().await;
}

#[tokio::test]
async fn rubbish_of_any_size_is_no_answer() {
    let rig = Rig::start().await;
    let cases = [
        ("empty", Script::Says(200, String::new()), "not JSON"),
        ("page", Script::Says(200, "<html>Welcome to our shop!</html>".into()), "not JSON"),
        ("deep", Script::Says(200, "[".repeat(60_000)), "not JSON"),
        (
            "large",
            Script::Says(200, format!("{{\"uid\":1,\"x\":\"{}\"}}", "x".repeat(70_000))),
            "more than 65536",
        ),
        ("endless", Script::Endless, "more than 65536"),
        ("away", Script::Says(404, "{}".into()), "HTTP status 404"),
        ("many", Script::Says(429, "{}".into()), "HTTP status 429"),
        ("expiry", Script::Says(200, r#"{"uid":1,"expires_in":"soon"}"#.into()), "expires_in"),
        ("moved", Script::Redirects, "HTTP status 307"),
    ];
    for (token, script, reason) in cases {
        rig.business.follow(script);
        let verdict = rig.edge.ask(token).await;
        assert!(unavailable(&verdict).contains(reason), "{token}: {verdict:?}");
    }
    assert_eq!(rig.business.redirected(), 0, "a token went to where the redirect led");
    rig.business.follow(Script::Honest);
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    rig.end().await;
}

#[tokio::test]
async fn a_slow_business_system_costs_no_more_than_the_deadline() {
    let rig = Rig::with(|config| config.deadline = Duration::from_millis(100)).await;
    rig.business.hold();
    let began = Instant::now();
    let verdict = rig.edge.ask("user-1").await;
    assert!(unavailable(&verdict).contains("did not answer within 100ms"), "{verdict:?}");
    assert!(began.elapsed() >= Duration::from_millis(100));
    rig.business.open();
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    rig.end().await;
}

#[tokio::test]
async fn a_business_system_that_is_gone_is_no_answer_and_no_reason_to_be_unready() {
    let rig = Rig::start().await;
    rig.business.stop().await;
    let verdict = rig.edge.ask("user-1").await;
    assert!(unavailable(&verdict).contains("can't be reached"), "{verdict:?}");
    assert!(rig.adapter.health.is_ready(), "{}", rig.adapter.health.reasons());
    rig.end().await;
}

#[tokio::test]
async fn the_token_goes_out_as_json_or_as_a_form_with_the_configured_headers() {
    for (place, kind) in
        [("json:token", "application/json"), ("form:token", "application/x-www-form-urlencoded")]
    {
        let rig = Rig::with(|config| {
            config.request.token = Some(place.into());
            config.headers.insert("Authorization".into(), Secret::new("Bearer hunter2"));
        })
        .await;
        rig.business.say(&json!({ "uid": 1 }));
        assert_eq!(rig.edge.ask("a b&c=\"ü").await, known("1"));
        let call = rig.business.calls().pop().unwrap();
        assert_eq!(call.headers["content-type"], kind);
        assert_eq!(call.headers["authorization"], "Bearer hunter2");
        assert_eq!(call.headers["user-agent"], concat!("message-center/", env!("CARGO_PKG_VERSION")));
        if place == "json:token" {
            let body: Value = serde_json::from_str(&call.body).unwrap();
            assert_eq!(body, json!({ "token": "a b&c=\"ü" }));
        } else {
            assert_eq!(call.body, "token=a+b%26c%3D%22%C3%BC");
        }
        rig.end().await;
    }
}

#[tokio::test]
async fn tokens_that_can_be_none_are_refused_without_asking() {
    let rig = Rig::start().await;
    rig.business.say(&json!({ "uid": 1 }));
    assert_eq!(rig.edge.ask("").await, Verdict::Unknown);
    assert_eq!(rig.edge.ask(&"x".repeat((16 << 10) + 1)).await, Verdict::Unknown);
    assert_eq!(rig.business.call_count(), 0);
    assert_eq!(rig.edge.ask(&"x".repeat(16 << 10)).await, known("1"));
    rig.end().await;
}

#[tokio::test]
async fn a_question_that_can_not_be_read_is_answered_at_once() {
    let rig = Rig::start().await;
    for question in ["", "{", "[]", r#"{"v":1}"#, r#"{"v":1,"token":5}"#, r#"{"v":9,"token":"x"}"#] {
        let verdict = rig.edge.ask_bytes(question, PATIENCE).await.unwrap();
        assert!(unavailable(&verdict).contains("can't be read"), "{question}: {verdict:?}");
    }
    assert_eq!(rig.adapter.metric("mc_auth_drops_total{reason=\"unreadable\"}"), 6);
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    rig.end().await;
}

#[tokio::test]
async fn a_status_that_is_configured_as_a_refusal_is_one() {
    let rig = Rig::with(|config| config.refusals = vec![404]).await;
    rig.business.follow(Script::Says(404, String::new()));
    assert_eq!(rig.edge.ask("gone").await, Verdict::Unknown);
    rig.business.follow(Script::Says(401, String::new()));
    assert!(unavailable(&rig.edge.ask("other").await).contains("401"));
    rig.end().await;
}
