//! Publishing to many at once, without being in the way of others.
//!
//! Deliveries go out in waves of at most [`WAVE`] messages and [`WAVE_BYTES`]. The next wave begins when the
//! counts of the one before are known, so edges that are behind slow the caller down, and not the other way
//! round. Waves have places of their own: calls for one target are never refused because of them, and calls
//! for many take turns, in the order in which they asked for a place. Of several keys each has half of these
//! places at most, and its other calls wait apart, so that those of another key wait for no more than a wave.
//!
//! Within a call, messages to channels without history go to the bus in the order of the deliveries. Those to
//! channels with history go to the store at once, but of each channel one after the other; when one finally
//! fails, those behind it are refused rather than overtake it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use shared::gauge::GaugeGuard;
use shared::history::Position;
use shared::ids::{Channel, MessageId};
use shared::wire::LiveMessage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use tracing::Instrument as _;

use super::lanes::Lanes;
use super::store::stored_at;
use super::{Counting, Publisher};
use crate::connmix::Publish;
use crate::error::Refusal;
use crate::keys::Caller;
use crate::metrics::Outcome;
use crate::receipts::{Receipt, Which};
use crate::shares::Owner;
use crate::spans;

/// Messages that go out before the counts of any of them are known.
const WAVE: usize = 1_024;
/// The same in bytes; one larger message goes alone.
const WAVE_BYTES: usize = 8 << 20;

/// A message to one channel.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// The message.
    pub(crate) publish: Publish,
    /// Its id, if the call may be a repeat.
    pub(crate) id: Option<MessageId>,
}

/// A delivery that the bus has, or the store.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The id of its message.
    pub(crate) id: MessageId,
    /// Where it is stored, if it is, and whether it was there before.
    pub(crate) stored: Option<(Position, bool)>,
    /// Its counts, if they were wanted.
    pub(crate) receipt: Option<Receipt>,
}

/// A message of a wave whose counts are being asked for.
#[derive(Debug)]
struct Open {
    id: MessageId,
    stored: Option<(Position, bool)>,
    began: Instant,
    /// `None`: nobody is there.
    answer: Option<oneshot::Receiver<Receipt>>,
    _held: GaugeGuard,
}

/// What holds for a whole call.
#[derive(Debug)]
struct Terms {
    counting: Counting,
    /// Until when all of it may wait for the store; `None`: each wave by itself.
    deadline: Option<Instant>,
    /// Channels of which a message was not stored, and whether that was for want of room.
    failed: HashMap<Channel, bool>,
}

/// The places of waves, which are waited for in order.
#[derive(Debug)]
pub(super) struct BulkPlaces {
    most: usize,
    all: Arc<Semaphore>,
    /// What one owner may have, so that it does not wait before others with the rest. Held only to look one
    /// up.
    of_owner: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// Places of one wave, until they are dropped.
type BulkPlace = (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>);

impl BulkPlaces {
    pub(super) fn new(most: usize) -> Self {
        Self { most, all: Arc::new(Semaphore::new(most)), of_owner: Mutex::default() }
    }

    /// As many as this owner may have.
    fn most(&self, owner: &Owner) -> usize {
        if owner.is_some() { (self.most / 2).max(1) } else { self.most }
    }

