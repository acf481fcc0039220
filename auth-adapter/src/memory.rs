//! One flight per token, and a short memory of yes and no.
//!
//! However many sockets present a token at once, the business system is asked once, and all of them get the
//! same answer. A failure is told to all who wait, and is not remembered. A look-up must not be cancelled
//! with its asker: others may wait for the same flight.
//!
//! A question may want an answer that is newer than a refresh. Flights and remembered answers belong to the
//! refresh for which they began. So an answer from before a refresh never stands for one from after it, and
//! no clock of another machine is compared with ours.
//!
//! Tokens are not remembered, only their fingerprints under a secret of this process: a dump of the memory
//! logs nobody in, and every entry has the same small size, whatever a device sent.

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

/// The fingerprint of a token.
type Fingerprint = [u8; 32];

/// A token, and the refresh that its answer is newer than; 0 for none.
type Wanted = (Fingerprint, u64);

/// How long after a yes a token counts as known to the business system.
const TRUSTED_FOR: Duration = Duration::from_secs(3_600);

/// Remembers verdicts, and asks the business system for others.
#[derive(Debug)]
pub(crate) struct Memory {
    answers: Cache<Wanted, Answer>,
    /// The latest refresh for which a token was asked about. Answers for an earlier one are not given any
    /// more.
    refreshed: Cache<Fingerprint, u64>,
    /// Tokens that were good lately: a failed check of such a token is surely not the owner's fault.
    trusted: Cache<Fingerprint, ()>,
    /// The time until which the business system wants no question about a token.
    postponed: Cache<Fingerprint, Instant>,
    /// The longest time for which such a wish is followed.
    longest_wish: Duration,
    /// The secret that is hashed before each token.
    secret: [u8; 32],
    caller: Caller,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Lifetimes {
    yes: Duration,
    no: Duration,
}

impl Expiry<Wanted, Answer> for Lifetimes {
    fn expire_after_create(&self, _: &Wanted, answer: &Answer, _: std::time::Instant) -> Option<Duration> {
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
        // By then, every answer from before the refresh is forgotten.
        let longest = config.remember_yes.max(config.remember_no) + config.deadline;
        let refreshed = Cache::builder().max_capacity(config.max_remembered).time_to_live(longest).build();
        let trusted = Cache::builder().max_capacity(config.max_remembered).time_to_live(TRUSTED_FOR).build();
        let longest_wish = config.breaker.open_longest;
        let postponed =
            Cache::builder().max_capacity(config.max_remembered).time_to_live(longest_wish).build();
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).context("the system gives no random numbers")?;
        Ok(Self { answers, refreshed, trusted, postponed, longest_wish, secret, caller, metrics })
    }

    /// Looks up the token of a device at `address`, in memory or at the business system. The answer is newer
    /// than the refresh `newer_than`. The call must begin before `until`, a moment of
    /// [`Awake`](shared::awake::Awake).
    pub(crate) async fn look_up(
        &self,
        token: &str,
        address: Option<&str>,
        newer_than: Option<u64>,
        until: Instant,
    ) -> Result<Answer, Arc<Failure>> {
        let fingerprint = self.fingerprint(token);
        let wanted = (fingerprint, self.latest_refresh(fingerprint, newer_than).await);
        if let Some(answer) = self.answers.get(&wanted).await {
            self.metrics.looked_up(Source::Memory);
            return Ok(answer);
        }
        let mut source = Source::SharedFlight;
        let flight = async {
            source = Source::OwnFlight;
            self.ask(fingerprint, token, address, until).await
        };
        let answer = self.answers.try_get_with(wanted, flight).await;
        self.metrics.looked_up(source);
        answer
    }

    /// Returns the refresh that an answer about a token must be newer than: the latest that was ever wanted.
    async fn latest_refresh(&self, fingerprint: Fingerprint, newer_than: Option<u64>) -> u64 {
        let Some(newer_than) = newer_than else {
            return self.refreshed.get(&fingerprint).await.unwrap_or(0);
        };
        let latest = self.refreshed.entry(fingerprint).and_upsert_with(|known| {
            let known = known.map_or(0, |entry| entry.into_value());
            std::future::ready(known.max(newer_than))
        });
        latest.await.into_value()
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
