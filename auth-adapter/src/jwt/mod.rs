//! Checks tokens that say by themselves whose they are: JWTs (RFC 7519), signed with a secret or a key pair.
//!
//! | module | holds |
//! | --- | --- |
//! | this one | the checks of one adapter: where the keys are, and where the work is done |
//! | `verify` | the verdict: a pure function of token, keys, policy and time |
//! | `token`, `json`, `algorithm`, `claims`, `refusal` | its parts |
//! | `key`, `keys` | keys, and which of them a token means |
//! | `files`, `jwks` | keys that change: PEM files, the key set of an issuer |
//! | `once` | one check for an operator, apart from a running adapter |
//! | `config`, `metrics` | `[auth_adapter.jwt]`; metrics |
//!
//! No verdict is remembered, so that no verdict outlives a key, a claim or an order that revokes. A check
//! takes some tens of microseconds (`examples/jwt_cost.rs`), a small part of a login.

mod algorithm;
mod claims;
mod config;
mod files;
mod json;
mod jwks;
mod key;
mod keys;
mod metrics;
mod once;
mod refusal;
mod token;
mod verify;

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant as Moment};

use prometheus_client::registry::Registry;
use shared::awake::Awake;
use shared::clock::unix_ms;
use shared::config::Secret;
use shared::drain::Drain;
use shared::health::Health;
use shared::tasks::on_a_thread;
use shared::wire::Login;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use self::claims::{Good, Policy};
use self::jwks::{KeySet, Latest, Verdict};
use self::key::Key;
use self::keys::Keys;
use self::metrics::JwtMetrics;
use crate::groups::{IN_JWT, LeftOut};
use crate::metrics::Metrics;
use crate::reasons::Reasons;
pub use algorithm::Algorithm;
pub use config::{JwtConfig, Mode, SecretEncoding};
pub(crate) use jwks::Ability;
pub(crate) use jwks::is_fetch_fault;
pub use once::{JwtCheck, JwtChecked};
pub(crate) use refusal::Refusal;
pub(crate) use token::has_form_of_jwt;

/// Why a JWT logs nobody in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoLogin {
    /// The token is not valid.
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("no key set of the issuer was fetched yet (auth_adapter.jwt.jwks_url)")]
    NoKeySet,
    #[error(
        "the key set lacks the token's key, and can't be fetched for the token: one fetch a minute, and 256 tokens that wait, are the most"
    )]
    KeyNotFetched,
    #[error("the key set lacks the token's key, and could not be fetched in time")]
    FetchFailed,
    #[error("the check got no turn while the edge waited, so many are under way")]
    NoTurn,
}

impl NoLogin {
    /// Returns the label for the counter.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.label(),
            Self::NoKeySet => "no_key_set",
            Self::KeyNotFetched => "key_not_fetched",
            Self::FetchFailed => "fetch_failed",
            Self::NoTurn => "no_turn",
        }
    }
}

/// Where the keys are.
#[derive(Debug)]
enum Source {
    Configured(watch::Receiver<Arc<Keys>>),
    Fetched(Arc<KeySet>, watch::Receiver<Latest>),
}

/// Checks the JWTs of one adapter.
#[derive(Debug)]
pub(crate) struct Checker {
    policy: Arc<Policy>,
    source: Source,
    max_token: usize,
    /// Turns at the processor for signatures of key pairs.
    turns: Arc<Semaphore>,
    metrics: Arc<JwtMetrics>,
    awake: Awake,
    reasons: Arc<Reasons>,
    adapter: Arc<Metrics>,
}

/// The surroundings of a checker.
pub(crate) struct Surroundings<'a> {
    pub(crate) registry: &'a mut Registry,
    pub(crate) health: Health,
    pub(crate) awake: Awake,
    pub(crate) drain: &'a Drain,
    pub(crate) reasons: Arc<Reasons>,
    /// The metrics that all kinds of logins share.
    pub(crate) adapter: Arc<Metrics>,
}

impl Checker {
    /// Reads the keys, or starts fetching them.
    ///
    /// # Errors
    /// A file or the URL can't be used.
    pub(crate) fn start(
        config: &JwtConfig,
        max_age: Duration,
        max_token: usize,
        around: Surroundings<'_>,
    ) -> anyhow::Result<Self> {
        let Surroundings { registry, health, awake, drain, reasons, adapter } = around;
        let metrics = Arc::new(JwtMetrics::register(registry, !config.jwks_url.is_empty()));
        let source = if let Some(secret) = config.secret_bytes().filter(|secret| !secret.is_empty()) {
            metrics.keys_are(1);
            Source::Configured(watch::channel(Arc::new(Keys::Configured(vec![Key::Secret(secret)]))).1)
        } else if !config.public_keys.is_empty() {
            Source::Configured(files::follow(config.public_keys.clone(), Arc::clone(&metrics), drain)?)
        } else {
            let set = KeySet::start(config, health, Arc::clone(&metrics), drain)?;
            let latest = set.latest();
            Source::Fetched(set, latest)
        };
        warn_of_wide_doors(config);
        let turns = available_parallelism().map_or(1, NonZero::get).div_ceil(2);
        Ok(Self {
            policy: Arc::new(Policy::of(config, max_age)),
            source,
            max_token,
            turns: Arc::new(Semaphore::new(turns)),
            metrics,
            awake,
            reasons,
            adapter,
        })
    }

