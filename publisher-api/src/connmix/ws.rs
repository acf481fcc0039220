//! `/ws/v1`: many publishes over one socket.
//!
//! Messages go to the bus in the order in which they came; those to channels with history go to the store in
//! the order in which they came for their channel, each when the one before is settled, also after the caller
//! has left. Answers come as counts are known, in any order. While too many are open, or the caller does not
//! take its answers, nothing more is read. A socket ends with a close code that says why, and only after
//! every message that was read has its answer.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::value::RawValue;
use shared::gauge::GaugeGuard;
use shared::handshake::{self, Fault};
use shared::ids::Channel;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, Utf8Bytes};
use tracing::{Instrument as _, Span};

use super::tapped::{Tapped, TooManyFrames};
use super::{Call, http, ws_answer};
use crate::error::Refusal;
use crate::keys::{Caller, Scope};
use crate::metrics::Via;
use crate::publisher::lanes::Lanes;
use crate::publisher::{Accepted, Counting, HandedOver};
use crate::routes::App;
use crate::spans;

/// Answers that wait to be written, at most; then nothing more is read.
const QUEUE: usize = 64;
/// What one read takes from a socket. The default of the library is eight times that, for every socket.
const READ_BUFFER: usize = 16 << 10;
/// Pongs and answers that may wait in a socket; the library's default is no bound. Beyond it pongs are left
/// out.
const MAX_WRITE_BUFFER: usize = 256 << 10;
/// A frame up to this many times the limit is read whole, so that its sender gets to read the refusal.
const DISCARD_FACTOR: usize = 2;
/// How long to wait for the caller's side of the close handshake.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// What a caller's frames come over.
type Stream = Tapped<TokioIo<Upgraded>>;
type Socket = WebSocketStream<Stream>;

pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
) -> Response {
    let proof = match prove(&request) {
        Ok(proof) => proof,
        Err(fault) => {
            let (head, body) = request.into_parts();
            http::discard(&app, &head.headers, body);
            return http::refuse(&app, Refusal::NoHandshake(fault));
        }
    };
    // Publishing is all that there is on this socket.
    if let Err(refusal) = caller.require(Scope::Publish) {
        return http::refuse(&app, refusal);
    }
    let place = match app.sockets.take(&caller.owner()) {
        Ok(place) => place,
        Err(none) => return http::refuse(&app, caller.no_slot(none, "sockets", app.config.max_sockets)),
    };
    let (upgrade, drain) = (hyper::upgrade::on(&mut request), app.drain.clone());
    drain.spawn("publisher-socket", async move {
        if let Some(socket) = open(upgrade, app.config.request_bytes()).await {
            serve(app, caller, socket).await;
        }
        drop(place);
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, proof);
    answer
}

/// The proof that a handshake was understood.
fn prove(request: &Request) -> Result<HeaderValue, Fault> {
    let key = handshake::check(request)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| Fault::Key)
}

/// The socket once the answer to its handshake is written. None: the connection broke before.
async fn open(upgrade: OnUpgrade, request_bytes: usize) -> Option<Socket> {
    let largest = Some(request_bytes.saturating_mul(DISCARD_FACTOR));
    let config = WebSocketConfig::default()
        .max_message_size(largest)
        .max_frame_size(largest)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(READ_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER);
    let stream = Tapped::new(TokioIo::new(upgrade.await.ok()?), request_bytes);
    Some(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await)
}

/// Why a socket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The caller left.
    Left,
    /// The connection broke.
    Broken,
    /// The caller does not speak WebSocket.
    Protocol,
    /// Text was not UTF-8.
    NotUtf8,
    /// A frame was too large.
    TooLarge,
    /// A message came in too many frames.
    TooManyFrames,
    /// Nothing came for too long.
    Silent,
    /// The caller does not take its answers.
    Slow,
    /// The key is not valid any more.
    Revoked,
    /// This process leaves.
    Leaving,
}

