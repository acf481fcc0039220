//! Asks of a publisher to how many sessions its messages went, and the edges' answers.

use serde::{Deserialize, Serialize};

use crate::history::Epoch;
use crate::ids::{Channel, MessageId, NodeId};

/// An ask to every edge; the answers go to the reply subject. An ask holds all messages about which one
/// publisher asks within a millisecond. It names messages without history by their ids, and follows them on
/// the same connection; it names stored messages by their sequences, in no order with their live copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// The ids of messages without history.
    pub ids: Vec<MessageId>,
    /// The stored messages. An edge of a version without history leaves them unanswered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<StoredRef>,
}

/// The sequence of a stored message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRef {
    /// The channel.
    #[serde(rename = "c")]
    pub channel: Channel,
    /// The sequence in the stream of the channel's partition.
    #[serde(rename = "n")]
    pub seq: u64,
    /// The epoch of the sequence; `None` from a publisher-api of a version without this field.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

/// The sessions of one edge to which one message went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Sessions whose socket or outbox accepted the message.
    #[serde(rename = "s")]
    pub sessions: u64,
    /// Sessions that refused the message, or that were closing.
    #[serde(rename = "f")]
    pub failed: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.failed = self.failed.saturating_add(other.failed);
    }
}

/// One edge's answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// The edge that answers.
    pub edge: NodeId,
    /// One entry per id, in the order of the ask. `null`: the edge has not seen the message (it was not
    /// connected then, or the message is too old), so the count is not known.
    pub counts: Vec<Option<Counts>>,
    /// One entry per stored message of the ask. Empty if all of them are unknown, as to an edge of a version
    /// without history.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<Option<Counts>>,
}

super::envelope!(Ask, Answer);
