//! The circuit breakers at work: with a clock, a lock, metrics, and a line in the log for each change.
//!
//! One breaker is for the business system, and tells failures apart by address. Each address with failures
//! has a breaker of its own, which tells failures apart by token. So failures of one address stop only that
//! address, while a system that fails for everybody is left alone.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::breaker::{Asker, Breaker, Outcome, Phase, Policy, Ticket};
use crate::business::{Answer, Failure};
use crate::metrics::Metrics;

/// The most addresses with a breaker of their own; beyond, the least used is forgotten.
const MAX_ADDRESSES: u64 = 16_384;
/// The lowest share of failures, in percent, at which an address is stopped: next to nothing succeeds. Other
/// devices may be behind the address.
const ADDRESS_PERCENT: u8 = 90;
/// How long an unused breaker of an address is remembered.
const ADDRESS_IDLE: Duration = Duration::from_secs(600);

/// Decides which checks may call the business system. Shared by all checks of one adapter.
#[derive(Debug)]
pub(crate) struct Circuit {
    breaker: Mutex<Breaker>,
    addresses: Cache<u64, Arc<Mutex<Breaker>>>,
    of_address: Policy,
    /// Hashes addresses and tokens into ids.
    hasher: RandomState,
    /// The moment from which the breakers count time.
    origin: Instant,
    phase: watch::Sender<Phase>,
    metrics: Arc<Metrics>,
}

/// The device and the token of a check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    token: Asker,
    /// The address of the device, if the edge gave one.
    address: Option<Asker>,
}

impl Ask {
    /// Returns the asker by which the system's breaker tells failures apart.
    fn asker(self) -> Asker {
        self.address.unwrap_or(self.token)
    }
}

/// The permission for one call. Dropped without an outcome, the call counts as abandoned.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
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

    /// Describes a check; `trusted`: this token was good lately.
    pub(crate) fn ask_of(&self, token: &str, address: Option<&str>, trusted: bool) -> Ask {
        let asker = |kind: u8, text: &str| Asker { id: self.hasher.hash_one((kind, text)), trusted };
        Ask { token: asker(0, token), address: address.map(|address| asker(1, address)) }
    }

    /// Checks whether a check may call at all, before it waits for a slot.
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

    /// Takes the permission for a call now.
    ///
    /// # Errors
    /// [`Failure::Open`] or [`Failure::AddressStopped`].
    pub(crate) fn admit(&self, ask: Ask) -> Result<Permit<'_>, Failure> {
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
            Ok(ticket) => Ok(Permit { circuit: self, ticket, of_address, outcome: Outcome::Abandoned }),
            Err(left) => {
                if let Some((breaker, ticket)) = of_address {
                    lock(&breaker).record(ticket, Outcome::Abandoned, self.now(), 0.0);
                }
                Err(self.refuse(left))
            }
        }
    }

    /// Waits until the breaker is open.
    pub(crate) async fn opened(&self) -> Failure {
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Open).await;
        self.refuse(lock(&self.breaker).refuses(self.now()).unwrap_or_default())
    }

    /// Returns whether every check may call.
    pub(crate) fn is_closed(&self) -> bool {
        *self.phase.borrow() == Phase::Closed
    }

    /// Returns whether checks are welcome. Probes are: only they can show that the business system is back.
    pub(crate) fn is_able(&self) -> bool {
        lock(&self.breaker).refuses(self.now()).is_none()
    }

    /// Returns the phase and its changes.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Returns whether a panic left a breaker half changed.
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
            // Within the lock, so that changes are told in order.
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
                // Failures of addresses while the whole system failed say nothing about the addresses.
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

impl Permit<'_> {
    /// Notes the outcome of the call.
    pub(crate) fn done(mut self, answer: Result<&Answer, &Failure>) {
        self.outcome = match answer {
            Ok(_) => Outcome::Good,
            Err(Failure::NotReached(_)) => Outcome::Unreachable,
            Err(Failure::Status { retry_after, .. }) => Outcome::Error(*retry_after),
            Err(
                Failure::NotJson
                | Failure::TooLarge
                | Failure::BadExpiry(_)
                | Failure::FarExpiry
                | Failure::Declared(_)
                | Failure::Ambiguous,
            ) => Outcome::Error(None),
            Err(_) => Outcome::Unanswered,
        };
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let (ticket, outcome, jitter) = (self.ticket, self.outcome, fastrand::f64());
        self.circuit.change(|breaker, now| breaker.record(ticket, outcome, now, jitter));
        if let Some((breaker, ticket)) = self.of_address.take() {
            lock(&breaker).record(ticket, outcome, self.circuit.now(), jitter);
        }
    }
}
