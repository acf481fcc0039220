//! Counters of a bus.
//!
//! Counters only grow; `connections` and `subscriptions` are gauges. Every dropped message is in a counter.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

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
    pub(crate) connection_panics: AtomicU64,
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) messages_discarded: AtomicU64,
    pub(crate) no_responders: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) publishers_held: AtomicU64,
    pub(crate) stream_stored: AtomicU64,
    pub(crate) stream_duplicates: AtomicU64,
    pub(crate) stream_refused: AtomicU64,
    pub(crate) stream_commits: AtomicU64,
    pub(crate) stream_commit_micros: AtomicU64,
    pub(crate) stream_failures: AtomicU64,
    pub(crate) stream_dropped: AtomicU64,
    pub(crate) clock_steps: AtomicU64,
    pub(crate) stream_publishers_held: AtomicU64,
    pub(crate) stream_queued: AtomicU64,
    pub(crate) stream_queued_bytes: AtomicU64,
    streams: Mutex<Vec<StreamSnapshot>>,
    store: Mutex<StoreState>,
    memory: Mutex<MemorySnapshot>,
}

/// The store at the last tick, and why the streams can't use it, if so.
#[derive(Clone, Debug, Default)]
struct StoreState {
    snapshot: StoreSnapshot,
    error: Option<String>,
}

/// The data folder of the streams at the last tick, less than a second ago; all zero if streams are in
/// memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSnapshot {
    /// Bytes of the files of all streams.
    pub bytes: u64,
    /// Bytes that the files may have.
    pub max_bytes: u64,
    /// Bytes that are free on the disk.
    pub free_bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Whether messages are refused for want of space.
    pub full: bool,
    /// Messages that were refused for want of space.
    pub refused: u64,
    /// Times that a file was synced.
    pub syncs: u64,
    /// Microseconds that the syncs took, in total.
    pub sync_micros: u64,
    /// Microseconds that the last sync took.
    pub last_sync_micros: u64,
    /// Times that the system refused to write, to sync or to read.
    pub errors: u64,
    /// Files whose end a crash had cut off; the incomplete end was dropped when they were opened.
    pub cuts: u64,
    /// Bytes in the files that are of no use and not given back yet.
    pub wasted_bytes: u64,
    /// Bytes that were copied to give space back.
    pub rewritten_bytes: u64,
    /// Files that were replaced by copies without useless bytes.
    pub rewrites: u64,
    /// Times that space could not be given back, e.g. for want of space for the copy. It is tried again.
    pub failed_rewrites: u64,
}

/// Memory of the streams at the last tick, less than a second ago, by estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySnapshot {
    /// Bytes for messages, subjects and message ids. Messages themselves count too if they are in memory.
    pub bytes: u64,
    /// Limit of `bytes`.
    pub max_bytes: u64,
    /// Whether messages are refused for want of memory.
    pub full: bool,
}

/// A stream at the last tick, less than a second ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamSnapshot {
    /// The stream's name.
    pub name: String,
    /// Messages in the stream.
    pub messages: u64,
    /// Bytes of the messages, as the limits of the stream count them.
    pub bytes: u64,
    /// Limit of `bytes`; 0: none.
    pub max_bytes: u64,
    /// Subjects that have messages.
    pub subjects: u64,
    /// Message ids in the duplicate window.
    pub ids: u64,
    /// The lowest sequence in the stream.
    pub first_seq: u64,
    /// The highest sequence that was given to a message.
    pub last_seq: u64,
    /// Bytes of the stream's log, on the disk or in memory.
    pub log_bytes: u64,
}

