//! One stream: its configuration, its state, and the log of its messages.
//!
//! A stored message is visible to requests at once, and durable after [`Stream::commit`]. After a failure of
//! the log the stream answers everyone with that error until it was read anew: messages that the log did not
//! store must not be believed.
//!
//! `expectations` checks what a message expects of the stream, `load` reads a stream from its log.

mod expectations;
mod load;

use std::sync::Arc;

use bytes::Bytes;

use self::load::{SavedSettings, TimeCap};
use super::clock::Offset;
use super::config::StreamConfig;
use super::error::ApiError;
use super::republish::{self, Transform};
use super::state::{Filter, Limits, Purge, StreamState};
use crate::headers::Expectations;
use crate::storage::{Log, Priority, Reclaimable, Record, RemovalReason, Store, StoreError};

/// How long a stream stores nothing after its store failed, at first and at most, in nanoseconds. Reading it
/// anew may take seconds, and a full disk does not empty itself at once.
const FIRST_PAUSE: u64 = 1_000_000_000;
const LAST_PAUSE: u64 = 30_000_000_000;
/// Bytes of a record in a log besides the message's own, about.
const RECORD_OVERHEAD: u64 = 64;

/// A message to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) subject: Bytes,
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
}

impl Message {
    /// Bytes of subject, headers and payload.
    fn len(&self) -> usize {
        self.subject.len() + self.headers.len() + self.payload.len()
    }
}

/// Facts about a message before its stream looks at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// Whether the message may use reserved space.
    pub(crate) priority: Priority,
    /// Whether there is no memory for one more message.
    pub(crate) no_memory: bool,
    /// Whether the message replaces all erased messages of its subject.
    pub(crate) erases: bool,
}

/// A live copy of a stored message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LiveCopy {
    pub(crate) subject: Bytes,
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
}

/// The result of publishing a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PublishOutcome {
    Stored {
        seq: u64,
        copy: Option<LiveCopy>,
    },
    /// A message with the same id is in the stream, or was lately.
    Duplicate {
        seq: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: Arc<str>,
    pub(crate) config: StreamConfig,
    /// When the stream was created, by the time of day, in nanoseconds since 1970.
    pub(crate) created: u64,
    /// Messages below this sequence had gone when the configuration was last changed.
    floor: u64,
    time_caps: Vec<TimeCap>,
    pub(crate) state: StreamState,
    /// `None`: the log can't be opened.
    log: Option<Box<dyn Log>>,
    republish: Option<Republish>,
    /// Whether anything waits for a commit.
    dirty: bool,
    /// Why the stream can't be used until it was read anew.
    failed: Option<ApiError>,
    pause: Pause,
    /// From the clock of the streams, which `state` goes by, to the time of day.
    offset: Offset,
    /// Steps of the system's clock that the log may not have durably yet, in nanoseconds.
    uncommitted_step: i64,
}

/// How live copies are made.
#[derive(Debug)]
struct Republish {
    transform: Transform,
    headers_only: bool,
}

/// The pause after a failure.
#[derive(Debug)]
struct Pause {
    /// Why nothing is stored until `ends`.
    why: Option<ApiError>,
    /// By the clock of the streams, in nanoseconds.
    ends: u64,
    /// Length of the next pause, in nanoseconds.
    next: u64,
}

impl Stream {
    /// Creates a stream without messages.
    pub(crate) fn create(
        store: &mut dyn Store,
        config: StreamConfig,
        now: u64,
        offset: Offset,
    ) -> Result<Self, StoreError> {
        let mut stream =
            Self::new(SavedSettings { config, floor: 0, time_caps: Vec::new() }, offset.wall(now));
        stream.offset = offset;
        stream.log = Some(store.create(&stream.saved())?);
        Ok(stream)
    }

    fn new(SavedSettings { config, floor, time_caps }: SavedSettings, created: u64) -> Self {
        Self {
            name: config.name.as_str().into(),
            state: StreamState::new(
                Limits::of(&config),
                first_seq_of_empty(&config, floor).saturating_sub(1),
            ),
            republish: republish_of(&config),
            config,
            created,
            floor,
            time_caps,
            log: None,
            dirty: false,
            failed: None,
            pause: Pause { why: None, ends: 0, next: FIRST_PAUSE },
            offset: Offset::default(),
            uncommitted_step: 0,
        }
    }

