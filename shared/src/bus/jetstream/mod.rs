//! Streams of the bus: the calls of JetStream that this program needs, over [`Bus`]'s own requests.
//!
//! async-nats has calls of its own, but those leave something behind for each request that times out, and
//! know no batches of direct reads. Every call has a deadline and leaves nothing behind. Reads by
//! [`Bus::get_message`] and all about a stream as a whole are answered by the stream's leader;
//! [`Bus::direct_batch`] may be answered by any replica, which may be behind. Source: NATS' ADR-1, ADR-8,
//! ADR-31.

mod batch;
mod ends;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{HeaderMap, Message, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Bus, RequestError};
use crate::headers;

pub use batch::{Batch, BatchAnswer};

/// The stream is not there.
pub const STREAM_NOT_FOUND: u64 = 10_059;
/// Another message came before; see `Nats-Expected-Last-Subject-Sequence`.
pub const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// The message is not stored: over a limit of a stream that refuses new messages, or because the store
/// failed.
const STORE_FAILED: u64 = 10_077;
/// A message with this id was proposed to the copies and has not come through yet; it may, or not.
pub const ID_IN_PROCESS: u64 = 10_158;
/// No room for the stream.
const INSUFFICIENT_RESOURCES: u64 = 10_023;
/// The same, of storage.
const STORAGE_EXCEEDED: u64 = 10_047;
/// The limits of an account are reached.
const RESOURCES_EXCEEDED: u64 = 10_002;
/// What [`STORE_FAILED`] says where there is no room; everything else is a failure that may pass.
const NO_ROOM: [&str; 6] = [
    "maximum bytes exceeded",
    "maximum messages exceeded",
    "maximum messages per subject exceeded",
    "no space left on device",
    // The embedded bus.
    "no memory left for more messages",
    "disk quota exceeded",
];
/// There is such a stream, but it is not the same.
pub const NAME_IN_USE: u64 = 10_058;
/// There is no such message.
pub const NO_MESSAGE: u64 = 10_037;

/// Why a stream could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The stream is not there.
    #[error("there is no such stream")]
    NoStream,
    /// Nobody leads the stream, or the bus has none at all.
    #[error("the stream has no leader, or the bus has no streams")]
    NoLeader,
    /// No connection, now or within the deadline, or another one since it was asked.
    #[error("the bus is not connected")]
    Disconnected,
    /// No answer, or not the whole answer, within the deadline.
    #[error("no answer from the stream within the deadline")]
    Timeout,
    /// A part of an answer is missing.
    #[error("the answer of the stream is cut off")]
    Cut,
    /// The bus refused.
    #[error("{description} (code {code}, {err_code})")]
    Api {
        /// Like an HTTP status.
        code: u64,
        /// What exactly.
        err_code: u64,
        /// In words.
        description: String,
    },
    /// An answer that can't be read.
    #[error("the bus answered what can't be read: {0}")]
    Unreadable(String),
}

impl ApiError {
    /// Whether the stream has no room: a limit is reached, or the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Api {
                err_code: INSUFFICIENT_RESOURCES | STORAGE_EXCEEDED | RESOURCES_EXCEEDED, ..
            } => true,
            Self::Api { err_code: STORE_FAILED, description, .. } => {
                NO_ROOM.iter().any(|words| description.contains(words))
            }
            Self::Api { .. }
            | Self::NoStream
            | Self::NoLeader
            | Self::Disconnected
            | Self::Timeout
            | Self::Cut
            | Self::Unreadable(_) => false,
        }
    }

    /// Whether the same may succeed a moment later.
    pub fn passes(&self) -> bool {
        match self {
            Self::NoStream | Self::NoLeader | Self::Disconnected | Self::Timeout | Self::Cut => true,
            Self::Api { code, err_code, .. } => *code == 503 || *err_code == ID_IN_PROCESS,
            Self::Unreadable(_) => false,
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Disconnected => Self::Disconnected,
            RequestError::NoResponders => Self::NoLeader,
            RequestError::Timeout => Self::Timeout,
        }
    }
}

