//! The proof that the subscriptions of a part are active on the connection that stands.
//!
//! A client of NATS subscribes again after each reconnect, but nothing tells when the server has taken the
//! subscriptions. A [barrier](Bus::barrier) on the same connection does: the answer comes behind them. The
//! proof holds for one connection; the next one needs a proof of its own.

use std::time::Duration;

use tokio::time::sleep;

use crate::bus::{self, Bus, BusState, RequestError};

/// The pause after a barrier failed.
const PAUSE: Duration = Duration::from_millis(200);

/// How far the proof is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Proof {
    /// No connection to the bus has stood yet.
    #[default]
    Unreached,
    /// The connection is gone.
    Away,
    /// The connection stands, and nothing is proved yet.
    Open {
        /// Why the latest barrier failed; `None`: the first one is under way.
        failed: Option<RequestError>,
    },
    /// The subscriptions are active.
    Proved {
        /// The number of the connection that the proof is about: [`BusState::connects`].
        connects: u64,
    },
}

impl Proof {
    /// Returns whether the subscriptions are active.
    pub fn holds(self) -> bool {
        matches!(self, Self::Proved { .. })
    }

    fn before(state: BusState, failed: Option<RequestError>) -> Self {
        match state {
            BusState { connected: true, .. } => Self::Open { failed },
            BusState { connects: 0, .. } => Self::Unreached,
            BusState { .. } => Self::Away,
        }
    }
}

/// Proves all subscriptions made so far on each new connection, and tells each step, until the bus client
/// ends. Cancel-safe: whoever runs this again begins with a new proof.
pub async fn keep(bus: &Bus, mut tell: impl FnMut(Proof)) {
    let (mut state, mut failed) = (bus.state(), None);
    loop {
        let view = *state.borrow_and_update();
        let differs = |now: &BusState| *now != view;
        tell(Proof::before(view, failed));
        if view.connected {
            let barrier = tokio::select! {
                barrier = bus.barrier(bus::DEADLINE) => barrier,
                // The proof would be about another connection.
                changed = state.wait_for(differs) => match changed {
                    Ok(_) => {
                        failed = None;
                        continue;
                    }
                    Err(_) => return,
                },
            };
            failed = barrier.err();
            if failed.is_some() {
                tell(Proof::before(*state.borrow(), failed));
                sleep(PAUSE).await;
                if *state.borrow() != view {
                    // The error was about the connection before.
                    failed = None;
                }
                continue;
            }
            if *state.borrow() != view {
                continue;
            }
            tell(Proof::Proved { connects: view.connects });
        }
        if state.wait_for(differs).await.is_err() {
            return;
        }
        failed = None;
    }
}
