//! How a stream is read from its log, at a start and after its store failed, and what is kept of it besides its messages.

use serde::{Deserialize, Serialize};

use super::{LAST_PAUSE, Stream, start};
use crate::storage::{LogError, Opened, Record, Saved, Store, Told, Why};
use crate::stream::clock;
use crate::stream::config::StreamConfig;
use crate::stream::error::ApiError;
use crate::stream::headers;
use crate::stream::state::{Last, Limits, State};

const SECOND: u64 = 1_000_000_000;
/// How many starts that found the clock set back are remembered.
const MOST_LATEST: usize = 16;

/// What is kept of a stream besides its messages.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) config: StreamConfig,
    /// Expired messages may still lie in the log. A longer life, set later, must not bring back some of them: the stream
    /// would begin with a sequence after which others are missing.
    pub(super) floor: u64,
    /// In the order of sequences and of times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) latest: Vec<Latest>,
}

/// Up to this sequence nothing was stored later than at this time of day: the clock had been ahead, which was seen at a
/// start. Without it each further start would take those messages for new ones.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Latest {
    pub(super) seq: u64,
    pub(super) time: u64,
}

impl Stream {
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

    pub(super) fn save_latest(&self, store: &mut dyn Store) {
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
    pub(super) fn saved(&self) -> Saved {
        let (config, floor) = (self.config.clone(), self.floor.max(self.state.first_seq()));
        let kept = Kept { config, floor, latest: self.latest.clone() };
        let config = serde_json::to_vec(&kept).expect("strings and numbers are always JSON");
        Saved { name: (*self.name).to_owned(), config: config.into(), created: self.created }
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
