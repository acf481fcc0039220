//! The list of those who may not log in for a while: a stream on the bus, one message a user.
//!
//! What must always hold: an order that was answered is in the stream, so whoever reads the whole stream
//! knows it; of two orders about a user the one with the higher sequence holds; the list is bounded, and an
//! order that finds no place is refused, never dropped. What has ended is taken out only when its place is
//! needed.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{HeaderMap, HeaderValue};
use tokio::time::{Instant, sleep_until};

use crate::bus::Bus;
use crate::bus::jetstream::{
    ApiError, Batch, BatchAnswer, Get, NAME_IN_USE, RawMessage, Republish, StreamConfig,
};
use crate::ids::Uid;
use crate::subject;
use crate::wire::{Denial, Envelope as _};

/// Users that may be on the list at a time: 10 MB in each edge at most.
pub const MAX_DENIED: usize = 65_536;
/// The longest that a user may be kept out.
pub const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long the stream keeps an order: longer than it can hold, whatever the clocks say.
const MAX_AGE: Duration = Duration::from_secs(31 * 24 * 3600);
/// How long one call may take.
const TRY: Duration = Duration::from_secs(2);
/// The pause after a try that failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Orders read at once, and their bytes.
const PAGE: usize = 500;
const PAGE_BYTES: usize = 1 << 20;

/// The list. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Denials {
    bus: Bus,
    replicas: u8,
}

/// What the list is and holds, as the leader of its stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// When it was made, in nanoseconds since 1970: the sequences of another list have nothing to do with
    /// these.
    pub created: u64,
    /// The sequence of the last order.
    pub last_seq: u64,
    /// Orders, those that have ended included.
    pub orders: u64,
}

/// An order as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptDenial {
    /// Its place.
    pub seq: u64,
    /// When the bus stored the order, in milliseconds since 1970; 0: the bus does not say.
    pub stored_ms: u64,
    /// The order; `None`: it can't be read.
    pub denial: Option<Denial>,
}

/// Why an order is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DenyError {
    /// As many users as may be are kept out.
    #[error("{MAX_DENIED} users are kept out, which is the most; let some in again")]
    Full,
    /// The store is full.
    #[error("the store is full, and the list of those who may not log in with it; give it room")]
    NoRoom,
    /// The list can't be reached. The order may be kept all the same.
    #[error("the list of those who may not log in can't be reached: {0}")]
    Api(#[from] ApiError),
}

/// The time of day, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl KeptDenial {
    /// Reads a copy that the stream sent out.
    pub fn of_copy(headers: Option<&HeaderMap>, payload: &[u8]) -> Option<Self> {
        let header = |name: &'static str| headers?.get(name).map(HeaderValue::as_str);
        let seq = header("Nats-Sequence")?.parse().ok()?;
        let stored = header("Nats-Time-Stamp").and_then(|time| humantime::parse_rfc3339(time).ok());
        let stored_ms = stored.map(unix_ms).unwrap_or_default();
        Some(Self { seq, stored_ms, denial: Denial::decode(payload).ok() })
    }

    fn of(raw: &RawMessage) -> Self {
        Self { seq: raw.seq, stored_ms: raw.time / 1_000_000, denial: Denial::decode(&raw.payload).ok() }
    }
}

impl Denials {
    /// The list on this bus. If it has to be made, there are `replicas` copies of it.
    pub fn new(bus: &Bus, replicas: u8) -> Self {
        Self { bus: bus.clone(), replicas }
    }

    /// What it is and holds. It is made if it is not there.
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
        Ok(View { created: info.created, last_seq: info.state.last_seq, orders: info.state.messages })
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

    /// Keeps an order, tried until `deadline`, and says where. The order replaces what was ordered before
    /// about this user.
    ///
    /// # Errors
    /// See [`DenyError`].
    pub async fn keep(&self, uid: &Uid, denial: &Denial, deadline: Instant) -> Result<u64, DenyError> {
        loop {
            let tried = self.try_to_keep(uid, denial, deadline).await;
            match tried {
                Err(DenyError::Api(error)) if error.passes() && Instant::now() + PAUSE < deadline => {
                    tracing::debug!(%error, "an order is not kept yet");
                    sleep_until(Instant::now() + PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn try_to_keep(&self, uid: &Uid, denial: &Denial, deadline: Instant) -> Result<u64, DenyError> {
        let denies = denial.until_ms > now_ms();
        if self.look().await?.orders >= MAX_DENIED as u64 {
            let kept = self.take_out_what_ended(deadline).await?;
            // Whoever is let in again takes no place for long.
            if denies && kept >= MAX_DENIED {
                return Err(DenyError::Full);
            }
        }
        let stored = self.bus.store(subject::deny(uid), HeaderMap::new(), denial.encode(), TRY).await;
        match stored {
            Ok(ack) => Ok(ack.seq),
            Err(error) if error.is_full() => Err(DenyError::NoRoom),
            Err(error) => Err(error.into()),
        }
    }

    /// Says how many are left.
    async fn take_out_what_ended(&self, deadline: Instant) -> Result<usize, ApiError> {
        let (mut after, mut left, now) = (0, 0, now_ms());
        let last = self.look().await?.last_seq;
        while after < last {
            let page = self.after(after).await?;
            let Some(end) = page.last() else { break };
            after = end.seq;
            for KeptDenial { seq, denial, .. } in &page {
                let ended = denial.as_ref().filter(|denial| denial.until_ms <= now);
                let uid = ended.and_then(|denial| Uid::parse(&denial.uid).ok());
                match uid.filter(|_| Instant::now() < deadline) {
                    // Only up to this order: there may be a later one about the same user by now.
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

    /// The next orders after a sequence; none only if the leader of the stream says that there are none.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn after(&self, seq: u64) -> Result<Vec<KeptDenial>, ApiError> {
        let (name, all, seq) = (subject::DENY_STREAM, subject::DENY_ALL, seq.saturating_add(1));
        let batch = Batch::Next { seq, subject: all, messages: PAGE, bytes: PAGE_BYTES };
        match self.bus.direct_batch(name, batch, TRY).await? {
            // The next call reads the rest.
            BatchAnswer::Cut { messages, .. } => return Ok(messages.iter().map(KeptDenial::of).collect()),
            BatchAnswer::Whole { messages, .. } if !messages.is_empty() => {
                return Ok(messages.iter().map(KeptDenial::of).collect());
            }
            BatchAnswer::Whole { .. } => {}
        }
        // The replica that answered may be behind.
        let next = self.bus.get_message(name, Get::Next { seq, subject: all }, TRY).await?;
        Ok(next.iter().map(KeptDenial::of).collect())
    }
}
