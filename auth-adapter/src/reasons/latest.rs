//! The latest distinct reasons. Pure.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::Value;

/// The most reasons that are kept.
const MAX_REASONS: usize = 32;

/// The latest reasons, the newest last.
#[derive(Debug, Default)]
pub(super) struct Latest(VecDeque<Entry>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Entry {
    outcome: &'static str,
    text: String,
    /// The first time of this reason, in Unix milliseconds.
    first_ms: u64,
    /// The last time of this reason, in Unix milliseconds.
    last_ms: u64,
    count: u64,
}

impl Latest {
    /// Notes a reason. The one that was not seen for the longest time makes room.
    pub(super) fn note(&mut self, outcome: &'static str, text: &str, now_ms: u64) {
        let known = self.0.iter().position(|entry| entry.outcome == outcome && entry.text == text);
        let entry = match known.and_then(|place| self.0.remove(place)) {
            Some(entry) => Entry { last_ms: now_ms, count: entry.count.saturating_add(1), ..entry },
            None => Entry { outcome, text: text.to_owned(), first_ms: now_ms, last_ms: now_ms, count: 1 },
        };
        if self.0.len() == MAX_REASONS {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    /// Returns the reasons as JSON, the newest first.
    pub(super) fn page(&self) -> Value {
        let reasons: Vec<_> = self.0.iter().rev().collect();
        serde_json::json!({ "reasons": reasons })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_reason_is_counted_and_the_newest_is_first() {
        let mut latest = Latest::default();
        latest.note("no_uid", "looked for uid", 1);
        latest.note("status", "404", 2);
        latest.note("no_uid", "looked for uid", 3);
        let uid =
            json!({ "outcome": "no_uid", "text": "looked for uid", "first_ms": 1, "last_ms": 3, "count": 2 });
        let status = json!({ "outcome": "status", "text": "404", "first_ms": 2, "last_ms": 2, "count": 1 });
        assert_eq!(latest.page(), json!({ "reasons": [uid, status] }));
    }

    proptest! {
        #[test]
        fn the_latest_distinct_reasons_stay(texts in prop::collection::vec(0_u64..60, 0..300)) {
            let mut latest = Latest::default();
            for (now, text) in texts.iter().enumerate() {
                latest.note("no", &text.to_string(), now as u64);
            }
            let mut expected: Vec<String> = Vec::new();
            for text in texts.iter().rev().map(ToString::to_string) {
                if !expected.contains(&text) {
                    expected.push(text);
                }
            }
            expected.truncate(MAX_REASONS);
            let shown: Vec<_> = latest.0.iter().rev().map(|entry| entry.text.clone()).collect();
            prop_assert_eq!(shown, expected);
        }
    }
}
