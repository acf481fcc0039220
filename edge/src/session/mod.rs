//! One session: a task that carries events of the socket to the conversation, and the effects back.
//!
//! The task decides nothing: [`state`] does. The task holds its [`Member`] for as long as messages may go to
//! the client, and gives it back before the socket is shut down, so that no message is counted for a client
//! that sees its connection ended. Its slot among the sessions is free only once the connection is over,
//! which has a deadline whatever the client does.

mod follow;
mod ops;
pub(crate) mod state;
mod throttle;

#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use shared::awake::Awake;
use shared::clock::unix_ms;
use shared::config::Secret;
use shared::gauge::GaugeGuard;
use shared::history::Position;
use shared::ids::Uid;
use shared::rules::Rules;
use sockets::{Acknowledged, Source};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::authn::{Authn, Owner};
use crate::code::CloseCode;
use crate::frame::Frame;
use crate::hub::member::{LoginResult, Member};
use crate::metrics::{LoginOutcome, Loss, Metrics};
use crate::outbox::{Call, Outbox};
use crate::recovery::Recovery;
use crate::recovery::replay::{Read, Replay};
use crate::transport::{Event, Transport};
use ops::{Checked, Outcome, UnderWay, Wanted};
use state::{Effect, Granted, Limits, State, Unproved, Verified};

/// Bytes of messages that are taken from the outbox at a time; a larger message is taken alone.
const BATCH_BYTES: usize = 64 << 10;
/// While the system holds something for a silent client, the session looks for acknowledgements each such
/// part of the time for which the client may be silent.
const SILENCE_LOOKS: f64 = 0.25;
/// How long a client may take to read its last frames.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How long a client that was too slow may take for that. Such a client costs next to nothing by then, and
/// should learn why its session ends. An edge that leaves does not wait as long.
const SLOW_PATIENCE: Duration = Duration::from_secs(10);

/// The deps that all sessions of an edge share.
#[derive(Debug)]
pub(crate) struct Deps {
    pub(crate) rules: Arc<Rules>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) authn: Authn,
    /// Whether messages surely arrive from the bus.
    pub(crate) active: watch::Receiver<bool>,
    /// How long a subscription waits until messages surely arrive.
    pub(crate) subscribe_deadline: Duration,
    /// How long a client may take no byte although something waits for it.
    pub(crate) stalled_after: Duration,
    /// Whether this edge leaves.
    pub(crate) leaving: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
    /// Recovery of stored messages.
    pub(crate) recovery: Arc<Recovery>,
    /// The clock by which clients are judged.
    pub(crate) awake: Awake,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client closed the session, or the connection broke.
    ByClient,
    /// The conversation, or a command from outside, ends the session.
    With(CloseCode),
}

/// Everything that one session owns.
struct Session<S> {
    transport: Transport<S>,
    member: Member,
    /// Where the client connects from.
    source: Source,
    state: State,
    deps: Arc<Deps>,
    under_way: Option<UnderWay>,
    /// Whether messages stay in the outbox.
    paused: bool,
    /// When the session will be closed, if that was announced while messages were held back.
    farewell: Option<Instant>,
    /// Subscriptions that get a reload before their messages, once messages go again.
    pending_reloads: Vec<PendingReload>,
    /// Replays in progress; the first is read next.
    replays: Vec<Replay>,
    /// Whether stored messages go before those in the outbox, so that neither waits for ever.
    stored_first: bool,
    /// How long the process had not run in all, when this was last taken into account.
    asleep: Duration,
}

/// A subscription whose client gets a reload: it replaced one for which messages were held back.
#[derive(Debug)]
struct PendingReload {
    name: Arc<str>,
    /// The position at which the subscription began.
    position: Position,
}

/// Decides what may go to the client now.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// Whether messages may go at all.
    delivers: bool,
    /// Whether stored messages go before those in the outbox.
    stored_first: bool,
}

/// The next thing to go to the client.
enum Next {
    Call(Call),
    Read(Read),
}

