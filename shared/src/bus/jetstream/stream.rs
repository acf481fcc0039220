//! A stream: its settings, and what its leader reports.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ApiError;
use super::message::nanos;

/// The settings of a stream, named as JetStream names them. A setting that is left out has the default of the
/// bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamConfig {
    /// The name: letters, digits, `-` and `_`.
    pub name: String,
    /// The subjects whose messages are stored.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// `limits`.
    #[serde(default)]
    pub retention: String,
    /// `file` or `memory`.
    pub storage: String,
    /// `old` or `new`: which messages a full stream discards.
    pub discard: String,
    /// Replicas, 1 to 5.
    pub num_replicas: u8,
    /// The most messages per subject; -1: any number.
    #[serde(default = "none")]
    pub max_msgs_per_subject: i64,
    /// The most bytes; -1: any number.
    #[serde(default = "none")]
    pub max_bytes: i64,
    /// The age at which a message is removed, in nanoseconds; 0: never.
    #[serde(default)]
    pub max_age: u64,
    /// How long a message id is remembered, in nanoseconds.
    #[serde(default)]
    pub duplicate_window: u64,
    /// Whether any replica may answer reads.
    #[serde(default)]
    pub allow_direct: bool,
    /// Which stored messages are republished as live copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub republish: Option<Republish>,
    /// Notes of the users of the stream, which the bus stores with it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// All settings that are not named here, as the bus reports them. An update sends them back, since the
    /// bus resets what an update leaves out.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

fn none() -> i64 {
    -1
}

impl StreamConfig {
    /// Returns these settings for a stream that exists with the settings `is`: foreign settings and those
    /// that no stream can change stay.
    pub(super) fn over(&self, is: &Self) -> Self {
        let mut metadata = is.metadata.clone();
        metadata.extend(self.metadata.clone());
        let (retention, storage) = (is.retention.clone(), is.storage.clone());
        Self { retention, storage, metadata, others: is.others.clone(), ..self.clone() }
    }
}

/// Where live copies of stored messages go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Republish {
    /// The subjects of the stored messages.
    pub src: String,
    /// The subjects of the live copies.
    pub dest: String,
}

/// The settings and the contents of a stream, as its leader reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// The settings.
    pub config: StreamConfig,
    /// When the stream was created, in nanoseconds since 1970.
    pub created: u64,
    /// The contents.
    pub state: StreamState,
    /// The server that leads the stream; `None` on a bus without a cluster.
    pub leader: Option<String>,
    /// Whether most replicas have answered their leader within the last 3 s; true without a cluster. A leader
    /// that was cut off from them leads nobody any more, and does not know it for up to 10 s.
    pub has_quorum: bool,
}

/// How recently a replica must have been heard to count. Leaders and replicas exchange a heartbeat a second.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// The contents of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct StreamState {
    /// The number of messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The lowest sequence in the stream; one more than the last in an empty stream.
    pub first_seq: u64,
    /// The highest sequence that was ever assigned.
    pub last_seq: u64,
}

#[derive(Deserialize)]
pub(super) struct InfoAnswer {
    config: StreamConfig,
    created: String,
    state: StreamState,
    #[serde(default)]
    cluster: Option<ClusterAnswer>,
}

impl InfoAnswer {
    pub(super) fn decode(self) -> Result<StreamInfo, ApiError> {
        let Self { config, created, state, cluster } = self;
        let has_quorum = cluster.as_ref().is_none_or(ClusterAnswer::has_quorum);
        let leader = cluster.and_then(|cluster| cluster.leader).filter(|leader| !leader.is_empty());
        Ok(StreamInfo { config, created: nanos(&created)?, state, leader, has_quorum })
    }
}

#[derive(Deserialize)]
pub(super) struct CountAnswer {
    state: CountState,
}

#[derive(Deserialize)]
struct CountState {
    #[serde(default)]
    subjects: BTreeMap<String, u64>,
}

impl CountAnswer {
    pub(super) fn messages(&self) -> u64 {
        self.state.subjects.values().sum()
    }
}

#[derive(Deserialize)]
pub(super) struct ClusterAnswer {
    #[serde(default)]
    leader: Option<String>,
    #[serde(default)]
    replicas: Vec<ReplicaAnswer>,
}

#[derive(Deserialize)]
struct ReplicaAnswer {
    #[serde(default)]
    offline: bool,
    /// Nanoseconds since the leader heard the replica.
    #[serde(default)]
    active: u64,
}

impl ClusterAnswer {
    pub(super) fn has_quorum(&self) -> bool {
        let heard = |replica: &&ReplicaAnswer| {
            !replica.offline && Duration::from_nanos(replica.active) <= HEARD_WITHIN
        };
        let with_it = 1 + self.replicas.iter().filter(heard).count();
        2 * with_it > 1 + self.replicas.len()
    }
}
