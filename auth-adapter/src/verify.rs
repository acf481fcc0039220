//! Answers the token checks of the edges.
//!
//! An edge that knows the adapters asks the adapter of the token; other edges ask any, in one queue group.
//! The number of slots for questions is bounded: a question without a slot is answered "unavailable" at once,
//! which an edge passes on to its client as "try again". Every question with a reply subject is answered,
//! unless its edge has given up by then. Each answer is a task of its own that only the drain waits for, so
//! an edge that gives up cancels nothing for other edges that wait for the same token.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use shared::awake::Awake;
use shared::bus::async_nats::{HeaderMap, Message, Subject, Subscriber};
use shared::bus::{self, Bus};
use shared::drain::Drain;
use shared::gauge::GaugeGuard;
use shared::health::Health;
use shared::log_throttle::LogThrottle;
use shared::part::proof::{self, Proof};
use shared::part::ready::{self, Grace};
use shared::subject;
use shared::trace::{self, TraceContext};
use shared::wire::{Envelope as _, Login, VERSION, Verdict, VerifyReply, VerifyRequest};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};

use crate::PART;
use crate::announce::Announcer;
use crate::business::{Answer, Failure};
use crate::config::Config;
use crate::jwt::{Checker, NoLogin, has_form_of_jwt};
use crate::mapping::Mapping;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::reasons::{self, Reasons};
use crate::usable;

/// The pause after a failed attempt to subscribe.
const PAUSE: Duration = Duration::from_millis(200);
/// How long questions on their way may take to arrive when this adapter leaves.
const LAST_QUESTIONS: Duration = Duration::from_secs(1);
/// How long an edge waits if the question does not say.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest wait of an edge that is believed.
const MOST_PATIENCE: Duration = Duration::from_secs(600);

/// The parts that decide about a token, and tell why.
pub(crate) struct Judges {
    /// `None`: the business system is never asked.
    pub(crate) by_url: Option<ByUrl>,
    /// `None`: no JWT is checked.
    pub(crate) jwt: Option<Checker>,
    pub(crate) reasons: Arc<Reasons>,
}

/// The checks at the business system.
pub(crate) struct ByUrl {
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) memory: Memory,
}

/// Answers token checks.
struct VerifyResponder {
    judges: Judges,
    bus: Bus,
    metrics: Arc<Metrics>,
    slots: Arc<Semaphore>,
    max_token: usize,
    complaints: LogThrottle,
}

/// Starts the responder on `drain`; `health` tells when questions arrive.
pub(crate) fn start(
    config: &Config,
    judges: Judges,
    announcer: Announcer,
    bus: Bus,
    health: Health,
    metrics: Arc<Metrics>,
    drain: &Drain,
) {
    let slots = Arc::new(Semaphore::new(config.max_waiting));
    let responder = Arc::new(VerifyResponder {
        judges,
        bus,
        metrics,
        slots,
        max_token: config.max_token.as_usize(),
        complaints: LogThrottle::default(),
    });
    // Not begun anew: its questions would be lost, and the edges ask another adapter.
    drain.spawn_vital("auth-questions", serve(responder, announcer, health, config.bus_grace, drain.clone()));
}

/// Answers until the drain begins; then takes no new question, and answers the earlier ones.
async fn serve(
    responder: Arc<VerifyResponder>,
    announcer: Announcer,
    health: Health,
    bus_grace: Duration,
    drain: Drain,
) {
    let subscribed = tokio::select! {
        subscribed = subscribe(&responder.bus, &announcer) => Some(subscribed),
        () = drain.begun() => None,
    };
    let Some((mut of_all, mut of_this, hellos)) = subscribed else { return };
    let state = (announcer, hellos, drain.clone());
    drain.supervise("auth-heartbeats", state, |(announcer, hellos, drain)| {
        Box::pin(announcer.speak(hellos, drain))
    });
    // After the subscriptions, so that the proof covers them.
    let state = (responder.bus.clone(), health.clone(), drain.clone());
    drain.supervise("auth-readiness", state, move |(bus, health, drain)| {
        Box::pin(keep_ready(bus, health, bus_grace, drain))
    });
    loop {
        let question = tokio::select! {
            question = of_all.next() => question,
            question = of_this.next() => question,
            () = drain.begun() => break,
        };
        let Some(question) = question else {
            tracing::error!(
                "the bus client gave the connection up; no token can be checked, restart this part"
            );
            return health.unready(PART, "the bus client gave the connection up");
        };
        responder.take(question, &drain).await;
    }
    let last = async {
        if of_all.drain().await.is_ok() && of_this.drain().await.is_ok() {
            let mut questions = stream::select(of_all, of_this);
            while let Some(question) = questions.next().await {
                responder.take(question, &drain).await;
            }
        }
    };
    if timeout(LAST_QUESTIONS, last).await.is_err() {
        tracing::debug!("left without the bus having said that no question follows");
    }
}

