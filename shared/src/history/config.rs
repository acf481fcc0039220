//! `[history]`: how much is stored, and how the streams that store it are set up.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bus::jetstream::{Republish, StreamConfig, StreamInfo};
use crate::config::{ByteSize, Problems, Span};
use crate::subject;

/// The most partitions that there may be.
pub const MAX_PARTITIONS: u32 = 256;
/// The longest age of a message.
const MAX_AGE: Duration = Duration::from_secs(100 * 366 * 86_400);

const PARTITIONS: &str = "mc-partitions";
const GENERATION: &str = "mc-generation";
const SMALLEST_LIMIT: &str = "mc-min-per-channel";

/// The policy for a full store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Full {
    /// Publishes are refused until there is room.
    #[default]
    Refuse,
    /// The oldest messages go. Clients that were away for too long are told.
    DropOldest,
}

/// How much history is stored, the same for all channels with history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct HistoryConfig {
    /// The number of streams over which the channels are divided. Must be the same for all parts. To change
    /// it, stop all edges and publishers and run `message-center partitions`.
    pub partitions: u32,
    /// The most messages stored of one channel; beyond it, the oldest are deleted.
    pub per_channel: u32,
    /// How long a message is stored.
    #[serde(with = "Span")]
    pub max_age: Duration,
    /// The most bytes stored in all partitions together.
    pub max_bytes: ByteSize,
    /// At `max_bytes`: refuse publishes, or delete the oldest messages.
    pub full: Full,
    /// How long a repeated publish is recognized by its message id or `Idempotency-Key`.
    #[serde(with = "Span")]
    pub duplicate_window: Duration,
    /// Replicas of each stream in a NATS cluster: 1, 3 or 5. The embedded bus has one.
    pub replicas: u8,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            partitions: 1,
            per_channel: 1_000,
            max_age: Duration::from_secs(72 * 3600),
            max_bytes: ByteSize(8 << 30),
            full: Full::Refuse,
            duplicate_window: Duration::from_secs(60),
            replicas: 1,
        }
    }
}

impl HistoryConfig {
    /// Adds every problem.
    pub fn validate(&self, problems: &mut Problems) {
        problems.check((1..=MAX_PARTITIONS).contains(&self.partitions), "history.partitions", || {
            format!("is {}; choose 1 to {MAX_PARTITIONS}", self.partitions)
        });
        problems.check(self.per_channel >= 1, "history.per_channel", || {
            "is 0; keep at least 1 message, or set history = false in the channel's rule".into()
        });
        problems.check(self.max_age >= Duration::from_secs(1), "history.max_age", || {
            "is under a second; without an end the store would only grow, so choose one, e.g. 72h".into()
        });
        problems.check(self.max_age <= MAX_AGE, "history.max_age", || {
            "is over 100 years; choose less, and let max_bytes be the end".into()
        });
        problems.check(self.max_bytes.0 >= 1 << 20, "history.max_bytes", || {
            "is under 1 MiB; give the store room".into()
        });
        let window = Duration::from_millis(100)..=self.max_age;
        problems.check(window.contains(&self.duplicate_window), "history.duplicate_window", || {
            "must be from 100ms to max_age; publishers repeat for up to 30s, so choose 60s".into()
        });
        problems.check(matches!(self.replicas, 1 | 3 | 5), "history.replicas", || {
            format!("is {}; a stream has 1, 3 or 5 copies", self.replicas)
        });
    }

    /// Returns the settings of a partition's stream. `of` are the notes in it.
    pub(super) fn stream(&self, partition: u32, of: Remembered) -> StreamConfig {
        StreamConfig {
            name: subject::log_stream(partition),
            subjects: vec![subject::log_all(partition)],
            retention: "limits".into(),
            storage: "file".into(),
            discard: match self.full {
                Full::Refuse => "new".into(),
                Full::DropOldest => "old".into(),
            },
            num_replicas: self.replicas,
            max_msgs_per_subject: i64::from(self.per_channel),
            max_bytes: i64::try_from(self.max_bytes.0 / u64::from(self.partitions)).unwrap_or(i64::MAX),
            max_age: nanos(self.max_age),
            duplicate_window: nanos(self.duplicate_window),
            allow_direct: true,
            republish: Some(Republish {
                src: subject::log_all(partition),
                dest: subject::live_all(partition),
            }),
            metadata: of.metadata(),
            others: serde_json::Map::new(),
        }
    }
}

/// The notes of message center in the metadata of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The number of partitions.
    pub(super) partitions: u32,
    /// The generation, raised when the stream went back in time.
    pub(super) generation: u64,
    /// The smallest limit of messages per channel that the stream ever had in this epoch.
    pub(super) smallest_limit: u32,
}

impl Remembered {
    /// Returns the notes of a new stream.
    pub(super) fn new(config: &HistoryConfig) -> Self {
        Self { partitions: config.partitions, generation: 0, smallest_limit: config.per_channel }
    }

    /// Reads the notes of a stream. `None`: no part of message center has created the stream.
    pub(super) fn of(info: &StreamInfo) -> Option<Self> {
        let get = |key| info.config.metadata.get(key);
        let limit = u32::try_from(info.config.max_msgs_per_subject).unwrap_or(u32::MAX);
        Some(Self {
            partitions: get(PARTITIONS)?.parse().ok()?,
            generation: get(GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0),
            // An operator may have lowered the limit further.
            smallest_limit: get(SMALLEST_LIMIT)
                .and_then(|text| text.parse().ok())
                .unwrap_or(limit)
                .min(limit),
        })
    }

    pub(super) fn metadata(self) -> BTreeMap<String, String> {
        [
            (PARTITIONS, self.partitions.to_string()),
            (GENERATION, self.generation.to_string()),
            (SMALLEST_LIMIT, self.smallest_limit.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

/// Returns whether a stream has the limits that it should have.
pub(super) fn same_limits(is: &StreamConfig, should: &StreamConfig) -> bool {
    let limits = |config: &StreamConfig| {
        (
            config.discard.clone(),
            config.num_replicas,
            config.max_msgs_per_subject,
            config.max_bytes,
            config.max_age,
            config.duplicate_window,
        )
    };
    limits(is) == limits(should)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_named() {
        let config = HistoryConfig {
            partitions: 0,
            per_channel: 0,
            max_age: Duration::ZERO,
            max_bytes: ByteSize(1),
            duplicate_window: Duration::from_secs(60),
            replicas: 2,
            full: Full::Refuse,
        };
        let mut problems = Problems::default();
        config.validate(&mut problems);
        assert_eq!(problems.len(), 6, "{problems}");
        let mut problems = Problems::default();
        HistoryConfig::default().validate(&mut problems);
        assert_eq!(problems.len(), 0, "{problems}");
    }

    #[test]
    fn a_stream_is_set_up_so() {
        let config = HistoryConfig { partitions: 2, ..HistoryConfig::default() };
        let stream = config.stream(1, Remembered::new(&config));
        insta::assert_json_snapshot!(stream);
    }
}
