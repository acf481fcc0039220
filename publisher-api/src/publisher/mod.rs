//! The one place where a checked message goes to the bus or to the store, and gets its receipt. Knows no
//! dialect.
//!
//! | module | holds |
//! | --- | --- |
//! | `message` | the message, as both dialects hand it to the publisher |
//! | `limits` | bounds of publishing |
//! | `lanes` | order within a channel (pure) |
//! | `live` | the bus step: messages without history |
//! | `store` | the store step: messages with history |
//! | `handover` | the way from an accepted message to its receipt |
//! | `wave_slots`, `bulk` | calls with several messages: waves, and their slots |

mod bulk;
mod handover;
mod lanes;
mod limits;
mod live;
mod message;
mod store;
mod wave_slots;

use std::collections::VecDeque;
use std::sync::Arc;

use shared::awake::Awake;
use shared::bus::Bus;
use shared::drain::Drain;
use shared::faults::Faults;
use shared::history::History;
use shared::ids::{Channel, MessageId, MessageIds};
use shared::rules::Rules;
use tokio::time::Instant;

use crate::edges::Edges;
use crate::error::Refusal;
use crate::keys::Caller;
use crate::metrics::Metrics;
use crate::receipts::Asker;
use crate::shares::{NoShare, Shares};
use crate::spans;
pub(crate) use bulk::{Delivery, Sent};
pub(crate) use handover::{Accepted, Counting, HandedOver};
pub(crate) use lanes::Lanes;
pub(crate) use limits::Limits;
pub(crate) use message::Message;
pub(crate) use store::Store;

use bulk::Call;
use handover::{Pipeline, Slot};
use live::Live;
use store::StoreTimes;
use wave_slots::WaveSlots;

/// Publishes.
#[derive(Debug)]
pub(crate) struct Publisher {
    bus: Bus,
    pipeline: Pipeline,
    slots: Arc<Shares>,
    wave_slots: WaveSlots,
    limits: Limits,
}

/// The shared handles that a publisher needs.
#[derive(Debug)]
pub(crate) struct Deps {
    pub(crate) bus: Bus,
    pub(crate) history: History,
    pub(crate) rules: Rules,
    pub(crate) edges: Arc<Edges>,
    pub(crate) asker: Asker,
    pub(crate) faults: Faults,
    /// Begins when this part leaves.
    pub(crate) drain: Drain,
}

impl Publisher {
    pub(crate) fn new(deps: Deps, limits: Limits, metrics: Arc<Metrics>) -> Self {
        let Deps { bus, history, rules, edges, asker, faults, drain } = deps;
        let times = StoreTimes { wait: limits.store_wait, leaving: limits.store_wait_leaving };
        let pipeline = Pipeline {
            live: Live::new(bus.clone(), history.partitions(), limits.bus_wait),
            store: Store::new(bus.clone(), history, faults, drain, times, Arc::clone(&metrics)),
            rules,
            edges,
            asker,
            ids: MessageIds::random(),
            awake: bus.awake().clone(),
            patience: limits.receipt,
            metrics,
        };
        let (slots, wave_slots) = (Shares::new(limits.in_flight), WaveSlots::new(limits.bulk));
        Self { bus, pipeline, slots, wave_slots, limits }
    }

    /// The clock by which others are judged.
    pub(crate) fn awake(&self) -> &Awake {
        self.bus.awake()
    }

    /// The store of the history.
    pub(crate) fn store(&self) -> &Store {
        &self.pipeline.store
    }

    /// Whether messages of this channel are stored.
    pub(crate) fn has_history(&self, channel: &Channel) -> bool {
        self.pipeline.rules.has_history(channel)
    }

    /// Makes an id that nothing else has.
    pub(crate) fn new_id(&self) -> MessageId {
        self.pipeline.ids.next()
    }

    /// Says early whether a publish would be refused for want of a slot.
    ///
    /// # Errors
    /// Code 107.
    pub(crate) fn has_slot(&self, caller: &Caller) -> Result<(), Refusal> {
        self.slots.check(&caller.owner()).map_err(|none| self.no_slot(caller, none))
    }

    fn no_slot(&self, caller: &Caller, none: NoShare) -> Refusal {
        caller.no_slot(none, "publishes", self.limits.in_flight)
    }

    /// Accepts a message, which then has a slot. Its order is that of the calls of [`Publisher::hand_over`].
    /// `id`: of a message that may have been stored before.
    ///
    /// # Errors
    /// Code 107: there is no slot.
    pub(crate) fn accept(
        &self,
        caller: &Caller,
        message: Message,
        id: Option<MessageId>,
    ) -> Result<Accepted, Refusal> {
        let share = self.slots.take(&caller.owner()).map_err(|none| self.no_slot(caller, none))?;
        let store_by = self.has_history(&message.channel).then(|| self.store().deadline());
        Ok(self.pipeline.accept(message, id, store_by, Slot::Single { _share: share }, spans::publish()))
    }

    /// Hands an accepted message over. See [`Pipeline::hand_over`].
    ///
    /// # Errors
    /// Codes 104, 108.
    pub(crate) async fn hand_over(
        &self,
        accepted: Accepted,
        counting: Counting,
    ) -> Result<HandedOver, Refusal> {
        self.pipeline.hand_over(accepted, counting).await
    }

    /// Publishes each delivery, in their order, and returns one result each. Once the bus or the store is
    /// found away, or there are no slots in time, the rest is refused without being tried. `store_by`: until
    /// when all of the call may wait for the store; `None`: each wave by itself.
    pub(crate) async fn publish_all(
        &self,
        caller: &Caller,
        deliveries: Vec<Delivery>,
        counting: Counting,
        store_by: Option<Instant>,
    ) -> Vec<Result<Sent, Refusal>> {
        let mut deliveries = VecDeque::from(deliveries);
        if deliveries.len() == 1
            && let Some(only) = deliveries.pop_front()
        {
            return vec![self.publish_one(caller, only, counting).await];
        }
        let call = Call::new(&self.pipeline, &self.bus, self.limits, counting, store_by);
        call.publish(&self.wave_slots, &caller.owner(), deliveries).await
    }

    async fn publish_one(
        &self,
        caller: &Caller,
        delivery: Delivery,
        counting: Counting,
    ) -> Result<Sent, Refusal> {
        let accepted = self.accept(caller, delivery.message, delivery.id)?;
        let handed_over = self.hand_over(accepted, counting).await?;
        let deadline = self.awake().now() + self.limits.receipt;
        Ok(Sent::of(handed_over, counting, deadline).await)
    }
}
