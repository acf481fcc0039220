//! Heartbeats of edges, by which publishers know them.

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// The heartbeat of an edge, sent every second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// The edge.
    pub edge: NodeId,
    /// The state of the edge.
    pub state: EdgeState,
    /// The number of its sessions.
    pub sessions: u64,
    /// The digest of its channel rules: publishers and edges must have the same rules.
    pub rules: String,
}

/// The state of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeState {
    /// The edge announces itself, and takes clients once the publishers know it.
    Starting,
    /// The edge takes clients.
    Serving,
    /// The edge takes no new clients and closes its sessions; it still delivers and answers.
    Draining,
    /// The last heartbeat: the edge has no sessions any more and need not be asked.
    Bye,
}

/// The acknowledgement of a heartbeat, sent to the reply subject: the publisher asks this edge from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// The publisher.
    pub publisher: NodeId,
}

super::envelope!(Heartbeat, HeartbeatAck);
