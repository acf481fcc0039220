//! Values in Prometheus text.

use prometheus_client::registry::Registry;

/// The text that a scraper of this registry gets.
///
/// # Panics
/// The registry cannot be encoded.
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("text takes any metric");
    text
}

/// The sum of a metric over the series whose line contains `label`; an empty `label` means all series.
pub fn sum(text: &str, name: &str, label: &str) -> f64 {
    text.lines()
        .filter(|line| {
            let series = line.strip_prefix(name);
            series.is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(label)
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        // A sum of no values would be -0.
        .fold(0.0, |sum, value| sum + value)
}

/// The value of the series that `line` names in full, labels included; 0 if there is none.
pub fn value(text: &str, line: &str) -> u64 {
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
}
