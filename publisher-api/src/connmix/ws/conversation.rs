//! The reading side of a socket: calls in, answers out, in the order that their channels demand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, SplitStream};
use serde_json::value::RawValue;
use shared::ids::Channel;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message as Frame, Utf8Bytes};
use tracing::{Instrument as _, Span};

use super::end::End;
use super::tapped::Socket;
use crate::app::App;
use crate::connmix::answer::ws_answer;
use crate::connmix::call::Call;
use crate::error::Refusal;
use crate::keys::Caller;
use crate::metrics::Via;
use crate::publisher::{Accepted, Counting, HandedOver, Lanes};
use crate::spans;

/// How long to wait for the caller's side of the close handshake.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// An answer under way.
type Pending = BoxFuture<'static, String>;

/// An accepted message that waits for its turn at the store.
struct Job {
    accepted: Accepted,
    echo: Option<Box<RawValue>>,
    /// The span of the call.
    span: Span,
}

/// The outcome of a message that went to the store.
struct Settled {
    channel: Channel,
    echo: Option<Box<RawValue>>,
    outcome: Result<HandedOver, Refusal>,
}

/// The end of a conversation.
pub(super) struct Ended {
    pub(super) end: End,
    /// Until when the queued answers may be written.
    pub(super) by: Instant,
    /// Until when the caller may close its side.
    pub(super) close_by: Instant,
    pub(super) frames: SplitStream<Socket>,
}

