//! Storing a message: tried until the stream says that it has it, always under the same id.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::time::Instant;

use super::{Epoch, History, HistoryState, Position};
use crate::bus::jetstream::{ApiError, Get, PubAck};
use crate::headers;
use crate::ids::{Channel, MessageId};
use crate::subject;
use crate::wire::{Kind, LiveMessage};

/// How long one try may take.
const TRY: Duration = Duration::from_secs(3);
/// The pause after the first try that failed, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What the store answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Where the message is.
    pub position: Position,
    /// It was there already, by its id.
    pub duplicate: bool,
    /// How often it was tried before.
    pub retries: u32,
}

/// What erasing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// How many messages were removed.
    pub messages: u64,
    /// Where the channel goes on.
    pub position: Position,
}

/// Why a message is not stored, or nobody can tell whether it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store has no room.
    #[error("the store is full: raise history.max_bytes, or set history.full to drop-oldest")]
    Full,
    /// The store could not be reached until the deadline. The message may be stored: repeat it under the same
    /// id.
    #[error("the store can't be reached: {0}")]
    Unavailable(ApiError),
    /// The store does not take it, and would not later.
    #[error("the store refuses the message: {0}")]
    Refused(ApiError),
}

impl History {
    /// Stores a message, tried under its id until `deadline`, a moment of [`crate::bus::Bus::awake`].
    /// `more` are headers that travel with it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn store(
        &self,
        channel: &Channel,
        message: &LiveMessage,
        more: HeaderMap,
        deadline: Instant,
    ) -> Result<Stored, StoreError> {
        let mut headers = message.headers();
        for (name, values) in more.iter() {
            for value in values {
                headers.append(name.clone(), value.clone());
            }
        }
        self.store_with(channel, || headers.clone(), &message.payload, deadline).await
    }

    /// The same with headers made anew for each try, so that a test can show what the message id is for.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn store_with(
        &self,
        channel: &Channel,
        headers: impl Fn() -> HeaderMap,
        payload: &Bytes,
        deadline: Instant,
    ) -> Result<Stored, StoreError> {
        let subject = subject::log(channel, self.partitions());
        let mut pause = FIRST_PAUSE;
        let mut retries = 0;
        let awake = self.inner.bus.awake();
        loop {
            let before = self.epoch(channel).map(|epoch| (epoch, self.seen(self.partition(channel))));
            let tried = async {
                let left = deadline.saturating_duration_since(awake.now());
                self.inner.bus.connected(left).await?;
                self.inner.bus.store(subject.clone(), headers(), payload.clone(), TRY.min(left)).await
            };
            let error = match awake.timeout_at(deadline, tried).await {
                Ok(Ok(ack)) => {
                    let epoch = self.notice(channel, before, ack, deadline).await?;
                    match self.stored(channel, epoch, ack, retries) {
                        Some(stored) => return Ok(stored),
                        // Asked again under the same id, the stream of now says where it has the message.
                        None => ApiError::NoStream,
                    }
                }
                Ok(Err(error)) => error,
                Err(_) => ApiError::Timeout,
            };
            if error.is_full() {
                return Err(StoreError::Full);
            }
            if !error.passes() {
                return Err(StoreError::Refused(error));
            }
            let next = awake.now() + pause.mul_f64(0.75 + fastrand::f64() / 2.0);
            if next >= deadline {
                return Err(StoreError::Unavailable(error));
            }
            tracing::debug!(%error, retries, "a message is not stored yet");
            awake.sleep_until(next).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            retries += 1;
        }
    }

    /// The epoch in which a message was stored, if it is known. A new message whose sequence was seen before
    /// it was sent: the stream went back, so nothing is acknowledged until its epoch is another one. Later
    /// messages would hide it: once the stream is as long as it was, nothing looks missing.
    async fn notice(
        &self,
        channel: &Channel,
        before: Option<(Epoch, u64)>,
        PubAck { seq, duplicate }: PubAck,
        deadline: Instant,
    ) -> Result<Option<Epoch>, StoreError> {
        let partition = self.partition(channel);
        let Some((epoch, seen)) = before else { return Ok(None) };
        if duplicate || seq > seen || self.epoch(channel) != Some(epoch) {
            return Ok(Some(epoch));
        }
        self.went_back(epoch, partition);
        tracing::error!(partition, seq, seen, "a new message was given a sequence that was there before");
        let mut state = self.state();
        let other =
            |state: &HistoryState| state.epochs().is_some_and(|epochs| epochs.of(partition) != Some(epoch));
        match self.inner.bus.awake().timeout_at(deadline, state.wait_for(other)).await {
            Ok(Ok(state)) => Ok(state.epochs().and_then(|epochs| epochs.of(partition))),
            Ok(Err(_)) | Err(_) => Err(StoreError::Unavailable(ApiError::Timeout)),
        }
    }

    /// `None` if it is not known which epoch that was, or the epoch is another one by now: its sequences are
    /// others.
    fn stored(
        &self,
        channel: &Channel,
        epoch: Option<Epoch>,
        PubAck { seq, duplicate }: PubAck,
        retries: u32,
    ) -> Option<Stored> {
        let epoch = epoch.filter(|epoch| self.epoch(channel) == Some(*epoch))?;
        self.saw(epoch, self.partition(channel), seq);
        Some(Stored { position: Position { epoch, seq }, duplicate, retries })
    }

    /// Removes all messages of a channel, tried until `deadline`, a moment of [`crate::bus::Bus::awake`].
    /// Whoever recovers from before is told so.
    ///
    /// # Errors
    /// See [`StoreError`]. What was removed by then stays removed; repeat it.
    pub async fn erase(&self, channel: &Channel, deadline: Instant) -> Result<Erased, StoreError> {
        // The mark first: at no moment is something missing without it. It is removed with the rest only if
        // there is no later one.
        let stream = subject::log_stream(self.partition(channel));
        let subject = subject::log(channel, self.partitions());
        let id = MessageId(crate::ids::random_bits());
        let message = LiveMessage { id, kind: Kind::Text, payload: Bytes::new() };
        let mut mark = HeaderMap::new();
        mark.insert(headers::ERASED, "1");
        // Where that can't be told now, what is removed behind the mark is told.
        let left = deadline.saturating_duration_since(self.inner.bus.awake().now());
        let before = self.messages_of(&stream, &subject, TRY.min(left / 3)).await.unwrap_or_default();
        let Stored { position, .. } = self.store(channel, &message, mark, deadline).await?;
        let left =
            deadline.saturating_duration_since(self.inner.bus.awake().now()).max(Duration::from_millis(100));
        let purged = self.inner.bus.purge_before(&stream, &subject, position.seq, left.min(TRY * 3)).await;
        let purged = purged.map_err(failed)?;
        // At a limit the mark has already taken the place of some.
        Ok(Erased { messages: purged.saturating_sub(before.marks).max(before.messages), position })
    }

    /// What a subject holds; each of the two questions may take `patience`.
    async fn messages_of(&self, stream: &str, subject: &str, patience: Duration) -> Result<Before, ApiError> {
        let bus = &self.inner.bus;
        let all = bus.count_of(stream, subject, patience).await?;
        // A mark is followed by whatever was stored since, so there is none behind the first.
        let first = bus.get_message(stream, Get::Next { seq: 1, subject }, patience).await?;
        let marks = u64::from(first.is_some_and(|first| first.headers.get(headers::ERASED).is_some()));
        Ok(Before { messages: all.saturating_sub(marks), marks })
    }
}

/// What a channel holds before it is erased.
#[derive(Clone, Copy, Default)]
struct Before {
    messages: u64,
    /// Of an earlier erasure: 0 or 1.
    marks: u64,
}

fn failed(error: ApiError) -> StoreError {
    if error.passes() { StoreError::Unavailable(error) } else { StoreError::Refused(error) }
}
