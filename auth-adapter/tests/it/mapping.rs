//! Business systems as they are: asked and understood by configuration alone.

use std::collections::BTreeMap;

use auth_adapter::{Accepted, Config, Method, Preset};
use serde_json::{Value, json};
use shared::clock;
use shared::config::Secret;
use shared::wire::{Login, Verdict};

use crate::support::{Adapter, Edge, Frameworks, PATIENCE, Rig, Script, TestBus, known, unavailable};

/// An adapter of the stand-ins, and an edge that asks it.
struct Shop {
    bus: TestBus,
    adapter: Adapter,
    edge: Edge,
    frameworks: Frameworks,
}

impl Shop {
    async fn at(path: &str, change: impl FnOnce(&mut Config)) -> Self {
        let frameworks = Frameworks::start().await;
        let mut config = Config { url: frameworks.url(path), deadline: PATIENCE, ..Config::default() };
        change(&mut config);
        let bus = TestBus::start().await;
        let adapter = Adapter::start(&bus.server, config).await;
        adapter.ready().await;
        let edge = Edge::connect(&bus.server).await;
        Self { bus, adapter, edge, frameworks }
    }

    async fn end(self) {
        self.adapter.leave().await;
        self.edge.leave().await;
        self.bus.stop().await;
        self.frameworks.stop().await;
    }
}

