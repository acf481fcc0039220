//! `/ws/v1`: many publishes over one socket.
//!
//! Messages go to the bus in the order of their arrival. Messages to channels with history go to the store in
//! the order of their arrival for their channel, each when the message before is settled, also after the
//! caller has left. Answers come as counts are known, in any order. While too many calls are open, or the
//! caller does not take its answers, nothing more is read. A socket ends with a close code that says why, and
//! only after every message that was read has its answer.

mod conversation;
mod end;
mod tapped;

use std::pin::pin;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use shared::gauge::GaugeGuard;
use shared::handshake::{self, Fault};
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::http;
use crate::app::App;
use crate::error::Refusal;
use crate::keys::Caller;
use conversation::Conversation;
use end::End;
use tapped::{Socket, Tapped};

/// The most answers that wait to be written. Beyond it nothing more is read.
const QUEUE: usize = 64;
/// The most bytes that one read takes from a socket. The library's default is eight times that, for every
/// socket.
const READ_BUFFER: usize = 16 << 10;
/// The most bytes of pongs and answers that wait in a socket. Beyond it pongs are left out. The library's
/// default is no bound.
const MAX_WRITE_BUFFER: usize = 256 << 10;
/// A frame of up to this many times the limit is read whole, so that its sender gets to read the refusal.
const DISCARD_FACTOR: usize = 2;

/// Checks the handshake of a request, which comes before its scope.
///
/// # Errors
/// Code 101.
pub(crate) fn check_handshake(request: &Request) -> Result<(), Refusal> {
    handshake::check(request).map(drop).map_err(Refusal::NoHandshake)
}

/// Upgrades a connection, and serves the socket behind the answer.
pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
) -> Response {
    let proof = match prove(&request) {
        Ok(proof) => proof,
        Err(fault) => return http::refuse(&app, Refusal::NoHandshake(fault)),
    };
    let slot = match app.sockets.take(&caller.owner()) {
        Ok(slot) => slot,
        Err(none) => return http::refuse(&app, caller.no_slot(none, "sockets", app.config.max_sockets)),
    };
    let (upgrade, drain) = (hyper::upgrade::on(&mut request), app.drain.clone());
    drain.spawn("publisher-socket", async move {
        if let Some(socket) = open(upgrade, app.config.request_bytes()).await {
            serve(app, caller, socket).await;
        }
        drop(slot);
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, proof);
    answer
}

/// Returns the proof that a handshake was understood.
fn prove(request: &Request) -> Result<HeaderValue, Fault> {
    let key = handshake::check(request)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| Fault::Key)
}

/// Waits until the answer to the handshake is written. `None`: the connection broke before.
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

/// Serves one socket until it ends.
async fn serve(app: Arc<App>, caller: Caller, socket: Socket) {
    let _gauge = GaugeGuard::new(&app.metrics.sockets);
    let (sink, frames) = socket.split();
    let (queue, answers) = mpsc::channel(QUEUE);
    let conversation = Conversation::new(&app, caller, frames, queue);
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

/// The outcome of writing the answers.
struct Written {
    /// Whether the caller took none of them for too long.
    slow: bool,
    /// `None`: the socket can't be written to any more.
    sink: Option<SplitSink<Socket, Frame>>,
}

/// Writes answers until there are no more. The stream notices a caller that takes none of them for too long.
/// For all of them together a caller may take as long as it likes.
async fn write(mut sink: SplitSink<Socket, Frame>, mut answers: mpsc::Receiver<Frame>) -> Written {
    while let Some(answer) = answers.recv().await {
        let written = async {
            sink.feed(answer).await?;
            while let Ok(answer) = answers.try_recv() {
                sink.feed(answer).await?;
            }
            sink.flush().await
        };
        if let Err(error) = written.await {
            return Written { slow: End::of(&error) == End::Slow, sink: None };
        }
    }
    Written { slow: false, sink: Some(sink) }
}
