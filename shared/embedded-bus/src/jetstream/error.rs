//! Errors of the JetStream API, with the codes and texts of nats-server.
//!
//! Source: nats-server's errors.json, and its captured answers.

use serde::Serialize;

use crate::storage::StoreError;

/// An error as it is written in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ApiError {
    /// The code, like an HTTP status.
    pub(crate) code: u16,
    /// The code of the exact error.
    pub(crate) err_code: u16,
    /// The text.
    pub(crate) description: String,
}

impl ApiError {
    fn new(code: u16, err_code: u16, description: impl Into<String>) -> Self {
        Self { code, err_code, description: description.into() }
    }

    pub(crate) fn bad_request() -> Self {
        Self::new(400, 10_003, "bad request")
    }

    pub(crate) fn invalid_json(why: impl std::fmt::Display) -> Self {
        Self::new(400, 10_025, format!("invalid JSON: {why}"))
    }

    pub(crate) fn not_empty() -> Self {
        Self::new(400, 10_038, "expected an empty request payload")
    }

    pub(crate) fn too_many_streams() -> Self {
        Self::new(400, 10_027, "maximum number of streams reached")
    }

    pub(crate) fn no_message() -> Self {
        Self::new(404, 10_037, "no message found")
    }

    /// This text is the bus's own: no text of nats-server says that there are streams and no consumers.
    pub(crate) fn no_consumers() -> Self {
        Self::new(500, 10_012, "the embedded bus has no consumers; a NATS server has")
    }

    pub(crate) fn no_consumer() -> Self {
        Self::new(404, 10_014, "consumer not found")
    }

    pub(crate) fn no_cluster() -> Self {
        Self::new(503, 10_010, "JetStream clustering support required")
    }

    pub(crate) fn invalid_config(why: impl Into<String>) -> Self {
        Self::new(500, 10_052, why)
    }

    pub(crate) fn name_differs() -> Self {
        Self::new(400, 10_056, "stream name in subject does not match request")
    }

    pub(crate) fn delete_failed(why: &str) -> Self {
        Self::new(500, 10_057, why)
    }

    pub(crate) fn sequence_not_found(seq: u64) -> Self {
        Self::new(400, 10_043, format!("sequence {seq} not found"))
    }

    pub(crate) fn name_in_use() -> Self {
        Self::new(400, 10_058, "stream name already in use with a different configuration")
    }

    pub(crate) fn no_stream() -> Self {
        Self::new(404, 10_059, "stream not found")
    }

    pub(crate) fn expected_stream() -> Self {
        Self::new(400, 10_060, "expected stream does not match")
    }

    pub(crate) fn overlap() -> Self {
        Self::new(400, 10_065, "subjects overlap with an existing stream")
    }

    pub(crate) fn too_large() -> Self {
        Self::new(400, 10_054, "message size exceeds maximum allowed")
    }

    pub(crate) fn headers_too_large() -> Self {
        Self::new(400, 10_097, "header size exceeds maximum allowed of 64k")
    }

    pub(crate) fn wrong_last_msg_id(last: &str) -> Self {
        Self::new(400, 10_070, format!("wrong last msg ID: {last}"))
    }

    pub(crate) fn wrong_last_sequence(last: u64) -> Self {
        Self::new(400, 10_071, format!("wrong last sequence: {last}"))
    }

    pub(crate) fn replicas() -> Self {
        Self::new(500, 10_074, "replicas > 1 not supported in non-clustered mode")
    }

    pub(crate) fn path_separators() -> Self {
        Self::new(400, 10_128, "Stream name can not contain path separators")
    }

    pub(crate) fn negative_replicas() -> Self {
        Self::new(400, 10_133, "replicas count cannot be negative")
    }

    pub(crate) fn store_failed(why: impl Into<String>) -> Self {
        Self::new(503, 10_077, why)
    }

    /// Whether a publisher's expectation did not hold. Publishers take turns that way, and learn where a
    /// subject ends.
    pub(crate) fn is_expectation(&self) -> bool {
        matches!(self.err_code, 10_060 | 10_070 | 10_071)
    }

    /// Whether a limit of the stream keeps the message out.
    pub(crate) fn is_limit(&self) -> bool {
        matches!(&*self.description, MAX_BYTES | MAX_MESSAGES)
    }

    pub(crate) fn max_bytes() -> Self {
        Self::store_failed(MAX_BYTES)
    }

    pub(crate) fn max_messages() -> Self {
        Self::store_failed(MAX_MESSAGES)
    }

    /// Returned when there is no memory for one more message.
    pub(crate) fn no_memory() -> Self {
        Self::store_failed(NO_MEMORY)
    }

    /// Whether the store has no space, on the disk or in memory.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full_disk() || self.description == NO_MEMORY
    }

    /// Whether the store has no space on the disk.
    pub(crate) fn is_full_disk(&self) -> bool {
        self.description == FULL
    }

    pub(crate) fn sealed() -> Self {
        Self::new(400, 10_109, "invalid operation on sealed stream")
    }

    pub(crate) fn purge_failed(why: &str) -> Self {
        Self::new(500, 10_110, why)
    }

    pub(crate) fn rollup_failed(why: impl Into<String>) -> Self {
        Self::new(500, 10_111, why)
    }

    pub(crate) fn ttl_disabled() -> Self {
        Self::new(400, 10_166, "per-message TTL is disabled")
    }

    pub(crate) fn counters_disabled() -> Self {
        Self::new(400, 10_168, "message counters is disabled")
    }

    pub(crate) fn atomic_disabled() -> Self {
        Self::new(400, 10_174, "atomic publish is disabled")
    }

    pub(crate) fn schedules_disabled() -> Self {
        Self::new(400, 10_188, "message schedules is disabled")
    }

    pub(crate) fn sequence_missing() -> Self {
        Self::new(400, 10_193, "missing sequence for expected last sequence per subject")
    }
}

/// Clients do not learn where files lie; the log says it.
const FULL: &str = "no space left on device";
const MAX_BYTES: &str = "maximum bytes exceeded";
const MAX_MESSAGES: &str = "maximum messages exceeded";
const NO_MEMORY: &str = "no memory left for more messages";

impl From<&StoreError> for ApiError {
    fn from(error: &StoreError) -> Self {
        Self::store_failed(match error {
            StoreError::Full(_) => FULL,
            StoreError::Damaged(_) | StoreError::Settings { .. } | StoreError::Folder { .. } => {
                "the stream's store is damaged"
            }
            StoreError::Io { .. } => "the stream's store failed",
        })
    }
}
