//! Metrics in the chart: what autoscalers ask for exists, queries are ones that Prometheus takes, and the alerts and the
//! dashboard are those of `deploy/monitoring`.

use std::process::Command;

use harness::tools;
use serde_yaml_ng::Value;

use crate::helm::{chart, find, list, with};

fn read(path: &str) -> String {
    let path = chart().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn autoscalers_ask_for_metrics_that_there_are() {
    let metrics = read("../../docs/metrics.md");
    let adapter = read("examples/prometheus-adapter.yaml");
    let rules: Value = serde_yaml_ng::from_str(&adapter).expect("it is YAML");
    let rule = &list(&rules["rules"]["custom"])[0];
    assert_eq!(rule["name"]["as"], "mc_edge_sessions");
    assert!(rule["seriesQuery"].as_str().is_some_and(|query| query.starts_with("mc_edge_sessions{")));
    assert!(metrics.contains("`mc_edge_sessions`"), "docs/metrics.md does not know mc_edge_sessions");
    let Some(objects) = with("metric of the HPA", &["edge.autoscaling.mode=hpa"]) else { return };
    let hpa = find(&objects, "HorizontalPodAutoscaler", "-edge");
    assert_eq!(list(&hpa["spec"]["metrics"])[0]["pods"]["metric"]["name"], rule["name"]["as"]);
}

#[test]
fn prometheus_takes_the_query_of_keda_and_counts_the_pods_of_this_release() {
    let Some(promtool) = tools::find("MC_TEST_PROMTOOL", "query of KEDA") else { return };
    let sets = ["edge.autoscaling.mode=keda", "edge.autoscaling.keda.prometheusUrl=http://p:9090"];
    let Some(objects) = with("query of KEDA", &sets) else { return };
    let scaled = find(&objects, "ScaledObject", "-edge");
    let query =
        list(&scaled["spec"]["triggers"])[0]["metadata"]["query"].as_str().expect("a query").to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let series = |pod: &str| format!("mc_edge_sessions{{namespace=\"default\",pod=\"{pod}\"}}");
    let samples = [series("shop-message-center-edge-5d9-a"), series("shop-message-center-edge-5d9-b")];
    let other = series("other-message-center-edge-5d9-a");
    let test = serde_json::json!({ "evaluation_interval": "1m", "tests": [{ "interval": "1m",
        "input_series": [
            { "series": samples[0], "values": "7" }, { "series": samples[1], "values": "5" },
            { "series": other, "values": "100" }],
        "promql_expr_test": [{ "expr": query, "eval_time": "0m", "exp_samples": [{ "labels": "{}", "value": 12 }] }] }] });
    let file = folder.path().join("test.yaml");
    std::fs::write(&file, test.to_string()).expect("a file");
    let output = Command::new(promtool).args(["test", "rules"]).arg(&file).output().expect("it starts");
    assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn metrics_of_every_part_are_read_once() {
    let Some(objects) = with("ServiceMonitor", &["monitoring.serviceMonitor.enabled=true"]) else { return };
    let monitor = find(&objects, "ServiceMonitor", "-metrics");
    let wanted = &monitor["spec"]["selector"]["matchLabels"];
    let services: Vec<_> = objects
        .iter()
        .filter(|object| object["kind"] == "Service")
        .filter(|service| {
            let labels = &service["metadata"]["labels"];
            wanted.as_mapping().is_some_and(|wanted| wanted.iter().all(|(key, value)| &labels[key] == value))
        })
        .collect();
    assert_eq!(services.len(), 1, "pods behind two Services would be read twice");
    let endpoint = &list(&monitor["spec"]["endpoints"])[0];
    assert_eq!(endpoint["port"], list(&services[0]["spec"]["ports"])[0]["name"]);
    assert_eq!(endpoint["path"], "/metrics");
}
