//! The list of those who may not log in for a while: a stream on the bus, one message a user.
//!
//! What must always hold: an order that was answered is in the stream, so whoever reads the whole stream
//! knows it; of two orders about a user the one with the higher sequence holds; the list is bounded, and an
//! order that finds no place is refused, never dropped. What has ended is taken out only when its place is
//! needed, first what ended long ago: this process's clock may be ahead.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{HeaderMap, HeaderValue};
use tokio::time::Instant;

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
/// How long an order is remembered after its end, unless its place is needed: clocks may be ahead for a
/// while.
pub const SLACK: Duration = Duration::from_secs(24 * 3600);
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
    /// Users that may be on the list at a time.
    most: u64,
    /// The time of day, in milliseconds since 1970.
    clock: fn() -> u64,
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
        Self { bus: bus.clone(), replicas, most: MAX_DENIED as u64, clock: now_ms }
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

    /// Keeps an order, tried until `deadline`, as [`Bus::awake`] counts, and says where. The order replaces
    /// what was ordered before about this user.
    ///
    /// # Errors
    /// See [`DenyError`].
    pub async fn keep(&self, uid: &Uid, denial: &Denial, deadline: Instant) -> Result<u64, DenyError> {
        let awake = self.bus.awake();
        loop {
            let tried = self.try_to_keep(uid, denial, deadline).await;
            match tried {
                Err(DenyError::Api(error)) if error.passes() && awake.now() + PAUSE < deadline => {
                    tracing::debug!(%error, "an order is not kept yet");
                    awake.sleep_until(awake.now() + PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn try_to_keep(&self, uid: &Uid, denial: &Denial, deadline: Instant) -> Result<u64, DenyError> {
        let now = (self.clock)();
        let has_room = self.makes_room(now, deadline).await?;
        // Whoever is let in again takes no place for long.
        if denial.until_ms > now && !has_room {
            return Err(DenyError::Full);
        }
        let stored = self.bus.store(subject::deny(uid), HeaderMap::new(), denial.encode(), TRY).await;
        match stored {
            Ok(ack) => Ok(ack.seq),
            Err(error) if error.is_full() => Err(DenyError::NoRoom),
            Err(error) => Err(error.into()),
        }
    }

    /// Says whether there is room for one more. What has ended gives its place, first what did long ago.
    async fn makes_room(&self, now: u64, deadline: Instant) -> Result<bool, ApiError> {
        let mut orders = self.look().await?.orders;
        for then in [now.saturating_sub(SLACK.as_secs() * 1_000), now] {
            if orders < self.most {
                break;
            }
            orders = self.take_out_what_ended(then, deadline).await?;
        }
        Ok(orders < self.most)
    }

    /// Takes out what had ended by then. Says how many are left.
    async fn take_out_what_ended(&self, then: u64, deadline: Instant) -> Result<u64, ApiError> {
        let (mut after, mut left) = (0, 0);
        let last = self.look().await?.last_seq;
        while after < last {
            let page = self.after(after).await?;
            let Some(end) = page.last() else { break };
            after = end.seq;
            for KeptDenial { seq, denial, .. } in &page {
                let ended = denial.as_ref().filter(|denial| denial.until_ms <= then);
                let uid = ended.and_then(|denial| Uid::parse(&denial.uid).ok());
                match uid.filter(|_| self.bus.awake().now() < deadline) {
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

    async fn keep(list: &Denials, user: usize, until_ms: u64) -> Result<u64, DenyError> {
        let uid = format!("{user}");
        let denial = Denial { v: 1, uid: uid.clone(), until_ms, reason: None };
        list.keep(&Uid::parse(&uid).unwrap(), &denial, list.bus.awake().now() + Duration::from_secs(10)).await
    }

    /// The users on the list.
    async fn users(list: &Denials) -> Vec<String> {
        let kept = list.after(0).await.unwrap();
        kept.into_iter().map(|kept| kept.denial.unwrap().uid).collect()
    }

    #[tokio::test]
    async fn a_full_list_loses_first_what_ended_long_ago_and_nothing_that_has_not_ended() {
        let drain = Drain::new();
        let server = bus::provide(&BusConfig::default(), &drain).await.unwrap();
        let bus = Bus::connect(&server, "test", &drain).await.unwrap();
        let list = Denials { most: 4, clock: ahead, ..Denials::new(&bus, 1) };
        keep(&list, 1, NOW + 1).await.unwrap();
        keep(&list, 2, NOW - DAY).await.unwrap();
        keep(&list, 3, 0).await.unwrap();
        keep(&list, 4, ahead() + DAY).await.unwrap();
        keep(&list, 5, ahead() + DAY).await.unwrap();
        assert_eq!(
            users(&list).await,
            ["1", "4", "5"],
            "the first may not have ended: this clock may be ahead"
        );
        keep(&list, 6, ahead() + DAY).await.unwrap();
        let right = Denials { clock: right, ..list.clone() };
        assert_eq!(keep(&right, 7, NOW + DAY).await, Err(DenyError::Full));
        keep(&list, 7, ahead() + DAY).await.unwrap();
        assert_eq!(
            users(&list).await,
            ["4", "5", "6", "7"],
            "nobody is refused for the sake of what has ended"
        );
        assert_eq!(keep(&list, 8, ahead() + DAY).await, Err(DenyError::Full));
        keep(&list, 8, 0).await.unwrap();
        drain.finish(Duration::from_secs(10)).await;
    }
}
