//! The breakers at work: with a clock, a lock, metrics, and a line in the log for each change.
//!
//! One breaker is for the system, and counts by address; each address that fails has one more, which counts
//! by token. So what fails for one address alone stops that address alone, and a system that fails for
//! everybody is left alone.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::breaker::{Asker, Breaker, Outcome, Phase, Policy, Ticket};
use crate::business::{Answer, Failure};
use crate::metrics::Metrics;

/// Addresses that have a breaker of their own; the least used are forgotten beyond that.
const MAX_ADDRESSES: u64 = 16_384;
/// The share of failures at which an address is stopped, at least: next to nothing succeeds, since others may
/// be behind it.
const ADDRESS_PERCENT: u8 = 90;
/// For so long an address's breaker is kept that nobody uses.
const ADDRESS_IDLE: Duration = Duration::from_secs(600);

/// Says who may ask the business system. Shared by all checks of one adapter.
#[derive(Debug)]
pub(crate) struct Circuit {
    breaker: Mutex<Breaker>,
    addresses: Cache<u64, Arc<Mutex<Breaker>>>,
    of_address: Policy,
    /// Makes ids of addresses and tokens.
    hasher: RandomState,
    /// The moment that the breakers' times count from.
    origin: Instant,
    phase: watch::Sender<Phase>,
    metrics: Arc<Metrics>,
}

/// Whose check it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    token: Asker,
    /// Where the device is, if the edge said so.
    address: Option<Asker>,
}

impl Ask {
    /// What the system's breaker tells failures apart by.
    fn asker(self) -> Asker {
        self.address.unwrap_or(self.token)
    }
}

/// Leave to ask once. Dropped without a word, it counts as abandoned.
#[derive(Debug)]
pub(crate) struct Leave<'a> {
    circuit: &'a Circuit,
    ticket: Ticket,
    of_address: Option<(Arc<Mutex<Breaker>>, Ticket)>,
    outcome: Outcome,
}

impl Circuit {
    pub(crate) fn new(policy: Policy, metrics: Arc<Metrics>) -> Self {
        metrics.breaker_is(Phase::Closed);
        let addresses = Cache::builder().max_capacity(MAX_ADDRESSES).time_to_idle(ADDRESS_IDLE).build();
        Self {
            breaker: Mutex::new(Breaker::new(policy)),
            addresses,
            of_address: Policy {
                failure_percent: policy.failure_percent.max(ADDRESS_PERCENT),
                successes: 1,
                ..policy
            },
            hasher: RandomState::new(),
            origin: Instant::now(),
            phase: watch::Sender::new(Phase::Closed),
            metrics,
        }
    }

    /// Whose check it is; `trusted`: this token was good lately.
    pub(crate) fn ask_of(&self, token: &str, address: Option<&str>, trusted: bool) -> Ask {
        let asker = |kind: u8, text: &str| Asker { id: self.hasher.hash_one((kind, text)), trusted };
        Ask { token: asker(0, token), address: address.map(|address| asker(1, address)) }
    }

    /// Whether a check may ask at all, before it waits for anything.
    ///
    /// # Errors
    /// [`Failure::Open`] or [`Failure::AddressStopped`].
    pub(crate) fn check(&self, ask: Ask) -> Result<(), Failure> {
        let now = self.now();
        if let Some(left) = lock(&self.breaker).refuses_asker(ask.asker(), now) {
            return Err(self.refuse(left));
        }
        let breaker = ask.address.filter(|_| !ask.token.trusted).and_then(|of| self.addresses.get(&of.id));
        match breaker.and_then(|breaker| lock(&breaker).refuses_asker(ask.token, now)) {
            Some(left) => Err(self.stop(left)),
            None => Ok(()),
        }
    }

