//! One stream: its configuration, what it holds, and the log that keeps its messages.
//!
//! What is stored here is visible to requests at once and durable after [`Stream::commit`]. When the log fails, the stream
//! says so to everyone until it was read anew from the log: what the log did not keep must not be believed.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clock::{self, Offset};
use super::config::StreamConfig;
use super::error::ApiError;
use super::headers::{self, Wishes};
use super::republish::{self, Transform};
use super::state::{Filter, Last, Limits, Purge, State};
use crate::storage::{Claim, Log, LogError, Opened, Reclaimable, Record, Saved, Store, Told, Why};

/// How long a stream whose store failed stores nothing, at first and at most, in nanoseconds. To read it anew may take
/// seconds, and a full disk does not empty itself at once.
const FIRST_PAUSE: u64 = 1_000_000_000;
const LAST_PAUSE: u64 = 30_000_000_000;
/// Bytes of a record in a log besides the message's own, about.
const RECORD_OVERHEAD: u64 = 64;
const SECOND: u64 = 1_000_000_000;
/// How many starts that found the clock set back are remembered.
const MOST_LATEST: usize = 16;
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

/// What is kept of a stream besides its messages.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    config: StreamConfig,
    /// Expired messages may still lie in the log. A longer life, set later, must not bring back some of them: the stream
    /// would begin with a sequence after which others are missing.
    floor: u64,
    /// In the order of sequences and of times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    latest: Vec<Latest>,
}

