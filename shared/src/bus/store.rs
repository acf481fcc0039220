//! How the data folder of the embedded bus stands, in words for `/readyz`.

use embedded_bus::{Stats, StoreSnapshot};

use crate::health::Health;

const PART: &str = "bus store";

/// Says in `health` what an operator should know.
pub(super) fn tell(stats: &Stats, health: &Health) {
    let store = stats.store();
    health.note(PART, note(&store));
    match stats.store_fault() {
        Some(fault) => health.unready(PART, format!("{fault}; see the log, and check the disk")),
        None => health.ready(PART),
    }
}

fn note(store: &StoreSnapshot) -> Option<String> {
    if store.full {
        return Some(
            "full: messages are refused until there is room; free some on the disk, raise bus.store.max_bytes, or \
             keep less history"
                .to_owned(),
        );
    }
    // So that percents do not overflow.
    let percent = store.bytes.checked_div(store.max_bytes / 100).unwrap_or(0);
    (percent >= 80)
        .then(|| format!("{percent} % of bus.store.max_bytes is used; at the limit messages are refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_looks_is_told_before_the_store_is_full() {
        let at = |bytes, full| {
            note(&StoreSnapshot { bytes, max_bytes: 1 << 30, full, ..StoreSnapshot::default() })
        };
        assert_eq!(at(1 << 29, false), None);
        assert!(
            at((1 << 30) / 10 * 9, false).is_some_and(|text| text.contains("90 %") || text.contains("89 %"))
        );
        assert!(at(1 << 30, true).is_some_and(|text| text.starts_with("full")));
        assert_eq!(note(&StoreSnapshot::default()), None, "streams in memory have no limit here");
    }
}
