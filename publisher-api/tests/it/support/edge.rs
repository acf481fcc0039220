//! An edge played by the test, which listens, sends heartbeats and answers as the test says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use shared::bus::async_nats::Message;
use shared::bus::{self, Bus, BusServer};
use shared::drain::Drain;
use shared::ids::{MessageId, NodeId};
use shared::subject::{self, Live};
use shared::wire::{
    Answer, Ask, Command, Control, ControlAnswer, Counts, EdgeState, Envelope as _, Heartbeat, HeartbeatAck,
    LiveMessage, StoredRef, UserAnswer,
};

use super::{HEARTBEAT, PATIENCE, eventually};

/// The behaviour of an edge, and the messages and asks that it has received.
#[derive(Debug)]
pub(crate) struct State {
    /// Whether the edge sends heartbeats.
    pub(crate) speaks: AtomicBool,
    /// Whether the edge answers asks.
    pub(crate) answers: AtomicBool,
    /// Whether the edge reads messages at all.
    pub(crate) listens: AtomicBool,
    pub(crate) asks: AtomicUsize,
    acks: AtomicUsize,
    sessions: Mutex<HashMap<String, Counts>>,
    counted: Mutex<HashMap<MessageId, Counts>>,
    /// The stored messages about which the edge was asked, in order.
    stored: Mutex<Vec<StoredRef>>,
    /// The asks that came while the edge did not answer.
    held: Mutex<Vec<Message>>,
    seen: Mutex<Vec<(String, LiveMessage)>>,
}

/// A running edge. It runs until the test lets it leave or crash.
pub(crate) struct FakeEdge {
    pub(crate) state: Arc<State>,
    id: NodeId,
    bus: Bus,
    drain: Drain,
}

impl FakeEdge {
    /// Starts an edge. If it `speaks`, the publishers know the edge afterwards.
    pub(crate) async fn start(server: &BusServer, id: &str, speaks: bool) -> Self {
        let drain = Drain::new();
        let bus = Bus::connect(server, "edge", &drain).await.unwrap();
        bus.connected(PATIENCE).await.unwrap();
        let state = Arc::new(State {
            speaks: AtomicBool::new(speaks),
            answers: AtomicBool::new(true),
            listens: AtomicBool::new(true),
            asks: AtomicUsize::new(0),
            acks: AtomicUsize::new(0),
            sessions: Mutex::default(),
            counted: Mutex::default(),
            stored: Mutex::default(),
            held: Mutex::default(),
            seen: Mutex::default(),
        });
        let edge = Self { state, id: id.into(), bus, drain };
        edge.listen().await;
        edge.speak().await;
        edge.bus.barrier(PATIENCE).await.unwrap();
        if speaks {
            eventually("a publisher acknowledges a heartbeat", || edge.acks() > 0).await;
        }
        edge
    }

    /// Sets how many sessions subscribe to the channel, and how many of these fail to take a message.
    pub(crate) fn holds(&self, channel: &str, sessions: u64, failed: u64) {
        self.state.sessions.lock().unwrap().insert(channel.to_owned(), Counts { sessions, failed });
    }

    /// Answers all asks that came while the edge did not answer, and every ask from now on.
    pub(crate) async fn thaw(&self) {
        self.state.answers.store(true, Ordering::SeqCst);
        let held = std::mem::take(&mut *self.state.held.lock().unwrap());
        for message in held {
            answer(&self.bus, &self.id, &self.state, message).await;
        }
    }

    /// Returns the messages that arrived, in order.
    pub(crate) fn seen(&self) -> Vec<(String, LiveMessage)> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Returns the stored messages about which the edge was asked, in order.
    pub(crate) fn asked_about(&self) -> Vec<StoredRef> {
        self.state.stored.lock().unwrap().clone()
    }

    pub(crate) fn acks(&self) -> usize {
        self.state.acks.load(Ordering::SeqCst)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.bus.is_connected()
    }

    /// Leaves in order, with a goodbye.
    pub(crate) async fn leave(self) {
        self.state.speaks.store(false, Ordering::SeqCst);
        let bye = heartbeat(&self.id, EdgeState::Bye);
        self.bus.publish(subject::HEARTBEAT, None, None, bye).await.unwrap();
        self.bus.barrier(PATIENCE).await.unwrap();
        self.crash().await;
    }

    /// Leaves without a goodbye.
    pub(crate) async fn crash(self) {
        assert_eq!(self.drain.finish(PATIENCE).await, 0);
    }

