//! Reads stored messages, and tells whether any are missing.
//!
//! A page is whole if two things hold. The stream's first sequence, asked of the leader after the page was
//! read, is not beyond the sequence behind the beginning of the page: so no message of the page can have expired. And fewer
//! messages of the channel lie behind that beginning than the smallest limit of this epoch: so none of them
//! can have been pushed out by later ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::maintainer::partition_of;
use super::{Epoch, History, Partition, Position};
use crate::bus::jetstream::{ApiError, Batch, BatchAnswer, Get, RawMessage, StreamState};
use crate::headers;
use crate::ids::{Channel, MessageId};
use crate::subject;
use crate::wire::{LiveMessage, WireError};

/// The deadline of one read.
const DEADLINE: Duration = Duration::from_secs(5);
/// The pause before a replica that is behind is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// The most bytes of the answers about the last messages of channels, which come with their bodies: of all
/// partitions at the same time, and the least of one partition. A bus closes connections for which too much
/// waits.
const TAIL_BYTES: usize = 2 << 20;
const FEWEST_TAIL_BYTES: usize = 64 << 10;

/// How soon a leader must name the last sequence of a channel. Beyond, the last message is read.
const SAYS_WITHIN: Duration = Duration::from_secs(1);
/// How long leaders are not asked again after one did not answer.
const SILENCE: Duration = Duration::from_secs(60);

/// Remembers that leaders do not name last sequences, as on a bus that permits a part to publish less than
/// the part needs.
#[derive(Debug, Default)]
pub(super) struct Silence(std::sync::Mutex<Option<Instant>>);

impl Silence {
    fn begin(&self) {
        *self.until() = Some(Instant::now() + SILENCE);
    }

    fn lasts(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    fn until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The most that one page holds.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    /// Messages, at least 1.
    pub messages: usize,
    /// Bytes; a larger message comes alone.
    pub bytes: usize,
}

/// A stored message.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// The sequence in the stream.
    pub seq: u64,
    /// When the message was stored, in nanoseconds since 1970.
    pub time: u64,
    /// Whether this is a mark in place of erased messages, and no message itself.
    pub erased: bool,
    /// The message; an error if it can't be read, for instance because a newer version wrote it.
    pub message: Result<LiveMessage, Arc<WireError>>,
    /// The headers, with the trace of the publish.
    pub headers: async_nats::HeaderMap,
}

/// Messages of one channel, in order.
#[derive(Debug, Clone)]
pub struct Page {
    /// The epoch of the stream.
    pub epoch: Epoch,
    /// The messages. Empty: as the answering replica knows, there are no more.
    pub messages: Vec<StoredMessage>,
    /// The number of the channel's messages behind these, as the answering replica knows.
    pub remaining: u64,
    /// Whether no message is missing from the beginning of the page to the last message here. A page that is
    /// not whole never becomes whole.
    pub whole: bool,
    /// The stream's last sequence at its leader, read after the page.
    pub last_seq: u64,
}