/// The reading side of a socket.
pub(super) struct Conversation<'a> {
    app: &'a App,
    caller: Caller,
    frames: SplitStream<Socket>,
    queue: mpsc::Sender<Frame>,
    /// Publishes to channels with history that wait for their turn.
    lanes: Lanes<Job>,
    /// Publishes on their way to the store.
    storing: FuturesUnordered<BoxFuture<'a, Settled>>,
    /// Publishes whose counts are asked for. With the publishes above, at most `max_in_flight_per_socket`.
    open: FuturesUnordered<Pending>,
    heard: Instant,
    ping: Instant,
    /// Until when the caller may take its last answers, once the end has begun.
    end_by: Option<Instant>,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(
        app: &'a App,
        caller: Caller,
        frames: SplitStream<Socket>,
        queue: mpsc::Sender<Frame>,
    ) -> Self {
        Self {
            app,
            caller,
            frames,
            queue,
            lanes: Lanes::default(),
            storing: FuturesUnordered::new(),
            open: FuturesUnordered::new(),
            heard: app.publisher.awake().now(),
            ping: Instant::now() + app.config.ping_interval,
            end_by: None,
        }
    }

    /// Serves the socket.
    pub(super) async fn run(mut self) -> Ended {
        let end = self.converse().await;
        // Before this part gives its callers up.
        let config = &self.app.config;
        let by = Instant::now() + config.write_timeout.min(config.grace.mul_f64(0.8));
        self.end_by = Some(by);
        let end = self.finish(end).await;
        let close_by = Instant::now() + CLOSE_PATIENCE;
        let Self { mut frames, queue, .. } = self;
        drop(queue);
        // The close handshake goes on while the last answers are written.
        let closing = async { while let Some(Ok(_)) = frames.next().await {} };
        let _ = timeout_at(close_by, closing).await;
        Ended { end, by, close_by, frames }
    }

    /// Answers the calls that were read, tells the caller by a close frame why the socket ends, and returns
    /// the reason.
    async fn finish(&mut self, end: End) -> End {
        let Some((code, reason)) = end.close() else {
            self.store_the_rest().await;
            return end;
        };
        loop {
            let sent = tokio::select! {
                Some(settled) = self.storing.next() => self.on_settled(settled).await,
                Some(answer) = self.open.next() => self.send(Frame::from(answer)).await,
                else => break,
            };
            if sent.is_err() {
                self.store_the_rest().await;
                return End::Broken;
            }
        }
        if end == End::TooLarge {
            let limit = self.app.config.request_bytes();
            if self.refuse(Refusal::TooLarge { what: "the frame", limit }).await.is_err() {
                return End::Broken;
            }
        }
        let close = CloseFrame { code: code.into(), reason: Utf8Bytes::from_static(reason) };
        if self.send(Frame::Close(Some(close))).await.is_err() {
            return End::Broken;
        }
        end
    }

    async fn converse(&mut self) -> End {
        let config = &self.app.config;
        loop {
            let under_way = self.open.len() + self.storing.len() + self.lanes.waiting();
            let reads = under_way < config.max_in_flight_per_socket;
            let outcome = tokio::select! {
                biased;
                () = self.app.drain.begun() => Err(End::Leaving),
                () = self.queue.closed() => Err(End::Broken),
                Some(answer) = self.open.next() => self.send(Frame::from(answer)).await,
                Some(settled) = self.storing.next() => self.on_settled(settled).await,
                // Before the frames, since a flood of frames never ends.
                () = sleep_until(self.ping) => {
                    self.ping = Instant::now() + config.ping_interval;
                    self.send(Frame::Ping(Bytes::new())).await
                }
                frame = self.frames.next(), if reads => self.on_frame(frame).await,
                () = self.app.publisher.awake().sleep_until(self.heard + config.silence), if reads => Err(End::Silent),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn on_frame(&mut self, frame: Option<Result<Frame, SocketError>>) -> Result<(), End> {
        self.heard = self.app.publisher.awake().now();
        match frame {
            Some(Ok(Frame::Text(text))) => self.on_text(&text).await,
            Some(Ok(Frame::Binary(_))) => self.refuse(Refusal::BinaryFrame).await,
            Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => Ok(()),
            Some(Ok(Frame::Close(_))) | None => Err(End::Left),
            Some(Err(error)) => Err(End::of(&error)),
        }
    }

    async fn on_text(&mut self, text: &str) -> Result<(), End> {
        if text == "ping" {
            return self.send(Frame::from("pong")).await;
        }
        if text.len() > self.app.config.request_bytes() {
            return Err(End::TooLarge);
        }
        let caller = self.caller.current();
        let Call { echo, message, trace } = Call::parse(text, self.app.config.max_message.as_usize());
        let caller = match caller {
            Ok(caller) => caller,
            Err(refusal) => {
                self.answer_refusal(refusal, echo).await?;
                return Err(End::Revoked);
            }
        };
        let admitted = message.and_then(|message| caller.admit_publish(&message.channel).map(|()| message));
        let span = spans::frame(trace);
        let publisher = &self.app.publisher;
        let accepted =
            admitted.and_then(|message| span.in_scope(|| publisher.accept(&caller, message, None)));
        let outcome = match accepted {
            Ok(accepted) if accepted.is_stored() => {
                let channel = accepted.channel().clone();
                let job = Job { accepted, echo: echo.map(ToOwned::to_owned), span };
                if let Some(job) = self.lanes.enter(&channel, job) {
                    self.begin(job);
                }
                return Ok(());
            }
            Ok(accepted) => publisher.hand_over(accepted, Counting::Wanted).instrument(span).await,
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(handed_over) => {
                self.count(handed_over, echo.map(ToOwned::to_owned));
                Ok(())
            }
            Err(refusal) => self.answer_refusal(refusal, echo).await,
        }
    }

    /// Sends a message to the store.
    fn begin(&mut self, Job { accepted, echo, span }: Job) {
        let (channel, publisher) = (accepted.channel().clone(), &self.app.publisher);
        let settled = async move {
            let outcome = publisher.hand_over(accepted, Counting::Wanted).await;
            Settled { channel, echo, outcome }
        };
        self.storing.push(Box::pin(settled.instrument(span)));
    }

    /// Takes the outcome of a message at the store. The next message of its channel goes.
    async fn on_settled(&mut self, Settled { channel, echo, outcome }: Settled) -> Result<(), End> {
        if let Some(next) = self.lanes.settled(&channel) {
            self.begin(next);
        }
        self.on_outcome(outcome, echo).await
    }

    async fn on_outcome(
        &mut self,
        outcome: Result<HandedOver, Refusal>,
        echo: Option<Box<RawValue>>,
    ) -> Result<(), End> {
        match outcome {
            Ok(handed_over) => {
                self.count(handed_over, echo);
                Ok(())
            }
            Err(refusal) => self.answer_refusal(refusal, echo.as_deref()).await,
        }
    }

    /// Answers once the counts are known.
    fn count(&mut self, handed_over: HandedOver, echo: Option<Box<RawValue>>) {
        let metrics = Arc::clone(&self.app.metrics);
        self.open.push(Box::pin(async move {
            let receipt = handed_over.receipt().await;
            metrics.answered(Via::WebSocket, "ok");
            ws_answer(&Ok(receipt), echo.as_deref())
        }));
    }

    /// Stores the messages that were read before the socket closed, although nobody waits for their answers:
    /// messages without history are sent then, too. The deadline of each message began when it was read.
    async fn store_the_rest(&mut self) {
        while let Some(Settled { channel, outcome, .. }) = self.storing.next().await {
            drop(outcome);
            if let Some(next) = self.lanes.settled(&channel) {
                self.begin(next);
            }
        }
    }

    async fn refuse(&mut self, refusal: Refusal) -> Result<(), End> {
        self.answer_refusal(refusal, None).await
    }

    async fn answer_refusal(&mut self, refusal: Refusal, echo: Option<&RawValue>) -> Result<(), End> {
        self.app.metrics.answered(Via::WebSocket, refusal.code().label());
        self.send(Frame::from(ws_answer(&Err(refusal), echo))).await
    }

    /// Waits for space in the queue. The writer gives up on a caller that is too slow.
    async fn send(&mut self, frame: Frame) -> Result<(), End> {
        let sending = self.queue.send(frame);
        let sent = match self.end_by {
            None => sending.await,
            Some(by) => timeout_at(by, sending).await.map_err(|_| End::Slow)?,
        };
        sent.map_err(|_| End::Broken)
    }
}
