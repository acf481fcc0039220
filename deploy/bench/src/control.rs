//! The messages between the tool and its client processes: JSON, one object per line, over standard input and
//! output.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::latency::Recorded;
use crate::sequence::Sent;

/// The published messages by channel, and within a channel by publishing connection. Channel 0 is the
/// broadcast channel; channel `n` is that of user `n`.
pub(crate) type Ledger = BTreeMap<u64, Vec<Sent>>;

/// An instruction to a client process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Instruction {
    /// Open these sessions, and report when all are open or refused.
    Open(Open),
    /// Close all sessions, and report.
    Close,
    /// Wait for the missing messages of the ledger, at most for the given time, and report.
    Finish {
        /// The messages that were published.
        ledger: Ledger,
        /// How long to wait, in milliseconds.
        settle_ms: u64,
    },
}

/// Which sessions a client process is to open, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    /// The URL of the edge.
    pub(crate) url: String,
    /// The address of the edge.
    pub(crate) address: SocketAddr,
    /// The number that the messages of this run carry.
    pub(crate) run: u32,
    /// The number of the first session to open; the first session of the run has number 0.
    pub(crate) first: u64,
    /// How many sessions to open.
    pub(crate) sessions: u64,
    /// How many users the run has; session `n` logs in as user `n % users + 1`.
    pub(crate) users: u64,
    /// The token, with `{uid}` where the user's number stands.
    pub(crate) token: String,
    /// The name to which each session subscribes.
    pub(crate) subscribe: String,
    /// Whether messages are to have ids.
    pub(crate) recover: bool,
    /// Whether all sessions subscribe to the same channel.
    pub(crate) broadcast: bool,
    /// Connections per second; 0: as fast as the server accepts them.
    pub(crate) ramp: u64,
    /// Source addresses on loopback to use in turn; 0: the system's choice.
    pub(crate) sources: u8,
    /// How long opening one session may take, in milliseconds.
    pub(crate) patience_ms: u64,
}

/// A report of a client process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// The counts so far, about four times a second.
    Progress(Progress),
    /// Every session is open or refused.
    Opened(Opened),
    /// No session is left.
    Closed,
    /// All sessions have ended; the final counts.
    Finished(Box<Finished>),
}

/// Counts so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Sessions that are open.
    pub(crate) open: u64,
    /// Messages that arrived.
    pub(crate) received: u64,
    /// Sessions that ended although nobody closed them.
    pub(crate) gone: u64,
}

/// The outcome of opening sessions.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// Sessions that are subscribed.
    pub(crate) open: u64,
    /// Sessions that could not be opened, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Times from the TCP connect until the upgrade was answered.
    pub(crate) handshake: Recorded,
    /// Times from sending the token until the answer.
    pub(crate) login: Recorded,
    /// When the first session began to open, in nanoseconds of the run's clock.
    pub(crate) began: u64,
    /// When the last session was open, in nanoseconds of the run's clock.
    pub(crate) ended: u64,
}

/// The final counts of a client process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Finished {
    /// Messages of this run.
    pub(crate) received: u64,
    /// Messages that were certainly sent and did not arrive.
    pub(crate) lost: u64,
    /// Messages that arrived again.
    pub(crate) duplicates: u64,
    /// Messages that arrived after a later message of the same publishing connection.
    pub(crate) reordered: u64,
    /// Messages of other runs or publishers.
    pub(crate) foreign: u64,
    /// Sessions that ended although nobody closed them, by reason.
    pub(crate) gone: BTreeMap<String, u64>,
    /// Times from the moment at which a message was due until it arrived.
    pub(crate) delivery: Recorded,
    /// When the last message arrived, in nanoseconds of the run's clock.
    pub(crate) last: u64,
}
