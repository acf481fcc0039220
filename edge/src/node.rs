//! The shared handles of one edge.

use std::sync::Arc;

use shared::bus::Bus;
use shared::drain::Drain;
use shared::ids::NodeId;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::metrics::Metrics;

/// The name of this part in logs, readiness and bus connections.
pub const PART: &str = "edge";

/// The handles that every task of one edge shares. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) bus: Bus,
    pub(crate) id: NodeId,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    /// The drain on which every task of this edge runs.
    pub(crate) drain: Drain,
    /// Cancelled when the last session has left; until then messages are delivered and questions answered.
    pub(crate) gone: CancellationToken,
}
