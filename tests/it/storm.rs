//! Login storms, and a business system that freezes: neither brings the other down.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use harness::business::Business;
use harness::cluster::Cluster;
use harness::device::Device;
use harness::fleet::{Fleet, Over};
use harness::raw;
use harness::wait::eventually;
use serde_json::json;

const SOCKETS: usize = 10_000;
const TOKENS: usize = 100;
/// Handshakes that the devices begin at once.
const AT_A_TIME: usize = 64;
/// Files that this process needs besides the sockets of the devices, since other tests run in this process,
/// too.
const SPARE_FILES: usize = 4_000;

/// Sockets open at once: all of them, or as many as the system allows one process.
fn wave() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files = files.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    files.map_or(SOCKETS, |files| files.saturating_sub(SPARE_FILES).clamp(200, SOCKETS))
}

/// Opens sockets on all edges in turn. Each has sent its token, and none has an answer yet.
async fn storm(fleet: &Fleet, sockets: std::ops::Range<usize>) -> Vec<Device> {
    let devices = stream::iter(sockets).map(async |socket| {
        let mut device = Device::connect(fleet.edge(socket % fleet.edges.len())).await;
        // The sockets of one token are spread over all edges.
        let token = format!("user-{}", socket / fleet.edges.len() % TOKENS + 1);
        device.send(&json!({ "op": "auth", "token": token }).to_string()).await;
        device
    });
    devices.buffer_unordered(AT_A_TIME).collect().await
}

fn calls_by_token(business: &Business) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for call in business.calls() {
        *calls.entry(call.token.unwrap_or_default()).or_default() += 1;
    }
    calls
}

/// Several edges and adapters, without any limit but those under test.
async fn fleet(edges: usize, adapters: usize) -> Fleet {
    let fleet = Fleet::plan(Over::Bus)
        .edges(edges)
        .adapters(adapters)
        .set("edge.connections_per_second", 100_000)
        .set("edge.connections_per_second_per_address", 0)
        .set("edge.login_timeout", "5m")
        .set("edge.auth_deadline", "5m")
        .set("auth_adapter.deadline", "5m")
        .set("auth_adapter.remember_yes", "10m")
        .start()
        .await;
    for edge in &fleet.edges {
        eventually("the edges know all auth-adapters", async || {
            raw::metric(edge.admin, "mc_edge_auth_adapters", "").await as usize == adapters
        })
        .await;
    }
    fleet
}

#[tokio::test]
async fn ten_thousand_sockets_with_a_hundred_tokens_ask_the_business_system_a_hundred_times() {
    let fleet = fleet(2, 2).await;
    // Held, so that all sockets of a wave wait at the same time.
    fleet.business.hold();
    let (wave, mut opened) = (wave(), 0);
    while opened < SOCKETS {
        let devices = storm(&fleet, opened..(opened + wave).min(SOCKETS)).await;
        opened += devices.len();
        eventually("the business system was asked", async || calls_by_token(&fleet.business).len() == TOKENS)
            .await;
        fleet.business.open();
        for mut device in devices {
            device.expect_json(&json!({ "result": true })).await;
        }
    }
    let calls = calls_by_token(&fleet.business);
    assert!(calls.len() == TOKENS && calls.values().all(|count| *count == 1), "{calls:?}");
    assert!(fleet.business.most_in_flight() <= TOKENS);
    fleet.end().await;
}

#[tokio::test]
async fn when_an_auth_adapter_leaves_or_dies_another_one_answers_at_once() {
    let mut fleet = Fleet::plan(Over::Bus).adapters(3).start().await;
    let admin = fleet.edges[0].admin;
    let known = async |adapters: usize| {
        eventually("the edge knows them", async || {
            raw::metric(admin, "mc_edge_auth_adapters", "").await as usize == adapters
        })
        .await;
    };
    known(3).await;
    fleet.adapters.remove(0).program.end().await;
    for user in 0..20 {
        fleet.online(0, &format!("user-{}", 1 + user)).await.close().await;
    }
    known(2).await;
    fleet.adapters.remove(0).program.kill().await;
    for user in 0..20 {
        fleet.online(0, &format!("user-{}", 100 + user)).await.close().await;
    }
    fleet.end().await;
}

#[tokio::test]
async fn while_the_business_system_is_frozen_open_sessions_live_on_and_new_ones_are_told_in_time() {
    let cluster = Cluster::plan()
        .adapter(|config| {
            config.deadline = Duration::from_millis(300);
            config.breaker.min_calls = 4;
            config.breaker.open = Duration::from_millis(200);
            config.breaker.open_longest = Duration::from_millis(200);
        })
        .start()
        .await;
    let mut open = cluster.online(0, "user-1").await;
    // The business system accepts connections and requests, and does not answer.
    cluster.business.hold();
    let refused = stream::iter(0..40).map(async |user| {
        let mut device = cluster.connect(0).await;
        device.send(&json!({ "op": "auth", "token": format!("user-{}", 100 + user) }).to_string()).await;
        device.expect_error(3).await;
        device.expect_close(1013).await;
    });
    refused.buffer_unordered(8).collect::<Vec<()>>().await;
    assert!(cluster.business.calls().len() < 41, "the breaker kept the later ones away");

    cluster.publisher(0).publish_to(1, "user:1", "still here").await;
    open.expect_text("still here").await;
    // A remembered answer is still valid.
    let mut second = cluster.online(0, "user-1").await;
    cluster.publisher(0).publish_to(2, "user:1", "for both").await;
    open.expect_text("for both").await;
    second.expect_text("for both").await;

    cluster.business.open();
    let mut user = 1_000;
    eventually("logins work again", async || {
        user += 1;
        let mut device = cluster.connect(0).await;
        device.send(&json!({ "op": "auth", "token": format!("user-{user}") }).to_string()).await;
        device.next_json().await == json!({ "result": true })
    })
    .await;
    drop((open, second));
    cluster.end().await;
}
