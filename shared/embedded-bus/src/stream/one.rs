//! One stream: its configuration, what it holds, and the log that keeps its messages.
//!
//! What is stored here is visible to requests at once and durable after [`Stream::commit`]. When the log fails, the stream
//! says so to everyone until it was read anew from the log: what the log did not keep must not be believed.

mod load;

use std::sync::Arc;

use bytes::Bytes;

use self::load::{Kept, Latest};
use super::clock::Offset;
use super::config::StreamConfig;
use super::error::ApiError;
use super::headers::Wishes;
use super::republish::{self, Transform};
use super::state::{Filter, Limits, Purge, State};
use crate::storage::{Claim, Log, LogError, Reclaimable, Record, Store, Why};

/// How long a stream whose store failed stores nothing, at first and at most, in nanoseconds. To read it anew may take
/// seconds, and a full disk does not empty itself at once.
const FIRST_PAUSE: u64 = 1_000_000_000;
const LAST_PAUSE: u64 = 30_000_000_000;
/// Bytes of a record in a log besides the message's own, about.
const RECORD_OVERHEAD: u64 = 64;
/// The most bytes of a header block, as for nats-server.
const LARGEST_HEADERS: usize = u16::MAX as usize;

/// A message that is to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) subject: Bytes,
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
}

impl Message {
    /// Bytes of all of it.
    fn len(&self) -> usize {
        self.subject.len() + self.headers.len() + self.payload.len()
    }
}

/// What is known of a message before its stream looks at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// Whether it may use room that is kept back.
    pub(crate) claim: Claim,
    /// There is no memory for more.
    pub(crate) crowded: bool,
    /// It is the mark of those whose place it takes, which were erased.
    pub(crate) erases: bool,
}

/// A copy of a stored message, on its way to whoever listens.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) subject: Bytes,
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    New {
        seq: u64,
        copy: Option<Copied>,
    },
    /// It is there already, or was lately.
    Duplicate {
        seq: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: Arc<str>,
    pub(crate) config: StreamConfig,
    /// By the time of day, in nanoseconds since 1970.
    pub(crate) created: u64,
    /// Messages below this sequence had gone when the configuration was last changed.
    floor: u64,
    latest: Vec<Latest>,
    pub(crate) state: State,
    /// None: it can't be opened.
    log: Option<Box<dyn Log>>,
    copies: Option<(Transform, bool)>,
    /// Whether something waits for a commit.
    dirty: bool,
    /// Why it can't be used until it was read anew.
    failed: Option<ApiError>,
    pause: Pause,
    /// From the clock of the streams, which everything in `state` goes by, to the time of day.
    offset: Offset,
    /// By how much the clock was set that the log may not have for good yet, in nanoseconds.
    untold: i64,
}

/// The time after a failure.
#[derive(Debug)]
struct Pause {
    /// Why nothing is stored until `ends`.
    why: Option<ApiError>,
    /// By the clock of the streams, in nanoseconds.
    ends: u64,
    /// How long the next one is, in nanoseconds.
    next: u64,
}

impl Stream {
    /// A new one, empty.
    pub(crate) fn create(
        store: &mut dyn Store,
        config: StreamConfig,
        now: u64,
        offset: Offset,
    ) -> Result<Self, LogError> {
        let mut stream = Self::new(Kept { config, floor: 0, latest: Vec::new() }, offset.wall(now));
        stream.offset = offset;
        stream.log = Some(store.create(&stream.saved())?);
        Ok(stream)
    }

    fn new(Kept { config, floor, latest }: Kept, created: u64) -> Self {
        Self {
            name: config.name.as_str().into(),
            state: State::new(Limits::of(&config), start(&config, floor).saturating_sub(1)),
            copies: copies(&config),
            config,
            created,
            floor,
            latest,
            log: None,
            dirty: false,
            failed: None,
            pause: Pause { why: None, ends: 0, next: FIRST_PAUSE },
            offset: Offset::default(),
            untold: 0,
        }
    }

