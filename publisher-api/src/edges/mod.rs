//! Keeps the roster of edges up to date, and says when the roster can be relied on.
//!
//! A heartbeat is noted before it is acknowledged. An edge takes its first client only after the
//! acknowledgement, so no client is ever at an edge that is not asked. Readiness follows the bus and the
//! roster. Time is that of [`Bus::awake`]: no edge counts as silent while this process does not run to hear
//! it.

pub(crate) mod awaited;
pub(crate) mod roster;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use shared::bus::async_nats::{Message, Subscriber};
use shared::bus::{self, Bus, BusState, RequestError};
use shared::drain::Drain;
use shared::health::Health;
use shared::ids::NodeId;
use shared::part::proof::{self, Proof};
use shared::part::ready::{GONE, Grace, LEAVING, UNREACHED};
use shared::subject;
use shared::wire::{Envelope as _, Heartbeat, HeartbeatAck};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Loss, Metrics};
use roster::{Change, Expected, Lapse, Roster, Times};

/// The name of this part in logs, readiness and bus connections.
pub const PART: &str = "publisher-api";

/// How often in a heartbeat interval to look for silent edges.
const SWEEPS: u32 = 4;

/// The edges that publishers have to ask.
#[derive(Debug)]
pub(crate) struct Edges {
    id: NodeId,
    /// The lock is held only for operations of the roster, never across an await.
    roster: Mutex<Roster>,
    bus: Bus,
    state: watch::Receiver<BusState>,
    times: Times,
    /// Digest of the channel rules here.
    rules: String,
    metrics: Arc<Metrics>,
}

