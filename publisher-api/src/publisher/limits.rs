//! Bounds of publishing.

use std::time::Duration;

use shared::bus::Bus;
use shared::wire::LiveMessage;

use crate::error::Refusal;

/// The most bytes that headers add to a payload.
const HEADERS_BYTES: usize = 1_024;

/// Bounds of publishing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Publishes without a receipt yet.
    pub(crate) in_flight: usize,
    /// Messages of calls with several targets, without a receipt yet. Further ones wait for a slot.
    pub(crate) bulk: usize,
    /// How long a publish waits for a bus that is away, counted from when a publish first missed the bus.
    pub(crate) bus_wait: Duration,
    /// How long a message waits for the store to answer, retries included.
    pub(crate) store_wait: Duration,
    /// The same once this part leaves.
    pub(crate) store_wait_leaving: Duration,
    /// How long a receipt may take before its counts are called unknown. Longer than the asker needs.
    pub(crate) receipt: Duration,
}

/// Returns the largest payload that the bus takes now, in bytes. 0: the bus has not said yet.
pub(super) fn payload_limit(bus: &Bus) -> usize {
    bus.max_payload().saturating_sub(HEADERS_BYTES)
}

/// Checks the size of a message: the bus may take less than this part is configured for.
///
/// # Errors
/// Code 104.
pub(super) fn check_size(bus: &Bus, message: &LiveMessage) -> Result<(), Refusal> {
    let limit = payload_limit(bus);
    if limit > 0 && message.payload.len() > limit {
        return Err(Refusal::TooLarge { what: "the message, for this bus,", limit });
    }
    Ok(())
}
