//! Leaving gently: sessions are sent away one after the other, so that they don't all come back in the same
//! moment.
//!
//! Messages are delivered and questions answered until the last session is gone; only then does the edge say
//! bye.

use std::time::Duration;

use shared::wire::EdgeState;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use crate::code::CloseCode;
use crate::hub::Hub;
use crate::node::Node;

/// The longest pause between two closes: few sessions need no long farewell.
const MAX_PAUSE: Duration = Duration::from_millis(10);
/// How long the first clients have to open another connection, if they can make use of it.
const LEAD: Duration = Duration::from_secs(2);
/// How long the last clients may take, after the window, to read what waits for them and answer the close.
const LAST_GRACE: Duration = Duration::from_millis(4_500);
/// How often to check whether all sessions are gone.
const LOOK: Duration = Duration::from_millis(10);

/// Waits for the drain to begin, then empties the hub over `window`; then the edge is gone.
pub(crate) async fn leave(node: Node, phase: watch::Sender<EdgeState>, window: Duration) {
    // The guard ends the tasks that work until then, whatever happens here.
    let gone = node.gone.clone().drop_guard();
    node.drain.begun().await;
    phase.send_replace(EdgeState::Draining);
    let deadline = Instant::now() + window + LAST_GRACE;
    tracing::info!(sessions = node.hub.sessions(), "sending the sessions away");
    if timeout_at(deadline, empty(&node.hub, window)).await.is_err() {
        tracing::warn!(sessions = node.hub.sessions(), "some sessions did not end in time");
    }
    drop(gone);
}

async fn empty(hub: &Hub, window: Duration) {
    let handles = hub.handles();
    let pause = pause(handles.len(), window);
    if hub.following_and_replaying().0 > 0 {
        // A client that can go on elsewhere from its position first gets the time to open the new connection.
        let lead = LEAD.min(window / 4);
        for (index, handle) in (0_u32..).zip(&handles) {
            handle.outbox.announce_close(Instant::now() + lead + pause * index);
        }
        sleep(lead).await;
    }
    let mut ticks = interval(pause);
    // Late ticks are made up for, so that the window holds.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for handle in handles {
        ticks.tick().await;
        handle.outbox.close(CloseCode::Leaving);
    }
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while hub.sessions() > 0 {
        looks.tick().await;
        // Clients that were in a handshake when the drain began are here now.
        for handle in hub.handles() {
            handle.outbox.close(CloseCode::Leaving);
        }
    }
}

/// Returns the pause between two closes, so that the closes take the whole window, or less if the sessions
/// are few.
fn pause(sessions: usize, window: Duration) -> Duration {
    let sessions = u32::try_from(sessions.max(1)).unwrap_or(u32::MAX);
    (window / sessions).clamp(Duration::from_nanos(1), MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_sessions_take_the_window_and_few_do_not_wait_for_it() {
        let window = Duration::from_secs(20);
        for (sessions, takes) in [(0, 0.01), (1, 0.01), (10, 0.1), (2_000, 20.0), (100_000, 20.0)] {
            let took = pause(sessions, window).as_secs_f64() * sessions.max(1) as f64;
            assert!((took - takes).abs() < 0.01, "{sessions} sessions take {took} s");
        }
        assert!(pause(10, Duration::ZERO) > Duration::ZERO, "an interval needs a length");
    }
}
