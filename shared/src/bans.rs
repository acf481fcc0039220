//! The list of bans, of users who may not log in for a while: a stream on the bus, one message per user.
//!
//! Invariants: a ban that was acknowledged is in the stream, so a reader of the whole stream knows every ban;
//! of two bans of one user the ban with the higher sequence holds; the list is bounded, and a ban for which
//! there is no space is refused, never dropped. An ended ban is removed only when the list is full, those
//! that ended long ago first: the clock of this process may be ahead.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::bus::Bus;
use crate::bus::jetstream::{
    ApiError, Batch, BatchAnswer, Get, NAME_IN_USE, RawMessage, Republish, StreamConfig,
};
use crate::clock::{unix_ms, unix_ms_of};
use crate::headers;
use crate::ids::Uid;
use crate::subject;
use crate::wire::{Ban, Envelope as _};

/// The most users on the list at a time: at most 10 MB in each edge.
pub const MAX_BANNED: usize = 65_536;
/// The longest time for which a user may be banned.
pub const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a ban stays on the list after its end, unless the list is full: clocks may be ahead for a while.
pub const SLACK: Duration = Duration::from_secs(24 * 3600);
/// How long the stream stores a ban: longer than any ban lasts, whatever the clocks say.
const MAX_AGE: Duration = Duration::from_secs(31 * 24 * 3600);
/// The deadline of one call.
const TRY: Duration = Duration::from_secs(2);
/// The pause after a try that failed.
const PAUSE: Duration = Duration::from_millis(100);
/// The most bans, and bytes, that one read asks for.
const PAGE: usize = 500;
const PAGE_BYTES: usize = 1 << 20;

/// The list. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bans {
    bus: Bus,
    replicas: u8,
    /// The most users on the list at a time.
    most: u64,
    /// The time of day, in milliseconds since 1970.
    clock: fn() -> u64,
}

/// The identity and the extent of the list, as the leader of its stream reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// When the stream was created, in nanoseconds since 1970. The sequences of a stream created at another
    /// time cannot be compared with these.
    pub created: u64,
    /// The sequence of the last ban.
    pub last_seq: u64,
    /// The number of bans, ended ones included.
    pub bans: u64,
}

/// A ban as stored in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBan {
    /// The sequence in the stream.
    pub seq: u64,
    /// When the bus stored the ban, in milliseconds since 1970; 0: the bus does not say.
    pub stored_ms: u64,
    /// The ban; `None`: the message can't be read.
    pub ban: Option<Ban>,
}

/// Why a ban was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BanError {
    /// [`MAX_BANNED`] users are banned.
    #[error("{MAX_BANNED} users are kept out, which is the most; let some in again")]
    Full,
    /// The store of the bus is full.
    #[error("the store is full, and the list of those who may not log in with it; give it room")]
    NoSpace,
    /// The list can't be reached. The ban may be stored all the same.
    #[error("the list of those who may not log in can't be reached: {0}")]
    Api(#[from] ApiError),
}

impl StoredBan {
    /// Reads a live copy that the stream sent out. `None`: the headers name no sequence.
    pub fn of_copy(headers: Option<&HeaderMap>, payload: &[u8]) -> Option<Self> {
        let header = |name: &'static str| headers?.get(name).map(HeaderValue::as_str);
        let seq = header(headers::SEQUENCE)?.parse().ok()?;
        let stored = header(headers::TIME_STAMP).and_then(|time| humantime::parse_rfc3339(time).ok());
        let stored_ms = stored.map(unix_ms_of).unwrap_or_default();
        Some(Self { seq, stored_ms, ban: Ban::decode(payload).ok() })
    }

    fn of(raw: &RawMessage) -> Self {
        Self { seq: raw.seq, stored_ms: raw.time / 1_000_000, ban: Ban::decode(&raw.payload).ok() }
    }
}

