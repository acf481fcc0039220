//! How publishers know which edges live.

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// What an edge says about itself every second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// Who speaks.
    pub edge: NodeId,
    /// What it does.
    pub state: EdgeState,
    /// Client sessions it holds.
    pub sessions: u64,
    /// Digest of its channel rules: publishers and edges must have the same.
    pub rules: String,
}

/// Where an edge is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeState {
    /// Announces itself; takes clients once publishers know it.
    Starting,
    /// Takes clients.
    Serving,
    /// Takes no new clients and closes those it has; still delivers and answers.
    Draining,
    /// Its last word: it holds no session any more and needs not be asked.
    Bye,
}

/// A publisher's "I will ask you from now on". It goes to the heartbeat's reply subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// Who acknowledges.
    pub publisher: NodeId,
}

super::envelope!(Heartbeat, HeartbeatAck);
