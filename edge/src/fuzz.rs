//! Arbitrary bytes from one client, without a socket: the entry point of the fuzz target, and of the test
//! over its corpus.

use std::collections::HashSet;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::Value;
use shared::history::{Epoch, Position};
use shared::ids::{Channel, Group, Uid};
use shared::rules::{RuleConfig, Rules, default_rules};
use sockets::Acknowledged;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::Config;
use crate::frame::Frame;
use crate::protocol::PONG;
use crate::session::state::{Effect, Granted, Limits, State, Unproved, Verified};
use crate::transport::{Event, FrameLimits, Transport};

const LIMITS: FrameLimits = FrameLimits { op: 512, auth: 2_048 };

/// Takes `input` as the bytes that one client sends behind its handshake, cut in three different ways. Plays
/// both the edge around the conversation and an auth-adapter that goes by the token's length. Returns the
/// number of effects.
///
/// # Panics
/// If the socket or the conversation breaks one of its promises.
pub fn check_bytes(input: &[u8]) -> usize {
    let whole = converse(input, input.len());
    for piece in [1, 2 + input.len() % 11] {
        assert_eq!(whole, converse(input, piece), "pieces of {piece} bytes are understood otherwise");
    }
    whole.len()
}

fn converse(input: &[u8], piece: usize) -> Vec<String> {
    let (stream, mut talk) = (Pieces { input, piece: piece.max(1) }, Talk::new());
    let mut transport = Transport::new(stream, b"", LIMITS);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        // All input is there, so the future never waits.
        let polled = {
            let next = pin!(transport.next(true));
            next.poll(&mut context)
        };
        match polled {
            Poll::Ready(Event::Frame(frame)) => {
                let effects = talk.state.on_frame(frame, talk.now);
                talk.carry_out(effects, &mut transport);
            }
            Poll::Ready(Event::SignOfLife) => {
                let effects = talk.state.on_sign_of_life(talk.now);
                talk.carry_out(effects, &mut transport);
            }
            Poll::Ready(Event::Written) => {}
            Poll::Ready(Event::Gone) => break,
            Poll::Pending => panic!("a transport waits although its stream does not"),
        }
        if talk.closed {
            break;
        }
    }
    talk.seen
}

/// A conversation, with the invariants that are checked.
struct Talk {
    state: State,
    now: Instant,
    watched: HashSet<Channel>,
    followed: HashSet<Arc<str>>,
    limits: Arc<Limits>,
    closed: bool,
    seen: Vec<String>,
}

impl Talk {
    fn new() -> Self {
        let mut rules = default_rules();
        let (name, channel) = ("{id}@video".into(), "video:{id}".into());
        rules.push(RuleConfig { name, channel, login: false, history: false, member: None });
        let rules = Rules::compile(&rules).expect("these rules are good");
        let limits = Arc::new(Limits { subscriptions: 3, ..Config::default().limits() });
        let now = Instant::now();
        let state = State::new(Arc::new(rules), Arc::clone(&limits), 1, now);
        Self {
            state,
            now,
            watched: HashSet::new(),
            followed: HashSet::new(),
            limits,
            closed: false,
            seen: Vec::new(),
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>, transport: &mut Transport<Pieces<'_>>) {
        for effect in effects {
            assert!(!self.closed, "{effect:?} follows the close");
            self.seen.push(format!("{effect:?}"));
            // Time passes, so that logins expire and rates recover.
            self.now += Duration::from_millis(10);
            let more = match effect {
                Effect::Reply(text) | Effect::Error(_, text) => {
                    let json = serde_json::from_str::<Value>(&text);
                    assert!(text == PONG || json.is_ok_and(|json| json.is_object()), "{text}");
                    transport.push(Frame::text(&text));
                    Vec::new()
                }
                Effect::Closed(text) => {
                    let event: Value = serde_json::from_str(&text).expect("the event is JSON");
                    assert!(event["channel"].is_string(), "{text}");
                    transport.push(Frame::text(&text));
                    Vec::new()
                }
                Effect::Verify { token, .. } => {
                    let verified = verdict(token.expose());
                    self.state.on_verified(verified, self.now)
                }
                Effect::Watch { channel, .. } => {
                    assert!(!self.watched.contains(&channel), "{channel:?} is watched already");
                    let outcome =
                        if channel.as_str().len() % 7 == 6 { Err(Unproved) } else { Ok(Granted::Plain) };
                    if outcome.is_ok() {
                        self.watched.insert(channel);
                    }
                    self.state.on_subscribed(outcome, self.now)
                }
                Effect::Unwatch { channel, .. } => {
                    assert!(self.watched.remove(&channel), "{channel:?} was not watched");
                    Vec::new()
                }
                Effect::Follow { channel, name, after, instead_of_plain } => {
                    let replaces = after.is_none();
                    assert!(replaces || !self.followed.contains(&name), "{name:?} is followed already");
                    assert!(!instead_of_plain || (replaces && self.watched.contains(&channel)));
                    let outcome = if channel.as_str().len() % 7 == 6 {
                        Err(Unproved)
                    } else {
                        self.followed.insert(name);
                        if instead_of_plain {
                            self.watched.remove(&channel);
                        }
                        let position = after.unwrap_or(Position { epoch: Epoch(1), seq: 1 });
                        Ok(Granted::Following { position, recovered: position.seq % 2 == 0 })
                    };
                    self.state.on_subscribed(outcome, self.now)
                }
                Effect::Unfollow { name, .. } => {
                    assert!(self.followed.remove(&name), "{name:?} was not followed");
                    Vec::new()
                }
                Effect::Close(_) => {
                    self.closed = true;
                    Vec::new()
                }
                Effect::Forget => {
                    self.watched.clear();
                    self.followed.clear();
                    Vec::new()
                }
                Effect::Pause | Effect::Resume | Effect::Ping => Vec::new(),
            };
            assert!(
                self.watched.len() + self.followed.len() <= self.limits.subscriptions,
                "{:?}",
                self.watched
            );
            self.carry_out(more, transport);
        }
    }
}

fn known(uid: Uid, expires_in: Option<Duration>, groups: &[&str]) -> Verified {
    let groups = groups.iter().map(|group| Group::parse(group).expect("a good name")).collect();
    Verified::Known { uid, groups, expires_in, newer_than: None }
}

/// Answers like an auth-adapter that goes by the token's length.
fn verdict(token: &str) -> Verified {
    let uid = Uid::parse(token);
    match (uid, token.len() % 8) {
        (_, 6) => Verified::Unavailable,
        (_, 7) => Verified::TooManySessions,
        (Ok(uid), 5) => known(uid, Some(Duration::from_millis(25)), &["a"]),
        (Ok(uid), 3) => known(uid, None, &[]),
        (Ok(uid), _) => known(uid, None, &["a", "b"]),
        (Err(_), _) => Verified::Unknown,
    }
}

/// A stream that gives at most so many bytes at a time, and takes whatever is written.
struct Pieces<'i> {
    input: &'i [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = self.piece.min(buffer.remaining()).min(self.input.len());
        let (now, later) = self.input.split_at(bytes);
        buffer.put_slice(now);
        self.input = later;
        Poll::Ready(Ok(()))
    }
}

impl Acknowledged for Pieces<'_> {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
