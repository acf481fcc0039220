//! Finds the running parts that a change of the history would surprise.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use shared::bus::{Bus, RequestError};
use shared::ids::NodeId;
use shared::subject;
use shared::wire::{EdgeState, Envelope as _, Heartbeat, VERSION};
use tokio::time::{Instant, timeout_at};

/// An edge without a heartbeat for this long is gone; see `publisher_api.silent_after`.
const SILENCE: Duration = Duration::from_secs(3);
/// How long a publisher-api may take to acknowledge a heartbeat.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(2);

/// The running edges and publishers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Alive {
    /// The sessions of each edge.
    pub(super) edges: BTreeMap<NodeId, u64>,
    /// Whether a publisher-api runs.
    pub(super) publishers: bool,
}

impl Alive {
    pub(super) fn is_nobody(&self) -> bool {
        self.edges.is_empty() && !self.publishers
    }
}

/// Looks for publishers, and listens for heartbeats of edges for as long as an edge may be silent.
pub(super) async fn look(bus: &Bus) -> anyhow::Result<Alive> {
    // Publishers acknowledge every heartbeat. The goodbye of an unknown edge changes nothing at a publisher.
    let state = EdgeState::Bye;
    let bye = Heartbeat { v: VERSION, edge: NodeId::random(), state, sessions: 0, rules: String::new() };
    let publishers = match bus.request(subject::HEARTBEAT, bye.encode(), ACKNOWLEDGEMENT).await {
        // A timeout means a publisher too: without a subscriber, the bus reports at once that there is none.
        Ok(_) | Err(RequestError::Timeout) => true,
        Err(RequestError::NoResponders) => false,
        Err(error @ RequestError::Disconnected) => return Err(error).context("the bus"),
    };
    let mut heartbeats = bus.subscribe(subject::HEARTBEAT, None, ACKNOWLEDGEMENT).await.context("the bus")?;
    bus.barrier(ACKNOWLEDGEMENT).await.context("the bus")?;
    let (until, mut edges) = (Instant::now() + SILENCE, BTreeMap::new());
    while let Ok(Some(message)) = timeout_at(until, heartbeats.next()).await {
        let Ok(Heartbeat { edge, state, sessions, .. }) = Heartbeat::decode(&message.payload) else {
            continue;
        };
        match state {
            EdgeState::Starting | EdgeState::Serving | EdgeState::Draining => edges.insert(edge, sessions),
            EdgeState::Bye => edges.remove(&edge),
        };
    }
    Ok(Alive { edges, publishers })
}
