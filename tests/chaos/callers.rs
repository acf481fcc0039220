//! Back ends that publish: one message per call, batches, and the publishing WebSocket.
//!
//! All messages of a user come from one caller, in the order of their numbers, so that the expected order is
//! known. A call with an `Idempotency-Key` is repeated, at one publisher-api after the other, until it is
//! answered. The WebSocket has no key, so an unanswered message is left alone: it may have been stored, once.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use harness::publisher::Publisher;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::clock::{Clock, back_off, pass};
use crate::ledger::{Ledger, Note};

/// After this time without an answer a call is repeated.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// Smallest size of a large message, and the most that is added to it, in bytes.
const LARGE: u32 = 100_000;
const LARGER: u32 = 50_000;
/// Messages per batch.
const BATCH: u64 = 20;
/// Unanswered messages of a WebSocket.
const IN_FLIGHT: usize = 16;

/// The way a caller publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// `POST /v1/publish` with a key.
    Call,
    /// `POST /v1/publish/batch` with a key.
    Batch,
    /// `mesh.publish` on `/ws/v1`.
    Socket,
}

/// State shared by all callers of a case.
#[derive(Debug)]
pub(crate) struct Books {
    ledger: Mutex<Ledger>,
    /// Messages that no caller has begun.
    left: AtomicU64,
    pub(crate) total: u64,
    clock: Clock,
    /// Messages begun per second while disturbances are still to come.
    pace: u64,
    /// Divides the numbers of a user's large messages. Users get about equally many messages, so the large
    /// ones are the last messages of many users at about the same time.
    large_every: u32,
    unbounded: AtomicBool,
}

/// One caller.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) lane: u32,
    pub(crate) how: How,
    /// The caller's users, with the number of each user's last message.
    pub(crate) users: Vec<(u32, u32)>,
    /// All publisher-apis; the caller prefers the first.
    pub(crate) publishers: Vec<(SocketAddr, Publisher)>,
    pub(crate) random: fastrand::Rng,
    pub(crate) clock: Clock,
    pub(crate) books: Arc<Books>,
}

impl Books {
    /// For a case of `total` messages, of which at most `pace` are begun per second until [`Books::hurry`].
    pub(crate) fn new(total: u64, pace: u64, large_every: u32, clock: Clock) -> Self {
        let (left, unbounded) = (AtomicU64::new(total), AtomicBool::new(false));
        Self { ledger: Mutex::default(), left, total, clock, pace, large_every, unbounded }
    }

    /// The text of a message.
    fn text(&self, note: &Note) -> String {
        let is_large = note.number.is_multiple_of(self.large_every);
        let bytes = if is_large { LARGE + note.user.wrapping_mul(7_919) % LARGER } else { 0 };
        note.text(bytes as usize)
    }

    /// Lifts the pace: no disturbance is to come any more.
    pub(crate) fn hurry(&self) {
        self.unbounded.store(true, Ordering::Relaxed);
    }

    /// The ledger. No caller holds the lock across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages begun so far.
    pub(crate) fn begun(&self) -> u64 {
        self.total - self.left.load(Ordering::Relaxed)
    }

    /// Takes up to `most` of the messages that are left, once it is their time. The pace keeps messages in
    /// flight until the last disturbance.
    async fn take(&self, most: u64) -> u64 {
        let less = |left: u64| Some(left.saturating_sub(most));
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let left = before.unwrap_or_else(|left| left);
        if !self.unbounded.load(Ordering::Relaxed) {
            let due = (self.total - left) * 1000 / self.pace;
            pass(Duration::from_millis(due.saturating_sub(self.clock.now()))).await;
        }
        left.min(most)
    }
}

impl Caller {
    /// Publishes until no message is left.
    pub(crate) async fn run(mut self) {
        match self.how {
            How::Call => self.call().await,
            How::Batch => self.batch().await,
            How::Socket => self.socket().await,
        }
    }

    /// The next message, for one of the caller's users.
    fn next(&mut self) -> Note {
        let index = self.random.usize(..self.users.len());
        let (user, number) = &mut self.users[index];
        *number += 1;
        let note = Note { lane: self.lane, user: *user, number: *number };
        self.books.lock().publish(note);
        note
    }

    async fn call(&mut self) {
        while self.books.take(1).await == 1 {
            let note = self.next();
            // A counted message makes the edges report; an uncounted one leaves the edges to themselves.
            let counted = self.random.bool();
            let body =
                json!({ "to": { "users": [note.user] }, "raw": self.books.text(&note), "receipt": counted });
            let key = format!("call-{}-{}", note.user, note.number);
            self.insist("/v1/publish", &key, &body, |answer| answer["results"][0]["id"].is_string()).await;
            self.books.lock().acknowledge(note, self.clock.now());
        }
    }

