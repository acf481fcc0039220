//! The conversation, row by row, and whatever a client may do in between.

mod flood;
mod groups;
mod login;
mod order;
mod subscribing;
mod timing;
mod visible;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use shared::bus::{self, Bus, BusConfig};
use shared::config::Secret;
use shared::drain::Drain;
use shared::faults::Faults;
use shared::history::{History, HistoryConfig, Role};
use shared::ids::{Channel, Group, Uid};
use shared::rules::{RuleConfig, Rules, default_rules};
use sockets::Source;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Deps;
use super::state::{Effect, Granted, Limits, Rest, State, Unproved, Verified};
use crate::authn::{Authn, CheckBounds};
use crate::code::{CloseCode, ErrorCode};
use crate::hub::{Hub, SessionLimits, SessionPolicy};
use crate::metrics::Metrics;
use crate::protocol::Incoming;
use crate::recovery::metrics::RecoveryMetrics;
use crate::recovery::{Recovery, RecoveryLimits};

/// Where the clients connect from.
const HERE: Source = Source::V4(Ipv4Addr::LOCALHOST);
const SECOND: Duration = Duration::from_secs(1);
const YES: &str = r#"{"result":true}"#;

fn rules() -> Arc<Rules> {
    let open = |name: &str, channel: &str| RuleConfig {
        name: name.into(),
        channel: channel.into(),
        login: false,
        history: false,
        member: None,
    };
    let mut rules = default_rules();
    rules.extend([
        open("{id}@video", "video:{id}"),
        open("@broadcast", "broadcast"),
        open("@everyone", "broadcast"),
    ]);
    let with_history = |name: &str| RuleConfig { history: true, ..open(name, "both") };
    rules.extend([with_history("@both"), with_history("@again")]);
    let of_members = |name: &str, channel: &str, history| RuleConfig {
        login: true,
        history,
        member: Some("g".into()),
        ..open(name, channel)
    };
    rules.extend([of_members("@team/{g}", "group:{g}", true), of_members("@club/{g}", "club:{g}", false)]);
    Arc::new(Rules::compile(&rules).unwrap())
}

fn limits() -> Limits {
    Limits {
        frame: 20 << 10,
        subscriptions: 3,
        ops_per_second: 1_000,
        first_ops: 0,
        login_timeout: 10 * SECOND,
        reauth_timeout: 10 * SECOND,
        silence: 60 * SECOND,
        ping_interval: 25 * SECOND,
    }
}

/// Returns the deps of sessions on an edge of their own, with a bus that has no auth-adapter.
async fn deps(limits: Limits, registry: &mut Registry, rest: &Drain) -> (Arc<Deps>, Arc<Hub>) {
    let server = bus::provide(&BusConfig::default(), rest).await.unwrap();
    let bus = Bus::connect(&server, "test", rest).await.unwrap();
    let sessions = SessionLimits { sessions: 0, watermark: 0, per_user: 1, policy: SessionPolicy::default() };
    let hub = Arc::new(Hub::new(sessions));
    let history = History::open(&bus, &HistoryConfig::default(), Role::Reader, rest);
    let bounds = RecoveryLimits { replays: 1, remembered: 1, faults: Faults::default() };
    let counters = RecoveryMetrics::register(registry);
    let recovery = Recovery::new(history, Arc::clone(&hub), bounds, counters, rest.clone(), rest.token());
    let awake = bus.awake().clone();
    let deps = Deps {
        rules: rules(),
        limits: Arc::new(limits),
        authn: Authn::start(
            bus,
            CheckBounds { at_a_time: 1, deadline: SECOND },
            registry,
            rest,
            rest.token(),
        ),
        active: watch::Sender::new(true).subscribe(),
        subscribe_deadline: SECOND,
        stalled_after: 10 * SECOND,
        metrics: Arc::new(Metrics::register(registry)),
        recovery: Arc::new(recovery),
        awake,
        leaving: rest.token(),
    };
    (Arc::new(deps), hub)
}

/// A conversation and a clock to move.
struct Talk {
    state: State,
    now: Instant,
}

