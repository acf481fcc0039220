//! Why JetStream could not do what was asked: the codes that message center tells apart, and [`ApiError`].

use std::sync::Arc;

use crate::bus::RequestError;

/// The stream does not exist.
pub const STREAM_NOT_FOUND: u64 = 10_059;
/// The subject's last message is not the expected one; see [`EXPECTED_LAST_SUBJECT_SEQUENCE`].
///
/// [`EXPECTED_LAST_SUBJECT_SEQUENCE`]: crate::headers::EXPECTED_LAST_SUBJECT_SEQUENCE
pub const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// The message is not stored: a stream that refuses new messages is at a limit, or the store failed.
const STORE_FAILED: u64 = 10_077;
/// A message with this id was proposed to the replicas and has not come through yet; it may, or may not.
pub const ID_IN_PROCESS: u64 = 10_158;
/// The account has no resources left for the stream.
const INSUFFICIENT_RESOURCES: u64 = 10_023;
/// There is no storage left for the stream.
const STORAGE_EXCEEDED: u64 = 10_047;
/// The limits of an account are reached.
const RESOURCES_EXCEEDED: u64 = 10_002;
/// The descriptions of [`STORE_FAILED`] where the store is full. Every other failure may pass.
const FULL: [&str; 6] = [
    "maximum bytes exceeded",
    "maximum messages exceeded",
    "maximum messages per subject exceeded",
    "no space left on device",
    // The embedded bus.
    "no memory left for more messages",
    "disk quota exceeded",
];
/// A stream with this name and other settings exists.
pub const NAME_IN_USE: u64 = 10_058;
/// The message does not exist.
pub const NO_MESSAGE: u64 = 10_037;

/// Why a stream could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The stream does not exist.
    #[error("there is no such stream")]
    NoStream,
    /// The stream has no leader, or the bus has no streams at all.
    #[error("the stream has no leader, or the bus has no streams")]
    NoLeader,
    /// There is no connection, now or within the deadline, or another one since the request.
    #[error("the bus is not connected")]
    Disconnected,
    /// No answer, or not the whole answer, came within the deadline.
    #[error("no answer from the stream within the deadline")]
    Timeout,
    /// A part of an answer is missing.
    #[error("the answer of the stream is cut off")]
    Cut,
    /// The bus refused.
    #[error("{description} (code {code}, {err_code})")]
    Api {
        /// A number like an HTTP status.
        code: u64,
        /// The exact reason: one of JetStream's error codes.
        err_code: u64,
        /// The reason in words.
        description: String,
    },
    /// The answer can't be read.
    #[error("the bus answered what can't be read: {0}")]
    Unreadable(#[from] Unreadable),
}

/// Why an answer can't be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unreadable {
    /// The body is not the JSON that is expected.
    #[error(transparent)]
    Json(Arc<serde_json::Error>),
    /// A header block or a payload is not base64.
    #[error(transparent)]
    Base64(#[from] base64::DecodeError),
    /// A message comes without this header.
    #[error("a message without {0}")]
    NoHeader(&'static str),
    /// A time is not one in RFC 3339 since 1970.
    #[error("{0:?} is no time")]
    Time(String),
}

/// Two errors are equal if they read the same: an error of serde_json can't be compared.
impl PartialEq for Unreadable {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Unreadable {}

impl ApiError {
    /// Returns whether the stream is full: a limit is reached, or the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Api {
                err_code: INSUFFICIENT_RESOURCES | STORAGE_EXCEEDED | RESOURCES_EXCEEDED, ..
            } => true,
            Self::Api { err_code: STORE_FAILED, description, .. } => {
                FULL.iter().any(|words| description.contains(words))
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

    /// Returns whether the same request may succeed a moment later.
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

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(Unreadable::Json(Arc::new(error)))
    }
}
