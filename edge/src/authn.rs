//! Finds the user of a token: asks the auth-adapters over the bus, with a bound and a deadline.
//!
//! The three answers are never mixed up: any failure on the way is "can't tell", never a no and never a yes.
//! When several sessions of this edge present the same token at once, the edge asks one question for all of
//! them; the question goes on for as long as one of these sessions waits. A session that needs an answer
//! newer than a refresh does not join a question that began for an earlier one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use shared::bus::async_nats::Message;
use shared::bus::{Bus, RequestError};
use shared::config::Secret;
use shared::drain::Drain;
use shared::ids::{Group, MAX_GROUPS, Uid};
use shared::log_throttle::LogThrottle;
use shared::subject;
use shared::trace;
use shared::wire::{Envelope as _, Login, VERSION, Verdict, VerifyReply, VerifyRequest};
use sockets::Source;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::adapters::Adapters;

/// How long a check waits for an auth-adapter to subscribe. After a short absence of the bus, the
/// auth-adapters may come back a little later than the edge.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause before a check is tried again. Each further pause is twice as long, since many checks may be
/// waiting.
const PAUSE: Duration = Duration::from_millis(50);

/// The outcome of a token check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The token belongs to this user, who has these groups, for this long.
    Known { uid: Uid, groups: Arc<[Group]>, expires_in: Option<Duration> },
    /// The token belongs to nobody.
    Unknown,
    /// Nobody could tell whose token it is.
    Unavailable,
}

impl Owner {
    /// Returns the outcome of the check, for spans.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Known { .. } => "known",
            Self::Unknown => "unknown",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The bounds of token checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckBounds {
    /// Checks at a time.
    pub(crate) at_a_time: usize,
    /// The time for a check, waiting included.
    pub(crate) deadline: Duration,
}

/// Checks tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Authn {
    bus: Bus,
    adapters: Adapters,
    flights: Flights,
    /// Permits for checks at a time; more checks wait, within their deadline.
    slots: Arc<Semaphore>,
    deadline: Duration,
    /// Throttles the log: an outage is one line, not one for each login.
    complaints: Arc<LogThrottle>,
    asked: Counter,
    joined: Counter,
    groups_left_out: Counter,
}

impl Authn {
    /// Starts listening to the auth-adapters, until `gone` is cancelled.
    pub(crate) fn start(
        bus: Bus,
        bounds: CheckBounds,
        registry: &mut Registry,
        drain: &Drain,
        gone: CancellationToken,
    ) -> Self {
        let (asked, joined, known) = (Counter::default(), Counter::default(), Gauge::default());
        let registry = registry.sub_registry_with_prefix("mc_edge");
        registry.register("token_questions", "Questions to auth-adapters", asked.clone());
        registry.register(
            "token_checks_joined",
            "Token checks that another one of the same token answered too",
            joined.clone(),
        );
        let groups_left_out = Counter::default();
        let text = "Groups of logins that no name can name, or beyond the most that a login may have";
        registry.register("groups_left_out", text, groups_left_out.clone());
        registry.register("auth_adapters", "Auth-adapters that this edge knows", known.clone());
        let adapters = Adapters::follow(bus.clone(), known, drain, gone);
        let slots = Arc::new(Semaphore::new(bounds.at_a_time));
        let (flights, complaints) = (Flights::default(), Arc::default());
        let deadline = bounds.deadline;
        Self { bus, adapters, flights, slots, deadline, complaints, asked, joined, groups_left_out }
    }

    /// Checks one token of a client at `from`. The answer is newer than the refresh `newer_than`.
    pub(crate) async fn owner(&self, token: Secret, from: Source, newer_than: Option<u64>) -> Owner {
        let (flight, joined) = self.flights.join(token.expose(), newer_than, |landing| {
            let (authn, token) = (self.clone(), token.clone());
            async move {
                let _landing = landing;
                let awake = authn.bus.awake();
                let until = awake.now() + authn.deadline;
                awake.timeout_at(until, authn.ask(token, from, newer_than, until)).await.unwrap_or_else(
                    |_| {
                        tracing::debug!("a token check took too long");
                        Owner::Unavailable
                    },
                )
            }
            .boxed()
        });
        if joined {
            self.joined.inc();
        }
        flight.await
    }

    /// Asks until the deadline `until`, on the clock that stands still while this process does not run.
    async fn ask(&self, token: Secret, from: Source, newer_than: Option<u64>, until: Instant) -> Owner {
        let Ok(_slot) = self.slots.acquire().await else { return Owner::Unavailable };
        let question = |left: Duration| VerifyRequest {
            v: VERSION,
            token: token.expose().to_owned(),
            patience_ms: u64::try_from(left.as_millis()).ok(),
            from: Some(from.to_string()),
            newer_than_ms: newer_than,
        };
        match self.request(token.expose(), question, until).await {
            Ok(reply) => read(&reply.payload, &self.complaints, &self.groups_left_out),
            Err(
                error @ (RequestError::NoResponders | RequestError::Disconnected | RequestError::Timeout),
            ) => {
                if let Some(tokens) = self.complaints.due() {
                    tracing::warn!(%error, tokens, "tokens can't be checked");
                }
                Owner::Unavailable
            }
        }
    }

