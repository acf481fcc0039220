//! One flight a token, and a short memory of yes and no.
//!
//! However many sockets present a token at once, the business system is asked once; whoever comes meanwhile
//! gets the same answer. What went wrong is told to those who waited and remembered for nobody. Whoever looks
//! up must not be cancelled with its asker: it may be the one whose flight the others wait for.
//!
//! No token is remembered, only a fingerprint of it under a secret of this process: what a dump of the memory
//! shows logs nobody in, and every entry has the same small size, whatever a device sent.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use moka::Expiry;
use moka::future::Cache;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::business::{Answer, Failure};
use crate::caller::Caller;
use crate::config::Config;
use crate::metrics::{Metrics, Source};

/// A token, without the token.
type Fingerprint = [u8; 32];

/// For so long after a yes a token counts as one that the business system knows.
const TRUSTED_FOR: Duration = Duration::from_secs(3_600);

/// Remembers, and asks where it does not know.
#[derive(Debug)]
pub(crate) struct Memory {
    answers: Cache<Fingerprint, Answer>,
    /// Tokens that were good lately: a failure to check one is surely no fault of its owner.
    trusted: Cache<Fingerprint, ()>,
    /// Until when the business system wants not to be asked about a token.
    postponed: Cache<Fingerprint, Instant>,
    /// The longest that such a wish is followed.
    longest_wish: Duration,
    /// Hashed before each token.
    secret: [u8; 32],
    caller: Caller,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Lifetimes {
    yes: Duration,
    no: Duration,
}

impl Expiry<Fingerprint, Answer> for Lifetimes {
    fn expire_after_create(
        &self,
        _: &Fingerprint,
        answer: &Answer,
        _: std::time::Instant,
    ) -> Option<Duration> {
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
    pub(crate) fn new(config: &Config, caller: Caller, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let lifetimes = Lifetimes { yes: config.remember_yes, no: config.remember_no };
        let answers = Cache::builder().max_capacity(config.max_remembered).expire_after(lifetimes).build();
        let trusted = Cache::builder().max_capacity(config.max_remembered).time_to_live(TRUSTED_FOR).build();
        let longest_wish = config.breaker.open_longest;
        let postponed =
            Cache::builder().max_capacity(config.max_remembered).time_to_live(longest_wish).build();
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).context("the system gives no random numbers")?;
        Ok(Self { answers, trusted, postponed, longest_wish, secret, caller, metrics })
    }

    /// What is known about a token of a device at `address`, from memory or from the business system; it is
    /// asked only before `until`, a moment of the clock that stands still while this process does not run.
    pub(crate) async fn look_up(
        &self,
        token: &str,
        address: Option<&str>,
        until: Instant,
    ) -> Result<Answer, Arc<Failure>> {
        let fingerprint = self.fingerprint(token);
        if let Some(answer) = self.answers.get(&fingerprint).await {
            self.metrics.looked_up(Source::Memory);
            return Ok(answer);
        }
        let mut source = Source::SharedFlight;
        let flight = async {
            source = Source::OwnFlight;
            self.ask(fingerprint, token, address, until).await
        };
        let answer = self.answers.try_get_with(fingerprint, flight).await;
        self.metrics.looked_up(source);
        answer
    }

    async fn ask(
        &self,
        fingerprint: Fingerprint,
        token: &str,
        address: Option<&str>,
        until: Instant,
    ) -> Result<Answer, Failure> {
        let postponed = self.postponed.get(&fingerprint).await;
        let left = postponed.map(|at| at.saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            self.metrics.dropped("postponed");
            return Err(Failure::Postponed(left));
        }
        let trusted = self.trusted.contains_key(&fingerprint);
        let answer = self.caller.ask(token, address, trusted, until).await;
        match &answer {
            Ok(Answer::Yes { .. }) => self.trusted.insert(fingerprint, ()).await,
            Ok(Answer::No) => self.trusted.invalidate(&fingerprint).await,
            Err(Failure::Status { retry_after: Some(wish), .. }) => {
                let until = Instant::now() + (*wish).min(self.longest_wish);
                self.postponed.insert(fingerprint, until).await;
            }
            Err(_) => {}
        }
        answer
    }

    fn fingerprint(&self, token: &str) -> Fingerprint {
        Sha256::new().chain_update(self.secret).chain_update(token).finalize().into()
    }
}