/// The end of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The epoch of the stream.
    pub epoch: Epoch,
    /// The channel's last sequence; 0 if no message of it is stored.
    pub tail: u64,
    /// The stream's last sequence at the replica that answered: a message that the replica lacks up to here
    /// does not exist. 0: the replica did not say.
    pub come: u64,
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// History can't be used now.
    #[error("history can't be used now")]
    NotReady,
    /// The stream has another epoch than when the reading began.
    #[error("the stream was made anew meanwhile")]
    OtherEpoch,
    /// The leader lacks messages that were seen: it has not caught up, or the stream went back.
    #[error("the stream has less than was seen of it")]
    Behind,
    /// The call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl History {
    /// Asks the stream's leader for the position of a channel's last message; its sequence is 0 if no message
    /// is stored.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn tail(&self, channel: &Channel) -> Result<Position, ReadError> {
        let epoch = self.epoch(channel).ok_or(ReadError::NotReady)?;
        let partition = self.partition(channel);
        let seq = self.last_of(partition, &subject::log(channel, self.partitions())).await?;
        self.still(channel, epoch)?;
        self.saw(epoch, partition, seq);
        Ok(Position { epoch, seq })
    }

    /// Asks for the last sequence without the message. The message is read only if the leader does not answer
    /// that: while messages of the channel are on their way to the replicas, or the store is full.
    async fn last_of(&self, partition: u32, subject: &str) -> Result<u64, ApiError> {
        let bus = &self.inner.bus;
        let mut silent = false;
        if !self.inner.silence.lasts() {
            match bus.last_of_subject(subject, SAYS_WITHIN).await {
                Ok(Some(seq)) if seq > 0 => return Ok(seq),
                // A leader that could not look says 0 as well; a read costs nothing then.
                Ok(_) => {}
                Err(ApiError::Timeout) => silent = true,
                Err(error) => return Err(error),
            }
        }
        let last = bus.get_message(&subject::log_stream(partition), Get::Last(subject), DEADLINE).await?;
        if silent {
            self.inner.silence.begin();
            tracing::warn!(
                subject = subject::log_all(partition),
                "the bus does not say where channels end, so their last messages are read; this part needs the \
                 permission to publish there"
            );
        }
        Ok(last.map_or(0, |message| message.seq))
    }

    /// Reads the last sequences of channels of one partition (at most 1,000), in the order of the channels.
    /// `None`: the channel has no message beyond `after`. `at_least`: the stream's last sequence, from the
    /// leader, that the answering replica must have. Asks until every channel is answered: the caller sets
    /// the deadline.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn tails(
        &self,
        partition: u32,
        channels: &[Channel],
        after: u64,
        at_least: u64,
    ) -> Result<Vec<Option<u64>>, ReadError> {
        let stream = subject::log_stream(partition);
        let mut open = Open::new(channels, self.partitions());
        // All partitions may be asked at the same time: together their answers stay within the bound.
        let bytes = (TAIL_BYTES / self.partitions() as usize).max(FEWEST_TAIL_BYTES);
        while !open.subjects.is_empty() {
            let subjects = open.subjects();
            let batch = Batch::LastOf { subjects: &subjects, seq: after.saturating_add(1), bytes };
            match self.inner.bus.direct_batch(&stream, batch, DEADLINE).await? {
                BatchAnswer::Whole { messages, up_to: Some(up_to) } if up_to >= at_least => {
                    open.answer(&messages);
                    break;
                }
                BatchAnswer::Cut { messages, up_to: Some(up_to), .. } if up_to >= at_least => {
                    open.answer(&messages);
                }
                // An empty answer does not say how far the replica has come. A message that the leader has
                // makes the replica say so.
                BatchAnswer::Whole { up_to: None, .. } if open.known.is_none() => {
                    let get = Get::Next { seq: 1, subject: &subject::log_all(partition) };
                    match self.inner.bus.get_message(&stream, get, DEADLINE).await? {
                        Some(message) => open.known = Some(message.subject),
                        None => break,
                    }
                }
                // The replica is behind, or the leader's message is gone by now.
                BatchAnswer::Whole { .. } | BatchAnswer::Cut { .. } => {
                    open.known = None;
                    sleep(PAUSE).await;
                }
            }
        }
        Ok(open.tails)
    }

    /// Reads the end of a channel in this epoch, and how far the answering replica has come. Both are one
    /// answer of one replica, so that neither a leader that was cut off nor a leader that has not caught up
    /// is believed.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn end(&self, channel: &Channel, epoch: Epoch) -> Result<End, ReadError> {
        let partition = self.partition(channel);
        // Read before the question, so that the answer knows no less.
        let before = self.still_at_leader(partition, epoch).await?;
        let subjects = [subject::log(channel, self.partitions())];
        let stream = subject::log_stream(partition);
        let batch = Batch::LastOf { subjects: &subjects, seq: 1, bytes: 1 };
        // A channel has one last message, so the answer can't have been cut off before it.
        let (BatchAnswer::Whole { messages, up_to } | BatchAnswer::Cut { messages, up_to, .. }) =
            self.inner.bus.direct_batch(&stream, batch, DEADLINE).await?;
        self.still_at_leader(partition, epoch).await?;
        let alone = (self.inner.config.replicas <= 1).then_some(before.last_seq);
        let tail = messages.first().map_or(0, |message| message.seq);
        Ok(End { epoch, tail, come: up_to.or(alone).unwrap_or(0) })
    }

    async fn still_at_leader(&self, partition: u32, epoch: Epoch) -> Result<StreamState, ReadError> {
        let (now, state) = self.fresh_epoch(partition).await?;
        if now == epoch { Ok(state) } else { Err(ReadError::OtherEpoch) }
    }

    /// Reads the messages of a channel behind a sequence of this epoch, within `limit`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn page(
        &self,
        channel: &Channel,
        epoch: Epoch,
        after: u64,
        limit: PageLimit,
    ) -> Result<Page, ReadError> {
        self.still(channel, epoch)?;
        let partition = self.partition(channel);
        let subject = subject::log(channel, self.partitions());
        let batch = Batch::Next {
            seq: after.saturating_add(1),
            subject: &subject,
            messages: limit.messages.clamp(1, 1_000),
            bytes: limit.bytes,
        };
        // Read before the questions, so that the answers know no less.
        let seen = self.seen(partition);
        let read = self.inner.bus.direct_batch(&subject::log_stream(partition), batch, DEADLINE).await?;
        let (messages, remaining) = match read {
            BatchAnswer::Whole { messages, .. } => (messages, 0),
            BatchAnswer::Cut { messages, pending, .. } => (messages, pending),
        };
        // The maintainer looks only from time to time, and the stream may have changed since.
        let (known, state) = self.leader(partition).await?;
        if known.epoch != epoch {
            return Err(ReadError::OtherEpoch);
        }
        if state.last_seq < seen {
            return Err(ReadError::Behind);
        }
        let count = messages.len() as u64 + remaining;
        let first = if state.messages == 0 { state.last_seq + 1 } else { state.first_seq };
        // A stream that never lost a message begins at 1. An empty stream has lost none if it never had one.
        let unexpired = after.saturating_add(1) >= first || state.last_seq == 0;
        self.saw(epoch, partition, state.last_seq);
        Ok(Page {
            epoch,
            remaining,
            whole: unexpired && count < u64::from(known.smallest_limit),
            last_seq: state.last_seq,
            messages: messages.into_iter().map(stored).collect(),
        })
    }

    /// Reads the channel and the id of the message at a sequence, from the leader. `None`: no readable
    /// message is there.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn id_at(&self, partition: u32, seq: u64) -> Result<Option<(String, MessageId)>, ReadError> {
        let stream = subject::log_stream(partition);
        let raw = self.inner.bus.get_message(&stream, Get::Seq(seq), DEADLINE).await?;
        Ok(raw.and_then(|raw| {
            let channel = subject::parse_log(&raw.subject)?.into_owned();
            Some((channel, stored(raw).message.ok()?.id))
        }))
    }

    /// Reads the state of a partition's stream from the leader, asked after this call. Concurrent callers
    /// share one question.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn fresh(&self, partition: u32) -> Result<StreamState, ReadError> {
        self.leader(partition).await.map(|(_, state)| state)
    }

    /// Reads the state of a partition's stream with its epoch, which may be newer than the epoch known here.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn fresh_epoch(&self, partition: u32) -> Result<(Epoch, StreamState), ReadError> {
        self.leader(partition).await.map(|(partition, state)| (partition.epoch, state))
    }

    async fn leader(&self, partition: u32) -> Result<(Partition, StreamState), ReadError> {
        let now = Instant::now();
        let shard = self.inner.partitions.get(partition as usize).ok_or(ReadError::NotReady)?;
        let mut fresh = shard.fresh.lock().await;
        if let Some((asked, partition, state)) = *fresh
            && asked > now
        {
            return Ok((partition, state));
        }
        let asked = Instant::now();
        let info = self.inner.bus.stream_info(&subject::log_stream(partition), DEADLINE).await?;
        let known = partition_of(&info, partition).ok_or(ReadError::OtherEpoch)?;
        *fresh = Some((asked, known, info.state));
        if self.epoch_of(partition).is_some_and(|epoch| epoch != known.epoch) {
            self.look_at(partition);
        }
        Ok((known, info.state))
    }

    fn still(&self, channel: &Channel, epoch: Epoch) -> Result<(), ReadError> {
        match self.epoch(channel) {
            None => Err(ReadError::NotReady),
            Some(now) if now == epoch => Ok(()),
            Some(_) => Err(ReadError::OtherEpoch),
        }
    }
}

