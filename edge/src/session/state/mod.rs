//! One client's conversation as a pure state machine: no socket, no clock, no lock.
//!
//! Events go in, with the time; effects come out, to be carried out in their order. Ops are handled strictly
//! one after the other: while a token is being checked or a channel subscribed, later frames wait in a queue
//! that is bounded in frames and in bytes. When that queue is full, [`State::wants_input`] says so and the
//! socket is not read. After [`Effect::Close`] nothing comes out any more.

mod effect;
mod login;
mod subscriptions;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use shared::ids::Channel;
use shared::rules::Rules;
use tokio::time::Instant;

pub(crate) use effect::{Effect, Granted, Rest, Unproved, Verified};
use login::Login;
use subscriptions::Subscription;

use super::throttle::{Admission, Throttle};
use crate::code::{CloseCode, ErrorCode};
use crate::protocol::{self, ClientOp, Echo, Fatal, Incoming, Request};

/// Pings a second that a client may always send, however few ops it may: applications, libraries and browsers
/// have a ping each.
const MIN_KEEP_ALIVES: u32 = 10;
/// Frames that may wait while an op is under way.
pub(crate) const MAX_WAITING: usize = 32;

/// Bytes that such frames may hold together. One frame may wait however large frames may be.
pub(crate) const MAX_WAITING_BYTES: usize = 32 << 10;

/// The bounds that every session has.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes in one frame.
    pub(crate) frame: usize,
    /// Names subscribed at a time.
    pub(crate) subscriptions: usize,
    /// Ops a second.
    pub(crate) ops_per_second: u32,
    /// The first ops of a connection, which may come at once.
    pub(crate) first_ops: u32,
    /// The time for a login or a first subscription.
    pub(crate) login_timeout: Duration,
    /// The time for a new login after the old login expired.
    pub(crate) reauth_timeout: Duration,
    /// How long a client may give no sign of life.
    pub(crate) silence: Duration,
    /// The time between two pings, give or take a tenth.
    pub(crate) ping_interval: Duration,
}

/// The state of one conversation.
#[derive(Debug)]
pub(crate) struct State {
    rules: Arc<Rules>,
    limits: Arc<Limits>,
    login: Login,
    /// The latest refresh that the login is newer than, or must be renewed for.
    newer_than: Option<u64>,
    subscriptions: Vec<Subscription>,
    under_way: Option<UnderWay>,
    waiting: VecDeque<Waiting>,
    throttle: Throttle,
    /// The rate of pings, as text and as control frames. It is apart from that of ops: keeping a connection
    /// alive must not cost ops.
    keep_alives: Throttle,
    /// When a client that has done nothing useful must go; none once the client has.
    useful_by: Option<Instant>,
    last_heard: Instant,
    /// Whether the socket has so much to write that nothing is read from it.
    write_blocked: bool,
    next_ping: Instant,
    random: fastrand::Rng,
    ended: bool,
}

/// The op that all later frames wait for.
#[derive(Debug)]
enum UnderWay {
    Auth { echo: Echo },
    Subscribe { name: Arc<str>, channel: Channel, echo: Echo },
}

/// A frame that waits, and whether the frame came within the rate.
#[derive(Debug)]
struct Waiting {
    frame: Incoming,
    admission: Admission,
}

/// A time by which the client must have done something, and the close code otherwise.
#[derive(Debug, Clone, Copy)]
struct LastChance {
    by: Instant,
    code: CloseCode,
}

