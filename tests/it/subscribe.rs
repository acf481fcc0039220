//! Subscribing: the channel names, the users allowed to use them, and the messages a device then receives.

use harness::cluster::{Cluster, rule};
use serde_json::json;
use shared::rules::{RuleConfig, default_rules};

fn rules() -> Vec<RuleConfig> {
    let mut rules = default_rules();
    rules.extend([
        rule("{id}@video", "video:{id}", false),
        rule("@broadcast", "broadcast", false),
        rule("@everyone", "broadcast", false),
        rule("{room}@chat", "chat:{room}", true),
    ]);
    rules
}

#[tokio::test]
async fn without_a_login_only_channels_that_need_none_can_be_used() {
    let cluster = Cluster::plan().rules(rules()).start().await;
    let mut device = cluster.connect(0).await;
    for op in ["subscribe", "unsubscribe"] {
        for channel in ["@user", "kitchen@chat"] {
            device.send(&json!({ "op": op, "channel": channel }).to_string()).await;
            device.expect_json(&json!({ "code": 1, "msg": "Not Auth" })).await;
        }
    }
    device.subscribe("12@video").await;
    device.subscribe("@broadcast").await;
    cluster.publisher(0).publish_to(1, "video:12", "frame").await;
    cluster.publisher(0).publish_to(0, "video:13", "not watched").await;
    cluster.publisher(0).publish_to(1, "broadcast", "to all").await;
    device.expect_text("frame").await;
    device.expect_text("to all").await;
    device.expect_nothing().await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn each_bad_subscribe_is_answered_with_what_is_wrong_and_the_connection_stays() {
    let cluster = Cluster::plan().rules(rules()).start().await;
    let mut device = cluster.login(0, "user-1").await;
    for (op, code) in [
        (json!({ "op": "subscribe", "channel": "user:1" }), 6),
        (json!({ "op": "subscribe", "channel": "@nobody" }), 6),
        (json!({ "op": "subscribe", "channel": "" }), 6),
        (json!({ "op": "unsubscribe", "channel": "@nobody" }), 6),
        (json!({ "op": "subscribe" }), 4),
        (json!({ "op": "subscribe", "channel": 5 }), 4),
        (json!({ "op": "subscribe", "channel": null }), 4),
        (json!({ "op": "subscribe", "channel": ["@user"] }), 4),
        (json!({ "op": "subscribe", "channel": "a b@video" }), 4),
        (json!({ "op": "subscribe", "channel": "a\n@video" }), 4),
        (json!({ "op": "subscribe", "channel": format!("{}@video", "x".repeat(129)) }), 4),
        (json!({ "op": "subscribe", "channel": "@user", "after": "1-2" }), 4),
        (json!({ "op": "publish", "channel": "@user", "data": 1 }), 5),
        (json!({ "op": "" }), 5),
    ] {
        device.send(&op.to_string()).await;
        let text = device.expect_error(code).await;
        assert!(!text.is_empty(), "{op}");
    }
    device.subscribe("@user").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn subscribing_twice_delivers_once_and_unsubscribing_ends_it() {
    let cluster = Cluster::plan().rules(rules()).start().await;
    let mut device = cluster.login(0, "user-1").await;
    device.unsubscribe("@user").await;
    device.subscribe("@user").await;
    device.subscribe("@user").await;
    cluster.publisher(0).publish_to(1, "user:1", "one").await;
    device.expect_text("one").await;
    device.expect_nothing().await;
    device.unsubscribe("@user").await;
    cluster.publisher(0).publish_to(0, "user:1", "two").await;
    device.expect_nothing().await;
    device.subscribe("@user").await;
    cluster.publisher(0).publish_to(1, "user:1", "three").await;
    device.expect_text("three").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn two_names_of_one_channel_deliver_once_until_the_last_is_given_up() {
    let cluster = Cluster::plan().rules(rules()).start().await;
    let mut device = cluster.connect(0).await;
    device.subscribe("@broadcast").await;
    device.subscribe("@everyone").await;
    cluster.publisher(0).publish_to(1, "broadcast", "one").await;
    device.expect_text("one").await;
    device.unsubscribe("@broadcast").await;
    cluster.publisher(0).publish_to(1, "broadcast", "two").await;
    device.expect_text("two").await;
    device.unsubscribe("@everyone").await;
    cluster.publisher(0).publish_to(0, "broadcast", "three").await;
    device.expect_nothing().await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn more_subscriptions_than_allowed_are_refused_and_the_others_stay() {
    let cluster = Cluster::plan().rules(rules()).edge(|config| config.max_subscriptions = 4).start().await;
    let mut device = cluster.connect(0).await;
    for id in 0..4 {
        device.subscribe(&format!("{id}@video")).await;
    }
    device.send(r#"{"op":"subscribe","channel":"4@video"}"#).await;
    device.expect_error(8).await;
    device.subscribe("3@video").await;
    cluster.publisher(0).publish_to(0, "video:4", "refused").await;
    cluster.publisher(0).publish_to(1, "video:0", "kept").await;
    device.expect_text("kept").await;
    device.unsubscribe("0@video").await;
    device.subscribe("4@video").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn whatever_scalar_an_op_carries_as_i_comes_back_with_its_answer() {
    let cluster = Cluster::start().await;
    let mut device = cluster.login(0, "user-1").await;
    for i in ["7", "-1.5", "\"a \\\"b\\\" ü\"", "true", "null", "123456789012345678901234567890", "1e400"] {
        device.send(&format!(r#"{{"op":"subscribe","channel":"@user","i":{i}}}"#)).await;
        device.expect_text(&format!(r#"{{"result":true,"i":{i}}}"#)).await;
        device.send(&format!(r#"{{"i":{i},"op":"nonsense"}}"#)).await;
        let received = device.next().await;
        let harness::device::Received::Text(text) = received else { panic!("{received:?}") };
        assert!(text.contains("\"code\":5") && text.contains(&format!("\"i\":{i}")), "{text}");
    }
    for i in ["[]", "{}", "[1]"] {
        device.send(&format!(r#"{{"op":"subscribe","channel":"@user","i":{i}}}"#)).await;
        device.expect_error(4).await;
    }
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn names_that_look_like_bus_wildcards_reach_nobody_else() {
    let cluster = Cluster::plan().rules(rules()).start().await;
    let mut device = cluster.connect(0).await;
    for id in ["*", ">", "12.>", "a.b", "=3E", "%2A"] {
        device.subscribe(&format!("{id}@video")).await;
    }
    cluster.publisher(0).publish_to(0, "video:12", "not for wildcards").await;
    for id in ["*", ">", "12.>", "a.b", "=3E", "%2A"] {
        cluster.publisher(0).publish_to(1, &format!("video:{id}"), id).await;
        device.expect_text(id).await;
    }
    cluster.publisher(0).publish_to(0, "user:*", "nobody").await;
    cluster.publisher(0).publish_to(0, ">", "nobody").await;
    device.expect_nothing().await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn ping_is_answered_with_pong_before_and_after_a_login() {
    let cluster = Cluster::start().await;
    let mut device = cluster.connect(0).await;
    device.send("ping").await;
    device.expect_text("pong").await;
    device.auth("user-1").await;
    device.send("ping").await;
    device.expect_text("pong").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_channel_that_no_rule_names_can_be_published_to() {
    let cluster = Cluster::start().await;
    let answer = cluster.publisher(0).call(&json!({ "c": "nobody:listens", "d": "x" })).await;
    assert_eq!(answer.text, r#"{"E":null,"r":{"s":0,"f":0}}"#);
    assert_eq!(answer.body["r"], json!({ "s": 0, "f": 0 }));
    cluster.end().await;
}
