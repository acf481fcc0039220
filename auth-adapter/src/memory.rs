//! One flight a token, and a short memory of yes and no.
//!
//! However many sockets present a token at once, the business system is asked once; whoever comes meanwhile
//! gets the same answer. What went wrong is told to those who waited and remembered for nobody. Whoever looks
//! up must not be cancelled with its asker: it may be the one whose flight the others wait for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::Expiry;
use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::business::{Answer, Business, Failure};
use crate::config::Config;
use crate::metrics::{Metrics, Source};

/// A token weighs one for each started piece of this many bytes, so that long ones can't fill the machine.
const TOKEN_PIECE: usize = 256;
/// At most one complaint about the business system is logged in this time; the counters have them all.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// Remembers, and asks where it does not know. It has no `Debug`, which would show tokens.
pub(crate) struct Memory {
    answers: Cache<String, Answer>,
    business: Business,
    /// A permit for each check at the business system.
    places: Arc<Semaphore>,
    deadline: Duration,
    metrics: Arc<Metrics>,
    complaints: Mutex<Complaints>,
}

/// Failures that were not logged since the last that was.
#[derive(Debug, Default)]
struct Complaints {
    kept: u64,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Lifetimes {
    yes: Duration,
    no: Duration,
}

impl Expiry<String, Answer> for Lifetimes {
    fn expire_after_create(&self, _: &String, answer: &Answer, _: std::time::Instant) -> Option<Duration> {
        Some(match answer {
            Answer::Yes { expires, .. } => {
                let left = expires.map(|at| at.saturating_duration_since(Instant::now()));
                self.yes.min(left.unwrap_or(Duration::MAX))
            }
            Answer::No => self.no,
        })
    }
}

impl Memory {
    pub(crate) fn new(config: &Config, business: Business, metrics: Arc<Metrics>) -> Self {
        let lifetimes = Lifetimes { yes: config.remember_yes, no: config.remember_no };
        let answers = Cache::builder()
            .max_capacity(config.max_remembered)
            .weigher(|token: &String, _| u32::try_from(token.len() / TOKEN_PIECE + 1).unwrap_or(u32::MAX))
            .expire_after(lifetimes)
            .build();
        let places = Arc::new(Semaphore::new(config.max_in_flight));
        Self { answers, business, places, deadline: config.deadline, metrics, complaints: Mutex::default() }
    }

    /// What is known about a token, from memory or from the business system.
    pub(crate) async fn look_up(&self, token: &str) -> Result<Answer, Arc<Failure>> {
        let mut source = Source::Memory;
        let flight = async {
            source = Source::Business;
            self.ask(token).await
        };
        let answer = self.answers.try_get_with_by_ref(token, flight).await;
        self.metrics.looked_up(source);
        answer
    }

    async fn ask(&self, token: &str) -> Result<Answer, Failure> {
        let place = timeout(self.deadline, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            self.metrics.dropped("no_call_in_time");
            return Err(Failure::Busy(self.deadline));
        };
        let began = Instant::now();
        let answer = self.business.ask(token).await;
        self.metrics.asked(answer.as_ref(), began.elapsed());
        if let Err(failure) = &answer {
            self.complain(failure);
        }
        answer
    }

    fn complain(&self, failure: &Failure) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.kept += 1;
        if complaints.last.is_none_or(|last| last.elapsed() >= COMPLAINT_PAUSE) {
            let failures = complaints.kept;
            tracing::warn!(%failure, failures, "the business system gives no answers about tokens");
            *complaints = Complaints { kept: 0, last: Some(Instant::now()) };
        }
    }
}
