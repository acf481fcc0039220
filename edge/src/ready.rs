//! Decides whether this edge should get new clients, and why not.
//!
//! A short absence of the bus does not make it unready: open sessions stay, and new ones can wait for it.

use std::time::Duration;

use shared::awake::Awake;
use shared::bus::BusState;
use shared::health::Health;
use shared::history::HistoryState;
use shared::part::ready::{GONE, Grace, LEAVING, UNREACHED};
use shared::wire::EdgeState;
use tokio::sync::watch;

use crate::node::PART;

const NO_LIST: &str = "the bus does not tell who may not log in (stream MC_DENY); trying again";

/// The inputs of readiness.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) bus: watch::Receiver<BusState>,
    /// Whether messages surely arrive.
    pub(crate) active: watch::Receiver<bool>,
    /// Whether the list of bans was read.
    pub(crate) bans_known: watch::Receiver<bool>,
    /// Whether stored messages can be read.
    pub(crate) history: watch::Receiver<HistoryState>,
    pub(crate) phase: watch::Receiver<EdgeState>,
    /// Whether there are as many sessions as the watermark allows.
    pub(crate) crowded: watch::Receiver<bool>,
    /// The clock for the time that the bus may be away.
    pub(crate) awake: Awake,
}

/// The inputs at one moment.
#[derive(Debug, Clone, Copy)]
struct View {
    bus: BusState,
    active: bool,
    bans_known: bool,
    phase: EdgeState,
    crowded: bool,
}

impl View {
    fn knows(self) -> bool {
        self.active && self.bans_known
    }
}

/// Reports to `health` until this edge leaves.
pub(crate) async fn report(health: &Health, inputs: &mut Inputs, grace: Duration) {
    let Inputs { bus, active, bans_known, history, phase, crowded, awake } = inputs;
    let mut grace = Grace::new(grace);
    loop {
        let view = View {
            bus: *bus.borrow_and_update(),
            active: *active.borrow_and_update(),
            bans_known: *bans_known.borrow_and_update(),
            phase: *phase.borrow_and_update(),
            crowded: *crowded.borrow_and_update(),
        };
        if view.knows() {
            grace.end();
        }
        let grace_ends = if view.knows() { None } else { grace.until(awake.now()) };
        let over = !view.knows() && grace_ends.is_none();
        let no_history = history.borrow_and_update().why_not().map(ToOwned::to_owned);
        match reason(view, over) {
            Some(reason) => health.unready(PART, reason),
            None if no_history.is_some() => health.unready(PART, no_history.unwrap_or_default()),
            None if view.knows() => health.ready(PART),
            None => {}
        }
        if matches!(view.phase, EdgeState::Draining | EdgeState::Bye) {
            return;
        }
        let changed = tokio::select! {
            changed = bus.changed() => changed,
            changed = active.changed() => changed,
            changed = bans_known.changed() => changed,
            changed = history.changed() => changed,
            changed = phase.changed() => changed,
            changed = crowded.changed() => changed,
            () = awake.sleep_until_some(grace_ends) => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Returns why the edge is not ready. None: the edge is ready, or the bus has not been away for long.
fn reason(view: View, away_too_long: bool) -> Option<&'static str> {
    match view.phase {
        EdgeState::Draining | EdgeState::Bye => Some(LEAVING),
        EdgeState::Starting if view.bus.connects == 0 => Some(UNREACHED),
        EdgeState::Starting if !view.bans_known => Some(NO_LIST),
        EdgeState::Starting => Some("announcing itself to the publishers"),
        EdgeState::Serving if away_too_long && view.active => Some(NO_LIST),
        EdgeState::Serving if away_too_long => Some(GONE),
        EdgeState::Serving if view.crowded => Some("nearly as many sessions as edge.max_sessions"),
        EdgeState::Serving => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_when_it_holds() {
        let bus = |connects| BusState { connected: connects > 0, connects };
        let starting = View {
            bus: bus(0),
            active: false,
            bans_known: false,
            phase: EdgeState::Starting,
            crowded: false,
        };
        assert!(reason(starting, true).is_some_and(|reason| reason.contains("can't be reached yet")));
        assert_eq!(reason(View { bus: bus(1), ..starting }, false), Some(NO_LIST));
        assert!(
            reason(View { bus: bus(1), bans_known: true, ..starting }, false)
                .is_some_and(|reason| reason.contains("announcing"))
        );
        let serving =
            View { bus: bus(1), active: true, bans_known: true, phase: EdgeState::Serving, crowded: false };
        assert_eq!(reason(serving, false), None);
        let crowded = View { crowded: true, ..serving };
        assert!(reason(crowded, false).is_some_and(|reason| reason.contains("max_sessions")));
        let away = View { active: false, ..serving };
        assert_eq!(reason(away, false), None, "not for long yet");
        assert!(reason(away, true).is_some_and(|reason| reason.contains("gone")));
        assert_eq!(reason(View { bans_known: false, ..serving }, true), Some(NO_LIST));
        assert_eq!(reason(View { phase: EdgeState::Draining, ..serving }, false), Some("leaving"));
    }
}
