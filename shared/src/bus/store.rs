//! The state of the embedded bus's data folder, in words for `/readyz`.

use embedded_bus::{MemorySnapshot, Stats, StoreSnapshot};

use crate::health::Health;

const PART: &str = "bus store";

/// Tells `health` what an operator should know.
pub(super) fn tell(stats: &Stats, health: &Health) {
    let store = stats.store();
    health.note(PART, note(&store, &stats.memory()));
    match stats.store_error() {
        Some(fault) => health.unready(PART, format!("{fault}; see the log, and check the disk")),
        None => health.ready(PART),
    }
}

fn note(store: &StoreSnapshot, memory: &MemorySnapshot) -> Option<String> {
    match (note_of_folder(store), note_of_memory(memory)) {
        (Some(folder), Some(memory)) => Some(format!("{folder}; {memory}")),
        (folder, memory) => folder.or(memory),
    }
}

fn note_of_folder(store: &StoreSnapshot) -> Option<String> {
    if store.full {
        return Some(
            "full: messages are refused until there is room; free some on the disk, raise bus.store.max_bytes, or \
             keep less history"
                .to_owned(),
        );
    }
    note_of_limit("bus.store.max_bytes", store.bytes, store.max_bytes)
}

fn note_of_memory(memory: &MemorySnapshot) -> Option<String> {
    if memory.full {
        return Some(
            "full: bus.store.max_memory is taken, and messages are refused until some have gone; raise it if the machine \
             has the memory, or keep less history"
                .to_owned(),
        );
    }
    note_of_limit("bus.store.max_memory", memory.bytes, memory.max_bytes)
}

fn note_of_limit(key: &str, used: u64, limit: u64) -> Option<String> {
    // Divided first, so that percents do not overflow.
    let percent = used.checked_div(limit / 100).unwrap_or(0);
    (percent >= 80).then(|| format!("{percent} % of {key} is used; at the limit messages are refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_looks_is_told_before_the_store_is_full() {
        let at = |bytes, full| {
            let store = StoreSnapshot { bytes, max_bytes: 1 << 30, full, ..StoreSnapshot::default() };
            note(&store, &MemorySnapshot::default())
        };
        assert_eq!(at(1 << 29, false), None);
        assert!(
            at((1 << 30) / 10 * 9, false).is_some_and(|text| text.contains("90 %") || text.contains("89 %"))
        );
        assert!(at(1 << 30, true).is_some_and(|text| text.starts_with("full")));
        let none = StoreSnapshot::default();
        assert_eq!(note(&none, &MemorySnapshot::default()), None, "streams in memory have no limit here");
        let of = |bytes, full| note(&none, &MemorySnapshot { bytes, max_bytes: 1000, full });
        assert_eq!(of(799, false), None);
        assert!(of(800, false).is_some_and(|text| text.starts_with("80 % of bus.store.max_memory")));
        assert!(of(1000, true).is_some_and(|text| text.starts_with("full: bus.store.max_memory")));
        let both = StoreSnapshot { full: true, ..none };
        let text = note(&both, &MemorySnapshot { bytes: 900, max_bytes: 1000, full: false }).unwrap();
        assert!(
            text.contains("bus.store.max_bytes") && text.contains("90 % of bus.store.max_memory"),
            "{text}"
        );
    }
}
