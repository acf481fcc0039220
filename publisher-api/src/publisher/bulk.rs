//! Calls with several messages, which are not in the way of others.
//!
//! Deliveries go out in waves of at most [`WAVE`] messages and [`WAVE_BYTES`]. The next wave begins when the
//! counts of the wave before are known. So edges that are behind slow the caller down, and not the other way
//! round. Waves have slots of their own (`wave_slots`): a call for one target is never refused because of
//! them, and calls for many targets take turns, in the order in which they asked for slots.
//!
//! Within a call, messages to channels without history go to the bus in the order of the deliveries. Messages
//! to channels with history go to the store at once, but of each channel one after the other. When a message
//! finally fails, those behind it in its channel are refused, so that none overtakes it.

use std::collections::{HashMap, VecDeque};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use shared::bus::Bus;
use shared::history::Stored;
use shared::ids::{Channel, MessageId};
use tokio::time::Instant;
use tracing::Span;

use super::handover::{Counting, HandedOver, Pipeline, Slot};
use super::lanes::Lanes;
use super::limits::Limits;
use super::message::Message;
use super::wave_slots::WaveSlots;
use crate::error::Refusal;
use crate::metrics::Outcome;
use crate::receipts::Receipt;
use crate::shares::Owner;

/// Messages that go out before the counts of any of them are known.
const WAVE: usize = 1_024;
/// The same in bytes. A larger message goes alone.
const WAVE_BYTES: usize = 8 << 20;

/// A message of a call.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// The message.
    pub(crate) message: Message,
    /// Its id, if the call may be a repeat.
    pub(crate) id: Option<MessageId>,
}

/// A delivery that the bus has, or the store.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The id of its message.
    pub(crate) id: MessageId,
    /// The answer of the store. `None`: the channel has no history.
    pub(crate) stored: Option<Stored>,
    /// Its counts, if they were wanted.
    pub(crate) receipt: Option<Receipt>,
}

impl Sent {
    /// Waits for the counts until `deadline`, if they are wanted.
    pub(super) async fn of(handed_over: HandedOver, counting: Counting, deadline: Instant) -> Self {
        let (id, stored) = (handed_over.id(), handed_over.stored());
        let receipt = match counting {
            Counting::Wanted => Some(handed_over.receipt_by(deadline).await),
            Counting::Unwanted => None,
        };
        Self { id, stored, receipt }
    }
}

/// A delivery of a wave, with its number in the wave.
#[derive(Debug)]
struct Numbered {
    index: usize,
    delivery: Delivery,
}

/// The outcome of a delivery that went to the store.
#[derive(Debug)]
struct Settled {
    index: usize,
    channel: Channel,
    outcome: Result<HandedOver, Refusal>,
}