/// Serves one client until its session ends.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Acknowledged + Unpin>(
    transport: Transport<S>,
    member: Member,
    source: Source,
    deps: Arc<Deps>,
) {
    deps.metrics.opened.inc();
    let _held = GaugeGuard::new(&deps.metrics.sessions);
    let id = member.id();
    tracing::debug!(session = id, "a session begins");
    let (rules, limits) = (Arc::clone(&deps.rules), Arc::clone(&deps.limits));
    let asleep = deps.awake.asleep();
    let state = State::new(rules, limits, fastrand::u64(..), Instant::now());
    let mut session = Session {
        transport,
        member,
        source,
        state,
        deps,
        under_way: None,
        paused: false,
        farewell: None,
        pending_reloads: Vec::new(),
        replays: Vec::new(),
        stored_first: false,
        asleep,
    };
    let end = session.converse().await;
    tracing::debug!(session = id, ?end, "a session ends");
    // Boxed apart, so that the long conversation before does not hold the memory that only the short end
    // needs.
    Box::pin(session.finish(end)).await;
}

impl<S: AsyncRead + AsyncWrite + Acknowledged + Unpin> Session<S> {
    /// Runs the loop: a call from others, a finished op, the socket, the time.
    async fn converse(&mut self) -> End {
        let mut timer = pin!(sleep_until(self.deadline()));
        loop {
            if self.state.is_write_blocked() == self.transport.has_space() {
                self.state.on_write_blocked(!self.transport.has_space(), Instant::now());
            }
            let listens = self.state.wants_input() && !self.state.is_write_blocked();
            self.note_heap_bytes();
            let turn = Turn { delivers: self.delivers(), stored_first: self.stored_first };
            let outbox = self.member.outbox();
            let effects = tokio::select! {
                biased;
                next = next(outbox, &mut self.replays, &self.deps.recovery, turn) => match next {
                    Next::Call(Call::Close(code)) => return End::With(code),
                    Next::Call(Call::Farewell(at)) => {
                        self.say_farewell(at);
                        Vec::new()
                    }
                    Next::Call(Call::Refresh(newer_than)) => self.state.on_refresh(newer_than, Instant::now()),
                    Next::Call(Call::Deliver) => {
                        self.deliver(BATCH_BYTES);
                        self.stored_first = true;
                        Vec::new()
                    }
                    Next::Read(read) => {
                        self.stored_first = false;
                        if let Some(code) = self.on_read(read) {
                            return End::With(code);
                        }
                        Vec::new()
                    }
                },
                outcome = ops::outcome(&mut self.under_way) => self.on_outcome(outcome),
                event = self.transport.next(listens) => match event {
                    Event::Frame(frame) => self.state.on_frame(frame, Instant::now()),
                    Event::SignOfLife => self.state.on_sign_of_life(Instant::now()),
                    Event::Written => Vec::new(),
                    Event::Gone => return End::ByClient,
                },
                () = timer.as_mut() => Vec::new(),
            };
            if let Some(code) = self.carry_out(effects) {
                return End::With(code);
            }
            // A client that talks or is delivered to without a pause keeps the timer from its turn; deadlines
            // hold all the same.
            if self.deadline() <= Instant::now()
                && let Some(code) = self.on_deadline()
            {
                return End::With(code);
            }
            // A deadline that has moved later is noticed only when the timer rings; most timers never do.
            let deadline = self.deadline();
            if timer.is_elapsed() || deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
        }
    }

    /// Returns whether messages may go to the client now.
    fn delivers(&self) -> bool {
        !self.paused && self.transport.is_idle()
    }

    /// Sends a frame behind everything that was sent before.
    fn send(&mut self, frame: Frame) {
        self.transport.push(frame.counted(self.member.memory()));
    }

    /// Reports the memory of what waits for this session outside its outbox.
    fn note_heap_bytes(&self) {
        let outbox = self.member.outbox();
        if self.transport.is_idle() {
            outbox.all_written();
        }
        let pages: usize = self.replays.iter().map(Replay::heap_bytes).sum();
        outbox.note_beside(self.transport.heap_bytes() + self.state.heap_bytes() + pages);
    }

    /// Moves so many bytes of waiting frames to the socket.
    fn deliver(&mut self, bytes: usize) {
        self.member.outbox().take(bytes).into_iter().for_each(|frame| self.transport.push(frame));
    }

