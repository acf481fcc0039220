//! A device: a WebSocket client of the edge that shares only the WebSocket library with it.
//!
//! Every expectation has a deadline. A barrier, never a delay, shows that nothing came.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Response};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::raw::Raw;
use crate::wait::soon;

/// The path of the client port.
pub const PATH: &str = "/message-center";

/// Bytes that the kernel buffers for a narrow device that does not read.
const NARROW_BYTES: u32 = 8 * 1024;

/// One connection of a device.
#[derive(Debug)]
pub struct Device {
    socket: WebSocketStream<TcpStream>,
}

/// A frame, or the end of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text frame.
    Text(String),
    /// A binary frame.
    Binary(Bytes),
    /// The close frame: code (1005 if it has none) and reason.
    Close(u16, String),
    /// The connection ended without a close frame.
    Gone,
}

impl Device {
    /// Connects.
    ///
    /// # Panics
    /// The edge refuses.
    pub async fn connect(edge: SocketAddr) -> Self {
        Self::try_connect(edge, PATH, None)
            .await
            .unwrap_or_else(|refusal| panic!("{edge} refuses: {refusal:?}"))
    }

    /// Connects and logs in.
    pub async fn login(edge: SocketAddr, token: &str) -> Self {
        let mut device = Self::connect(edge).await;
        device.auth(token).await;
        device
    }

    /// Connects, logs in and subscribes to `@user`.
    pub async fn online(edge: SocketAddr, token: &str) -> Self {
        let mut device = Self::login(edge, token).await;
        device.subscribe("@user").await;
        device
    }

    /// Connects with small socket buffers, so that the edge soon notices a device that does not read.
    ///
    /// # Panics
    /// The edge refuses.
    pub async fn connect_narrow(edge: SocketAddr) -> Self {
        let narrow = async {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(NARROW_BYTES)?;
            socket.connect(edge).await
        };
        let stream = soon("a TCP connection", narrow).await.expect("the edge listens");
        let request = format!("ws://{edge}{PATH}");
        let upgraded =
            soon("the WebSocket handshake", tokio_tungstenite::client_async(request, stream)).await;
        let (socket, _) = upgraded.expect("the edge takes it");
        Self { socket }
    }

