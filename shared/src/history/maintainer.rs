//! Creates the streams, watches them, and finds out their epochs.
//!
//! The maintainer looks at each stream every [`INTERVAL`], and at once after each connect or when something
//! does not fit. A stream whose last sequence is below a sequence that was seen in the same epoch went back
//! in time (a backup was restored, a disk lost its end). Its generation is then raised, so that no earlier
//! position is taken for a present one.
//!
//! A new generation costs every client a reload. So the stream must be behind at [`PROOFS`] looks in a row,
//! or a new message must have been given a sequence that was seen before. A stream with replicas must also be
//! behind for [`STEADY`] while nothing newer is heard, and the leader that says so must have a quorum: a
//! leader that was cut off, or was just elected and has not caught up, is behind too. The same holds for a
//! leader that lacks a message at a sequence where one was heard.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::config::{Remembered, same_limits};
use super::{Epoch, Epochs, History, HistoryState, LOOKING, Partition, Role, WentBack};
use crate::bus::jetstream::{ApiError, NAME_IN_USE, StreamConfig, StreamInfo};
use crate::subject;

/// The interval between two looks at a stream.
const INTERVAL: Duration = Duration::from_secs(2);
/// The interval while something is not as it should be.
const SOON: Duration = Duration::from_millis(250);
/// The deadline of one call.
const DEADLINE: Duration = Duration::from_secs(5);
/// The looks in a row at which a stream must be behind.
const PROOFS: u32 = 4;

/// How long a stream with replicas must be behind. A leader without its followers goes on
/// for up to 10 s as if it led, and for a moment more after it has found them again.
const STEADY: Duration = Duration::from_secs(20);

/// The finding of the latest look at a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// Nothing yet: nobody has looked, or the stream does not exist and it is not its turn to be created.
    Nothing,
    /// The stream fits.
    Partition(Partition),
    /// Something is missing for now, as the text says.
    Later(String),
    /// The stream contradicts the configuration, as the text says.
    Mismatch(String),
}

/// Maintains the streams until the part leaves, each by itself: a stream without a leader must not delay the
/// others.
pub(super) async fn run(history: &History, leaving: &CancellationToken) {
    let found = Mutex::new(vec![Found::Nothing; history.partitions() as usize]);
    let all = All { history: history.clone(), found };
    let watched = (0..all.history.partitions()).map(|partition| Maintainer::new(&all, partition).watch());
    tokio::select! { _ = join_all(watched) => {}, () = leaving.cancelled() => {} }
}

/// Returns whether to believe that a stream went back. A stream with replicas may for a moment have a leader
/// that has not caught up, or a leader that was cut off and does not know that it leads no more.
fn is_believed(told: Option<WentBack>, has_replicas: bool, now: Instant) -> bool {
    match told {
        None => false,
        Some(WentBack::Perhaps { since }) => !has_replicas || now.saturating_duration_since(since) >= STEADY,
        Some(WentBack::Surely) => true,
    }
}

/// How often and how long a stream has been behind what was seen of it.
#[derive(Debug, Clone, Copy, Default)]
struct Behind {
    /// The looks in a row at which it was behind.
    times: u32,
    since: Option<Instant>,
    /// The highest sequence seen by the first of these looks.
    seen: u64,
}

impl Behind {
    /// Counts a look at which the stream was behind, and returns whether that is proof enough. `seen`: the
    /// highest sequence that was seen.
    fn is_proved(&mut self, seen: u64, has_replicas: bool, now: Instant) -> bool {
        if self.times == 0 || seen > self.seen {
            // Something newer was heard meanwhile: the server that answers does not lead.
            *self = Self { seen, ..Self::default() };
        }
        self.times += 1;
        let since = *self.since.get_or_insert(now);
        self.times >= PROOFS && (!has_replicas || now.duration_since(since) >= STEADY)
    }
}

/// The progress of this publisher in setting the limits of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limits {
    ToBeSet,
    Set,
    /// Somebody else changed them since.
    Overruled,
}