impl Talk {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = limits();
        change(&mut limits);
        let now = Instant::now();
        Self { state: State::new(rules(), Arc::new(limits), 7, now), now }
    }

    /// Returns a session of this user.
    fn of(uid: &str) -> Self {
        let mut talk = Self::new();
        talk.log_in(uid, None);
        talk
    }

    fn says(&mut self, text: &str) -> Vec<Effect> {
        self.state.on_frame(Incoming::text(text), self.now)
    }

    fn auth(&mut self) -> Vec<Effect> {
        self.says(r#"{"op":"auth","token":"t"}"#)
    }

    fn subscribe(&mut self, name: &str) -> Vec<Effect> {
        self.says(&format!(r#"{{"op":"subscribe","channel":"{name}"}}"#))
    }

    fn unsubscribe(&mut self, name: &str) -> Vec<Effect> {
        self.says(&format!(r#"{{"op":"unsubscribe","channel":"{name}"}}"#))
    }

    fn verified(&mut self, verified: Verified) -> Vec<Effect> {
        self.state.on_verified(verified, self.now)
    }

    fn subscribed(&mut self) -> Vec<Effect> {
        self.state.on_subscribed(Ok(Granted::Plain), self.now)
    }

    fn log_in(&mut self, uid: &str, expires_in: Option<Duration>) -> Vec<Effect> {
        assert_eq!(self.auth(), [verify("t")]);
        self.verified(known(uid, expires_in))
    }

    /// Subscribes to a channel that is watched on the bus.
    fn watch(&mut self, name: &str, channel: &str) {
        assert_eq!(self.subscribe(name), [watch(channel)]);
        assert_eq!(self.subscribed(), [reply(YES)]);
    }

    fn after(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.state.on_timer(self.now)
    }

    /// Lets time pass as the session's task does: from deadline to deadline. Pings are answered.
    fn idle(&mut self, time: Duration) -> Vec<Effect> {
        let until = self.now + time;
        let mut effects = Vec::new();
        while self.state.next_deadline() <= until {
            self.now = self.state.next_deadline();
            for effect in self.state.on_timer(self.now) {
                if effect == Effect::Ping {
                    self.state.on_sign_of_life(self.now);
                } else {
                    effects.push(effect);
                }
            }
            if matches!(effects.last(), Some(Effect::Close(_))) {
                return effects;
            }
        }
        self.now = until;
        effects
    }
}

fn reply(text: &str) -> Effect {
    Effect::Reply(text.to_owned().into())
}

fn error(code: u16, text: &str) -> Effect {
    let row = ErrorCode::ALL.into_iter().find(|row| row.number() == code).unwrap();
    Effect::Error(row, format!(r#"{{"code":{code},"msg":"{text}"}}"#).into())
}

fn verify(token: &str) -> Effect {
    Effect::Verify { token: Secret::new(token), newer_than: None }
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn watch(name: &str) -> Effect {
    Effect::Watch {
        channel: channel(name),
        has_history: !name.starts_with("club:") && !name.starts_with("video:") && name != "broadcast",
    }
}

fn unwatch(name: &str) -> Effect {
    Effect::Unwatch { channel: channel(name), rest: Rest::Give }
}

fn known(uid: &str, expires_in: Option<Duration>) -> Verified {
    of_groups(uid, &[], expires_in)
}

fn of_groups(uid: &str, groups: &[&str], expires_in: Option<Duration>) -> Verified {
    let groups = groups.iter().map(|group| Group::parse(group).unwrap()).collect();
    Verified::Known { uid: Uid::parse(uid).unwrap(), groups, expires_in, newer_than: None }
}

/// Returns the texts of the replies among these effects.
fn replies(effects: &[Effect]) -> Vec<&str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Reply(text) | Effect::Error(_, text) => Some(&**text),
            Effect::Verify { .. }
            | Effect::Watch { .. }
            | Effect::Unwatch { .. }
            | Effect::Follow { .. }
            | Effect::Unfollow { .. }
            | Effect::Closed(_)
            | Effect::Pause
            | Effect::Resume
            | Effect::Forget
            | Effect::Ping
            | Effect::Close(_) => None,
        })
        .collect()
}