impl End {
    /// For the counter.
    const fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Broken => "broken",
            Self::Protocol => "protocol",
            Self::NotUtf8 => "not_utf8",
            Self::TooLarge => "too_large",
            Self::TooManyFrames => "too_many_frames",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Revoked => "revoked",
            Self::Leaving => "leaving",
        }
    }

    /// The close frame, where one can still be sent. Reasons fit 123 bytes.
    const fn close(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Left | Self::Broken | Self::Slow => None,
            Self::Protocol => Some((1002, "protocol error")),
            Self::NotUtf8 => Some((1007, "text must be UTF-8; send JSON made by a JSON library")),
            Self::TooLarge => Some((1009, "frame too large; see the error before")),
            Self::TooManyFrames => Some((1009, "too many frames; send a message in one")),
            Self::Silent => Some((4408, "nothing came for too long; answer pings, and connect again")),
            Self::Revoked => Some((4401, "the key is not valid any more; connect with another")),
            Self::Leaving => Some((1012, "restarting; connect again")),
        }
    }
}

/// Serves one socket until it ends.
async fn serve(app: Arc<App>, caller: Caller, socket: Socket) {
    let _held = GaugeGuard::new(&app.metrics.sockets);
    let (sink, frames) = socket.split();
    let (queue, answers) = mpsc::channel(QUEUE);
    let now = Instant::now();
    let conversation = Conversation {
        app: &app,
        caller,
        frames,
        queue,
        lanes: Lanes::default(),
        storing: FuturesUnordered::new(),
        open: FuturesUnordered::new(),
        heard: app.publisher.awake().now(),
        ping: now + app.config.ping_interval,
        end_by: None,
    };
    let mut writing = pin!(write(sink, answers));
    let mut conversing = pin!(conversation.run());
    let (ended, written) = tokio::select! {
        ended = conversing.as_mut() => {
            let written = timeout_at(ended.by, writing).await;
            (ended, written.unwrap_or(Written { slow: true, sink: None }))
        }
        written = writing.as_mut() => (conversing.await, written),
    };
    let end = if written.slow { End::Slow } else { ended.end };
    app.metrics.socket_ended(end.label());
    tracing::debug!(reason = end.label(), "a publishing socket ended");
    if let Some(sink) = written.sink
        && let Ok(mut socket) = ended.frames.reunite(sink)
    {
        let _ = timeout_at(ended.close_by, socket.get_mut().end()).await;
    }
}

/// What became of the answers.
struct Written {
    /// Whether the caller took none of them for too long.
    slow: bool,
    /// None: it can't be written to any more.
    sink: Option<SplitSink<Socket, Message>>,
}

/// Writes answers until there are no more. The connection finds out whether the caller takes none of them for
/// too long: a caller may take as long as it likes for all of them.
async fn write(mut sink: SplitSink<Socket, Message>, mut answers: mpsc::Receiver<Message>) -> Written {
    while let Some(answer) = answers.recv().await {
        let written = async {
            sink.feed(answer).await?;
            while let Ok(answer) = answers.try_recv() {
                sink.feed(answer).await?;
            }
            sink.flush().await
        };
        if let Err(error) = written.await {
            return Written { slow: end_of(&error) == End::Slow, sink: None };
        }
    }
    Written { slow: false, sink: Some(sink) }
}

/// An answer that is on its way.
type Pending = BoxFuture<'static, String>;

/// What waits for its turn at the store.
struct Job {
    accepted: Accepted,
    echo: Option<Box<RawValue>>,
    /// The call.
    span: Span,
}

/// What became of a message that was to be stored, and of which channel it was.
type Kept = (Channel, Option<Box<RawValue>>, Result<HandedOver, Refusal>);

/// How a conversation ended.
struct Ended {
    end: End,
    /// Until when what is still queued may be written.
    by: Instant,
    /// Until when the caller may close its side.
    close_by: Instant,
    frames: SplitStream<Socket>,
}

/// The reading side of a socket.
struct Conversation<'a> {
    app: &'a App,
    caller: Caller,
    frames: SplitStream<Socket>,
    queue: mpsc::Sender<Message>,
    /// Publishes to channels with history: those that wait, and those on their way to the store.
    lanes: Lanes<Job>,
    storing: FuturesUnordered<BoxFuture<'a, Kept>>,
    /// Publishes whose counts are asked for. With those above, at most `max_in_flight_per_socket`.
    open: FuturesUnordered<Pending>,
    heard: Instant,
    ping: Instant,
    /// Until when the caller may take its last answers, once the end has begun.
    end_by: Option<Instant>,
}

