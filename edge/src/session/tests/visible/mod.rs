//! The rule of who sees which message: a session with its socket and its hub, in every order of logins,
//! subscriptions, messages, replays, reads and farewells, against a model of what its client may be sent.
//!
//! The model reads what the client reads, frame by frame. A message is right if its subscription is open at
//! that point and the message is the next one of its channel. No message of a channel may come while a login
//! has expired, for another user, or once a login lacked the group.

mod client;
mod groups;

use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};
use serde_json::{Value, json};
use shared::history::{Epoch, Page, Position, StoredMessage};
use shared::ids::MessageId;
use shared::wire::{Kind, LiveMessage};
use sockets::Acknowledged;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tracing::Span;

use super::*;
use crate::authn::Owner;
use crate::channel::recoverable::{Leader, NotWhole};
use crate::channel::{Arrival, LiveCopy, Trust};
use crate::outbox::Call;
use crate::recovery::attach::Attached;
use crate::recovery::replay::{Found, Read};
use crate::session::ops::{Checked, Followable, Outcome, Wanted};
use crate::session::{End, Session};
use crate::transport::{FrameLimits, Transport};
use client::{Moment, Op, Reader, Script, channel_of, texts};

const EPOCH: Epoch = Epoch(7);
const HOUR: Duration = Duration::from_secs(3_600);
const NAMES: [&str; 8] =
    ["@user", "@both", "@again", "@broadcast", "@everyone", "@group/vip", "@team/vip", "@club/vip"];
const CHANNELS: [&str; 6] = ["user:1", "user:2", "both", "broadcast", "group:vip", "club:vip"];

#[derive(Debug, Clone)]
enum Step {
    Auth,
    /// With ids: behind all but so many of the latest messages, or from now on.
    WithIds(usize, Option<usize>),
    /// With ids from now on, once more under the name that was last given ids; completed at once.
    Anew,
    Plain(usize),
    Unsubscribe(usize),
    /// The op under way is done: the user of a token, or the outcome of a subscription.
    Done(u8),
    Publish(usize),
    Expire,
    /// A back end has the user renew its login, and whether the user is in the group from now on.
    Refresh(bool),
    /// Frames go from the outbox to the socket.
    Deliver(usize),
    /// A page of so many messages goes to the socket.
    Read(usize),
    /// The socket takes so many bytes.
    Write(usize),
    Farewell,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    let behind = prop::option::weighted(0.6, 0_usize..4);
    prop_oneof![
        4 => Just(Step::Auth),
        5 => (name.clone(), behind).prop_map(|(name, behind)| Step::WithIds(name, behind)),
        3 => Just(Step::Anew),
        3 => name.clone().prop_map(Step::Plain),
        3 => name.prop_map(Step::Unsubscribe),
        12 => any::<u8>().prop_map(Step::Done),
        12 => (0..CHANNELS.len()).prop_map(Step::Publish),
        2 => Just(Step::Expire),
        2 => any::<bool>().prop_map(Step::Refresh),
        4 => (1_usize..200).prop_map(Step::Deliver),
        4 => (1_usize..4).prop_map(Step::Read),
        5 => (1_usize..300).prop_map(Step::Write),
        1 => Just(Step::Farewell),
    ]
}

