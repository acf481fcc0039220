//! Sends the heartbeats of this adapter, by which all edges ask the same adapter about the same token.
//!
//! A heartbeat is sent every second, at once when an edge asks for one, when the breaker turns, and when a
//! key set came. The last heartbeat, before the adapter takes no more questions, makes the edges ask another
//! adapter.

use std::sync::Arc;

use futures_util::StreamExt as _;
use shared::bus::async_nats::Subscriber;
use shared::bus::{self, Bus, RequestError};
use shared::drain::Drain;
use shared::ids::NodeId;
use shared::subject;
use shared::wire::{AUTH_HEARTBEAT, AuthHeartbeat, AuthState, Envelope as _, VERSION};
use tokio::time::{MissedTickBehavior, interval};

use crate::circuit::Circuit;
use crate::jwt::Ability;
use crate::metrics::Metrics;

/// Waits until the keys may have changed, or for ever if they can't go missing.
async fn changed(keys: &mut Option<Ability>) {
    match keys {
        Some(keys) => keys.changed().await,
        None => std::future::pending().await,
    }
}

/// Sends the heartbeats of one adapter.
#[derive(Debug)]
pub(crate) struct Announcer {
    bus: Bus,
    node: NodeId,
    circuit: Arc<Circuit>,
    /// Whether there are keys for JWTs. `None`: they can't go missing.
    keys: Option<Ability>,
    metrics: Arc<Metrics>,
}

impl Announcer {
    pub(crate) fn new(bus: Bus, circuit: Arc<Circuit>, keys: Option<Ability>, metrics: Arc<Metrics>) -> Self {
        Self { bus, node: NodeId::random(), circuit, keys, metrics }
    }

    /// Returns the subject of questions to this adapter alone.
    pub(crate) fn subject(&self) -> String {
        subject::verify_at(&self.node)
    }

    /// Subscribes to the edges' requests for heartbeats.
    ///
    /// # Errors
    /// The bus takes no subscription.
    pub(crate) async fn listen(&self) -> Result<Subscriber, RequestError> {
        self.bus.subscribe(subject::VERIFY_HELLO, None, bus::DEADLINE).await
    }

    /// Sends heartbeats until the drain begins. Call it after subscribing to questions.
    pub(crate) async fn speak(&self, hellos: &mut Subscriber, drain: &Drain) {
        let (mut bus, mut phases) = (self.bus.state(), self.circuit.phases());
        let mut keys = self.keys.clone();
        let mut beat = interval(AUTH_HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                Some(_) = hellos.next() => {}
                Ok(()) = phases.changed() => {}
                Ok(()) = bus.changed() => {}
                () = changed(&mut keys) => {}
                () = drain.begun() => return self.say(AuthState::Bye).await,
            }
            let has_keys = self.keys.as_ref().is_none_or(Ability::is_able);
            let state = if has_keys && self.circuit.is_able() { AuthState::Able } else { AuthState::Unable };
            self.say(state).await;
        }
    }

    async fn say(&self, state: AuthState) {
        let heartbeat = AuthHeartbeat { v: VERSION, adapter: self.node.clone(), state };
        if let Err(error) = self.bus.publish(subject::VERIFY_HEARTBEAT, None, None, heartbeat.encode()).await
        {
            tracing::debug!(%error, "a heartbeat could not be sent");
            self.metrics.dropped("heartbeat");
        }
    }
}