    /// Returns the bytes of the log.
    pub(crate) fn log_size(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.size())
    }

    /// Returns why the stream can't be used, for people. The bus tries again by itself.
    pub(crate) fn error(&self, now: u64) -> Option<String> {
        let paused = self.pause.why.as_ref().filter(|_| now < self.pause.ends);
        let why = self.failed.as_ref().or(paused)?;
        Some(format!("stream {}: {}", self.name, why.description))
    }

    /// Whether messages can be read and stored.
    pub(crate) fn usable(&self) -> Result<(), ApiError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Changes the configuration. It is durable when this returns.
    pub(crate) fn reconfigure(
        &mut self,
        store: &mut dyn Store,
        config: StreamConfig,
    ) -> Result<(), ApiError> {
        self.usable()?;
        let before = std::mem::replace(&mut self.config, config);
        if let Err(error) = store.save(&self.saved()) {
            tracing::error!(stream = &*self.name, %error, "the configuration of a stream can't be kept");
            self.config = before;
            return Err(ApiError::from(&error));
        }
        self.republish = republish_of(&self.config);
        let evicted = self.state.set_limits(Limits::of(&self.config));
        self.dirty = true;
        self.with_log(
            |log| if evicted.is_empty() { Ok(()) } else { log.remove(&evicted, RemovalReason::Limit) },
        )
    }

    /// Stores a message if its expectations and the limits allow it.
    pub(crate) fn publish(
        &mut self,
        message: &Message,
        Admission { priority, no_memory, erases }: Admission,
        now: u64,
    ) -> Result<PublishOutcome, ApiError> {
        self.usable()?;
        if let Some(why) = &self.pause.why {
            if now < self.pause.ends {
                return Err(why.clone());
            }
            self.pause.why = None;
        }
        let expectations = Expectations::read(&message.headers);
        if let Some(seq) = self.check_expectations(&expectations, message, now)? {
            return Ok(PublishOutcome::Duplicate { seq });
        }
        if no_memory {
            return Err(ApiError::no_memory());
        }
        self.check_space(message, priority)?;
        self.append(message, &expectations, priority, erases, now)
    }

    /// Appends a message whose expectations hold, and removes the messages that it pushes out.
    fn append(
        &mut self,
        message: &Message,
        expectations: &Expectations<'_>,
        priority: Priority,
        erases: bool,
        now: u64,
    ) -> Result<PublishOutcome, ApiError> {
        let Message { subject, headers, payload } = message.clone();
        let size = self.config.size_of(subject.len(), headers.len(), payload.len());
        let (mut removed, mut cleared_up_to) = (Vec::new(), None);
        match self.state.admit(&subject, size, expectations.rollup.is_some()) {
            // Only the messages to erase make room for the mark of their erasure.
            Err(_) if erases && priority == Priority::Reserved && self.state.bytes_of(&subject) >= size => {
                cleared_up_to = self.state.last_of(Filter::One(&subject));
                removed = self.state.purge(Purge { filter: Filter::One(&subject), before: None, keep: 0 });
            }
            admitted => admitted?,
        }
        let appended = self.state.append(now, &subject, size, expectations.message_id);
        removed.extend(appended.evicted);
        self.dirty = true;
        let time = self.offset.wall(self.state.last_time());
        let record = Record { seq: appended.seq, time, subject, headers, payload };
        let copy = self.copy(&record, cleared_up_to.unwrap_or(appended.previous));
        let rolled_up = expectations.rollup.map(|rollup| match rollup {
            b"all" => Filter::All,
            _ => Filter::One(&message.subject),
        });
        if let Some(filter) = rolled_up {
            removed.extend(self.state.purge(Purge { filter, before: Some(appended.seq), keep: 0 }));
        }
        // Messages that a rollup or an erasure mark replaces are removed by request, whichever limit they
        // fell to.
        let by_request = rolled_up.is_some() || erases;
        let reason = if by_request { RemovalReason::Request } else { RemovalReason::Limit };
        self.with_log(|log| {
            log.append(record)?;
            if removed.is_empty() { Ok(()) } else { log.remove(&removed, reason) }
        })?;
        Ok(PublishOutcome::Stored { seq: appended.seq, copy })
    }

    /// Whether the store has space for another message. A full store is no failed store: all messages can be
    /// read.
    pub(crate) fn check_space(&self, message: &Message, priority: Priority) -> Result<(), ApiError> {
        let bytes = message.len() as u64 + RECORD_OVERHEAD;
        self.log
            .as_ref()
            .map_or(Ok(()), |log| log.check_space(bytes, priority))
            .map_err(|error| ApiError::from(&error))
    }

    /// Returns what [`Stream::reclaim`] would give back.
    pub(crate) fn reclaimable(&self) -> Option<Reclaimable> {
        self.usable().ok()?;
        self.log.as_ref()?.reclaimable()
    }

    /// Gives space of the log back at once. Returns how many bytes.
    pub(crate) fn reclaim(&mut self, now: u64) -> Result<u64, ApiError> {
        let ids_from = self.state.first_seq_in_window(now);
        self.with_log(|log| {
            log.retain_ids_from(ids_from);
            log.reclaim()
        })
    }

    fn copy(&self, record: &Record, previous: u64) -> Option<LiveCopy> {
        let Republish { transform, headers_only } = self.republish.as_ref()?;
        let subject = transform.apply(&record.subject)?.into();
        let headers = republish::headers(&self.name, record, previous, *headers_only);
        let payload = if *headers_only { Bytes::new() } else { record.payload.clone() };
        Some(LiveCopy { subject, headers, payload })
    }

    /// Reads a message.
    pub(crate) fn read(&mut self, seq: u64) -> Result<Option<Record>, ApiError> {
        let Some(meta) = self.state.get(seq) else { return Ok(None) };
        let time = self.wall(meta.time);
        let found = self.with_log(|log| log.read(seq))?;
        Ok(found.map(|record| Record { time, ..record }))
    }

    /// Removes a message. Returns false if it is not there.
    pub(crate) fn remove(&mut self, seq: u64) -> Result<bool, ApiError> {
        self.usable()?;
        if !self.state.remove(seq) {
            return Ok(false);
        }
        self.dirty = true;
        self.with_log(|log| log.remove(&[seq], RemovalReason::Request))?;
        Ok(true)
    }

    /// Removes many messages, and returns how many.
    pub(crate) fn purge(&mut self, purge: Purge<'_>) -> Result<u64, ApiError> {
        self.usable()?;
        let removed = self.state.purge(purge);
        if !removed.is_empty() {
            self.dirty = true;
            self.with_log(|log| log.remove(&removed, RemovalReason::Request))?;
        }
        Ok(removed.len() as u64)
    }

    /// Does the work that is due by the clock.
    pub(crate) fn on_tick(&mut self, now: u64) {
        if self.failed.is_some() {
            return;
        }
        let expired = self.state.expire(now);
        let ids_from = self.state.first_seq_in_window(now);
        // A failure is remembered in `failed`.
        let _ = self.with_log(|log| {
            log.retain_ids_from(ids_from);
            if !expired.is_empty() {
                log.forget(&expired)?;
            }
            log.on_tick(now)
        });
    }

    /// Converts a time of the state to the time of day.
    pub(crate) fn wall(&self, steady: u64) -> u64 {
        self.offset.wall(steady)
    }

    /// Converts a time of day to a time of the state.
    pub(crate) fn steady(&self, wall: u64) -> u64 {
        self.offset.steady(wall)
    }

    /// Follows a step of the system's clock by so many nanoseconds. Stored messages keep their ages.
    pub(crate) fn on_step(&mut self, store: &mut dyn Store, offset: Offset, by: i64) {
        self.offset = offset;
        self.uncommitted_step = self.uncommitted_step.saturating_add(by);
        self.dirty = true;
        // A failure is remembered in `failed`, and the log learns of the step when it was opened again.
        let _ = self.with_log(|log| log.on_step(by));
        for cap in &mut self.time_caps {
            cap.time = cap.time.saturating_add_signed(by);
        }
        if !self.time_caps.is_empty() {
            self.save_time_caps(store);
        }
    }

    /// Makes all changes durable. Returns whether there were any.
    pub(crate) fn commit(&mut self) -> bool {
        if !std::mem::take(&mut self.dirty) || self.failed.is_some() {
            return false;
        }
        // A failure is remembered in `failed`.
        if self.with_log(|log| log.commit()).is_ok() {
            self.pause.next = FIRST_PAUSE;
            self.uncommitted_step = 0;
        }
        true
    }

    fn with_log<T>(
        &mut self,
        act: impl FnOnce(&mut dyn Log) -> Result<T, StoreError>,
    ) -> Result<T, ApiError> {
        self.usable()?;
        let Some(log) = &mut self.log else {
            return Err(ApiError::store_failed("the stream's store is not open"));
        };
        act(&mut **log).map_err(|error| {
            tracing::error!(stream = &*self.name, %error, "the store of a stream failed");
            let error = ApiError::from(&error);
            self.failed = Some(error.clone());
            error
        })
    }
}

/// Returns the first sequence of a stream without messages. An update may have changed `first_seq`, but not
/// the sequences.
fn first_seq_of_empty(config: &StreamConfig, floor: u64) -> u64 {
    if floor > 0 { floor } else { config.first_seq }
}

fn republish_of(config: &StreamConfig) -> Option<Republish> {
    let republish = config.republish.as_ref()?;
    let transform = Transform::new(&republish.src, &republish.dest)?;
    Some(Republish { transform, headers_only: republish.headers_only })
}
