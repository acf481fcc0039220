//! The rules and their cases, run by promtool.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use harness::tools;

use crate::expressions::metrics;
use crate::files::{alerts, dashboard, list, queries, repository, text, yaml};

fn promtool(test: &str, arguments: &[&str], file: &Path) {
    let Some(promtool) = tools::find("MC_TEST_PROMTOOL", test) else { return };
    let output = Command::new(promtool).args(arguments).arg(file).output().expect("promtool can be started");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_can_read_the_rules() {
    let file = repository("deploy/monitoring/alerts.yaml");
    promtool("promtool_can_read_the_rules", &["check", "rules", "--lint-fatal"], &file);
}

#[test]
fn each_alert_fires_in_its_case_and_none_in_good_health() {
    let file = repository("deploy/monitoring/alerts_test.yaml");
    promtool("each_alert_fires_in_its_case_and_none_in_good_health", &["test", "rules"], &file);
}

#[test]
fn promtool_can_read_every_query_of_the_dashboard() {
    let queries = queries(&dashboard());
    assert!(queries.len() > 60, "only {} queries", queries.len());
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, query) in queries.iter().enumerate() {
        let expression = serde_json::to_string(&query.expression).expect("text is JSON, and JSON is YAML");
        // The rule's name in promtool's message is the panel.
        let panel: String =
            query.panel.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let _ = writeln!(rules, "      - record: panel:{panel}:{number}\n        expr: {expression}");
    }
    let folder = tempfile::TempDir::new().expect("there is room for a folder");
    let file = folder.path().join("dashboard.yaml");
    std::fs::write(&file, rules).expect("it can be written");
    promtool("promtool_can_read_every_query_of_the_dashboard", &["check", "rules"], &file);
}

/// The checks of a case: the alert, and whether it fires.
fn checks() -> Vec<(String, bool)> {
    let file = yaml("deploy/monitoring/alerts_test.yaml");
    let checks = list(&file["tests"]).iter().flat_map(|case| list(&case["promql_expr_test"]));
    checks
        .filter_map(|check| {
            let expression = text(&check["expr"]);
            let (_, alert) = expression.split_once("alertname=\"")?;
            let firing = list(&check["exp_samples"]).iter().any(|sample| sample["value"] == 1);
            Some((alert.split('"').next()?.to_owned(), firing))
        })
        .collect()
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_a_time_at_which_it_does_not() {
    let checks = checks();
    let alerts: BTreeSet<_> = alerts().into_iter().map(|alert| alert.name).collect();
    for wanted in [true, false] {
        let of = checks.iter().filter(|(_, firing)| *firing == wanted).map(|(alert, _)| alert.clone());
        assert_eq!(of.collect::<BTreeSet<_>>(), alerts, "alerts with a case in which firing is {wanted}");
    }
}

#[test]
fn the_healthy_system_has_every_metric_that_an_alert_asks_for() {
    let file = yaml("deploy/monitoring/alerts_test.yaml");
    let healthy = &list(&file["tests"])[0];
    assert_eq!(healthy["name"], "healthy");
    let series = list(&healthy["input_series"]).iter().map(|series| text(&series["series"]));
    let there: BTreeSet<_> = series.flat_map(|series| metrics(&series)).collect();
    let recordings = crate::files::recordings();
    let asked = alerts().into_iter().map(|alert| alert.expression);
    let asked = asked.chain(recordings.iter().map(|(_, expression)| expression.clone()));
    for name in asked.flat_map(|expression| metrics(&expression)) {
        let recorded = recordings.iter().any(|(recording, _)| *recording == name);
        assert!(recorded || there.contains(&name), "{name} is missing in the case \"healthy\"");
    }
}
