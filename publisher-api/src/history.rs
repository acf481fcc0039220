//! Readiness by the history: without it no message of a channel with history can be acknowledged.
//!
//! A short absence does not make a publisher unready, as with the bus. Streams that are set up for something
//! else do at once.

use std::time::Duration;

use shared::drain::Drain;
use shared::health::Health;
use shared::history::{History, HistoryState};
use tokio::time::Instant;

/// The name in readiness.
pub(crate) const PART: &str = "publisher-api history";

/// Keeps the readiness until the drain begins.
pub(crate) async fn keep_ready(history: &History, health: &Health, grace: Duration, drain: &Drain) {
    let (mut states, awake) = (history.state(), history.awake());
    let mut lost: Option<Instant> = None;
    let mut was_ready = false;
    loop {
        let state = states.borrow_and_update().clone();
        let again = match &state {
            HistoryState::Ready(_) => {
                (lost, was_ready) = (None, true);
                health.ready(PART);
                None
            }
            HistoryState::Mismatch { why } => {
                health.unready(PART, why.as_str());
                None
            }
            HistoryState::Opening { why } => {
                let patience = *lost.get_or_insert_with(|| awake.now()) + grace;
                if was_ready && awake.now() < patience {
                    Some(patience)
                } else {
                    health.unready(PART, why.as_str());
                    None
                }
            }
        };
        let timer = async {
            match again {
                Some(at) => awake.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = timer => {}
            () = drain.begun() => return,
        }
    }
}
