//! State that all connections of one bus share.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::handshake::Info;
use crate::jetstream::StreamQueue;
use crate::outbox::Outbox;
use crate::routing::Router;
use crate::stats::{Stats, add};

/// The receiver of a subscription's messages.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A client.
    Connection(Arc<Outbox>),
    /// The streams of this bus.
    Streams,
}

/// One running bus.
#[derive(Debug)]
pub(crate) struct Bus {
    pub(crate) config: Config,
    pub(crate) info: Info,
    pub(crate) stats: Stats,
    /// Lock order: this lock before that of any outbox; never taken twice by one thread; never held across an
    /// await.
    router: RwLock<Router<Target>>,
    /// Messages and requests that wait for the streams, if there are any.
    pub(crate) stream_queue: Option<Arc<StreamQueue>>,
    /// Every task of every connection.
    pub(crate) tasks: TaskTracker,
    /// Tokens of the connections that may still deliver to others.
    pub(crate) readers: TaskTracker,
    /// Cancelled before `stop`: connections are told that the bus ends, and served on.
    pub(crate) leaving: CancellationToken,
    /// Ends the reading of all connections.
    pub(crate) stop: CancellationToken,
    /// Cancelled after `stop`: no reader is left, so no further output will come.
    pub(crate) flush: CancellationToken,
    /// Cancelled when a panic left the subscriptions half changed.
    pub(crate) broken: CancellationToken,
}

impl Bus {
    pub(crate) fn new(config: Config, port: u16) -> Self {
        Self {
            info: Info::new(&config, port),
            stream_queue: config.streams.as_ref().map(|streams| Arc::new(StreamQueue::new(streams))),
            config,
            stats: Stats::default(),
            router: RwLock::default(),
            tasks: TaskTracker::new(),
            readers: TaskTracker::new(),
            leaving: CancellationToken::new(),
            stop: CancellationToken::new(),
            flush: CancellationToken::new(),
            broken: CancellationToken::new(),
        }
    }

    /// Counts a panic that ended the task of a connection. The bus ends too if the task was changing the
    /// subscriptions.
    pub(crate) fn on_panic(&self, connection: u64) {
        add(&self.stats.counters().connection_panics, 1);
        tracing::error!(connection, "a panic ended a connection of the bus");
        if self.router.is_poisoned() {
            self.broken.cancel();
        }
    }

    /// Locks the subscriptions for reading. A panic elsewhere does not close the bus for everyone.
    pub(crate) fn router(&self) -> RwLockReadGuard<'_, Router<Target>> {
        self.router.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the subscriptions for a change.
    pub(crate) fn router_mut(&self) -> RwLockWriteGuard<'_, Router<Target>> {
        self.router.write().unwrap_or_else(PoisonError::into_inner)
    }
}