/// How a stream is set up, in the bus's own words; what is left out has the bus's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamConfig {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// What is stored.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// `limits`.
    #[serde(default)]
    pub retention: String,
    /// `file` or `memory`.
    pub storage: String,
    /// `old` or `new`: who has to go when the stream is full.
    pub discard: String,
    /// Copies, 1 to 5.
    pub num_replicas: u8,
    /// Messages a subject; -1: any number.
    #[serde(default = "none")]
    pub max_msgs_per_subject: i64,
    /// Bytes; -1: any number.
    #[serde(default = "none")]
    pub max_bytes: i64,
    /// Nanoseconds; 0: for ever.
    #[serde(default)]
    pub max_age: u64,
    /// Nanoseconds.
    #[serde(default)]
    pub duplicate_window: u64,
    /// Whether any replica may answer reads.
    #[serde(default)]
    pub allow_direct: bool,
    /// Where copies of stored messages go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub republish: Option<Republish>,
    /// Whatever its users want to remember.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// All that is not named here, as the bus says it: an update sends it back, for what it leaves out is
    /// reset.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

fn none() -> i64 {
    -1
}

impl StreamConfig {
    /// The same for a stream that is there: what is not ours stays as it is, and what no stream can change.
    fn over(&self, is: &Self) -> Self {
        let mut metadata = is.metadata.clone();
        metadata.extend(self.metadata.clone());
        let (retention, storage) = (is.retention.clone(), is.storage.clone());
        Self { retention, storage, metadata, others: is.others.clone(), ..self.clone() }
    }
}

/// Copies of stored messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Republish {
    /// Of these subjects.
    pub src: String,
    /// To these.
    pub dest: String,
}

/// What a stream is and holds, as its leader says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// How it is set up.
    pub config: StreamConfig,
    /// When it was created, in nanoseconds since 1970.
    pub created: u64,
    /// What it holds.
    pub state: StreamState,
    /// Who leads it; none on a bus without a cluster.
    pub leader: Option<String>,
    /// Whether most copies have answered their leader within the last 3 s. A leader that was cut off from
    /// them leads nobody any more, and does not know it for up to 10 s. True without a cluster.
    pub has_quorum: bool,
}

/// Leaders and copies exchange a heartbeat a second.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// What a stream holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct StreamState {
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The lowest sequence that is there; one more than the last in an empty stream.
    pub first_seq: u64,
    /// The highest sequence that was ever given.
    pub last_seq: u64,
}

#[derive(Deserialize)]
struct InfoAnswer {
    config: StreamConfig,
    created: String,
    state: StreamState,
    #[serde(default)]
    cluster: Option<ClusterAnswer>,
}

#[derive(Deserialize)]
struct CountAnswer {
    state: CountState,
}

#[derive(Deserialize)]
struct CountState {
    #[serde(default)]
    subjects: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct ClusterAnswer {
    #[serde(default)]
    leader: Option<String>,
    #[serde(default)]
    replicas: Vec<ReplicaAnswer>,
}

#[derive(Deserialize)]
struct ReplicaAnswer {
    #[serde(default)]
    offline: bool,
    /// Nanoseconds since the leader heard of it.
    #[serde(default)]
    active: u64,
}

impl ClusterAnswer {
    fn has_quorum(&self) -> bool {
        let heard = |replica: &&ReplicaAnswer| {
            !replica.offline && Duration::from_nanos(replica.active) <= HEARD_WITHIN
        };
        let with_it = 1 + self.replicas.iter().filter(heard).count();
        2 * with_it > 1 + self.replicas.len()
    }
}

/// Which message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Get<'a> {
    /// The last of this subject.
    Last(&'a str),
    /// This one.
    Seq(u64),
    /// The first of this subject (wildcards allowed) from this sequence on.
    Next {
        /// Where to begin.
        seq: u64,
        /// Of which subject.
        subject: &'a str,
    },
}

/// A stored message.
#[derive(Debug, Clone)]
pub struct RawMessage {
    /// Its place in the stream.
    pub seq: u64,
    /// When it was stored, in nanoseconds since 1970.
    pub time: u64,
    /// What it was published to.
    pub subject: String,
    /// Its headers; after a direct read with those that the stream adds.
    pub headers: HeaderMap,
    /// What was published. A copy: it holds no read buffer.
    pub payload: Bytes,
}

/// A stored message's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct PubAck {
    /// Its sequence.
    pub seq: u64,
    /// It was there already, by its message id.
    #[serde(default)]
    pub duplicate: bool,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct StoredAnswer {
    message: StoredBody,
}

#[derive(Deserialize)]
struct StoredBody {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

#[derive(Deserialize)]
struct PurgeAnswer {
    #[serde(default)]
    purged: u64,
}

impl Bus {
    /// What a stream is and holds.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn stream_info(&self, name: &str, deadline: Duration) -> Result<StreamInfo, ApiError> {
        let answer = self.api(&format!("STREAM.INFO.{name}"), &Value::Null, deadline).await?;
        info(answer)
    }

