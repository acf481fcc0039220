//! Metrics in the chart: the autoscalers' metrics exist, Prometheus accepts the queries, and alerts and
//! dashboard equal those of `deploy/monitoring`.

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

#[test]
fn alerts_and_dashboard_of_the_chart_are_those_of_the_repository() {
    for name in ["alerts.yaml", "dashboard.json"] {
        let (ours, right) = (chart().join("files").join(name), read(&format!("../../monitoring/{name}")));
        if std::env::var_os("MC_TEST_BLESS").is_some() {
            std::fs::write(&ours, &right).expect("it can be written");
        }
        let same = std::fs::read_to_string(&ours).is_ok_and(|ours| ours == right);
        assert!(
            same,
            "{} is not deploy/monitoring/{name}: run the test with MC_TEST_BLESS=1",
            ours.display()
        );
    }
}

/// The rules that the chart renders with these values, as a rules file of Prometheus.
fn rules(folder: &tempfile::TempDir, sets: &[&str]) -> Option<(std::path::PathBuf, Value)> {
    let sets = [&["monitoring.rules.enabled=true", "monitoring.dashboard.enabled=true"], sets].concat();
    let objects = with("rules of the chart", &sets)?;
    let spec = find(&objects, "PrometheusRule", "-metrics")["spec"].clone();
    let dashboard =
        find(&objects, "ConfigMap", "-dashboard")["data"]["message-center.json"].as_str().expect("a text");
    assert_eq!(dashboard, read("files/dashboard.json"));
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, serde_yaml_ng::to_string(&spec).expect("it was YAML")).expect("a file");
    Some((file, spec))
}

#[test]
fn rendering_leaves_the_alerts_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((_, spec)) = rules(&folder, &[]) else { return };
    let file: Value = serde_yaml_ng::from_str(&read("files/alerts.yaml")).expect("it is YAML");
    assert_eq!(spec, file);
    let prefix = "monitoring.rules.runbookPrefix=https://git.example.com/";
    let Some((_, spec)) = rules(&folder, &["edge.autoscaling.mode=hpa", prefix]) else { return };
    let text = serde_yaml_ng::to_string(&spec).expect("it was YAML");
    let pages = text.matches("runbook_url: https://git.example.com/deploy/docs/").count();
    assert_eq!(pages, text.matches("alert: ").count());
}

#[test]
fn the_autoscaler_is_watched_once_there_is_one() {
    let Some(promtool) = tools::find("MC_TEST_PROMTOOL", "alerts of the autoscaler") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let Some((file, _)) = rules(&folder, &["edge.autoscaling.mode=hpa"]) else { return };
    let check = Command::new(&promtool).args(["check", "rules"]).arg(&file).output().expect("it starts");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let condition = "kube_horizontalpodautoscaler_status_condition";
    let series = |metric: &str, name: &str, labels: &str, values: &str| {
        let series = format!("{metric}{{namespace=\"default\",horizontalpodautoscaler=\"{name}\"{labels}}}");
        serde_json::json!({ "series": series, "values": values })
    };
    let inactive = ",condition=\"ScalingActive\",status=\"false\"";
    let (now, most) = (
        "kube_horizontalpodautoscaler_status_current_replicas",
        "kube_horizontalpodautoscaler_spec_max_replicas",
    );
    let firing = |alert: &str, at: &str, count: u32| {
        let expr = format!("count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}) or vector(0)");
        serde_json::json!({ "expr": expr, "eval_time": at, "exp_samples": [{ "labels": "{}", "value": count }] })
    };
    let test = serde_json::json!({ "rule_files": [file], "evaluation_interval": "1m", "tests": [{ "interval": "1m",
        "input_series": [
            series(condition, "shop-message-center-edge", inactive, "0x10 1x30"),
            series(condition, "web", inactive, "1x40"),
            series(now, "shop-message-center-edge", "", "3x10 20x30"),
            series(most, "shop-message-center-edge", "", "20x40"),
            series(now, "web", "", "5x40"),
            series(most, "web", "", "5x40") ],
        "promql_expr_test": [
            firing("MessageCenterAutoscalerInactive", "10m", 0),
            firing("MessageCenterAutoscalerInactive", "25m", 1),
            firing("MessageCenterAutoscalerAtMaximum", "20m", 0),
            firing("MessageCenterAutoscalerAtMaximum", "30m", 1) ] }] });
    let cases = folder.path().join("test.yaml");
    std::fs::write(&cases, test.to_string()).expect("a file");
    let output = Command::new(promtool).args(["test", "rules"]).arg(&cases).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
