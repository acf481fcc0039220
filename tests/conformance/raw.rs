//! A NATS client that hides nothing: writes the given bytes, and returns every operation of the server.
//!
//! Every wait has a deadline. [`RawClient::sync`] shows that nothing more will come: everything that the
//! server sent before it saw the PING precedes the PONG.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::fixture::within;

const DEADLINE: Duration = Duration::from_secs(15);
/// The CONNECT of most cases.
pub(crate) const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1}\r\n";

/// A MSG or HMSG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) subject: String,
    pub(crate) sid: String,
    pub(crate) reply: Option<String>,
    /// The header block as sent, with its blank line; `None` in a MSG.
    pub(crate) headers: Option<Bytes>,
    pub(crate) payload: Bytes,
}

impl Message {
    /// The payload as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The payload as JSON.
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.payload).with_context(|| format!("{self:?} is not JSON"))
    }

    /// The first line of the headers after `NATS/1.0`, such as "404 Message Not Found"; empty without
    /// headers.
    pub(crate) fn status_line(&self) -> String {
        let headers = String::from_utf8_lossy(self.headers.as_deref().unwrap_or_default()).into_owned();
        headers.lines().next().and_then(|line| line.strip_prefix("NATS/1.0")).unwrap_or("").trim().to_owned()
    }

    /// The headers in order, without the first line.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        let headers = String::from_utf8_lossy(self.headers.as_deref().unwrap_or_default()).into_owned();
        let fields = headers.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The value of the first header of this name; empty if there is none.
    pub(crate) fn field(&self, name: &str) -> String {
        self.fields().into_iter().find(|field| field.0 == name).map(|field| field.1).unwrap_or_default()
    }

    /// The header of this name as a number.
    pub(crate) fn number(&self, name: &str) -> anyhow::Result<u64> {
        self.field(name).parse().with_context(|| format!("{name} in {self:?}"))
    }

    /// The status in the first line of the headers; "503" for a request without responders.
    pub(crate) fn status(&self) -> Option<String> {
        let headers = String::from_utf8_lossy(self.headers.as_ref()?).into_owned();
        let status = headers.lines().next()?.strip_prefix("NATS/1.0")?.split_whitespace().next()?;
        Some(status.to_owned())
    }
}

/// An operation of a server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operation {
    Info(Value),
    Message(Message),
    Ping,
    Pong,
    Ok,
    /// The text without its quotes.
    Error(String),
}

/// One TCP connection to a server.
pub(crate) struct RawClient {
    stream: TcpStream,
    buffer: BytesMut,
    /// The first INFO.
    pub(crate) info: Value,
}

