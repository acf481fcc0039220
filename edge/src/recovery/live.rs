//! Takes the live copies of stored messages, one call for each, in the order in which the bus brings them.

use std::sync::Arc;

use shared::bus::BusState;
use shared::faults::Fault;
use shared::history::{Epoch, Position};
use shared::wire::LiveMessage;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Span;

use super::Recovery;
use super::metrics::Cause;
use super::recent::Key;
use crate::channel::cursor::Step;
use crate::channel::{Arrival, LiveCopy, Trust};
use crate::spans;

/// A live copy as the bus brings it.
#[derive(Debug)]
pub(crate) struct BusCopy<'m> {
    pub(crate) partition: u32,
    pub(crate) channel: &'m str,
    /// The message's sequence.
    pub(crate) seq: u64,
    /// The sequence of the channel's message before this one; 0 if there is none.
    pub(crate) before: u64,
    /// The message; none if it was erased or can't be read. The sequence counts all the same.
    pub(crate) message: Option<&'m LiveMessage>,
    /// The trace of the message.
    pub(crate) span: &'m Span,
}

/// The feed's entry to recovery.
#[derive(Debug)]
pub(crate) struct LiveCopies {
    recovery: Arc<Recovery>,
    connection: watch::Receiver<BusState>,
}

impl LiveCopies {
    /// Returns the entry. `connection`: the state of the connection that brings the copies.
    pub(crate) fn new(recovery: Arc<Recovery>, mut connection: watch::Receiver<BusState>) -> Self {
        connection.mark_unchanged();
        Self { recovery, connection }
    }

    /// Takes a live copy: delivers the message, or begins a fetch of what is missing before it, and notes
    /// that the copy was heard.
    pub(crate) fn on_live(&mut self, copy: &BusCopy<'_>) {
        let recovery = &self.recovery;
        // Behind a break of the connection the stream may be another one.
        if self.connection.has_changed().unwrap_or(false) {
            self.connection.mark_unchanged();
            recovery.on_interruption();
        }
        let BusCopy { partition, seq, .. } = *copy;
        let epoch = recovery.history.epoch_of(partition);
        let trust = epoch.map_or(Trust::Sure, |epoch| recovery.trust(epoch, copy));
        let arrival = Arrival { seq, message: copy.message, span: copy.span };
        let live = LiveCopy { arrival, before: copy.before, epoch, trust };
        let live = if recovery.is_on(Fault::GapFetch) { live } else { without_gap(live) };
        let handled = copy.span.in_scope(|| recovery.hub.on_live(copy.channel, &live, Instant::now()));
        match handled.step {
            Step::Deliver => {
                spans::delivered(copy.span, handled.counts);
                recovery.metrics.deliveries.count(handled.counts.sessions, handled.counts.failed);
                if let Some(epoch) = epoch {
                    recovery.recent.remember(Key::Stored(Position { epoch, seq }), handled.counts);
                }
            }
            Step::Ignore => {
                recovery.metrics.repeated.inc();
            }
            Step::Fetch => {}
        }
        if let Some(epoch) = epoch {
            recovery.note_heard(partition, epoch, seq, trust);
        }
        if let Some(fetching) = handled.fetching {
            recovery.fetch(fetching, Cause::Gap);
        }
        let sessions = handled.counts.sessions;
        tracing::trace!(seq, step = ?handled.step, sessions, "a stored message came");
    }
}

/// Test switch: makes a copy pass for the next one, whatever is missing before it. A copy of another epoch
/// than the cursor's is fetched all the same.
fn without_gap(copy: LiveCopy<'_>) -> LiveCopy<'_> {
    LiveCopy { before: 0, trust: Trust::Sure, ..copy }
}

impl Recovery {
    /// Takes a live copy as evidence, and returns whether the copy surely is of this epoch.
    fn trust(&self, epoch: Epoch, copy: &BusCopy<'_>) -> Trust {
        let id = copy.message.map(|message| message.id);
        self.with_identity(copy.partition, epoch, |identity| identity.on_live(copy.channel, copy.seq, id))
            .unwrap_or(Trust::Doubtful { first: false })
    }

    /// Notes that a live copy was handled, or begins to ask about its stream.
    fn note_heard(self: &Arc<Self>, partition: u32, epoch: Epoch, seq: u64, trust: Trust) {
        if trust == (Trust::Doubtful { first: true }) {
            self.make_sure(partition, epoch);
        }
        self.with_gaps(partition, epoch, |gaps| match trust {
            Trust::Sure => gaps.on_live(seq),
            // The copy may be of another epoch, whose sequences say nothing about this one.
            Trust::Doubtful { .. } => gaps.on_interruption(),
        });
        if trust == Trust::Sure {
            self.history.saw(epoch, partition, seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chaos tests show by this switch what the rule is for, so the switch must switch the rule off.
    #[test]
    fn without_the_rule_a_copy_passes_for_the_next_one() {
        let span = Span::none();
        let arrival = Arrival { seq: 9, message: None, span: &span };
        let copy = LiveCopy { arrival, before: 7, epoch: None, trust: Trust::Doubtful { first: true } };
        let passed = without_gap(copy);
        assert_eq!((passed.before, passed.trust, passed.arrival.seq), (0, Trust::Sure, 9));
    }
}