/// The channels whose last sequence is not answered yet.
#[derive(Debug)]
struct Open {
    /// The subjects of these channels, with the index of their answer.
    subjects: HashMap<String, usize>,
    tails: Vec<Option<u64>>,
    /// A subject of which the leader surely has a message.
    known: Option<String>,
}

impl Open {
    fn new(channels: &[Channel], partitions: u32) -> Self {
        let subject = |channel| subject::log(channel, partitions);
        let subjects = channels.iter().map(subject).enumerate().map(|(index, subject)| (subject, index));
        Self { subjects: subjects.collect(), tails: vec![None; channels.len()], known: None }
    }

    fn subjects(&self) -> Vec<String> {
        self.subjects.keys().chain(&self.known).cloned().collect()
    }

    fn answer(&mut self, messages: &[RawMessage]) {
        for message in messages {
            if let Some(index) = self.subjects.remove(&message.subject) {
                self.tails[index] = Some(message.seq);
            }
        }
    }
}

fn stored(raw: RawMessage) -> StoredMessage {
    let RawMessage { seq, time, headers, payload, .. } = raw;
    let erased = headers.get(headers::ERASED).is_some();
    let message = LiveMessage::decode(Some(&headers), payload).map_err(Arc::new);
    StoredMessage { seq, time, erased, message, headers }
}