/// Up to this sequence nothing was stored later than at this time of day: the clock had been ahead, which was seen at a
/// start. Without it each further start would take those messages for new ones.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Latest {
    seq: u64,
    time: u64,
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

    /// One that is kept. `now`: none if the system's clock is not set.
    pub(crate) fn open(store: &mut dyn Store, saved: &Saved, now: Option<u64>) -> Result<Self, LogError> {
        let kept: Kept = serde_json::from_slice(&saved.config).map_err(|why| {
            LogError::Damaged(format!(
                "the configuration of stream {:?} can't be read: {why}; was it written by a newer version?",
                saved.name
            ))
        })?;
        let mut stream = Self::new(kept, saved.created);
        stream.load(store, now)?;
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

    /// Reads everything anew from the log. Times become those of the clock of the streams; what was stored later is never
    /// older, and nothing is from the future once this is done.
    fn load(&mut self, store: &mut dyn Store, now: Option<u64>) -> Result<(), LogError> {
        // The old one first: there is never more than one of a stream.
        self.log = None;
        let limits = Limits::of(&self.config);
        let mut state = State::new(limits, start(&self.config, self.floor).saturating_sub(1));
        let mut evicted = Vec::new();
        let config = &self.config;
        let floor = self.floor;
        let (offset, untold, latest) = (self.offset, self.untold, &self.latest);
        let steady = |record: &Record| {
            let time = record.time.saturating_add_signed(untold);
            let latest = latest.iter().find(|latest| record.seq <= latest.seq);
            offset.steady(latest.map_or(time, |latest| time.min(latest.time)))
        };
        let mut last: Option<Last> = None;
        let (mut log, opened) = store.open(&self.name, &mut |told| match told {
            Told::Stored(record) => {
                let (time, id) = (steady(record), headers::message_id(&record.headers));
                state.remember(id, record.seq, time, now.unwrap_or(time));
                last = Some(Last { seq: record.seq, time, id: id.map(Into::into) });
            }
            Told::There(record) if record.seq < floor => evicted.push(record.seq),
            Told::There(record) => {
                let size = config.size_of(record.subject.len(), record.headers.len(), record.payload.len());
                let restored = state.restore(record.seq, steady(&record), &record.subject, size);
                evicted.extend(restored.evicted);
            }
        })?;
        state.go_on_after(opened.last_seq, last);
        // A clock that was set back must not bring back what had gone.
        let now = now.unwrap_or_else(|| state.last_time());
        evicted.append(&mut state.expire(now.max(state.last_time())));
        let ahead = state.last_time().saturating_sub(now);
        state.cap_times(now);
        if ahead >= SECOND {
            self.note_latest(store, Latest { seq: state.last_seq(), time: offset.wall(now) }, ahead);
        }
        if !evicted.is_empty() {
            // On a full disk they are found and left out again at the next start.
            unless_full(log.remove(&evicted, Why::Age))?;
        }
        if opened.may_miss_some {
            unless_full(self.renew(store, opened, now).and_then(|()| log.note_shortness()))?;
        }
        if untold != 0 {
            log.on_step(untold)?;
        }
        (self.state, self.log, self.dirty, self.failed) = (state, Some(log), untold != 0, None);
        Ok(())
    }

    fn note_latest(&mut self, store: &mut dyn Store, latest: Latest, ahead: u64) {
        tracing::warn!(
            stream = &*self.name,
            by = clock::words(i64::try_from(ahead).unwrap_or(i64::MAX)),
            "messages of this stream were stored while the system's clock was ahead; they count as stored now"
        );
        self.latest.retain(|before| before.time < latest.time && before.seq < latest.seq);
        self.latest.push(latest);
        let spare = self.latest.len().saturating_sub(MOST_LATEST);
        self.latest.drain(..spare);
        self.save_latest(store);
    }

    fn save_latest(&self, store: &mut dyn Store) {
        if let Err(error) = store.save(&self.saved()) {
            tracing::warn!(stream = &*self.name, %error, "when messages were stored at the latest can't be kept");
        }
    }

    /// A stream that may miss messages which were acknowledged is another one: whoever remembers a place in it is to know.
    fn renew(&mut self, store: &mut dyn Store, opened: Opened, now: u64) -> Result<(), LogError> {
        self.created = self.offset.wall(now).max(self.created + 1);
        store.save(&self.saved())?;
        tracing::warn!(
            stream = &*self.name,
            last_seq = opened.last_seq,
            "the machine stopped before everything acknowledged was on the disk: messages of this stream may be \
             missing, and it counts as created anew, so that its clients reload"
        );
        Ok(())
    }

    /// What is kept of it besides its messages.
    fn saved(&self) -> Saved {
        let (config, floor) = (self.config.clone(), self.floor.max(self.state.first_seq()));
        let kept = Kept { config, floor, latest: self.latest.clone() };
        let config = serde_json::to_vec(&kept).expect("strings and numbers are always JSON");
        Saved { name: (*self.name).to_owned(), config: config.into(), created: self.created }
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

    /// Reads the log anew after it failed, unless that was tried just now. The stream stays unusable if that fails too,
    /// and stores nothing for a while if it does not. Tells whether it tried.
    pub(crate) fn recover(&mut self, store: &mut dyn Store, now: u64) -> bool {
        if self.log.is_none() && now < self.pause.ends {
            return false;
        }
        self.pause.why.clone_from(&self.failed);
        self.pause.ends = now.saturating_add(self.pause.next);
        self.pause.next = (self.pause.next * 2).min(LAST_PAUSE);
        match self.load(store, Some(now)) {
            Ok(()) => tracing::warn!(
                stream = &*self.name,
                messages = self.state.len(),
                last_seq = self.state.last_seq(),
                "the stream was read anew from its store"
            ),
            Err(error) => {
                tracing::error!(stream = &*self.name, %error, "the stream can't be read from its store; trying again");
                self.failed = Some(ApiError::from(&error));
            }
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

/// What could not be kept for want of room is found again at the next start.
fn unless_full(kept: Result<(), LogError>) -> Result<(), LogError> {
    match kept {
        Err(error @ LogError::Full(_)) => {
            tracing::warn!(%error, "the disk is full: a stream is opened as it is");
            Ok(())
        }
        other => other,
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
