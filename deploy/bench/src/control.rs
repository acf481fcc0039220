//! What the tool and its client processes say to each other: a JSON object a line, over standard input and output.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::latency::Recorded;
use crate::sequence::Sent;

/// What was published: by channel, and there by publishing connection. Channel 0 is the broadcast, others are the
/// users' own.
pub(crate) type Ledger = BTreeMap<u64, Vec<Sent>>;

/// To a client process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Open these sessions, and say so when all are open or refused.
    Open(Open),
    /// Close all sessions, and say so.
    Close,
    /// This was published: wait for what is missing, at most so long, and report.
    Finish {
        /// What was published.
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
    /// Its address.
    pub(crate) address: SocketAddr,
    /// What stands in a message of this run.
    pub(crate) run: u32,
    /// Number of the first session; the first of all is 0.
    pub(crate) first: u64,
    /// How many sessions.
    pub(crate) sessions: u64,
    /// How many users there are in all; session `n` is user `n % users + 1`.
    pub(crate) users: u64,
    /// The token, with `{uid}` where the user's number stands.
    pub(crate) token: String,
    /// What each session subscribes to.
    pub(crate) subscribe: String,
    /// Whether messages are to have ids.
    pub(crate) recover: bool,
    /// Whether that is the same channel for all.
    pub(crate) broadcast: bool,
    /// Connections a second; 0: as fast as they come up.
    pub(crate) ramp: u64,
    /// Source addresses on loopback to use in turn; 0: the system's choice.
    pub(crate) sources: u8,
    /// How long opening one session may take, in milliseconds.
    pub(crate) patience_ms: u64,
}

/// From a client process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// How far it is; about four times a second.
    Progress(Progress),
    /// Every session is open or refused.
    Opened(Opened),
    /// No session is left.
    Closed,
    /// The end.
    Finished(Box<Finished>),
}

/// Counts so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Sessions that are open.
    pub(crate) open: u64,
    /// Messages that came.
    pub(crate) received: u64,
    /// Sessions that ended although nobody closed them.
    pub(crate) gone: u64,
}

/// How opening went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// Sessions that are subscribed.
    pub(crate) open: u64,
    /// Those that are not, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// TCP and upgrade.
    pub(crate) handshake: Recorded,
    /// From the token to the answer.
    pub(crate) login: Recorded,
    /// When the first began and the last was open.
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

/// What came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Finished {
    /// Messages of this run.
    pub(crate) received: u64,
    /// Messages that were sent for certain and did not come.
    pub(crate) lost: u64,
    /// Messages that came again.
    pub(crate) duplicates: u64,
    /// Messages that came behind a later one of the same publishing connection.
    pub(crate) reordered: u64,
    /// Messages that are not of this run.
    pub(crate) foreign: u64,
    /// Sessions that ended although nobody closed them, by reason.
    pub(crate) gone: BTreeMap<String, u64>,
    /// From when a message was to be sent until it came.
    pub(crate) delivery: Recorded,
    /// When the last message came.
    pub(crate) last: u64,
}