    /// Bytes that the log takes.
    pub(crate) fn log_size(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.size())
    }

    /// Why it can't be used, for people; it is tried again.
    pub(crate) fn fault(&self, now: u64) -> Option<String> {
        let paused = self.pause.why.as_ref().filter(|_| now < self.pause.ends);
        let why = self.failed.as_ref().or(paused)?;
        Some(format!("stream {}: {}", self.name, why.description))
    }

    /// Whether its messages can be read and stored.
    pub(crate) fn usable(&self) -> Result<(), ApiError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Other settings. They are kept when this returns.
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
        self.copies = copies(&self.config);
        let evicted = self.state.set_limits(Limits::of(&self.config));
        self.dirty = true;
        self.with_log(|log| if evicted.is_empty() { Ok(()) } else { log.remove(&evicted, Why::Limit) })
    }

    /// Stores a message if it may be.
    pub(crate) fn publish(
        &mut self,
        message: &Message,
        Admission { claim, crowded, erases }: Admission,
        now: u64,
    ) -> Result<Stored, ApiError> {
        self.usable()?;
        if let Some(why) = &self.pause.why {
            if now < self.pause.ends {
                return Err(why.clone());
            }
            self.pause.why = None;
        }
        let wishes = Wishes::read(&message.headers);
        if let Some(duplicate) = self.grant(&wishes, message, now)? {
            return Ok(Stored::Duplicate { seq: duplicate });
        }
        if crowded {
            return Err(ApiError::no_memory());
        }
        self.room(message, claim)?;
        let Message { subject, headers, payload } = message.clone();
        let size = self.config.size_of(subject.len(), headers.len(), payload.len());
        let (mut removed, mut cleared_up_to) = (Vec::new(), None);
        match self.state.admit(&subject, size, wishes.rollup.is_some()) {
            // What is to be erased makes room for the mark of it, and nothing else does.
            Err(_) if erases && claim == Claim::Reserved && self.state.bytes_of(&subject) >= size => {
                cleared_up_to = self.state.last_of(Filter::One(&subject));
                removed = self.state.purge(Purge { filter: Filter::One(&subject), before: None, keep: 0 });
            }
            admitted => admitted?,
        }
        let appended = self.state.append(now, &subject, size, wishes.message_id);
        removed.extend(appended.evicted);
        let time = self.offset.wall(self.state.last_time());
        self.dirty = true;
        let record = Record { seq: appended.seq, time, subject, headers, payload };
        let copy = self.copy(&record, cleared_up_to.unwrap_or(appended.previous));
        let rollup = wishes
            .rollup
            .map(|rollup| if rollup == b"all" { Filter::All } else { Filter::One(&message.subject) });
        if let Some(filter) = rollup {
            removed.extend(self.state.purge(Purge { filter, before: Some(appended.seq), keep: 0 }));
        }
        // What a rollup or a mark of erasing takes the place of is gone by order, whichever limit it fell to.
        let why = if wishes.rollup.is_some() || erases { Why::Order } else { Why::Limit };
        self.with_log(|log| {
            log.append(record)?;
            if removed.is_empty() { Ok(()) } else { log.remove(&removed, why) }
        })?;
        Ok(Stored::New { seq: appended.seq, copy })
    }

    /// Whether the store takes another message. That it is full is no failure: all that is there can be read.
    pub(crate) fn room(&self, message: &Message, claim: Claim) -> Result<(), ApiError> {
        let bytes = message.len() as u64 + RECORD_OVERHEAD;
        self.log.as_ref().map_or(Ok(()), |log| log.room(bytes, claim)).map_err(|error| ApiError::from(&error))
    }

    /// What [`Stream::reclaim`] would give back.
    pub(crate) fn reclaimable(&self) -> Option<Reclaimable> {
        self.usable().ok()?;
        self.log.as_ref()?.reclaimable()
    }

    /// Gives room of its log back at once. How many bytes.
    pub(crate) fn reclaim(&mut self, now: u64) -> Result<u64, ApiError> {
        let ids_from = self.state.first_seq_in_window(now);
        self.with_log(|log| {
            log.keep_ids_from(ids_from);
            log.reclaim()
        })
    }

    /// Whether what a message asks for holds, in nats-server's order. The sequence it has already, if it is a duplicate.
    fn grant(&mut self, wishes: &Wishes<'_>, message: &Message, now: u64) -> Result<Option<u64>, ApiError> {
        if self.config.sealed {
            return Err(ApiError::sealed());
        }
        let refused = [
            (wishes.batch, ApiError::atomic_disabled as fn() -> ApiError),
            (wishes.ttl, ApiError::ttl_disabled),
            (wishes.counter, ApiError::counters_disabled),
            (wishes.schedule, ApiError::schedules_disabled),
        ];
        if let Some((_, error)) = refused.iter().find(|(asked, _)| *asked) {
            return Err(error());
        }
        if wishes.expected_stream.is_some_and(|expected| expected != self.name.as_bytes()) {
            return Err(ApiError::expected_stream());
        }
        if let Some(id) = wishes.message_id
            && let Some(seq) = self.state.duplicate(id, now)
        {
            return Ok(Some(seq));
        }
        self.grant_sequences(wishes, &message.subject)?;
        self.grant_rollup(wishes)?;
        let size = (message.headers.len() + message.payload.len()) as u64;
        if StreamConfig::limit(self.config.max_msg_size.into()).is_some_and(|limit| size > limit) {
            return Err(ApiError::too_large());
        }
        if message.headers.len() > LARGEST_HEADERS {
            return Err(ApiError::headers_too_large());
        }
        Ok(None)
    }

    fn grant_sequences(&self, wishes: &Wishes<'_>, subject: &[u8]) -> Result<(), ApiError> {
        // What is no number is no sequence that could be right.
        let wrong = |expected: &[u8], last: u64| {
            std::str::from_utf8(expected).ok().and_then(|text| text.parse().ok()) != Some(last)
        };
        if let Some(expected) = wishes.expected_last_of_subject {
            let of = wishes.of_subject.unwrap_or(subject);
            let last = self.state.last_of(Filter::of(of)).unwrap_or(0);
            if wrong(expected, last) {
                return Err(ApiError::wrong_last_sequence(last));
            }
        } else if wishes.of_subject.is_some() {
            return Err(ApiError::sequence_missing());
        }
        let last = self.state.last_seq();
        if wishes.expected_last.is_some_and(|expected| wrong(expected, last)) {
            return Err(ApiError::wrong_last_sequence(last));
        }
        let last_id = self.state.last_id().unwrap_or_default();
        if wishes.expected_last_id.is_some_and(|expected| expected != last_id) {
            return Err(ApiError::wrong_last_msg_id(&String::from_utf8_lossy(last_id)));
        }
        Ok(())
    }

    fn grant_rollup(&self, wishes: &Wishes<'_>) -> Result<(), ApiError> {
        match wishes.rollup {
            None => Ok(()),
            Some(_) if !self.config.allow_rollup_hdrs || self.config.deny_purge => {
                Err(ApiError::rollup_failed("rollup not permitted"))
            }
            Some(b"sub" | b"all") => Ok(()),
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                Err(ApiError::rollup_failed(format!("rollup value invalid: {other:?}")))
            }
        }
    }

    fn copy(&self, record: &Record, previous: u64) -> Option<Copied> {
        let (transform, headers_only) = self.copies.as_ref()?;
        let subject = transform.apply(&record.subject)?.into();
        let headers = republish::headers(&self.name, record, previous, *headers_only);
        let payload = if *headers_only { Bytes::new() } else { record.payload.clone() };
        Some(Copied { subject, headers, payload })
    }

    /// Reads a message.
    pub(crate) fn read(&mut self, seq: u64) -> Result<Option<Record>, ApiError> {
        let Some(meta) = self.state.get(seq) else { return Ok(None) };
        let time = self.wall(meta.time);
        let found = self.with_log(|log| log.read(seq))?;
        Ok(found.map(|record| Record { time, ..record }))
    }

    /// Removes a message; `false` if it is not there.
    pub(crate) fn remove(&mut self, seq: u64) -> Result<bool, ApiError> {
        self.usable()?;
        if !self.state.remove(seq) {
            return Ok(false);
        }
        self.dirty = true;
        self.with_log(|log| log.remove(&[seq], Why::Order))?;
        Ok(true)
    }

    /// Removes many messages, and says how many.
    pub(crate) fn purge(&mut self, purge: Purge<'_>) -> Result<u64, ApiError> {
        self.usable()?;
        let removed = self.state.purge(purge);
        if !removed.is_empty() {
            self.dirty = true;
            self.with_log(|log| log.remove(&removed, Why::Order))?;
        }
        Ok(removed.len() as u64)
    }

    /// What is due by the clock.
    pub(crate) fn on_tick(&mut self, now: u64) {
        if self.failed.is_some() {
            return;
        }
        let expired = self.state.expire(now);
        let ids_from = self.state.first_seq_in_window(now);
        // Whatever fails here is kept in `failed`.
        let _ = self.with_log(|log| {
            log.keep_ids_from(ids_from);
            if !expired.is_empty() {
                log.forget(&expired)?;
            }
            log.on_tick(now)
        });
    }

    /// The time of day at a time of its state.
    pub(crate) fn wall(&self, steady: u64) -> u64 {
        self.offset.wall(steady)
    }

    /// The time of its state at a time of day.
    pub(crate) fn steady(&self, wall: u64) -> u64 {
        self.offset.steady(wall)
    }

    /// The system's clock was set by so many nanoseconds. What is stored keeps its age.
    pub(crate) fn on_step(&mut self, store: &mut dyn Store, offset: Offset, by: i64) {
        self.offset = offset;
        self.untold = self.untold.saturating_add(by);
        self.dirty = true;
        // Whatever fails here is kept in `failed`, and the log is told when it was opened again.
        let _ = self.with_log(|log| log.on_step(by));
        for latest in &mut self.latest {
            latest.time = latest.time.saturating_add_signed(by);
        }
        if !self.latest.is_empty() {
            self.save_latest(store);
        }
    }

    /// Makes durable what happened since the last time; whether there was anything.
    pub(crate) fn commit(&mut self) -> bool {
        if !std::mem::take(&mut self.dirty) || self.failed.is_some() {
            return false;
        }
        // Whatever fails here is kept in `failed`.
        if self.with_log(|log| log.commit()).is_ok() {
            self.pause.next = FIRST_PAUSE;
            self.untold = 0;
        }
        true
    }

    fn with_log<T>(&mut self, act: impl FnOnce(&mut dyn Log) -> Result<T, LogError>) -> Result<T, ApiError> {
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

/// The sequence that a stream without messages begins with: an update may have changed `first_seq`, but not the sequences.
fn start(config: &StreamConfig, floor: u64) -> u64 {
    if floor > 0 { floor } else { config.first_seq }
}

fn copies(config: &StreamConfig) -> Option<(Transform, bool)> {
    let republish = config.republish.as_ref()?;
    Some((Transform::new(&republish.src, &republish.dest)?, republish.headers_only))
}
