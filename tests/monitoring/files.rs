//! The files of `deploy/monitoring`: alerts, their test cases, the dashboard.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use serde_yaml_ng::Value;

/// An alert of `alerts.yaml`.
#[derive(Debug)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) severity: String,
    /// Summary, description, and the path of the alert's page.
    pub(crate) annotations: [String; 3],
}

/// A query of the dashboard.
#[derive(Debug)]
pub(crate) struct Query {
    /// Title of the panel.
    pub(crate) panel: String,
    /// Expression, with the variables filled in.
    pub(crate) expression: String,
}

/// A path of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_sequence().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn rules() -> Vec<Value> {
    let file = yaml("deploy/monitoring/alerts.yaml");
    list(&file["groups"]).iter().flat_map(|group| list(&group["rules"])).cloned().collect()
}

/// All alerts, in order.
pub(crate) fn alerts() -> Vec<Alert> {
    let rules = rules();
    let alerts = rules.iter().filter(|rule| rule["alert"].is_string());
    let alerts: Vec<_> = alerts
        .map(|rule| Alert {
            name: text(&rule["alert"]),
            expression: text(&rule["expr"]),
            severity: text(&rule["labels"]["severity"]),
            annotations: ["summary", "description", "runbook_url"]
                .map(|name| text(&rule["annotations"][name])),
        })
        .collect();
    assert!(alerts.len() > 50, "only {} alerts", alerts.len());
    alerts
}

/// Name and expression of each recording rule.
pub(crate) fn recordings() -> Vec<(String, String)> {
    let rules = rules();
    let recordings = rules.iter().filter(|rule| rule["record"].is_string());
    recordings.map(|rule| (text(&rule["record"]), text(&rule["expr"]))).collect()
}

/// The dashboard.
pub(crate) fn dashboard() -> Json {
    serde_json::from_str(&read("deploy/monitoring/dashboard.json")).expect("the dashboard is JSON")
}

/// All queries of the dashboard, of panels and of variables.
pub(crate) fn queries(dashboard: &Json) -> Vec<Query> {
    let array = |value: &Json| value.as_array().cloned().unwrap_or_default();
    let mut queries = Vec::new();
    for panel in array(&dashboard["panels"]) {
        for target in array(&panel["targets"]) {
            let expression = target["expr"].as_str().expect("each target has an expression");
            let panel = panel["title"].as_str().unwrap_or_default().to_owned();
            queries.push(Query { panel, expression: filled(expression) });
        }
    }
    for variable in array(&dashboard["templating"]["list"]) {
        let asked = variable["query"]["query"].as_str().and_then(|query| query.strip_prefix("label_values("));
        if let Some((expression, _)) = asked.and_then(|asked| asked.rsplit_once(',')) {
            let panel = format!("variable {}", variable["name"]);
            queries.push(Query { panel, expression: filled(expression) });
        }
    }
    queries
}

/// The expression with Grafana's variables filled in.
fn filled(expression: &str) -> String {
    let mut filled = expression.to_owned();
    for (variable, value) in
        [("$__rate_interval", "5m"), ("$namespace", "push"), ("$job", "mc"), ("$instance", ".*")]
    {
        filled = filled.replace(variable, value);
    }
    assert!(!filled.contains('$'), "a variable that nobody knows: {filled}");
    filled
}
