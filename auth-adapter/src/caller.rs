//! One token check at the business system: when it may be made, how often it is tried, and its metrics and
//! logs.
//!
//! A call is tried again only if the business system surely did not see the first one. A request that broke
//! after it was sent is not repeated: a token for one use would be used up, and its owner refused for
//! nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::awake::Awake;
use shared::gauge::GaugeGuard;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

use crate::business::{Answer, Business, Failure};
use crate::circuit::Circuit;
use crate::config::Config;
use crate::mapping::Decision;
use crate::metrics::Metrics;
use crate::reasons::Reasons;
use crate::retry::{self, Budget};

/// Calls the business system within all bounds.
#[derive(Debug)]
pub(crate) struct Caller {
    business: Business,
    circuit: Arc<Circuit>,
    /// Slots for simultaneous calls.
    slots: Semaphore,
    deadline: Duration,
    retries: u32,
    budget: Mutex<Budget>,
    metrics: Arc<Metrics>,
    reasons: Arc<Reasons>,
    /// The clock by which the business system is judged.
    awake: Awake,
}

impl Caller {
    pub(crate) fn new(
        config: &Config,
        business: Business,
        circuit: Arc<Circuit>,
        metrics: Arc<Metrics>,
        reasons: Arc<Reasons>,
        awake: Awake,
    ) -> Self {
        Self {
            business,
            circuit,
            slots: Semaphore::new(config.max_in_flight),
            deadline: config.deadline,
            retries: config.retries,
            budget: Mutex::new(Budget::new()),
            metrics,
            reasons,
            awake,
        }
    }

    /// Checks a token, unless the call can't begin before `until`, a moment of
    /// [`Awake`](shared::awake::Awake) at which the asker gives up. `address` is the address of the device;
    /// `trusted`: this token was good lately.
    pub(crate) async fn ask(
        &self,
        token: &str,
        address: Option<&str>,
        trusted: bool,
        until: Instant,
    ) -> Result<Answer, Failure> {
        let ask = self.circuit.ask_of(token, address, trusted);
        self.circuit.check(ask)?;
        let _slot = self.slot(until).await?;
        let leave = self.circuit.admit(ask)?;
        let _in_flight = GaugeGuard::new(&self.metrics.in_flight);
        let decision = self.try_all(token).await;
        leave.done(decision.answer.as_ref());
        self.reasons.tell(&decision);
        self.metrics.groups_left_out(decision.left_out);
        decision.answer
    }

    async fn slot(&self, until: Instant) -> Result<SemaphorePermit<'_>, Failure> {
        let turn = self.awake.now() + self.deadline;
        let slot = tokio::select! {
            biased;
            slot = self.awake.timeout_at(turn.min(until), self.slots.acquire()) => slot,
            failure = self.circuit.opened() => return Err(failure),
        };
        if self.awake.now() >= until {
            return Err(Failure::Stale);
        }
        let Ok(Ok(slot)) = slot else {
            self.metrics.dropped("no_call_in_time");
            return Err(Failure::Busy(self.deadline));
        };
        Ok(slot)
    }

    async fn try_all(&self, token: &str) -> Decision {
        let deadline = self.awake.now() + self.deadline;
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).first_try();
        let mut retries = 0;
        loop {
            let began = Instant::now();
            let tried = self.awake.timeout_at(deadline, self.business.ask(token)).await;
            let decision = tried.unwrap_or_else(|_| Decision::failed(Failure::Slow(self.deadline)));
            self.metrics.asked(decision.outcome, began.elapsed());
            let Err(Failure::NotReached(_)) = &decision.answer else { return decision };
            let pause = retry::pause(retries, fastrand::f64());
            let may =
                retries < self.retries && self.awake.now() + pause < deadline && self.circuit.is_closed();
            if !may {
                return decision;
            }
            if !self.budget.lock().unwrap_or_else(PoisonError::into_inner).pay() {
                self.metrics.retried("no_budget");
                return decision;
            }
            self.metrics.retried("tried");
            sleep(pause).await;
            retries += 1;
        }
    }
}