/// A socket that takes only as many bytes as the test allows.
struct Socket(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    may: usize,
    /// Whether the client has gone.
    ends: bool,
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0.lock().unwrap().ends { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut taken = self.0.lock().unwrap();
        let count = bytes.len().min(taken.may);
        if count == 0 {
            return Poll::Pending;
        }
        taken.may -= count;
        taken.bytes.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Acknowledged for Socket {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

/// The session and everything around it.
struct World {
    hub: Arc<Hub>,
    session: Session<Socket>,
    socket: Arc<Mutex<Taken>>,
    pending: Option<Effect>,
    script: Script,
    user: Option<&'static str>,
    /// Whether the business system has the user in the group, since the latest refresh.
    is_member: bool,
    /// The latest refresh of each user.
    refreshed: u64,
    /// Whether the groups of the latest answer have the group.
    vip: bool,
    /// The name that a client last asked to be given with ids.
    with_ids: Option<usize>,
    replaying: Vec<Arc<str>>,
    last: u64,
    /// Messages that were accepted for this session, and messages that a page brought.
    accepted: u64,
    farewell: bool,
    closed: Option<CloseCode>,
}

impl World {
    fn new(deps: &Arc<Deps>, hub: &Arc<Hub>) -> Self {
        let socket = Arc::new(Mutex::new(Taken::default()));
        let now = Instant::now();
        let session = Session {
            transport: Transport::new(
                Socket(Arc::clone(&socket)),
                &[],
                FrameLimits { op: 4096, auth: 20 << 10 },
            ),
            member: hub.admit(1 << 20).unwrap(),
            source: HERE,
            state: State::new(Arc::clone(&deps.rules), Arc::clone(&deps.limits), 1, now),
            deps: Arc::clone(deps),
            under_way: None,
            paused: false,
            farewell: None,
            pending_reloads: Vec::new(),
            replays: Vec::new(),
            stored_first: false,
            asleep: Duration::ZERO,
        };
        Self {
            hub: Arc::clone(hub),
            session,
            socket,
            pending: None,
            script: Script {
                sent: CHANNELS.into_iter().map(|channel| (channel, Vec::new())).collect(),
                ..Script::default()
            },
            user: None,
            is_member: true,
            refreshed: 0,
            vip: false,
            with_ids: None,
            replaying: Vec::new(),
            last: 0,
            accepted: 0,
            farewell: false,
            closed: None,
        }
    }

    fn say(&mut self, op: Op, mut frame: Value) {
        if self.session.state.wants_input() {
            frame["i"] = json!(self.script.ops.len());
            self.script.ops.push(op);
            let frame = Incoming::text(&frame.to_string());
            let effects = self.session.state.on_frame(frame, Instant::now());
            self.apply(effects);
        }
    }

    /// Carries out the effects that need no other part, as the session's task does; the rest waits for a
    /// step.
    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let names = self.session.replays.iter().map(|replay| Arc::clone(&replay.name));
            self.replaying.extend(names);
            match effect {
                Effect::Verify { .. } | Effect::Watch { .. } | Effect::Follow { .. } => {
                    self.pending = Some(effect);
                }
                Effect::Close(code) => self.closed = Some(code),
                Effect::Reply(_)
                | Effect::Closed(_)
                | Effect::Error(..)
                | Effect::Unwatch { .. }
                | Effect::Unfollow { .. }
                | Effect::Pause
                | Effect::Resume
                | Effect::Forget
                | Effect::Ping => {
                    self.note(&effect);
                    assert_eq!(self.session.carry_out(vec![effect]), None);
                }
            }
        }
    }

    fn note(&mut self, effect: &Effect) {
        let (Effect::Reply(text) | Effect::Error(_, text)) = effect else { return };
        let Some(op) = serde_json::from_str::<Value>(text).unwrap()["i"].as_u64() else { return };
        let moment = Moment {
            paused: self.session.paused,
            tails: CHANNELS.into_iter().map(|channel| (channel, self.script.tail(channel))).collect(),
            replaying: self.replaying.clone(),
            user: self.user,
            vip: self.vip,
        };
        self.script.moments.insert(usize::try_from(op).unwrap(), moment);
    }

    fn take(&mut self, step: Step) {
        self.replaying = self.session.replays.iter().map(|replay| Arc::clone(&replay.name)).collect();
        match step {
            Step::Auth => self.say(Op::Auth, json!({"op": "auth", "token": "t"})),
            Step::WithIds(name, behind) => {
                self.with_ids = Some(name);
                let (name, channel) = (NAMES[name], self.channel_of(NAMES[name]));
                let after = behind.map_or(String::new(), |behind| {
                    let sent = &self.script.sent[channel];
                    let seq = sent.len().checked_sub(behind + 1).map_or(0, |index| sent[index]);
                    Position { epoch: EPOCH, seq }.to_string()
                });
                let op = Op::WithIds(name, after.is_empty());
                self.say(op, json!({"op": "subscribe", "channel": name, "after": after}));
            }
            Step::Anew => {
                if let Some(name) = self.with_ids {
                    self.take(Step::WithIds(name, None));
                    self.take(Step::Done(7));
                }
            }
            Step::Plain(name) => {
                self.say(Op::Plain(NAMES[name]), json!({"op": "subscribe", "channel": NAMES[name]}));
            }
            Step::Unsubscribe(name) => {
                self.say(Op::Unsubscribe(NAMES[name]), json!({"op": "unsubscribe", "channel": NAMES[name]}));
            }
            Step::Done(how) => self.done(how),
            Step::Publish(channel) => self.publish(CHANNELS[channel]),
            Step::Expire => {
                let effects = self.session.state.on_timer(Instant::now() + 2 * HOUR);
                self.apply(effects);
            }
            Step::Refresh(is_member) => self.refresh(is_member),
            Step::Deliver(bytes) if self.session.delivers() => self.session.deliver(bytes),
            Step::Read(most) if self.session.delivers() => self.read(most),
            Step::Deliver(_) | Step::Read(_) => {}
            Step::Write(bytes) => {
                self.socket.lock().unwrap().may = bytes;
                let _ = self.session.transport.next(false).now_or_never();
                self.socket.lock().unwrap().may = 0;
            }
            Step::Farewell => {
                self.farewell = true;
                self.session.say_farewell(Instant::now() + SECOND);
            }
        }
    }

    /// Returns the channel that a name stands for, for the user whom the model knows of.
    fn channel_of(&self, name: &str) -> &'static str {
        channel_of(name, self.user.unwrap_or("1"))
    }

    fn publish(&mut self, name: &'static str) {
        let before = self.script.tail(name);
        self.last += 1;
        self.script.sent.get_mut(name).unwrap().push(self.last);
        let message = message(name, self.last);
        let counts = if name == "broadcast" || name == "club:vip" {
            self.hub.deliver(name, || crate::frame::Frame::message(Kind::Text, &message.payload))
        } else {
            let arrival = Arrival { seq: self.last, message: Some(&message), span: &Span::none() };
            let copy = LiveCopy { arrival, before, epoch: Some(EPOCH), trust: Trust::Sure };
            self.hub.on_live(name, &copy, Instant::now()).counts
        };
        let replaying = self.session.replays.iter().filter(|replay| replay.channel.as_str() == name);
        self.accepted += counts.sessions - replaying.count() as u64;
        assert_eq!(counts.failed, 0);
    }

    /// Returns at most so many messages after a sequence. None: there are none.
    fn page(&self, name: &str, after: u64, most: usize) -> Option<Page> {
        let (name, sent) = self.script.sent.iter().find(|(channel, _)| **channel == name).unwrap();
        let behind = sent.iter().filter(|seq| **seq > after);
        let stored = |seq: &u64| StoredMessage {
            seq: *seq,
            time: 0,
            erased: false,
            message: Ok(message(name, *seq)),
            headers: Default::default(),
        };
        let messages: Vec<_> = behind.take(most).map(stored).collect();
        (!messages.is_empty()).then(|| Page {
            epoch: EPOCH,
            messages,
            remaining: 0,
            whole: true,
            last_seq: self.last,
        })
    }

    /// As [`Session::on_read`] is called by the session's task.
    fn read(&mut self, most: usize) {
        let Some(replay) = self.session.replays.first_mut() else { return };
        let first = replay.page.take();
        let (channel, cursor) = (replay.channel.clone(), replay.given.seq);
        let page = first.unwrap_or_else(|| self.page(channel.as_str(), cursor, most).unwrap());
        self.accepted += page.messages.len() as u64;
        assert_eq!(self.session.on_read(Read::Page(page)), None);
    }

    fn done(&mut self, how: u8) {
        let outcome = match self.pending.take() {
            Some(Effect::Verify { token, newer_than }) => return self.checked(token, newer_than, how),
            Some(Effect::Watch { .. } | Effect::Follow { .. }) if how.is_multiple_of(8) => Outcome::Unproved,
            Some(Effect::Watch { channel, has_history }) => {
                let guard = has_history.then(|| self.attached(&channel).guard);
                Outcome::Watchable(channel, guard)
            }
            Some(Effect::Follow { channel, name, after, instead_of_plain }) => {
                let attached = self.attached(&channel);
                let first = match after {
                    Some(_) if how % 8 == 1 => Err(NotWhole::TooFar),
                    Some(after) => Ok(self.page(channel.as_str(), after.seq, 2)),
                    None => Ok(None),
                };
                let found = Found { attached, first };
                let wanted = Wanted { name, after, instead_of_plain };
                Outcome::Followable(Box::new(Followable { wanted, found }))
            }
            _ => return,
        };
        let effects = self.session.on_outcome(outcome);
        self.apply(effects);
    }

    /// Tells the session that its login must be renewed, as the hub and the session's task do.
    fn refresh(&mut self, is_member: bool) {
        let Some(uid) = self.user.map(|user| Uid::parse(user).unwrap()) else { return };
        self.is_member = is_member;
        self.hub.refresh(std::slice::from_ref(&uid), 1, Instant::now()).unwrap();
        self.refreshed = self.session.member.refreshed(&uid).unwrap();
        let context = &mut Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(Call::Refresh(number)) = self.session.member.outbox().poll_call(false, context) {
            let effects = self.session.state.on_refresh(number, Instant::now());
            self.apply(effects);
        }
    }

    /// Gives the outcome of a token check, and of the next one if the first was too old.
    fn checked(&mut self, token: Secret, newer_than: Option<u64>, how: u8) {
        let owner = self.owner(newer_than, how);
        let known = matches!(owner, Owner::Known { .. });
        let outcome = Outcome::Checked(Checked { token: token.clone(), newer_than, owner });
        let effects = self.session.on_outcome(outcome);
        if self.session.under_way.take().is_some() {
            let uid = Uid::parse(self.user.unwrap()).unwrap();
            let newer = self.session.member.refreshed(&uid);
            assert!(known && newer > newer_than, "the first answer was new enough");
            return self.checked(token, newer, how);
        }
        self.apply(effects);
    }

    /// Returns an answer: an old one may say anything about the group, a new one knows.
    fn owner(&mut self, newer_than: Option<u64>, how: u8) -> Owner {
        let uid = match how % 16 {
            0 => return Owner::Unknown,
            1 => return Owner::Unavailable,
            2..=5 => {
                if self.user == Some("1") {
                    "2"
                } else {
                    "1"
                }
            }
            _ => self.user.unwrap_or("1"),
        };
        if self.user.replace(uid) != Some(uid) {
            (self.is_member, self.refreshed) = (true, 0);
        }
        let is_new = newer_than.is_some_and(|newer_than| newer_than >= self.refreshed);
        self.vip = if is_new && self.refreshed > 0 { self.is_member } else { how & 16 == 0 };
        let groups = self.vip.then(|| Group::parse("vip").unwrap()).into_iter().collect();
        Owner::Known { uid: Uid::parse(uid).unwrap(), groups, expires_in: Some(HOUR) }
    }

    fn attached(&self, channel: &Channel) -> Attached {
        let tail = self.script.tail(channel.as_str());
        let guard = self.hub.guard(channel);
        self.hub.open_cursor(channel, EPOCH, tail, Instant::now());
        Attached { guard, leader: Leader { epoch: EPOCH, first: 1, last: self.last }, tail }
    }

    fn run(&mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            if self.closed.is_none() {
                self.take(step);
            }
        }
        if self.closed.is_none() {
            self.settle();
        }
    }

    /// Ends the session, and reads all that its client was sent. Returns how many messages that were.
    fn end(self, runtime: &Runtime) -> Result<u64, TestCaseError> {
        let Self { session, socket, script, closed, .. } = self;
        let mut taken = socket.lock().unwrap();
        (taken.may, taken.ends) = (usize::MAX, true);
        drop(taken);
        runtime.block_on(session.finish(closed.map_or(End::ByClient, End::With)));
        let mut reader = Reader::of(&script);
        for text in texts(&socket.lock().unwrap().bytes) {
            reader.read(&text)?;
        }
        reader.has_all(closed.is_none())?;
        Ok(reader.messages)
    }

    /// Logs the same user in again, and reads everything.
    fn settle(&mut self) {
        while self.pending.is_some() {
            self.take(Step::Done(7));
        }
        if self.session.paused && self.closed.is_none() {
            self.take(Step::Auth);
            self.take(Step::Done(7));
        }
        while !self.session.transport.is_idle()
            || (!self.session.paused
                && (self.session.member.outbox().load().frames > 0 || !self.session.replays.is_empty()))
        {
            self.take(Step::Write(1 << 20));
            self.take(Step::Read(3));
            self.take(Step::Write(1 << 20));
            self.take(Step::Deliver(1 << 20));
        }
    }
}

