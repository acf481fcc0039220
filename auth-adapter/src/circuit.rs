//! The breaker at work: with a clock, a lock, metrics, and a line in the log for each change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::breaker::{Breaker, Outcome, Phase, Policy, Ticket};
use crate::business::{Answer, Failure};
use crate::metrics::Metrics;

/// Says who may ask the business system. Shared by all checks of one adapter.
#[derive(Debug)]
pub(crate) struct Circuit {
    breaker: Mutex<Breaker>,
    /// The moment that the breaker's times count from.
    origin: Instant,
    phase: watch::Sender<Phase>,
    metrics: Arc<Metrics>,
}

/// Leave to ask once. Dropped without a word, it counts as abandoned.
#[derive(Debug)]
pub(crate) struct Leave<'a> {
    circuit: &'a Circuit,
    ticket: Ticket,
    outcome: Outcome,
}

impl Circuit {
    pub(crate) fn new(policy: Policy, metrics: Arc<Metrics>) -> Self {
        metrics.breaker_is(Phase::Closed);
        let (breaker, phase) = (Mutex::new(Breaker::new(policy)), watch::Sender::new(Phase::Closed));
        Self { breaker, origin: Instant::now(), phase, metrics }
    }

    /// Whether a check may ask at all, before it waits for anything.
    ///
    /// # Errors
    /// [`Failure::Open`].
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.lock().refuses(self.now()).map_or(Ok(()), |left| Err(self.refuse(left)))
    }

    /// Leave to ask now.
    ///
    /// # Errors
    /// [`Failure::Open`].
    pub(crate) fn admit(&self) -> Result<Leave<'_>, Failure> {
        let admitted = self.change(|breaker, now| breaker.admit(now));
        match admitted {
            Ok(ticket) => Ok(Leave { circuit: self, ticket, outcome: Outcome::Abandoned }),
            Err(left) => Err(self.refuse(left)),
        }
    }

    /// Resolves while nobody may ask.
    pub(crate) async fn opened(&self) -> Failure {
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Open).await;
        self.refuse(self.lock().refuses(self.now()).unwrap_or_default())
    }

    /// Whether everyone may ask.
    pub(crate) fn is_closed(&self) -> bool {
        *self.phase.borrow() == Phase::Closed
    }

    /// Whether questions are welcome: probes are, since only they can show that the business system is back.
    pub(crate) fn is_able(&self) -> bool {
        self.lock().refuses(self.now()).is_none()
    }

    /// Changes of what it does.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    fn refuse(&self, left: Duration) -> Failure {
        self.metrics.dropped("breaker_open");
        Failure::Open(left)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Breaker, Duration) -> T) -> T {
        let mut breaker = self.lock();
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
        }
        changed
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Whether a panic left it half changed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.breaker.is_poisoned()
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave<'_> {
    /// Says what came of it.
    pub(crate) fn done(mut self, answer: Result<&Answer, &Failure>) {
        self.outcome = match answer {
            Ok(_) => Outcome::Good,
            Err(Failure::Status { retry_after: Some(time), .. }) => Outcome::ComeBackIn(*time),
            Err(_) => Outcome::Bad,
        };
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let (ticket, outcome) = (self.ticket, self.outcome);
        self.circuit.change(|breaker, now| breaker.record(ticket, outcome, now, fastrand::f64()));
    }
}
