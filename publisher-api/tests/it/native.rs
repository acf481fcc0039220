//! The native calls over HTTP: their answers, their refusals, and the truth of their description.

use std::sync::atomic::Ordering;
use std::time::Duration;

use publisher_api::Config;
use publisher_api::keys::{KeyConfig, Scope, SecretHash};
use serde_json::{Value, json};

use crate::support::caller::{Answer, JSON, call, request};
use crate::support::edge::FakeEdge;
use crate::support::schema::check;
use crate::support::{Bed, eventually};

const PUBLISH: &str = "POST /v1/publish";
const BATCH: &str = "POST /v1/publish/batch";
const SESSIONS: &str = "POST /v1/users/sessions";
const DISCONNECT: &str = "POST /v1/users/1001/disconnect";

async fn post(bed: &Bed, line: &str, body: &Value) -> Answer {
    call(bed.address, &request(line, &[JSON], &body.to_string())).await
}

/// Status and `code` of a problem.
fn problem(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let body = answer.json();
    assert_eq!(body["status"], answer.status, "{answer:?}");
    assert!(body["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{answer:?}");
    (answer.status, body["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn each_target_has_its_result_and_all_receive_the_same_bytes() {
    let bed = Bed::start(|_| {}).await;
    let (one, two) = (
        FakeEdge::start(&bed.bus.server, "e1", true).await,
        FakeEdge::start(&bed.bus.server, "e2", true).await,
    );
    one.holds("user:1001", 2, 1);
    two.holds("user:1001", 1, 0);
    two.holds("broadcast", 7, 0);
    let body =
        r#"{"to":{"users":[1001,"1001",0],"channels":["broadcast"]},"event":"@user","data":{"a": 1.0}}"#;
    let answer = call(bed.address, &request(PUBLISH, &[JSON], body)).await;
    let told = answer.json();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let results = &told["results"];
    assert_eq!(results[0], json!({"to": "user:1001", "id": results[0]["id"], "sessions": 3, "failed": 1}));
    assert_eq!(results[1], results[0], "a repeated target is served once");
    assert_eq!(results[2]["error"]["code"], "invalid_user");
    assert_eq!((&results[3]["to"], &results[3]["sessions"]), (&json!("broadcast"), &json!(7)));
    assert_eq!(told["edges"], json!({"expected": 2, "answered": 2, "silent": []}));
    assert_eq!(told["complete"], true);
    let seen = one.seen();
    let mut payloads: Vec<_> =
        seen.iter().map(|(channel, message)| (channel.as_str(), &message.payload[..])).collect();
    // Order is promised within a channel, not between channels.
    payloads.sort_unstable();
    let text = br#"{"event":"@user","data":{"a": 1.0}}"#;
    assert_eq!(payloads, [("broadcast", &text[..]), ("user:1001", &text[..])]);
    one.leave().await;
    two.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn groups_and_all_are_one_message_each_and_a_key_needs_their_channels() {
    let key = |name: &str, channels: &[&str]| KeyConfig {
        name: name.into(),
        hash: SecretHash::of(&format!("mck_{name}")).to_string(),
        scopes: vec![Scope::Publish],
        channels: channels.iter().map(|pattern| (*pattern).to_owned()).collect(),
        ..KeyConfig::default()
    };
    let bed =
        Bed::start(|config| config.keys = vec![key("groups", &["group:*"]), key("news", &["all"])]).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("group:vip", 2, 0);
    edge.holds("all", 5, 1);
    let body = json!({"to": {"groups": ["vip", 7], "all": true}, "raw": "x"}).to_string();
    let send = async |name: &str| {
        let authorization = format!("Bearer mck_{name}");
        call(bed.address, &request(PUBLISH, &[JSON, ("Authorization", &authorization)], &body)).await.json()
    };
    let told = send("groups").await;
    let results = &told["results"];
    assert_eq!((&results[0]["to"], &results[0]["sessions"]), (&json!("group:vip"), &json!(2)), "{told}");
    assert_eq!((&results[1]["to"], &results[1]["sessions"]), (&json!("group:7"), &json!(0)), "{told}");
    assert_eq!(
        (&results[2]["to"], &results[2]["error"]["code"]),
        (&json!("all"), &json!("forbidden_channel"))
    );
    let told = send("news").await;
    let results = &told["results"];
    assert_eq!(results[0]["error"]["code"], "forbidden_channel", "{told}");
    assert_eq!((&results[2]["sessions"], &results[2]["failed"]), (&json!(5), &json!(1)), "{told}");
    let mut seen: Vec<_> = edge.seen().into_iter().map(|(channel, _)| channel).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["all", "group:7", "group:vip"], "each is one message");
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn thousands_of_targets_share_a_few_questions_and_need_no_place_of_a_single_publish() {
    // The deadline is long, since this test is not about how fast the edge answers.
    let patient = Duration::from_secs(10);
    let bed = Bed::start(|config| (config.max_in_flight, config.answer_deadline) = (1, patient)).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("user:7", 1, 0);
    let users: Vec<u32> = (1..=5_000).collect();
    let answer = post(&bed, PUBLISH, &json!({"to": {"users": users}, "raw": "x"})).await.json();
    let results = answer["results"].as_array().unwrap();
    let sum: u64 = results.iter().map(|result| result["sessions"].as_u64().unwrap()).sum();
    assert_eq!((results.len(), sum, &answer["complete"]), (5_000, 1, &json!(true)));
    assert_eq!((&results[6]["to"], &results[6]["sessions"]), (&json!("user:7"), &json!(1)));
    let mut seen: Vec<_> = edge.seen().into_iter().map(|(channel, _)| channel).collect();
    let mut wanted: Vec<_> = users.iter().map(|user| format!("user:{user}")).collect();
    seen.sort_unstable();
    wanted.sort_unstable();
    assert!(seen == wanted, "each once");
    let asks = edge.state.asks.load(Ordering::SeqCst);
    assert!(asks <= 500, "{asks} questions");
    assert_eq!(bed.metric("mc_publisher_in_flight"), 0);

    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn whoever_wants_no_counts_makes_no_edge_answer() {
    let bed = Bed::start(|_| {}).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("user:7", 1, 0);
    edge.holds("live", 1, 0);
    let one = |to: Value| json!({"to": to, "raw": "x", "receipt": false});
    let many: Vec<_> = (0..3_000).map(|number| format!("live:{number}")).collect();
    let single = [json!({"to": {"users": [7]}, "raw": "x"})];
    for (line, body) in [
        // A single target takes another path than several, and history makes a difference too.
        (PUBLISH, one(json!({"users": [7]}))),
        (PUBLISH, one(json!({"channels": ["live"]}))),
        (PUBLISH, one(json!({"users": [1, 7]}))),
        (PUBLISH, one(json!({"users": [7], "channels": ["live"]}))),
        (PUBLISH, one(json!({"channels": many}))),
        (BATCH, json!({"messages": single, "receipt": false})),
    ] {
        let quiet = post(&bed, line, &body).await.json();
        assert_eq!((quiet.get("edges"), quiet.get("complete")), (None, None), "{quiet}");
        let results = quiet.get("results").unwrap_or(&quiet["messages"][0]["results"]).as_array().unwrap();
        for result in results {
            assert!(result["id"].is_string(), "{result}");
            assert_eq!((result.get("sessions"), result.get("failed")), (None, None), "{result}");
        }
    }
    let keyed = || async {
        let headers = [JSON, ("idempotency-key", "quiet")];
        let body = one(json!({"users": [7]})).to_string();
        call(bed.address, &request(PUBLISH, &headers, &body)).await.json()
    };
    let (first, again) = (keyed().await, keyed().await);
    assert_eq!((&again["duplicate"], again.get("complete")), (&json!(true), None), "{first} {again}");
    // This call wants counts. Its ask follows everything before it.
    let counted = post(&bed, PUBLISH, &json!({"to": {"users": [7]}, "raw": "x"})).await.json();
    assert_eq!((&counted["complete"], &counted["results"][0]["sessions"]), (&json!(true), &json!(1)));
    assert_eq!(edge.state.asks.load(Ordering::SeqCst), 1, "only the last call asked");
    assert_eq!(bed.metric("mc_publisher_asks_total"), 1);
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn a_batch_keeps_its_order_and_a_bad_message_does_not_stop_the_others() {
    let bed = Bed::start(|_| {}).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("user:1", 1, 0);
    let message = |text: &str| json!({"to": {"users": [1]}, "raw": text});
    let messages = json!({"messages": [message("a"), {"to": {}}, message("b"), message("c")]});
    let answer = post(&bed, BATCH, &messages).await.json();
    assert_eq!(answer["messages"][1]["error"]["code"], "invalid_request");
    for index in [0, 2, 3] {
        assert_eq!(answer["messages"][index]["results"][0]["sessions"], 1, "{answer}");
    }
    let texts: Vec<_> = edge.seen().into_iter().map(|(_, message)| message.payload).collect();
    assert_eq!(texts, ["a", "b", "c"]);
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn an_edge_that_does_not_answer_is_named() {
    let bed = Bed::start(|_| {}).await;
    let (good, frozen) = (
        FakeEdge::start(&bed.bus.server, "good", true).await,
        FakeEdge::start(&bed.bus.server, "frozen", true).await,
    );
    good.holds("user:1001", 1, 0);
    frozen.state.answers.store(false, Ordering::SeqCst);
    let edges = json!({"expected": 2, "answered": 1, "silent": ["frozen"]});
    for (line, body) in [
        (PUBLISH, json!({"to": {"users": [1001, 2]}, "raw": "x"})),
        (SESSIONS, json!({"users": [1001]})),
        (DISCONNECT, json!({})),
    ] {
        let answer = post(&bed, line, &body).await.json();
        assert_eq!((&answer["edges"], &answer["complete"]), (&edges, &json!(false)), "{line}: {answer}");
    }
    good.leave().await;
    frozen.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_a_code_and_connmix_paths_keep_their_own() {
    let bed = Bed::start(|config| config.max_request = shared::config::ByteSize(2_000)).await;
    let good = r#"{"to":{"users":[1]},"raw":"x"}"#;
    let large = "x".repeat(3_000);
    let bad_user = r#"{"to":{"users":[0]},"raw":"x"}"#;
    let no_history = r#"{"to":{"channels":["a"]},"raw":"x"}"#;
    let bad_channel = r#"{"to":{"channels":["a b"]},"raw":"x"}"#;
    for (line, headers, body, status, code) in [
        (PUBLISH, vec![], good, 415, "unsupported_media_type"),
        (PUBLISH, vec![JSON], "{", 400, "invalid_json"),
        (PUBLISH, vec![JSON], "{}", 400, "invalid_request"),
        (PUBLISH, vec![JSON], bad_user, 400, "invalid_user"),
        (PUBLISH, vec![JSON], bad_channel, 400, "invalid_channel"),
        (PUBLISH, vec![JSON], &large, 413, "too_large"),
        (PUBLISH, vec![JSON, ("idempotency-key", "a")], no_history, 400, "idempotency_unavailable"),
        (PUBLISH, vec![JSON, ("origin", "https://evil.example")], good, 403, "forbidden_origin"),
        (PUBLISH, vec![JSON, ("host", "evil.example")], good, 403, "forbidden_host"),
        ("GET /v1/publish", vec![], "", 405, "method_not_allowed"),
        ("GET /v1/publish/nothing", vec![], "", 404, "not_found"),
        ("GET /v1/users/0/sessions", vec![], "", 400, "invalid_user"),
        ("GET /v1/users/%FF/sessions", vec![], "", 400, "invalid_user"),
        ("GET /v1/channels/a/messages", vec![], "", 404, "no_history"),
        ("GET /v1/channels/a", vec![], "", 404, "not_found"),
        (DISCONNECT, vec![JSON], r#"{"deny_for":"31d"}"#, 400, "invalid_request"),
    ] {
        let answer = call(bed.address, &request(line, &headers, body)).await;
        assert_eq!(problem(&answer), (status, code.to_owned()), "{line} {body:.40}");
    }
    let wrong = call(bed.address, &request("PUT /v1/publish", &[], "")).await;
    assert_eq!(wrong.header("allow"), Some("POST"));
    assert_eq!(call(bed.address, &request("GET /v1/mesh/publish", &[], "")).await.code(), (405, 101));
    bed.finish().await;
}

#[tokio::test]
async fn a_bus_that_is_away_is_a_problem_that_says_when_to_come_again() {
    let bed = Bed::start(|config| {
        config.bus_wait = std::time::Duration::from_millis(50);
        config.store_wait = std::time::Duration::from_millis(50);
        config.bus_grace = std::time::Duration::from_millis(50);
    })
    .await;
    bed.bus.stop().await;
    eventually("the loss is noticed", || bed.health.reasons().contains("the bus is gone")).await;
    for (line, body) in [
        (PUBLISH, json!({"to": {"users": [1]}, "raw": "x"})),
        (PUBLISH, json!({"to": {"users": [1, 2, 3]}, "raw": "x"})),
        (BATCH, json!({"messages": [{"to": {"users": [1]}, "raw": "x"}]})),
        (SESSIONS, json!({"users": [1001]})),
        (DISCONNECT, json!({})),
    ] {
        let answer = post(&bed, line, &body).await;
        assert_eq!(problem(&answer), (503, "unavailable".to_owned()), "{line}");
        assert_eq!((answer.header("retry-after"), &answer.json()["retry_after"]), (Some("1"), &json!(1)));
    }
    assert_eq!(bed.drain.finish(crate::support::PATIENCE).await, 0);
}

fn keyed(config: &mut Config) {
    let key = |name: &str, scope, channels: &[&str]| KeyConfig {
        name: name.into(),
        hash: SecretHash::of(&format!("mck_{name}")).to_string(),
        scopes: vec![scope],
        channels: channels.iter().map(|pattern| (*pattern).to_owned()).collect(),
        ..KeyConfig::default()
    };
    config.keys = vec![
        key("shop", Scope::Publish, &["user:1*"]),
        key("desk", Scope::Read, &["user:1*"]),
        key("guard", Scope::Disconnect, &["user:1*"]),
        KeyConfig { rate: Some(1), ..key("slow", Scope::Publish, &["*"]) },
    ];
}

#[tokio::test]
async fn a_key_needs_the_scope_of_the_call_and_its_patterns_hold_for_each_target() {
    let bed = Bed::start(keyed).await;
    let send = async |name: &str, line: &str, body: Value| {
        let authorization = format!("Bearer mck_{name}");
        call(bed.address, &request(line, &[JSON, ("authorization", &authorization)], &body.to_string())).await
    };
    let message = |users: Value| json!({"to": {"users": users}, "raw": "x"});
    let mixed = send("shop", PUBLISH, message(json!([11, 21]))).await.json();
    assert_eq!(mixed["results"][0]["to"], "user:11");
    assert_eq!(mixed["results"][1]["error"]["code"], "forbidden_channel");
    let refused = |answer: &Answer| problem(answer).1;
    assert_eq!(refused(&send("shop", PUBLISH, message(json!([21]))).await), "forbidden_channel");
    for (name, line, body) in [
        ("desk", PUBLISH, message(json!([11]))),
        ("shop", SESSIONS, json!({"users": [11]})),
        ("shop", "POST /v1/users/11/disconnect", json!({})),
        ("shop", "POST /v1/users/11/refresh", json!({})),
    ] {
        let answer = send(name, line, body).await;
        assert_eq!(problem(&answer), (403, "missing_scope".to_owned()), "{name} {line}");
    }
    let asked = send("desk", SESSIONS, json!({"users": [11, 21]})).await.json();
    assert_eq!(asked["users"][0], json!({"user": "11", "online": false, "sessions": 0, "on": []}));
    assert_eq!(asked["users"][1]["error"]["code"], "forbidden_channel");
    assert_eq!(refused(&send("guard", "POST /v1/users/21/disconnect", json!({})).await), "forbidden_channel");
    assert_eq!(send("guard", "POST /v1/users/11/disconnect", json!({})).await.status, 200);
    assert_eq!(refused(&send("guard", "POST /v1/users/21/refresh", json!({})).await), "forbidden_channel");
    assert_eq!(send("guard", "POST /v1/users/11/refresh", json!({})).await.status, 200);

    assert_eq!(send("slow", PUBLISH, message(json!([1, 2, 3]))).await.status, 200);
    let fast = send("slow", PUBLISH, message(json!([1]))).await;
    assert_eq!(problem(&fast), (429, "rate_limited".to_owned()));
    assert!(fast.header("retry-after").is_some());
    let nobody = call(bed.address, &request(PUBLISH, &[JSON], "{}")).await;
    assert_eq!(problem(&nobody), (401, "invalid_key".to_owned()));
    assert!(nobody.header("www-authenticate").is_some());
    bed.finish().await;
}

#[tokio::test]
async fn a_refresh_says_how_many_sessions_have_to_log_in_and_which_edge_is_silent() {
    let bed = Bed::start(|_| {}).await;
    let edges = [
        FakeEdge::start(&bed.bus.server, "e1", true).await,
        FakeEdge::start(&bed.bus.server, "e2", true).await,
    ];
    edges[0].holds("user:1001", 2, 0);
    edges[1].holds("user:1001", 1, 0);
    let refresh = "POST /v1/users/1001/refresh";
    let on = json!([{"edge": "e1", "sessions": 2}, {"edge": "e2", "sessions": 1}]);
    let answer = call(bed.address, &request(refresh, &[], "")).await.json();
    let whole = json!({
        "user": "1001", "sessions": 3, "on": on, "edges": {"expected": 2, "answered": 2, "silent": []}, "complete": true,
    });
    assert_eq!(answer, whole);
    edges[1].state.answers.store(false, Ordering::SeqCst);
    let answer = call(bed.address, &request(refresh, &[], "")).await.json();
    assert_eq!((&answer["sessions"], &answer["complete"]), (&json!(2), &json!(false)), "{answer}");
    assert_eq!(answer["edges"]["silent"], json!(["e2"]), "{answer}");
    for edge in edges {
        edge.leave().await;
    }
    bed.finish().await;
}

#[tokio::test]
async fn what_the_server_answers_is_what_its_description_says() {
    let bed = Bed::start(|_| {}).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("user:1001", 2, 0);
    let document = call(bed.address, &request("GET /openapi.json", &[], "")).await.json();
    let message = json!({"to": {"users": [1001, 0]}, "event": "e", "data": [1, null]});
    for (path, line, body, status) in [
        ("/v1/publish", PUBLISH, message.clone(), 200),
        ("/v1/publish", PUBLISH, json!({"to": {"users": [1, 2]}, "raw": "x", "receipt": false}), 200),
        ("/v1/publish", PUBLISH, json!({"to": {}}), 400),
        ("/v1/publish/batch", BATCH, json!({"messages": [message, message, {"to": 1}]}), 200),
        ("/v1/publish/batch", BATCH, json!({"messages": []}), 400),
        ("/v1/users/{uid}/sessions", "GET /v1/users/1001/sessions", Value::Null, 200),
        ("/v1/users/{uid}/sessions", "GET /v1/users/0/sessions", Value::Null, 400),
        ("/v1/users/sessions", SESSIONS, json!({"users": [1001, "bob", 0]}), 200),
        ("/v1/users/{uid}/disconnect", DISCONNECT, json!({"reason": "bye", "deny_for": "10m"}), 200),
        ("/v1/users/{uid}/disconnect", DISCONNECT, json!({"deny_for": 1}), 400),
        ("/v1/users/{uid}/refresh", "POST /v1/users/1001/refresh", Value::Null, 200),
        ("/v1/users/{uid}/refresh", "POST /v1/users/0/refresh", Value::Null, 400),
        ("/v1/mesh/publish", "POST /v1/mesh/publish", json!({"c": "a", "d": "x"}), 200),
        ("/v1/mesh/publish", "POST /v1/mesh/publish", json!({"c": "a"}), 200),
    ] {
        let method = line.split(' ').next().unwrap().to_lowercase();
        let call_of = &document["paths"][path][&method];
        if status == 200 && !body.is_null() && path != "/v1/mesh/publish" && body["messages"][2].is_null() {
            let schema = &call_of["requestBody"]["content"]["application/json"]["schema"];
            // The handler refuses bad entries one by one; the rest of the body must fit the schema.
            let fits = check(&document, schema, &without_bad_users(&body));
            assert!(fits.is_ok(), "{line} {body}: {fits:?}");
        }
        let answer = post(&bed, line, &body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let content = answer.header("content-type").unwrap();
        let schema = &call_of["responses"][status.to_string()]["content"][content]["schema"];
        let fits = check(&document, schema, &answer.json());
        assert!(fits.is_ok(), "{line} {body}\n{}\n{fits:?}", answer.body);
    }
    edge.leave().await;
    bed.finish().await;
}

fn without_bad_users(body: &Value) -> Value {
    let mut body = body.clone();
    for place in ["/to/users", "/users"] {
        if let Some(Value::Array(users)) = body.pointer_mut(place) {
            users.retain(|user| *user != 0);
        }
    }
    body
}