/// Limits that no test comes to.
fn patient() -> Limits {
    let forever = 1_000 * HOUR;
    Limits {
        ops_per_second: 1_000_000,
        login_timeout: forever,
        reauth_timeout: forever,
        silence: forever,
        ping_interval: forever,
        ..limits()
    }
}

fn message(channel: &str, seq: u64) -> LiveMessage {
    let payload = Bytes::from(format!("{channel}#{seq}"));
    LiveMessage { id: MessageId(seq.into()), kind: Kind::Text, payload }
}

fn lost(registry: &Registry) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("mc_edge_losses_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn check(steps: Vec<Step>, mut world: World, registry: &Registry, runtime: &Runtime) -> TestCaseResult {
    let lost_before = lost(registry);
    world.run(steps);
    let (farewell, accepted) = (world.farewell, world.accepted);
    let messages = world.end(runtime)?;
    if !farewell {
        prop_assert_eq!(accepted, messages + lost(registry) - lost_before, "a drop without a count");
    }
    Ok(())
}

#[test]
fn nobody_is_sent_what_is_not_for_it_and_nothing_is_missing_twice_or_dropped_without_a_count() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut registry, rest) = (Registry::default(), Drain::new());
    let (deps, hub) = runtime.block_on(deps(patient(), &mut registry, &rest));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(500));
    let steps = prop::collection::vec(step(), 1..120);
    runner.run(&steps, |steps| check(steps, World::new(&deps, &hub), &registry, &runtime)).unwrap();
    runtime.block_on(async { assert_eq!(rest.finish(20 * SECOND).await, 0) });
}
