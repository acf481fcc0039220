//! Answers publishers, and fetches messages that are asked about but have not come.
//!
//! An answer about stored messages waits until the messages were handled here. A message that has not come
//! after [`FETCH_AFTER`] is fetched. Counts that are not known by [`ANSWER_BY`] are answered as unknown,
//! before the publisher stops waiting for this edge.

use std::sync::Arc;
use std::time::Duration;

use shared::bus::async_nats::Subject;
use shared::faults::Fault;
use shared::history::Position;
use shared::ids::NodeId;
use shared::wire::{Answer, Ask, Counts, StoredRef, VERSION};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use super::metrics::Cause;
use super::recent::Key;
use super::{Recovery, SHORT_PAUSE};
use crate::channel::Seen;
use crate::metrics::{Loss, Metrics};

/// How long the live copy of a message may take.
const FETCH_AFTER: Duration = Duration::from_millis(20);
/// By when the publisher gets its answer. Below the 250 ms for which the publisher waits.
const ANSWER_BY: Duration = Duration::from_millis(200);
/// Questions that may wait at a time; beyond, counts that are not known at once are answered as unknown.
const WAITING: usize = 256;

/// An answer, and the subject that it goes to.
pub(crate) type Addressed = (Subject, Answer);

/// Answers the questions of publishers about messages.
#[derive(Debug, Clone)]
pub(crate) struct AskResponder {
    recovery: Arc<Recovery>,
    node: NodeId,
    answers: mpsc::Sender<Addressed>,
    waiting: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl AskResponder {
    pub(crate) fn new(
        recovery: Arc<Recovery>,
        node: NodeId,
        answers: mpsc::Sender<Addressed>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { recovery, node, answers, waiting: Arc::new(Semaphore::new(WAITING)), metrics }
    }

    /// Answers now if everything is known, or as soon as it is. A message that is stored nowhere was either
    /// handled by now, or never will be.
    pub(crate) fn answer(&self, ask: Ask, reply: Subject) {
        let counts = ask.ids.iter().map(|id| self.recovery.recent.counts(Key::Id(*id))).collect();
        let answer = Answer { v: VERSION, edge: self.node.clone(), counts, stored: Vec::new() };
        let known: Vec<_> = ask.stored.iter().map(|stored| self.recovery.look(stored)).collect();
        if known.iter().all(Option::is_some) {
            let stored = known.into_iter().flatten().collect();
            return self.send(reply, Answer { stored, ..answer });
        }
        let Ok(slot) = Arc::clone(&self.waiting).try_acquire_owned() else {
            let stored = known.into_iter().map(Option::flatten).collect();
            return self.send(reply, Answer { stored, ..answer });
        };
        let (responder, drain) = (self.clone(), self.recovery.drain.clone());
        drain.spawn("edge-ask", async move {
            let stored = responder.recovery.await_all(&ask.stored).await;
            responder.send(reply, Answer { stored, ..answer });
            drop(slot);
        });
    }

    fn send(&self, reply: Subject, answer: Answer) {
        if self.answers.try_send((reply, answer)).is_err() {
            self.metrics.lost(Loss::AnswerQueue, 1);
        }
    }
}

impl Recovery {
    /// Looks up a message. None: the message has not come yet. The inner value is none if the counts are
    /// forgotten.
    fn look(&self, stored: &StoredRef) -> Option<Option<Counts>> {
        let epoch = stored.epoch.or_else(|| self.history.epoch(&stored.channel));
        let known = || self.recent.counts(Key::Stored(Position { epoch: epoch?, seq: stored.seq }));
        match self.hub.seen(&stored.channel, stored.epoch, stored.seq) {
            // The sessions that got the message may have left since.
            Seen::Nobody => Some(Some(known().unwrap_or_default())),
            Seen::Handled => Some(known()),
            Seen::NotYet => None,
            // The message was handled in that epoch, or comes soon in an epoch that is not known here yet, or
            // never.
            Seen::OtherEpoch => known().map(Some),
        }
    }

    async fn await_all(self: &Arc<Self>, asked: &[StoredRef]) -> Vec<Option<Counts>> {
        let began = Instant::now();
        let all_known = || asked.iter().all(|stored| self.look(stored).is_some()).then_some(());
        if timeout_at(began + FETCH_AFTER, self.hub.when(all_known)).await.is_err() {
            let fetched = async {
                if self.is_on(Fault::AskFetch) {
                    // Boxed, since the future is large and rarely needed.
                    Box::pin(self.fetch_asked(asked)).await;
                }
                std::future::pending().await
            };
            let known = async {
                tokio::select! { () = self.hub.when(all_known) => {}, () = fetched => {} }
            };
            // Counts that are not known by then are answered as unknown.
            let _ = timeout_at(began + ANSWER_BY, known).await;
        }
        asked.iter().map(|stored| self.look(stored).flatten()).collect()
    }

    /// Fetches messages that are asked about and have not come, as far as the stream's leader has come.
    /// Anyone on the bus can ask about any sequence: a sequence that the leader does not have is no reason to
    /// fetch.
    async fn fetch_asked(self: &Arc<Self>, asked: &[StoredRef]) {
        let mut open: Vec<_> = asked.iter().filter(|stored| self.look(stored).is_none()).collect();
        let mut pause = SHORT_PAUSE;
        loop {
            let mut later = Vec::with_capacity(open.len());
            for stored in open {
                if !self.exists(stored).await {
                    later.push(stored);
                } else if let Some(fetching) = self.hub.want(&stored.channel, stored.seq) {
                    self.fetch(fetching, Cause::Ask);
                }
            }
            if later.is_empty() {
                return;
            }
            open = later;
            sleep(pause).await;
            pause *= 2;
        }
    }

    /// Returns whether the leader has come as far as a message that is asked about, in the named epoch.
    async fn exists(&self, stored: &StoredRef) -> bool {
        let partition = self.history.partition(&stored.channel);
        match self.history.fresh_epoch(partition).await {
            Ok((now, state)) => stored.epoch.is_none_or(|epoch| epoch == now) && state.last_seq >= stored.seq,
            Err(error) => {
                self.metrics.read_errors.inc();
                tracing::debug!(partition, %error, "the stream can't be asked how far it has come");
                false
            }
        }
    }
}
