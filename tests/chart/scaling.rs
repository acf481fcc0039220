//! The number of pods, and the pace at which they come and go.

use serde_yaml_ng::Value;

use crate::helm::{find, list, with};

#[test]
fn sessions_are_the_only_metric_of_edges_by_default() {
    let Some(objects) = with("metrics of the HPA", &["edge.autoscaling.mode=hpa"]) else { return };
    let hpa = find(&objects, "HorizontalPodAutoscaler", "-edge");
    let metrics = list(&hpa["spec"]["metrics"]);
    assert_eq!(metrics.len(), 1, "{metrics:?}");
    assert_eq!(metrics[0]["pods"]["metric"]["name"], "mc_edge_sessions");
    let down = &hpa["spec"]["behavior"]["scaleDown"];
    assert_eq!(down["stabilizationWindowSeconds"], 1800);
    assert_eq!(down["policies"][0]["value"], 1);
}

#[test]
fn hpa_and_keda_exclude_each_other() {
    let keda = ["edge.autoscaling.mode=keda", "edge.autoscaling.keda.prometheusUrl=http://p:9090"];
    let Some(objects) = with("KEDA", &keda) else { return };
    assert!(!objects.iter().any(|object| object["kind"] == "HorizontalPodAutoscaler"));
    let scaled = find(&objects, "ScaledObject", "-edge");
    assert_eq!(scaled["spec"]["fallback"]["replicas"], 2);
}

#[test]
fn the_number_of_pods_is_never_left_out() {
    for mode in ["off", "hpa"] {
        let set = format!("edge.autoscaling.mode={mode}");
        let Some(objects) = with("replicas", &[&set, "edge.autoscaling.minReplicas=3", "edge.replicas=5"])
        else {
            return;
        };
        let replicas = &find(&objects, "Deployment", "-edge")["spec"]["replicas"];
        assert_eq!(replicas, &Value::from(if mode == "off" { 5 } else { 3 }), "{mode}");
    }
}

#[test]
fn a_longer_drain_lengthens_the_grace() {
    let Some(objects) = with("grace", &["edge.drainSeconds=300"]) else { return };
    let pod = &find(&objects, "Deployment", "-edge")["spec"]["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 325);
    let config = find(&objects, "ConfigMap", "-edge")["data"]["config.toml"].as_str().unwrap_or_default();
    assert!(config.contains("drain_window = \"300s\""), "{config}");
}

#[test]
fn an_edge_comes_before_one_goes_at_the_pace_of_min_ready_seconds() {
    let Some(objects) = with("roll-out", &[]) else { return };
    let spec = &find(&objects, "Deployment", "-edge")["spec"];
    assert_eq!(spec["minReadySeconds"], 15);
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxSurge"], 1);
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let spread = list(&spec["template"]["spec"]["topologySpreadConstraints"]);
    assert_eq!(spread.len(), 2);
}