/// The state that the maintainers of all streams share.
struct All {
    history: History,
    /// The finding of each partition. Locked only to note the outcome of a look.
    found: Mutex<Vec<Found>>,
}

/// Maintains one stream.
struct Maintainer<'a> {
    all: &'a All,
    history: &'a History,
    partition: u32,
    limits: Limits,
    /// How long the stream has been behind.
    behind: Behind,
}

impl All {
    fn lock(&self) -> MutexGuard<'_, Vec<Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a stream may be created: all partitions before it exist and fit. So a part that is
    /// configured for more partitions than exist creates none.
    fn may_make(&self, partition: u32) -> bool {
        self.lock().iter().take(partition as usize).all(|found| matches!(found, Found::Partition(_)))
    }

    /// Notes the outcome of a look at a stream.
    fn tell(&self, partition: u32, found: Found) {
        let mut all = self.lock();
        let Some(slot) = all.get_mut(partition as usize) else { return };
        // An earlier outcome still holds: a stream without a leader for a while is the same stream.
        if !matches!((&found, &*slot), (Found::Later(_) | Found::Nothing, Found::Partition(_))) {
            let made = matches!(found, Found::Partition(_)) && *slot == Found::Nothing;
            *slot = found;
            if made {
                self.history.look_at(partition + 1);
            }
        }
        let state = state(&all);
        if let Some(before) = self.history.tell(state.clone()) {
            self.log(&before, &state);
        }
    }

    fn log(&self, before: &HistoryState, state: &HistoryState) {
        match state {
            HistoryState::Ready(epochs) => {
                let (partitions, changed) = (epochs.partitions.len(), before.epochs().is_some());
                tracing::info!(partitions, changed, "history is ready");
            }
            // The bus logs a missing connection itself, and one line is enough for many streams.
            HistoryState::Opening { why } if !self.history.inner.bus.state().borrow().connected => {
                tracing::debug!(why, "history can't be used yet");
            }
            HistoryState::Opening { why } if before.why_not().is_some_and(|before| before != LOOKING) => {
                tracing::debug!(why, "history can't be used yet");
            }
            HistoryState::Opening { why } => tracing::warn!(why, "history can't be used yet"),
            HistoryState::Mismatch { why } => tracing::error!(why, "history can't be used"),
        }
    }
}

/// Combines what was found of all streams.
fn state(all: &[Found]) -> HistoryState {
    let mut partitions = Vec::with_capacity(all.len());
    let mut missing = None;
    for found in all {
        match found {
            Found::Mismatch(why) => return HistoryState::Mismatch { why: why.clone() },
            Found::Partition(partition) => partitions.push(*partition),
            Found::Later(why) => missing = missing.or(Some(why)),
            Found::Nothing => {}
        }
    }
    if partitions.len() == all.len() {
        return HistoryState::Ready(Arc::new(Epochs { partitions }));
    }
    HistoryState::Opening { why: missing.map_or_else(|| LOOKING.to_owned(), Clone::clone) }
}

impl<'a> Maintainer<'a> {
    fn new(all: &'a All, partition: u32) -> Self {
        let (limits, behind) = (Limits::ToBeSet, Behind::default());
        Self { all, history: &all.history, partition, limits, behind }
    }

    async fn watch(mut self) {
        let Some(shard) = self.history.inner.partitions.get(self.partition as usize) else { return };
        let mut connection = self.history.inner.bus.state();
        loop {
            connection.borrow_and_update();
            let pause = self.look().await;
            tokio::select! {
                // A change of the connection is a reason to look at once; its end is the end of the part.
                changed = connection.changed() => if changed.is_err() { return },
                () = shard.look.notified() => {}
                () = sleep(pause) => {}
            }
            sleep(Duration::from_millis(fastrand::u64(1..20))).await;
        }
    }