impl<'a> Conversation<'a> {
    /// Serves the socket.
    async fn run(mut self) -> Ended {
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

    /// Answers what was read, and says why the socket ends.
    async fn finish(&mut self, end: End) -> End {
        let Some((code, reason)) = end.close() else {
            self.store_the_rest().await;
            return end;
        };
        loop {
            let sent = tokio::select! {
                Some(kept) = self.storing.next() => self.on_kept(kept).await,
                Some(answer) = self.open.next() => self.send(Message::from(answer)).await,
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
        if self.send(Message::Close(Some(close))).await.is_err() {
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
                Some(answer) = self.open.next() => self.send(Message::from(answer)).await,
                Some(kept) = self.storing.next() => self.on_kept(kept).await,
                // Before the frames, of which a flood never ends.
                () = sleep_until(self.ping) => {
                    self.ping = Instant::now() + config.ping_interval;
                    self.send(Message::Ping(Bytes::new())).await
                }
                frame = self.frames.next(), if reads => self.on_frame(frame).await,
                () = self.app.publisher.awake().sleep_until(self.heard + config.silence), if reads => Err(End::Silent),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn on_frame(&mut self, frame: Option<Result<Message, SocketError>>) -> Result<(), End> {
        self.heard = self.app.publisher.awake().now();
        match frame {
            Some(Ok(Message::Text(text))) => self.on_text(&text).await,
            Some(Ok(Message::Binary(_))) => self.refuse(Refusal::BinaryFrame).await,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Close(_))) | None => Err(End::Left),
            Some(Err(error)) => Err(end_of(&error)),
        }
    }

    async fn on_text(&mut self, text: &str) -> Result<(), End> {
        if text == "ping" {
            return self.send(Message::from("pong")).await;
        }
        if text.len() > self.app.config.request_bytes() {
            return Err(End::TooLarge);
        }
        let caller = self.caller.current();
        let Call { echo, publish, trace } = Call::parse(text, self.app.config.max_message.as_usize());
        let caller = match caller {
            Ok(caller) => caller,
            Err(refusal) => {
                self.answer_refusal(refusal, echo).await?;
                return Err(End::Revoked);
            }
        };
        let admitted = publish.and_then(|publish| caller.admit_publish(&publish.channel).map(|()| publish));
        let span = spans::frame(trace);
        let publisher = &self.app.publisher;
        let handed_over = match admitted {
            Ok(publish) if publisher.keeps(&publish.channel) => {
                match span.in_scope(|| publisher.accept(&caller, publish, None)) {
                    Ok(accepted) => {
                        let channel = accepted.channel().clone();
                        let job = Job { accepted, echo: echo.map(ToOwned::to_owned), span };
                        if let Some(job) = self.lanes.enter(&channel, job) {
                            self.begin(job);
                        }
                        return Ok(());
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Ok(publish) => {
                publisher.hand_over(&caller, publish, None, Counting::Wanted).instrument(span).await
            }
            Err(refusal) => Err(refusal),
        };
        match handed_over {
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
        let kept = async move { (channel, echo, publisher.keep(accepted, Counting::Wanted).await) };
        self.storing.push(Box::pin(kept.instrument(span)));
    }

    /// A message is settled at the store; the next of its channel goes.
    async fn on_kept(&mut self, (channel, echo, kept): Kept) -> Result<(), End> {
        if let Some(next) = self.lanes.settled(&channel) {
            self.begin(next);
        }
        match kept {
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

    /// What was read is stored although nobody waits for the answers, as it would be without history. Each
    /// has its deadline since it was read.
    async fn store_the_rest(&mut self) {
        while let Some((channel, _, kept)) = self.storing.next().await {
            drop(kept);
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
        self.send(Message::from(ws_answer(&Err(refusal), echo))).await
    }

    /// Waits for a place in the queue; the writer gives up on a caller that is too slow.
    async fn send(&mut self, message: Message) -> Result<(), End> {
        let sending = self.queue.send(message);
        let sent = match self.end_by {
            None => sending.await,
            Some(by) => timeout_at(by, sending).await.map_err(|_| End::Slow)?,
        };
        sent.map_err(|_| End::Broken)
    }
}

/// What an error of the socket means.
fn end_of(error: &SocketError) -> End {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else there is or will be, the socket is of no use"
    )]
    match error {
        SocketError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => End::Slow,
        SocketError::Io(error) if error.get_ref().is_some_and(|error| error.is::<TooManyFrames>()) => {
            End::TooManyFrames
        }
        SocketError::Capacity(_) => End::TooLarge,
        SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Broken,
        SocketError::Protocol(_) => End::Protocol,
        SocketError::Utf8(_) => End::NotUtf8,
        _ => End::Broken,
    }
}