/// Why an op is not carried out, and a detail to add to the error text.
type Refused = (ErrorCode, Option<&'static str>);

impl State {
    /// Begins the conversation of a new connection. `seed` spreads its pings among those of others.
    pub(crate) fn new(rules: Arc<Rules>, limits: Arc<Limits>, seed: u64, now: Instant) -> Self {
        let mut state = Self {
            login: Login::None,
            newer_than: None,
            subscriptions: Vec::new(),
            under_way: None,
            waiting: VecDeque::new(),
            throttle: Throttle::new(limits.ops_per_second, limits.first_ops, now),
            keep_alives: Throttle::new(limits.ops_per_second.max(MIN_KEEP_ALIVES), 0, now),
            useful_by: Some(now + limits.login_timeout),
            last_heard: now,
            write_blocked: false,
            next_ping: now,
            random: fastrand::Rng::with_seed(seed),
            ended: false,
            rules,
            limits,
        };
        state.plan_ping(now);
        state
    }

    /// Takes a frame of the client.
    pub(crate) fn on_frame(&mut self, frame: Incoming, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.ended {
            return effects;
        }
        self.last_heard = now;
        self.expire(now, &mut effects);
        let admission = match &frame {
            Incoming::Op(_) => self.throttle.admit(now),
            Incoming::Ping => self.keep_alives.admit(now),
            // The connection ends after this frame, so no rate applies.
            Incoming::Fatal(_) => Admission::Granted,
        };
        let next = Waiting { frame, admission };
        if self.under_way.is_some() {
            self.waiting.push_back(next);
        } else {
            self.handle(next, &mut effects);
        }
        effects
    }

    /// Notes a ping or pong, which was answered if it had to be.
    pub(crate) fn on_sign_of_life(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.last_heard = now;
        if !self.ended && self.keep_alives.admit(now) == Admission::Stubborn {
            self.close(CloseCode::TooManyOps, &mut effects);
        }
        effects
    }

    /// Notes that the socket is not read from now on, since it has enough to write, or that it is read again.
    /// The client does not count as silent meanwhile.
    pub(crate) fn on_write_blocked(&mut self, blocked: bool, now: Instant) {
        if std::mem::replace(&mut self.write_blocked, blocked) && !blocked {
            self.last_heard = now;
        }
    }

    /// Notes that the client took some of the waiting bytes at this moment. A ping that waits behind them has
    /// not reached the client, so its pong can't be there yet.
    pub(crate) fn on_taken(&mut self, at: Instant) {
        self.last_heard = self.last_heard.max(at);
    }

    /// Returns whether the client was silent for too long.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.silent_at().is_some_and(|at| at <= now)
    }

    /// Returns when the client was last heard.
    pub(crate) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Notes that the process did not run for this long. The client could do nothing about that, so every
    /// deadline of the client is that much later. The expiry of a login stays as it is.
    pub(crate) fn on_asleep(&mut self, time: Duration) {
        self.last_heard += time;
        self.useful_by = self.useful_by.map(|by| by + time);
        if let Login::Expired { renew_by, .. } = &mut self.login {
            *renew_by += time;
        }
    }

    /// Takes the outcome of [`Effect::Verify`].
    pub(crate) fn on_verified(&mut self, verified: Verified, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(UnderWay::Auth { echo }) = self.finish_op(now) {
            match verified {
                Verified::Known { uid, groups, expires_in, newer_than } => {
                    let expires = expires_in.and_then(|time| now.checked_add(time));
                    self.newer_than = newer_than;
                    self.log_in(uid, groups, expires, &echo, &mut effects);
                }
                Verified::Unknown => {
                    self.refuse((ErrorCode::AuthFailed, None), &echo, &mut effects);
                    self.close(CloseCode::AuthFailed, &mut effects);
                }
                Verified::Unavailable => {
                    self.refuse((ErrorCode::AuthUnavailable, None), &echo, &mut effects);
                    self.close(CloseCode::AuthUnavailable, &mut effects);
                }
                Verified::TooManySessions => self.close(CloseCode::TooManySessions, &mut effects),
                Verified::Banned => self.close(CloseCode::Disconnected, &mut effects),
            }
        }
        self.go_on(now, &mut effects);
        effects
    }

    /// Takes the outcome of [`Effect::Watch`] or [`Effect::Follow`].
    pub(crate) fn on_subscribed(&mut self, outcome: Result<Granted, Unproved>, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(UnderWay::Subscribe { name, channel, echo }) = self.finish_op(now) {
            match outcome {
                Ok(granted) => {
                    let (follows, reply) = match granted {
                        Granted::Plain => (false, protocol::result(&echo)),
                        Granted::Following { position, recovered } => {
                            (true, protocol::following(position, recovered, &echo))
                        }
                    };
                    // The new subscription replaces the old one: the session ended the old one in the same
                    // step.
                    self.subscriptions.retain(|subscription| subscription.name != name);
                    self.subscriptions.push(Subscription { name, channel, follows });
                    self.useful_by = None;
                    effects.push(Effect::Reply(reply));
                }
                Err(Unproved) => {
                    if let Some(index) = self.index_of(&name) {
                        self.end_subscription(index, Rest::Give, &mut effects);
                    }
                    self.refuse((ErrorCode::Unavailable, None), &echo, &mut effects);
                }
            }
        }
        self.go_on(now, &mut effects);
        effects
    }

    /// Does what is due; called at [`State::next_deadline`], or at any other time.
    pub(crate) fn on_timer(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.ended {
            return effects;
        }
        self.expire(now, &mut effects);
        if let Some(LastChance { code, .. }) = self.last_chance().filter(|chance| chance.by <= now) {
            self.close(code, &mut effects);
        } else if self.silent_at().is_some_and(|at| at <= now) {
            self.close(CloseCode::Silent, &mut effects);
        } else if self.next_ping <= now {
            self.plan_ping(now);
            effects.push(Effect::Ping);
        }
        effects
    }

    /// Returns when [`State::on_timer`] has something to do, if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Instant {
        let expires = match &self.login {
            Login::Active { expires, .. } => *expires,
            Login::None | Login::Expired { .. } => None,
        };
        let last_chance = self.last_chance().map(|chance| chance.by);
        let deadlines = [expires, last_chance, self.silent_at()];
        deadlines.into_iter().flatten().fold(self.next_ping, Instant::min)
    }

    /// Returns whether the socket is not read because of what it has to write.
    pub(crate) fn is_write_blocked(&self) -> bool {
        self.write_blocked
    }

    /// Returns whether another frame can be taken now.
    pub(crate) fn wants_input(&self) -> bool {
        let nothing_can_follow =
            self.waiting.back().is_some_and(|last| matches!(last.frame, Incoming::Fatal(_)));
        let held = self.held_bytes();
        let fits = held == 0 || held + self.limits.frame <= MAX_WAITING_BYTES;
        !self.ended && !nothing_can_follow && self.waiting.len() < MAX_WAITING && fits
    }

    /// Returns the memory of the frames that wait for the op under way.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.waiting.capacity() * size_of::<Waiting>() + self.held_bytes()
    }

    /// Returns the memory of the texts in the frames that wait.
    fn held_bytes(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.frame.heap_bytes()).sum()
    }

    /// Ends the op under way, whose outcome has come.
    fn finish_op(&mut self, now: Instant) -> Option<UnderWay> {
        if !self.wants_input() {
            // The client was not read meanwhile, so it was not silent.
            self.last_heard = now;
        }
        self.under_way.take().filter(|_| !self.ended)
    }

    /// Handles the frames that waited, up to the next op that takes time.
    fn go_on(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while self.under_way.is_none() && !self.ended {
            // Sending ops that take time earns a client no more time.
            if let Some(LastChance { code, .. }) = self.last_chance().filter(|chance| chance.by <= now) {
                return self.close(code, effects);
            }
            match self.waiting.pop_front() {
                Some(next) => self.handle(next, effects),
                None => {
                    self.waiting = VecDeque::new();
                    return;
                }
            }
        }
    }

    fn handle(&mut self, next: Waiting, effects: &mut Vec<Effect>) {
        match next.frame {
            Incoming::Ping => match next.admission {
                Admission::Granted => effects.push(Effect::Reply(protocol::PONG.into())),
                refused @ (Admission::Refused | Admission::Stubborn) => {
                    self.too_many(refused, &Echo::default(), effects);
                }
            },
            Incoming::Fatal(Fatal { error_text, close }) => {
                if error_text.is_some() {
                    self.refuse((ErrorCode::BadRequest, error_text), &Echo::default(), effects);
                }
                self.close(close, effects);
            }
            Incoming::Op(Request { op, echo }) => match next.admission {
                Admission::Granted => self.on_op(op, echo, effects),
                refused @ (Admission::Refused | Admission::Stubborn) => {
                    self.too_many(refused, &echo, effects);
                }
            },
        }
    }

    /// Answers that a frame was one too many, and closes after far too many.
    fn too_many(&mut self, refused: Admission, echo: &Echo, effects: &mut Vec<Effect>) {
        self.refuse((ErrorCode::TooManyRequests, None), echo, effects);
        if refused == Admission::Stubborn {
            self.close(CloseCode::TooManyOps, effects);
        }
    }

    fn on_op(&mut self, op: ClientOp, echo: Echo, effects: &mut Vec<Effect>) {
        let outcome = match op {
            ClientOp::Auth { token } => {
                self.under_way = Some(UnderWay::Auth { echo });
                return effects.push(Effect::Verify { token, newer_than: self.newer_than });
            }
            ClientOp::Subscribe { name, after } => match self.subscribe(&name.into(), after, effects) {
                Ok(Some((name, channel, effect))) => {
                    self.under_way = Some(UnderWay::Subscribe { name, channel, echo });
                    return effects.push(effect);
                }
                Ok(None) => Ok(()),
                Err(refused) => Err(refused),
            },
            ClientOp::Unsubscribe { name } => self.unsubscribe(&name, effects),
            ClientOp::Unknown => Err((ErrorCode::UnknownOp, None)),
            ClientOp::Malformed(detail) => Err((ErrorCode::BadRequest, Some(detail))),
        };
        match outcome {
            Ok(()) => effects.push(Effect::Reply(protocol::result(&echo))),
            Err(refused) => self.refuse(refused, &echo, effects),
        }
    }

    /// Returns by when the client must log in, subscribe or renew its login, and the close code if it does
    /// not. None while an op is under way, which may still be just that.
    fn last_chance(&self) -> Option<LastChance> {
        if self.under_way.is_some() {
            return None;
        }
        match &self.login {
            Login::Expired { renew_by, .. } => {
                Some(LastChance { by: *renew_by, code: CloseCode::AuthExpired })
            }
            Login::None | Login::Active { .. } => {
                self.useful_by.map(|by| LastChance { by, code: CloseCode::NoLogin })
            }
        }
    }

    /// Returns when the client counts as gone. None while the client is not read, and so can't be heard.
    fn silent_at(&self) -> Option<Instant> {
        (self.wants_input() && !self.write_blocked).then(|| self.last_heard + self.limits.silence)
    }

    fn plan_ping(&mut self, now: Instant) {
        let jitter = 0.9 + 0.2 * self.random.f64();
        self.next_ping = now + self.limits.ping_interval.mul_f64(jitter);
    }

    fn refuse(&self, (code, detail): Refused, echo: &Echo, effects: &mut Vec<Effect>) {
        effects.push(Effect::Error(code, protocol::error(code, detail, echo)));
    }

    fn close(&mut self, code: CloseCode, effects: &mut Vec<Effect>) {
        self.ended = true;
        self.waiting = VecDeque::new();
        effects.push(Effect::Close(code));
    }
}
