//! What an operator does to the streams of the history, with the parts stopped or not.
//!
//! Nothing here asks whether it should: the commands do that. What is begun and breaks off leaves streams
//! that no part takes for whole, and can be begun again.

use std::time::Duration;

use serde_json::Map;

use super::config::Remembered;
use super::{Epoch, HistoryConfig, MAX_PARTITIONS};
use crate::bus::Bus;
use crate::bus::jetstream::{ApiError, StreamConfig, StreamInfo, StreamState};
use crate::subject;

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// What an operator set that streams which take the place of others have too.
const PASSED_ON: [&str; 2] = ["placement", "compression"];

/// A stream of the history as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatus {
    /// Which partition it is, by its name.
    pub partition: u32,
    /// How it is set up.
    pub config: StreamConfig,
    /// What it holds.
    pub state: StreamState,
    /// Who leads it; none on a bus without a cluster.
    pub leader: Option<String>,
    /// What is remembered of its life; none if nobody of us has made it.
    pub life: Option<Life>,
}

/// What is remembered in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The epoch that clients are given.
    pub epoch: Epoch,
    /// How many partitions it was made for.
    pub partitions: u32,
    /// How often it was declared to have gone back in time.
    pub generation: u64,
}

impl StreamStatus {
    fn of(partition: u32, info: StreamInfo) -> Self {
        let life = Remembered::of(&info).map(|remembered| Life {
            epoch: Epoch::of(info.created, remembered.partitions, partition, remembered.generation),
            partitions: remembered.partitions,
            generation: remembered.generation,
        });
        let StreamInfo { config, state, leader, .. } = info;
        Self { partition, config, state, leader, life }
    }
}

/// Every stream of the history that there is, whatever it was made for.
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

/// Declares that these streams may not be what they were: every position that clients have is worth nothing
/// from now on.
///
/// # Errors
/// See [`ApiError`]. Repeat it; a generation more does no harm.
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

/// Deletes `old` with all that they hold, and makes the empty streams of `config`. Those whose names are free
/// are made first: if the bus has no room for them, they are removed again and nothing has changed. Where an
/// operator placed the first stream, and how it is compressed, holds for all.
///
/// # Errors
/// See [`ApiError`]. Once something was deleted, no part takes what is left for a history until it was
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
