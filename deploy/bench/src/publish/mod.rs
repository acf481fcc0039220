//! Publishes over several connections at once, and counts the answers.
//!
//! Each connection is a lane, which numbers its messages by channel, because order is promised within one
//! connection only. The ledger lists the messages whose fate is unknown (refused, never answered), so that
//! the receivers take them neither for lost nor for superfluous.

mod http;
mod ws;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::args::Transport;
use crate::clock;
use crate::control::Ledger;
use crate::latency::Latency;
use crate::pace::{Pace, Ticket};
use crate::sequence::Sent;
use crate::stamp::Stamp;
use crate::target::Target;

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a lane waits before it connects again.
const PAUSE: Duration = Duration::from_millis(100);
/// The number of failed attempts to connect, in a row, after which the publisher counts as gone.
const MOST_FAILURES: u32 = 20;

/// The values and handles that all lanes share.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
    pub(crate) authorization: Option<String>,
    pub(crate) run: u32,
    /// Bytes of a message.
    pub(crate) payload: usize,
    /// The number of users, to whose channels messages go in turn. `None`: messages go to the broadcast
    /// channel.
    pub(crate) users: Option<u64>,
    /// The broadcast channel.
    pub(crate) channel: String,
    pub(crate) pace: Arc<Pace>,
    /// Ends the lanes at once.
    pub(crate) stop: CancellationToken,
    pub(crate) live: LiveCounts,
}

/// Counts while the lanes run.
#[derive(Debug, Default)]
pub(crate) struct LiveCounts {
    pub(crate) sent: AtomicU64,
    pub(crate) answered: AtomicU64,
    /// Cancelled when the publisher counts as gone.
    pub(crate) gone: CancellationToken,
}

/// The outcome of publishing.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Messages that were answered with counts.
    pub(crate) accepted: u64,
    /// Messages that were refused, by code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Messages that were never answered.
    pub(crate) unanswered: u64,
    /// Connections that broke or did not come up, by reason.
    pub(crate) broken: BTreeMap<String, u64>,
    /// Answers whose counts were not complete.
    pub(crate) incomplete: u64,
    /// Sum of `s` of all answers.
    pub(crate) sessions: u64,
    /// Sum of `f` of all answers.
    pub(crate) failed: u64,
    /// Times from the moment at which a message was due until its answer came.
    pub(crate) answer: Latency,
    pub(crate) ledger: Ledger,
}

impl Outcome {
    fn new() -> Self {
        Self {
            accepted: 0,
            refused: BTreeMap::new(),
            unanswered: 0,
            broken: BTreeMap::new(),
            incomplete: 0,
            sessions: 0,
            failed: 0,
            answer: Latency::new(),
            ledger: Ledger::new(),
        }
    }

    fn add(&mut self, lane: Self) {
        self.accepted += lane.accepted;
        self.unanswered += lane.unanswered;
        self.incomplete += lane.incomplete;
        self.sessions += lane.sessions;
        self.failed += lane.failed;
        self.answer.merge(&lane.answer.recorded());
        lane.refused.into_iter().for_each(|(why, count)| *self.refused.entry(why).or_default() += count);
        lane.broken.into_iter().for_each(|(why, count)| *self.broken.entry(why).or_default() += count);
        for (channel, sent) in lane.ledger {
            self.ledger.entry(channel).or_default().extend(sent);
        }
    }
}

/// Publishes over `connections` lanes until there are no more tickets. `window`: how many messages without an
/// answer a WebSocket may have.
pub(crate) async fn run(task: &Arc<Task>, via: Transport, connections: u16, window: usize) -> Outcome {
    let mut lanes = JoinSet::new();
    for number in 0..connections {
        let lane = Lane::new(Arc::clone(task), number);
        match via {
            Transport::Http => lanes.spawn(http::run(lane)),
            Transport::Ws => lanes.spawn(ws::run(lane, window)),
        };
    }
    let mut outcome = Outcome::new();
    while let Some(lane) = lanes.join_next().await {
        match lane {
            Ok(lane) => outcome.add(lane),
            Err(error) => *outcome.broken.entry(error.to_string()).or_default() += 1,
        }
    }
    // A message that was due and never sent has waited at least until now. Without these messages the
    // percentiles would be too good.
    let now = clock::now();
    task.pace.untaken(now).into_iter().for_each(|intended| outcome.answer.record(now - intended));
    outcome
}

