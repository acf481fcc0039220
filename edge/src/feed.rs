//! Takes everything from the bus in one order: messages for sessions, and the questions of publishers that
//! count them.
//!
//! There is one subscription and one loop. A publisher's question follows its messages on the same
//! connection. So when the question comes out of this loop, the messages were handled and their counts are
//! known; that makes the counts exact. The loop waits for nothing but the bus: a session takes a message or
//! not, and answers go out through a task of their own.

use std::sync::Arc;

use futures_util::StreamExt as _;
use shared::bus::async_nats::{HeaderMap, Message, Subscriber};
use shared::bus::{self, Bus, RequestError};
use shared::faults::Fault;
use shared::headers;
use shared::part::proof;
use shared::subject::{self, Live};
use shared::wire::{Ask, Envelope as _, LiveMessage};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::backlog::{self, Backlog, Intake};
use crate::frame::Frame;
use crate::hub::Hub;
use crate::metrics::{Loss, Metrics};
use crate::node::Node;
use crate::recovery::Recovery;
use crate::recovery::asks::{Addressed, AskResponder};
use crate::recovery::live::{BusCopy, LiveCopies};
use crate::spans;

/// Answers that may wait for the bus; if there are more, the publisher will say that its counts are
/// incomplete.
const MAX_ANSWERS: usize = 1_024;

/// The task that takes everything from the bus.
#[derive(Debug)]
pub(crate) struct Feed {
    hub: Arc<Hub>,
    recovery: Arc<Recovery>,
    /// The entry to recovery for live copies of stored messages.
    copies: LiveCopies,
    responder: AskResponder,
    metrics: Arc<Metrics>,
}

impl Feed {
    /// Subscribes, and listens until the edge is gone. The returned receiver tells whether messages surely
    /// arrive now.
    pub(crate) async fn start(
        node: &Node,
        recovery: Arc<Recovery>,
    ) -> Result<watch::Receiver<bool>, RequestError> {
        let messages = node.bus.subscribe(subject::LIVE_ALL, None, bus::DEADLINE).await?;
        let (answers, waiting) = mpsc::channel(MAX_ANSWERS);
        let (proved, active) = watch::channel(false);
        let Node { bus, id, hub, metrics, drain, gone } = node.clone();
        let copies = LiveCopies::new(Arc::clone(&recovery), bus.state());
        let state = (bus.clone(), waiting, Arc::clone(&metrics));
        drain.supervise("edge-answers", state, |(bus, waiting, metrics)| {
            Box::pin(send_answers(bus, waiting, metrics))
        });
        if recovery.is_on(Fault::Barrier) {
            let state = (bus, proved, gone.clone());
            drain.supervise("edge-proof", state, |(bus, proved, gone)| Box::pin(prove(bus, proved, gone)));
        } else {
            drain.spawn("edge-no-proof", async move {
                proved.send_replace(true);
                proved.closed().await;
            });
        }
        let responder = AskResponder::new(Arc::clone(&recovery), id, answers, Arc::clone(&metrics));
        let (intake, backlog) = backlog::open(backlog::BYTES);
        let filling = fill(messages, intake, Arc::clone(&recovery), Arc::clone(&metrics), gone.clone());
        drain.spawn_vital("edge-intake", filling);
        // The task is not restarted: the message that it was handling could be lost. Its sessions find that
        // message at another edge.
        let feed = Self { hub, recovery, copies, responder, metrics };
        drain.spawn_vital("edge-feed", feed.listen(backlog, gone));
        Ok(active)
    }

    /// Runs the loop until `gone` is cancelled; dropping the sender then ends the task that sends answers.
    async fn listen(mut self, mut messages: Backlog, gone: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                // Checked first, since the task that fills the backlog ends with `gone`, too.
                () = gone.cancelled() => return,
                message = messages.next() => match message {
                    Some(message) => self.on_message(message),
                    None => return tracing::error!("the bus client ended the feed"),
                },
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match subject::parse_live(&message.subject) {
            Some(Live::Message { partition, channel }) => {
                match number(message.headers.as_ref(), headers::SEQUENCE) {
                    Some(seq) => self.deliver_stored(partition, &channel, seq, &message),
                    None => self.deliver(&channel, &message),
                }
            }
            Some(Live::Ask) => self.answer(message),
            None => {
                self.metrics.lost(Loss::UnknownSubject, 1);
                tracing::debug!(subject = %message.subject, "dropped a message of unknown subject");
            }
        }
    }

