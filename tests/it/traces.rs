//! One trace from the publisher's call to the device's socket, and from a device's login to the business
//! system.

use harness::collector::{Collector, SeenSpan};
use harness::fleet::{Fleet, FleetPlan, Over};
use harness::program::Launch;
use harness::publisher::{Published, PublishingSocket};
use harness::raw;
use harness::wait::eventually;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

/// The caller's span.
const CALLER: &str = "b7ad6b7169203331";

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{CALLER}-{flags}")
}

fn plan(collector: &Collector) -> FleetPlan {
    let plan = Fleet::plan(Over::Bus).variable("OTEL_BSP_SCHEDULE_DELAY", "20");
    collector.variables().iter().fold(plan, |plan, (name, value)| plan.variable(name, value))
}

async fn publish(fleet: &Fleet, traceparent: &str, text: &str) -> Published {
    let publisher = fleet.publisher(0);
    let request = publisher.request(reqwest::Method::POST, "/v1/mesh/publish");
    let request = request.header("content-type", "application/json").header("traceparent", traceparent);
    publisher.send(request.body(json!({ "c": "user:1", "d": text }).to_string())).await
}

/// Follows one publish step by step: each span is the child of the one before, in the process where it
/// belongs.
async fn follow(collector: &Collector, trace: &str, root: &str, caller: &str) {
    let mut parent = caller.to_owned();
    for (name, service) in [
        (root, "message-center-publisher-api"),
        ("publish", "message-center-publisher-api"),
        ("store", "message-center-publisher-api"),
        ("edge deliver", "message-center-edge"),
        ("socket write", "message-center-edge"),
    ] {
        let span = collector.span(name, |span| span.trace == trace).await;
        assert_eq!((span.service.as_str(), span.parent.as_str()), (service, parent.as_str()), "{span:?}");
        if name == "socket write" {
            assert_eq!(span.attributes["mc.outcome"], "written");
        }
        parent = span.id;
    }
    collector.span("edge answer", |span| span.trace == trace).await;
}