    /// Makes a stream; one with the same settings that is there already is as good.
    ///
    /// # Errors
    /// See [`ApiError`]; [`NAME_IN_USE`] if there is another.
    pub async fn create_stream(
        &self,
        config: &StreamConfig,
        deadline: Duration,
    ) -> Result<StreamInfo, ApiError> {
        self.set_stream("CREATE", config, deadline).await
    }

    /// Sets a stream up as it `should` be. All that an operator set besides stays as it `is`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn update_stream(
        &self,
        is: &StreamConfig,
        should: &StreamConfig,
        deadline: Duration,
    ) -> Result<StreamInfo, ApiError> {
        self.set_stream("UPDATE", &should.over(is), deadline).await
    }

    async fn set_stream(
        &self,
        call: &str,
        config: &StreamConfig,
        deadline: Duration,
    ) -> Result<StreamInfo, ApiError> {
        let body = serde_json::to_value(config).map_err(|error| ApiError::Unreadable(error.to_string()))?;
        info(self.api(&format!("STREAM.{call}.{}", config.name), &body, deadline).await?)
    }

    /// Removes a stream with all that it holds.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn delete_stream(&self, name: &str, deadline: Duration) -> Result<(), ApiError> {
        self.api(&format!("STREAM.DELETE.{name}"), &Value::Null, deadline).await.map(drop)
    }

    /// Removes all messages of a subject, and says how many there were.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn purge(&self, name: &str, subject: &str, deadline: Duration) -> Result<u64, ApiError> {
        let body = json!({ "filter": subject });
        let answer = self.api(&format!("STREAM.PURGE.{name}"), &body, deadline).await?;
        read::<PurgeAnswer>(answer).map(|answer| answer.purged)
    }

    /// Removes the messages of a subject below a sequence, and says how many there were.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn purge_before(
        &self,
        name: &str,
        subject: &str,
        seq: u64,
        deadline: Duration,
    ) -> Result<u64, ApiError> {
        let body = json!({ "filter": subject, "seq": seq });
        let answer = self.api(&format!("STREAM.PURGE.{name}"), &body, deadline).await?;
        read::<PurgeAnswer>(answer).map(|answer| answer.purged)
    }

    /// How many messages of a subject without wildcards a stream has.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn count_of(&self, name: &str, subject: &str, deadline: Duration) -> Result<u64, ApiError> {
        let body = json!({ "subjects_filter": subject });
        let answer = self.api(&format!("STREAM.INFO.{name}"), &body, deadline).await?;
        read::<CountAnswer>(answer).map(|answer| answer.state.subjects.values().sum())
    }

    /// Reads one message at the stream's leader.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get_message(
        &self,
        name: &str,
        get: Get<'_>,
        deadline: Duration,
    ) -> Result<Option<RawMessage>, ApiError> {
        let body = match get {
            Get::Last(subject) => json!({ "last_by_subj": subject }),
            Get::Seq(seq) => json!({ "seq": seq }),
            Get::Next { seq, subject } => json!({ "seq": seq, "next_by_subj": subject }),
        };
        match self.api(&format!("STREAM.MSG.GET.{name}"), &body, deadline).await {
            Ok(answer) => read::<StoredAnswer>(answer)?.message.decode().map(Some),
            Err(ApiError::Api { err_code: NO_MESSAGE, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Publishes to a stream and waits for its word that it has the message.
    ///
    /// # Errors
    /// See [`ApiError`]. After [`ApiError::Timeout`] and [`ApiError::Disconnected`] the message may be
    /// stored.
    pub async fn store(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<PubAck, ApiError> {
        let asked = self.request_with_headers(subject, Some(headers), payload, deadline);
        let answer = self.on_this_connection(async { Ok(asked.await?) }).await?;
        if answer.status.is_some_and(|status| status != StatusCode::OK) {
            return Err(ApiError::NoLeader);
        }
        read(checked(&answer.payload)?)
    }

    async fn api(&self, call: &str, body: &Value, deadline: Duration) -> Result<Value, ApiError> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let asked = self.request(format!("$JS.API.{call}"), body, deadline);
        let answer = self.on_this_connection(async { Ok(asked.await?) }).await?;
        checked(&answer.payload)
    }

    /// Waits for an answer no longer than until there is another connection: what was asked or answered may
    /// have gone with the one before, and asking again is sooner than the deadline.
    async fn on_this_connection<T>(
        &self,
        asked: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let mut state = self.state();
        let connects = state.borrow_and_update().connects;
        tokio::select! {
            answer = asked => answer,
            _ = state.wait_for(|state| state.connects != connects) => Err(ApiError::Disconnected),
        }
    }
}

/// The answer, unless it says what went wrong.
fn checked(payload: &[u8]) -> Result<Value, ApiError> {
    let answer: Value =
        serde_json::from_slice(payload).map_err(|error| ApiError::Unreadable(error.to_string()))?;
    if answer.get("error").is_none() {
        return Ok(answer);
    }
    let ErrorBody { code, err_code, description } = read::<ErrorAnswer>(answer)?.error;
    Err(match err_code {
        STREAM_NOT_FOUND => ApiError::NoStream,
        _ => ApiError::Api { code, err_code, description },
    })
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, ApiError> {
    serde_json::from_value(answer).map_err(|error| ApiError::Unreadable(error.to_string()))
}

fn info(answer: Value) -> Result<StreamInfo, ApiError> {
    let InfoAnswer { config, created, state, cluster } = read(answer)?;
    let has_quorum = cluster.as_ref().is_none_or(ClusterAnswer::has_quorum);
    let leader = cluster.and_then(|cluster| cluster.leader).filter(|leader| !leader.is_empty());
    Ok(StreamInfo { config, created: nanos(&created)?, state, leader, has_quorum })
}

impl StoredBody {
    fn decode(self) -> Result<RawMessage, ApiError> {
        let bytes =
            |text: &str| STANDARD.decode(text).map_err(|error| ApiError::Unreadable(error.to_string()));
        Ok(RawMessage {
            seq: self.seq,
            time: nanos(&self.time)?,
            subject: self.subject,
            headers: parse_headers(&bytes(&self.hdrs)?),
            payload: bytes(&self.data)?.into(),
        })
    }
}

/// Takes a header block apart. Lines that are none are left out.
fn parse_headers(block: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let block = String::from_utf8_lossy(block);
    for (name, value) in block.split("\r\n").skip(1).filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) =
            (name.parse::<async_nats::HeaderName>(), value.trim().parse::<async_nats::HeaderValue>())
        {
            headers.append(name, value);
        }
    }
    headers
}

fn direct(message: Message) -> Result<RawMessage, ApiError> {
    let missing = |name: &str| ApiError::Unreadable(format!("a message without {name}"));
    let seq = number(&message, headers::SEQUENCE).ok_or_else(|| missing(headers::SEQUENCE))?;
    let headers = message.headers.unwrap_or_default();
    let text = |name: &'static str| {
        headers.get_last(name).map(|value| value.as_str().to_owned()).ok_or_else(|| missing(name))
    };
    let (subject, time) = (text(headers::SUBJECT)?, nanos(&text(headers::TIME_STAMP)?)?);
    // The payload is a slice of the read buffer, which would live as long as it.
    let payload = Bytes::copy_from_slice(&message.payload);
    Ok(RawMessage { seq, time, subject, headers, payload })
}

/// What the server says in a header: the last of its name, behind those of the message.
fn number(message: &Message, header: &'static str) -> Option<u64> {
    message.headers.as_ref()?.get_last(header)?.as_str().parse().ok()
}

fn nanos(time: &str) -> Result<u64, ApiError> {
    let unreadable = || ApiError::Unreadable(format!("{time:?} is no time"));
    let time: SystemTime = humantime::parse_rfc3339(time).map_err(|_| unreadable())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| unreadable())?;
    u64::try_from(since.as_nanos()).map_err(|_| unreadable())
}

#[cfg(test)]
mod tests;