impl RawClient {
    /// Connects and reads INFO, without sending anything.
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        Self::over(TcpSocket::new_v4()?, address).await
    }

    /// As [`RawClient::open`], with a receive buffer of about `bytes` in the kernel.
    pub(crate) async fn open_narrow(address: SocketAddr, bytes: u32) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(bytes)?;
        Self::over(socket, address).await
    }

    async fn over(socket: TcpSocket, address: SocketAddr) -> anyhow::Result<Self> {
        let stream = within(DEADLINE, "a connection", socket.connect(address)).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, buffer: BytesMut::new(), info: Value::Null };
        let first = client.next().await?;
        let Operation::Info(info) = first else { bail!("the first operation is not INFO but {first:?}") };
        client.info = info;
        Ok(client)
    }

    /// Connects as most clients do: not verbose, with headers and no-responders.
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let mut client = Self::open(address).await?;
        client.send(CONNECT).await?;
        Ok(client)
    }

    /// Writes any bytes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        within(DEADLINE, "the server to read", self.stream.write_all(bytes.as_ref())).await
    }

    /// Publishes `payload` without headers.
    pub(crate) async fn publish(&mut self, subject: &str, payload: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let payload = payload.as_ref();
        let mut bytes = format!("PUB {subject} {}\r\n", payload.len()).into_bytes();
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\r\n");
        self.send(bytes).await
    }

    /// The next operation; an error if the server closes the connection.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Operation> {
        self.next_or_end().await?.context("the server closed the connection")
    }

    /// The next operation; `None` once the connection is closed.
    async fn next_or_end(&mut self) -> anyhow::Result<Option<Operation>> {
        loop {
            if let Some(operation) = parse(&mut self.buffer)? {
                return Ok(Some(operation));
            }
            let read = tokio::time::timeout(DEADLINE, self.stream.read_buf(&mut self.buffer));
            match read.await.context("waited in vain for the server to send something")? {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // A server that closes with unread input resets the connection.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message; answers pings meanwhile.
    pub(crate) async fn message(&mut self) -> anyhow::Result<Message> {
        loop {
            match self.next().await? {
                Operation::Message(message) => return Ok(message),
                Operation::Ping => self.send("PONG\r\n").await?,
                Operation::Info(_) => {}
                other @ (Operation::Pong | Operation::Ok | Operation::Error(_)) => {
                    bail!("a message was due, {other:?} came")
                }
            }
        }
    }

    /// The next message, or `None` after `limit`.
    pub(crate) async fn message_within(&mut self, limit: Duration) -> anyhow::Result<Option<Message>> {
        tokio::time::timeout(limit, self.message()).await.ok().transpose()
    }

    /// The next `count` messages.
    pub(crate) async fn messages(&mut self, count: usize) -> anyhow::Result<Vec<Message>> {
        let mut messages = Vec::with_capacity(count);
        for _ in 0..count {
            messages.push(
                self.message()
                    .await
                    .with_context(|| format!("after {} of {count} messages", messages.len()))?,
            );
        }
        Ok(messages)
    }

    /// Sends PING; returns the operations before the PONG, except INFO and PING.
    pub(crate) async fn sync(&mut self) -> anyhow::Result<Vec<Operation>> {
        self.send("PING\r\n").await?;
        let mut seen = Vec::new();
        loop {
            match self.next().await? {
                Operation::Pong => return Ok(seen),
                Operation::Ping => self.send("PONG\r\n").await?,
                Operation::Info(_) => {}
                other @ (Operation::Message(_) | Operation::Ok | Operation::Error(_)) => seen.push(other),
            }
        }
    }

    /// As [`RawClient::sync`], but only messages may come.
    pub(crate) async fn sync_messages(&mut self) -> anyhow::Result<Vec<Message>> {
        let mut messages = Vec::new();
        for operation in self.sync().await? {
            match operation {
                Operation::Message(message) => messages.push(message),
                other @ (Operation::Info(_)
                | Operation::Ping
                | Operation::Pong
                | Operation::Ok
                | Operation::Error(_)) => bail!("only messages were due, {other:?} came"),
            }
        }
        Ok(messages)
    }

    /// As [`RawClient::sync`], but nothing may come.
    pub(crate) async fn settle(&mut self) -> anyhow::Result<()> {
        let seen = self.sync().await?;
        ensure!(seen.is_empty(), "nothing was due, {seen:?} came");
        Ok(())
    }

    /// Reads until the server closes; returns the operations before, except INFO and PING.
    pub(crate) async fn until_closed(&mut self) -> anyhow::Result<Vec<Operation>> {
        let mut seen = Vec::new();
        while let Some(operation) = self.next_or_end().await? {
            if !matches!(operation, Operation::Ping | Operation::Info(_)) {
                seen.push(operation);
            }
        }
        Ok(seen)
    }

    /// Closes this end, and waits until the server has closed its own.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        self.stream.shutdown().await?;
        while self.next_or_end().await?.is_some() {}
        Ok(())
    }

    /// Publishes until the server says that nobody subscribes to `subject`: a server may close a socket
    /// before it drops the subscriptions. Bounded by the deadline of the case.
    pub(crate) async fn until_nobody_listens(&mut self, subject: &str) -> anyhow::Result<()> {
        self.send("SUB nobody.listens 999\r\n").await?;
        loop {
            self.send(format!("PUB {subject} nobody.listens 0\r\n\r\n")).await?;
            let answers = self.sync_messages().await?;
            if answers.iter().any(|answer| answer.status() == Some("503".to_owned())) {
                return self.send("UNSUB 999\r\n").await;
            }
        }
    }

    /// Expects this error, then the server's close.
    pub(crate) async fn expect_fatal(&mut self, text: &str) -> anyhow::Result<()> {
        let seen = self.until_closed().await?;
        ensure!(
            seen == [Operation::Error(text.to_owned())],
            "-ERR '{text}' and a close were due, {seen:?} came"
        );
        Ok(())
    }

    /// Expects the server's close, with or without an error before.
    pub(crate) async fn expect_closed(&mut self) -> anyhow::Result<()> {
        let seen = self.until_closed().await?;
        let only_errors = seen.iter().all(|operation| matches!(operation, Operation::Error(_)));
        ensure!(only_errors, "a close was due, {seen:?} came");
        Ok(())
    }
}

/// Takes one whole operation off the front of `buffer`.
fn parse(buffer: &mut BytesMut) -> anyhow::Result<Option<Operation>> {
    let Some(end) = buffer.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = std::str::from_utf8(&buffer[..end]).context("a control line is not UTF-8")?.to_owned();
    let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
    let operation = match verb {
        "INFO" => Operation::Info(serde_json::from_str(rest).context("INFO is not JSON")?),
        "PING" => Operation::Ping,
        "PONG" => Operation::Pong,
        "+OK" => Operation::Ok,
        "-ERR" => Operation::Error(rest.trim_matches('\'').to_owned()),
        "MSG" | "HMSG" => return parse_message(buffer, end + 2, verb == "HMSG", rest),
        _ => bail!("the server sent {line:?}"),
    };
    buffer.advance(end + 2);
    Ok(Some(operation))
}

fn parse_message(
    buffer: &mut BytesMut,
    line: usize,
    has_headers: bool,
    arguments: &str,
) -> anyhow::Result<Option<Operation>> {
    let mut arguments: Vec<&str> = arguments.split(' ').collect();
    let mut size =
        || -> anyhow::Result<usize> { Ok(arguments.pop().context("a MSG lacks arguments")?.parse()?) };
    let total = size()?;
    let headers = if has_headers { size()? } else { 0 };
    let [subject, sid, reply @ ..] = arguments.as_slice() else { bail!("a MSG lacks arguments") };
    if buffer.len() < line + total + 2 {
        return Ok(None);
    }
    let message = (subject.to_string(), sid.to_string(), reply.first().map(ToString::to_string));
    buffer.advance(line);
    let mut body = buffer.split_to(total).freeze();
    ensure!(
        buffer.starts_with(b"\r\n"),
        "the payload of a MSG on {} does not end where it should",
        message.0
    );
    buffer.advance(2);
    let headers = has_headers.then(|| body.split_to(headers));
    let (subject, sid, reply) = message;
    Ok(Some(Operation::Message(Message { subject, sid, reply, headers, payload: body })))
}
