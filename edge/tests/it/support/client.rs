//! A client of the edge, with another WebSocket implementation's writing side.

use edge::Edge;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::soon;

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Client {
    /// Connects, or returns the status of the refusal with its `Retry-After`.
    pub(crate) async fn try_connect(edge: &Edge) -> Result<Self, (StatusCode, Option<String>)> {
        Self::try_connect_with(edge, &[]).await
    }

    /// The same with further headers in the request.
    pub(crate) async fn try_connect_with(
        edge: &Edge,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, (StatusCode, Option<String>)> {
        let stream = TcpStream::connect(edge.local_addr()).await.unwrap();
        Self::try_connect_over(stream, edge, headers).await
    }

    /// The same over an open connection.
    pub(crate) async fn try_connect_over(
        stream: TcpStream,
        edge: &Edge,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, (StatusCode, Option<String>)> {
        let address = edge.local_addr();
        let mut request = format!("ws://{address}/message-center").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        match soon("a handshake", tokio_tungstenite::client_async(request, stream)).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(answer)) => {
                let retry =
                    answer.headers().get("retry-after").map(|after| after.to_str().unwrap().to_owned());
                Err((answer.status(), retry))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn connect(edge: &Edge) -> Self {
        Self::try_connect(edge).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    /// Connects and subscribes to a channel that needs no login.
    pub(crate) async fn listening(edge: &Edge) -> Self {
        let mut client = Self::connect(edge).await;
        client.say(r#"{"op":"subscribe","channel":"@broadcast"}"#).await;
        client.expect(r#"{"result":true}"#).await;
        client
    }

    /// Connects and logs in.
    pub(crate) async fn of(edge: &Edge, token: &str) -> Self {
        let mut client = Self::connect(edge).await;
        client.auth(token).await;
        client.expect(r#"{"result":true}"#).await;
        client
    }

    pub(crate) async fn auth(&mut self, token: &str) {
        self.say(&format!(r#"{{"op":"auth","token":"{token}"}}"#)).await;
    }

    pub(crate) async fn say(&mut self, text: &str) {
        soon("a frame is sent", self.socket.send(Message::text(text))).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Option<Message> {
        soon("a frame for the client", self.socket.next()).await.and_then(Result::ok)
    }

    pub(crate) async fn expect(&mut self, text: &str) {
        assert_eq!(self.next().await, Some(Message::text(text)));
    }

    /// Expects a close with this code, and then the end of the connection.
    pub(crate) async fn expect_close(&mut self, code: u16) {
        match self.next().await {
            Some(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), code, "{frame}"),
            other => panic!("expected to be closed with {code}, received {other:?}"),
        }
        assert_eq!(self.next().await, None);
    }

    /// Leaves, and waits until the edge has ended the connection.
    pub(crate) async fn leave(mut self) {
        self.socket.close(None).await.unwrap();
        while self.next().await.is_some() {}
    }
}
