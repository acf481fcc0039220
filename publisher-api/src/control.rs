//! Asks and commands all edges about users, and gathers their answers.
//!
//! Every question ends, at the latest when the deadline has passed, and says which edges are missing. An
//! answer that does not fit the question counts as none.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use shared::bans::{self, BanError, Bans};
use shared::bus::Bus;
use shared::bus::async_nats::{Message, StatusCode};
use shared::clock;
use shared::ids::{NodeId, Uid};
use shared::log_throttle::LogThrottle;
use shared::subject;
use shared::wire::{
    Ban, Command, Control as Wire, ControlAnswer, Envelope as _, StoredAt, UserAnswer, VERSION,
};

use crate::edges::Edges;
use crate::edges::awaited::Awaited;
use crate::error::Refusal;
use crate::keys::Caller;
use crate::metrics::{Loss, Metrics};
use crate::shares::{Share, Shares};

/// How long storing a ban may take.
const DENY_DEADLINE: Duration = Duration::from_secs(5);

/// Bounds of questions about users.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Questions at a time.
    pub(crate) at_a_time: usize,
    /// How long one waits for a bus that is away.
    pub(crate) bus_wait: Duration,
    /// How long an edge may take to answer.
    pub(crate) deadline: Duration,
}

/// Asks the edges.
#[derive(Debug)]
pub(crate) struct Control {
    bus: Bus,
    edges: Arc<Edges>,
    slots: Arc<Shares>,
    limits: Limits,
    bans: Bans,
    complaints: LogThrottle,
    metrics: Arc<Metrics>,
}

/// The answers of the edges.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// One entry an edge that answered. Each has one answer a user, in the order of the question.
    pub(crate) answers: Vec<(NodeId, Vec<UserAnswer>)>,
    /// How many edges there are or may be.
    pub(crate) expected: usize,
    /// The edges that did not answer.
    pub(crate) missing: Vec<NodeId>,
    /// Whether every edge answered, and no other can exist.
    pub(crate) complete: bool,
}

impl Control {
    pub(crate) fn new(
        bus: Bus,
        edges: Arc<Edges>,
        limits: Limits,
        bans: Bans,
        metrics: Arc<Metrics>,
    ) -> Self {
        let slots = Shares::new(limits.at_a_time);
        Self { bus, edges, slots, limits, bans, complaints: LogThrottle::default(), metrics }
    }

    /// Stores a ban: for how long this user may not log in. 0 ends a ban. Edges that start later read the
    /// list of bans.
    ///
    /// # Errors
    /// Codes 107 and 108. After 108 the ban may be stored all the same.
    pub(crate) async fn deny(
        &self,
        caller: &Caller,
        uid: &Uid,
        reason: Option<&str>,
        time: Duration,
    ) -> Result<StoredAt, Refusal> {
        let _slot = self.slot(caller)?;
        self.bus.connected(self.limits.bus_wait).await.map_err(|_| Refusal::Unavailable)?;
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // A ban that ended is in the past for every clock.
        let until_ms = if time == 0 { 0 } else { clock::unix_ms().saturating_add(time) };
        let ban =
            Ban { v: VERSION, uid: uid.as_str().to_owned(), until_ms, reason: reason.map(str::to_owned) };
        match self.bans.store(uid, &ban, self.bus.awake().now() + DENY_DEADLINE).await {
            Ok(seq) => Ok(StoredAt { seq, until_ms }),
            Err(error @ BanError::Full) => {
                if let Some(users) = self.complaints.due() {
                    tracing::error!(%error, users, "users can't be kept out");
                }
                Err(Refusal::TooMany { what: "users who may not log in", limit: bans::MAX_BANNED })
            }
            Err(error @ BanError::NoSpace) => {
                if let Some(users) = self.complaints.due() {
                    tracing::error!(%error, users, "users can't be kept out");
                }
                Err(Refusal::StoreFull)
            }
            Err(BanError::Api(error)) => {
                if let Some(users) = self.complaints.due() {
                    tracing::warn!(%error, users, "the list of those who may not log in can't be written");
                }
                Err(Refusal::NoList)
            }
        }
    }

    fn slot(&self, caller: &Caller) -> Result<Share, Refusal> {
        let limit = self.limits.at_a_time;
        self.slots.take(&caller.owner()).map_err(|none| caller.no_slot(none, "questions", limit))
    }

    /// Puts a question or a command about `users` users to every edge.
    ///
    /// # Errors
    /// Codes 107 and 108. After 108, some edges may have heard the question all the same.
    pub(crate) async fn ask(
        &self,
        caller: &Caller,
        command: Command,
        users: usize,
    ) -> Result<Gathered, Refusal> {
        let _slot = self.slot(caller)?;
        self.bus.connected(self.limits.bus_wait).await.map_err(|_| Refusal::Unavailable)?;
        let expected = self.edges.expected();
        if expected.nobody() {
            return Ok(Gathered { complete: true, ..Gathered::default() });
        }
        let deadline = self.bus.awake().now() + self.limits.deadline;
        let inbox = self.bus.new_inbox();
        let subscribed = self.bus.subscribe(inbox.clone(), None, self.limits.bus_wait).await;
        let mut answers = subscribed.map_err(|_| Refusal::Unavailable)?;
        let question = Wire { v: VERSION, command }.encode();
        let sent = self.bus.publish(subject::CONTROL_ALL, Some(inbox), None, question).await;
        sent.map_err(|_| Refusal::Unavailable)?;
        let (mut awaited, mut gathered) = (Awaited::new(expected), Gathered::default());
        while !awaited.is_done() {
            match self.bus.awake().timeout_at(deadline, answers.next()).await {
                Ok(Some(message)) => self.take(&message, users, &mut awaited, &mut gathered),
                Ok(None) | Err(_) => break,
            }
        }
        gathered.expected = awaited.expected();
        gathered.missing = awaited.missing();
        gathered.complete = awaited.is_whole();
        if !gathered.complete {
            tracing::debug!(missing = ?gathered.missing, "not every edge answered a question about users");
        }
        Ok(gathered)
    }

    fn take(&self, message: &Message, users: usize, awaited: &mut Awaited, gathered: &mut Gathered) {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return awaited.on_nobody();
        }
        match ControlAnswer::decode(&message.payload) {
            Ok(answer) if answer.users.len() == users => {
                self.edges.on_answer(&answer.edge);
                if awaited.on_answer(&answer.edge) {
                    gathered.answers.push((answer.edge, answer.users));
                } else {
                    self.metrics.lost(Loss::LateAnswer);
                }
            }
            Ok(_) | Err(_) => {
                self.metrics.lost(Loss::BadAnswer);
                tracing::debug!("dropped an answer about users that can't be read or does not fit");
            }
        }
    }
}