/// A message without an answer yet.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    intended: u64,
    channel: u64,
    number: u64,
}

/// One publishing connection, and the outcome of its messages.
struct Lane {
    task: Arc<Task>,
    number: u16,
    sent: HashMap<u64, Sent>,
    outcome: Outcome,
    failures: u32,
}

/// The answer to a publish, in the shape of connmix.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(rename = "E")]
    error: Option<ErrorCode>,
    r: Option<Counts>,
    i: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct ErrorCode {
    c: u16,
}

#[derive(Debug, Deserialize)]
struct Counts {
    s: u64,
    f: u64,
    complete: Option<bool>,
}

impl Lane {
    fn new(task: Arc<Task>, number: u16) -> Self {
        Self { task, number, sent: HashMap::new(), outcome: Outcome::new(), failures: 0 }
    }

    /// Makes the message of a ticket, and the parameters that publish it: `{"c":…,"d":…}`.
    fn message(&mut self, ticket: Ticket) -> (InFlight, String) {
        let channel = self.task.users.map_or(0, |users| ticket.number % users + 1);
        let lane = self.number;
        let sent = self.sent.entry(channel).or_insert_with(|| Sent { lane, ..Sent::default() });
        sent.last += 1;
        let open = InFlight { intended: ticket.intended, channel, number: sent.last };
        let stamp = Stamp { run: self.task.run, lane, number: open.number, intended: ticket.intended };
        let d = stamp.payload(self.task.payload);
        self.task.live.sent.fetch_add(1, Ordering::Relaxed);
        let text = match channel {
            0 => format!(r#"{{"c":{},"d":"{d}"}}"#, serde_json::Value::from(self.task.channel.as_str())),
            user => format!(r#"{{"c":"user:{user}","d":"{d}"}}"#),
        };
        (open, text)
    }

    /// Counts an answer.
    fn answered(&mut self, open: InFlight, answer: &Answer, complete: bool) {
        self.took(open);
        match answer {
            Answer { error: None, r: Some(counts), .. } => {
                self.outcome.accepted += 1;
                self.outcome.sessions += counts.s;
                self.outcome.failed += counts.f;
                self.outcome.incomplete += u64::from(!complete || counts.complete == Some(false));
            }
            Answer { error: Some(error), .. } => self.refused(open, error.c.to_string()),
            Answer { error: None, r: None, .. } => self.refused(open, "no counts".into()),
        }
    }

    fn refused(&mut self, open: InFlight, code: String) {
        *self.outcome.refused.entry(code).or_default() += 1;
        self.uncertain(open);
    }

    /// Counts a message that will have no answer.
    fn unanswered(&mut self, open: InFlight) {
        self.outcome.unanswered += 1;
        self.took(open);
        self.uncertain(open);
    }

    /// Records the time until the answer or, without an answer, the time waited so far.
    fn took(&mut self, open: InFlight) {
        self.task.live.answered.fetch_add(1, Ordering::Relaxed);
        self.outcome.answer.record(clock::now().saturating_sub(open.intended));
    }

    fn uncertain(&mut self, open: InFlight) {
        if let Some(sent) = self.sent.get_mut(&open.channel) {
            sent.uncertain.push(open.number);
        }
    }

    /// Calls `connect` until it succeeds. `None`: the run was stopped, or the publisher counts as gone.
    async fn connected<T, E, F>(&mut self, connect: impl Fn() -> F + Send) -> Option<T>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>> + Send,
    {
        let stop = self.task.stop.clone();
        loop {
            let attempt = tokio::select! {
                () = stop.cancelled() => return None,
                attempt = timeout(CONNECT, connect()) => attempt,
            };
            match attempt {
                Ok(Ok(connection)) => {
                    self.failures = 0;
                    return Some(connection);
                }
                Ok(Err(error)) => self.broke(&error.to_string()),
                Err(_) => self.broke("connect: no answer in time"),
            }
            self.failures += 1;
            if self.failures >= MOST_FAILURES {
                self.task.live.gone.cancel();
                return None;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn broke(&mut self, why: &str) {
        *self.outcome.broken.entry(why.to_owned()).or_default() += 1;
    }

    fn end(mut self) -> Outcome {
        for (channel, mut sent) in self.sent.drain() {
            sent.uncertain.sort_unstable();
            self.outcome.ledger.entry(channel).or_default().push(sent);
        }
        self.outcome
    }
}
