//! Everything from the bus, in one order: messages to their sessions, and answers to publishers that count them.
//!
//! There is one subscription and one loop. A publisher's question follows its messages on the same connection, so when it
//! comes out of this loop the messages were handled and their counts are known; that is what makes the counts exact. The
//! loop waits for nothing but the bus: a session takes a message or not, and answers go out through a task of their own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use shared::bus::async_nats::{Message, Subject, Subscriber};
use shared::bus::{self, Bus, BusState, RequestError};
use shared::ids::{MessageId, NodeId};
use shared::subject::{self, Live};
use shared::wire::{Answer, Ask, Counts, Envelope as _, LiveMessage, VERSION};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Core;
use crate::frame::Frame;
use crate::hub::Hub;
use crate::metrics::{Loss, Metrics};
use crate::traced;

/// Answers that may wait for the bus; beyond, the publisher will say that its counts are incomplete.
const MAX_ANSWERS: usize = 1_024;
/// The pause after a proof of the subscription failed.
const PROOF_PAUSE: Duration = Duration::from_millis(200);

/// An answer and where it goes.
type Addressed = (Subject, Answer);

/// The edge's ear.
#[derive(Debug)]
pub(crate) struct Feed {
    node: NodeId,
    hub: Arc<Hub>,
    recent: Recent,
    answers: mpsc::Sender<Addressed>,
    metrics: Arc<Metrics>,
}

impl Feed {
    /// Subscribes, and listens until the edge is gone. What is returned tells whether messages surely arrive now.
    pub(crate) async fn start(core: &Core, remembered: usize) -> Result<watch::Receiver<bool>, RequestError> {
        let messages = core.bus.subscribe(subject::LIVE_ALL, None, bus::DEADLINE).await?;
        let (answers, waiting) = mpsc::channel(MAX_ANSWERS);
        let (proved, active) = watch::channel(false);
        let Core { bus, node, hub, metrics, drain, gone } = core.clone();
        drain.spawn(send_answers(bus.clone(), waiting, Arc::clone(&metrics)));
        drain.spawn(prove(bus, proved, gone.clone()));
        drain.spawn(
            Self { node, hub, recent: Recent::new(remembered), answers, metrics }.listen(messages, gone),
        );
        Ok(active)
    }

    /// Ends with `gone`; dropping the sender then ends the task that sends answers.
    async fn listen(mut self, mut messages: Subscriber, gone: CancellationToken) {
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.on_message(message),
                    None => return tracing::error!("the bus client ended the feed"),
                },
                () = gone.cancelled() => return,
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match subject::parse_live(&message.subject) {
            Some(Live::Message { channel, .. }) => self.deliver(&channel, &message),
            Some(Live::Ask) => self.answer(message),
            None => {
                self.metrics.lost(Loss::UnknownSubject, 1);
                tracing::debug!(subject = %message.subject, "dropped a message of unknown subject");
            }
        }
    }

    fn deliver(&mut self, channel: &str, message: &Message) {
        let live = match LiveMessage::decode(message.headers.as_ref(), message.payload.clone()) {
            Ok(live) => live,
            Err(error) => {
                self.metrics.lost(Loss::BadMessage, 1);
                return tracing::debug!(%error, "dropped a message that can't be read");
            }
        };
        let span = traced::delivery(message.headers.as_ref(), live.payload.len());
        let frame = || Frame::message(live.kind, &live.payload).traced(&span);
        let counts = span.in_scope(|| self.hub.deliver(channel, frame));
        traced::delivered(&span, counts);
        self.metrics.received(live.payload.len());
        self.metrics.delivered(counts.sessions, counts.failed);
        self.recent.remember(live.id, counts);
        tracing::trace!(message = %live.id, sessions = counts.sessions, failed = counts.failed, "delivered");
    }

    fn answer(&self, message: Message) {
        let _span = traced::answer(message.headers.as_ref()).entered();
        let (Ok(ask), Some(reply)) = (Ask::decode(&message.payload), message.reply) else {
            self.metrics.lost(Loss::BadAsk, 1);
            return tracing::debug!("dropped a question that can't be read or answered");
        };
        let counts = ask.ids.iter().map(|id| self.recent.counts(*id)).collect();
        let answer = Answer { v: VERSION, edge: self.node.clone(), counts, stored: Vec::new() };
        if self.answers.try_send((reply, answer)).is_err() {
            self.metrics.lost(Loss::AnswerQueue, 1);
        }
    }
}

async fn send_answers(bus: Bus, mut waiting: mpsc::Receiver<Addressed>, metrics: Arc<Metrics>) {
    while let Some((reply, answer)) = waiting.recv().await {
        match bus.publish(reply, None, None, answer.encode()).await {
            Ok(()) => {
                metrics.asks.inc();
            }
            Err(error) => {
                metrics.lost(Loss::Answer, 1);
                tracing::debug!(%error, "a publisher gets no answer");
            }
        }
    }
}

/// Proves after each connect that the subscription is active on the server it leads to.
async fn prove(bus: Bus, proved: watch::Sender<bool>, gone: CancellationToken) {
    let mut state = bus.state();
    let keep_proving = async {
        loop {
            let view = *state.borrow_and_update();
            proved.send_if_modified(|active| std::mem::replace(active, false));
            if view.connected {
                // Had the connection changed meanwhile, the proof would be about another one.
                if bus.barrier(bus::DEADLINE).await.is_err() || *state.borrow() != view {
                    sleep(PROOF_PAUSE).await;
                    continue;
                }
                proved.send_replace(true);
            }
            let changed = |now: &BusState| *now != view;
            if state.wait_for(changed).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = keep_proving => {}, () = gone.cancelled() => {} }
}

/// To how many sessions the latest messages went, for the questions that follow.
#[derive(Debug)]
struct Recent {
    capacity: usize,
    counts: HashMap<MessageId, Counts>,
    /// The oldest first.
    order: VecDeque<MessageId>,
}

impl Recent {
    fn new(capacity: usize) -> Self {
        Self { capacity, counts: HashMap::new(), order: VecDeque::new() }
    }

    /// A message that came twice was delivered twice.
    fn remember(&mut self, id: MessageId, counts: Counts) {
        if let Some(known) = self.counts.get_mut(&id) {
            *known += counts;
            return;
        }
        if self.order.len() == self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.counts.remove(&oldest);
        }
        self.order.push_back(id);
        self.counts.insert(id, counts);
    }

    fn counts(&self, id: MessageId) -> Option<Counts> {
        self.counts.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_messages_are_remembered_and_no_more() {
        let mut recent = Recent::new(3);
        for id in 0..5 {
            recent.remember(MessageId(id), Counts { sessions: id as u64, failed: 0 });
        }
        let known: Vec<_> =
            (0..6).map(|id| recent.counts(MessageId(id)).map(|counts| counts.sessions)).collect();
        assert_eq!(known, [None, None, Some(2), Some(3), Some(4), None]);
        assert_eq!((recent.counts.len(), recent.order.len()), (3, 3));
    }

    #[test]
    fn a_message_that_came_twice_is_counted_twice_and_remembered_once() {
        let mut recent = Recent::new(2);
        let one = Counts { sessions: 1, failed: 2 };
        recent.remember(MessageId(1), one);
        recent.remember(MessageId(1), one);
        recent.remember(MessageId(2), Counts::default());
        assert_eq!(recent.counts(MessageId(1)), Some(Counts { sessions: 2, failed: 4 }));
        assert_eq!(recent.counts(MessageId(2)), Some(Counts::default()), "nobody is not unknown");
    }
}
