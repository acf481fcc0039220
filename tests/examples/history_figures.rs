//! Measures the cost of history: runs `message-center bench` over each kind of store, and prints a table.
//!
//! ```sh
//! MC_BIN=target/release/message-center cargo run --release -p tests --example history_figures
//! ```
//!
//! Rows over the real nats-server need `MC_TEST_NATS_SERVER`, as tests do. The argument is the duration of a
//! run in seconds.

use std::process::Stdio;

use anyhow::Context as _;
use harness::nats::NatsServer;
use harness::nats_cluster::{NatsCluster, PASSWORD, USER};
use harness::program::binary;
use harness::tools;
use serde_json::Value;
use tokio::process::Command;

/// Sessions, one per user, all with ids.
const SESSIONS: &str = "--sessions 200 --processes 2 --ramp 0 --idle 0s --recover";
/// The timing of messages: name and flags.
const LOADS: [(&str, &str); 4] = [
    ("500/s", "--mode open --rate 500"),
    ("1 in flight", "--mode closed --in-flight 1"),
    ("64 in flight", "--mode closed --in-flight 64"),
    ("1024 in flight, WebSocket", "--mode closed --in-flight 1024 --via ws"),
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let seconds: u64 = match std::env::args().nth(1) {
        Some(text) => text.parse().context("the argument is how many seconds a run takes")?,
        None => 15,
    };
    println!(
        "| store | load | publishes a second | answer p50 / p99 | delivery p50 / p99 | lost, twice, disorder |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, flags) in [
        ("no history", "--store none"),
        ("embedded, memory", "--store memory"),
        ("embedded, strict", "--store strict"),
        ("embedded, relaxed", "--store relaxed"),
    ] {
        rows(name, &[flags.to_owned()], seconds).await?;
    }
    let Some(nats) = tools::find("MC_TEST_NATS_SERVER", "the rows over nats-server") else { return Ok(()) };
    let server = NatsServer::start(&nats).await;
    let url = format!("bus.url=nats://{}", server.address());
    rows("nats-server, file, sync always", &["--store nats --set".into(), url], seconds).await?;
    server.stop().await;
    let cluster = NatsCluster::start(&nats).await;
    let mut flags = vec!["--store nats".to_owned()];
    for (key, value) in [
        ("bus.url", cluster.url()),
        ("bus.user", USER.to_owned()),
        ("bus.tls.ca", cluster.authority.file.display().to_string()),
        ("bus.tls.cert", cluster.client.cert.display().to_string()),
        ("bus.tls.key", cluster.client.key.display().to_string()),
        ("history.replicas", "3".to_owned()),
    ] {
        flags.extend(["--set".to_owned(), format!("{key}={value}")]);
    }
    rows("three nats-servers, R3, sync always", &flags, seconds).await?;
    cluster.stop().await;
    Ok(())
}

/// Runs all loads over one store, and prints a row for each.
async fn rows(store: &str, flags: &[String], seconds: u64) -> anyhow::Result<()> {
    for (load, timing) in LOADS {
        // A store without history has no ids.
        let sessions =
            if flags == ["--store none"] { SESSIONS.trim_end_matches(" --recover") } else { SESSIONS };
        let line = format!("{sessions} {timing} --duration {seconds}s --json -");
        let spread = flags.iter().flat_map(|flags| flags.split(' '));
        // The password goes into the environment: other processes could read it among the flags.
        let password =
            flags.iter().any(|flag| flag.starts_with("bus.user=")).then_some(("MC_BUS__PASSWORD", PASSWORD));
        let output = Command::new(binary())
            .arg("bench")
            .args(["--spawn", "standalone"])
            .args(spread)
            .args(line.split(' '))
            .envs(password)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .await?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{store}, {load}: {}", String::from_utf8_lossy(&output.stderr)))?;
        let ms = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN) / 1e3;
        let count = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap_or(u64::MAX);
        println!(
            "| {store} | {load} | {:.0} | {:.2} / {:.1} ms | {:.2} / {:.1} ms | {}, {}, {} |",
            report.pointer("/publishing/per_second").and_then(Value::as_f64).unwrap_or(f64::NAN),
            ms("/publishing/answer/p50_us"),
            ms("/publishing/answer/p99_us"),
            ms("/delivery/latency/p50_us"),
            ms("/delivery/latency/p99_us"),
            count("/delivery/lost"),
            count("/delivery/duplicates"),
            count("/delivery/reordered"),
        );
        for fault in report["faults"].as_array().into_iter().flatten() {
            eprintln!("{store}, {load}: {fault}");
        }
    }
    Ok(())
}