fn tells_no_secret(span: &SeenSpan) {
    let text = format!("{span:?}");
    for secret in ["user-1", "user:1", "a secret text"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

#[tokio::test]
async fn one_publish_is_one_trace_from_the_call_to_the_socket() {
    for collector in [Collector::http().await, Collector::grpc().await] {
        let fleet = plan(&collector).start().await;
        let mut device = fleet.online(0, "user-1").await;

        let trace = "0af7651916cd43dd8448eb211c80319c";
        publish(&fleet, &traceparent(trace, "01"), "a secret text").await.expect_counts(1, 0);
        device.expect_text("a secret text").await;
        follow(&collector, trace, "POST /v1/mesh/publish", CALLER).await;

        let (trace, mut socket) = (
            "1af7651916cd43dd8448eb211c80319c",
            PublishingSocket::connect(fleet.publishers[0].address.expect("it listens")).await,
        );
        let call = json!({ "m": "mesh.publish", "p": { "c": "user:1", "d": "x" }, "i": 1,
            "traceparent": traceparent(trace, "01") });
        socket.send(Message::text(call.to_string())).await;
        assert_eq!(socket.answer().await["r"]["s"], 1);
        follow(&collector, trace, "mesh.publish", CALLER).await;

        collector.spans().iter().for_each(tells_no_secret);
        let admin = fleet.edges[0].admin;
        let counted = async || raw::metric(admin, "mc_trace_spans_total", "exported").await >= 6.0;
        eventually("exported spans are counted", counted).await;
        socket.close().await;
        device.close().await;
        fleet.end().await;
        collector.stop().await;
    }
}

#[tokio::test]
async fn a_caller_that_keeps_no_trace_makes_none_here() {
    let collector = Collector::http().await;
    let fleet = plan(&collector).variable("OTEL_TRACES_SAMPLER", "parentbased_always_on").start().await;
    let device = fleet.online(0, "user-1").await;
    let (unkept, kept) = ("2af7651916cd43dd8448eb211c80319c", "3af7651916cd43dd8448eb211c80319c");
    publish(&fleet, &traceparent(unkept, "00"), "x").await.expect_counts(1, 0);
    publish(&fleet, &traceparent(kept, "01"), "x").await.expect_counts(1, 0);
    // The spans of a process arrive in the order in which they ended.
    collector.span("POST /v1/mesh/publish", |span| span.trace == kept).await;
    collector.span("socket write", |span| span.trace == kept).await;
    assert!(!collector.spans().iter().any(|span| span.trace == unkept));
    // An unreadable `traceparent` does not refuse the call; a new trace begins.
    publish(&fleet, "rubbish", "x").await.expect_counts(1, 0);
    let root =
        collector.span("POST /v1/mesh/publish", |span| span.trace != kept && span.parent.is_empty()).await;
    follow(&collector, &root.trace, "POST /v1/mesh/publish", "").await;
    device.close().await;
    fleet.end().await;
    collector.stop().await;
}

#[tokio::test]
async fn a_login_is_a_trace_that_the_business_system_can_go_on_with() {
    let collector = Collector::http().await;
    let fleet = plan(&collector).variable("OTEL_TRACES_SAMPLER", "always_on").start().await;
    let device = fleet.online(0, "user-1").await;
    let login = collector.span("login", |span| span.service == "message-center-edge").await;
    assert_eq!((login.parent.as_str(), login.attributes["mc.outcome"].as_str()), ("", "known"));
    let check = collector.span("verify token", |span| span.trace == login.trace).await;
    assert_eq!((check.service.as_str(), &check.parent), ("message-center-auth-adapter", &login.id));
    let call = collector.span("business call", |span| span.trace == login.trace).await;
    assert_eq!(call.parent, check.id);
    let sent = fleet.business.calls()[0].headers["traceparent"].to_str().expect("it is ASCII").to_owned();
    assert_eq!(sent, format!("00-{}-{}-01", login.trace, call.id));
    collector.spans().iter().for_each(tells_no_secret);
    device.close().await;
    fleet.end().await;
    collector.stop().await;
}

#[tokio::test]
async fn what_waits_is_exported_when_a_part_leaves_and_logs_name_the_trace() {
    let collector = Collector::http().await;
    let plan = Fleet::plan(Over::Bus).variable("OTEL_BSP_SCHEDULE_DELAY", "900000");
    let plan = collector.variables().iter().fold(plan, |plan, (name, value)| plan.variable(name, value));
    let mut fleet = plan.set("log.filter", "info,publisher_api=debug").start().await;
    let trace = "4af7651916cd43dd8448eb211c80319c";
    publish(&fleet, &traceparent(trace, "01"), "a secret text").await.expect_counts(0, 0);
    let line = fleet.publishers[0].program.logged("stored").await;
    assert_eq!(
        (&line["trace_id"], line["span_id"].as_str().map(str::len)),
        (&json!(trace), Some(16)),
        "{line}"
    );
    assert_eq!(collector.spans(), []);
    fleet.end().await;
    collector.span("POST /v1/mesh/publish", |span| span.trace == trace).await;
    collector.span("edge deliver", |span| span.trace == trace).await;
    collector.stop().await;
}

#[tokio::test]
async fn a_collector_that_is_away_costs_only_its_spans() {
    let collector = Collector::http().await;
    let plan = plan(&collector);
    collector.stop().await;
    let fleet = plan.start().await;
    publish(&fleet, &traceparent("5af7651916cd43dd8448eb211c80319c", "01"), "x").await.expect_counts(0, 0);
    let admin = fleet.publishers[0].admin;
    let failed = async || raw::metric(admin, "mc_trace_spans_total", "failed").await > 0.0;
    eventually("spans that could not be exported are counted", failed).await;
    fleet.end().await;
}

#[tokio::test]
async fn a_variable_that_cannot_be_used_is_named_before_anything_starts() {
    let finished = Launch::of("edge")
        .argument("--check-config")
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .variable("OTEL_TRACES_SAMPLER", "sometimes")
        .run()
        .await;
    assert_eq!(finished.code, 64, "{finished:?}");
    assert!(
        finished.stderr.contains("OTEL_TRACES_SAMPLER")
            && finished.stderr.contains("parentbased_traceidratio")
    );
}
