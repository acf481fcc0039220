//! Answers publishers, and fetches what they ask about in vain.
//!
//! An answer about stored messages waits until they were handled here. One that has not come after [`FETCH_AFTER`] is
//! fetched; what is not known by [`ANSWER_BY`] is answered as unknown, before the publisher gives the edge up.

use std::sync::Arc;
use std::time::Duration;

use shared::bus::async_nats::Subject;
use shared::faults::Fault;
use shared::ids::NodeId;
use shared::wire::{Answer, Ask, Counts, StoredRef, VERSION};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use super::keep::Keep;
use super::metrics::Cause;
use super::recent::Key;
use crate::hub::kept::Seen;
use crate::metrics::{Loss, Metrics};

/// How long the live copy of a message may take.
const FETCH_AFTER: Duration = Duration::from_millis(20);
/// By when a publisher has its answer. Below the 250 ms that it waits.
const ANSWER_BY: Duration = Duration::from_millis(200);
/// Questions that wait at a time; beyond, what is not known at once is answered as unknown.
const WAITING: usize = 256;

/// An answer and where it goes.
pub(crate) type Addressed = (Subject, Answer);

/// Where questions are answered.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    keep: Arc<Keep>,
    node: NodeId,
    answers: mpsc::Sender<Addressed>,
    waiting: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Desk {
    pub(crate) fn new(
        keep: Arc<Keep>,
        node: NodeId,
        answers: mpsc::Sender<Addressed>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { keep, node, answers, waiting: Arc::new(Semaphore::new(WAITING)), metrics }
    }

    /// Answers now if everything is known, or as soon as it is. All that is kept nowhere is known now or never.
    pub(crate) fn answer(&self, ask: Ask, reply: Subject) {
        let counts = ask.ids.iter().map(|id| self.keep.recent.counts(Key::Id(*id))).collect();
        let answer = Answer { v: VERSION, edge: self.node.clone(), counts, stored: Vec::new() };
        let known: Vec<_> = ask.stored.iter().map(|stored| self.keep.look(stored)).collect();
        if known.iter().all(Option::is_some) {
            let stored = known.into_iter().flatten().collect();
            return self.send(reply, Answer { stored, ..answer });
        }
        let Ok(place) = Arc::clone(&self.waiting).try_acquire_owned() else {
            let stored = known.into_iter().map(Option::flatten).collect();
            return self.send(reply, Answer { stored, ..answer });
        };
        let (desk, drain) = (self.clone(), self.keep.drain.clone());
        drain.spawn(async move {
            let stored = desk.keep.await_all(&ask.stored).await;
            desk.send(reply, Answer { stored, ..answer });
            drop(place);
        });
    }

    fn send(&self, reply: Subject, answer: Answer) {
        if self.answers.try_send((reply, answer)).is_err() {
            self.metrics.lost(Loss::AnswerQueue, 1);
        }
    }
}

impl Keep {
    /// None: it has not come yet. Within: none if its counts are forgotten.
    fn look(&self, stored: &StoredRef) -> Option<Option<Counts>> {
        let epoch = self.history.epoch(&stored.channel);
        let known = || self.recent.counts(Key::Stored(epoch?, stored.seq));
        match self.hub.seen(&stored.channel, stored.seq) {
            // Whoever got it may have left since.
            Seen::Nobody => Some(Some(known().unwrap_or_default())),
            Seen::Handled => Some(known()),
            Seen::NotYet => None,
        }
    }

    async fn await_all(self: &Arc<Self>, asked: &[StoredRef]) -> Vec<Option<Counts>> {
        let began = Instant::now();
        let all_known = || asked.iter().all(|stored| self.look(stored).is_some()).then_some(());
        if timeout_at(began + FETCH_AFTER, self.hub.when(all_known)).await.is_err()
            && self.keeps(Fault::AskFetch)
        {
            for stored in asked.iter().filter(|stored| self.look(stored).is_none()) {
                if self.hub.want(&stored.channel, stored.seq) {
                    self.fetch(&stored.channel, Cause::Ask);
                }
            }
        }
        // What is not known by then is unknown.
        let _ = timeout_at(began + ANSWER_BY, self.hub.when(all_known)).await;
        asked.iter().map(|stored| self.look(stored).flatten()).collect()
    }
}
