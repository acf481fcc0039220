//! Asks the edges to how many sessions messages went, and hands each publish its receipt.
//!
//! One task owns all open asks. An ask travels on the connection that carried its live messages, behind them.
//! Stored messages share the ask and need no order with it: edges know them by their sequence. An ask after a
//! pause goes at once; questions that follow within the window share one ask. Every question gets its
//! receipt, at the latest when the deadline has passed.

mod gather;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use shared::bus::async_nats::{Message, StatusCode, Subscriber};
use shared::bus::{self, Bus, RequestError};
use shared::drain::Drain;
use shared::ids::MessageId;
use shared::subject;
use shared::trace::{self, TraceContext};
use shared::wire::{Answer, Ask, Envelope as _, StoredRef};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::DropGuard;
use tracing::Instrument as _;

use crate::edges::Edges;
use crate::metrics::{Loss, Metrics};
use crate::spans;
pub(crate) use gather::{Gathering, Receipt, Taken};

/// The most messages that one ask names: 35 KiB of JSON, or 450 KiB if all are stored and have the longest
/// names.
const MAX_IDS: usize = 1_024;

/// The message that a question is about.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    /// A message that was handed to the bus before, on this connection.
    Live(MessageId),
    /// A stored message.
    Stored(StoredRef),
}

/// A message to ask about, and the publish that waits for the answer.
#[derive(Debug)]
struct Question {
    which: Which,
    answer: oneshot::Sender<Receipt>,
    /// The trace of the publish, if the trace is sampled.
    trace: Option<TraceContext>,
}

/// Takes questions. The task ends when the last asker is dropped and every receipt is out.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    questions: mpsc::Sender<Question>,
    metrics: Arc<Metrics>,
}

/// When and how long to ask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskTimes {
    /// The least time between two asks.
    pub(crate) window: Duration,
    /// How long an edge may take to answer.
    pub(crate) deadline: Duration,
}

impl Asker {
    /// Starts the task. `capacity` is the number of publishes that may be open; `done` is dropped at the end.
    pub(crate) async fn start(
        bus: &Bus,
        edges: Arc<Edges>,
        times: AskTimes,
        capacity: usize,
        metrics: Arc<Metrics>,
        drain: &Drain,
        done: DropGuard,
    ) -> Result<Self, RequestError> {
        let inbox = bus.new_inbox();
        let answers = bus.subscribe(format!("{inbox}.*"), None, bus::DEADLINE).await?;
        let (questions, queue) = mpsc::channel(capacity);
        let task = AskTask {
            bus: bus.clone(),
            edges,
            times,
            inbox,
            metrics: Arc::clone(&metrics),
            batch: Vec::new(),
            due: Instant::now(),
            last: 0,
            open: BTreeMap::new(),
        };
        // Not begun anew: publishes that wait for a receipt would wait for ever.
        drain.spawn_vital("publisher-receipts", async move {
            task.run(queue, answers).await;
            drop(done);
        });
        Ok(Self { questions, metrics })
    }

    /// Asks about a message.
    pub(crate) fn ask(&self, which: Which) -> oneshot::Receiver<Receipt> {
        let (answer, receipt) = oneshot::channel();
        if self.questions.try_send(Question { which, answer, trace: TraceContext::current() }).is_err() {
            // The queue has space for every publish that may be open. Otherwise the count would be unknown.
            self.metrics.lost(Loss::Question);
        }
        receipt
    }
}

/// An ask under way.
#[derive(Debug)]
struct Asked {
    gathering: Gathering,
    questions: Vec<Question>,
    /// As [`Bus::awake`] counts.
    deadline: Instant,
}

#[derive(Debug)]
struct AskTask {
    bus: Bus,
    edges: Arc<Edges>,
    times: AskTimes,
    inbox: String,
    metrics: Arc<Metrics>,
    /// The questions of the next ask; at most [`MAX_IDS`].
    batch: Vec<Question>,
    /// When the next ask may go out.
    due: Instant,
    /// Number of the last ask.
    last: u64,
    /// Asks by number, so that the first has the earliest deadline. No more than there are open publishes.
    open: BTreeMap<u64, Asked>,
}

