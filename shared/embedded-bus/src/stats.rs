//! What a bus counts about itself.
//!
//! Counters only grow; `connections` and `subscriptions` are what stands now. Nothing is dropped without being in one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A cheap handle on the counters of one bus. It stays valid after the bus has ended.
#[derive(Clone, Debug, Default)]
pub struct Stats(Arc<Counters>);

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) subscriptions: AtomicU64,
    pub(crate) connections_accepted: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) authorization_failures: AtomicU64,
    pub(crate) protocol_errors: AtomicU64,
    pub(crate) stale_connections: AtomicU64,
    pub(crate) slow_consumers: AtomicU64,
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) messages_discarded: AtomicU64,
    pub(crate) no_responders: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) publishers_held: AtomicU64,
}

/// The counters at one moment. Each is exact, but they are not read in one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Connections that are open.
    pub connections: u64,
    /// Subscriptions that stand, of all connections.
    pub subscriptions: u64,
    /// Connections that were let in since the start.
    pub connections_accepted: u64,
    /// Connections that were turned away because there were too many.
    pub connections_refused: u64,
    /// Times that the system did not give an incoming connection, e.g. for want of file descriptors.
    pub accept_errors: u64,
    /// Connections closed for wrong, missing or late credentials.
    pub authorization_failures: u64,
    /// Connections closed because what they sent is not the protocol or exceeds a limit.
    pub protocol_errors: u64,
    /// Connections closed because they did not answer PINGs.
    pub stale_connections: u64,
    /// Connections cut off because too much waited for them, or their socket took nothing for too long.
    pub slow_consumers: u64,
    /// Messages that clients published.
    pub messages_in: u64,
    /// Messages queued for a subscriber: one published message counts once for each.
    pub messages_out: u64,
    /// Of `messages_out`, those whose connection ended before they were surely written, and those that no longer fit.
    pub messages_discarded: u64,
    /// 503 answers given because nobody was there to receive a request.
    pub no_responders: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Times that a publisher was held back for a moment because a receiver was nearly full.
    pub publishers_held: u64,
}

impl Stats {
    /// Reads every counter.
    pub fn snapshot(&self) -> Snapshot {
        let counters = &*self.0;
        Snapshot {
            connections: counters.connections.load(Relaxed),
            subscriptions: counters.subscriptions.load(Relaxed),
            connections_accepted: counters.connections_accepted.load(Relaxed),
            connections_refused: counters.connections_refused.load(Relaxed),
            accept_errors: counters.accept_errors.load(Relaxed),
            authorization_failures: counters.authorization_failures.load(Relaxed),
            protocol_errors: counters.protocol_errors.load(Relaxed),
            stale_connections: counters.stale_connections.load(Relaxed),
            slow_consumers: counters.slow_consumers.load(Relaxed),
            messages_in: counters.messages_in.load(Relaxed),
            messages_out: counters.messages_out.load(Relaxed),
            messages_discarded: counters.messages_discarded.load(Relaxed),
            no_responders: counters.no_responders.load(Relaxed),
            bytes_in: counters.bytes_in.load(Relaxed),
            bytes_out: counters.bytes_out.load(Relaxed),
            publishers_held: counters.publishers_held.load(Relaxed),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0
    }
}

/// Adds without ordering: counters tell nothing about each other.
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Relaxed);
}

/// Takes away from a gauge.
pub(crate) fn subtract(gauge: &AtomicU64, amount: u64) {
    gauge.fetch_sub(amount, Relaxed);
}
