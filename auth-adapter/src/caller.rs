//! One check at the business system: when it may be made, how often it is tried, and what is told about it.
//!
//! A second try is made only where the first surely was not seen. A request that broke after it was sent is
//! not repeated: a token that is good for one use would be used up, and its owner sent away for nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::awake::Awake;
use shared::gauge::GaugeGuard;
use shared::log_throttle::LogThrottle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

use crate::business::{Answer, Business, Failure};
use crate::circuit::Circuit;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::retry::{self, Budget};

/// Calls the business system, with all bounds.
#[derive(Debug)]
pub(crate) struct Caller {
    business: Business,
    circuit: Arc<Circuit>,
    /// A permit for each call under way.
    places: Semaphore,
    deadline: Duration,
    retries: u32,
    budget: Mutex<Budget>,
    metrics: Arc<Metrics>,
    complaints: LogThrottle,
    /// The clock by which the business system is judged.
    awake: Awake,
}

impl Caller {
    pub(crate) fn new(
        config: &Config,
        business: Business,
        circuit: Arc<Circuit>,
        metrics: Arc<Metrics>,
        awake: Awake,
    ) -> Self {
        Self {
            business,
            circuit,
            places: Semaphore::new(config.max_in_flight),
            deadline: config.deadline,
            retries: config.retries,
            budget: Mutex::new(Budget::new()),
            metrics,
            complaints: LogThrottle::default(),
            awake,
        }
    }

    /// Asks about a token, unless that can't begin before `until`, when whoever wants to know has given up
    /// (by the clock that stands still while this process does not run).
    /// `address` is where the device is; `trusted`: this token was good lately.
    pub(crate) async fn ask(
        &self,
        token: &str,
        address: Option<&str>,
        trusted: bool,
        until: Instant,
    ) -> Result<Answer, Failure> {
        let ask = self.circuit.ask_of(token, address, trusted);
        self.circuit.check(ask)?;
        let _place = self.place(until).await?;
        let leave = self.circuit.admit(ask)?;
        let _in_flight = GaugeGuard::new(&self.metrics.in_flight);
        let answer = self.try_all(token).await;
        leave.done(answer.as_ref());
        if let Err(failure) = &answer {
            self.complain(failure);
        }
        answer
    }

    async fn place(&self, until: Instant) -> Result<SemaphorePermit<'_>, Failure> {
        let turn = self.awake.now() + self.deadline;
        let place = tokio::select! {
            biased;
            place = self.awake.timeout_at(turn.min(until), self.places.acquire()) => place,
            failure = self.circuit.opened() => return Err(failure),
        };
        if self.awake.now() >= until {
            return Err(Failure::Stale);
        }
        let Ok(Ok(place)) = place else {
            self.metrics.dropped("no_call_in_time");
            return Err(Failure::Busy(self.deadline));
        };
        Ok(place)
    }

    async fn try_all(&self, token: &str) -> Result<Answer, Failure> {
        let deadline = self.awake.now() + self.deadline;
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).first_try();
        let mut retries = 0;
        loop {
            let began = Instant::now();
            let tried = self.awake.timeout_at(deadline, self.business.ask(token)).await;
            let answer = tried.unwrap_or(Err(Failure::Slow(self.deadline)));
            self.metrics.asked(answer.as_ref(), began.elapsed());
            let Err(Failure::NotReached(_)) = &answer else { return answer };
            let pause = retry::pause(retries, fastrand::f64());
            let may =
                retries < self.retries && self.awake.now() + pause < deadline && self.circuit.is_closed();
            if !may {
                return answer;
            }
            if !self.budget.lock().unwrap_or_else(PoisonError::into_inner).pay() {
                self.metrics.retried("no_budget");
                return answer;
            }
            self.metrics.retried("tried");
            sleep(pause).await;
            retries += 1;
        }
    }

    fn complain(&self, failure: &Failure) {
        if let Some(failures) = self.complaints.due() {
            tracing::warn!(%failure, failures, "the business system gives no answers about tokens");
        }
    }
}