fn reasons(adapter: &Adapter) -> Vec<Value> {
    let page = adapter.health.pages().make("/logins").unwrap();
    page["reasons"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_common_result_is_understood_by_its_preset() {
    let shop = Shop::at("/profile", |config| config.preset = Preset::CommonResult).await;
    assert_eq!(shop.edge.ask("good-7").await, known("7"));
    assert_eq!(shop.edge.ask("bad").await, Verdict::Unknown);
    assert_eq!(shop.frameworks.tokens(), ["good-7", "bad"]);
    assert_eq!(shop.adapter.metric("mc_auth_business_calls_total{outcome=\"not_ok\"}"), 1);
    shop.end().await;
    let check = "/admin-api/system/oauth2/check-token";
    let shop = Shop::at(check, |config| {
        config.preset = Preset::CommonResult;
        config.request.token = Some("form:token".into());
        config.headers.insert("Authorization".into(), Secret::new("Basic c2hvcDpzZWNyZXQ="));
    })
    .await;
    assert_eq!(shop.edge.ask("good-7").await, known("7"));
    assert_eq!(shop.edge.ask("bad").await, Verdict::Unknown);
    shop.end().await;
}

#[tokio::test]
async fn a_profile_behind_a_bearer_header_is_a_token_check() {
    let shop = Shop::at("/api/user", |config| {
        config.request.method = Some(Method::Get);
        config.request.token = Some("header:Authorization: Bearer {token}".into());
        config.answer.uid = Some(vec!["/id".into()]);
        config.headers.insert("Accept".into(), Secret::new("application/json"));
    })
    .await;
    assert_eq!(shop.edge.ask("good-7").await, known("7"));
    assert_eq!(shop.edge.ask("bad").await, Verdict::Unknown);
    assert_eq!(shop.edge.ask("gööd-8").await, Verdict::Unknown);
    assert_eq!(shop.frameworks.tokens(), ["good-7", "bad"], "no header carries the last token");
    assert_eq!(reasons(&shop.adapter)[0]["outcome"], "not_asked");
    shop.end().await;
}

#[tokio::test]
async fn introspection_brings_user_expiry_and_groups() {
    let shop = Shop::at("/realms/shop/protocol/openid-connect/token/introspect", |config| {
        config.preset = Preset::Rfc7662;
        config.answer.groups = Some("/realm_access/roles".into());
        config.headers.insert("Authorization".into(), Secret::new("Basic c2hvcDpzZWNyZXQ="));
    })
    .await;
    let before = clock::unix_ms();
    let login = shop.edge.login("good-ada").await;
    let Login { uid, expires_in_ms, groups, issued_at_ms, token_id } = login;
    assert_eq!((uid.as_str(), groups, token_id), ("ada", vec!["vip".into(), "staff".into()], None));
    assert!(expires_in_ms.is_some_and(|left| (200_000..=301_000).contains(&left)), "{expires_in_ms:?}");
    assert!(issued_at_ms.is_some_and(|at| (before..=clock::unix_ms()).contains(&at)), "{issued_at_ms:?}");
    let again = shop.edge.login("good-ada").await;
    assert_eq!(again.issued_at_ms, issued_at_ms, "a remembered answer is as old as it is");
    assert_eq!(shop.edge.ask("bad").await, Verdict::Unknown);
    shop.end().await;
}

#[tokio::test]
async fn the_url_can_carry_a_token() {
    let shop = Shop::at("/query?v=1", |config| {
        config.request.method = Some(Method::Get);
        config.request.token = Some("query:access_token".into());
    })
    .await;
    assert_eq!(shop.edge.ask("good-a&b=ü").await, known("a&b=ü"));
    assert_eq!(shop.edge.ask("bad").await, Verdict::Unknown);
    shop.end().await;
}

#[tokio::test]
async fn a_mapping_that_does_not_fit_is_told_with_what_to_set() {
    let rig = Rig::start().await;
    rig.business.say(&json!({ "code": 0, "data": { "uid": 7 }, "msg": "t0k3n" }));
    assert_eq!(rig.edge.ask("t0k3n").await, Verdict::Unknown);
    assert_eq!(rig.edge.ask("t0k3n-2").await, Verdict::Unknown);
    assert_eq!(rig.adapter.metric("mc_auth_business_calls_total{outcome=\"no_uid\"}"), 2);
    let told = reasons(&rig.adapter);
    let text = told[0]["text"].as_str().unwrap();
    assert!(text.starts_with("looked for uid at /uid; keys there: /code /data/uid /msg; set "), "{text}");
    assert_eq!((told.len(), &told[0]["count"]), (1, &json!(2)));
    rig.business.follow(Script::Says(404, String::new()));
    unavailable(&rig.edge.ask("other").await);
    assert_eq!(reasons(&rig.adapter)[0]["outcome"], "status");
    rig.end().await;
}

#[tokio::test]
async fn an_answer_that_says_unavailable_is_no_answer() {
    let rig = Rig::with(|config| {
        let busy = vec![Accepted::Text("500-599".into()), Accepted::Text("busy".into())];
        config.answer.unavailable = Some(BTreeMap::from([("/code".into(), busy)]));
    })
    .await;
    rig.business.say(&json!({ "code": "busy", "uid": 1 }));
    let verdict = rig.edge.ask("a").await;
    assert!(unavailable(&verdict).contains("at /code"), "{verdict:?}");
    assert_eq!(rig.adapter.metric("mc_auth_business_calls_total{outcome=\"unavailable\"}"), 1);
    rig.business.say(&json!({ "code": "fine", "uid": 1 }));
    assert_eq!(rig.edge.ask("a").await, known("1"), "no answer is never remembered");
    rig.end().await;
}

#[tokio::test]
async fn groups_that_can_not_be_taken_are_left_out_and_counted() {
    let rig = Rig::start().await;
    let many: Vec<_> = (0..70).map(Value::from).collect();
    rig.business.say(&json!({ "uid": 1, "groups": many }));
    assert_eq!(rig.edge.login("a").await.groups.len(), 64);
    rig.business.say(&json!({ "uid": 1, "groups": "vip" }));
    assert_eq!(rig.edge.ask("b").await, known("1"));
    for (reason, number) in [("beyond_bound", 6), ("no_list", 1)] {
        let line = format!("mc_auth_groups_left_out_total{{reason=\"{reason}\"}}");
        assert_eq!(rig.adapter.metric(&line), number, "{line}");
    }
    assert_eq!(reasons(&rig.adapter)[0]["outcome"], "groups");
    rig.end().await;
}