    /// Connects to `path`, as a page of this origin if one is given.
    ///
    /// # Errors
    /// Returns the HTTP answer of the edge, if the status is not 101.
    ///
    /// # Panics
    /// No HTTP answer comes.
    pub async fn try_connect(
        edge: SocketAddr,
        path: &str,
        origin: Option<&str>,
    ) -> Result<Self, Box<Response<Option<Vec<u8>>>>> {
        let mut request = format!("ws://{edge}{path}").into_client_request().expect("it is an address");
        if let Some(origin) = origin {
            request
                .headers_mut()
                .insert("origin", HeaderValue::from_str(origin).expect("it is a header value"));
        }
        let upgraded = async {
            let stream =
                TcpStream::connect(edge).await.unwrap_or_else(|error| panic!("connect to {edge}: {error}"));
            tokio_tungstenite::client_async(request, stream).await
        };
        match soon("the WebSocket handshake", upgraded).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => Err(response),
            Err(error) => panic!("no WebSocket handshake with {edge}: {error}"),
        }
    }

    /// Whether the edge accepts a connection now.
    pub async fn is_welcome(edge: SocketAddr) -> bool {
        let Ok(stream) = TcpStream::connect(edge).await else { return false };
        let request = format!("ws://{edge}{PATH}");
        soon("the WebSocket handshake", tokio_tungstenite::client_async(request, stream)).await.is_ok()
    }

    /// Sends a text frame.
    ///
    /// # Panics
    /// The connection is closed.
    pub async fn send(&mut self, text: &str) {
        self.send_frame(Message::text(text)).await;
    }

    /// Sends any frame.
    ///
    /// # Panics
    /// The connection is closed.
    pub async fn send_frame(&mut self, frame: Message) {
        soon("a frame is sent", self.socket.send(frame)).await.expect("the connection stands");
    }

    /// Sends a text frame, even if the edge has closed the connection.
    pub async fn send_anyway(&mut self, text: &str) {
        let _ = soon("a frame is sent", self.socket.send(Message::text(text))).await;
    }

    /// Logs in, and expects success.
    pub async fn auth(&mut self, token: &str) {
        self.ask(&json!({ "op": "auth", "token": token })).await;
    }

    /// Subscribes, and expects success.
    pub async fn subscribe(&mut self, channel: &str) {
        self.ask(&json!({ "op": "subscribe", "channel": channel })).await;
    }

    /// Unsubscribes, and expects success.
    pub async fn unsubscribe(&mut self, channel: &str) {
        self.ask(&json!({ "op": "unsubscribe", "channel": channel })).await;
    }

    async fn ask(&mut self, op: &Value) {
        self.send(&op.to_string()).await;
        self.expect_json(&json!({ "result": true })).await;
    }

    /// The next frame other than a ping or pong.
    ///
    /// # Panics
    /// No frame comes.
    pub async fn next(&mut self) -> Received {
        soon("a frame for the device", self.next_whenever()).await
    }

    /// The next frame other than a ping or pong, however long it takes.
    pub async fn next_whenever(&mut self) -> Received {
        loop {
            return match self.socket.next().await {
                Some(Ok(Message::Text(text))) => Received::Text(text.to_string()),
                Some(Ok(Message::Binary(bytes))) => Received::Binary(bytes),
                Some(Ok(Message::Close(Some(frame)))) => {
                    Received::Close(frame.code.into(), frame.reason.to_string())
                }
                Some(Ok(Message::Close(None))) => Received::Close(1005, String::new()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(_)) | None => Received::Gone,
            };
        }
    }

    /// Waits for a WebSocket ping of the edge; the library answers the ping.
    ///
    /// # Panics
    /// Another frame comes first, or none.
    pub async fn expect_ping(&mut self) {
        match soon("a ping from the edge", self.socket.next()).await {
            Some(Ok(Message::Ping(_))) => self.socket.flush().await.expect("the pong goes out"),
            other => panic!("expected a ping, received {other:?}"),
        }
    }

    /// Expects the answer to a WebSocket ping of this device.
    ///
    /// # Panics
    /// Another frame comes first, or none.
    pub async fn expect_pong(&mut self, payload: &[u8]) {
        match soon("a pong from the edge", self.socket.next()).await {
            Some(Ok(Message::Pong(bytes))) if bytes == payload => {}
            other => panic!("expected a pong, received {other:?}"),
        }
    }

    /// Expects exactly this text.
    ///
    /// # Panics
    /// Another frame comes, or none.
    pub async fn expect_text(&mut self, text: &str) {
        assert_eq!(self.next().await, Received::Text(text.to_owned()));
    }

    /// Expects these bytes in a binary frame.
    ///
    /// # Panics
    /// Another frame comes, or none.
    pub async fn expect_binary(&mut self, bytes: &[u8]) {
        assert_eq!(self.next().await, Received::Binary(Bytes::copy_from_slice(bytes)));
    }

    /// Expects a text frame with this JSON.
    ///
    /// # Panics
    /// Another frame comes, or none.
    pub async fn expect_json(&mut self, expected: &Value) {
        let received = self.next_json().await;
        assert_eq!(&received, expected);
    }

    /// The next text frame as JSON.
    ///
    /// # Panics
    /// Another frame comes, or none.
    pub async fn next_json(&mut self) -> Value {
        let received = self.next().await;
        let Received::Text(text) = &received else { panic!("expected JSON, received {received:?}") };
        serde_json::from_str(text).unwrap_or_else(|_| panic!("expected JSON, received {text:?}"))
    }

    /// Expects an error frame with this code; returns its text.
    ///
    /// # Panics
    /// Another frame comes, or none.
    pub async fn expect_error(&mut self, code: u64) -> String {
        let error = self.next_json().await;
        assert_eq!(error["code"], code, "{error}");
        let text = error["msg"].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "an error without a text: {error}");
        text.to_owned()
    }

    /// Expects the edge to close with this code; returns the reason.
    ///
    /// # Panics
    /// Another frame comes, or none.
    pub async fn expect_close(&mut self, code: u16) -> String {
        let received = self.next().await;
        let Received::Close(closed_with, reason) = &received else {
            panic!("expected to be closed with {code}, received {received:?}")
        };
        assert_eq!(*closed_with, code, "{reason}");
        assert_eq!(self.next().await, Received::Gone, "nothing follows a close");
        reason.clone()
    }

    /// Shows that no frame is on its way to this device: it would arrive before the second `pong`.
    ///
    /// One `pong` is not enough: a reply may overtake a delivery, but not one that was ready before the
    /// question was read.
    ///
    /// # Panics
    /// Another frame comes.
    pub async fn expect_nothing(&mut self) {
        for _ in 0..2 {
            self.send("ping").await;
            self.expect_text("pong").await;
        }
    }

    /// Closes the WebSocket, and waits for the answer of the edge.
    ///
    /// # Panics
    /// The edge does not answer.
    pub async fn close(mut self) {
        soon("the close goes out", self.socket.close(None)).await.expect("the connection stands");
        while !matches!(self.next().await, Received::Gone) {}
    }

    /// The TCP stream, for tests that go below WebSocket.
    pub fn into_stream(self) -> TcpStream {
        self.socket.into_inner()
    }

    /// The connection as bare TCP.
    pub fn into_raw(self) -> Raw {
        Raw::new(self.into_stream())
    }
}
