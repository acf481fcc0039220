//! One session: a task that carries what happens on the socket to the conversation, and its effects back.
//!
//! It decides nothing: [`state`] does. It holds its [`Member`] for as long as messages may go to the client, and gives it
//! back before the socket is shut down, so that a client that sees its connection ended is counted no more.

pub(crate) mod outbox;
pub(crate) mod state;
mod throttle;

#[cfg(test)]
mod tests;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use shared::held::Held;
use shared::ids::Channel;
use shared::rules::Rules;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Instrument as _;

use crate::authn::{Authn, Owner};
use crate::code::CloseCode;
use crate::frame::Frame;
use crate::hub::{Entry, Member};
use crate::metrics::{LoginOutcome, Loss, Metrics};
use crate::traced;
use crate::transport::{Event, Transport};
use outbox::Call;
use state::{Effect, Limits, State, Unproved, Verified};

/// Bytes of messages that are taken from the outbox at a time; one larger message is taken alone.
const BATCH_BYTES: usize = 64 << 10;
/// How long a client may take to read its last frames.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// The same for one that was too slow; it costs next to nothing by then, and should learn why it ends.
const SLOW_PATIENCE: Duration = Duration::from_secs(10);

/// What all sessions of an edge share.
#[derive(Debug)]
pub(crate) struct Env {
    pub(crate) rules: Arc<Rules>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) authn: Authn,
    /// Whether messages surely arrive from the bus.
    pub(crate) active: watch::Receiver<bool>,
    /// How long a subscription waits for that.
    pub(crate) subscribe_deadline: Duration,
    /// How long a client may take nothing although something waits for it.
    pub(crate) stalled_after: Duration,
    pub(crate) metrics: Arc<Metrics>,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client closed it, or the connection broke.
    ByClient,
    /// The conversation, or an order from outside, ends it.
    With(CloseCode),
}

/// An op that takes time. Only sessions that have one pay for it.
type UnderWay = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What came of it.
enum Outcome {
    Owner(Owner),
    Subscribable(Channel),
    Unproved,
}

/// Everything that one session owns.
struct Session<S> {
    transport: Transport<S>,
    member: Member,
    state: State,
    env: Arc<Env>,
    under_way: Option<UnderWay>,
    /// Messages stay in the outbox.
    paused: bool,
}

