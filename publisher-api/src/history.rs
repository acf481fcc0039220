//! Readiness by the history: without it no message of a channel with history can be acknowledged.
//!
//! A short absence does not make a publisher unready, as with the bus. Streams that are set up for something
//! else do at once.

use std::time::Duration;

use shared::drain::Drain;
use shared::health::Health;
use shared::history::{History, HistoryState};
use shared::part::ready::Grace;

/// The name in readiness.
pub(crate) const PART: &str = "publisher-api history";

/// Keeps the readiness until the drain begins.
pub(crate) async fn keep_ready(history: &History, health: &Health, grace: Duration, drain: &Drain) {
    let (mut states, awake) = (history.state(), history.awake());
    let (mut grace, mut was_ready) = (Grace::new(grace), false);
    loop {
        let state = states.borrow_and_update().clone();
        let mut grace_ends = None;
        match &state {
            HistoryState::Ready(_) => {
                grace.end();
                was_ready = true;
                health.ready(PART);
            }
            HistoryState::Mismatch { why } => health.unready(PART, why.as_str()),
            HistoryState::Opening { why } => {
                grace_ends = grace.until(awake.now()).filter(|_| was_ready);
                if grace_ends.is_none() {
                    health.unready(PART, why.as_str());
                }
            }
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = awake.sleep_until_some(grace_ends) => {}
            () = drain.begun() => return,
        }
    }
}
