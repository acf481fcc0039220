//! Who is connected to the bus and would be surprised by a change.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use shared::bus::{Bus, RequestError};
use shared::ids::NodeId;
use shared::subject;
use shared::wire::{EdgeState, Envelope as _, Heartbeat, VERSION};
use tokio::time::{Instant, timeout_at};

/// An edge that says nothing for so long is gone; see `publisher_api.silent_after`.
const SILENCE: Duration = Duration::from_secs(3);
/// How long a publisher-api may take to acknowledge.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(2);

/// Who lives.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Alive {
    /// The sessions of each edge.
    pub(super) edges: BTreeMap<NodeId, u64>,
    /// Whether there is a publisher-api.
    pub(super) publishers: bool,
}

impl Alive {
    pub(super) fn is_nobody(&self) -> bool {
        self.edges.is_empty() && !self.publishers
    }
}

/// Listens for as long as an edge may be silent.
pub(super) async fn look(bus: &Bus) -> anyhow::Result<Alive> {
    // Publishers acknowledge heartbeats; that of an edge which leaves, and which nobody knew, changes nothing.
    let state = EdgeState::Bye;
    let bye = Heartbeat { v: VERSION, edge: NodeId::random(), state, sessions: 0, rules: String::new() };
    let publishers = match bus.request(subject::HEARTBEAT, bye.encode(), ACKNOWLEDGEMENT).await {
        // Whoever does not answer is there all the same.
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
