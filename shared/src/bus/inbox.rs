//! Requests over one subscription of our own, forgotten when their waiter is.
//!
//! async-nats keeps the entry of a request that timed out for ever (nats.rs#1617), and with a bus that can be
//! slow, time-outs are a matter of course here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::Message;
use futures_util::StreamExt as _;
use tokio::sync::oneshot;

use super::{BusError, RequestError};
use crate::drain::Drain;

/// Waiters by the number in their reply subject. Held only for a map operation, never across an await.
type Waiters = Arc<Mutex<HashMap<u64, oneshot::Sender<Message>>>>;

#[derive(Debug)]
pub(super) struct Inbox {
    prefix: String,
    next: AtomicU64,
    waiters: Waiters,
}

/// The place of one answer. Dropping it forgets the request.
#[derive(Debug)]
pub(super) struct Answer {
    number: u64,
    waiters: Waiters,
    message: oneshot::Receiver<Message>,
}

impl Inbox {
    pub(super) async fn open(client: &async_nats::Client, drain: &Drain) -> Result<Self, BusError> {
        let prefix = client.new_inbox();
        let mut answers = client.subscribe(format!("{prefix}.*")).await.map_err(BusError::Subscribe)?;
        let waiters = Waiters::default();
        let (known, leaving) = (Arc::clone(&waiters), drain.token());
        drain.spawn(async move {
            let deliver = async {
                while let Some(message) = answers.next().await {
                    let number = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
                    let waiter = number.and_then(|number: u64| lock(&known).remove(&number));
                    if let Some(waiter) = waiter {
                        // The waiter may have given up in this moment.
                        let _ = waiter.send(message);
                    }
                }
            };
            // Requests are made until the part has left; its drain ends with its last user.
            tokio::select! { () = deliver => {}, () = leaving.cancelled() => {} }
        });
        Ok(Self { prefix, next: AtomicU64::new(0), waiters })
    }

    pub(super) fn expect(&self) -> (String, Answer) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (waiter, message) = oneshot::channel();
        lock(&self.waiters).insert(number, waiter);
        let reply = format!("{}.{number}", self.prefix);
        (reply, Answer { number, waiters: Arc::clone(&self.waiters), message })
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

fn lock(waiters: &Waiters) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Message>>> {
    waiters.lock().unwrap_or_else(PoisonError::into_inner)
}
