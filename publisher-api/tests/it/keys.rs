//! Keys in both dialects: which calls a key permits, how fast, and what happens when a key is removed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use publisher_api::Config;
use publisher_api::keys::{KeyConfig, Scope, SecretHash};
use serde_json::json;

use crate::support::caller::{Answer, Http, JSON, PUBLISH, Socket, call, mesh_publish, request};
use crate::support::edge::FakeEdge;
use crate::support::{Bed, eventually};

const SHOP: &str = "mck_the-secret-of-the-shop";
const WATCH: &str = "mck_the-secret-of-the-watch";
const BODY: &str = r#"{"c":"user:1","d":"x"}"#;

fn key(name: &str, secret: &str) -> KeyConfig {
    KeyConfig { name: name.into(), hash: SecretHash::of(secret).to_string(), ..KeyConfig::default() }
}

fn keyed(config: &mut Config) {
    config.keys = vec![
        KeyConfig { channels: vec!["user:*".into()], ..key("shop", SHOP) },
        KeyConfig { scopes: vec![Scope::Read], ..key("watch", WATCH) },
    ];
}

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")))
}

async fn post(bed: &Bed, authorization: &str, body: &str) -> Answer {
    call(bed.address, &request(PUBLISH, &[JSON, ("authorization", authorization)], body)).await
}

