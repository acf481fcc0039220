//! The bus step: a message of a channel without history goes to the bus connection, in the order of the
//! calls.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::bus::Bus;
use shared::ids::Channel;
use shared::subject;
use shared::trace::TraceContext;
use shared::wire::LiveMessage;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::limits::check_size;
use crate::error::Refusal;
use crate::spans;

/// Sends live messages.
#[derive(Debug)]
pub(super) struct Live {
    bus: Bus,
    /// Partitions of the history, which are part of the subjects.
    partitions: u32,
    /// How long a message waits for a bus that is away.
    bus_wait: Duration,
    /// The absence of the bus that publishes met last. The lock is held only to read or replace it.
    outage: Mutex<Option<Outage>>,
}

/// An absence of the bus.
#[derive(Debug, Clone, Copy)]
struct Outage {
    /// The number of the connection before the absence.
    connects: u64,
    since: Instant,
}

impl Live {
    pub(super) fn new(bus: Bus, partitions: u32, bus_wait: Duration) -> Self {
        Self { bus, partitions, bus_wait, outage: Mutex::new(None) }
    }

    /// Gives the message to the bus connection.
    ///
    /// # Errors
    /// Codes 104, 108.
    pub(super) async fn send(&self, channel: &Channel, message: &LiveMessage) -> Result<(), Refusal> {
        self.try_to_send(channel, message).instrument(spans::bus(message)).await?;
        tracing::debug!(message_id = %message.id, %channel, bytes = message.payload.len(), "published");
        Ok(())
    }

    async fn try_to_send(&self, channel: &Channel, message: &LiveMessage) -> Result<(), Refusal> {
        let subject = subject::live(channel, self.partitions);
        let (deadline, awake) = (self.deadline(), self.bus.awake());
        loop {
            let left = deadline.saturating_duration_since(awake.now());
            self.bus.connected(left).await.map_err(|_| Refusal::Unavailable)?;
            check_size(&self.bus, message)?;
            // A full send buffer gets the same time as a bus that is away, but never none.
            let patience = deadline.max(awake.now() + self.bus_wait);
            let mut headers = message.headers();
            if let Some(trace) = TraceContext::current() {
                trace.to_bus(&mut headers);
            }
            let sent = self.bus.publish(subject.clone(), None, Some(headers), message.payload.clone());
            match awake.timeout_at(patience, sent).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) if self.bus.is_connected() => return Err(Refusal::Unavailable),
                // The connection broke between the two steps.
                Ok(Err(_)) => {}
                Err(_) => return Err(Refusal::Unavailable),
            }
        }
    }

    /// Returns until when to wait for the bus, as [`Bus::awake`] counts. All publishes that meet one absence
    /// share its deadline. So a long absence refuses at once, and a queue of publishes does not wait for each
    /// in turn.
    fn deadline(&self) -> Instant {
        let (state, now) = (*self.bus.state().borrow(), self.bus.awake().now());
        if state.connected {
            return now + self.bus_wait;
        }
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let current = match *outage {
            Some(known) if known.connects == state.connects => known,
            Some(_) | None => Outage { connects: state.connects, since: now },
        };
        *outage = Some(current);
        current.since + self.bus_wait
    }
}