    /// Leave to ask now.
    ///
    /// # Errors
    /// [`Failure::Open`] or [`Failure::AddressStopped`].
    pub(crate) fn admit(&self, ask: Ask) -> Result<Leave<'_>, Failure> {
        let of_address = match ask.address {
            None => None,
            Some(address) => {
                let make = || Arc::new(Mutex::new(Breaker::new(self.of_address)));
                let breaker = self.addresses.get_with(address.id, make);
                let admitted = lock(&breaker).admit(ask.token, self.now());
                match admitted {
                    Ok(ticket) => Some((breaker, ticket)),
                    Err(_) if ask.token.trusted => None,
                    Err(left) => return Err(self.stop(left)),
                }
            }
        };
        let admitted = self.change(|breaker, now| breaker.admit(ask.asker(), now));
        match admitted {
            Ok(ticket) => Ok(Leave { circuit: self, ticket, of_address, outcome: Outcome::Abandoned }),
            Err(left) => {
                if let Some((breaker, ticket)) = of_address {
                    lock(&breaker).record(ticket, Outcome::Abandoned, self.now(), 0.0);
                }
                Err(self.refuse(left))
            }
        }
    }

    /// Resolves while nobody may ask.
    pub(crate) async fn opened(&self) -> Failure {
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Open).await;
        self.refuse(lock(&self.breaker).refuses(self.now()).unwrap_or_default())
    }

    /// Whether everyone may ask.
    pub(crate) fn is_closed(&self) -> bool {
        *self.phase.borrow() == Phase::Closed
    }

    /// Whether questions are welcome: probes are, since only they can show that the business system is back.
    pub(crate) fn is_able(&self) -> bool {
        lock(&self.breaker).refuses(self.now()).is_none()
    }

    /// Changes of what it does.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether a panic left one of them half changed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.breaker.is_poisoned() || self.addresses.iter().any(|(_, breaker)| breaker.is_poisoned())
    }

    fn refuse(&self, left: Duration) -> Failure {
        self.metrics.dropped("breaker_open");
        Failure::Open(left)
    }

    fn stop(&self, left: Duration) -> Failure {
        self.metrics.dropped("address_stopped");
        Failure::AddressStopped(left)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Breaker, Duration) -> T) -> T {
        let mut breaker = lock(&self.breaker);
        let (now, before) = (self.now(), breaker.phase());
        let changed = change(&mut breaker, now);
        let phase = breaker.phase();
        if phase != before {
            // Within the lock, so that changes are told in their order.
            self.metrics.breaker_turned(phase);
            match phase {
                Phase::Closed => tracing::info!("the business system answers again; every token is checked"),
                Phase::HalfOpen => tracing::info!("finding out whether the business system answers again"),
                Phase::Open => tracing::warn!(
                    for_ms = breaker.refuses(now).map_or(0, |left| left.as_millis()),
                    "the business system fails too often; it is not asked about tokens for a while"
                ),
            }
            self.phase.send_replace(phase);
            if phase == Phase::Closed {
                // What was found out about addresses while the system failed says nothing of them.
                self.addresses.invalidate_all();
            }
        }
        changed
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

fn lock(breaker: &Mutex<Breaker>) -> MutexGuard<'_, Breaker> {
    breaker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Leave<'_> {
    /// Says what came of it.
    pub(crate) fn done(mut self, answer: Result<&Answer, &Failure>) {
        self.outcome = match answer {
            Ok(_) => Outcome::Good,
            Err(Failure::NotReached(_)) => Outcome::Unreachable,
            Err(Failure::Status { retry_after, .. }) => Outcome::Error(*retry_after),
            Err(Failure::NotJson | Failure::TooLarge | Failure::BadExpiry | Failure::Ambiguous) => {
                Outcome::Error(None)
            }
            Err(_) => Outcome::Unanswered,
        };
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let (ticket, outcome, jitter) = (self.ticket, self.outcome, fastrand::f64());
        self.circuit.change(|breaker, now| breaker.record(ticket, outcome, now, jitter));
        if let Some((breaker, ticket)) = self.of_address.take() {
            lock(&breaker).record(ticket, outcome, self.circuit.now(), jitter);
        }
    }
}