/// The counters at one moment. Each is exact, but they are not read in one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Connections that are open.
    pub connections: u64,
    /// Subscriptions of all connections.
    pub subscriptions: u64,
    /// Connections that were admitted since the start.
    pub connections_accepted: u64,
    /// Connections that were turned away because there were too many.
    pub connections_refused: u64,
    /// Times that accepting a connection failed, e.g. for want of file descriptors.
    pub accept_errors: u64,
    /// Connections closed for wrong, missing or late credentials.
    pub authorization_failures: u64,
    /// Connections closed because their bytes are not the protocol or exceed a limit.
    pub protocol_errors: u64,
    /// Connections closed because they did not answer PINGs.
    pub stale_connections: u64,
    /// Connections cut off because too much waited for them, or their socket took nothing for too long.
    pub slow_consumers: u64,
    /// Connections that a panic of this program ended.
    pub connection_panics: u64,
    /// Messages that clients published.
    pub messages_in: u64,
    /// Messages queued for subscribers: one published message counts once for each subscriber.
    pub messages_out: u64,
    /// Of `messages_out`, messages that may not have been written before their connection ended, and messages
    /// without space in the outbox.
    pub messages_discarded: u64,
    /// 503 answers given because nobody was there to receive a request.
    pub no_responders: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Times that a publisher was held back for a moment because a receiver was nearly full.
    pub publishers_held: u64,
    /// Messages stored by streams.
    pub stream_stored: u64,
    /// Messages that streams had already, by their message ids.
    pub stream_duplicates: u64,
    /// Messages that streams refused: a limit, an expectation that did not hold, or a store that failed.
    pub stream_refused: u64,
    /// Times that a stream made messages durable.
    pub stream_commits: u64,
    /// Microseconds that those commits took, in total.
    pub stream_commit_micros: u64,
    /// Times that a stream's store failed and was read anew.
    pub stream_failures: u64,
    /// Messages dropped because the streams had ended, or because live copies came back to streams faster
    /// than they were stored.
    pub stream_dropped: u64,
    /// Times that the system's clock was set by a second or more while the streams ran.
    pub clock_steps: u64,
    /// Times that a publisher waited because the queue of the streams was full.
    pub stream_publishers_held: u64,
    /// Messages and requests that wait for the streams.
    pub stream_queued: u64,
    /// Bytes of `stream_queued`.
    pub stream_queued_bytes: u64,
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
            connection_panics: counters.connection_panics.load(Relaxed),
            messages_in: counters.messages_in.load(Relaxed),
            messages_out: counters.messages_out.load(Relaxed),
            messages_discarded: counters.messages_discarded.load(Relaxed),
            no_responders: counters.no_responders.load(Relaxed),
            bytes_in: counters.bytes_in.load(Relaxed),
            bytes_out: counters.bytes_out.load(Relaxed),
            publishers_held: counters.publishers_held.load(Relaxed),
            stream_stored: counters.stream_stored.load(Relaxed),
            stream_duplicates: counters.stream_duplicates.load(Relaxed),
            stream_refused: counters.stream_refused.load(Relaxed),
            stream_commits: counters.stream_commits.load(Relaxed),
            stream_commit_micros: counters.stream_commit_micros.load(Relaxed),
            stream_failures: counters.stream_failures.load(Relaxed),
            stream_dropped: counters.stream_dropped.load(Relaxed),
            clock_steps: counters.clock_steps.load(Relaxed),
            stream_publishers_held: counters.stream_publishers_held.load(Relaxed),
            stream_queued: counters.stream_queued.load(Relaxed),
            stream_queued_bytes: counters.stream_queued_bytes.load(Relaxed),
        }
    }

    /// Returns each stream as of the last tick, by name.
    pub fn streams(&self) -> Vec<StreamSnapshot> {
        self.0.streams.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_streams(&self, streams: Vec<StreamSnapshot>) {
        *self.0.streams.lock().unwrap_or_else(PoisonError::into_inner) = streams;
    }

    /// Returns the data folder of the streams as of the last tick.
    pub fn store(&self) -> StoreSnapshot {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner).snapshot
    }

    /// Returns why a stream's store failed, if one could not be used at the last tick. The bus tries again by
    /// itself.
    pub fn store_error(&self) -> Option<String> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner).error.clone()
    }

    pub(crate) fn set_store(&self, snapshot: StoreSnapshot, error: Option<String>) {
        *self.0.store.lock().unwrap_or_else(PoisonError::into_inner) = StoreState { snapshot, error };
    }

    /// Returns the memory of the streams as of the last tick.
    pub fn memory(&self) -> MemorySnapshot {
        *self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_memory(&self, memory: MemorySnapshot) {
        *self.0.memory.lock().unwrap_or_else(PoisonError::into_inner) = memory;
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0
    }
}

/// Adds without ordering: counters tell nothing about each other.
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Relaxed);
}

/// Subtracts from a gauge.
pub(crate) fn subtract(gauge: &AtomicU64, amount: u64) {
    gauge.fetch_sub(amount, Relaxed);
}