    /// Waits for so many places, of at most [`Self::most`].
    async fn take(&self, owner: &Owner, places: usize) -> BulkPlace {
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        let of_owner = owner.as_ref().map(|name| {
            let mut known = self.of_owner.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits for the others, so that their names may be forgotten.
            known.retain(|own, places| own == name || Arc::strong_count(places) > 1);
            let new = || Arc::new(Semaphore::new(self.most(owner)));
            Arc::clone(known.entry(Arc::clone(name)).or_insert_with(new))
        });
        let own = match of_owner {
            Some(semaphore) => semaphore.acquire_many_owned(places).await.ok(),
            None => None,
        };
        (own, Arc::clone(&self.all).acquire_many_owned(places).await.ok())
    }
}

impl Publisher {
    /// Publishes each delivery, in their order; one result each. Once the bus or the store is found away, or
    /// there is no place in time, the rest is refused without being tried.
    pub(crate) async fn publish_all(
        &self,
        caller: &Caller,
        deliveries: Vec<Delivery>,
        counting: Counting,
        deadline: Option<Instant>,
    ) -> Vec<Result<Sent, Refusal>> {
        let mut results = Vec::with_capacity(deliveries.len());
        let mut waiting = VecDeque::from(deliveries);
        let mut terms = Terms { counting, deadline, failed: HashMap::new() };
        if waiting.len() == 1
            && let Some(only) = waiting.pop_front()
        {
            results.push(self.publish_one(caller, only, counting).await);
        }
        let owner = caller.owner();
        while !waiting.is_empty() {
            let wave = next_wave(&mut waiting, self.bulk_slots.most(&owner).min(WAVE));
            let place = self.bulk_slots.take(&owner, wave.len());
            let place = self.bus.awake().timeout(self.limits.bus_wait, place);
            let Ok(place) = place.await else {
                let rest = wave.len() + waiting.len();
                results.extend((0..rest).map(|_| Err(self.no_place())));
                break;
            };
            let before = results.len();
            self.send_wave(wave, &mut terms, &mut results).await;
            if counting == Counting::Unwanted && !waiting.is_empty() {
                // In place of the counts, the server's word that it has them.
                let _ = self.bus.barrier(self.limits.bus_wait).await;
            }
            drop(place);
            if results[before..].iter().any(|result| matches!(result, Err(Refusal::Unavailable))) {
                results.extend(waiting.drain(..).map(|_| Err(Refusal::Unavailable)));
            } else if results[before..]
                .iter()
                .any(|result| matches!(result, Err(Refusal::StoreUnavailable(_))))
            {
                results.extend(waiting.drain(..).map(|_| Err(self.behind(false))));
            }
        }
        results
    }

    async fn publish_one(
        &self,
        caller: &Caller,
        delivery: Delivery,
        counting: Counting,
    ) -> Result<Sent, Refusal> {
        let handed_over = self.hand_over(caller, delivery.publish, delivery.id, counting).await?;
        let (id, stored) = (handed_over.id(), handed_over.stored());
        let receipt = match counting {
            Counting::Wanted => Some(handed_over.receipt().await),
            Counting::Unwanted => None,
        };
        Ok(Sent { id, stored, receipt })
    }

    fn no_place(&self) -> Refusal {
        Refusal::TooMany { what: "targets", limit: self.limits.bulk }
    }

    /// Hands a wave over, then waits for its counts.
    async fn send_wave(
        &self,
        wave: Vec<Delivery>,
        terms: &mut Terms,
        results: &mut Vec<Result<Sent, Refusal>>,
    ) {
        let sent = self.hand_wave_over(wave, terms).await;
        let patience = self.bus.awake().now() + self.limits.receipt;
        for sent in sent {
            let sent = match sent {
                Ok(open) if terms.counting == Counting::Wanted => Ok(self.settle(open, patience).await),
                Ok(Open { id, stored, .. }) => Ok(Sent { id, stored, receipt: None }),
                Err(refusal) => Err(refusal),
            };
            results.push(sent);
        }
    }

    async fn hand_wave_over(&self, wave: Vec<Delivery>, terms: &mut Terms) -> Vec<Result<Open, Refusal>> {
        let somebody = self.asks(terms.counting);
        let deadline = terms.deadline.unwrap_or_else(|| self.store_deadline());
        // What is not replaced below is what a lane gave up.
        let mut sent: Vec<Result<Open, Refusal>> = Vec::with_capacity(wave.len());
        let (mut lanes, mut storing) = (Lanes::default(), FuturesUnordered::new());
        let mut away = false;
        for (index, delivery) in wave.into_iter().enumerate() {
            let channel = delivery.publish.channel.clone();
            if !self.keeps(&channel) {
                let one = if away {
                    Err(Refusal::Unavailable)
                } else {
                    self.send_one(delivery.publish, somebody).await
                };
                away = matches!(one, Err(Refusal::Unavailable));
                sent.push(one);
                continue;
            }
            sent.push(Err(Refusal::Behind { full: false }));
            if let Some(full) = terms.failed.get(&channel) {
                sent[index] = Err(self.behind(*full));
            } else if let Some((index, delivery)) = lanes.enter(&channel, (index, delivery)) {
                storing.push(self.store_one(index, delivery, somebody, deadline));
            }
        }
        while let Some((index, channel, one)) = storing.next().await {
            let next = match &one {
                Err(
                    refusal @ (Refusal::StoreFull | Refusal::StoreUnavailable(_) | Refusal::StoreRefused(_)),
                ) => {
                    let full = matches!(refusal, Refusal::StoreFull);
                    for (behind, _) in lanes.give_up(&channel) {
                        sent[behind] = Err(self.behind(full));
                    }
                    terms.failed.insert(channel, full);
                    None
                }
                // A message that is bad by itself stops no other.
                Ok(_) | Err(_) => lanes.settled(&channel),
            };
            sent[index] = one;
            if let Some((index, delivery)) = next {
                storing.push(self.store_one(index, delivery, somebody, deadline));
            }
        }
        sent
    }

