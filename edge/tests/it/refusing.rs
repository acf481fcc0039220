//! Errors at the start, and connections that are turned away.

use std::sync::Arc;

use edge::{Config, Edge};
use prometheus_client::registry::Registry;
use shared::bus::{self, Bus, BusConfig};
use shared::drain::Drain;
use shared::health::Health;
use shared::history::HistoryConfig;
use shared::part::Host;
use shared::rules::{Rules, default_rules};

use crate::support::client::Client;
use crate::support::{PATIENCE, World};

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (drain, rest) = (Drain::new(), Drain::new());
    let server = bus::provide(&BusConfig::default(), &rest).await.unwrap();
    let bus = Bus::connect(&server, edge::PART, &rest).await.unwrap();
    let config = Config { listen: taken.local_addr().unwrap(), ..Config::default() };
    let rules = Arc::new(Rules::compile(&default_rules()).unwrap());
    let mut registry = Registry::default();
    let host = Host { bus, health: Health::new(), registry: &mut registry, drain: drain.clone() };
    let started = Edge::start(config, rules, &HistoryConfig::default(), host).await;
    let fault = started.unwrap_err().to_string();
    assert!(fault.contains("edge.listen") && fault.contains("is taken"), "{fault}");
    assert_eq!(drain.finish(PATIENCE).await + rest.finish(PATIENCE).await, 0);
}

#[tokio::test]
async fn a_full_edge_says_so_and_counts_it() {
    let world = World::ready(|config| config.max_sessions = 1).await;
    let only = Client::connect(&world.edge).await;
    let (status, retry_after) = Client::try_connect(&world.edge).await.err().unwrap();
    assert_eq!(status.as_u16(), 503);
    assert!(retry_after.is_some());
    assert_eq!(world.metric("mc_edge_refusals_total", "full"), 1);
    only.leave().await;
    world.end().await;
}

#[tokio::test]
async fn how_sessions_ended_is_counted_by_close_code() {
    let world = World::ready(|_| {}).await;
    Client::connect(&world.edge).await.leave().await;
    let mut rude = Client::connect(&world.edge).await;
    rude.say("rubbish").await;
    let refusal = rude.next().await.unwrap().into_text().unwrap();
    assert!(refusal.starts_with(r#"{"code":4,"msg":"Bad Request: "#), "{refusal}");
    rude.expect_close(4400).await;
    let closed = |label| world.metric("mc_edge_sessions_closed_total", label);
    assert_eq!([r#"reason="by_client""#, r#"code="4400""#].map(closed), [1, 1]);
    assert_eq!(world.metric("mc_edge_sessions_opened_total", ""), 2);
    world.end().await;
}
