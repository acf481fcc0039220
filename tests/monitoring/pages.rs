//! Each alert has a page, each page an alert, and both say the same.

use std::collections::BTreeSet;

use crate::files::{alerts, read, repository};

#[test]
fn each_alert_says_what_it_is_and_where_its_page_is() {
    for alert in alerts() {
        let [summary, description, page] = &alert.annotations;
        assert!(["critical", "warning", "info"].contains(&alert.severity.as_str()), "{alert:?}");
        assert!(
            !summary.is_empty() && !summary.contains("{{"),
            "the summary is the same each time: {alert:?}"
        );
        assert!(description.len() > summary.len() / 2, "{alert:?}");
        assert_eq!(page, &format!("deploy/docs/alerts/{}.md", alert.name));
    }
}

#[test]
fn each_alert_has_a_page_and_each_page_an_alert() {
    let folder = std::fs::read_dir(repository("deploy/docs/alerts")).expect("the folder is there");
    let pages = folder.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned());
    let pages: BTreeSet<_> = pages.collect();
    let alerts: BTreeSet<_> = alerts().into_iter().map(|alert| format!("{}.md", alert.name)).collect();
    assert_eq!(pages, alerts);
}

#[test]
fn a_page_shows_the_expression_that_is_used_and_says_what_to_do() {
    let index = read("deploy/docs/alerts.md");
    for alert in alerts() {
        let page = read(&alert.annotations[2]);
        assert!(page.starts_with(&format!("# {}\n", alert.name)), "{}", alert.name);
        let expression = alert.expression.trim_end();
        assert!(
            page.contains(&format!("```promql\n{expression}\n```")),
            "the page of {} shows another",
            alert.name
        );
        for part in ["## What it means", "## What to look at", "## What to do"] {
            assert!(page.contains(part), "{part} of {}", alert.name);
        }
        let row = format!(
            "| [{name}](alerts/{name}.md) | {} | {} |",
            alert.severity,
            alert.annotations[0],
            name = alert.name
        );
        assert!(index.contains(&row), "the index has no row {row}");
    }
}