    /// Looks once, notes the outcome, and returns the pause before the next look.
    async fn look(&mut self) -> Duration {
        let found = match self.look_at().await {
            Ok(Ok(found)) => Found::Partition(found),
            Ok(Err(mismatch)) => Found::Mismatch(mismatch),
            Err(ApiError::NoStream) if !self.all.may_make(self.partition) => Found::Nothing,
            Err(error) => Found::Later(format!("stream {}: {error}", subject::log_stream(self.partition))),
        };
        let is_known = !matches!(found, Found::Later(_) | Found::Nothing);
        self.all.tell(self.partition, found);
        let shard = self.history.inner.partitions.get(self.partition as usize);
        let odd = shard.is_some_and(|shard| shard.flag().is_some()) || self.behind.times > 0;
        if is_known && !odd { INTERVAL } else { SOON }
    }

    /// Reads the partition as it is now, and mends it. The inner error says what does not fit.
    async fn look_at(&mut self) -> Result<Result<Partition, String>, ApiError> {
        let partition = self.partition;
        // Read before the question, so that the answer knows no less.
        let seen = self.history.seen(partition);
        let inner = Arc::clone(&self.history.inner);
        let config = &inner.config;
        let mut info = self.info().await?;
        let Some(mut remembered) = Remembered::of(&info) else {
            let name = &info.config.name;
            return Ok(Err(format!(
                "there is a stream {name} that is not message center's; remove or rename it"
            )));
        };
        if remembered.partitions != config.partitions {
            return Ok(Err(format!(
                "history.partitions is {}, but the streams on the bus were made for {}; set it to {1}, or change \
                 the streams with `message-center partitions {0}` while all edges are stopped",
                config.partitions, remembered.partitions
            )));
        }
        let epoch = epoch(&info, remembered, partition);
        if self.went_back(epoch, &info, seen) {
            remembered.generation += 1;
            remembered.smallest_limit = config.per_channel;
            tracing::error!(
                stream = info.config.name,
                last = info.state.last_seq,
                seen,
                "the stream is behind what it had: clients will be told to reload"
            );
            info = self.set(&info, remembered).await?;
            self.behind = Behind::default();
        } else if self.history.inner.role == Role::Publisher {
            let differs = !same_limits(&info.config, &config.stream(partition, remembered));
            match (differs, self.limits) {
                (true, Limits::ToBeSet) => {
                    remembered.smallest_limit = remembered.smallest_limit.min(config.per_channel);
                    tracing::warn!(
                        stream = info.config.name,
                        "the stream gets the limits that are configured"
                    );
                    info = self.set(&info, remembered).await?;
                    self.limits = Limits::Set;
                }
                // The publisher that started last decides; to set them again and again would be a fight.
                (true, Limits::Set) => {
                    self.limits = Limits::Overruled;
                    tracing::warn!(
                        stream = info.config.name,
                        "another publisher-api, or an operator, gave the stream other limits than [history] has here; \
                         give every publisher-api the same"
                    );
                }
                (true, Limits::Overruled) => {}
                (false, _) => self.limits = Limits::Set,
            }
        }
        let smallest_limit = remembered.smallest_limit;
        Ok(Ok(Partition { epoch: epoch_of(&info, partition).unwrap_or(epoch), smallest_limit }))
    }

    fn went_back(&mut self, epoch: Epoch, info: &StreamInfo, seen: u64) -> bool {
        let partition = self.partition;
        let known = self.history.inner.state.borrow().epochs().and_then(|epochs| epochs.of(partition));
        let told = self.history.inner.partitions.get(partition as usize).and_then(|shard| *shard.flag());
        let has_replicas = info.config.num_replicas > 1;
        if known == Some(epoch) && is_believed(told, has_replicas, self.history.awake().now()) {
            return true;
        }
        let behind = &mut self.behind;
        if known == Some(epoch) && info.state.last_seq < seen && info.has_quorum {
            behind.is_proved(seen, has_replicas, self.history.awake().now())
        } else {
            *behind = Behind::default();
            false
        }
    }