    async fn batch(&mut self) {
        loop {
            let count = self.books.take(BATCH).await;
            if count == 0 {
                return;
            }
            let notes: Vec<_> = (0..count).map(|_| self.next()).collect();
            let message =
                |note: &Note| json!({ "to": { "users": [note.user] }, "raw": self.books.text(note) });
            let messages: Vec<_> = notes.iter().map(message).collect();
            let body = json!({ "messages": messages, "receipt": self.random.bool() });
            let key = format!("batch-{}-{}", notes[0].user, notes[0].number);
            let all = |answer: &Value| {
                let stored = |index: usize| answer["messages"][index]["results"][0]["id"].is_string();
                (0..notes.len()).all(stored)
            };
            self.insist("/v1/publish/batch", &key, &body, all).await;
            let (now, mut ledger) = (self.clock.now(), self.books.lock());
            for note in notes {
                ledger.acknowledge(note, now);
            }
        }
    }

    /// Repeats a call with the same key until `done` accepts the answer.
    async fn insist(&mut self, path: &str, key: &str, body: &Value, done: impl Fn(&Value) -> bool) {
        let body = body.to_string();
        for attempt in 0.. {
            let index = attempt as usize % self.publishers.len();
            let answered = timeout(PATIENCE, post(&self.publishers[index].1, path, key, body.clone())).await;
            if let Ok(Some((status, answer))) = answered {
                if status == 200 && done(&answer) {
                    // The publisher-api that answered is now the preferred one.
                    self.publishers.rotate_left(index);
                    return;
                }
                let passing = status == 200 || status == 408 || status == 429 || status >= 500;
                assert!(passing, "{path} is refused for good: {status} {answer}");
            }
            pass(back_off(&mut self.random, attempt, LONGEST_PAUSE)).await;
        }
    }

    async fn socket(&mut self) {
        let mut attempt = 0;
        let mut more = true;
        while more {
            let opened = timeout(PATIENCE, open(self.publishers[0].0)).await;
            match opened {
                Ok(Some(socket)) => {
                    attempt = 0;
                    more = self.converse(socket).await;
                }
                Ok(None) | Err(_) => attempt += 1,
            }
            if more {
                self.publishers.rotate_left(1);
                pass(back_off(&mut self.random, attempt, LONGEST_PAUSE)).await;
            }
        }
    }

    /// Publishes over one socket. Returns whether more is left to send over another.
    async fn converse(&mut self, mut socket: WebSocketStream<TcpStream>) -> bool {
        let mut unanswered = Vec::new();
        let mut left = true;
        loop {
            while left && unanswered.len() < IN_FLIGHT {
                left = self.books.take(1).await == 1;
                if !left {
                    break;
                }
                let note = self.next();
                unanswered.push(note);
                let call = json!({
                    "m": "mesh.publish", "i": format!("{}/{}", note.user, note.number),
                    "p": { "c": format!("user:{}", note.user), "d": self.books.text(&note) },
                });
                let sent = timeout(PATIENCE, socket.send(Message::text(call.to_string()))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return true;
                }
            }
            if unanswered.is_empty() {
                let _ = timeout(PATIENCE, socket.close(None)).await;
                return false;
            }
            let text = match timeout(PATIENCE, socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
                _ => return true,
            };
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            let named = answer["i"].as_str().unwrap_or_default();
            let of = |note: &Note| named == format!("{}/{}", note.user, note.number);
            let index = unanswered.iter().position(of);
            let note =
                unanswered.swap_remove(index.unwrap_or_else(|| panic!("an answer to nothing: {answer}")));
            if answer["E"].is_null() && answer["r"].is_object() {
                self.books.lock().acknowledge(note, self.clock.now());
            } else {
                assert!(matches!(answer["E"]["c"].as_u64(), Some(107 | 108)), "refused for good: {answer}");
                pass(back_off(&mut self.random, 5, LONGEST_PAUSE)).await;
            }
        }
    }
}

async fn post(publisher: &Publisher, path: &str, key: &str, body: String) -> Option<(u16, Value)> {
    let request = publisher.request(Method::POST, path);
    let request = request.header("content-type", "application/json").header("idempotency-key", key);
    let response = request.body(body).send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, serde_json::from_str(&response.text().await.ok()?).unwrap_or_default()))
}

async fn open(publisher: SocketAddr) -> Option<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(publisher).await.ok()?;
    let (socket, _) =
        tokio_tungstenite::client_async(format!("ws://{publisher}/ws/v1"), stream).await.ok()?;
    Some(socket)
}
