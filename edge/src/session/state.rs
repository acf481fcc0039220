//! One client's conversation as a pure state machine: no socket, no clock, no lock.
//!
//! What happened goes in, with the time; what is to be done comes out as effects, to be carried out in their
//! order. Ops are handled strictly one after the other: while a token is being checked or a channel
//! subscribed, later frames wait in a bounded queue, and when that is full [`State::wants_input`] says so and
//! the socket is not read. After [`Effect::Close`] nothing comes out any more.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use shared::config::Secret;
use shared::history::Position;
use shared::ids::{Channel, Uid};
use shared::rules::{Refusal, Resolved, Rules};
use tokio::time::Instant;

use super::throttle::{Admission, Throttle};
use crate::code::{CloseCode, ErrorCode};
use crate::protocol::{self, After, ClientOp, Echo, Fatal, Incoming, Request};

/// Pings a second that a client may send however few ops it may: applications, libraries and browsers have
/// one each.
const MIN_KEEP_ALIVES: u32 = 10;
/// Frames that may wait while an op is under way.
pub(crate) const MAX_WAITING: usize = 32;

/// The bounds that every session has.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Names subscribed at a time.
    pub(crate) subscriptions: usize,
    /// Ops a second.
    pub(crate) ops_per_second: u32,
    /// For a login or a first subscription.
    pub(crate) login_timeout: Duration,
    /// For a new login after the old one expired.
    pub(crate) reauth_timeout: Duration,
    /// Without any sign of life.
    pub(crate) silence: Duration,
    /// Between two pings, give or take a tenth.
    pub(crate) ping_interval: Duration,
}

/// What the session's task must do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Send this text, behind all that was said before.
    Reply(Cow<'static, str>),
    /// The same with a text that says what was refused, and why.
    Error(ErrorCode, Cow<'static, str>),
    /// Check the token and take the session in under its user; then [`State::on_verified`].
    Verify { token: Secret },
    /// Deliver this channel from now on; then [`State::on_subscribed`]. `has_history`: stored messages
    /// count too.
    Watch { channel: Channel, has_history: bool },
    /// Deliver this channel no longer.
    Unwatch { channel: Channel, rest: Rest },
    /// Deliver this channel under this name with ids, after this position or from now on; then
    /// [`State::on_subscribed`]. What the name, or with `instead_of_plain` the channel, was delivered before
    /// ends in the step in which this begins.
    Follow { channel: Channel, name: Arc<str>, after: Option<Position>, instead_of_plain: bool },
    /// Deliver nothing more under this name.
    Unfollow { name: Arc<str>, rest: Rest },
    /// Recovery messages back.
    Pause,
    /// Let them go.
    Resume,
    /// Deliver nothing of what was subscribed, neither now nor from what waits: another user is here.
    Forget,
    /// Ask for a sign of life.
    Ping,
    /// End the session with this code.
    Close(CloseCode),
}

/// What becomes of the messages that still wait for a subscription when it ends. None comes after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// They go out before anything else is said, unless messages are kept back.
    Give,
    /// They are thrown away: a replay brings them again, or the client named a later position.
    Drop,
}

/// What became of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verified {
    /// It belongs to this user, who was let in.
    Known { uid: Uid, expires_in: Option<Duration> },
    /// It belongs to nobody.
    Unknown,
    /// Nobody could tell.
    Unavailable,
    /// It belongs to a user who has as many sessions as allowed.
    TooManySessions,
    /// It belongs to a user whom the back end keeps out for a while.
    Banned,
}

/// How a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Granted {
    /// With the next message.
    Plain,
    /// Behind this position. `recovered`: everything after the one that the client named follows.
    Following { position: Position, recovered: bool },
}

/// The bus or the store could not prove in time that messages would arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unproved;

/// Where one conversation stands.
#[derive(Debug)]
pub(crate) struct State {
    rules: Arc<Rules>,
    limits: Arc<Limits>,
    login: Login,
    subscriptions: Vec<Subscription>,
    under_way: Option<UnderWay>,
    waiting: VecDeque<Waiting>,
    throttle: Throttle,
    /// Pings, as text and as control frames, have a rate of their own: keeping a connection alive must not
    /// cost ops.
    keep_alives: Throttle,
    /// When a client that has done nothing useful must go; none once it has.
    useful_by: Option<Instant>,
    heard: Instant,
    /// The socket has so much to write that nothing is read from it.
    deaf: bool,
    next_ping: Instant,
    random: fastrand::Rng,
    ended: bool,
}