    /// Asks for the stream, and creates it if it does not exist.
    async fn info(&self) -> Result<StreamInfo, ApiError> {
        let (bus, partition) = (&self.history.inner.bus, self.partition);
        let name = subject::log_stream(partition);
        match bus.stream_info(&name, DEADLINE).await {
            Err(ApiError::NoStream) if self.all.may_make(partition) => {}
            other => return other,
        }
        let config = &self.history.inner.config;
        match bus.create_stream(&config.stream(partition, Remembered::new(config)), DEADLINE).await {
            // Another part was faster.
            Err(ApiError::Api { err_code: NAME_IN_USE, .. }) => bus.stream_info(&name, DEADLINE).await,
            Ok(info) => {
                tracing::info!(stream = name, "the stream is made");
                Ok(info)
            }
            Err(error) => Err(error),
        }
    }

    async fn set(&self, info: &StreamInfo, remembered: Remembered) -> Result<StreamInfo, ApiError> {
        let should = match self.history.inner.role {
            Role::Publisher => self.history.inner.config.stream(self.partition, remembered),
            Role::Reader => StreamConfig { metadata: remembered.metadata(), ..info.config.clone() },
        };
        self.history.inner.bus.update_stream(&info.config, &should, DEADLINE).await
    }
}

fn epoch(info: &StreamInfo, remembered: Remembered, partition: u32) -> Epoch {
    Epoch::of(info.created, remembered.partitions, partition, remembered.generation)
}

fn epoch_of(info: &StreamInfo, partition: u32) -> Option<Epoch> {
    partition_of(info, partition).map(|partition| partition.epoch)
}

/// Reads how a stream describes itself. `None`: no part of message center has created it.
pub(super) fn partition_of(info: &StreamInfo, partition: u32) -> Option<Partition> {
    let remembered = Remembered::of(info)?;
    Some(Partition { epoch: epoch(info, remembered, partition), smallest_limit: remembered.smallest_limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_behind_after_some_looks_and_one_with_copies_only_after_a_while() {
        let (now, mut alone, mut copied) = (Instant::now(), Behind::default(), Behind::default());
        let looks: Vec<_> = (0..100_u32)
            .map(|look| {
                (alone.is_proved(9, false, now + SOON * look), copied.is_proved(9, true, now + SOON * look))
            })
            .collect();
        assert_eq!(looks.iter().position(|(alone, _)| *alone), Some(3));
        assert_eq!(looks.iter().position(|(_, copied)| *copied), Some(80));
    }

    #[test]
    fn that_a_stream_went_back_is_believed_at_once_and_of_one_with_copies_only_after_a_while() {
        let (now, late) = (Instant::now(), Instant::now() + STEADY);
        let believed = |told, now| (is_believed(told, false, now), is_believed(told, true, now));
        assert_eq!(believed(None, late), (false, false));
        let perhaps = Some(WentBack::Perhaps { since: now });
        assert_eq!(believed(perhaps, now), (true, false));
        assert_eq!(believed(perhaps, late), (true, true));
        assert_eq!(believed(Some(WentBack::Surely), now), (true, true));
    }

    #[test]
    fn history_is_ready_once_every_stream_was_found_and_one_that_does_not_fit_is_told_first() {
        let partition = |epoch| Found::Partition(Partition { epoch: Epoch(epoch), smallest_limit: 1 });
        let opening = |why: &str| HistoryState::Opening { why: why.to_owned() };
        assert_eq!(state(&[Found::Nothing, partition(2)]), opening(LOOKING));
        assert_eq!(
            state(&[partition(1), Found::Later("no leader".into()), Found::Nothing]),
            opening("no leader")
        );
        let ready = state(&[partition(1), partition(2)]);
        assert_eq!(
            ready.epochs().map(|epochs| (epochs.of(0), epochs.of(1))),
            Some((Some(Epoch(1)), Some(Epoch(2))))
        );
        let odd = state(&[Found::Later("no leader".into()), Found::Mismatch("made for 2".into())]);
        assert_eq!(odd, HistoryState::Mismatch { why: "made for 2".into() });
    }

    #[test]
    fn a_stream_of_which_newer_messages_come_is_not_behind() {
        let (now, mut behind) = (Instant::now(), Behind::default());
        assert!((0..200_u32).all(|look| !behind.is_proved(u64::from(look / 40), true, now + SOON * look)));
        assert!((200..300_u32).any(|look| behind.is_proved(4, true, now + SOON * look)));
    }
}
