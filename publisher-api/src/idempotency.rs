//! `Idempotency-Key`: a call that is repeated with the same key, here or at another publisher-api, stores
//! nothing twice.
//!
//! Two rules ensure this. The ids of a call's messages are made from the key, so the store recognizes them
//! within its duplicate window. And before anything is stored, the key is claimed for the body. A claim is a
//! message at a subject of its own, stored only if the subject is empty. So of two bodies with one key
//! exactly one wins, wherever they came in. Claims last longer than the ids of the messages behind them, so
//! no body is ever taken for a repeat of another. Calls with one key in this process go one after the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared::bus::Bus;
use shared::bus::async_nats;
use shared::bus::jetstream::{ApiError, Get, NAME_IN_USE, StreamConfig, WRONG_LAST_SEQUENCE};
use shared::gauge::GaugeGuard;
use shared::headers;
use shared::history::HistoryConfig;
use shared::ids::{Channel, MessageId};
use shared::subject;
use tokio::sync::{Mutex as Turns, OnceCell, OwnedMutexGuard};
use tokio::time::Instant;

use crate::error::{Refusal, StoreRefusal};
use crate::metrics::{Keyed, Metrics};

/// The header, as HTTP's working group drafts it (draft-ietf-httpapi-idempotency-key-header).
pub(crate) const HEADER: &str = "idempotency-key";
/// The longest key, in bytes.
const MAX_KEY: usize = 255;
/// The cluster's form of [`WRONG_LAST_SEQUENCE`] while another claim is on its way.
const WRONG_LAST_SEQUENCE_IN_FLIGHT: u64 = 10_164;
/// How long one try may take.
const TRY: Duration = Duration::from_secs(3);
/// The pause after the first try that failed, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A key of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// The key of a request, if it has one. `owner`: the name of the API key.
    ///
    /// # Errors
    /// Code 101: not one key of 1 to 255 visible ASCII characters.
    pub(crate) fn read(headers: &HeaderMap, owner: &str) -> Result<Option<Self>, Refusal> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let key = value.as_bytes();
        let visible = key.iter().all(u8::is_ascii_graphic);
        if values.next().is_some() || !visible || !(1..=MAX_KEY).contains(&key.len()) {
            return Err(Refusal::Native(
                "the header Idempotency-Key must stand once, with 1 to 255 visible ASCII characters",
            ));
        }
        Ok(Some(Self(hash(&[owner.as_bytes(), key]))))
    }

    /// Returns the id of the message that the call with this key has for a channel. `index`: the number of
    /// the message in a batch.
    pub(crate) fn message_id(&self, channel: &Channel, index: usize) -> MessageId {
        let hash = hash(&[&self.0, channel.as_str().as_bytes(), &(index as u64).to_be_bytes()]);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        MessageId(u128::from_be_bytes(id))
    }
}

/// Hashes several texts. No other division into texts has the same hash.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The claim that is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    /// Hash of path and body.
    body: String,
    /// The call that stored this claim, so that the call recognizes itself after a try whose answer was lost.
    by: MessageId,
}

/// The outcome of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claimed {
    First,
    Repeat,
    Conflict,
}

/// Remembers the keys of calls.
#[derive(Debug)]
pub(crate) struct Idempotency {
    bus: Bus,
    stream: StreamConfig,
    /// Set once the stream exists with the configured limits.
    made: OnceCell<()>,
    /// Names calls.
    ids: shared::ids::MessageIds,
    open: Arc<OpenKeys>,
    metrics: Arc<Metrics>,
}

/// The keys in use here. The lock is held only for an operation of the map.
type OpenKeys = Mutex<HashMap<Key, OpenKey>>;

/// A key in use.
#[derive(Debug, Default)]
struct OpenKey {
    /// Calls with this key, the waiting ones included.
    calls: usize,
    turns: Arc<Turns<()>>,
}

/// Counts a call among those of its key, from its arrival until the drop of this guard.
#[derive(Debug)]
struct OpenCall {
    key: Key,
    keys: Arc<OpenKeys>,
    _gauge: GaugeGuard,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = keys.get_mut(&self.key) {
            open.calls -= 1;
            if open.calls == 0 {
                keys.remove(&self.key);
            }
        }
    }
}