#[derive(Debug)]
enum Login {
    None,
    Active { uid: Uid, expires: Option<Instant> },
    Expired { uid: Uid, renew_by: Instant },
}

#[derive(Debug)]
struct Subscription {
    /// As the client calls it.
    name: Arc<str>,
    /// Several names may stand for one channel.
    channel: Channel,
    /// Whether its messages come with ids.
    follows: bool,
}

/// The op that all later frames wait for.
#[derive(Debug)]
enum UnderWay {
    Auth { echo: Echo },
    Subscribe { name: Arc<str>, channel: Channel, echo: Echo },
}

/// A frame, and whether it came within the rate.
#[derive(Debug)]
struct Waiting {
    frame: Incoming,
    admission: Admission,
}

/// An op that is not carried out: why, and what to add to the text.
type Refused = (ErrorCode, Option<&'static str>);

impl State {
    /// A connection that has just been made. `seed` makes its pings fall in between those of others.
    pub(crate) fn new(rules: Arc<Rules>, limits: Arc<Limits>, seed: u64, now: Instant) -> Self {
        let mut state = Self {
            login: Login::None,
            subscriptions: Vec::new(),
            under_way: None,
            waiting: VecDeque::new(),
            throttle: Throttle::new(limits.ops_per_second, now),
            keep_alives: Throttle::new(limits.ops_per_second.max(MIN_KEEP_ALIVES), now),
            useful_by: Some(now + limits.login_timeout),
            heard: now,
            deaf: false,
            next_ping: now,
            random: fastrand::Rng::with_seed(seed),
            ended: false,
            rules,
            limits,
        };
        state.plan_ping(now);
        state
    }

    /// A frame came.
    pub(crate) fn on_frame(&mut self, frame: Incoming, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.ended {
            return effects;
        }
        self.heard = now;
        self.expire(now, &mut effects);
        let admission = match &frame {
            Incoming::Op(_) => self.throttle.admit(now),
            Incoming::Ping => self.keep_alives.admit(now),
            // Nothing follows.
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

    /// A ping or pong came, and was answered if it had to be.
    pub(crate) fn on_sign_of_life(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.heard = now;
        if !self.ended && self.keep_alives.admit(now) == Admission::Stubborn {
            self.close(CloseCode::TooManyOps, &mut effects);
        }
        effects
    }

    /// The socket is not read from now on, for it has enough to write, or is again. Nobody is silent
    /// meanwhile.
    pub(crate) fn on_deaf(&mut self, deaf: bool, now: Instant) {
        if std::mem::replace(&mut self.deaf, deaf) && !deaf {
            self.heard = now;
        }
    }

    /// The client took something at this moment of what still waits for it. A ping that waits behind that has
    /// not come to the client, so its pong can't be there yet.
    pub(crate) fn on_taken(&mut self, at: Instant) {
        self.heard = self.heard.max(at);
    }

    /// Whether nothing was heard for too long.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.silent_at().is_some_and(|at| at <= now)
    }

    /// Since when nothing was heard.
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// The process did not run for this long. The client could do nothing about it, so it has as much longer
    /// for all that is asked of it. A login ends when it ends.
    pub(crate) fn on_asleep(&mut self, time: Duration) {
        self.heard += time;
        self.useful_by = self.useful_by.map(|by| by + time);
        if let Login::Expired { renew_by, .. } = &mut self.login {
            *renew_by += time;
        }
    }

    /// The answer to [`Effect::Verify`].
    pub(crate) fn on_verified(&mut self, verified: Verified, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(UnderWay::Auth { echo }) = self.finish_op(now) {
            match verified {
                Verified::Known { uid, expires_in } => {
                    let expires = expires_in.and_then(|time| now.checked_add(time));
                    self.log_in(uid, expires, &echo, &mut effects);
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

    /// The answer to [`Effect::Watch`] and [`Effect::Follow`].
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
                    // In its place: the session ended what it replaces in the same step.
                    self.subscriptions.retain(|subscription| subscription.name != name);
                    self.subscriptions.push(Subscription { name, channel, follows });
                    self.useful_by = None;
                    effects.push(Effect::Reply(reply));
                }
                Err(Unproved) => {
                    if let Some(place) = self.place_of(&name) {
                        self.end_subscription(place, Rest::Give, &mut effects);
                    }
                    self.refuse((ErrorCode::Unavailable, None), &echo, &mut effects);
                }
            }
        }
        self.go_on(now, &mut effects);
        effects
    }

    /// Time has passed; called at [`State::next_deadline`], or at any other time.
    pub(crate) fn on_timer(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.ended {
            return effects;
        }
        self.expire(now, &mut effects);
        if let Some((_, code)) = self.last_chance().filter(|(by, _)| *by <= now) {
            self.close(code, &mut effects);
        } else if self.silent_at().is_some_and(|at| at <= now) {
            self.close(CloseCode::Silent, &mut effects);
        } else if self.next_ping <= now {
            self.plan_ping(now);
            effects.push(Effect::Ping);
        }
        effects
    }

    /// When [`State::on_timer`] has something to do, if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Instant {
        let expires = match &self.login {
            Login::Active { expires, .. } => *expires,
            Login::None | Login::Expired { .. } => None,
        };
        let last_chance = self.last_chance().map(|(by, _)| by);
        let deadlines = [expires, last_chance, self.silent_at()];
        deadlines.into_iter().flatten().fold(self.next_ping, Instant::min)
    }

    /// Whether the socket is not read because of what it has to write.
    pub(crate) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Whether another frame can be taken now.
    pub(crate) fn wants_input(&self) -> bool {
        let nothing_can_follow =
            self.waiting.back().is_some_and(|last| matches!(last.frame, Incoming::Fatal(_)));
        !self.ended && !nothing_can_follow && self.waiting.len() < MAX_WAITING
    }

    /// What the frames take that wait for the op under way.
    pub(crate) fn held(&self) -> usize {
        let parts: usize = self.waiting.iter().map(|waiting| waiting.frame.held()).sum();
        self.waiting.capacity() * size_of::<Waiting>() + parts
    }

    /// The op that was under way has its outcome.
    fn finish_op(&mut self, now: Instant) -> Option<UnderWay> {
        if !self.wants_input() {
            // The client was not listened to meanwhile, so it was not silent.
            self.heard = now;
        }
        self.under_way.take().filter(|_| !self.ended)
    }

    /// Handles the frames that waited, up to the next one that takes time.
    fn go_on(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while self.under_way.is_none() && !self.ended {
            // Nobody gets more time by sending ops that take some.
            if let Some((_, code)) = self.last_chance().filter(|(by, _)| *by <= now) {
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
            Incoming::Fatal(Fatal { fault, close }) => {
                if fault.is_some() {
                    self.refuse((ErrorCode::BadRequest, fault), &Echo::default(), effects);
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

    /// Says that a frame was one too many, and closes if there were far too many.
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
                return effects.push(Effect::Verify { token });
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
            ClientOp::Malformed(fault) => Err((ErrorCode::BadRequest, Some(fault))),
        };
        match outcome {
            Ok(()) => effects.push(Effect::Reply(protocol::result(&echo))),
            Err(refused) => self.refuse(refused, &echo, effects),
        }
    }

    /// What must be done first; none if nothing has to be.
    fn subscribe(
        &mut self,
        name: &Arc<str>,
        after: After,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<(Arc<str>, Channel, Effect)>, Refused> {
        let Resolved { channel, history: has_history, .. } = self.resolve(name)?;
        let after = match after {
            After::Plain => None,
            After::Now | After::Position(_) if !has_history => {
                let fault = "this channel keeps no history: subscribe without \"after\"";
                return Err((ErrorCode::BadRequest, Some(fault)));
            }
            After::Now => Some(None),
            After::Position(position) => Some(Some(position)),
        };
        let known = self.place_of(name);
        let mut instead_of_plain = false;
        match (known, &after) {
            (Some(_), None) => return Ok(None),
            // It goes on until the new one begins, so that nothing is missing between them.
            (Some(place), Some(None)) => instead_of_plain = self.is_last_plain(place),
            // It ends now: what comes of the channel from here on is given behind that position.
            (Some(place), Some(Some(_))) => self.end_subscription(place, Rest::Drop, effects),
            (None, _) if self.subscriptions.len() >= self.limits.subscriptions => {
                return Err((ErrorCode::TooManySubscriptions, None));
            }
            (None, _) => {}
        }
        let effect = match after {
            None if self.watches(&channel) => {
                self.subscriptions.push(Subscription { name: Arc::clone(name), channel, follows: false });
                return Ok(None);
            }
            None => Effect::Watch { channel: channel.clone(), has_history },
            Some(after) => {
                let (channel, name) = (channel.clone(), Arc::clone(name));
                Effect::Follow { channel, name, after, instead_of_plain }
            }
        };
        Ok(Some((Arc::clone(name), channel, effect)))
    }

    fn unsubscribe(&mut self, name: &str, effects: &mut Vec<Effect>) -> Result<(), Refused> {
        self.resolve(name)?;
        if let Some(place) = self.place_of(name) {
            self.end_subscription(place, Rest::Give, effects);
        }
        Ok(())
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        self.subscriptions.iter().position(|subscription| *subscription.name == *name)
    }

    /// Whether nothing else makes messages of its channel go to the client as they were published.
    fn is_last_plain(&self, place: usize) -> bool {
        let Subscription { channel, follows, .. } = &self.subscriptions[place];
        let is_plain = |other: &&Subscription| !other.follows && other.channel == *channel;
        !follows && self.subscriptions.iter().filter(is_plain).count() == 1
    }

    fn end_subscription(&mut self, place: usize, rest: Rest, effects: &mut Vec<Effect>) {
        let last_plain = self.is_last_plain(place);
        let Subscription { name, channel, follows } = self.subscriptions.swap_remove(place);
        if follows {
            effects.push(Effect::Unfollow { name, rest });
        } else if last_plain {
            effects.push(Effect::Unwatch { channel, rest });
        }
    }

    fn resolve(&self, name: &str) -> Result<Resolved, Refused> {
        let (uid, expired) = match &self.login {
            Login::None => (None, false),
            Login::Active { uid, .. } => (Some(uid), false),
            Login::Expired { uid, .. } => (Some(uid), true),
        };
        match self.rules.resolve(name, uid) {
            Ok(resolved) if resolved.login && expired => Err((ErrorCode::AuthExpired, None)),
            Ok(resolved) => Ok(resolved),
            Err(Refusal::UnknownChannel) => Err((ErrorCode::UnknownChannel, None)),
            Err(Refusal::NotAuth) => Err((ErrorCode::NotAuth, None)),
            Err(Refusal::BadName(_)) => {
                let fault =
                    "\"channel\", with your uid in it, is too long or has blanks or control characters";
                Err((ErrorCode::BadRequest, Some(fault)))
            }
        }
    }

    /// Whether messages of this channel go to the client as they were published.
    fn watches(&self, channel: &Channel) -> bool {
        self.subscriptions
            .iter()
            .any(|subscription| !subscription.follows && subscription.channel == *channel)
    }

    fn log_in(&mut self, uid: Uid, expires: Option<Instant>, echo: &Echo, effects: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.login, Login::Active { uid: uid.clone(), expires });
        let (user_before, was_paused) = match before {
            Login::None => (None, false),
            Login::Active { uid, .. } => (Some(uid), false),
            Login::Expired { uid, .. } => (Some(uid), true),
        };
        if user_before.is_some_and(|before| before != uid) {
            self.subscriptions = Vec::new();
            effects.push(Effect::Forget);
        }
        self.useful_by = None;
        effects.push(Effect::Reply(protocol::result(echo)));
        if was_paused {
            effects.push(Effect::Resume);
        }
    }

    /// A login that has run out holds messages back until it is renewed.
    fn expire(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Login::Active { uid, expires: Some(expires) } = &self.login else { return };
        if *expires <= now {
            self.login = Login::Expired { uid: uid.clone(), renew_by: now + self.limits.reauth_timeout };
            self.refuse((ErrorCode::AuthExpired, None), &Echo::default(), effects);
            effects.push(Effect::Pause);
        }
    }

    /// By when the client must do something, and how it ends otherwise. An op under way may still be that.
    fn last_chance(&self) -> Option<(Instant, CloseCode)> {
        if self.under_way.is_some() {
            return None;
        }
        match &self.login {
            Login::Expired { renew_by, .. } => Some((*renew_by, CloseCode::AuthExpired)),
            Login::None | Login::Active { .. } => self.useful_by.map(|by| (by, CloseCode::NoLogin)),
        }
    }

    /// When the client counts as gone. It can't be heard while it is not listened to.
    fn silent_at(&self) -> Option<Instant> {
        (self.wants_input() && !self.deaf).then(|| self.heard + self.limits.silence)
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