    async fn listen(&self) {
        let mut feed = self.bus.subscribe(subject::LIVE_ALL, None, bus::DEADLINE).await.unwrap();
        let mut orders = self.bus.subscribe(subject::CONTROL_ALL, None, bus::DEADLINE).await.unwrap();
        let (bus, id, state) = (self.bus.clone(), self.id.clone(), Arc::clone(&self.state));
        let leaving = self.drain.token();
        self.drain.spawn("edge", async move {
            let work = async {
                loop {
                    tokio::select! {
                        Some(message) = feed.next() => on_message(&bus, &id, &state, message).await,
                        Some(message) = orders.next() => on_order(&bus, &id, &state, message).await,
                        else => return,
                    }
                }
            };
            tokio::select! { () = work => {}, () = leaving.cancelled() => {} }
        });
    }

    async fn speak(&self) {
        let inbox = self.bus.new_inbox();
        let mut acks = self.bus.subscribe(inbox.clone(), None, bus::DEADLINE).await.unwrap();
        let (bus, id, state) = (self.bus.clone(), self.id.clone(), Arc::clone(&self.state));
        let leaving = self.drain.token();
        self.drain.spawn("edge", async move {
            let mut beat = tokio::time::interval(HEARTBEAT / 2);
            loop {
                tokio::select! {
                    _ = beat.tick() => if state.speaks.load(Ordering::SeqCst) {
                        let heartbeat = heartbeat(&id, EdgeState::Serving);
                        // The bus may be away; the next heartbeat comes soon.
                        let _ = bus.publish(subject::HEARTBEAT, Some(inbox.clone()), None, heartbeat).await;
                    },
                    Some(ack) = acks.next() => if HeartbeatAck::decode(&ack.payload).is_ok() {
                        state.acks.fetch_add(1, Ordering::SeqCst);
                    },
                    () = leaving.cancelled() => return,
                }
            }
        });
    }
}

fn heartbeat(edge: &NodeId, state: EdgeState) -> Bytes {
    Heartbeat { v: 1, edge: edge.clone(), state, sessions: 0, rules: String::new() }.encode()
}

async fn on_message(bus: &Bus, id: &NodeId, state: &State, message: Message) {
    match subject::parse_live(&message.subject) {
        Some(Live::Message { channel, .. }) if state.listens.load(Ordering::SeqCst) => {
            let live = LiveMessage::decode(message.headers.as_ref(), message.payload.clone()).unwrap();
            let counts = state.sessions.lock().unwrap().get(&*channel).copied().unwrap_or_default();
            state.counted.lock().unwrap().insert(live.id, counts);
            state.seen.lock().unwrap().push((channel.into_owned(), live));
        }
        Some(Live::Ask) => {
            state.asks.fetch_add(1, Ordering::SeqCst);
            if state.answers.load(Ordering::SeqCst) {
                answer(bus, id, state, message).await;
            } else {
                state.held.lock().unwrap().push(message);
            }
        }
        Some(Live::Message { .. }) | None => {}
    }
}

/// Answers a command. A user has the sessions of the user's channel, which all logged in at the same moment.
async fn on_order(bus: &Bus, id: &NodeId, state: &State, message: Message) {
    if !state.answers.load(Ordering::SeqCst) {
        return;
    }
    let (users, deny) = match Control::decode(&message.payload).unwrap().command {
        Command::Sessions { users } | Command::Refresh { users, .. } => (users, None),
        Command::Disconnect { users, deny_for_ms, .. } => (users, deny_for_ms),
    };
    let answer = |user: &String| {
        let counts = state.sessions.lock().unwrap().get(&format!("user:{user}")).copied().unwrap_or_default();
        let since = vec![1_700_000_000_123; counts.sessions as usize];
        UserAnswer { sessions: counts.sessions, since, denied: deny.is_some_and(|time| time > 0) }
    };
    let answer = ControlAnswer { v: 1, edge: id.clone(), users: users.iter().map(answer).collect() };
    let _ =
        bus.publish(message.reply.expect("an order says where to answer"), None, None, answer.encode()).await;
}

async fn answer(bus: &Bus, id: &NodeId, state: &State, message: Message) {
    let ask = Ask::decode(&message.payload).unwrap();
    let counts = {
        let counted = state.counted.lock().unwrap();
        ask.ids.iter().map(|id| counted.get(id).copied()).collect()
    };
    let stored = {
        let sessions = state.sessions.lock().unwrap();
        let of = |place: &StoredRef| Some(sessions.get(place.channel.as_str()).copied().unwrap_or_default());
        ask.stored.iter().map(of).collect()
    };
    state.stored.lock().unwrap().extend(ask.stored);
    let answer = Answer { v: 1, edge: id.clone(), counts, stored }.encode();
    // The bus may be away.
    let _ = bus.publish(message.reply.expect("an ask says where to answer"), None, None, answer).await;
}
