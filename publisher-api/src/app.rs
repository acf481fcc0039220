//! The deps of handlers.

use std::sync::Arc;

use bytes::Bytes;
use shared::drain::Drain;

use crate::config::Config;
use crate::control::Control;
use crate::guard::Guard;
use crate::http::Bodies;
use crate::idempotency::Idempotency;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::publisher::Publisher;
use crate::shares::Shares;

/// The shared handles of all handlers.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) publisher: Publisher,
    pub(crate) control: Control,
    pub(crate) keyed: Idempotency,
    pub(crate) config: Arc<Config>,
    pub(crate) guard: Guard,
    pub(crate) keys: Arc<Keys>,
    pub(crate) bodies: Bodies,
    pub(crate) metrics: Arc<Metrics>,
    /// One slot a WebSocket.
    pub(crate) sockets: Arc<Shares>,
    /// The text of `/openapi.json`.
    pub(crate) openapi: Bytes,
    pub(crate) drain: Drain,
}
