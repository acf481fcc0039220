//! Knows the auth-adapters, and chooses the one that is asked about a token.
//!
//! All edges that know the same adapters choose the same one for a token (rendezvous hashing). So the
//! business system is asked once, however many edges hold the token, and when an adapter comes or goes only
//! its own tokens move. An adapter is forgotten when it is silent for too long, says bye, or has no
//! subscription any more. An adapter to which the business system gives no answers is asked only when all
//! adapters are like that. Knowing no adapter is no error: then the question goes to any adapter.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use prometheus_client::metrics::gauge::Gauge;
use shared::awake::Awake;
use shared::bus::async_nats::Subscriber;
use shared::bus::{self, Bus};
use shared::drain::Drain;
use shared::ids::NodeId;
use shared::subject::{self, fnv1a};
use shared::wire::{AUTH_HEARTBEAT, AuthHeartbeat, AuthState, Envelope as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// After this silence an adapter counts as gone.
const SILENT: Duration = AUTH_HEARTBEAT.saturating_mul(3);
/// The most adapters that are remembered; no installation runs so many.
const MOST: usize = 1_024;
/// The pause after the bus refused the subscription.
const PAUSE: Duration = Duration::from_secs(1);

/// The auth-adapters that this edge knows. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Adapters {
    directory: Arc<Mutex<Directory>>,
    known: Gauge,
    awake: Awake,
}

impl Adapters {
    /// Follows the heartbeats of the adapters until `gone` is cancelled.
    pub(crate) fn follow(bus: Bus, known: Gauge, drain: &Drain, gone: CancellationToken) -> Self {
        let adapters = Self { directory: Arc::default(), known, awake: bus.awake().clone() };
        let state = (adapters.clone(), bus, gone);
        drain.supervise_useful("edge-adapters", state, |(adapters, bus, gone)| {
            Box::pin(async {
                tokio::select! { () = adapters.listen(bus) => {}, () = gone.cancelled() => {} }
            })
        });
        adapters
    }

    /// Returns the adapter to ask about this token. None: any adapter.
    pub(crate) fn choose(&self, token: &str) -> Option<NodeId> {
        let mut directory = self.lock();
        let chosen = directory.choose(token, self.awake.now());
        self.known.set(directory.seen.len() as i64);
        chosen
    }

    /// Forgets an adapter that has no subscription any more.
    pub(crate) fn forget(&self, adapter: &NodeId) {
        let mut directory = self.lock();
        directory.seen.remove(adapter);
        self.known.set(directory.seen.len() as i64);
    }

