//! The edges whose answers to one question are missing. Pure: no sockets, no clock.
//!
//! An answer is whole only if every edge that lives or may live has answered, and no unknown edge is
//! possible. Each edge counts once.

use std::collections::HashSet;

use shared::ids::NodeId;

use super::roster::Expected;

/// The edges that a question waits for.
#[derive(Debug)]
pub(crate) struct Awaited {
    live: HashSet<NodeId>,
    silent: HashSet<NodeId>,
    answered: HashSet<NodeId>,
    certain: bool,
    /// No edge is known, but one may exist: wait for the whole time.
    open: bool,
}

impl Awaited {
    /// Begins for a question that these edges must answer.
    pub(crate) fn new(expected: Expected) -> Self {
        let open = expected.live.is_empty() && !expected.certain;
        Self {
            live: expected.live.into_iter().collect(),
            silent: expected.silent.into_iter().collect(),
            answered: HashSet::new(),
            certain: expected.certain,
            open,
        }
    }

    /// Whether nothing more is worth waiting for.
    pub(crate) fn is_done(&self) -> bool {
        !self.open && self.live.is_empty()
    }

    /// Takes the answer of an edge, known or not. False: the edge had answered before.
    pub(crate) fn on_answer(&mut self, edge: &NodeId) -> bool {
        if !self.answered.insert(edge.clone()) {
            return false;
        }
        self.live.remove(edge);
        self.silent.remove(edge);
        true
    }

    /// Takes the word of the bus that nobody listens to the question: nobody will answer.
    pub(crate) fn on_nobody(&mut self) {
        self.open = false;
        self.silent.extend(self.live.drain());
    }

    /// How many edges there are or may be.
    pub(crate) fn expected(&self) -> usize {
        self.live.len() + self.silent.len() + self.answered.len()
    }

    /// The edges that have not answered, by name.
    pub(crate) fn missing(&self) -> Vec<NodeId> {
        let mut missing: Vec<NodeId> = self.live.iter().chain(&self.silent).cloned().collect();
        missing.sort();
        missing
    }

    /// Whether every edge has answered, and no other can exist.
    pub(crate) fn is_whole(&self) -> bool {
        self.certain && self.live.is_empty() && self.silent.is_empty()
    }
}
