//! The configuration of a stream: reading, defaults, and allowed changes.
//!
//! A configuration that passed [`StreamConfig::check`] is complete: every default is filled in, every limit
//! is a positive number or -1 for none, and this bus ignores no field. Field names and texts are those of
//! nats-server.

mod check;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ApiError;

/// Keys of the metadata that belong to the server.
const SERVER_KEYS: &str = "_nats.";

/// A stream's configuration, in the order in which nats-server writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StreamConfig {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) subjects: Vec<String>,
    pub(crate) retention: Retention,
    pub(crate) max_consumers: i64,
    pub(crate) max_msgs: i64,
    pub(crate) max_bytes: i64,
    /// Nanoseconds; 0: for ever.
    pub(crate) max_age: i64,
    pub(crate) max_msgs_per_subject: i64,
    pub(crate) max_msg_size: i32,
    pub(crate) discard: Discard,
    pub(crate) storage: StorageKind,
    pub(crate) num_replicas: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) no_ack: bool,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) duplicate_window: i64,
    #[serde(skip_serializing_if = "Value::is_null")]
    placement: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    mirror: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    sources: Value,
    compression: Compression,
    #[serde(skip_serializing_if = "is_nothing")]
    pub(crate) first_seq: u64,
    #[serde(skip_serializing_if = "Value::is_null")]
    subject_transform: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) republish: Option<RepublishConfig>,
    pub(crate) allow_direct: bool,
    mirror_direct: bool,
    pub(crate) sealed: bool,
    pub(crate) deny_delete: bool,
    pub(crate) deny_purge: bool,
    pub(crate) allow_rollup_hdrs: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) discard_new_per_subject: bool,
    consumer_limits: BTreeMap<String, Value>,
    allow_msg_ttl: bool,
    #[serde(skip_serializing_if = "is_zero")]
    subject_delete_marker_ttl: i64,
    #[serde(skip_serializing_if = "is_false")]
    allow_msg_counter: bool,
    #[serde(skip_serializing_if = "is_false")]
    allow_atomic: bool,
    #[serde(skip_serializing_if = "is_false")]
    allow_batched: bool,
    #[serde(skip_serializing_if = "is_false")]
    allow_msg_schedules: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    persist_mode: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    /// No field of a configuration, but allowed beside it in a request. This bus always refuses fields that
    /// it would ignore.
    #[serde(skip_serializing)]
    pedantic: bool,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            description: String::new(),
            subjects: Vec::new(),
            retention: Retention::Limits,
            max_consumers: 0,
            max_msgs: 0,
            max_bytes: 0,
            max_age: 0,
            max_msgs_per_subject: 0,
            max_msg_size: 0,
            discard: Discard::Old,
            storage: StorageKind::File,
            num_replicas: 0,
            no_ack: false,
            duplicate_window: 0,
            placement: Value::Null,
            mirror: Value::Null,
            sources: Value::Null,
            compression: Compression::None,
            first_seq: 0,
            subject_transform: Value::Null,
            republish: None,
            allow_direct: false,
            mirror_direct: false,
            sealed: false,
            deny_delete: false,
            deny_purge: false,
            allow_rollup_hdrs: false,
            discard_new_per_subject: false,
            consumer_limits: BTreeMap::new(),
            allow_msg_ttl: false,
            subject_delete_marker_ttl: 0,
            allow_msg_counter: false,
            allow_atomic: false,
            allow_batched: false,
            allow_msg_schedules: false,
            persist_mode: String::new(),
            metadata: BTreeMap::new(),
            pedantic: false,
        }
    }
}

/// When messages leave. Only `limits` is supported: the others need consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Retention {
    Limits,
    Interest,
    Workqueue,
}

/// The message that has to go at a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Discard {
    /// The oldest messages.
    Old,
    /// The new message is refused.
    New,
}

/// The kind of storage that a client asked for. The bus decides where messages really are; the kind decides
/// how their size is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StorageKind {
    File,
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Compression {
    None,
    S2,
}

/// Sources and destinations of live copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RepublishConfig {
    pub(crate) src: String,
    pub(crate) dest: String,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) headers_only: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
fn is_nothing(value: &u64) -> bool {
    *value == 0
}

impl StreamConfig {
    /// Reads a request. A `null` field counts as absent, because clients write it.
    pub(crate) fn read(json: &[u8]) -> Result<Self, ApiError> {
        if json.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let mut value: Value = serde_json::from_slice(json).map_err(ApiError::invalid_json)?;
        match &mut value {
            Value::Object(fields) => fields.retain(|_, field| !field.is_null()),
            Value::Null => return Ok(Self::default()),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(ApiError::invalid_json("an object is expected"));
            }
        }
        serde_json::from_value(value).map_err(ApiError::invalid_json)
    }

    /// Whether two configurations are equal, without the keys that servers add to the metadata.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let own = |config: &Self| {
            let mut config = config.clone();
            config.metadata.retain(|key, _| !key.starts_with(SERVER_KEYS));
            config.pedantic = false;
            config
        };
        own(self) == own(other)
    }

    /// Returns the limit in a field; `None` if there is none.
    pub(crate) fn limit(value: i64) -> Option<u64> {
        u64::try_from(value).ok().filter(|limit| *limit > 0)
    }

    /// Returns the bytes that a message counts for, as nats-server counts for this kind of storage.
    pub(crate) fn size_of(&self, subject: usize, headers: usize, payload: usize) -> u64 {
        let frame = match self.storage {
            StorageKind::Memory => 16,
            StorageKind::File if headers > 0 => 34,
            StorageKind::File => 30,
        };
        (subject + headers + payload + frame) as u64
    }
}
