//! A world for one edge. Everything runs on free ports, and every wait has a deadline.

pub(crate) mod client;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use edge::{Config, Edge};
use futures_util::StreamExt as _;
use prometheus_client::registry::Registry;
use shared::bus::{self, Bus, BusConfig, BusServer};
use shared::drain::Drain;
use shared::health::Health;
use shared::history::HistoryConfig;
use shared::ids::{Channel, MessageId, MessageIds, NodeId};
use shared::part::Host;
use shared::rules::{RuleConfig, Rules, default_rules};
use shared::subject;
use shared::wire::{
    Answer, Ask, Command, Control, ControlAnswer, EdgeState, Envelope as _, Heartbeat, HeartbeatAck, Kind,
    LiveMessage, Login, Verdict, VerifyReply, VerifyRequest,
};
use test_kit::metrics;

/// The deadline of every wait, however busy the machine is. Below the 30 s after which an edge gives up a
/// replay or a look at the tails, so that no such fallback passes for the way under test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `future` until [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

/// Waits until `condition` holds, until [`PATIENCE`].
pub(crate) async fn eventually(what: &str, condition: impl FnMut() -> bool) {
    soon(what, test_kit::wait::becomes_true(what, condition)).await;
}

/// An edge and everything that it talks to.
pub(crate) struct World {
    pub(crate) edge: Edge,
    pub(crate) health: Health,
    pub(crate) drain: Drain,
    registry: Registry,
    /// The connection of the publishers and auth-adapters.
    pub(crate) bus: Bus,
    ids: MessageIds,
    rest: Drain,
}

/// A bus, and the parts that serve on it.
pub(crate) struct Ground {
    server: BusServer,
    pub(crate) bus: Bus,
    rest: Drain,
}

impl Ground {
    /// Starts a bus with an auth-adapter.
    pub(crate) async fn new() -> Self {
        let ground = Self::without_adapter().await;
        serve_tokens(&ground.bus, &ground.rest).await;
        ground
    }

    /// Starts a bus without an auth-adapter.
    pub(crate) async fn without_adapter() -> Self {
        let rest = Drain::new();
        let server = bus::provide(&BusConfig::default(), &rest).await.unwrap();
        let bus = Bus::connect(&server, "test", &rest).await.unwrap();
        bus.connected(PATIENCE).await.unwrap();
        Self { server, bus, rest }
    }

    /// Starts a publisher that notes heartbeats, and acknowledges them once it `acknowledges`.
    pub(crate) async fn publisher(&self) -> Arc<Publisher> {
        let mut heartbeats = self.bus.subscribe(subject::HEARTBEAT, None, PATIENCE).await.unwrap();
        self.bus.barrier(PATIENCE).await.unwrap();
        let publisher = Arc::new(Publisher::default());
        let (noted, bus) = (Arc::clone(&publisher), self.bus.clone());
        spawn(&self.rest, async move {
            while let Some(message) = heartbeats.next().await {
                noted.heartbeats.lock().unwrap().push(Heartbeat::decode(&message.payload).unwrap());
                if noted.acknowledges.load(Ordering::SeqCst) {
                    let ack = HeartbeatAck { v: 1, publisher: NodeId::from("p1") };
                    bus.publish(message.reply.unwrap(), None, None, ack.encode()).await.unwrap();
                }
            }
        });
        publisher
    }

    /// Starts the edge.
    pub(crate) async fn start(self, change: impl FnOnce(&mut Config)) -> World {
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            heartbeat: Duration::from_millis(50),
            drain_window: Duration::from_secs(1),
            ..Config::default()
        };
        change(&mut config);
        let (drain, health, mut registry) = (Drain::new(), Health::new(), Registry::default());
        let bus = Bus::connect(&self.server, edge::PART, &self.rest).await.unwrap();
        let host = Host { bus, health: health.clone(), registry: &mut registry, drain: drain.clone() };
        let edge = Edge::start(config, rules(), &HistoryConfig::default(), host).await.unwrap();
        let Self { bus, rest, .. } = self;
        World { edge, health, drain, registry, bus, ids: MessageIds::random(), rest }
    }
}

/// Answers token checks by the text of the token.
async fn serve_tokens(bus: &Bus, rest: &Drain) {
    let queue = Some(subject::VERIFY_QUEUE);
    let mut questions = bus.subscribe(subject::VERIFY, queue, PATIENCE).await.unwrap();
    bus.barrier(PATIENCE).await.unwrap();
    let bus = bus.clone();
    spawn(rest, async move {
        while let Some(question) = questions.next().await {
            let request = VerifyRequest::decode(&question.payload).unwrap();
            if let Some(answer) = answer(&request) {
                bus.publish(question.reply.unwrap(), None, None, answer).await.unwrap();
            }
        }
    });
}

fn spawn(rest: &Drain, work: impl Future<Output = ()> + Send + 'static) {
    let leaving = rest.token();
    rest.spawn("auth-adapter", async move {
        tokio::select! { () = work => {}, () = leaving.cancelled() => {} }
    });
}

