//! The key set of an issuer, kept up to date.
//!
//! | module | holds |
//! | --- | --- |
//! | this one | the latest set, the task that fetches, and tokens that wait for a fetch |
//! | `schedule` | when to fetch, and which fetch answers which token |
//! | `fetch` | one fetch |
//! | `set` | the meaning of the bytes |

mod fetch;
mod schedule;
mod set;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use shared::drain::Drain;
use shared::health::Health;
use shared::log_throttle::LogThrottle;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use self::fetch::{FetchFault, Fetcher};
use self::schedule::{Fetch, Schedule, Settled, Step, settle};
use super::config::JwtConfig;
use super::keys::{Keys, NamedKey};
use super::metrics::JwtMetrics;
use crate::PART;

/// The most tokens that wait for a fetch. The others are answered "unavailable" at once, so that tokens with
/// made-up keys take no room from those that can be checked.
const MAX_WAITING: usize = 256;

/// The latest key set, and how far the fetches are.
#[derive(Debug, Clone, Default)]
pub(super) struct Latest {
    /// The set of the last fetch that succeeded.
    pub(super) keys: Option<Arc<Keys>>,
    /// The number of that fetch.
    of: Fetch,
    /// The last fetch that ended.
    ended: Fetch,
}

/// The key set of one issuer. Shared by all checks of one adapter.
#[derive(Debug)]
pub(super) struct KeySet {
    schedule: Mutex<Schedule>,
    latest: watch::Sender<Latest>,
    /// Rung when a token was promised a fetch.
    promised: Notify,
    places: Semaphore,
    /// The moment from which the schedule counts time.
    origin: Instant,
    metrics: Arc<JwtMetrics>,
    complaints: LogThrottle,
}

/// The promise of a fetch, made to one token. Bounded in number.
#[derive(Debug)]
pub(super) struct Promise<'s> {
    fetch: Fetch,
    latest: watch::Receiver<Latest>,
    _place: SemaphorePermit<'s>,
}

impl Promise<'_> {
    /// Returns the latest set, and the outcome for a token whose key the set lacks. `None`: the fetch has not
    /// ended.
    pub(super) fn look(&mut self) -> (Option<Arc<Keys>>, Option<Verdict>) {
        let Latest { keys, of, ended } = self.latest.borrow_and_update().clone();
        let verdict = match settle(self.fetch, of, ended) {
            Settled::Refused => Some(Verdict::Lacking),
            Settled::Unavailable => Some(Verdict::Failed),
            Settled::NotYet => None,
        };
        (keys, verdict)
    }

    /// Waits until another fetch has ended.
    pub(super) async fn changed(&mut self) {
        if self.latest.changed().await.is_err() {
            // The set itself is gone, and the checks with it.
            std::future::pending::<()>().await;
        }
    }
}

/// The outcome for a token whose key no set has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A set that was fetched for the token lacks the key.
    Lacking,
    /// The fetch failed.
    Failed,
}

impl KeySet {
    /// Starts fetching on `drain`.
    ///
    /// # Errors
    /// The URL or the file of authorities can't be used.
    pub(super) fn start(
        config: &JwtConfig,
        health: Health,
        metrics: Arc<JwtMetrics>,
        drain: &Drain,
    ) -> anyhow::Result<Arc<Self>> {
        let fetcher = Fetcher::new(config)?;
        let set = Arc::new(Self {
            schedule: Mutex::new(Schedule::new(config.jwks_refresh)),
            latest: watch::Sender::new(Latest::default()),
            promised: Notify::new(),
            places: Semaphore::new(MAX_WAITING),
            origin: Instant::now(),
            metrics,
            complaints: LogThrottle::default(),
        });
        health.note(PART, Some("no key set was fetched yet, so no JWT can be checked".into()));
        let state = (Arc::clone(&set), fetcher, health, drain.clone());
        drain.supervise("auth-jwks", state, |(set, fetcher, health, drain)| {
            Box::pin(async move {
                tokio::select! { () = set.keep(fetcher, health) => {}, () = drain.begun() => set.leave() }
            })
        });
        Ok(set)
    }