/// A call with several messages, under way.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pipeline: &'a Pipeline,
    bus: &'a Bus,
    limits: Limits,
    counting: Counting,
    /// Until when all of the call may wait for the store. `None`: each wave by itself.
    store_by: Option<Instant>,
    /// Channels of which a message was not stored, and whether the store was full.
    failed: HashMap<Channel, bool>,
    /// One result a delivery, in their order.
    results: Vec<Result<Sent, Refusal>>,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        pipeline: &'a Pipeline,
        bus: &'a Bus,
        limits: Limits,
        counting: Counting,
        store_by: Option<Instant>,
    ) -> Self {
        let (failed, results) = (HashMap::new(), Vec::new());
        Self { pipeline, bus, limits, counting, store_by, failed, results }
    }

    /// Publishes wave after wave.
    pub(super) async fn publish(
        mut self,
        slots: &WaveSlots,
        owner: &Owner,
        mut waiting: VecDeque<Delivery>,
    ) -> Vec<Result<Sent, Refusal>> {
        self.results.reserve(waiting.len());
        while !waiting.is_empty() {
            let wave = next_wave(&mut waiting, slots.most(owner).min(WAVE));
            let permit = slots.take(owner, wave.len());
            let Ok(permit) = self.bus.awake().timeout(self.limits.bus_wait, permit).await else {
                let rest = wave.len() + waiting.len();
                let no_slots = || Err(Refusal::TooMany { what: "targets", limit: self.limits.bulk });
                self.results.extend((0..rest).map(|_| no_slots()));
                break;
            };
            let before = self.results.len();
            self.send_wave(wave).await;
            if self.counting == Counting::Unwanted && !waiting.is_empty() {
                // In place of the counts, the server's word that it has them.
                let _ = self.bus.barrier(self.limits.bus_wait).await;
            }
            drop(permit);
            self.refuse_rest(before, &mut waiting);
        }
        self.results
    }

    /// Refuses what waits, if the wave whose results begin at `before` found the bus or the store away.
    fn refuse_rest(&mut self, before: usize, waiting: &mut VecDeque<Delivery>) {
        let wave = &self.results[before..];
        if wave.iter().any(|result| matches!(result, Err(Refusal::Unavailable))) {
            self.results.extend(waiting.drain(..).map(|_| Err(Refusal::Unavailable)));
        } else if wave.iter().any(|result| matches!(result, Err(Refusal::StoreUnavailable(_)))) {
            let behind = waiting.drain(..).map(|_| Err(behind(self.pipeline, false)));
            self.results.extend(behind);
        }
    }

    /// Hands a wave over, then waits for its counts.
    async fn send_wave(&mut self, wave: Vec<Delivery>) {
        let handed_over = self.hand_wave_over(wave).await;
        let deadline = self.bus.awake().now() + self.limits.receipt;
        for handed_over in handed_over {
            let result = match handed_over {
                Ok(handed_over) => Ok(Sent::of(handed_over, self.counting, deadline).await),
                Err(refusal) => Err(refusal),
            };
            self.results.push(result);
        }
    }

    async fn hand_wave_over(&mut self, wave: Vec<Delivery>) -> Vec<Result<HandedOver, Refusal>> {
        let pipeline = self.pipeline;
        let store_by = self.store_by.unwrap_or_else(|| pipeline.store.deadline());
        let mut handed_over: Vec<Result<HandedOver, Refusal>> = Vec::with_capacity(wave.len());
        let (mut lanes, mut storing) = (Lanes::default(), FuturesUnordered::new());
        let mut away = false;
        for (index, delivery) in wave.into_iter().enumerate() {
            let channel = delivery.message.channel.clone();
            if !pipeline.rules.has_history(&channel) {
                let outcome = if away {
                    Err(Refusal::Unavailable)
                } else {
                    hand_over(pipeline, delivery, None, self.counting).await
                };
                away = matches!(outcome, Err(Refusal::Unavailable));
                handed_over.push(outcome);
                continue;
            }
            // Stays, unless an outcome replaces it: the lane gave the message up.
            handed_over.push(Err(Refusal::Behind { full: false }));
            if let Some(full) = self.failed.get(&channel) {
                handed_over[index] = Err(behind(pipeline, *full));
            } else if let Some(next) = lanes.enter(&channel, Numbered { index, delivery }) {
                storing.push(store(pipeline, next, store_by, self.counting));
            }
        }
        while let Some(settled) = storing.next().await {
            if let Some(next) = self.on_settled(settled, &mut lanes, &mut handed_over) {
                storing.push(store(pipeline, next, store_by, self.counting));
            }
        }
        handed_over
    }

    /// Takes the outcome of a message at the store. Returns the next message of its channel, unless the
    /// channel is given up.
    fn on_settled(
        &mut self,
        Settled { index, channel, outcome }: Settled,
        lanes: &mut Lanes<Numbered>,
        handed_over: &mut [Result<HandedOver, Refusal>],
    ) -> Option<Numbered> {
        let full = match &outcome {
            Err(Refusal::StoreFull) => true,
            Err(Refusal::StoreUnavailable(_) | Refusal::StoreRefused(_)) => false,
            // A message that is bad by itself stops no other.
            Ok(_) | Err(_) => {
                handed_over[index] = outcome;
                return lanes.settled(&channel);
            }
        };
        handed_over[index] = outcome;
        for given_up in lanes.give_up(&channel) {
            handed_over[given_up.index] = Err(behind(self.pipeline, full));
        }
        self.failed.insert(channel, full);
        None
    }
}

/// Hands a message of a wave over. It counts as in flight from now on, not while it waited in its lane.
async fn hand_over(
    pipeline: &Pipeline,
    delivery: Delivery,
    store_by: Option<Instant>,
    counting: Counting,
) -> Result<HandedOver, Refusal> {
    let Delivery { message, id } = delivery;
    let accepted = pipeline.accept(message, id, store_by, Slot::Wave, Span::none());
    pipeline.hand_over(accepted, counting).await
}

async fn store(
    pipeline: &Pipeline,
    Numbered { index, delivery }: Numbered,
    store_by: Instant,
    counting: Counting,
) -> Settled {
    let channel = delivery.message.channel.clone();
    Settled { index, channel, outcome: hand_over(pipeline, delivery, Some(store_by), counting).await }
}

/// Refuses a message because a message before it was not stored. `full`: the store was full.
fn behind(pipeline: &Pipeline, full: bool) -> Refusal {
    pipeline.metrics.stored(Outcome::Behind);
    Refusal::Behind { full }
}

/// Takes as many as may go out together, but at least one.
fn next_wave(waiting: &mut VecDeque<Delivery>, most: usize) -> Vec<Delivery> {
    let mut bytes = 0_usize;
    let fits = waiting.iter().take(most.max(1)).take_while(|delivery| {
        let first = bytes == 0;
        bytes = bytes.saturating_add(delivery.message.payload.len().max(1));
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
            let delivery = |(index, size): (usize, &usize)| Delivery {
                message: Message {
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
                let bytes: usize = wave.iter().map(|delivery| delivery.message.payload.len()).sum();
                prop_assert!(bytes <= WAVE_BYTES || wave.len() == 1);
                for delivery in wave {
                    let expected = seen.to_string();
                    prop_assert_eq!(delivery.message.channel.as_str(), expected.as_str());
                    seen += 1;
                }
            }
            prop_assert_eq!(seen, sizes.len());
        }
    }
}
