//! A WebSocket connection of the tool: a socket and almost nothing else, so that one process holds many
//! thousands.
//!
//! Reads use a buffer on the stack; a socket stores bytes only while a frame is incomplete. The server's
//! `Sec-WebSocket-Accept` is not checked: the tool measures a message center and does not test its handshake.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::ready;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use crate::frame::{self, Opcode, Reader};
use crate::http::{self, Head};
use crate::target::Target;

/// The most bytes of one read.
const READ_BYTES: usize = 16 << 10;

/// The reason why there is no connection.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The TCP connection did not come up, or broke.
    Io(io::Error),
    /// The server answered the upgrade with this other status.
    Status(u16),
    /// The server's answer is not HTTP.
    NotHttp(&'static str),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "connect: {error}"),
            Self::Status(status) => write!(f, "connect: HTTP {status}"),
            Self::NotHttp(reason) => write!(f, "connect: {reason}"),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Opens a TCP connection to `to`; `from` is the source address, if the caller chooses one.
pub(crate) async fn tcp(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from {
        // Ports of connections that were just closed can be used again.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    reader: Reader,
    /// Bytes that came right after the answer to the upgrade.
    early: Vec<u8>,
}

impl Socket {
    /// Connects and upgrades the connection.
    pub(crate) async fn connect(
        target: &Target,
        to: SocketAddr,
        from: Option<IpAddr>,
        authorization: Option<&str>,
    ) -> Result<Self, Refusal> {
        let mut stream = tcp(to, from).await?;
        let nonce = STANDARD.encode(fastrand::u128(..).to_be_bytes());
        stream.write_all(http::upgrade(target, authorization, &nonce).as_bytes()).await?;
        let mut answer = Vec::with_capacity(256);
        let head = loop {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if let Some(head) = Head::read(&answer).map_err(Refusal::NotHttp)? {
                break head;
            }
        };
        if head.status != 101 {
            return Err(Refusal::Status(head.status));
        }
        let early = if answer.len() > head.length { answer.split_off(head.length) } else { Vec::new() };
        Ok(Self { stream, reader: Reader::default(), early })
    }

    /// Writes bytes that [`frame::write`] made.
    pub(crate) async fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream.write_all(frames).await
    }

    /// Writes one frame.
    pub(crate) async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(payload.len() + 14);
        frame::write(&mut bytes, opcode, payload);
        self.write(&bytes).await
    }

    /// Waits for bytes, and calls `on` for each frame that is complete. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Fails if the connection ended (`UnexpectedEof`) or broke, or if its bytes are no frames
    /// (`InvalidData`).
    pub(crate) async fn receive(&mut self, mut on: impl FnMut(Opcode, &[u8])) -> io::Result<()> {
        let unreadable =
            |error: frame::FrameError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        if !self.early.is_empty() {
            return self.reader.feed(&std::mem::take(&mut self.early), on).map_err(unreadable);
        }
        poll_fn(|context| {
            let mut bytes = [const { MaybeUninit::uninit() }; READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).into();
            }
            self.reader.feed(buffer.filled(), &mut on).map_err(unreadable).into()
        })
        .await
    }
}
