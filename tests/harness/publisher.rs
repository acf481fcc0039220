//! A back end that publishes: over HTTP, and over the publishing WebSocket.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::header::HeaderMap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::wait::soon;

/// An HTTP client of one publisher-api.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// Scheme, host and port.
    base: String,
    client: reqwest::Client,
}

/// An answer to a publish.
#[derive(Debug, Clone)]
pub struct Published {
    /// HTTP status.
    pub status: u16,
    /// HTTP headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub text: String,
    /// The body as JSON; null for any other body.
    pub body: Value,
}

impl Publisher {
    /// A client of the publisher-api at this address.
    ///
    /// # Panics
    /// The HTTP client cannot be set up.
    pub fn of(address: SocketAddr) -> Self {
        Self { base: format!("http://{address}"), client: http_client(None) }
    }

    /// A client that speaks TLS and trusts only this authority.
    ///
    /// # Panics
    /// The file holds no certificate.
    pub fn over_tls(address: SocketAddr, authority: &Path) -> Self {
        Self { base: format!("https://localhost:{}", address.port()), client: http_client(Some(authority)) }
    }

    /// Whether any answer comes back over a new connection.
    pub async fn is_answered(&self) -> bool {
        soon("an answer or none", self.client.get(&self.base).send()).await.is_ok()
    }

    /// Publishes text.
    pub async fn publish(&self, channel: &str, text: &str) -> Published {
        self.call(&json!({ "c": channel, "d": text })).await
    }

    /// Publishes text, and expects a complete answer: `sessions` sessions took it, none failed.
    ///
    /// # Panics
    /// The answer differs.
    pub async fn publish_to(&self, sessions: u64, channel: &str, text: &str) {
        self.publish(channel, text).await.expect_counts(sessions, 0);
    }

    /// Sends any JSON to `/v1/mesh/publish`.
    pub async fn call(&self, body: &Value) -> Published {
        self.post(body.to_string()).await
    }

    /// Sends any body as `application/json` to `/v1/mesh/publish`.
    ///
    /// # Panics
    /// There is no HTTP answer.
    pub async fn post(&self, body: impl Into<reqwest::Body>) -> Published {
        let url = format!("{}/v1/mesh/publish", self.base);
        self.send(self.client.post(url).header("content-type", "application/json").body(body)).await
    }

    /// A request builder, for requests out of the ordinary.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request.
    ///
    /// # Panics
    /// There is no HTTP answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Published {
        let answered = async {
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let text = response.text().await?;
            let body = serde_json::from_str(&text).unwrap_or(Value::Null);
            Ok::<_, reqwest::Error>(Published { status, headers, text, body })
        };
        soon("an answer to the publish", answered)
            .await
            .unwrap_or_else(|error| panic!("no answer from {}: {error:?}", self.base))
    }
}

impl Published {
    /// The counts, if the publish succeeded.
    pub fn counts(&self) -> Option<(u64, u64)> {
        Some((self.body["r"]["s"].as_u64()?, self.body["r"]["f"].as_u64()?))
    }

    /// Whether every edge that may have sessions was counted.
    pub fn is_complete(&self) -> bool {
        self.headers.get("mc-complete").is_none_or(|value| value != "false")
    }

    /// Expects a complete success with these counts.
    ///
    /// # Panics
    /// The answer differs.
    pub fn expect_counts(&self, sessions: u64, failed: u64) {
        assert_eq!(self.counts(), Some((sessions, failed)), "{self:?}");
        assert!(self.is_complete() && self.status == 200 && self.body["E"].is_null(), "{self:?}");
    }

    /// Expects a success with these counts, marked as incomplete.
    ///
    /// # Panics
    /// The answer differs.
    pub fn expect_incomplete(&self, sessions: u64, failed: u64) {
        assert_eq!(self.counts(), Some((sessions, failed)), "{self:?}");
        assert!(!self.is_complete() && self.status == 200, "{self:?}");
    }

    /// Expects this HTTP status and this code in `E`; returns the text.
    ///
    /// # Panics
    /// The answer differs.
    pub fn expect_error(&self, status: u16, code: u64) -> String {
        assert_eq!((self.status, &self.body["E"]["c"]), (status, &json!(code)), "{self:?}");
        let text = self.body["E"]["m"].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "an error without a text: {self:?}");
        text.to_owned()
    }
}

/// The HTTP client of tests: no proxy, and no TLS roots but `authority`, since every request stays on
/// loopback.
fn http_client(authority: Option<&Path>) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(file) = authority {
        roots.add(CertificateDer::from_pem_file(file).expect("it is a certificate")).expect("and a good one");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls)
        .build()
        .expect("nothing that can fail is configured")
}

/// A publishing WebSocket.
#[derive(Debug)]
pub struct PublishingSocket {
    socket: WebSocketStream<TcpStream>,
}

impl PublishingSocket {
    /// Connects to `/ws/v1`.
    ///
    /// # Panics
    /// The publisher-api refuses.
    pub async fn connect(address: SocketAddr) -> Self {
        let connected = async {
            let stream = TcpStream::connect(address).await.expect("the publisher-api listens");
            tokio_tungstenite::client_async(format!("ws://{address}/ws/v1"), stream).await
        };
        let (socket, _) =
            soon("the WebSocket handshake", connected).await.expect("the publisher-api takes it");
        Self { socket }
    }

    /// Sends `mesh.publish` without waiting for its answer.
    pub async fn publish(&mut self, i: &Value, channel: &str, text: &str) {
        let call = json!({ "m": "mesh.publish", "p": { "c": channel, "d": text }, "i": i });
        self.send(Message::text(call.to_string())).await;
    }

    /// Sends any frame.
    ///
    /// # Panics
    /// The connection is closed.
    pub async fn send(&mut self, frame: Message) {
        soon("a frame is sent", self.socket.send(frame)).await.expect("the connection stands");
    }

    /// The next frame other than a ping or pong. `None`: the connection has ended.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            match soon("an answer on the publishing socket", self.socket.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(frame)) => return Some(frame),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next frame as JSON.
    ///
    /// # Panics
    /// Another frame comes.
    pub async fn answer(&mut self) -> Value {
        let frame = self.next().await;
        let Some(Message::Text(text)) = &frame else { panic!("expected an answer, received {frame:?}") };
        serde_json::from_str(text).unwrap_or_else(|_| panic!("expected JSON, received {text:?}"))
    }

    /// Closes and waits until the other side has answered.
    pub async fn close(mut self) {
        let _ = soon("the close goes out", self.socket.close(None)).await;
        while self.next().await.is_some() {}
    }
}