impl AskTask {
    async fn run(mut self, mut queue: mpsc::Receiver<Question>, mut answers: Subscriber) {
        let mut more = true;
        while more || !self.batch.is_empty() || !self.open.is_empty() {
            let space = MAX_IDS - self.batch.len();
            let first = self.open.first_key_value();
            let deadline = first.map(|(_, asked)| self.bus.awake().real(asked.deadline));
            let now = Instant::now();
            tokio::select! {
                taken = queue.recv_many(&mut self.batch, space), if more && space > 0 => more = taken > 0,
                () = sleep_until(self.due), if !self.batch.is_empty() => self.ask().await,
                message = answers.next() => match message {
                    Some(message) => self.on_answer(&message),
                    None => return tracing::error!("the bus client ended the subscription to answers"),
                },
                () = sleep_until(deadline.unwrap_or(now)), if deadline.is_some() => self.expire(&mut answers),
            }
        }
    }

    async fn ask(&mut self) {
        let mut questions = std::mem::take(&mut self.batch);
        // In the order of the answers.
        questions.sort_by_key(|question| matches!(question.which, Which::Stored(_)));
        let (mut ids, mut stored) = (Vec::new(), Vec::new());
        for question in &questions {
            match &question.which {
                Which::Live(id) => ids.push(*id),
                Which::Stored(message) => stored.push(message.clone()),
            }
        }
        let mut gathering = Gathering::new(ids.len(), stored.len(), self.edges.expected());
        self.last += 1;
        let reply = format!("{}.{}", self.inbox, self.last);
        let ask = Ask { v: shared::wire::VERSION, ids, stored }.encode();
        let trace = questions.iter().find_map(|question| question.trace.clone());
        let span = spans::ask(trace, questions.len());
        let headers = span.in_scope(trace::bus_headers);
        let sent = self.bus.publish(subject::ASK, Some(reply), headers, ask);
        let sent = self.bus.awake().timeout(self.times.deadline, sent).instrument(span).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(asked = questions.len(), "an ask could not be sent; these counts are unknown");
            gathering.on_nobody();
        }
        self.due = Instant::now() + self.times.window;
        self.metrics.asks.inc();
        let asked = Asked { gathering, questions, deadline: self.bus.awake().now() + self.times.deadline };
        if asked.gathering.is_done() {
            self.settle(asked);
        } else {
            self.open.insert(self.last, asked);
        }
    }

    fn on_answer(&mut self, message: &Message) {
        let number = message.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
        let asked = number.and_then(|number| self.open.get_mut(&number));
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            if let Some(asked) = asked {
                asked.gathering.on_nobody();
            }
        } else {
            let answer = match Answer::decode(&message.payload) {
                Ok(answer) => answer,
                Err(error) => {
                    self.metrics.lost(Loss::BadAnswer);
                    return tracing::debug!(%error, "dropped an answer that can't be read");
                }
            };
            self.edges.on_answer(&answer.edge);
            match asked.map(|asked| asked.gathering.on_answer(&answer)) {
                Some(Taken::Added) => {}
                Some(Taken::Malformed) => self.metrics.lost(Loss::BadAnswer),
                Some(Taken::Repeated) | None => self.metrics.lost(Loss::LateAnswer),
            }
        }
        let Some(number) = number else { return };
        if self.open.get(&number).is_some_and(|asked| asked.gathering.is_done())
            && let Some(asked) = self.open.remove(&number)
        {
            self.settle(asked);
        }
    }

    fn expire(&mut self, answers: &mut Subscriber) {
        // First the answers that have come, then the edges that have not answered.
        while let Some(Some(message)) = answers.next().now_or_never() {
            self.on_answer(&message);
        }
        let now = self.bus.awake().now();
        while let Some(first) = self.open.first_entry()
            && first.get().deadline <= now
        {
            let asked = first.remove();
            self.settle(asked);
        }
    }

    fn settle(&self, asked: Asked) {
        for (question, receipt) in asked.questions.into_iter().zip(asked.gathering.receipts()) {
            // The publish may be gone.
            let _ = question.answer.send(receipt);
        }
    }
}