    async fn listen(&self, bus: &Bus) {
        let mut heartbeats = loop {
            match bus.subscribe(subject::VERIFY_HEARTBEAT, None, bus::DEADLINE).await {
                Ok(heartbeats) => break heartbeats,
                Err(error) => tracing::debug!(%error, "can't hear the auth-adapters yet"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        let mut state = bus.state();
        loop {
            let connected = state.borrow_and_update().connected;
            // Sent behind the subscription on the same connection, so that the answers reach the
            // subscription.
            if connected
                && let Err(error) = bus.publish(subject::VERIFY_HELLO, None, None, Bytes::new()).await
            {
                tracing::debug!(%error, "the auth-adapters could not be asked who is there");
            }
            tokio::select! {
                () = self.hear(&mut heartbeats) => return,
                changed = state.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn hear(&self, heartbeats: &mut Subscriber) {
        while let Some(message) = heartbeats.next().await {
            match AuthHeartbeat::decode(&message.payload) {
                Ok(heartbeat) => {
                    let mut directory = self.lock();
                    directory.on_heartbeat(heartbeat, self.awake.now());
                    self.known.set(directory.seen.len() as i64);
                }
                Err(error) => tracing::warn!(%error, "a heartbeat of an auth-adapter can't be read"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The adapters by their heartbeats: pure.
#[derive(Debug, Default)]
struct Directory {
    seen: HashMap<NodeId, Seen>,
}

#[derive(Debug)]
struct Seen {
    last: Instant,
    able: bool,
}

impl Directory {
    fn on_heartbeat(&mut self, heartbeat: AuthHeartbeat, now: Instant) {
        match heartbeat.state {
            AuthState::Bye => {
                self.seen.remove(&heartbeat.adapter);
            }
            AuthState::Able | AuthState::Unable => {
                if self.seen.len() < MOST || self.seen.contains_key(&heartbeat.adapter) {
                    let able = heartbeat.state == AuthState::Able;
                    self.seen.insert(heartbeat.adapter, Seen { last: now, able });
                }
            }
        }
    }

    fn choose(&mut self, token: &str, now: Instant) -> Option<NodeId> {
        self.seen.retain(|_, seen| now.duration_since(seen.last) < SILENT);
        let best = self.seen.iter().max_by_key(|(adapter, seen)| (seen.able, rank(token, adapter), *adapter));
        best.map(|(adapter, _)| adapter.clone())
    }
}

/// Returns the weight of an adapter for a token; the adapter with the highest weight is asked. The result is
/// the same at every edge of every version, since all of them must agree.
fn rank(token: &str, adapter: &NodeId) -> u64 {
    // FNV alone mixes its last bytes badly; the steps below are the finalizer of SplitMix64.
    let mut hash = fnv1a(token.as_bytes()) ^ fnv1a(adapter.as_str().as_bytes()).rotate_left(32);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn says(adapter: &str, state: AuthState) -> AuthHeartbeat {
        AuthHeartbeat { v: 1, adapter: adapter.into(), state }
    }

    fn directory(adapters: &[&str], now: Instant) -> Directory {
        let mut directory = Directory::default();
        for adapter in adapters {
            directory.on_heartbeat(says(adapter, AuthState::Able), now);
        }
        directory
    }

    #[test]
    fn tokens_are_spread_over_all_adapters() {
        let now = Instant::now();
        let mut directory = directory(&["a", "b", "c"], now);
        let mut counts: HashMap<NodeId, usize> = HashMap::new();
        for token in 0..3_000 {
            *counts.entry(directory.choose(&format!("user-{token}"), now).unwrap()).or_default() += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn who_is_silent_or_says_bye_is_not_asked() {
        let now = Instant::now();
        let mut directory = directory(&["a", "b"], now);
        directory.on_heartbeat(says("b", AuthState::Able), now + SILENT);
        assert_eq!(directory.choose("t", now + SILENT), Some("b".into()));
        directory.on_heartbeat(says("b", AuthState::Bye), now + SILENT);
        assert_eq!(directory.choose("t", now + SILENT), None);
    }

    #[test]
    fn who_gets_no_answers_is_asked_only_when_all_are_like_that() {
        let now = Instant::now();
        let mut directory = directory(&["a", "b"], now);
        let own = directory.choose("t", now).unwrap();
        directory.on_heartbeat(says(own.as_str(), AuthState::Unable), now);
        let other = directory.choose("t", now).unwrap();
        assert_ne!(own, other);
        directory.on_heartbeat(says(other.as_str(), AuthState::Unable), now);
        assert_eq!(directory.choose("t", now), Some(own));
    }

    proptest! {
        #[test]
        fn edges_choose_alike_and_only_the_tokens_of_who_left_move(
            mut adapters in prop::collection::btree_set("[0-9a-f]{16}", 1..8),
            token in "\\PC{0,40}",
            leaves: prop::sample::Index,
        ) {
            let now = Instant::now();
            let all: Vec<&str> = adapters.iter().map(String::as_str).collect();
            let backwards: Vec<&str> = all.iter().rev().copied().collect();
            let chosen = directory(&all, now).choose(&token, now);
            prop_assert_eq!(&directory(&backwards, now).choose(&token, now), &chosen);
            let left = all[leaves.index(all.len())].to_owned();
            adapters.remove(&left);
            let rest: Vec<&str> = adapters.iter().map(String::as_str).collect();
            let after = directory(&rest, now).choose(&token, now);
            if chosen != Some(left.as_str().into()) {
                prop_assert_eq!(after, chosen);
            } else {
                prop_assert_eq!(after.is_none(), rest.is_empty());
            }
        }
    }
}