    /// Does what is due. Some: the session ends with this code.
    fn on_deadline(&mut self) -> Option<CloseCode> {
        self.take_sleep_into_account();
        if self.is_stalled() {
            return Some(CloseCode::TooSlow);
        }
        if let Some(at) = self.transport.last_taken() {
            self.state.on_taken(at);
        }
        let now = Instant::now();
        if self.state.is_silent(now) && self.transport.may_hold_a_ping(self.state.last_heard(), now) {
            self.state.on_taken(now - self.deps.limits.silence.mul_f64(1.0 - SILENCE_LOOKS));
        }
        let effects = self.state.on_timer(now);
        self.carry_out(effects)
    }

    fn on_outcome(&mut self, outcome: Outcome) -> Vec<Effect> {
        self.under_way = None;
        self.take_sleep_into_account();
        let now = Instant::now();
        match outcome {
            Outcome::Checked(checked) => match self.let_in(checked) {
                Some(verified) => self.state.on_verified(verified, now),
                None => Vec::new(),
            },
            Outcome::Watchable(channel, guard) => {
                self.member.watch(&channel);
                drop(guard);
                self.state.on_subscribed(Ok(Granted::Plain), now)
            }
            Outcome::Followable(followable) => {
                let granted = self.follow(*followable, now);
                self.state.on_subscribed(granted, now)
            }
            Outcome::Unproved => self.state.on_subscribed(Err(Unproved), now),
        }
    }

    /// Makes the owner of a token the user of this session, if there is a free slot. None: the answer is
    /// older than a refresh of the user, and the token is checked once more.
    fn let_in(&mut self, checked: Checked) -> Option<Verified> {
        let Checked { token, newer_than, owner } = checked;
        let (verified, outcome) = match owner {
            Owner::Known { uid, groups, expires_in } => {
                // Before the hub, where an answer that does not count would move or evict a session.
                if self.member.refreshed(&uid) > newer_than {
                    return self.check_again(token, &uid);
                }
                match self.member.log_in(&uid, unix_ms()) {
                    LoginResult::Admitted if self.member.refreshed(&uid) > newer_than => {
                        return self.check_again(token, &uid);
                    }
                    LoginResult::Admitted => {
                        (Verified::Known { uid, groups, expires_in, newer_than }, LoginOutcome::Known)
                    }
                    LoginResult::TooMany => (Verified::TooManySessions, LoginOutcome::TooManySessions),
                    LoginResult::Banned => (Verified::Banned, LoginOutcome::Banned),
                }
            }
            Owner::Unknown => (Verified::Unknown, LoginOutcome::Unknown),
            Owner::Unavailable => (Verified::Unavailable, LoginOutcome::Unavailable),
        };
        self.deps.metrics.login(outcome);
        Some(verified)
    }

    /// Checks a token once more, for an answer that is newer than the latest refresh of the user.
    fn check_again(&mut self, token: Secret, uid: &Uid) -> Option<Verified> {
        let refreshed = self.member.refreshed(uid);
        self.under_way = Some(ops::check_token(&self.deps, token, self.source, refreshed));
        None
    }

    /// Carries out the effects of the conversation, in order. Some: the session ends with this code.
    fn carry_out(&mut self, effects: Vec<Effect>) -> Option<CloseCode> {
        for effect in effects {
            match effect {
                Effect::Reply(text) => self.send(Frame::text(&text)),
                Effect::Error(code, text) => {
                    self.deps.metrics.error(code);
                    self.send(Frame::text(&text));
                }
                Effect::Ping => self.send(Frame::ping()),
                Effect::Closed(text) => {
                    self.deps.metrics.ended_memberships.inc();
                    self.send(Frame::text(&text));
                }
                Effect::Verify { token, newer_than } => {
                    self.under_way = Some(ops::check_token(&self.deps, token, self.source, newer_than));
                }
                Effect::Watch { channel, has_history } => {
                    self.under_way = Some(ops::watch_channel(&self.deps, channel, has_history))
                }
                Effect::Follow { channel, name, after, instead_of_plain } => {
                    let wanted = Wanted { name, after, instead_of_plain };
                    self.under_way = Some(ops::follow_channel(&self.deps, channel, wanted));
                }
                Effect::Unfollow { name, rest } => self.unfollow(&name, rest),
                Effect::Unwatch { channel, rest } => self.unwatch(&channel, rest),
                Effect::Pause => self.paused = true,
                Effect::Resume => self.resume(),
                Effect::Forget => self.forget(),
                Effect::Close(code) => return Some(code),
            }
        }
        None
    }