impl Bans {
    /// The list on this bus. If the stream has to be created, it gets this many replicas.
    pub fn new(bus: &Bus, replicas: u8) -> Self {
        Self { bus: bus.clone(), replicas, most: MAX_BANNED as u64, clock: unix_ms }
    }

    /// Asks the leader for the state of the list, and creates the list if it does not exist.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn look(&self) -> Result<View, ApiError> {
        let info = match self.bus.stream_info(subject::DENY_STREAM, TRY).await {
            Err(ApiError::NoStream) => match self.bus.create_stream(&self.stream(), TRY).await {
                // Somebody else was faster.
                Err(ApiError::Api { err_code: NAME_IN_USE, .. }) => {
                    self.bus.stream_info(subject::DENY_STREAM, TRY).await?
                }
                made => made?,
            },
            found => found?,
        };
        Ok(View { created: info.created, last_seq: info.state.last_seq, bans: info.state.messages })
    }

    fn stream(&self) -> StreamConfig {
        StreamConfig {
            name: subject::DENY_STREAM.into(),
            subjects: vec![subject::DENY_ALL.into()],
            retention: "limits".into(),
            storage: "file".into(),
            discard: "old".into(),
            num_replicas: self.replicas,
            max_msgs_per_subject: 1,
            max_bytes: -1,
            max_age: u64::try_from(MAX_AGE.as_nanos()).unwrap_or(u64::MAX),
            duplicate_window: u64::try_from(Duration::from_secs(60).as_nanos()).unwrap_or(u64::MAX),
            allow_direct: true,
            republish: Some(Republish { src: subject::DENY_ALL.into(), dest: subject::DENIED_ALL.into() }),
            metadata: BTreeMap::new(),
            others: serde_json::Map::new(),
        }
    }

    /// Stores a ban in place of an earlier one of this user, and returns its sequence. Failed calls are tried
    /// again until `deadline`, as [`Bus::awake`] counts.
    ///
    /// # Errors
    /// See [`BanError`].
    pub async fn store(&self, uid: &Uid, ban: &Ban, deadline: Instant) -> Result<u64, BanError> {
        let awake = self.bus.awake();
        loop {
            let tried = self.try_to_store(uid, ban, deadline).await;
            match tried {
                Err(BanError::Api(error)) if error.passes() && awake.now() + PAUSE < deadline => {
                    tracing::debug!(%error, "a ban is not stored yet");
                    awake.sleep_until(awake.now() + PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn try_to_store(&self, uid: &Uid, ban: &Ban, deadline: Instant) -> Result<u64, BanError> {
        let now = (self.clock)();
        let has_space = self.make_space(now, deadline).await?;
        // A ban that lifts another one is removed soon.
        if ban.until_ms > now && !has_space {
            return Err(BanError::Full);
        }
        let stored = self.bus.store(subject::deny(uid), HeaderMap::new(), ban.encode(), TRY).await;
        match stored {
            Ok(ack) => Ok(ack.seq),
            Err(error) if error.is_full() => Err(BanError::NoSpace),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns whether the list has space for one more ban. A full list loses ended bans, those that ended
    /// long ago first.
    async fn make_space(&self, now: u64, deadline: Instant) -> Result<bool, ApiError> {
        let mut bans = self.look().await?.bans;
        for then in [now.saturating_sub(SLACK.as_secs() * 1_000), now] {
            if bans < self.most {
                break;
            }
            bans = self.remove_ended(then, deadline).await?;
        }
        Ok(bans < self.most)
    }

    /// Removes the bans that had ended by then, and returns the number of the others.
    async fn remove_ended(&self, then: u64, deadline: Instant) -> Result<u64, ApiError> {
        let (mut after, mut left) = (0, 0);
        let last = self.look().await?.last_seq;
        while after < last {
            let page = self.after(after).await?;
            let Some(end) = page.last() else { break };
            after = end.seq;
            for StoredBan { seq, ban, .. } in &page {
                let ended = ban.as_ref().filter(|ban| ban.until_ms <= then);
                let uid = ended.and_then(|ban| Uid::parse(&ban.uid).ok());
                match uid.filter(|_| self.bus.awake().now() < deadline) {
                    // Only up to this ban: a later one of the same user may be stored by now.
                    Some(uid) => {
                        self.bus
                            .purge_before(subject::DENY_STREAM, &subject::deny(&uid), seq + 1, TRY)
                            .await?;
                    }
                    None => left += 1,
                }
            }
        }
        Ok(left)
    }

    /// Returns the next bans after a sequence. The result is empty only if the leader of the stream says that
    /// no more are stored.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn after(&self, seq: u64) -> Result<Vec<StoredBan>, ApiError> {
        let (name, all, seq) = (subject::DENY_STREAM, subject::DENY_ALL, seq.saturating_add(1));
        let batch = Batch::Next { seq, subject: all, messages: PAGE, bytes: PAGE_BYTES };
        match self.bus.direct_batch(name, batch, TRY).await? {
            // The next call reads the rest.
            BatchAnswer::Cut { messages, .. } => return Ok(messages.iter().map(StoredBan::of).collect()),
            BatchAnswer::Whole { messages, .. } if !messages.is_empty() => {
                return Ok(messages.iter().map(StoredBan::of).collect());
            }
            BatchAnswer::Whole { .. } => {}
        }
        // The replica that answered may be behind.
        let next = self.bus.get_message(name, Get::Next { seq, subject: all }, TRY).await?;
        Ok(next.iter().map(StoredBan::of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{self, BusConfig};
    use crate::drain::Drain;

    const NOW: u64 = 1_000_000_000_000;
    const DAY: u64 = 24 * 3_600_000;

    fn right() -> u64 {
        NOW
    }

    fn ahead() -> u64 {
        NOW + DAY / 2
    }

    async fn store(list: &Bans, user: usize, until_ms: u64) -> Result<u64, BanError> {
        let uid = format!("{user}");
        let ban = Ban { v: 1, uid: uid.clone(), until_ms, reason: None };
        list.store(&Uid::parse(&uid).unwrap(), &ban, list.bus.awake().now() + Duration::from_secs(10)).await
    }

    /// The users on the list.
    async fn users(list: &Bans) -> Vec<String> {
        let stored = list.after(0).await.unwrap();
        stored.into_iter().map(|stored| stored.ban.unwrap().uid).collect()
    }

    #[tokio::test]
    async fn a_full_list_loses_first_what_ended_long_ago_and_nothing_that_has_not_ended() {
        let drain = Drain::new();
        let server = bus::provide(&BusConfig::default(), &drain).await.unwrap();
        let bus = Bus::connect(&server, "test", &drain).await.unwrap();
        let list = Bans { most: 4, clock: ahead, ..Bans::new(&bus, 1) };
        store(&list, 1, NOW + 1).await.unwrap();
        store(&list, 2, NOW - DAY).await.unwrap();
        store(&list, 3, 0).await.unwrap();
        store(&list, 4, ahead() + DAY).await.unwrap();
        store(&list, 5, ahead() + DAY).await.unwrap();
        assert_eq!(
            users(&list).await,
            ["1", "4", "5"],
            "the first may not have ended: this clock may be ahead"
        );
        store(&list, 6, ahead() + DAY).await.unwrap();
        let right = Bans { clock: right, ..list.clone() };
        assert_eq!(store(&right, 7, NOW + DAY).await, Err(BanError::Full));
        store(&list, 7, ahead() + DAY).await.unwrap();
        assert_eq!(
            users(&list).await,
            ["4", "5", "6", "7"],
            "nobody is refused for the sake of what has ended"
        );
        assert_eq!(store(&list, 8, ahead() + DAY).await, Err(BanError::Full));
        store(&list, 8, 0).await.unwrap();
        drain.finish(Duration::from_secs(10)).await;
    }
}
