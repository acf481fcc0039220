//! Reading a stream from its log, at a start and after its store failed, and what is saved besides its
//! messages.

use serde::{Deserialize, Serialize};

use super::{LAST_PAUSE, Stream, first_seq_of_empty};
use crate::headers;
use crate::jetstream::clock;
use crate::jetstream::config::StreamConfig;
use crate::jetstream::error::ApiError;
use crate::jetstream::state::{LastStored, Limits, StreamState};
use crate::storage::{Log, Opened, Record, RemovalReason, Replayed, Store, StoreError, StoredStream};

const SECOND: u64 = 1_000_000_000;
/// At most so many starts are remembered that found messages of the future.
const MOST_TIME_CAPS: usize = 16;

/// The content of [`StoredStream::config`]: everything saved of a stream besides its messages.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedSettings {
    pub(super) config: StreamConfig,
    /// The stream's first sequence when this was saved. Expired messages may still lie in the log. A longer
    /// `max_age`, set later, must not bring some of them back: the stream would begin with a sequence behind
    /// which others are missing.
    pub(super) floor: u64,
    /// In the order of sequences and of times.
    #[serde(default, rename = "latest", skip_serializing_if = "Vec::is_empty")]
    pub(super) time_caps: Vec<TimeCap>,
}

/// An upper bound on the time when messages up to a sequence were stored, by the time of day.
///
/// Noted at a start that found messages of the future, because the clock had been ahead. Without the note
/// each further start would take those messages for new ones.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct TimeCap {
    pub(super) seq: u64,
    pub(super) time: u64,
}

/// The log after a replay.
struct ReplayedLog {
    log: Box<dyn Log>,
    opened: Opened,
    /// Messages that the log still has and the stream does not.
    evicted: Vec<u64>,
}

impl Stream {
    /// Opens a stored stream. `now` is `None` if the system's clock is not set.
    pub(crate) fn open(
        store: &mut dyn Store,
        saved: &StoredStream,
        now: Option<u64>,
    ) -> Result<Self, StoreError> {
        let settings: SavedSettings =
            serde_json::from_slice(&saved.config).map_err(|source| StoreError::Settings {
                what: format!("the configuration of stream {:?} can't be read", saved.name),
                source,
                advice: "; was it written by a newer version?",
            })?;
        let mut stream = Self::new(settings, saved.created);
        stream.load(store, now)?;
        Ok(stream)
    }

    /// Reads everything anew from the log. Times become those of the clock of the streams. A message stored
    /// later is never older than one before it, and in the end no message is from the future.
    fn load(&mut self, store: &mut dyn Store, now: Option<u64>) -> Result<(), StoreError> {
        // Closed before the log is opened again: there is never more than one log of a stream.
        self.log = None;
        let (limits, first) = (Limits::of(&self.config), first_seq_of_empty(&self.config, self.floor));
        let mut state = StreamState::new(limits, first.saturating_sub(1));
        let ReplayedLog { mut log, opened, mut evicted } = self.replay(store, &mut state, now)?;
        // A clock that was set back must not bring back messages that had expired.
        let now = now.unwrap_or_else(|| state.last_time());
        evicted.append(&mut state.expire(now.max(state.last_time())));
        let ahead = state.last_time().saturating_sub(now);
        state.cap_times(now);
        if ahead >= SECOND {
            self.note_time_cap(store, TimeCap { seq: state.last_seq(), time: self.offset.wall(now) }, ahead);
        }
        if !evicted.is_empty() {
            // On a full disk they stay in the log, and the next start leaves them out again.
            unless_full(log.remove(&evicted, RemovalReason::Age))?;
        }
        if opened.may_miss_some {
            unless_full(self.renew(store, opened, now).and_then(|()| log.note_shortness()))?;
        }
        if self.uncommitted_step != 0 {
            log.on_step(self.uncommitted_step)?;
        }
        (self.state, self.log, self.dirty, self.failed) =
            (state, Some(log), self.uncommitted_step != 0, None);
        Ok(())
    }

    /// Opens the log and puts its messages into `state`, with times of the clock of the streams.
    fn replay(
        &self,
        store: &mut dyn Store,
        state: &mut StreamState,
        now: Option<u64>,
    ) -> Result<ReplayedLog, StoreError> {
        let steady = |record: &Record| {
            let time = record.time.saturating_add_signed(self.uncommitted_step);
            let cap = self.time_caps.iter().find(|cap| record.seq <= cap.seq);
            self.offset.steady(cap.map_or(time, |cap| time.min(cap.time)))
        };
        let mut evicted = Vec::new();
        let mut last: Option<LastStored> = None;
        let (log, opened) = store.open(&self.name, &mut |replayed| match replayed {
            Replayed::Stored(record) => {
                let (time, id) = (steady(record), headers::message_id(&record.headers));
                state.remember(id, record.seq, time, now.unwrap_or(time));
                last = Some(LastStored { seq: record.seq, time, id: id.map(Into::into) });
            }
            Replayed::Present(record) if record.seq < self.floor => evicted.push(record.seq),
            Replayed::Present(record) => {
                let (subject, headers, payload) = (&record.subject, &record.headers, &record.payload);
                let size = self.config.size_of(subject.len(), headers.len(), payload.len());
                let restored = state.restore(record.seq, steady(&record), subject, size);
                evicted.extend(restored.evicted);
            }
        })?;
        state.go_on_after(opened.last_seq, last);
        Ok(ReplayedLog { log, opened, evicted })
    }

    fn note_time_cap(&mut self, store: &mut dyn Store, cap: TimeCap, ahead: u64) {
        tracing::warn!(
            stream = &*self.name,
            by = clock::words(i64::try_from(ahead).unwrap_or(i64::MAX)),
            "messages of this stream were stored while the system's clock was ahead; they count as stored now"
        );
        self.time_caps.retain(|before| before.time < cap.time && before.seq < cap.seq);
        self.time_caps.push(cap);
        let surplus = self.time_caps.len().saturating_sub(MOST_TIME_CAPS);
        self.time_caps.drain(..surplus);
        self.save_time_caps(store);
    }

    pub(super) fn save_time_caps(&self, store: &mut dyn Store) {
        if let Err(error) = store.save(&self.saved()) {
            tracing::warn!(stream = &*self.name, %error, "when messages were stored at the latest can't be saved");
        }
    }

    /// Gives the stream a new time of creation, because acknowledged messages may be missing. Clients that
    /// remember a position in the stream notice the change.
    fn renew(&mut self, store: &mut dyn Store, opened: Opened, now: u64) -> Result<(), StoreError> {
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

    /// Returns what is saved of the stream besides its messages.
    pub(super) fn saved(&self) -> StoredStream {
        let (config, floor) = (self.config.clone(), self.floor.max(self.state.first_seq()));
        let settings = SavedSettings { config, floor, time_caps: self.time_caps.clone() };
        let config = serde_json::to_vec(&settings).expect("strings and numbers are always JSON");
        StoredStream { name: (*self.name).to_owned(), config: config.into(), created: self.created }
    }

    /// Reads the log anew after it failed, unless an attempt failed just now. Returns whether it was tried.
    ///
    /// After a failed attempt the stream stays unusable. After a successful one it stores nothing for a
    /// while.
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
}

/// Accepts a change that found no free space. The next start makes the change again.
fn unless_full(changed: Result<(), StoreError>) -> Result<(), StoreError> {
    match changed {
        Err(error @ StoreError::Full(_)) => {
            tracing::warn!(%error, "the disk is full: a stream is opened as it is");
            Ok(())
        }
        other => other,
    }
}
