//! Stores messages: tried until the stream acknowledges, always under the same message id.

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

/// The deadline of one try.
const TRY: Duration = Duration::from_secs(3);
/// The pause after the first failed try, and the longest pause.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The outcome of storing a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The position of the message.
    pub position: Position,
    /// Whether a message with the same id was stored before.
    pub duplicate: bool,
    /// The number of failed tries before.
    pub retries: u32,
}

/// The outcome of erasing a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// The number of messages that were removed.
    pub messages: u64,
    /// The position behind which the channel goes on.
    pub position: Position,
}

/// Why a message is not stored, or why that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store is full.
    #[error("the store is full: raise history.max_bytes, or set history.full to drop-oldest")]
    Full,
    /// The store could not be reached until the deadline. The message may be stored: repeat it under the same
    /// id.
    #[error("the store can't be reached: {0}")]
    Unavailable(ApiError),
    /// The store refuses the message, and would refuse it again.
    #[error("the store refuses the message: {0}")]
    Refused(ApiError),
}

impl History {
    /// Stores a message, trying under its id until `deadline`, a moment of [`crate::bus::Bus::awake`]. `more`
    /// are further headers of the message.
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

    /// Stores a message with headers that are made for each try, so that a test can show what the message id
    /// is for.
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
            // The epoch first: with the sequence seen in an earlier epoch, a new stream looks gone back.
            let epoch = self.epoch(channel);
            let before = epoch.map(|epoch| Position { epoch, seq: self.seen(self.partition(channel)) });
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
                        // Stored again under the same id, the message gets its position in the new epoch.
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

    /// Returns the epoch in which a message was stored, if it is known. A new message with a sequence that
    /// was seen before shows that the stream went back: nothing is acknowledged then until the epoch is
    /// another one. Later messages would hide the loss: once the stream is as long as before, nothing looks
    /// missing.
    async fn notice(
        &self,
        channel: &Channel,
        before: Option<Position>,
        PubAck { seq, duplicate }: PubAck,
        deadline: Instant,
    ) -> Result<Option<Epoch>, StoreError> {
        let partition = self.partition(channel);
        let Some(Position { epoch, seq: seen }) = before else { return Ok(None) };
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

    /// Returns the outcome of a try. `None`: the epoch is unknown, or another one by now, with other
    /// sequences.
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

    /// Removes all messages of a channel, trying until `deadline`, a moment of [`crate::bus::Bus::awake`].
    /// Clients that recover from before are told that messages are missing.
    ///
    /// # Errors
    /// See [`StoreError`]. Messages removed by then stay removed; repeat the call.
    pub async fn erase(&self, channel: &Channel, deadline: Instant) -> Result<Erased, StoreError> {
        // The mark first: messages are never missing without a mark. Only a later mark removes it.
        let stream = subject::log_stream(self.partition(channel));
        let subject = subject::log(channel, self.partitions());
        let id = MessageId(crate::ids::random_bits());
        let message = LiveMessage { id, kind: Kind::Text, payload: Bytes::new() };
        let mut mark = HeaderMap::new();
        mark.insert(headers::ERASED, "1");
        // Where the count can't be had now, the number of removed messages stands for it.
        let left = deadline.saturating_duration_since(self.inner.bus.awake().now());
        let before = self.messages_of(&stream, &subject, TRY.min(left / 3)).await.unwrap_or_default();
        let Stored { position, .. } = self.store(channel, &message, mark, deadline).await?;
        let left =
            deadline.saturating_duration_since(self.inner.bus.awake().now()).max(Duration::from_millis(100));
        let purged = self.inner.bus.purge_before(&stream, &subject, position.seq, left.min(TRY * 3)).await;
        let purged = purged.map_err(failed)?;
        // At a limit the mark has already pushed some out.
        Ok(Erased { messages: purged.saturating_sub(before.marks).max(before.messages), position })
    }

    /// Counts the messages of a subject; each of the two questions may take `patience`.
    async fn messages_of(&self, stream: &str, subject: &str, patience: Duration) -> Result<Before, ApiError> {
        let bus = &self.inner.bus;
        let all = bus.count_of(stream, subject, patience).await?;
        // A mark comes before all that was stored since, so only the first message can be one.
        let first = bus.get_message(stream, Get::Next { seq: 1, subject }, patience).await?;
        let marks = u64::from(first.is_some_and(|first| first.headers.get(headers::ERASED).is_some()));
        Ok(Before { messages: all.saturating_sub(marks), marks })
    }
}

/// The contents of a channel before it is erased.
#[derive(Clone, Copy, Default)]
struct Before {
    messages: u64,
    /// The marks of an earlier erasure: 0 or 1.
    marks: u64,
}

fn failed(error: ApiError) -> StoreError {
    if error.passes() { StoreError::Unavailable(error) } else { StoreError::Refused(error) }
}
