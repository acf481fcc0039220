//! "To how many sessions did these messages go?", and an edge's answer.

use serde::{Deserialize, Serialize};

use crate::ids::{MessageId, NodeId};

/// A question to every edge. Sent behind the messages on the same connection; the answer goes to the
/// reply subject. A frame holds all that one publisher asks within a millisecond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// The messages asked about.
    pub ids: Vec<MessageId>,
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
}

super::envelope!(Ask, Answer);