#[tokio::test]
async fn a_key_is_taken_as_bearer_and_as_basic_at_both_doors() {
    let bed = Bed::start(keyed).await;
    for authorization in [bearer(SHOP), basic("shop", SHOP)] {
        assert_eq!(post(&bed, &authorization, BODY).await.counts(), (0, 0, true), "{authorization}");
        let mut socket =
            Socket::handshake(bed.address, &[("authorization", &authorization)]).await.ok().unwrap();
        socket.send(&mesh_publish("user:1", "x", 1)).await;
        assert_eq!(socket.text().await, r#"{"E":null,"r":{"s":0,"f":0},"i":1}"#);
    }
    assert_eq!(bed.metric(r#"mc_publisher_key_messages_total{key="shop"}"#), 4);
    assert_eq!(bed.metric("mc_publisher_keys"), 2);
    bed.finish().await;
}

#[tokio::test]
async fn no_key_and_wrong_keys_are_401_with_a_challenge_and_105() {
    let bed = Bed::start(keyed).await;
    let none = call(bed.address, &request(PUBLISH, &[JSON], BODY)).await;
    assert_eq!(none.code(), (401, 105));
    assert!(none.header("www-authenticate").unwrap().starts_with("Basic realm="), "{none:?}");
    assert_eq!(Socket::handshake(bed.address, &[]).await.err(), Some(401));
    let wrong =
        [bearer("mck_nobody"), basic("watch", SHOP), basic("shop", ""), "Digest x".into(), "Basic !".into()];
    for authorization in &wrong {
        let answer = post(&bed, authorization, BODY).await;
        assert_eq!(answer.code(), (401, 105), "{authorization}");
        assert!(!answer.body.contains("mck_"), "{answer:?}");
        let socket = Socket::handshake(bed.address, &[("authorization", authorization)]).await;
        assert_eq!(socket.err(), Some(401), "{authorization}");
    }
    let twice = [JSON, ("authorization", &bearer(SHOP)), ("authorization", &bearer(WATCH))];
    assert_eq!(call(bed.address, &request(PUBLISH, &twice, BODY)).await.code(), (401, 105));
    let refused =
        |reason: &str| bed.metric(&format!(r#"mc_publisher_key_refusals_total{{key="",reason="{reason}"}}"#));
    assert_eq!((refused("missing"), refused("invalid"), refused("malformed")), (2, 4, 7));
    bed.finish().await;
}

#[tokio::test]
async fn a_key_without_the_scope_or_for_other_channels_is_403_and_106() {
    let bed = Bed::start(keyed).await;
    let watch = post(&bed, &bearer(WATCH), BODY).await;
    assert_eq!(watch.code(), (403, 106));
    assert!(watch.body.contains("publish") && watch.body.contains("watch"), "{watch:?}");
    assert_eq!(Socket::handshake(bed.address, &[("authorization", &bearer(WATCH))]).await.err(), Some(403));
    let elsewhere = r#"{"c":"video:1","d":"x"}"#;
    assert_eq!(post(&bed, &bearer(SHOP), elsewhere).await.code(), (403, 106));
    let mut socket = Socket::handshake(bed.address, &[("authorization", &bearer(SHOP))]).await.ok().unwrap();
    socket.send(&mesh_publish("video:1", "x", 1)).await;
    let answer = socket.json().await;
    assert_eq!((&answer["E"]["c"], &answer["i"]), (&json!(106), &json!(1)));
    socket.send(&mesh_publish("user:1", "x", 2)).await;
    assert_eq!(socket.json().await["r"]["s"], 0, "the socket stays open");
    assert_eq!(bed.metric(r#"mc_publisher_key_refusals_total{key="shop",reason="channel"}"#), 2);
    assert_eq!(bed.metric(r#"mc_publisher_key_refusals_total{key="watch",reason="scope"}"#), 2);
    bed.finish().await;
}

#[tokio::test]
async fn who_publishes_faster_than_its_rate_is_told_when_to_come_again() {
    let slow = |config: &mut Config| {
        let limited = KeyConfig { rate: Some(1), burst: Some(5), ..key("shop", SHOP) };
        config.keys = vec![limited, key("crm", WATCH)];
    };
    let bed = Bed::start(slow).await;
    let mut socket = Socket::handshake(bed.address, &[("authorization", &bearer(SHOP))]).await.ok().unwrap();
    let mut refused = None;
    for i in 0..5_000 {
        socket.send(&mesh_publish("user:1", "x", i)).await;
        let answer = socket.json().await;
        if answer["E"]["c"] == 107 {
            refused = Some((i, answer));
            break;
        }
    }
    let (after, answer) = refused.expect("the rate is kept");
    assert!(
        after >= 5 && answer["E"]["m"].as_str().unwrap().contains("try again in 1 s"),
        "{after} {answer}"
    );
    // The rate is one per second, so one of a few publishes is refused, however slow this machine is.
    let mut over_http = None;
    for _ in 0..5_000 {
        let answer = post(&bed, &bearer(SHOP), BODY).await;
        if answer.status != 200 {
            over_http = Some(answer);
            break;
        }
    }
    let answer = over_http.expect("the rate is kept over HTTP");
    assert_eq!((answer.code(), answer.header("retry-after")), ((429, 107), Some("1")));
    assert_eq!(post(&bed, &bearer(WATCH), BODY).await.code(), (200, 0), "the others don't notice");
    assert!(bed.metric(r#"mc_publisher_key_refusals_total{key="shop",reason="rate"}"#) >= 1);
    bed.finish().await;
}

#[tokio::test]
async fn a_new_key_works_and_a_revoked_one_ends_on_open_sockets_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.toml");
    let entry = |secret: &str| format!("[[keys]]\nname = \"shop\"\nhash = \"{}\"\n", SecretHash::of(secret));
    std::fs::write(&path, entry(SHOP)).unwrap();
    let bed = Bed::start(|config| config.keys_file = path.clone()).await;
    let mut socket = Socket::handshake(bed.address, &[("authorization", &bearer(SHOP))]).await.ok().unwrap();
    socket.send(&mesh_publish("user:1", "x", 1)).await;
    assert_eq!(socket.json().await["r"]["s"], 0);

    std::fs::write(&path, "rubbish").unwrap();
    let reloads =
        |outcome: &str| bed.metric(&format!(r#"mc_publisher_key_reloads_total{{outcome="{outcome}"}}"#));
    eventually("the broken file is refused", || reloads("refused") == 1).await;
    socket.send(&mesh_publish("user:1", "x", 2)).await;
    assert_eq!(socket.json().await["r"]["s"], 0);

    std::fs::write(&path, entry(WATCH)).unwrap();
    eventually("the new file is applied", || reloads("applied") == 1).await;
    assert_eq!(post(&bed, &bearer(WATCH), BODY).await.code(), (200, 0));
    assert_eq!(post(&bed, &bearer(SHOP), BODY).await.code(), (401, 105));
    socket.send(&mesh_publish("user:1", "x", 3)).await;
    let answer = socket.json().await;
    assert_eq!((&answer["E"]["c"], &answer["i"]), (&json!(105), &json!(3)));
    assert_eq!(socket.close_code().await, 4401);
    bed.finish().await;
}

#[tokio::test]
async fn web_pages_and_foreign_hosts_are_kept_out_key_or_not() {
    let bed = Bed::start(keyed).await;
    let key = bearer(SHOP);
    for header in [("origin", "https://evil.example"), ("host", "evil.example")] {
        let headers = [JSON, ("authorization", key.as_str()), header];
        assert_eq!(
            call(bed.address, &request(PUBLISH, &headers, BODY)).await.code(),
            (403, 106),
            "{header:?}"
        );
        let socket = Socket::handshake(bed.address, &[("authorization", &key), header]).await;
        assert_eq!(socket.err(), Some(403), "{header:?}");
    }
    bed.finish().await;
}

#[tokio::test]
async fn who_sends_a_large_message_reads_why_it_was_refused() {
    let bed = Bed::start(keyed).await;
    let large = json!({"c": "user:1", "d": "x".repeat(250_000)}).to_string();
    let large = format!("{large}{}", " ".repeat(1_200_000));
    let stranger = call(bed.address, &request(PUBLISH, &[JSON], &large)).await;
    assert_eq!(stranger.code(), (401, 105));
    assert_eq!(post(&bed, &bearer(WATCH), &large).await.code(), (403, 106));
    assert_eq!(post(&bed, &bearer(SHOP), &large).await.code(), (200, 0));
    bed.finish().await;
}

#[tokio::test]
async fn who_asks_before_it_sends_is_refused_without_a_body() {
    let bed = Bed::start(keyed).await;
    let head = format!(
        "{PUBLISH} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 9000\r\n\r\n"
    );
    assert_eq!(call(bed.address, head.as_bytes()).await.code(), (401, 105));
    bed.finish().await;
}

#[tokio::test]
async fn an_unknown_path_needs_a_key_as_well() {
    let bed = Bed::start(keyed).await;
    let stranger = call(bed.address, &request("GET /v1/nothing", &[], "")).await;
    assert_eq!(stranger.code(), (401, 105));
    let known = call(bed.address, &request("GET /v1/nothing", &[("authorization", &bearer(SHOP))], "")).await;
    assert_eq!(known.code(), (404, 109));
    bed.finish().await;
}

/// Starts a publisher with two keys, and an edge that does not answer, so that publishes stay under way.
async fn shared(change: impl FnOnce(&mut Config)) -> (Bed, FakeEdge) {
    let bed = Bed::start(|config| {
        config.keys = vec![key("shop", SHOP), key("crm", WATCH)];
        config.answer_deadline = Duration::from_secs(15);
        change(config);
    })
    .await;
    let edge = FakeEdge::start(&bed.bus.server, "frozen", true).await;
    edge.state.answers.store(false, Ordering::SeqCst);
    (bed, edge)
}

async fn socket(bed: &Bed, secret: &str) -> Result<Socket, u16> {
    Socket::handshake(bed.address, &[("authorization", &bearer(secret))]).await
}

#[tokio::test]
async fn a_key_has_its_share_of_what_is_in_flight_and_leaves_the_others_theirs() {
    let (bed, edge) = shared(|config| config.max_in_flight = 16).await;
    let in_flight = || bed.metric("mc_publisher_in_flight");
    let mut greedy = socket(&bed, SHOP).await.ok().unwrap();
    for i in 0..20 {
        greedy.send(&mesh_publish("user:1", "x", i)).await;
    }
    for i in 8..20 {
        let refused = greedy.json().await;
        assert_eq!((&refused["E"]["c"], &refused["i"]), (&json!(107), &json!(i)), "{refused}");
        assert!(refused["E"]["m"].as_str().unwrap().contains("its share of the 16 publishes"), "{refused}");
    }
    assert_eq!(in_flight(), 8);
    assert_eq!(post(&bed, &bearer(SHOP), BODY).await.code(), (429, 107));
    assert_eq!(bed.metric(r#"mc_publisher_key_refusals_total{key="shop",reason="share"}"#), 13);
    let mut other = socket(&bed, WATCH).await.ok().unwrap();
    for i in 0..4 {
        other.send(&mesh_publish("user:1", "x", i)).await;
    }
    eventually("those of the other key are under way", || in_flight() == 12).await;
    edge.thaw().await;
    eventually("all are answered", || in_flight() == 0).await;
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn a_key_has_its_share_of_the_waves_and_leaves_the_others_theirs() {
    let (bed, edge) = shared(|config| config.max_in_flight_bulk = 8).await;
    let in_flight = || bed.metric("mc_publisher_in_flight");
    let body = r#"{"to":{"channels":["a","b","c","d","e","f","g","h"]},"raw":"x"}"#;
    let calls = |secret: &str| {
        let authorization = bearer(secret);
        request("POST /v1/publish", &[JSON, ("authorization", &authorization)], body)
    };
    let mut greedy = Vec::new();
    for _ in 0..3 {
        let mut caller = Http::connect(bed.address).await;
        caller.send(&calls(SHOP)).await;
        greedy.push(caller);
    }
    eventually("it has its half", || in_flight() == 4).await;
    let mut other = Http::connect(bed.address).await;
    other.send(&calls(WATCH)).await;
    eventually("the other key has the other half", || in_flight() == 8).await;
    edge.thaw().await;
    assert_eq!(other.answer().await.status, 200);
    for mut caller in greedy {
        caller.answer().await;
    }
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn a_key_has_its_share_of_the_sockets_and_leaves_the_others_theirs() {
    let (bed, edge) = shared(|config| config.max_sockets = 4).await;
    let held = [socket(&bed, SHOP).await.ok().unwrap(), socket(&bed, SHOP).await.ok().unwrap()];
    assert_eq!(socket(&bed, SHOP).await.err(), Some(429));
    let other = socket(&bed, WATCH).await.ok().unwrap();
    drop((held, other));
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn the_only_key_has_all_places() {
    let bed = Bed::start(|config| {
        config.keys = vec![key("shop", SHOP), key("shop", WATCH)];
        config.max_sockets = 2;
    })
    .await;
    let held = [socket(&bed, SHOP).await.ok().unwrap(), socket(&bed, WATCH).await.ok().unwrap()];
    assert_eq!(socket(&bed, SHOP).await.err(), Some(429));
    drop(held);
    bed.finish().await;
}