    /// Refuses a message because one before it was not stored.
    fn behind(&self, full: bool) -> Refusal {
        self.metrics.stored(Outcome::Behind);
        Refusal::Behind { full }
    }

    async fn store_one(
        &self,
        index: usize,
        delivery: Delivery,
        asks: bool,
        deadline: Instant,
    ) -> (usize, Channel, Result<Open, Refusal>) {
        let (began, held) = (Instant::now(), GaugeGuard::new(&self.metrics.in_flight));
        let Delivery { publish: Publish { channel, kind, payload }, id } = delivery;
        let message = LiveMessage { id: id.unwrap_or_else(|| self.ids.next()), kind, payload };
        let stored = self.store(&channel, &message, deadline).await;
        let open = stored.map(|(position, duplicate)| {
            self.metrics.handed_over(message.payload.len(), began.elapsed());
            let answer = asks.then(|| self.asker.ask(stored_at(&channel, position)));
            Open { id: message.id, stored: Some((position, duplicate)), began, answer, _held: held }
        });
        (index, channel, open)
    }

    async fn send_one(&self, publish: Publish, asks: bool) -> Result<Open, Refusal> {
        let (began, held) = (Instant::now(), GaugeGuard::new(&self.metrics.in_flight));
        let Publish { channel, kind, payload } = publish;
        let message = LiveMessage { id: self.ids.next(), kind, payload };
        self.send(&channel, &message).instrument(spans::bus(&message)).await?;
        self.metrics.handed_over(message.payload.len(), began.elapsed());
        tracing::debug!(message_id = %message.id, %channel, bytes = message.payload.len(), "published");
        let answer = asks.then(|| self.asker.ask(Which::Live(message.id)));
        Ok(Open { id: message.id, stored: None, began, answer, _held: held })
    }

    async fn settle(&self, open: Open, patience: Instant) -> Sent {
        let receipt = match open.answer {
            None => Receipt::nobody(),
            Some(answer) => match self.bus.awake().timeout_at(patience, answer).await {
                Ok(Ok(receipt)) => receipt,
                Ok(Err(_)) | Err(_) => Receipt::unknown(),
            },
        };
        self.metrics.received(receipt.complete, open.began.elapsed());
        Sent { id: open.id, stored: open.stored, receipt: Some(receipt) }
    }
}

/// Takes as many as may go out together, but at least one.
fn next_wave(waiting: &mut VecDeque<Delivery>, most: usize) -> Vec<Delivery> {
    let mut bytes = 0_usize;
    let fits = waiting.iter().take(most.max(1)).take_while(|delivery| {
        let first = bytes == 0;
        bytes = bytes.saturating_add(delivery.publish.payload.len().max(1));
        first || bytes <= WAVE_BYTES
    });
    let count = fits.count();
    waiting.drain(..count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use shared::wire::Kind;

    proptest! {
        #[test]
        fn waves_hold_everything_in_order_and_keep_both_bounds(
            sizes in prop::collection::vec(prop::sample::select(vec![0, 1, 1_000, WAVE_BYTES / 2, WAVE_BYTES + 1]), 0..50),
            most in 1_usize..10,
        ) {
            let delivery = |(index, size): (usize, &usize)| Delivery {
                publish: Publish {
                    channel: Channel::parse(&index.to_string()).unwrap(),
                    kind: Kind::Text,
                    payload: Bytes::from_static(&[0; WAVE_BYTES + 1]).slice(..*size),
                },
                id: None,
            };
            let mut waiting: VecDeque<Delivery> = sizes.iter().enumerate().map(delivery).collect();
            let mut seen = 0;
            while !waiting.is_empty() {
                let wave = next_wave(&mut waiting, most);
                prop_assert!((1..=most).contains(&wave.len()));
                let bytes: usize = wave.iter().map(|delivery| delivery.publish.payload.len()).sum();
                prop_assert!(bytes <= WAVE_BYTES || wave.len() == 1);
                for delivery in wave {
                    let place = seen.to_string();
                    prop_assert_eq!(delivery.publish.channel.as_str(), place.as_str());
                    seen += 1;
                }
            }
            prop_assert_eq!(seen, sizes.len());
        }
    }
}
