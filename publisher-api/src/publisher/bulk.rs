//! Publishing to many at once, without being in the way of others.
//!
//! Deliveries go out in waves of at most [`WAVE`] messages and [`WAVE_BYTES`]. The next wave begins when the counts of
//! the one before are known, so edges that are behind slow the caller down, and not the other way round. Waves have
//! places of their own: calls for one target are never refused because of them, and calls for many take turns, in the
//! order in which they asked for a place. Within a call, messages go to the bus in the order of the deliveries.

use std::collections::VecDeque;

use shared::held::Held;
use shared::ids::MessageId;
use shared::wire::LiveMessage;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use tracing::Instrument as _;

use super::Publisher;
use crate::connmix::Publish;
use crate::error::Refusal;
use crate::receipts::Receipt;
use crate::traced;

/// Messages that go out before the counts of any of them are known.
const WAVE: usize = 1_024;
/// The same in bytes; one larger message goes alone.
const WAVE_BYTES: usize = 8 << 20;

/// A delivery that the bus has.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The id of its message.
    pub(crate) id: MessageId,
    /// Its counts, if they were wanted.
    pub(crate) receipt: Option<Receipt>,
}

/// A message of a wave whose counts are being asked for.
#[derive(Debug)]
struct Open {
    id: MessageId,
    began: Instant,
    /// `None`: nobody is there.
    answer: Option<oneshot::Receiver<Receipt>>,
    _held: Held,
}

impl Publisher {
    /// Publishes each delivery, in their order; one result each. Once the bus is found away, or there is no place in
    /// time, the rest is refused without being tried.
    pub(crate) async fn publish_all(
        &self,
        deliveries: Vec<Publish>,
        counted: bool,
    ) -> Vec<Result<Sent, Refusal>> {
        let mut results = Vec::with_capacity(deliveries.len());
        let mut waiting = VecDeque::from(deliveries);
        if waiting.len() == 1
            && let Some(only) = waiting.pop_front()
        {
            results.push(self.publish_one(only, counted).await);
        }
        while !waiting.is_empty() {
            let wave = next_wave(&mut waiting, self.limits.bulk.min(WAVE));
            let Some(place) = self.place(wave.len()).await else {
                let rest = wave.len() + waiting.len();
                results.extend((0..rest).map(|_| Err(self.no_place())));
                break;
            };
            let before = results.len();
            self.send_wave(wave, counted, &mut results).await;
            if !counted && !waiting.is_empty() {
                // In place of the counts, the server's word that it has them.
                let _ = self.bus.barrier(self.limits.bus_wait).await;
            }
            drop(place);
            if results[before..].iter().any(|result| matches!(result, Err(Refusal::Unavailable))) {
                results.extend(waiting.drain(..).map(|_| Err(Refusal::Unavailable)));
            }
        }
        results
    }

    async fn publish_one(&self, publish: Publish, counted: bool) -> Result<Sent, Refusal> {
        let handed_over = self.hand_over(publish).await?;
        let id = handed_over.id;
        let receipt = if counted { Some(handed_over.receipt().await) } else { None };
        Ok(Sent { id, receipt })
    }

    /// Places for a wave, waited for as long as for a bus that is away.
    async fn place(&self, messages: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(messages).unwrap_or(u32::MAX);
        let place = std::sync::Arc::clone(&self.bulk_slots).acquire_many_owned(permits);
        timeout(self.limits.bus_wait, place).await.ok()?.ok()
    }

    fn no_place(&self) -> Refusal {
        Refusal::TooMany { what: "targets", limit: self.limits.bulk }
    }

    /// Hands a wave over, then waits for its counts.
    async fn send_wave(&self, wave: Vec<Publish>, counted: bool, results: &mut Vec<Result<Sent, Refusal>>) {
        let somebody = counted && !self.edges.expected().nobody();
        let mut open = Vec::with_capacity(wave.len());
        let mut away = false;
        for publish in wave {
            let sent = if away { Err(Refusal::Unavailable) } else { self.send_one(publish, somebody).await };
            away = matches!(sent, Err(Refusal::Unavailable));
            open.push(sent);
        }
        let patience = Instant::now() + self.limits.receipt;
        for sent in open {
            let sent = match sent {
                Ok(open) if counted => Ok(self.settle(open, patience).await),
                Ok(open) => Ok(Sent { id: open.id, receipt: None }),
                Err(refusal) => Err(refusal),
            };
            results.push(sent);
        }
    }

    async fn send_one(&self, publish: Publish, asks: bool) -> Result<Open, Refusal> {
        let (began, held) = (Instant::now(), Held::new(&self.metrics.in_flight));
        let Publish { channel, kind, payload } = publish;
        let message = LiveMessage { id: self.ids.next(), kind, payload };
        self.send(&channel, &message).instrument(traced::bus(&message)).await?;
        self.metrics.handed_over(message.payload.len(), began.elapsed());
        tracing::debug!(message_id = %message.id, %channel, bytes = message.payload.len(), "published");
        let answer = asks.then(|| self.asker.ask(message.id));
        Ok(Open { id: message.id, began, answer, _held: held })
    }

    async fn settle(&self, open: Open, patience: Instant) -> Sent {
        let receipt = match open.answer {
            None => Receipt::nobody(),
            Some(answer) => match timeout_at(patience, answer).await {
                Ok(Ok(receipt)) => receipt,
                Ok(Err(_)) | Err(_) => Receipt::unknown(),
            },
        };
        self.metrics.received(receipt.complete, open.began.elapsed());
        Sent { id: open.id, receipt: Some(receipt) }
    }
}

/// Takes as many as may go out together, but at least one.
fn next_wave(waiting: &mut VecDeque<Publish>, most: usize) -> Vec<Publish> {
    let mut bytes = 0_usize;
    let fits = waiting.iter().take(most.max(1)).take_while(|publish| {
        let first = bytes == 0;
        bytes = bytes.saturating_add(publish.payload.len().max(1));
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
    use shared::ids::Channel;
    use shared::wire::Kind;

    proptest! {
        #[test]
        fn waves_hold_everything_in_order_and_keep_both_bounds(
            sizes in prop::collection::vec(prop::sample::select(vec![0, 1, 1_000, WAVE_BYTES / 2, WAVE_BYTES + 1]), 0..50),
            most in 1_usize..10,
        ) {
            let delivery = |(index, size): (usize, &usize)| Publish {
                channel: Channel::parse(&index.to_string()).unwrap(),
                kind: Kind::Text,
                payload: Bytes::from_static(&[0; WAVE_BYTES + 1]).slice(..*size),
            };
            let mut waiting: VecDeque<Publish> = sizes.iter().enumerate().map(delivery).collect();
            let mut seen = 0;
            while !waiting.is_empty() {
                let wave = next_wave(&mut waiting, most);
                prop_assert!((1..=most).contains(&wave.len()));
                let bytes: usize = wave.iter().map(|publish| publish.payload.len()).sum();
                prop_assert!(bytes <= WAVE_BYTES || wave.len() == 1);
                for publish in wave {
                    let place = seen.to_string();
                    prop_assert_eq!(publish.channel.as_str(), place.as_str());
                    seen += 1;
                }
            }
            prop_assert_eq!(seen, sizes.len());
        }
    }
}