/// Serves one client until its session ends.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    transport: Transport<S>,
    member: Member,
    env: Arc<Env>,
) {
    env.metrics.opened.inc();
    let _held = Held::new(&env.metrics.sessions);
    let id = member.id();
    tracing::debug!(session = id, "a session begins");
    let (rules, limits) = (Arc::clone(&env.rules), Arc::clone(&env.limits));
    let state = State::new(rules, limits, fastrand::u64(..), Instant::now());
    let mut session = Session { transport, member, state, env, under_way: None, paused: false };
    let end = session.converse().await;
    tracing::debug!(session = id, ?end, "a session ends");
    // Apart, so that the long time before does not hold the memory for the short one after.
    Box::pin(session.finish(end)).await;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// The loop: a call from others, an op that is done, the socket, the time.
    async fn converse(&mut self) -> End {
        let mut timer = pin!(sleep_until(self.deadline()));
        loop {
            let listens = self.state.wants_input() && self.transport.has_room();
            let delivers = !self.paused && self.transport.is_idle();
            let outbox = self.member.outbox();
            let effects = tokio::select! {
                biased;
                call = std::future::poll_fn(|context| outbox.poll_call(delivers, context)) => match call {
                    Call::Close(code) => return End::With(code),
                    Call::Deliver => {
                        outbox.take(BATCH_BYTES).into_iter().for_each(|frame| self.transport.push(frame));
                        Vec::new()
                    }
                },
                outcome = outcome(&mut self.under_way) => self.on_outcome(outcome),
                event = self.transport.next(listens) => match event {
                    Event::Frame(frame) => self.state.on_frame(frame, Instant::now()),
                    Event::SignOfLife => {
                        self.state.on_sign_of_life(Instant::now());
                        Vec::new()
                    }
                    Event::Written => Vec::new(),
                    Event::Gone => return End::ByClient,
                },
                () = timer.as_mut() => Vec::new(),
            };
            if let Some(code) = self.carry_out(effects) {
                return End::With(code);
            }
            // Whoever talks or is delivered to without a pause keeps the timer from its turn, but not from its time.
            if self.deadline() <= Instant::now()
                && let Some(code) = self.on_deadline()
            {
                return End::With(code);
            }
            // A deadline that has moved away is found out when the timer rings; most never do.
            let deadline = self.deadline();
            if timer.is_elapsed() || deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
        }
    }

    /// Does what is due. Some: the session ends.
    fn on_deadline(&mut self) -> Option<CloseCode> {
        if self.is_stalled() {
            return Some(CloseCode::TooSlow);
        }
        let effects = self.state.on_timer(Instant::now());
        self.carry_out(effects)
    }

    fn on_outcome(&mut self, outcome: Outcome) -> Vec<Effect> {
        self.under_way = None;
        let now = Instant::now();
        match outcome {
            Outcome::Owner(owner) => {
                let verified = self.let_in(owner);
                self.state.on_verified(verified, now)
            }
            Outcome::Subscribable(channel) => {
                self.member.watch(&channel);
                self.state.on_subscribed(Ok(()), now)
            }
            Outcome::Unproved => self.state.on_subscribed(Err(Unproved), now),
        }
    }

    /// The owner of a token becomes the user of this session, if there is a place.
    fn let_in(&mut self, owner: Owner) -> Verified {
        let (verified, outcome) = match owner {
            Owner::Known { uid, expires_in } => match self.member.log_in(&uid, unix_ms()) {
                Entry::Admitted => (Verified::Known { uid, expires_in }, LoginOutcome::Known),
                Entry::TooMany => (Verified::TooManySessions, LoginOutcome::TooManySessions),
                Entry::Denied => (Verified::Denied, LoginOutcome::Denied),
            },
            Owner::Unknown => (Verified::Unknown, LoginOutcome::Unknown),
            Owner::Unavailable => (Verified::Unavailable, LoginOutcome::Unavailable),
        };
        self.env.metrics.login(outcome);
        verified
    }

    /// Does what the conversation asks for, in its order. Some: the session ends.
    fn carry_out(&mut self, effects: Vec<Effect>) -> Option<CloseCode> {
        for effect in effects {
            match effect {
                Effect::Reply(text) => self.transport.push(Frame::text(&text)),
                Effect::Error(code, text) => {
                    self.env.metrics.error(code);
                    self.transport.push(Frame::text(&text));
                }
                Effect::Ping => self.transport.push(Frame::ping()),
                Effect::Verify { token } => {
                    let env = Arc::clone(&self.env);
                    let check = async move {
                        let began = Instant::now();
                        let owner = env.authn.owner(token).await;
                        env.metrics.login_took(began.elapsed());
                        traced::logged_in(&owner);
                        Outcome::Owner(owner)
                    };
                    self.under_way = Some(Box::pin(check.instrument(traced::login())));
                }
                Effect::Watch { channel } => {
                    let proof = proof(self.env.active.clone(), self.env.subscribe_deadline);
                    self.under_way = Some(Box::pin(async move {
                        if proof.await { Outcome::Subscribable(channel) } else { Outcome::Unproved }
                    }));
                }
                Effect::Unwatch { channel } => self.member.unwatch(&channel),
                Effect::Pause => self.paused = true,
                Effect::Resume => self.paused = false,
                Effect::Discard => self.env.metrics.lost(Loss::OtherUser, self.member.outbox().discard()),
                Effect::Close(code) => return Some(code),
            }
        }
        None
    }

    /// Says what is still to be said, leaves the hub, and ends the connection.
    async fn finish(mut self, end: End) {
        let code = match end {
            End::ByClient => None,
            End::With(code) => Some(code),
        };
        let outbox = self.member.outbox();
        // From here on every offer is refused. An order to close that came first stands.
        outbox.close(code.unwrap_or(CloseCode::Leaving));
        if code.is_some_and(CloseCode::lets_finish) && !self.paused {
            outbox.take(usize::MAX).into_iter().for_each(|frame| self.transport.push(frame));
        }
        let mut lost = outbox.discard();
        let mut patience = LAST_PATIENCE;
        if code == Some(CloseCode::TooSlow) {
            patience = if self.is_stalled() { Duration::ZERO } else { SLOW_PATIENCE };
            lost += self.transport.abandon();
        }
        self.env.metrics.lost(Loss::Closed, lost);
        self.env.metrics.closed(code);
        if let Some(code) = code {
            let words = outbox.words();
            let close = words.map_or_else(|| Frame::close(code), |words| Frame::close_saying(code, &words));
            self.transport.close(close, patience).await;
        }
        // Before the client can see the end.
        drop(self.member);
        if code.is_none() {
            self.transport.flush(patience).await;
        }
        self.transport.shut_down().await;
    }

    fn is_stalled(&self) -> bool {
        self.stalled_at().is_some_and(|at| at <= Instant::now())
    }

    fn stalled_at(&self) -> Option<Instant> {
        self.transport.stalled_since().map(|since| since + self.env.stalled_after)
    }

    fn deadline(&self) -> Instant {
        let next = self.state.next_deadline();
        self.stalled_at().map_or(next, |stalled| stalled.min(next))
    }
}

/// The time of day, for people: milliseconds since 1970.
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Waits for the op under way; for ever if there is none.
async fn outcome(under_way: &mut Option<UnderWay>) -> Outcome {
    match under_way {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

/// Whether messages surely arrive from the bus, now or within the deadline.
async fn proof(mut active: watch::Receiver<bool>, deadline: Duration) -> bool {
    timeout(deadline, active.wait_for(|active| *active)).await.is_ok_and(|proved| proved.is_ok())
}