    /// Asks the adapter that the token is assigned to. The next adapter is asked only if the first has no
    /// subscription any more: the bus says so at once, so no adapter got the question. If no adapter is
    /// known, any adapter may take the question, and the request waits a little for one.
    async fn request(
        &self,
        token: &str,
        question: impl Fn(Duration) -> VerifyRequest,
        until: Instant,
    ) -> Result<Message, RequestError> {
        let awake = self.bus.awake();
        let patient_until = until.min(awake.now() + PATIENCE);
        let mut pause = PAUSE;
        loop {
            let left = until.saturating_duration_since(awake.now());
            let request = question(left).encode();
            self.asked.inc();
            let Some(adapter) = self.adapters.choose(token) else {
                let headers = trace::bus_headers();
                match self.bus.request_with_headers(subject::VERIFY, headers, request, left).await {
                    Err(RequestError::NoResponders) if awake.now() + pause < patient_until => {
                        sleep(pause).await;
                        pause *= 2;
                        continue;
                    }
                    answered => return answered,
                }
            };
            let (subject, headers) = (subject::verify_at(&adapter), trace::bus_headers());
            match self.bus.request_with_headers(subject, headers, request, left).await {
                Err(RequestError::NoResponders) => self.adapters.forget(&adapter),
                answered => return answered,
            }
        }
    }
}

type Flight = BoxFuture<'static, Owner>;

/// The checks under way, by token. An entry lives as long as its flight, which ends when no session waits for
/// the flight any more.
#[derive(Clone, Default)]
struct Flights {
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Default)]
struct UnderWay {
    by_token: HashMap<String, Entry>,
    begun: u64,
}

struct Entry {
    number: u64,
    /// The refresh that the answer will be newer than.
    newer_than: Option<u64>,
    flight: WeakShared<Flight>,
}

/// Leaves out the tokens, which are secret.
impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

/// Removes a flight's entry when the flight ends, however it ends.
struct Landing {
    flights: Flights,
    token: String,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // Another flight may have begun after the last session that waited for this one had left.
        if under_way.by_token.get(&self.token).is_some_and(|entry| entry.number == self.number) {
            under_way.by_token.remove(&self.token);
        }
    }
}

impl Flights {
    /// Returns the flight of this token that is under way for this refresh or a later one, or begins one. The
    /// flag tells whether the flight was already under way.
    fn join(
        &self,
        token: &str,
        newer_than: Option<u64>,
        begin: impl FnOnce(Landing) -> Flight,
    ) -> (Shared<Flight>, bool) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let joinable = under_way.by_token.get(token).filter(|entry| entry.newer_than >= newer_than);
        if let Some(flight) = joinable.and_then(|entry| entry.flight.upgrade()) {
            return (flight, true);
        }
        under_way.begun += 1;
        let number = under_way.begun;
        let flight = begin(Landing { flights: self.clone(), token: token.to_owned(), number }).shared();
        if let Some(flight) = flight.downgrade() {
            under_way.by_token.insert(token.to_owned(), Entry { number, newer_than, flight });
        }
        (flight, false)
    }
}

fn read(reply: &[u8], complaints: &LogThrottle, groups_left_out: &Counter) -> Owner {
    let verdict = match VerifyReply::decode(reply) {
        Ok(reply) => reply.verdict,
        Err(error) => {
            if let Some(answers) = complaints.due() {
                tracing::error!(%error, answers, "answers of an auth-adapter can't be read");
            }
            return Owner::Unavailable;
        }
    };
    match verdict {
        Verdict::Known(Login { uid, expires_in_ms, groups, .. }) => match Uid::parse(&uid) {
            Ok(uid) => {
                let (groups, left_out) = groups_of(&groups);
                groups_left_out.inc_by(left_out);
                Owner::Known { uid, groups, expires_in: expires_in_ms.map(Duration::from_millis) }
            }
            Err(error) => {
                if let Some(answers) = complaints.due() {
                    tracing::error!(%error, answers, "an auth-adapter answered with something that is no uid");
                }
                Owner::Unavailable
            }
        },
        Verdict::Unknown => Owner::Unknown,
        Verdict::Unavailable { reason } => {
            if let Some(tokens) = complaints.due() {
                tracing::warn!(reason, tokens, "tokens can't be checked");
            }
            Owner::Unavailable
        }
    }
}

