//! Measures the stores alone: messages per second through one bus connection, and the latency of a store.
//!
//! ```sh
//! cargo run --release -p tests --example store_figures
//! ```
//!
//! Rows over the real nats-server need `MC_TEST_NATS_SERVER`, as tests do. The argument is the duration of a
//! row in seconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use harness::nats::NatsServer;
use harness::nats_cluster::{NatsCluster, PASSWORD, USER};
use harness::tools;
use shared::bus::{self, Bus, BusConfig};
use shared::config::Secret;
use shared::drain::Drain;
use shared::history::{History, HistoryConfig, Role};
use shared::ids::{Channel, MessageId};
use shared::wire::{Kind, LiveMessage};

/// Channels, used in turn.
const CHANNELS: u128 = 1_000;
const PAYLOAD: usize = 128;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let seconds: u64 = match std::env::args().nth(1) {
        Some(text) => text.parse().context("the argument is how many seconds a row takes")?,
        None => 10,
    };
    println!("| store | in flight | stored a second | p50 | p99 |");
    println!("| --- | --- | --- | --- | --- |");
    let listen = "127.0.0.1:0".to_owned();
    let memory = BusConfig { listen, ..BusConfig::default() };
    rows("embedded, memory", &memory, 1, seconds).await?;
    let Some(nats) = tools::find("MC_TEST_NATS_SERVER", "the rows over nats-server") else { return Ok(()) };
    let server = NatsServer::start(&nats).await;
    let one = BusConfig { url: format!("nats://{}", server.address()), ..BusConfig::default() };
    rows("nats-server, file, sync always", &one, 1, seconds).await?;
    server.stop().await;
    let cluster = NatsCluster::start(&nats).await;
    let mut three = BusConfig { url: cluster.url(), user: USER.into(), ..BusConfig::default() };
    three.password = Secret::new(PASSWORD);
    three.tls.ca = cluster.authority.file.clone();
    three.tls.cert = cluster.client.cert.clone();
    three.tls.key = cluster.client.key.clone();
    rows("three nats-servers, R3, sync always", &three, 3, seconds).await?;
    cluster.stop().await;
    Ok(())
}

async fn rows(name: &str, config: &BusConfig, replicas: u8, seconds: u64) -> anyhow::Result<()> {
    let (bus_drain, drain) = (Drain::new(), Drain::new());
    let there = bus::provide(config, &bus_drain).await?;
    let bus = Bus::connect(&there, "figures", &drain).await?;
    let config = HistoryConfig { replicas, ..HistoryConfig::default() };
    let history = History::open(&bus, &config, Role::Publisher, &drain);
    let ready = async { history.state().wait_for(|state| state.epochs().is_some()).await.map(drop) };
    tokio::time::timeout(Duration::from_secs(30), ready).await.context("history gets ready")??;
    let next = AtomicU64::new(0);
    for in_flight in [1, 64, 1024] {
        let end = Instant::now() + Duration::from_secs(seconds);
        let lanes = (0..in_flight).map(|_| lane(&history, &next, end));
        let lanes = futures_util::future::try_join_all(lanes).await?;
        let mut took: Vec<Duration> = lanes.into_iter().flatten().collect();
        took.sort_unstable();
        let at =
            |percent: usize| took.get(took.len() * percent / 100).map_or(f64::NAN, Duration::as_secs_f64);
        println!(
            "| {name} | {in_flight} | {} | {:.2} ms | {:.2} ms |",
            took.len() as u64 / seconds,
            at(50) * 1e3,
            at(99) * 1e3
        );
    }
    drain.finish(Duration::from_secs(10)).await;
    bus_drain.finish(Duration::from_secs(10)).await;
    Ok(())
}

/// Stores one message after the other; returns the latency of each.
async fn lane(history: &History, next: &AtomicU64, end: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    while Instant::now() < end {
        let id = MessageId(u128::from(next.fetch_add(1, Ordering::Relaxed)));
        let channel = Channel::parse(&format!("user:{}", id.0 % CHANNELS))?;
        let message = LiveMessage { id, kind: Kind::Text, payload: payload.clone() };
        let began = Instant::now();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        history.store(&channel, &message, async_nats::HeaderMap::default(), deadline).await?;
        took.push(began.elapsed());
    }
    Ok(took)
}
