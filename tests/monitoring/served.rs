//! The real program serves every metric that alerts, the dashboard and the Prometheus adapter ask for.

use std::collections::{BTreeMap, BTreeSet};

use harness::alone::Alone;
use harness::certificate::Authority;
use harness::device::Device;
use harness::publisher::PublishingSocket;
use harness::raw;
use harness::wait::eventually;

use crate::expressions::metrics;
use crate::files::{alerts, dashboard, list, queries, read, recordings, text, yaml};

/// Metrics of Prometheus itself.
const OF_PROMETHEUS: [&str; 2] = ["ALERTS", "up"];
/// Metrics without a series until an event that these tests do not cause. They must be in the documentation,
/// which another test compares with the served metrics.
const AFTER_AN_EVENT: [(&str, &str); 11] = [
    ("mc_auth_drops_total", "a token check can't be made"),
    ("mc_config_reloads_total", "the configuration file changes"),
    ("mc_edge_fetches_total", "a live copy does not come"),
    ("mc_edge_reloads_total", "the store is made anew"),
    ("mc_edge_tls_reloads_total", "certificate files change"),
    ("mc_publisher_idempotent_calls_total", "a call has an Idempotency-Key"),
    ("mc_publisher_key_reloads_total", "the file of keys changes"),
    ("mc_publisher_losses_total", "an answer comes too late"),
    ("mc_publisher_tls_reloads_total", "certificate files change"),
    ("mc_task_ends_total", "a background task dies"),
    ("mc_trace_spans_total", "spans are exported"),
];
/// Metrics without a series until publishing keys are used.
const WITH_KEYS: [&str; 2] = ["mc_publisher_key_messages_total", "mc_publisher_key_refusals_total"];

/// The metrics, with the file that asks for each.
fn asked() -> BTreeMap<String, String> {
    let mut asked: Vec<(String, String)> =
        alerts().into_iter().map(|alert| (alert.name, alert.expression)).collect();
    asked.extend(recordings());
    asked.extend(queries(&dashboard()).into_iter().map(|query| (query.panel, query.expression)));
    let adapter = yaml("deploy/helm/message-center/examples/prometheus-adapter.yaml");
    let series = list(&adapter["rules"]["custom"]).iter().map(|rule| text(&rule["seriesQuery"]));
    asked.extend(series.map(|series| ("the Prometheus adapter".to_owned(), series)));
    let recorded: BTreeSet<_> = recordings().into_iter().map(|(name, _)| name).collect();
    let names = asked
        .iter()
        .flat_map(|(who, expression)| metrics(expression).into_iter().map(|name| (name, who.clone())));
    names.filter(|(name, _)| !recorded.contains(name) && !OF_PROMETHEUS.contains(&name.as_str())).collect()
}

/// The names of all series.
async fn served(alone: &Alone) -> BTreeSet<String> {
    let text = raw::get(alone.admin(), "/metrics").await.body;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// Causes every event that counts in the usual course of things, and some others.
async fn exercise(alone: &Alone) {
    let (mut device, id) = alone.begin().await;
    alone.publish(1, [1]).await;
    device.next_json().await;
    device.send(r#"{"op":"nothing"}"#).await;
    device.expect_error(5).await;
    device.close().await;
    eventually("the session's end is counted", async || {
        alone.metric("mc_edge_sessions_closed_total", "by_client").await >= 1.0
    })
    .await;
    alone.publish(0, [2]).await;
    let (device, recovery) = Device::back(alone.edge(), "user-1", &id).await;
    assert!(recovery.recovered, "nothing was lost");
    device.close().await;
    let mut socket = PublishingSocket::connect(alone.publisher_address()).await;
    socket.publish(&1.into(), "user:1", "over a socket").await;
    socket.answer().await;
    socket.close().await;
    eventually("the end of the publishing socket is counted", async || {
        alone.metric("mc_publisher_socket_ends_total", "").await >= 1.0
    })
    .await;
    let no_socket = raw::get(alone.edge(), "/elsewhere").await;
    assert_ne!(no_socket.status, 200);
}

/// The metrics of two real processes: one in usual use, one with certificates on its ports.
async fn everything_served() -> BTreeSet<String> {
    let alone = Alone::start().await;
    exercise(&alone).await;
    // The process looks at its streams only now and then.
    eventually("streams are told of", async || {
        alone.metric("mc_bus_server_stream_messages", "MC_LOG_0").await >= 2.0
    })
    .await;
    let mut served_by_both = served(&alone).await;
    alone.end().await;
    let folder = tempfile::TempDir::new().expect("there is room for a folder");
    let certificate = Authority::new(folder.path(), "authority").issue("port");
    let mut plan = Alone::plan();
    for part in ["edge", "publisher_api"] {
        plan = plan.set(&format!("{part}.tls.cert"), certificate.cert.display());
        plan = plan.set(&format!("{part}.tls.key"), certificate.key.display());
    }
    // A key set that is never fetched; its metrics are there all the same.
    let plan = plan.set("auth_adapter.mode", "jwt-then-url");
    let with_tls = plan.set("auth_adapter.jwt.jwks_url", "http://127.0.0.1:1/").start().await;
    served_by_both.extend(served(&with_tls).await);
    with_tls.end().await;
    served_by_both
}

#[tokio::test]
async fn every_metric_that_is_asked_for_is_served_by_the_real_program() {
    let served = everything_served().await;
    let documentation = read("deploy/docs/metrics.md");
    let documented =
        |name: &str| documentation.lines().any(|line| line.starts_with(&format!("| `{name}` |")));
    let missing = asked().into_iter().filter(|(name, _)| {
        let later =
            AFTER_AN_EVENT.iter().any(|(later, _)| later == name) || WITH_KEYS.contains(&name.as_str());
        !(served.contains(name) || later && documented(name))
    });
    assert_eq!(missing.collect::<Vec<_>>(), [], "nothing serves these, which are asked for");
}

#[test]
fn only_what_is_asked_for_is_excepted() {
    let asked = asked();
    for name in AFTER_AN_EVENT.iter().map(|(name, _)| *name).chain(WITH_KEYS) {
        assert!(asked.contains_key(name), "{name} is excepted, but nothing asks for it");
    }
}