    /// Returns the latest set and its changes.
    pub(super) fn latest(&self) -> watch::Receiver<Latest> {
        self.latest.subscribe()
    }

    /// Promises a fetch to a token that came now with a key that the latest set lacks. `None`: none is allowed
    /// so soon, or too many tokens wait.
    pub(super) fn promise(&self) -> Option<Promise<'_>> {
        let place = self.places.try_acquire().ok()?;
        let fetch = self.schedule().promise(self.origin.elapsed())?;
        self.promised.notify_one();
        Some(Promise { fetch, latest: self.latest(), _place: place })
    }

    /// Tells the tokens that wait that no fetch follows.
    fn leave(&self) {
        self.latest.send_modify(|latest| latest.ended = Fetch::MAX);
    }

    /// Fetches for ever, one at a time.
    async fn keep(&self, fetcher: &Fetcher, health: &Health) {
        loop {
            let step = self.schedule().step(self.origin.elapsed());
            match step {
                Step::Begin(fetch) => {
                    let outcome = fetcher.fetch().await;
                    self.ended(fetch, outcome, health);
                }
                Step::Wait(due) => tokio::select! {
                    () = sleep_until(self.origin + due) => {}
                    () = self.promised.notified() => {}
                },
            }
        }
    }

    fn ended(&self, fetch: Fetch, outcome: Result<Vec<NamedKey>, FetchFault>, health: &Health) {
        self.schedule().ended(self.origin.elapsed(), outcome.is_ok(), fastrand::f64());
        self.metrics.fetched(outcome.as_ref().err().map_or("fetched", FetchFault::label));
        match outcome {
            Ok(keys) => {
                self.metrics.set_is_from(SystemTime::now(), keys.len());
                health.note(PART, None);
                self.latest.send_modify(|latest| {
                    let keys = Keys::Named(keys);
                    if latest.keys.as_deref() != Some(&keys) {
                        tracing::info!("the issuer's key set is in use");
                        latest.keys = Some(Arc::new(keys));
                    }
                    (latest.of, latest.ended) = (fetch, fetch);
                });
            }
            Err(fault) => {
                self.complain(&fault, health);
                self.latest.send_modify(|latest| latest.ended = fetch);
            }
        }
    }

    fn complain(&self, fault: &FetchFault, health: &Health) {
        let meanwhile = if self.latest.borrow().keys.is_some() {
            "the last good set stays in use"
        } else {
            "no JWT can be checked"
        };
        let note = format!(
            "the issuer's key set (auth_adapter.jwt.jwks_url) can't be fetched: {fault}; {meanwhile}"
        );
        health.note(PART, Some(note));
        if let Some(failures) = self.complaints.due() {
            tracing::warn!(%fault, failures, "the issuer's key set can't be fetched; {meanwhile}");
        }
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether an error is a fetch that brought no key set, and not a fault of the configuration.
pub(crate) fn is_fetch_fault(error: &anyhow::Error) -> bool {
    error.is::<FetchFault>()
}

/// Fetches the key set once, apart from any schedule.
///
/// # Errors
/// A [`FetchFault`] if the URL gives no key set, another error if the configuration can't be used.
pub(super) async fn fetch_once(config: &JwtConfig) -> anyhow::Result<Vec<NamedKey>> {
    Ok(Fetcher::new(config)?.fetch().await?)
}

/// Whether an adapter has keys.
#[derive(Debug, Clone)]
pub(crate) struct Ability(watch::Receiver<Latest>);

impl Ability {
    pub(super) fn of(latest: watch::Receiver<Latest>) -> Self {
        Self(latest)
    }

    /// Returns whether there is a key set.
    pub(crate) fn is_able(&self) -> bool {
        self.0.borrow().keys.is_some()
    }

    /// Waits until that may have changed.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