    fn decode(&self, message: &Message) -> Option<LiveMessage> {
        match LiveMessage::decode(message.headers.as_ref(), message.payload.clone()) {
            Ok(live) => Some(live),
            Err(error) => {
                self.metrics.lost(Loss::BadMessage, 1);
                tracing::debug!(%error, "dropped a message that can't be read");
                None
            }
        }
    }

    /// Delivers a message that is stored nowhere.
    fn deliver(&mut self, channel: &str, message: &Message) {
        let Some(live) = self.decode(message) else { return };
        let span = spans::delivery(message.headers.as_ref(), live.payload.len());
        let frame = || Frame::message(live.kind, &live.payload).traced(&span);
        let counts = span.in_scope(|| self.hub.deliver(channel, frame));
        spans::delivered(&span, counts);
        self.metrics.received(live.payload.len());
        self.metrics.delivered(counts.sessions, counts.failed);
        self.recovery.remember(live.id, counts);
        tracing::trace!(message_id = %live.id, sessions = counts.sessions, failed = counts.failed, "delivered");
    }

    /// Hands the live copy of a stored message to recovery, even a copy that can't be read.
    fn deliver_stored(&mut self, partition: u32, channel: &str, seq: u64, message: &Message) {
        let headers = message.headers.as_ref();
        let before = number(headers, headers::LAST_SEQUENCE).unwrap_or(0);
        let erased = headers.is_some_and(|headers| headers.get(headers::ERASED).is_some());
        let live = if erased { None } else { self.decode(message) };
        let span = spans::delivery(headers, message.payload.len());
        self.metrics.received(message.payload.len());
        let copy = BusCopy { partition, channel, seq, before, message: live.as_ref(), span: &span };
        self.copies.on_live(&copy);
    }

    fn answer(&self, message: Message) {
        let _span = spans::answer(message.headers.as_ref()).entered();
        let (Ok(ask), Some(reply)) = (Ask::decode(&message.payload), message.reply) else {
            self.metrics.lost(Loss::BadAsk, 1);
            return tracing::debug!("dropped a question that can't be read or answered");
        };
        self.responder.answer(ask, reply);
    }
}

fn number(headers: Option<&HeaderMap>, name: &'static str) -> Option<u64> {
    headers?.get(name)?.as_str().parse().ok()
}

async fn send_answers(bus: &Bus, waiting: &mut mpsc::Receiver<Addressed>, metrics: &Metrics) {
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

/// Moves what comes from the bus into the backlog at once, so that what waits is bounded in bytes.
async fn fill(
    mut messages: Subscriber,
    intake: Intake,
    recovery: Arc<Recovery>,
    metrics: Arc<Metrics>,
    gone: CancellationToken,
) {
    let mut full = false;
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = gone.cancelled() => return,
        };
        let Some(message) = message else { return };
        let fits = intake.take(message);
        if !fits && intake.is_closed() {
            // The feed has ended, so nothing is lost here.
            return;
        }
        if !fits {
            metrics.lost(Loss::FeedFull, 1);
        }
        if full == fits {
            full = !fits;
            if full {
                tracing::error!("more comes from the bus than is handled: what does not fit is dropped");
            } else {
                tracing::warn!("what comes from the bus fits again");
            }
            recovery.look_again();
        }
    }
}

/// Tells after each connect whether the subscription is active on the server.
async fn prove(bus: &Bus, proved: &watch::Sender<bool>, gone: &CancellationToken) {
    let prove = proof::keep(bus, |proof| {
        let holds = proof.holds();
        proved.send_if_modified(|active| std::mem::replace(active, holds) != holds);
    });
    tokio::select! { () = prove => {}, () = gone.cancelled() => {} }
}