/// A call that came with a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyedCall<'a> {
    /// The key.
    pub(crate) key: &'a Key,
    /// The path of the call.
    pub(crate) path: &'a str,
    /// The body of the call, as it came.
    pub(crate) body: &'a [u8],
}

/// The right to make the call with a key; others with the same wait until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    repeat: bool,
    _turn: OwnedMutexGuard<()>,
    _call: OpenCall,
}

impl Turn {
    /// Whether the same call came before.
    pub(crate) fn is_repeat(&self) -> bool {
        self.repeat
    }
}

impl Idempotency {
    /// Remembers keys in a stream of at most `max_bytes`. `longest_call`: how long a call may take from its
    /// claim until its last message is stored.
    pub(crate) fn new(
        bus: Bus,
        history: &HistoryConfig,
        max_bytes: u64,
        longest_call: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let stream = StreamConfig {
            name: subject::KEY_STREAM.into(),
            subjects: vec![subject::KEY_ALL.into()],
            retention: "limits".into(),
            storage: "file".into(),
            discard: "new".into(),
            num_replicas: history.replicas,
            max_msgs_per_subject: 1,
            max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
            max_age: nanos(history.duplicate_window + longest_call),
            duplicate_window: nanos(history.duplicate_window),
            allow_direct: false,
            republish: None,
            metadata: std::collections::BTreeMap::new(),
            others: serde_json::Map::new(),
        };
        let (made, ids, open) = (OnceCell::new(), shared::ids::MessageIds::random(), Arc::default());
        Self { bus, stream, made, ids, open, metrics }
    }

    /// Waits for calls with the same key in this process, and claims the key for this path and body.
    ///
    /// # Errors
    /// The key was used for another body (422), or the store can't tell until `deadline` (108).
    pub(crate) async fn begin(&self, call: KeyedCall<'_>, deadline: Instant) -> Result<Turn, Refusal> {
        let KeyedCall { key, path, body } = call;
        let (open, turns) = self.open(*key);
        let began = self.bus.awake().now();
        let away = || Refusal::StoreUnavailable(deadline.saturating_duration_since(began));
        let turn = self.bus.awake().timeout_at(deadline, turns.lock_owned()).await.map_err(|_| away())?;
        let body = MessageHash(hash(&[path.as_bytes(), body])).to_string();
        let claimed = self.claim(key, &Claim { body, by: self.ids.next() }, deadline).await;
        self.metrics.keyed(match &claimed {
            Ok(Claimed::First) => Keyed::First,
            Ok(Claimed::Repeat) => Keyed::Repeat,
            Ok(Claimed::Conflict) => Keyed::Conflict,
            Err(_) => Keyed::Unknown,
        });
        match claimed {
            Ok(Claimed::Conflict) => Err(Refusal::KeyReused),
            Ok(claimed) => Ok(Turn { repeat: claimed == Claimed::Repeat, _turn: turn, _call: open }),
            Err(Some(refusal)) => Err(refusal),
            Err(None) => Err(away()),
        }
    }

    fn open(&self, key: Key) -> (OpenCall, Arc<Turns<()>>) {
        let mut keys = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = keys.entry(key).or_default();
        open.calls += 1;
        let turns = Arc::clone(&open.turns);
        (
            OpenCall { key, keys: Arc::clone(&self.open), _gauge: GaugeGuard::new(&self.metrics.keyed_open) },
            turns,
        )
    }

