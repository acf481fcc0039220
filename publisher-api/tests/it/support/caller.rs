//! Callers: HTTP by hand, so that a test can send any bytes, and a WebSocket.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::soon;

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the status and `E.c`; 0 if `E` is null.
    pub(crate) fn code(&self) -> (u16, u64) {
        (self.status, self.json()["E"]["c"].as_u64().unwrap_or(0))
    }

    /// Returns `s`, `f`, and whether these counts are complete.
    pub(crate) fn counts(&self) -> (u64, u64, bool) {
        let answer = self.json();
        assert_eq!((self.status, &answer["E"]), (200, &Value::Null), "{self:?}");
        let count = |name: &str| answer["r"][name].as_u64().unwrap();
        (count("s"), count("f"), self.header("mc-complete") != Some("false"))
    }
}

/// An HTTP connection that sends one request after the other.
pub(crate) struct Http(TcpStream);

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        soon("the request is taken", self.0.write_all(bytes)).await.unwrap();
    }

    /// Sends bytes, unless the server has closed the connection.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        soon("the request is taken, or the connection ends", self.0.write_all(bytes)).await
    }

    /// Closes the sending half of the connection.
    pub(crate) async fn close_sending(&mut self) {
        soon("the end is taken", self.0.shutdown()).await.unwrap();
    }

    /// Drops the connection at once, with a reset.
    pub(crate) fn abort(self) {
        self.0.set_zero_linger().unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        soon("an answer comes", async {
            let mut text = Vec::new();
            let head = loop {
                let byte = self.0.read_u8().await.expect("the connection stays until the answer is there");
                text.push(byte);
                if text.ends_with(b"\r\n\r\n") {
                    break String::from_utf8(text).unwrap();
                }
            };
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let mut answer = Answer { status, head, body: String::new() };
            let length: usize = answer.header("content-length").unwrap().parse().unwrap();
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.unwrap();
            answer.body = String::from_utf8(body).unwrap();
            answer
        })
        .await
    }

    /// Reads until the server closes, and ignores the bytes.
    pub(crate) async fn read_to_end(&mut self) {
        // A reset ends the connection as well.
        let _ = soon("the connection ends", self.0.read_to_end(&mut Vec::new())).await;
    }

    /// Returns whether the server closes without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        soon("the connection ends", self.0.read(&mut [0; 1])).await.is_ok_and(|read| read == 0)
    }
}

/// Returns a whole request with a body, the necessary headers, and these headers.
pub(crate) fn request(line: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut head = format!("{line} HTTP/1.1\r\n");
    if headers.iter().all(|(name, _)| *name != "host") {
        head.push_str("host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    head.into_bytes()
}

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");
pub(crate) const PUBLISH: &str = "POST /v1/mesh/publish";

/// Sends one request on a connection of its own, and returns the answer.
pub(crate) async fn call(address: SocketAddr, request: &[u8]) -> Answer {
    let mut http = Http::connect(address).await;
    http.send(request).await;
    http.answer().await
}

/// Publishes over HTTP.
pub(crate) async fn publish(address: SocketAddr, body: &Value) -> Answer {
    call(address, &request(PUBLISH, &[JSON], &body.to_string())).await
}

/// Publishes `d` to the channel over HTTP.
pub(crate) async fn publish_to(address: SocketAddr, channel: &str, d: &str) -> Answer {
    publish(address, &json!({"c": channel, "d": d})).await
}

/// A publisher's WebSocket.
pub(crate) struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::handshake(address, &[]).await.expect("the handshake is accepted")
    }

    /// Connects with these headers. The error is the status of a refused handshake.
    pub(crate) async fn handshake(
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        use tokio_tungstenite::tungstenite::Error;
        let mut request = format!("ws://localhost:{}/ws/v1", address.port()).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(address).await.unwrap();
        match soon("the handshake", tokio_tungstenite::client_async(request, stream)).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.try_send(Message::from(text)).await.unwrap();
    }

    pub(crate) async fn try_send(
        &mut self,
        message: Message,
    ) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        soon("the frame is taken", self.0.send(message)).await
    }

    /// Sends a frame without reading.
    pub(crate) async fn feed(&mut self, message: Message) {
        soon("the frame is taken", self.0.feed(message)).await.unwrap();
    }

    /// Counts the pongs until a text comes or the server closes.
    pub(crate) async fn pongs_before_text(&mut self) -> usize {
        let mut pongs = 0;
        while let Some(Message::Pong(_)) = self.frame().await {
            pongs += 1;
        }
        pongs
    }

    /// Returns the next frame that is no ping. `None`: the connection broke.
    pub(crate) async fn frame(&mut self) -> Option<Message> {
        loop {
            match soon("a frame comes", self.0.next()).await? {
                Ok(Message::Ping(_)) => {}
                Ok(frame) => return Some(frame),
                Err(_) => return None,
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.frame().await {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("a text frame was expected: {other:?}"),
        }
    }

    pub(crate) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// Returns everything that the server still sends until it closes.
    pub(crate) async fn into_bytes(self) -> Vec<u8> {
        let (mut stream, mut bytes) = (self.0.into_inner(), Vec::new());
        soon("the connection ends", stream.read_to_end(&mut bytes)).await.unwrap();
        bytes
    }

    /// Returns the code of the next frame, which must be a close frame.
    pub(crate) async fn close_code(&mut self) -> u16 {
        match self.frame().await {
            Some(Message::Close(Some(close))) => {
                assert!(close.reason.len() <= 123, "{close:?}");
                close.code.into()
            }
            other => panic!("a close frame was expected: {other:?}"),
        }
    }
}

/// Returns the text of a call of `mesh.publish`.
pub(crate) fn mesh_publish(channel: &str, d: &str, i: impl Into<Value>) -> String {
    json!({"m": "mesh.publish", "p": {"c": channel, "d": d}, "i": i.into()}).to_string()
}
