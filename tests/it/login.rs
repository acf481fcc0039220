//! Login: yes, no and "unavailable" stay distinct, from the business system to the device.

use std::time::Duration;

use harness::business::Script;
use harness::cluster::Cluster;
use harness::device::{Device, Received};
use harness::wait::eventually;
use serde_json::{Value, json};

#[tokio::test]
async fn a_device_logs_in_subscribes_and_receives_exactly_what_was_published() {
    let cluster = Cluster::start().await;
    let mut device = cluster.connect(0).await;
    device.send(r#"{"op":"auth","token":"user-1001"}"#).await;
    device.expect_text(r#"{"result":true}"#).await;
    device.send(r#"{"op":"subscribe","channel":"@user"}"#).await;
    device.expect_text(r#"{"result":true}"#).await;

    let text = "{\"event\":\"@user\", \"data\": {\"uid\":1001,\"msg\":\"Grüße,\u{1f30d} \\u0041\"} }\n";
    cluster.publisher(0).publish_to(1, "user:1001", text).await;
    device.expect_text(text).await;
    device.expect_nothing().await;

    let call = &cluster.business.calls()[0];
    assert_eq!(call.body, r#"{"token":"user-1001"}"#);
    assert_eq!(call.headers["content-type"], "application/json");
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_refused_token_is_answered_and_the_connection_closed() {
    let cluster = Cluster::start().await;
    for refusal in [
        json!({}),
        json!({ "uid": null }),
        json!({ "uid": 0 }),
        json!({ "uid": "0" }),
        json!({ "uid": "" }),
        json!({ "uid": true }),
        json!({ "uid": 1.5 }),
        json!({ "uid": -1 }),
        json!({ "uid": [1001] }),
        json!({ "uid": "x".repeat(129) }),
        json!({ "uid": 1001, "expires_in": 0 }),
        json!([1001]),
        json!("1001"),
        json!(1001),
        Value::Null,
    ] {
        let token = format!("token of {refusal}");
        cluster.business.add_token(&token, refusal.clone());
        expect_refusal(&cluster, &token).await;
    }
    for status in [400, 401, 403, 422] {
        cluster.business.follow(Script::Says(status, String::new()));
        expect_refusal(&cluster, &format!("user-{status}")).await;
    }
    cluster.end().await;
}

async fn expect_refusal(cluster: &Cluster, token: &str) {
    let mut device = cluster.connect(0).await;
    device.send(&json!({ "op": "auth", "token": token }).to_string()).await;
    device.expect_json(&json!({ "code": 2, "msg": "Auth Failed" })).await;
    let reason = device.expect_close(4401).await;
    assert!(reason.contains("token"), "{reason}");
}

#[tokio::test]
async fn numbers_and_strings_name_the_same_user_and_every_allowed_uid_works() {
    let cluster = Cluster::start().await;
    for (uid, channel) in [
        (json!(1), "user:1".to_owned()),
        (json!(u64::MAX), format!("user:{}", u64::MAX)),
        (json!("18446744073709551615"), format!("user:{}", u64::MAX)),
        (json!("bob"), "user:bob".to_owned()),
        (json!("a.b*>"), "user:a.b*>".to_owned()),
        (json!("ü".repeat(64)), format!("user:{}", "ü".repeat(64))),
    ] {
        let token = format!("token of {uid}");
        cluster.business.add_token(&token, json!({ "uid": uid, "name": "more than was asked for" }));
        let mut device = cluster.online(0, &token).await;

        cluster.publisher(0).publish_to(1, &channel, "hello").await;
        device.expect_text("hello").await;
        device.close().await;
    }
    cluster.end().await;
}

#[tokio::test]
async fn a_business_system_that_gives_no_usable_answer_is_not_a_no() {
    // This many failures in a row would open the circuit breaker, which has tests of its own.
    let mut cluster = Cluster::plan().adapter(|config| config.breaker.min_calls = 1_000).start().await;
    let statuses = [404, 408, 429, 500, 502, 503].map(|status| Script::Says(status, String::new()));
    let page = Script::Says(200, "<html>Welcome to our shop!".to_owned());
    let huge = Script::Says(200, json!({ "uid": 1, "more": "x".repeat(1 << 20) }).to_string());
    for (index, script) in statuses.into_iter().chain([page, huge, Script::Redirects]).enumerate() {
        cluster.business.follow(script);
        expect_unavailable(&cluster, &format!("user-{index}")).await;
    }
    cluster.business.follow(Script::Honest);
    cluster.business.stop().await;
    expect_unavailable(&cluster, "user-1001").await;

    // "Unavailable" is not remembered: the same token is good as soon as the business system is back.
    cluster.business.restart().await;
    cluster.login(0, "user-1001").await.close().await;
    cluster.end().await;
}

async fn expect_unavailable(cluster: &Cluster, token: &str) {
    let mut device = cluster.connect(0).await;
    device.send(&json!({ "op": "auth", "token": token }).to_string()).await;
    device.expect_json(&json!({ "code": 3, "msg": "Auth Unavailable" })).await;
    device.expect_close(1013).await;
}

#[tokio::test]
async fn a_slow_business_system_costs_logins_but_not_open_sessions() {
    let cluster =
        Cluster::plan().adapter(|config| config.deadline = Duration::from_millis(200)).start().await;
    let mut early = cluster.online(0, "user-1").await;
    cluster.business.hold();
    expect_unavailable(&cluster, "user-2").await;
    cluster.publisher(0).publish_to(1, "user:1", "still here").await;
    early.expect_text("still here").await;
    cluster.business.open();
    cluster.login(0, "user-2").await.close().await;
    early.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn without_an_auth_adapter_a_login_is_unavailable() {
    let cluster = Cluster::plan().adapters(0).start().await;
    expect_unavailable(&cluster, "user-1").await;
    cluster.end().await;
}

#[tokio::test]
async fn frames_sent_right_behind_auth_wait_for_it_and_are_answered_in_order() {
    let cluster = Cluster::start().await;
    cluster.business.hold();
    let mut device = cluster.connect(0).await;
    device.send(r#"{"op":"auth","token":"user-1","i":1}"#).await;
    device.send(r#"{"op":"subscribe","channel":"@user","i":2}"#).await;
    device.send(r#"{"op":"nonsense","i":3}"#).await;
    device.send("ping").await;
    device.send(r#"{"op":"unsubscribe","channel":"@user","i":4}"#).await;
    device.send(r#"{"op":"subscribe","channel":"@user","i":5}"#).await;
    eventually("the business system is asked", async || cluster.business.calls().len() == 1).await;
    cluster.business.open();
    device.expect_json(&json!({ "result": true, "i": 1 })).await;
    device.expect_json(&json!({ "result": true, "i": 2 })).await;
    let error = device.next_json().await;
    assert_eq!((&error["code"], &error["i"]), (&json!(5), &json!(3)), "{error}");
    device.expect_text("pong").await;
    device.expect_json(&json!({ "result": true, "i": 4 })).await;
    device.expect_json(&json!({ "result": true, "i": 5 })).await;
    cluster.publisher(0).publish_to(1, "user:1", "hello").await;
    device.expect_text("hello").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn more_frames_than_may_wait_for_a_login_are_held_back_not_lost() {
    let plan = Cluster::plan().edge(|config| config.ops_per_second = 500);
    let cluster = plan.start().await;
    cluster.business.hold();
    let mut device = cluster.connect(0).await;
    device.send(r#"{"op":"auth","token":"user-1"}"#).await;
    for _ in 0..200 {
        device.send("ping").await;
    }
    eventually("the business system is asked", async || cluster.business.calls().len() == 1).await;
    cluster.business.open();
    device.expect_json(&json!({ "result": true })).await;
    for _ in 0..200 {
        device.expect_text("pong").await;
    }
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn many_sockets_with_one_token_cost_the_business_system_one_call() {
    let cluster = Cluster::plan().edges(2).start().await;
    cluster.business.hold();
    let mut devices = Vec::new();
    for number in 0..10 {
        let mut device = cluster.connect(number % 2).await;
        device.send(r#"{"op":"auth","token":"user-7"}"#).await;
        devices.push(device);
    }
    eventually("the business system is asked", async || !cluster.business.calls().is_empty()).await;
    cluster.business.open();
    for device in &mut devices {
        device.expect_json(&json!({ "result": true })).await;
    }
    assert_eq!(cluster.business.calls_for("user-7"), 1);
    for device in devices {
        device.close().await;
    }
    cluster.end().await;
}

#[tokio::test]
async fn the_same_user_may_log_in_again_and_keeps_its_subscriptions() {
    let cluster = Cluster::start().await;
    cluster.business.add_token("another", json!({ "uid": "1" }));
    let mut device = cluster.online(0, "user-1").await;
    device.auth("another").await;
    cluster.publisher(0).publish_to(1, "user:1", "hello").await;
    device.expect_text("hello").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn another_user_on_the_same_connection_starts_without_subscriptions() {
    let cluster = Cluster::start().await;
    let mut device = cluster.online(0, "user-1").await;
    device.auth("user-2").await;
    cluster.publisher(0).publish_to(0, "user:1", "not for you").await;
    cluster.publisher(0).publish_to(0, "user:2", "nor this").await;
    device.expect_nothing().await;
    device.subscribe("@user").await;
    cluster.publisher(0).publish_to(0, "user:1", "not for you").await;
    cluster.publisher(0).publish_to(1, "user:2", "this is").await;
    device.expect_text("this is").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_second_login_that_is_refused_closes_the_connection() {
    let cluster = Cluster::start().await;
    let mut device = cluster.online(0, "user-1").await;
    device.send(r#"{"op":"auth","token":"stolen"}"#).await;
    device.expect_json(&json!({ "code": 2, "msg": "Auth Failed" })).await;
    device.expect_close(4401).await;
    cluster.publisher(0).publish_to(0, "user:1", "nobody here").await;
    cluster.end().await;
}

#[tokio::test]
async fn an_expired_login_pauses_deliveries_until_the_user_logs_in_again() {
    let cluster = Cluster::start().await;
    cluster.business.add_token("short", json!({ "uid": 1, "expires_in": 0.3 }));
    let mut device = cluster.online(0, "short").await;
    cluster.publisher(0).publish_to(1, "user:1", "before").await;
    device.expect_text("before").await;
    device.expect_error(9).await;
    cluster.publisher(0).publish_to(1, "user:1", "meanwhile").await;
    device.expect_nothing().await;
    device.send(r#"{"op":"auth","token":"user-1"}"#).await;
    device.expect_json(&json!({ "result": true })).await;
    device.expect_text("meanwhile").await;
    cluster.publisher(0).publish_to(1, "user:1", "after").await;
    device.expect_text("after").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn an_expired_login_that_is_not_renewed_closes_the_connection() {
    let cluster =
        Cluster::plan().edge(|config| config.reauth_timeout = Duration::from_millis(200)).start().await;
    cluster.business.add_token("short", json!({ "uid": 1, "expires_in": 0.2 }));
    let mut device = cluster.online(0, "short").await;
    device.expect_error(9).await;
    device.expect_close(4401).await;
    cluster.end().await;
}

#[tokio::test]
async fn after_an_expired_login_another_user_gets_nothing_of_the_first() {
    let cluster = Cluster::start().await;
    cluster.business.add_token("short", json!({ "uid": 1, "expires_in": 0.2 }));
    let mut device = cluster.online(0, "short").await;
    device.expect_error(9).await;
    cluster.publisher(0).publish_to(1, "user:1", "secret of user 1").await;
    device.auth("user-2").await;
    device.expect_nothing().await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn an_auth_without_a_usable_token_is_a_bad_request() {
    let cluster = Cluster::start().await;
    let mut device = cluster.connect(0).await;
    for token in ["", r#","token":null"#, r#","token":5"#, r#","token":"""#, r#","token":["user-1"]"#] {
        device.send(&format!(r#"{{"op":"auth"{token}}}"#)).await;
        device.expect_error(4).await;
    }
    assert!(cluster.business.calls().is_empty());
    device.auth("user-1").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_device_that_leaves_while_its_token_is_checked_leaves_nothing_behind() {
    let cluster = Cluster::start().await;
    cluster.business.hold();
    let mut device = Device::connect(cluster.edge(0)).await;
    device.send(r#"{"op":"auth","token":"user-1"}"#).await;
    device.send(r#"{"op":"subscribe","channel":"@user"}"#).await;
    eventually("the business system is asked", async || cluster.business.calls().len() == 1).await;
    drop(device);
    eventually("the session is gone", async || cluster.sessions() == 0).await;
    cluster.business.open();
    cluster.publisher(0).publish_to(0, "user:1", "nobody here").await;

    // The check continued without the device, and its answer serves the next login.
    let mut device = cluster.login(0, "user-1").await;
    assert_eq!(cluster.business.calls_for("user-1"), 1);
    device.send("ping").await;
    assert_eq!(device.next().await, Received::Text("pong".into()));
    device.close().await;
    cluster.end().await;
}