fn answer(request: &VerifyRequest) -> Option<Bytes> {
    let verdict = match request.token.split_once('-') {
        // The uid is the group; an adapter that remembers says so until it is asked for something newer.
        Some(("member", group)) => of_groups(group, &[group]),
        Some(("stranger", uid)) => of_groups(uid, &[]),
        Some(("remembered", group)) if request.newer_than_ms.is_none() => of_groups(group, &[group]),
        Some(("remembered", uid)) => of_groups(uid, &[]),
        Some(("odd", group)) => of_groups(group, &["", group, "a\nb"]),
        Some(("user", uid)) => Verdict::Known(Login::of(uid)),
        Some(("short", uid)) => Verdict::Known(Login { expires_in_ms: Some(100), ..Login::of(uid) }),
        Some(("away", why)) => Verdict::Unavailable { reason: why.to_owned() },
        Some(("rubbish", text)) => return Some(text.to_owned().into()),
        Some(("silent", _)) => return None,
        Some(_) | None => Verdict::Unknown,
    };
    Some(VerifyReply { v: 1, verdict }.encode())
}

fn of_groups(uid: &str, groups: &[&str]) -> Verdict {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Verdict::Known(Login { groups, ..Login::of(uid) })
}

fn rules() -> Arc<Rules> {
    let mut rules = default_rules();
    let (name, channel) = ("@broadcast".into(), "broadcast".into());
    rules.push(RuleConfig { name, channel, login: false, history: false, member: None });
    let (name, channel) = ("{id}@open".into(), "open:{id}".into());
    rules.push(RuleConfig { name, channel, login: false, history: true, member: None });
    let (name, channel) = ("@club/{g}".into(), "club:{g}".into());
    rules.push(RuleConfig { name, channel, login: true, history: false, member: Some("g".into()) });
    Arc::new(Rules::compile(&rules).unwrap())
}

/// The heartbeats that a publisher has got from the edge.
#[derive(Default)]
pub(crate) struct Publisher {
    pub(crate) acknowledges: AtomicBool,
    heartbeats: Mutex<Vec<Heartbeat>>,
}

impl Publisher {
    pub(crate) fn heartbeats(&self) -> Vec<Heartbeat> {
        self.heartbeats.lock().unwrap().clone()
    }

    /// Returns the announced states, each once for as long as it lasted.
    pub(crate) fn states(&self) -> Vec<EdgeState> {
        let mut states: Vec<_> = self.heartbeats().iter().map(|heartbeat| heartbeat.state).collect();
        states.dedup();
        states
    }
}

impl World {
    /// Starts an edge without publishers, and waits until it is ready.
    pub(crate) async fn ready(change: impl FnOnce(&mut Config)) -> Self {
        let world = Ground::new().await.start(change).await;
        soon("the edge is ready", world.health.wait_ready()).await;
        world
    }

    /// Starts an auth-adapter.
    pub(crate) async fn serve_tokens(&self) {
        serve_tokens(&self.bus, &self.rest).await;
    }

    /// Publishes a text. Returns the message's id.
    pub(crate) async fn publish(&self, channel: &str, text: &str) -> MessageId {
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let message = LiveMessage { id: self.ids.next(), kind: Kind::Text, payload };
        self.send(channel, &message).await;
        message.id
    }

    pub(crate) async fn send(&self, channel: &str, message: &LiveMessage) {
        let subject = subject::live(&Channel::parse(channel).unwrap(), 1);
        let headers = Some(message.headers());
        self.bus.publish(subject, None, headers, message.payload.clone()).await.unwrap();
    }

    /// Asks about messages.
    pub(crate) async fn ask(&self, ids: &[MessageId]) -> Answer {
        let ask = Ask { v: 1, ids: ids.to_vec(), stored: vec![] };
        let answer = self.bus.request(subject::ASK, ask.encode(), PATIENCE).await.unwrap();
        Answer::decode(&answer.payload).unwrap()
    }

    /// Returns how many sessions a user has.
    pub(crate) async fn sessions_of(&self, user: &str) -> u64 {
        let question = Control { v: 1, command: Command::Sessions { users: vec![user.to_owned()] } };
        let answer = self.bus.request(subject::CONTROL_ALL, question.encode(), PATIENCE).await.unwrap();
        ControlAnswer::decode(&answer.payload).unwrap().users[0].sessions
    }

    /// Returns to how many sessions a message went, and for how many it failed.
    pub(crate) async fn counts(&self, id: MessageId) -> (u64, u64) {
        let counts = self.ask(&[id]).await.counts[0].unwrap();
        (counts.sessions, counts.failed)
    }

    /// Returns the sum of a metric over the lines that contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        metrics::sum(&metrics::text(&self.registry), name, label) as u64
    }

    /// Ends everything and checks that nothing is left.
    pub(crate) async fn end(self) {
        eventually("all sessions have ended", || self.edge.sessions() == 0).await;
        // A fetch may still be ending.
        eventually("nothing is left of them", || self.edge.channels_and_users() == (0, 0)).await;
        assert_eq!(self.drain.finish(PATIENCE).await, 0, "the edge left tasks behind");
        assert_eq!(self.rest.finish(PATIENCE).await, 0, "the bus left tasks behind");
    }
}
