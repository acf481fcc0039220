//! Back ends that publish: one call a message, batches, and the publishing WebSocket.
//!
//! A user's messages all come from one caller, in the order of their numbers, so that the order in which they must arrive
//! is known. Calls with an `Idempotency-Key` are repeated, at one publisher-api after the other, until they are answered.
//! The WebSocket has no key, so what it got no answer for is left as it is: it may have been stored, once.

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

/// A call that takes longer is given up and repeated.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// How large a large message is at least, and how much more it may be.
const LARGE: u32 = 100_000;
const LARGER: u32 = 50_000;
/// Messages of a batch.
const BATCH: u64 = 20;
/// Messages of a WebSocket that are not answered yet.
const IN_FLIGHT: usize = 16;

/// How a caller publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// `POST /v1/publish` with a key.
    Call,
    /// `POST /v1/publish/batch` with a key.
    Batch,
    /// `mesh.publish` on `/ws/v1`.
    Socket,
}

/// What all callers of a case share.
#[derive(Debug)]
pub(crate) struct Books {
    ledger: Mutex<Ledger>,
    /// Messages that nobody has begun to send.
    left: AtomicU64,
    pub(crate) total: u64,
    clock: Clock,
    /// Messages a second that are begun while something is to be broken yet.
    pace: u64,
    /// Of a user's messages each with such a number is a large one. Users get about as many, so that large ones are the
    /// last of many users at about the same time.
    large_every: u32,
    unbounded: AtomicBool,
}

/// One caller.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) lane: u32,
    pub(crate) how: How,
    /// Its users and the number of the last message of each.
    pub(crate) users: Vec<(u32, u32)>,
    /// All publisher-apis; it prefers the first.
    pub(crate) publishers: Vec<(SocketAddr, Publisher)>,
    pub(crate) random: fastrand::Rng,
    pub(crate) clock: Clock,
    pub(crate) books: Arc<Books>,
}

impl Books {
    /// For a case of so many messages, of which at most `pace` a second are begun until `hurry`.
    pub(crate) fn new(total: u64, pace: u64, large_every: u32, clock: Clock) -> Self {
        let (left, unbounded) = (AtomicU64::new(total), AtomicBool::new(false));
        Self { ledger: Mutex::default(), left, total, clock, pace, large_every, unbounded }
    }

    /// What is published.
    fn text(&self, note: &Note) -> String {
        let is_large = note.number.is_multiple_of(self.large_every);
        let bytes = if is_large { LARGE + note.user.wrapping_mul(7_919) % LARGER } else { 0 };
        note.text(bytes as usize)
    }

    /// Nothing will be broken any more: what is left may be published as fast as it goes.
    pub(crate) fn hurry(&self) {
        self.unbounded.store(true, Ordering::Relaxed);
    }

    /// Never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages that were begun.
    pub(crate) fn begun(&self) -> u64 {
        self.total - self.left.load(Ordering::Relaxed)
    }

    /// Takes up to so many from those that are left, when it is their time: what is broken is to meet messages, so that
    /// they may not all be published before.
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

    /// The next message for one of its users.
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
            // Counted ones make the edges say what they have; those that nobody counts leave them to themselves.
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

    /// Repeats a call with the same key until it is answered with a success that is one.
    async fn insist(&mut self, path: &str, key: &str, body: &Value, done: impl Fn(&Value) -> bool) {
        let body = body.to_string();
        for attempt in 0.. {
            let index = attempt as usize % self.publishers.len();
            let answered = timeout(PATIENCE, post(&self.publishers[index].1, path, key, body.clone())).await;
            if let Ok(Some((status, answer))) = answered {
                if status == 200 && done(&answer) {
                    // What worked is what it goes on with.
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

    /// Publishes over one socket; whether there is more to send over another.
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