    /// Returns whether tokens can be checked, and its changes. `None`: always.
    pub(crate) fn ability(&self) -> Option<Ability> {
        match &self.source {
            Source::Configured(_) => None,
            Source::Fetched(_, latest) => Some(Ability::of(latest.clone())),
        }
    }

    /// Checks a token. A check that needs a turn or a fetch waits until `until` at most, a moment of
    /// [`Awake`].
    pub(crate) async fn check(&self, token: &str, until: Instant) -> Result<Login, NoLogin> {
        let checked =
            self.awake.timeout_at(until, self.judge(token, until)).await.unwrap_or(Err(NoLogin::NoTurn));
        self.metrics.checked(checked.as_ref().err().map_or("known", NoLogin::label));
        match checked {
            Ok(Good { login, left_out }) => {
                self.tell_left_out(left_out);
                Ok(login)
            }
            Err(reason) => {
                self.tell(&reason);
                Err(reason)
            }
        }
    }

    async fn judge(&self, token: &str, until: Instant) -> Result<Good, NoLogin> {
        if token.len() > self.max_token {
            return Err(Refusal::TooLong(self.max_token).into());
        }
        match &self.source {
            Source::Configured(keys) => {
                let keys = Arc::clone(&keys.borrow());
                self.verify(token, keys).await
            }
            Source::Fetched(set, latest) => {
                let keys = latest.borrow().keys.clone().ok_or(NoLogin::NoKeySet)?;
                match self.verify(token, keys).await {
                    Err(NoLogin::Refused(Refusal::UnknownKid)) => self.await_key(token, set, until).await,
                    judged => judged,
                }
            }
        }
    }

    /// Waits for a set that has the token's key, or that was fetched for the token.
    async fn await_key(&self, token: &str, set: &KeySet, until: Instant) -> Result<Good, NoLogin> {
        let mut promise = set.promise().ok_or(NoLogin::KeyNotFetched)?;
        loop {
            let (keys, verdict) = promise.look();
            let judged = self.verify(token, keys.ok_or(NoLogin::NoKeySet)?).await;
            match (judged, verdict) {
                (Err(NoLogin::Refused(Refusal::UnknownKid)), None) => {
                    let ended = self.awake.timeout_at(until, promise.changed()).await;
                    ended.map_err(|_| NoLogin::FetchFailed)?;
                }
                (Err(NoLogin::Refused(Refusal::UnknownKid)), Some(Verdict::Failed)) => {
                    return Err(NoLogin::FetchFailed);
                }
                (judged, _) => return judged,
            }
        }
    }

    /// Checks with these keys. Signatures of key pairs are checked on threads of their own, half as many as
    /// there are processors at a time, so that a flood of tokens leaves the others to everything else.
    async fn verify(&self, token: &str, keys: Arc<Keys>) -> Result<Good, NoLogin> {
        if keys.are_fast() {
            return Ok(verify::verify(token, &keys, &self.policy, unix_time())?);
        }
        // Before the wait for a turn, which tokens without a fitting key are not worth.
        verify::check_header(token, &keys, &self.policy)?;
        let (policy, metrics) = (Arc::clone(&self.policy), Arc::clone(&self.metrics));
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| NoLogin::NoTurn)?;
        let token = Secret::new(token);
        let judged = on_a_thread(move || {
            let began = Moment::now();
            let judged = verify::verify(token.expose(), &keys, &policy, unix_time());
            metrics.took(began.elapsed());
            drop(turn);
            judged
        });
        Ok(judged.await?)
    }

    fn tell(&self, why: &NoLogin) {
        match why {
            NoLogin::Refused(refusal) => self.reasons.refused(refusal.label(), &refusal.to_string()),
            NoLogin::NoKeySet | NoLogin::KeyNotFetched | NoLogin::FetchFailed | NoLogin::NoTurn => {
                self.reasons.unanswered(why.label(), &why.to_string());
            }
        }
    }

    fn tell_left_out(&self, left_out: LeftOut) {
        if !left_out.is_nothing() {
            self.adapter.groups_left_out(left_out);
            self.reasons.groups(&left_out.words(IN_JWT));
        }
    }
}

/// Tells settings that let in more than an operator may think of.
fn warn_of_wide_doors(config: &JwtConfig) {
    if config.secret.is_empty() && config.audience.is_empty() {
        tracing::warn!(
            "auth_adapter.jwt.audience is empty, so every token of the issuer logs in, whatever program it was made for"
        );
    }
    let url = reqwest::Url::parse(&config.jwks_url).ok().filter(|url| url.scheme() == "http");
    if url.is_some_and(|url| !matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"))) {
        tracing::warn!(
            "auth_adapter.jwt.jwks_url is not https: who is on the way to it can put keys of his own there"
        );
    }
}

/// Returns the time since 1970.
fn unix_time() -> Duration {
    Duration::from_millis(unix_ms())
}