    /// Tries until `deadline`. The error is `None` if the deadline has passed.
    async fn claim(&self, key: &Key, claim: &Claim, deadline: Instant) -> Result<Claimed, Option<Refusal>> {
        let subject = subject::key(&key.0);
        let (awake, mut pause) = (self.bus.awake(), FIRST_PAUSE);
        loop {
            let error = match awake.timeout_at(deadline, self.try_to_claim(&subject, claim)).await {
                Ok(Ok(claimed)) => return Ok(claimed),
                Ok(Err(error)) => error,
                Err(_) => return Err(None),
            };
            match &error {
                StoreRefusal::Api(error) if error.is_full() => return Err(Some(Refusal::StoreFull)),
                StoreRefusal::Api(error) if error.passes() => {}
                StoreRefusal::Api(_) | StoreRefusal::Mismatch(_) | StoreRefusal::Claim(_) => {
                    return Err(Some(Refusal::StoreRefused(error)));
                }
            }
            let next = awake.now() + pause;
            if next >= deadline {
                return Err(None);
            }
            tracing::debug!(%error, "a key is not claimed yet");
            awake.sleep_until(next).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_to_claim(&self, subject: &str, claim: &Claim) -> Result<Claimed, StoreRefusal> {
        self.bus.connected(TRY).await.map_err(ApiError::from)?;
        self.made.get_or_try_init(|| self.make()).await?;
        let mut headers = async_nats::HeaderMap::new();
        // 0: only if the subject has no message.
        headers.insert(headers::EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        let payload = serde_json::to_vec(claim).map_err(StoreRefusal::Claim)?;
        match self.bus.store(subject.to_owned(), headers, payload.into(), TRY).await {
            Ok(_) => Ok(Claimed::First),
            Err(ApiError::Api { err_code: WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_IN_FLIGHT, .. }) => {
                self.compare(subject, claim).await
            }
            Err(ApiError::NoLeader | ApiError::NoStream) => {
                // The stream may have been removed.
                self.make().await?;
                Err(ApiError::NoStream.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn compare(&self, subject: &str, claim: &Claim) -> Result<Claimed, StoreRefusal> {
        let found = self.bus.get_message(subject::KEY_STREAM, Get::Last(subject), TRY).await?;
        // The claim expired just now, or is not stored yet: claim again.
        let Some(found) = found else { return Err(ApiError::Timeout.into()) };
        let found: Claim = serde_json::from_slice(&found.payload).map_err(StoreRefusal::Claim)?;
        Ok(if found.by == claim.by {
            Claimed::First
        } else if found.body == claim.body {
            Claimed::Repeat
        } else {
            Claimed::Conflict
        })
    }

    /// Makes the stream, or gives it the limits that are configured.
    async fn make(&self) -> Result<(), ApiError> {
        match self.bus.create_stream(&self.stream, TRY).await {
            Ok(_) => Ok(()),
            Err(ApiError::Api { err_code: NAME_IN_USE, .. }) => {
                let is = self.bus.stream_info(subject::KEY_STREAM, TRY).await?.config;
                self.bus.update_stream(&is, &self.stream, TRY).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }
}

/// A hash as text.
struct MessageHash([u8; 32]);

impl std::fmt::Display for MessageHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn read(values: &[&[u8]]) -> Result<Option<Key>, Refusal> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        Key::read(&headers, "shop")
    }

    #[test]
    fn a_key_is_1_to_255_visible_characters_and_stands_once() {
        assert_eq!(read(&[]).unwrap(), None);
        assert!(read(&[b"a"]).unwrap().is_some());
        assert!(read(&[&[b'~'; 255]]).unwrap().is_some());
        for bad in [&b""[..], b"a b", b"\xc3\xa4", &[b'a'; 256]] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
        assert!(read(&[b"a", b"a"]).is_err());
    }

    #[test]
    fn ids_differ_by_owner_key_channel_and_index_and_by_nothing_else() {
        let headers = |key: &'static str| {
            HeaderMap::from_iter([(
                axum::http::HeaderName::from_static(HEADER),
                HeaderValue::from_static(key),
            )])
        };
        let id = |owner: &str, key, channel: &str, index| {
            let key = Key::read(&headers(key), owner).unwrap().unwrap();
            key.message_id(&Channel::parse(channel).unwrap(), index)
        };
        let first = id("shop", "k", "a", 0);
        assert_eq!(first, id("shop", "k", "a", 0));
        assert_eq!(first.to_string(), "7d94c67d10de4cc15a01d30fd9c177e7", "the same in every version");
        for other in [
            id("sho", "pk", "a", 0),
            id("shop", "l", "a", 0),
            id("shop", "k", "b", 0),
            id("shop", "k", "a", 1),
        ] {
            assert_ne!(first, other);
        }
    }
}
