//! The layout of the dashboard, and its use with any data source.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::files::dashboard;

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().map_or(&[], Vec::as_slice)
}

/// The cells of Grafana's grid that a panel covers.
fn cells(panel: &Value) -> Vec<(u64, u64)> {
    let of =
        |key: &str| panel["gridPos"][key].as_u64().unwrap_or_else(|| panic!("{key} of {}", panel["title"]));
    let (x, y, width, height) = (of("x"), of("y"), of("w"), of("h"));
    assert!(width > 0 && height > 0 && x + width <= 24, "{}", panel["title"]);
    (y..y + height).flat_map(|line| (x..x + width).map(move |column| (column, line))).collect()
}

#[test]
fn panels_have_their_own_number_title_and_place() {
    let dashboard = dashboard();
    let (mut ids, mut titles, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap_or_default();
        assert!(!title.is_empty() && titles.insert(title), "the title {title:?}");
        assert!(ids.insert(panel["id"].as_u64().unwrap_or_default()), "the id of {title}");
        assert!(cells(panel).into_iter().all(|cell| taken.insert(cell)), "{title} lies over another panel");
        let described = panel["description"].as_str().is_some_and(|text| !text.is_empty());
        assert!(described || panel["type"] == "row", "{title} has no description");
    }
    assert!(ids.len() > 40, "only {} panels", ids.len());
}

#[test]
fn each_part_has_its_row() {
    let dashboard = dashboard();
    let rows = panels(&dashboard).iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<_> = rows.filter_map(|row| row["title"].as_str()).collect();
    let wanted =
        ["Overview", "Sessions", "Delivery", "Publishing", "Recovery", "Bus", "Storage", "Login", "Process"];
    assert_eq!(rows, wanted);
}

#[test]
fn every_panel_asks_the_chosen_data_source_about_the_chosen_system() {
    let dashboard = dashboard();
    for panel in panels(&dashboard).iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            let expression = target["expr"].as_str().unwrap_or_default();
            let chosen = expression.matches("namespace=~\"$namespace\",job=~\"$job\"").count();
            let selectors = expression.matches('{').count();
            assert!(chosen > 0 && chosen == selectors, "{}: {expression}", panel["title"]);
        }
    }
}