    /// Sends what is still to be sent, leaves the hub, and ends the connection.
    async fn finish(mut self, end: End) {
        let code = match end {
            End::ByClient => None,
            End::With(code) => Some(code),
        };
        let stalled = self.is_stalled();
        let outbox = self.member.outbox();
        // From here on every offer is refused. A command to close that came first stands.
        outbox.close(code.unwrap_or(CloseCode::Leaving));
        if code.is_some_and(CloseCode::lets_finish) && !self.paused {
            outbox.take(usize::MAX).into_iter().for_each(|frame| self.transport.push(frame));
        }
        let mut lost = outbox.discard();
        let mut patience = LAST_PATIENCE;
        if code == Some(CloseCode::TooSlow) {
            patience = if stalled { Duration::ZERO } else { SLOW_PATIENCE };
            lost += self.transport.abandon();
        }
        self.deps.metrics.lost(Loss::Closed, lost);
        self.deps.metrics.closed(code);
        if let Some(code) = code {
            let reason = outbox.close_reason();
            let close =
                reason.map_or_else(|| Frame::close(code), |reason| Frame::close_saying(code, &reason));
            let leaving = self.deps.leaving.cancelled();
            tokio::select! {
                () = self.transport.close(close, patience) => {}
                () = async { leaving.await; sleep(LAST_PATIENCE).await } => {}
            }
        }
        // Leaves the hub before the client can see the end; the slot is held until the connection is over.
        let slot = self.member.leave_hub();
        if code.is_none() {
            self.transport.flush(patience).await;
        }
        self.transport.shut_down().await;
        drop(slot);
    }

    /// Extends every deadline of the client by the time for which the process did not run: the client had no
    /// chance in that time.
    fn take_sleep_into_account(&mut self) {
        let asleep = self.deps.awake.asleep();
        let longer = asleep.saturating_sub(std::mem::replace(&mut self.asleep, asleep));
        if !longer.is_zero() {
            self.state.on_asleep(longer);
            self.transport.on_asleep(longer);
        }
    }

    fn is_stalled(&mut self) -> bool {
        self.transport.is_stalled(self.deps.stalled_after, Instant::now())
    }

    fn deadline(&self) -> Instant {
        let next = self.state.next_deadline();
        self.transport.next_look(self.deps.stalled_after).map_or(next, |look| look.min(next))
    }
}

/// Waits for the next thing to go to the client: a call or messages from the outbox, or stored messages.
async fn next(outbox: &Outbox, replays: &mut [Replay], recovery: &Arc<Recovery>, turn: Turn) -> Next {
    let Turn { delivers, stored_first } = turn;
    let reads = delivers && !replays.is_empty();
    let mut read = pin!(async {
        match replays.first_mut() {
            Some(replay) => replay.next(recovery).await,
            None => std::future::pending().await,
        }
    });
    std::future::poll_fn(|context| {
        let takes = delivers && !(reads && stored_first);
        if !takes && reads {
            // Before stored messages, too: after a refresh none of them may go out.
            if let Poll::Ready(call) = outbox.poll_call(false, context) {
                return Poll::Ready(Next::Call(call));
            }
            if let Poll::Ready(read) = read.as_mut().poll(context) {
                return Poll::Ready(Next::Read(read));
            }
        }
        // Stored messages had their chance; while they are being read, the others need not wait.
        if let Poll::Ready(call) = outbox.poll_call(delivers, context) {
            return Poll::Ready(Next::Call(call));
        }
        if takes
            && reads
            && let Poll::Ready(read) = read.as_mut().poll(context)
        {
            return Poll::Ready(Next::Read(read));
        }
        Poll::Pending
    })
    .await
}