impl Edges {
    /// Listens for heartbeats from now on, until `stop`.
    pub(crate) async fn start(
        bus: &Bus,
        times: Times,
        rules: String,
        metrics: Arc<Metrics>,
        drain: &Drain,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, RequestError> {
        let heartbeats = bus.subscribe(subject::HEARTBEAT, None, bus::DEADLINE).await?;
        let edges = Arc::new(Self {
            id: NodeId::random(),
            roster: Mutex::new(Roster::new(times)),
            bus: bus.clone(),
            state: bus.state(),
            times,
            rules,
            metrics,
        });
        let weak = Arc::downgrade(&edges);
        drain.on_panic(move || {
            weak.upgrade()?
                .roster
                .is_poisoned()
                .then_some("the roster of edges, by which counts are complete")
        });
        let state = (Arc::clone(&edges), heartbeats, stop);
        drain.supervise("publisher-heartbeats", state, |(edges, heartbeats, stop)| {
            Box::pin(edges.listen(heartbeats, stop))
        });
        Ok(edges)
    }

    /// The edges that must answer an ask that is sent now.
    pub(crate) fn expected(&self) -> Expected {
        let state = *self.state.borrow();
        self.lock().expected(state, self.now())
    }

    /// Whether surely no edge exists: [`Expected::nobody`] of [`Edges::expected`], without the names.
    pub(crate) fn is_nobody(&self) -> bool {
        let state = *self.state.borrow();
        self.lock().is_nobody(state, self.now())
    }

    /// Notes that an edge answered, so it is live.
    pub(crate) fn on_answer(&self, edge: &NodeId) {
        let change = self.lock().on_sign(edge, self.now());
        self.tell(edge, change);
    }

    async fn listen(&self, heartbeats: &mut Subscriber, stop: &CancellationToken) {
        let mut sweep = tokio::time::interval(self.times.heartbeat / SWEEPS);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // First what has come, then the silent edges.
                biased;
                message = heartbeats.next() => match message {
                    Some(message) => self.on_heartbeat(message).await,
                    None => return tracing::error!("the bus client ended the subscription to heartbeats"),
                },
                _ = sweep.tick() => self.sweep(heartbeats).await,
                () = stop.cancelled() => return,
            }
        }
    }

    async fn on_heartbeat(&self, message: Message) {
        let heartbeat = match Heartbeat::decode(&message.payload) {
            Ok(heartbeat) => heartbeat,
            Err(error) => {
                self.metrics.lost(Loss::BadHeartbeat);
                return tracing::debug!(%error, "dropped a heartbeat that can't be read");
            }
        };
        let change = self.lock().on_heartbeat(&heartbeat, self.now());
        if change == Change::Appeared && heartbeat.rules != self.rules {
            tracing::warn!(
                edge = %heartbeat.edge,
                "this edge has other channel rules than this publisher; give all parts the same [[channels]]"
            );
        }
        self.tell(&heartbeat.edge, change);
        let Some(reply) = message.reply else { return };
        let ack = HeartbeatAck { v: shared::wire::VERSION, publisher: self.id.clone() };
        let acknowledged = self.bus.publish(reply, None, None, ack.encode());
        match tokio::time::timeout(self.times.heartbeat, acknowledged).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => self.metrics.lost(Loss::Acknowledgement),
        }
    }

    fn tell(&self, edge: &NodeId, change: Change) {
        match change {
            Change::None => return,
            Change::Appeared => tracing::info!(%edge, "an edge appeared"),
            Change::Returned => tracing::info!(%edge, "a silent edge is heard again"),
            Change::Left => tracing::info!(%edge, "an edge left"),
        }
        self.count();
    }

    async fn sweep(&self, heartbeats: &mut Subscriber) {
        if self.lock().is_lapsing(self.now()) {
            // The missing sign may be on its way through this connection. Everything that came before the
            // answer of the barrier is here then.
            let _ = self.bus.barrier(self.times.heartbeat).await;
            while let Some(Some(message)) = heartbeats.next().now_or_never() {
                self.on_heartbeat(message).await;
            }
        }
        let lapses = self.lock().sweep(self.now());
        for (edge, lapse) in &lapses {
            match lapse {
                Lapse::Silent => {
                    tracing::warn!(%edge, "an edge is silent: it is not waited for, and counts are incomplete");
                }
                Lapse::Forgotten => tracing::warn!(%edge, "a silent edge is taken for gone"),
            }
        }
        self.count();
    }

    fn count(&self) {
        let (live, silent) = self.lock().totals();
        self.metrics.edges(live, silent);
    }

    /// Proves the subscriptions after each connect and keeps the readiness of this part, until the drain.
    pub(crate) async fn keep_ready(&self, health: &Health, grace: Duration, drain: &Drain) {
        let (told, proof) = watch::channel(Proof::default());
        let prove = proof::keep(&self.bus, |proof| {
            if let Proof::Proved { connects } = proof {
                self.on_proved(connects);
            }
            told.send_replace(proof);
        });
        tokio::select! {
            biased;
            // First, since this tells the state from which the other one begins.
            () = prove => {}
            () = self.follow(proof, health, Grace::new(grace)) => {}
            () = drain.begun() => {}
        }
        health.unready(PART, LEAVING);
    }

    /// Notes a proof. One that the roster knows is older, and so is the certainty that follows from it.
    fn on_proved(&self, connects: u64) {
        let mut roster = self.lock();
        if roster.certain_from(connects).is_none() {
            roster.on_proved(connects, self.now());
        }
    }

    /// Tells `health` how far the proof is, and whether the edges had time to be heard since.
    async fn follow(&self, mut proof: watch::Receiver<Proof>, health: &Health, mut grace: Grace) {
        loop {
            let view = *proof.borrow_and_update();
            let again = match view {
                Proof::Unreached => {
                    health.unready(PART, UNREACHED);
                    None
                }
                Proof::Away => {
                    let grace_ends = grace.until(self.now());
                    if grace_ends.is_none() {
                        health.unready(PART, GONE);
                    }
                    grace_ends
                }
                Proof::Open { .. } => {
                    grace.end();
                    // Proved already if only this task was begun anew.
                    let connects = self.bus.state().borrow().connects;
                    if self.lock().certain_from(connects).is_none() {
                        health.unready(PART, "waiting for the heartbeats of the edges");
                    }
                    None
                }
                Proof::Proved { connects } => {
                    grace.end();
                    let (certain, now) = (self.lock().certain_from(connects), self.now());
                    if certain.is_some_and(|from| from <= now) {
                        health.ready(PART);
                    }
                    certain.filter(|from| *from > now)
                }
            };
            tokio::select! {
                changed = proof.changed() => if changed.is_err() { return },
                () = self.bus.awake().sleep_until_some(again) => {}
            }
        }
    }

    /// The time as it counts for edges.
    fn now(&self) -> Instant {
        self.bus.awake().now()
    }

    fn lock(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
