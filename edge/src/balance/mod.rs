//! Moves sessions to edges that have fewer, and sessions of old connections, a few a second.
//!
//! Each edge knows the others' numbers of sessions from their heartbeats, and sends away what it has above
//! the average; `plan` decides. Sessions that recover go first: their clients are told beforehand, open the
//! new connection, and miss nothing. Among them the oldest sessions go first, so that none moves twice while
//! others stay.

mod plan;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use shared::bus::async_nats::Subscriber;
use shared::bus::{self, RequestError};
use shared::subject;
use shared::wire::{Envelope as _, Heartbeat};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

pub use plan::{BalanceConfig, Movable};

use crate::code::CloseCode;
use crate::hub::Choice;
use crate::metrics::{Loss, MoveReason};
use crate::node::Node;
use crate::session_handle::SessionHandle;
use plan::{LOOK, Plan};

/// How long a client has to open another connection, if it can make use of the time.
const LEAD: Duration = Duration::from_secs(2);

/// A session that was asked to move, and when the edge closes its connection.
#[derive(Debug)]
struct Going {
    at: Instant,
    handle: Arc<SessionHandle>,
}

/// Spreads sessions over the edges.
#[derive(Debug)]
pub(crate) struct Balancer {
    node: Node,
    config: BalanceConfig,
    plan: Plan,
    /// Sessions on their way, the next to be closed first.
    going: VecDeque<Going>,
}

impl Balancer {
    /// Follows the heartbeats of the other edges, which come every `heartbeat`, until this edge leaves.
    pub(crate) async fn start(
        node: &Node,
        config: BalanceConfig,
        heartbeat: Duration,
    ) -> Result<(), RequestError> {
        let heartbeats = node.bus.subscribe(subject::PEERS.to_owned(), None, bus::DEADLINE).await?;
        let plan = Plan::new(config.clone(), heartbeat, node.bus.awake().now());
        let balancer = Self { node: node.clone(), config, plan, going: VecDeque::new() };
        let state = (balancer, heartbeats);
        node.drain.supervise_useful("edge-balance", state, |(balancer, heartbeats)| {
            Box::pin(balancer.run(heartbeats))
        });
        Ok(())
    }

    async fn run(&mut self, heartbeats: &mut Subscriber) {
        let begun = self.node.drain.clone();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = self.going.front().map(|going| going.at);
            tokio::select! {
                Some(message) = heartbeats.next() => self.on_heartbeat(&message.payload),
                _ = looks.tick() => self.look(Instant::now()),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.close_next(),
                // The drain sends all sessions away, at its own pace.
                () = begun.begun() => return,
            }
        }
    }

    fn on_heartbeat(&mut self, payload: &[u8]) {
        match Heartbeat::decode(payload) {
            Ok(heartbeat) if heartbeat.edge == self.node.id => {}
            Ok(heartbeat) => self.plan.on_heartbeat(&heartbeat, self.node.bus.awake().now()),
            Err(error) => {
                self.node.metrics.lost(Loss::BadHeartbeat, 1);
                tracing::debug!(%error, "dropped a heartbeat that can't be read");
            }
        }
    }

    fn look(&mut self, now: Instant) {
        let own = self.node.hub.sessions().saturating_sub(self.going.len());
        let rested = self.plan.resting();
        // The silence of other edges is measured on this clock.
        let counted = self.node.bus.awake().now();
        let excess = self.plan.excess(own, counted);
        if let Some(until) = self.plan.resting().filter(|until| Some(*until) != rested) {
            tracing::warn!(
                rest = ?until.duration_since(counted),
                "asking sessions to move makes the edges no more even, so it rests: an edge gets no connections, or the load \
                 balancer brings everybody back"
            );
        }
        self.node.metrics.other_edges.set(i64::try_from(self.plan.others()).unwrap_or(i64::MAX));
        let (most, age) = (self.plan.allowance(own, counted), self.config.max_connection_age);
        if most > 0 && !age.is_zero() {
            self.ask_to_go(&Choice { most, plain: true, older_than: Some(age) }, MoveReason::Age, now);
        }
        let most = excess.min(self.plan.allowance(own, counted));
        if most > 0 && self.config.sessions != Movable::None {
            let plain = self.config.sessions == Movable::All;
            self.ask_to_go(&Choice { most, plain, older_than: None }, MoveReason::Uneven, now);
        }
    }

    fn ask_to_go(&mut self, choice: &Choice, reason: MoveReason, now: Instant) {
        let chosen = self.node.hub.choose(choice, now);
        self.plan.take(chosen.len());
        if reason == MoveReason::Uneven {
            self.plan.gave(chosen.len());
        }
        self.node.metrics.moved(reason, chosen.len());
        if !chosen.is_empty() {
            tracing::debug!(sessions = chosen.len(), ?reason, "asked to move");
        }
        let pause = LOOK / u32::try_from(chosen.len().max(1)).unwrap_or(u32::MAX);
        for (index, handle) in (0_u32..).zip(chosen) {
            let at = now + LEAD + pause * index;
            handle.outbox.announce_close(at);
            self.going.push_back(Going { at, handle });
        }
    }

    fn close_next(&mut self) {
        if let Some(going) = self.going.pop_front() {
            going.handle.outbox.close(CloseCode::Leaving);
        }
    }
}