/// Subscribes to questions to any adapter, questions to this adapter, and requests for heartbeats.
async fn subscribe(bus: &Bus, announcer: &Announcer) -> (Subscriber, Subscriber, Subscriber) {
    loop {
        let subscribed = async {
            let of_this = bus.subscribe(announcer.subject(), None, bus::DEADLINE).await?;
            let hellos = announcer.listen().await?;
            let of_all = bus.subscribe(subject::VERIFY, Some(subject::VERIFY_QUEUE), bus::DEADLINE).await?;
            Ok::<_, bus::RequestError>((of_all, of_this, hellos))
        };
        match subscribed.await {
            Ok(subscribed) => return subscribed,
            Err(error) => tracing::warn!(%error, "can't take questions yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl VerifyResponder {
    async fn take(self: &Arc<Self>, question: Message, drain: &Drain) {
        let Some(reply) = question.reply else { return self.metrics.dropped("no_reply_subject") };
        let request = match VerifyRequest::decode(&question.payload) {
            Ok(request) => request,
            Err(error) => {
                if let Some(questions) = self.complaints.due() {
                    tracing::warn!(%error, questions, "questions can't be read");
                }
                return self
                    .decline(reply, "unreadable", format!("the question can't be read: {error}"))
                    .await;
            }
        };
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else {
            return self.decline(reply, "too_many_waiting", "too many questions wait".into()).await;
        };
        let patience = request.patience_ms.map_or(PATIENCE, Duration::from_millis);
        let patience = patience.min(MOST_PATIENCE);
        // While this process does not run, no edge gives up: edges use the same kind of clock.
        let awake = self.bus.awake().clone();
        let until = awake.now() + patience;
        let slot = (permit, GaugeGuard::new(&self.metrics.waiting));
        let responder = Arc::clone(self);
        let span = span(question.headers.as_ref());
        let judged = async move {
            let verdict = responder.judge(&request, until).await;
            match verdict {
                Some(verdict) if awake.now() < until => responder.answer(reply, verdict).await,
                Some(_) | None => responder.metrics.dropped("edge_gave_up"),
            }
            drop(slot);
        };
        drain.spawn("auth-check", judged.instrument(span));
    }

    /// Answers directly rather than in a task: tasks without a slot would have no bound.
    async fn decline(&self, reply: Subject, counted_as: &'static str, reason: String) {
        self.metrics.dropped(counted_as);
        self.answer(reply, Verdict::Unavailable { reason }).await;
    }

    /// Checks a token. `None`: it was too late. `until` is a moment of [`Awake`].
    async fn judge(&self, question: &VerifyRequest, until: Instant) -> Option<Verdict> {
        let VerifyRequest { token, from, newer_than_ms, .. } = question;
        let Judges { by_url, jwt, reasons } = &self.judges;
        // A token with the form of a JWT never goes to the business system where JWTs are checked.
        let jwt = jwt.as_ref().filter(|_| by_url.is_none() || has_form_of_jwt(token));
        if let Some(jwt) = jwt {
            return Some(of_jwt(jwt.check(token, until).await));
        }
        let ByUrl { mapping, memory } = by_url.as_ref()?;
        if let Some(fault) = usable::fault(token, self.max_token, mapping.token()) {
            reasons.refused(reasons::NOT_ASKED, fault);
            return Some(Verdict::Unknown);
        }
        Some(match memory.look_up(token, from.as_deref(), *newer_than_ms, until).await {
            Ok(Answer::No) => Verdict::Unknown,
            Ok(Answer::Yes { uid, expires, groups, asked_at_ms }) => {
                let left = expires.map(|at| at.saturating_duration_since(Instant::now()).as_millis());
                match left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)) {
                    // The login expires in this very millisecond.
                    Some(0) => Verdict::Unknown,
                    expires_in_ms => Verdict::Known(Login {
                        expires_in_ms,
                        groups: groups.iter().map(|group| group.as_str().to_owned()).collect(),
                        issued_at_ms: Some(asked_at_ms),
                        ..Login::of(uid.to_string())
                    }),
                }
            }
            Err(failure) if *failure == Failure::Stale && self.bus.awake().now() >= until => return None,
            Err(failure) => Verdict::Unavailable { reason: failure.to_string() },
        })
    }

    async fn answer(&self, reply: Subject, verdict: Verdict) {
        let label = match verdict {
            Verdict::Known(_) => "known",
            Verdict::Unknown => "unknown",
            Verdict::Unavailable { .. } => "unavailable",
        };
        self.metrics.verdict(label);
        Span::current().record("mc.outcome", label);
        let reply_body = VerifyReply { v: VERSION, verdict }.encode();
        if let Err(error) = self.bus.publish(reply, None, None, reply_body).await {
            tracing::debug!(%error, "an answer could not be sent");
            self.metrics.dropped("answer_not_sent");
        }
    }
}

fn of_jwt(checked: Result<Login, NoLogin>) -> Verdict {
    match checked {
        Ok(login) => Verdict::Known(login),
        Err(NoLogin::Refused(_)) => Verdict::Unknown,
        Err(
            reason @ (NoLogin::NoKeySet | NoLogin::KeyNotFetched | NoLogin::FetchFailed | NoLogin::NoTurn),
        ) => Verdict::Unavailable { reason: reason.to_string() },
    }
}

/// Makes the span of a token check, in the trace of the login, if the trace is sampled.
fn span(headers: Option<&HeaderMap>) -> Span {
    let context = trace::is_on().then(|| TraceContext::from_bus(headers)).flatten();
    let Some(context) = context.filter(TraceContext::is_sampled) else { return Span::none() };
    let span = info_span!(target: trace::TARGET, parent: None, "verify token", otel.kind = "server", mc.outcome = Empty);
    context.adopt(&span);
    span
}

/// Tells readiness: the adapter is ready while the questions of the edges reach it. A business system that is
/// away is no reason against readiness, since another adapter would fare no better.
async fn keep_ready(bus: &Bus, health: &Health, grace: Duration, drain: &Drain) {
    let (told, proof) = watch::channel(Proof::default());
    let prove = proof::keep(bus, |proof| {
        told.send_replace(proof);
    });
    tokio::select! {
        biased;
        // First, since this tells the state from which the other one begins.
        () = prove => {}
        () = follow(proof, bus.awake(), health, Grace::new(grace)) => {}
        () = drain.begun() => health.unready(PART, ready::LEAVING),
    }
}

/// Tells `health` how far the proof is, until the bus client ends.
async fn follow(mut proof: watch::Receiver<Proof>, awake: &Awake, health: &Health, mut grace: Grace) {
    loop {
        let view = *proof.borrow_and_update();
        let mut grace_ends = None;
        match view {
            Proof::Unreached => health.unready(PART, ready::UNREACHED),
            Proof::Away => {
                grace_ends = grace.until(awake.now());
                if grace_ends.is_none() {
                    health.unready(PART, ready::GONE);
                }
            }
            Proof::Open { failed } => {
                grace.end();
                if let Some(error) = failed {
                    health.unready(PART, format!("the bus does not prove the subscription: {error}"));
                }
            }
            Proof::Proved { .. } => {
                grace.end();
                health.ready(PART);
            }
        }
        tokio::select! {
            changed = proof.changed() => if changed.is_err() { return },
            () = awake.sleep_until_some(grace_ends) => {}
        }
    }
}
