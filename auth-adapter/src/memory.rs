//! One flight a token, and a short memory of yes and no.
//!
//! However many sockets present a token at once, the business system is asked once; whoever comes meanwhile
//! gets the same answer. What went wrong is told to those who waited and remembered for nobody.

use std::sync::Arc;
use std::time::Duration;

use moka::Expiry;
use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::business::{Answer, Business, Failure};
use crate::config::Config;
use crate::metrics::{Metrics, Source};

/// Remembers, and asks where it does not know. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    answers: Cache<String, Answer>,
    business: Business,
    /// A permit for each check at the business system.
    places: Arc<Semaphore>,
    deadline: Duration,
    metrics: Arc<Metrics>,
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
        let answers = Cache::builder().max_capacity(config.max_remembered).expire_after(lifetimes).build();
        let places = Arc::new(Semaphore::new(config.max_in_flight));
        Self { answers, business, places, deadline: config.deadline, metrics }
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
        let Ok(Ok(_place)) = place else { return Err(Failure::Busy) };
        let began = Instant::now();
        let answer = self.business.ask(token).await;
        self.metrics.asked(answer.as_ref(), began.elapsed());
        if let Err(failure) = &answer {
            tracing::warn!(%failure, "the business system gave no answer about a token");
        }
        answer
    }
}
