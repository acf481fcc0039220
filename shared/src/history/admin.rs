//! The operations of operators on the streams of the history, whether the parts run or not.
//!
//! Nothing here asks for confirmation: the commands do. An operation that breaks off leaves streams that no
//! part takes for whole, and can be repeated.

use std::time::Duration;

use serde_json::Map;

use super::config::Remembered;
use super::{Epoch, HistoryConfig, MAX_PARTITIONS};
use crate::bus::Bus;
use crate::bus::jetstream::{ApiError, StreamConfig, StreamInfo, StreamState};
use crate::subject;

/// The deadline of one call.
const DEADLINE: Duration = Duration::from_secs(10);
/// The settings of an operator that new streams take over from the old ones.
const PASSED_ON: [&str; 2] = ["placement", "compression"];

/// The state of a stream of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatus {
    /// The partition, by the name of the stream.
    pub partition: u32,
    /// The settings.
    pub config: StreamConfig,
    /// The contents.
    pub state: StreamState,
    /// The server that leads the stream; `None` on a bus without a cluster.
    pub leader: Option<String>,
    /// The notes in the stream; `None`: no part of message center has created it.
    pub notes: Option<Notes>,
}

/// The notes of message center in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notes {
    /// The epoch.
    pub epoch: Epoch,
    /// The number of partitions for which the stream was created.
    pub partitions: u32,
    /// How often the stream was declared to have gone back in time.
    pub generation: u64,
}

impl StreamStatus {
    fn of(partition: u32, info: StreamInfo) -> Self {
        let notes = Remembered::of(&info).map(|remembered| Notes {
            epoch: Epoch::of(info.created, remembered.partitions, partition, remembered.generation),
            partitions: remembered.partitions,
            generation: remembered.generation,
        });
        let StreamInfo { config, state, leader, .. } = info;
        Self { partition, config, state, leader, notes }
    }
}

/// Returns every stream of the history that exists, whatever number of partitions it was created for.
///
/// # Errors
/// See [`ApiError`].
pub async fn streams(bus: &Bus) -> Result<Vec<StreamStatus>, ApiError> {
    let mut found = Vec::new();
    for partition in 0..MAX_PARTITIONS {
        match bus.stream_info(&subject::log_stream(partition), DEADLINE).await {
            Ok(info) => found.push(StreamStatus::of(partition, info)),
            Err(ApiError::NoStream) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Raises the generation of these streams: all positions that clients have become worthless.
///
/// # Errors
/// See [`ApiError`]. Repeat the call; one more generation does no harm.
pub async fn raise_generation(bus: &Bus, streams: &[StreamStatus]) -> Result<Vec<StreamStatus>, ApiError> {
    let mut raised = Vec::new();
    for StreamStatus { partition, config, .. } in streams {
        let info = bus.stream_info(&config.name, DEADLINE).await?;
        let Some(mut remembered) = Remembered::of(&info) else { continue };
        remembered.generation += 1;
        remembered.smallest_limit = u32::try_from(info.config.max_msgs_per_subject).unwrap_or(u32::MAX);
        let should = StreamConfig { metadata: remembered.metadata(), ..info.config.clone() };
        let info = bus.update_stream(&info.config, &should, DEADLINE).await?;
        raised.push(StreamStatus::of(*partition, info));
    }
    Ok(raised)
}

/// Deletes the streams `old` with their messages, and creates the empty streams of `config`. Streams whose
/// names are free are created first: if the bus has no space for them, they are removed again and nothing has
/// changed. The placement and the compression of the first old stream hold for all.
///
/// # Errors
/// See [`ApiError`]. Once a stream was deleted, no part takes the rest for a history until the call was
/// repeated.
pub async fn divide(
    bus: &Bus,
    old: &[StreamStatus],
    config: &HistoryConfig,
) -> Result<Vec<StreamStatus>, ApiError> {
    let mut made = Vec::new();
    let others: Map<_, _> = old.first().map_or_else(Map::new, |first| {
        let passed_on = |(name, _): &(&String, _)| PASSED_ON.contains(&name.as_str());
        let some = first.config.others.iter().filter(passed_on);
        some.map(|(name, value)| (name.clone(), value.clone())).collect()
    });
    let new = |partition| StreamConfig {
        others: others.clone(),
        ..config.stream(partition, Remembered::new(config))
    };
    let is_free = |partition: &u32| old.iter().all(|stream| stream.partition != *partition);
    for partition in (0..config.partitions).filter(is_free) {
        match bus.create_stream(&new(partition), DEADLINE).await {
            Ok(info) => made.push(StreamStatus::of(partition, info)),
            Err(error) => {
                for StreamStatus { config: StreamConfig { name, .. }, .. } in &made {
                    bus.delete_stream(name, DEADLINE).await?;
                }
                return Err(error);
            }
        }
    }
    for StreamStatus { config: StreamConfig { name, .. }, .. } in old {
        match bus.delete_stream(name, DEADLINE).await {
            Ok(()) | Err(ApiError::NoStream) => {}
            Err(error) => return Err(error),
        }
    }
    for partition in (0..config.partitions).filter(|partition| !is_free(partition)) {
        made.push(StreamStatus::of(partition, bus.create_stream(&new(partition), DEADLINE).await?));
    }
    made.sort_by_key(|stream| stream.partition);
    Ok(made)
}
