//! "To how many sessions did these messages go?", and an edge's answer.

use serde::{Deserialize, Serialize};

use crate::history::Epoch;
use crate::ids::{Channel, MessageId, NodeId};

/// A question to every edge; the answer goes to the reply subject. A frame holds all that one publisher asks
/// within a millisecond. Messages without history are asked about by their ids, behind them on the same
/// connection; stored ones by their places, in no order with their live copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// The messages asked about that are not stored.
    pub ids: Vec<MessageId>,
    /// The stored messages asked about. A part of before history leaves them unanswered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<StoredRef>,
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRef {
    /// Its channel.
    #[serde(rename = "c")]
    pub channel: Channel,
    /// Its sequence in the stream of its channel's partition.
    #[serde(rename = "n")]
    pub seq: u64,
    /// The epoch that the sequence is of. None from a publisher-api of before this field.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

/// What one edge did with one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Sessions whose socket or outbox accepted it.
    #[serde(rename = "s")]
    pub sessions: u64,
    /// Sessions it was refused to, or that were closing.
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
    /// Who answers.
    pub edge: NodeId,
    /// One entry an id, in the order asked. `null`: this edge has not seen the message (it was not
    /// connected then, or it is too long ago), so the count is not known.
    pub counts: Vec<Option<Counts>>,
    /// The same for [`Ask::stored`]. Empty where all of them are unknown, as a part of before history says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<Option<Counts>>,
}

super::envelope!(Ask, Answer);