/// Returns the groups that a name can name, and how many are left out.
fn groups_of(texts: &[String]) -> (Arc<[Group]>, u64) {
    let groups: Vec<Group> =
        texts.iter().filter_map(|text| Group::parse(text).ok()).take(MAX_GROUPS).collect();
    let left_out = (texts.len() - groups.len()) as u64;
    // Most logins have no groups, and all those share one allocation.
    let groups = if groups.is_empty() { Arc::default() } else { groups.into() };
    (groups, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_no_name_can_name_are_left_out_and_the_login_goes_on() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (groups, left_out) = groups_of(&texts(&["vip", "", "a\nb", &"x".repeat(129), "7"]));
        assert_eq!(groups.iter().map(Group::as_str).collect::<Vec<_>>(), ["vip", "7"]);
        assert_eq!(left_out, 3);
        let many: Vec<String> = (0..MAX_GROUPS + 5).map(|number| number.to_string()).collect();
        let (groups, left_out) = groups_of(&many);
        assert_eq!((groups.len(), left_out), (MAX_GROUPS, 5));
        assert_eq!(groups_of(&[]), (Arc::default(), 0));
    }

    #[tokio::test]
    async fn a_flight_for_an_older_refresh_is_not_joined_and_takes_nothing_away_when_it_lands() {
        let flights = Flights::default();
        let landing = |owner: Owner| {
            move |landing: Landing| {
                async move {
                    let _landing = landing;
                    tokio::task::yield_now().await;
                    owner
                }
                .boxed()
            }
        };
        let (old, _) = flights.join("t", None, landing(Owner::Unknown));
        let (new, joined) = flights.join("t", Some(7), landing(Owner::Unavailable));
        assert!(!joined, "the first one began for no refresh");
        for newer_than in [None, Some(6), Some(7)] {
            assert!(flights.join("t", newer_than, landing(Owner::Unknown)).1, "{newer_than:?}");
        }
        assert!(!flights.join("u", Some(8), landing(Owner::Unknown)).1);
        assert_eq!(old.await, Owner::Unknown);
        assert!(flights.join("t", Some(7), landing(Owner::Unknown)).1, "the second one is still under way");
        assert_eq!(new.await, Owner::Unavailable);
        assert!(flights.under_way.lock().unwrap().by_token.is_empty());
    }

    #[tokio::test]
    async fn a_flight_is_shared_while_somebody_waits_and_leaves_nothing() {
        let flights = Flights::default();
        let begin = |landing: Landing| {
            async move {
                let _landing = landing;
                tokio::task::yield_now().await;
                Owner::Unknown
            }
            .boxed()
        };
        let (first, joined) = flights.join("t", None, begin);
        assert!(!joined);
        let (second, joined) = flights.join("t", None, begin);
        assert!(joined);
        assert!(!flights.join("u", None, begin).1, "another token, another flight");
        assert_eq!(flights.under_way.lock().unwrap().by_token.len(), 1, "nobody waits for the other one");
        drop(first);
        assert_eq!(second.await, Owner::Unknown);
        assert!(!flights.join("t", None, begin).1, "what has landed is not joined");
        assert!(flights.under_way.lock().unwrap().by_token.is_empty());
    }

    #[test]
    fn only_a_clear_answer_is_a_yes_or_a_no() {
        let uid = || Uid::parse("1001").unwrap();
        let known = |expires_in| Owner::Known { uid: uid(), groups: Arc::default(), expires_in };
        let of_group = || Owner::Known {
            uid: uid(),
            groups: Arc::from([Group::parse("vip").unwrap()]),
            expires_in: None,
        };
        for (reply, owner) in [
            (r#"{"v":1,"verdict":"known","uid":"1001"}"#, known(None)),
            (
                r#"{"v":1,"verdict":"known","uid":"1001","expires_in_ms":1500}"#,
                known(Some(Duration::from_millis(1500))),
            ),
            (r#"{"v":1,"verdict":"known","uid":"1001","groups":["vip",""]}"#, of_group()),
            (r#"{"v":1,"verdict":"unknown"}"#, Owner::Unknown),
            (r#"{"v":1,"verdict":"unavailable","reason":"slow"}"#, Owner::Unavailable),
            (r#"{"v":1,"verdict":"known","uid":"0"}"#, Owner::Unavailable),
            (r#"{"v":1,"verdict":"known","uid":""}"#, Owner::Unavailable),
            (r#"{"v":9,"verdict":"known","uid":"1001"}"#, Owner::Unavailable),
            (r#"{"v":1,"verdict":"perhaps"}"#, Owner::Unavailable),
            ("yes", Owner::Unavailable),
        ] {
            assert_eq!(
                read(reply.as_bytes(), &LogThrottle::default(), &Counter::default()),
                owner,
                "{reply}"
            );
        }
    }
}
