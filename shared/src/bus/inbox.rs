//! Requests over one subscription, forgotten together with their waiters.
//!
//! async-nats never forgets a request that timed out (nats.rs#1617), and time-outs are normal with a bus that
//! can be slow.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::Message;
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, oneshot};

use super::{BusError, RequestError};
use crate::drain::Drain;

/// Waiters by the number in their reply subject. Locked only for a map operation, never across an await.
type Waiters = Arc<Mutex<HashMap<u64, Waiter>>>;

/// A waiter for answers to one request.
#[derive(Debug)]
enum Waiter {
    /// Waits for the first answer.
    One(oneshot::Sender<Message>),
    /// Waits for a bounded number of answers. Further answers are dropped, which the waiter sees.
    Many(mpsc::Sender<Message>),
}

#[derive(Debug)]
pub(super) struct Inbox {
    prefix: String,
    next: AtomicU64,
    waiters: Waiters,
}

/// The receiver of one answer. Dropping it forgets the request.
#[derive(Debug)]
pub(super) struct Answer {
    number: u64,
    waiters: Waiters,
    message: oneshot::Receiver<Message>,
}

/// The receiver of several answers to one request. Dropping it forgets the request.
#[derive(Debug)]
pub(super) struct Answers {
    number: u64,
    waiters: Waiters,
    messages: mpsc::Receiver<Message>,
}

impl Inbox {
    pub(super) async fn open(client: &async_nats::Client, drain: &Drain) -> Result<Self, BusError> {
        let prefix = client.new_inbox();
        let mut answers = client.subscribe(format!("{prefix}.*")).await.map_err(BusError::Subscribe)?;
        let waiters = Waiters::default();
        let (known, leaving) = (Arc::clone(&waiters), drain.token());
        drain.spawn_vital("bus-client", async move {
            let deliver = async {
                while let Some(message) = answers.next().await {
                    let number = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
                    if let Some(number) = number {
                        hand_out(&known, number, message);
                    }
                }
                // The part that made requests has left and closed the connection, or its client has died.
                if Arc::strong_count(&known) == 1 {
                    std::future::pending::<()>().await;
                }
            };
            // Requests are made until the part has left; the drain ends with its last user.
            tokio::select! { () = deliver => {}, () = leaving.cancelled() => {} }
        });
        Ok(Self { prefix, next: AtomicU64::new(0), waiters })
    }

    pub(super) fn expect(&self) -> (String, Answer) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (waiter, message) = oneshot::channel();
        lock(&self.waiters).insert(number, Waiter::One(waiter));
        let reply = format!("{}.{number}", self.prefix);
        (reply, Answer { number, waiters: Arc::clone(&self.waiters), message })
    }

    /// A place for up to `most` answers to one request.
    pub(super) fn expect_many(&self, most: usize) -> (String, Answers) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (waiter, messages) = mpsc::channel(most.max(1));
        lock(&self.waiters).insert(number, Waiter::Many(waiter));
        let reply = format!("{}.{number}", self.prefix);
        (reply, Answers { number, waiters: Arc::clone(&self.waiters), messages })
    }
}

fn hand_out(waiters: &Waiters, number: u64, message: Message) {
    let mut waiters = lock(waiters);
    let keep = match waiters.remove(&number) {
        Some(Waiter::One(waiter)) => {
            // The waiter may have given up in this moment.
            let _ = waiter.send(message);
            None
        }
        Some(Waiter::Many(waiter)) => waiter.try_send(message).is_ok().then_some(waiter),
        None => None,
    };
    if let Some(waiter) = keep {
        waiters.insert(number, Waiter::Many(waiter));
    }
}

impl Answers {
    /// The next answer, in the order in which they came.
    pub(super) async fn receive(&mut self) -> Result<Message, RequestError> {
        self.messages.recv().await.ok_or(RequestError::Disconnected)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        lock(&self.waiters).remove(&self.number);
    }
}

impl Answer {
    pub(super) async fn receive(mut self) -> Result<Message, RequestError> {
        (&mut self.message).await.map_err(|_| RequestError::Disconnected)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        lock(&self.waiters).remove(&self.number);
    }
}

fn lock(waiters: &Waiters) -> MutexGuard<'_, HashMap<u64, Waiter>> {
    waiters.lock().unwrap_or_else(PoisonError::into_inner)
}
