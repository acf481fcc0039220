//! One client's socket: the only file that reads and writes frames with tungstenite.
//!
//! tungstenite reads what comes: masks, fragments, UTF-8, control frames. This module writes what goes out,
//! because a message is one buffer that all sessions share, and because tungstenite's own write buffer would
//! stay as large as the largest message for as long as the session lives. What tungstenite has to send
//! (pongs, the answer to a close) takes its turn in the same queue. The user of the transport bounds the
//! queue: [`Transport::has_space`] says when it is full.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sockets::{Acknowledged, Frames, Progress, reset_on_close};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};

use crate::code::CloseCode;
use crate::frame::{Frame, SubscriptionId};
use crate::protocol::Incoming;

/// The most bytes that one read takes. tungstenite's default is 128 KiB for every socket, but what clients
/// send is small.
const READ_BYTES: usize = 1024;
/// Frames that may wait to be written before the client is no longer read.
const MAX_QUEUED: usize = 64;
/// The same bound in bytes, if more than one frame waits: frames that an op moves here from the outbox must
/// not add up.
const MAX_QUEUED_BYTES: usize = 256 << 10;
/// Frames that one system call writes.
const MAX_SLICES: usize = 16;
/// How long a client may take to answer a close.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// How long writing the last record of TLS may take; and then how long the client may take to read what the
/// system still holds.
const END_PATIENCE: Duration = Duration::from_millis(500);
/// Bytes that the system may hold uncounted for a client that takes nothing: a close frame and a pong.
const NEGLIGIBLE: u32 = 1 << 10;
/// The most bytes that are read at the end, of those that the client has already sent.
const LEFTOVER_BYTES: usize = 64 << 10;
/// How often to look whether the client has taken what the system holds.
const LOOK: Duration = Duration::from_millis(50);

/// The largest frames of a client, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLimits {
    /// Of any op.
    pub(crate) op: u32,
    /// Of a login, whose token may be long.
    pub(crate) auth: u32,
}

impl FrameLimits {
    /// Returns the largest frame of all.
    pub(crate) fn largest(self) -> usize {
        self.op.max(self.auth) as usize
    }
}

/// An event on the socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A frame came from the client.
    Frame(Incoming),
    /// A ping or pong came.
    SignOfLife,
    /// Everything that waited is written.
    Written,
    /// The client has closed the connection, or it broke.
    Gone,
}

/// A look at a client that had been silent for too long.
#[derive(Debug, Clone, Copy)]
struct SilentLook {
    at: Instant,
    /// Bytes that the client had acknowledged by then.
    acknowledged: u64,
}

/// A client's socket after the upgrade.
#[derive(Debug)]
pub(crate) struct Transport<S> {
    stream: S,
    reader: WebSocketContext,
    /// Where the client's frames end, even those that the reader does not understand, and how many frames a
    /// message has.
    frames: Frames,
    queue: VecDeque<Frame>,
    /// Bytes of the frames in the queue, each counted until its last byte is written.
    queued: usize,
    /// Whether the stream may still hold written bytes. TCP holds none, but TLS does.
    unflushed: bool,
    /// Bytes of the first frame in the queue that are written already.
    written: usize,
    /// When the client last took a byte, or the queue got its first frame.
    progress: Progress,
    /// The last look at a client that had been silent for too long.
    silent_look: Option<SilentLook>,
    /// The bytes that the client had acknowledged when the end of its connection began.
    taken_at_end: Option<u64>,
    /// Whether the incoming bytes can still be split into frames.
    intact: bool,
    /// The largest frame of an op that is no login.
    max_frame: u32,
}

impl<S: AsyncRead + AsyncWrite + Acknowledged + Unpin> Transport<S> {
    /// Takes over a stream; `head` holds the bytes that came right behind the upgrade.
    pub(crate) fn new(stream: S, head: &[u8], limits: FrameLimits) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .max_message_size(Some(limits.largest()))
            .max_frame_size(Some(limits.largest()));
        let mut frames = Frames::of_messages_up_to(limits.op as usize);
        frames.feed(head);
        Self {
            stream,
            frames,
            reader: WebSocketContext::from_partially_read(head.to_vec(), Role::Server, Some(config)),
            queue: VecDeque::new(),
            queued: 0,
            unflushed: false,
            written: 0,
            progress: Progress::new(Instant::now()),
            silent_look: None,
            taken_at_end: None,
            intact: true,
            max_frame: limits.op,
        }
    }

    /// Queues a frame behind those that wait.
    pub(crate) fn push(&mut self, frame: Frame) {
        if self.is_idle() {
            self.progress = Progress::new(Instant::now());
        }
        self.queued += frame.len();
        self.queue.push_back(frame);
    }

    /// Returns whether everything is written.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.unflushed
    }

    /// Returns whether more answers may be queued before the client has read those that wait.
    pub(crate) fn has_space(&self) -> bool {
        self.queue.len() < MAX_QUEUED && (self.queue.len() < 2 || self.queued <= MAX_QUEUED_BYTES)
    }

    /// Returns the memory of the queue, without the bodies of its frames.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Frame>()
    }

    /// Returns when to ask [`Transport::is_stalled`] next. None: nothing waits for the client.
    pub(crate) fn next_look(&self, limit: Duration) -> Option<Instant> {
        (!self.is_idle()).then(|| self.progress.next_look(limit))
    }

    /// Returns whether something waits for the client and the client took no byte for `limit`, as far as the
    /// system can tell.
    pub(crate) fn is_stalled(&mut self, limit: Duration, now: Instant) -> bool {
        if self.is_idle() {
            return false;
        }
        if self.progress.next_look(limit) <= now {
            self.progress.look(now, self.stream.acknowledged());
        }
        self.progress.since() + limit <= now
    }

    /// Returns when the client last took something of what waits for it, as far as anybody looked. None:
    /// nothing waits.
    pub(crate) fn last_taken(&self) -> Option<Instant> {
        (!self.is_idle()).then(|| self.progress.since())
    }

    /// Returns whether the system may still hold a ping, behind bytes that the client takes slowly. Nothing
    /// was heard since `heard`; the first look after that can't tell yet whether the client takes anything.
    pub(crate) fn may_hold_a_ping(&mut self, heard: Instant, now: Instant) -> bool {
        let waits = self.stream.unacknowledged().is_some_and(|bytes| bytes > NEGLIGIBLE);
        let acknowledged = self.stream.acknowledged().filter(|_| waits);
        let look = acknowledged.map(|acknowledged| SilentLook { at: now, acknowledged });
        let before = std::mem::replace(&mut self.silent_look, look).filter(|before| before.at >= heard);
        look.is_some_and(|look| before.is_none_or(|before| look.acknowledged > before.acknowledged))
    }

    /// Notes that the process did not run for this long, so the client could be given nothing.
    pub(crate) fn on_asleep(&mut self, time: Duration) {
        self.progress.pause(time);
    }

    /// Writes what waits and, if `listen`, waits for the next event from the client. Nothing is lost when the
    /// future is dropped halfway.
    pub(crate) async fn next(&mut self, listen: bool) -> Event {
        std::future::poll_fn(|context| self.poll_next(listen, context)).await
    }

    /// Throws away the frames of which no byte was written. Returns their number.
    pub(crate) fn abandon(&mut self) -> usize {
        let begun = usize::from(self.written > 0);
        let abandoned = self.queue.len() - begun;
        self.queue.truncate(begun);
        self.count();
        abandoned
    }

    /// Throws away the frames of one subscription of which no byte was written. Returns their number.
    pub(crate) fn withdraw(&mut self, subscription: SubscriptionId) -> usize {
        let (before, mut begun) = (self.queue.len(), self.written > 0);
        self.queue.retain(|frame| std::mem::take(&mut begun) || !frame.is_of(subscription));
        self.count();
        before - self.queue.len()
    }

    fn count(&mut self) {
        self.queued = self.queue.iter().map(Frame::len).sum();
    }

    /// Writes what waits and then this close frame, for at most `patience`. Then waits for the client's close
    /// frame, for at most [`ANSWER_PATIENCE`], unless that frame has come already. A client that is slower
    /// gets no further time.
    pub(crate) async fn close(&mut self, close: Frame, patience: Duration) {
        self.push(close);
        self.taken_at_end = self.stream.acknowledged();
        self.flush(patience).await;
        if self.is_idle() {
            let _ = timeout(ANSWER_PATIENCE, self.await_close()).await;
        }
    }

    /// Writes what waits, for at most `patience`.
    pub(crate) async fn flush(&mut self, patience: Duration) {
        let write = async { while !self.is_idle() && self.next(false).await != Event::Gone {} };
        let _ = timeout(patience, write).await;
    }

    /// Ends the connection, whatever the client does. No byte may go either way afterwards. If the client has
    /// taken nothing since its end began, the bytes that the system still holds for it are thrown away; any
    /// other client gets them.
    pub(crate) async fn shut_down(mut self) {
        let before = self.taken_at_end.or_else(|| self.stream.acknowledged());
        if self.is_idle() {
            // The connection may be broken already; and TLS has something to write, which may not be
            // possible.
            let _ = timeout(END_PATIENCE, self.stream.shutdown()).await;
        }
        std::future::poll_fn(|context| self.poll_discard(context)).await;
        let stuck = match self.stream.unacknowledged() {
            Some(0..=NEGLIGIBLE) => false,
            Some(_) => {
                timeout(END_PATIENCE, self.taken()).await.is_err() && self.stream.acknowledged() == before
            }
            None => !self.is_idle(),
        };
        if stuck {
            reset_on_close(&self.stream);
        }
    }

    /// Resolves when the client has taken nearly all that was written.
    async fn taken(&self) {
        while self.stream.unacknowledged().is_some_and(|bytes| bytes > NEGLIGIBLE) {
            sleep(LOOK).await;
        }
    }

    /// Reads until the client's close frame has come, even behind bytes that can't be understood.
    async fn await_close(&mut self) {
        let mut rest = [0; 512];
        while !self.frames.are_closed()
            && let Ok(bytes @ 1..) = self.stream.read(&mut rest).await
        {
            self.frames.feed(&rest[..bytes]);
        }
    }

    /// Discards the bytes that have come already. Closing a socket with unread bytes would take the last
    /// frames back.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut rest = [0; 4 << 10];
        for _ in 0..LEFTOVER_BYTES / rest.len() {
            let mut buffer = ReadBuf::new(&mut rest);
            let read = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
            if !matches!(read, Poll::Ready(Ok(()))) || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }

    fn poll_next(&mut self, listen: bool, context: &mut Context<'_>) -> Poll<Event> {
        let written = match self.poll_write(context) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) => return Poll::Ready(Event::Gone),
            Poll::Pending => false,
        };
        // A client that gets one message after the other must still be heard.
        if listen
            && self.intact
            && let Poll::Ready(event) = self.poll_read(context)
        {
            return Poll::Ready(event);
        }
        if written { Poll::Ready(Event::Written) } else { Poll::Pending }
    }

    /// Reads one frame.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let stream = Pin::new(&mut self.stream);
        let mut tap =
            Tap { stream, context, frames: &mut self.frames, said: Vec::new(), at_end_of_frame: false };
        let read = self.reader.read(&mut tap);
        // Without this, tungstenite holds the answer to a ping or a close back until the next read.
        let _ = self.reader.flush(&mut tap);
        let (said, at_end_of_frame) = (std::mem::take(&mut tap.said), tap.at_end_of_frame);
        if !said.is_empty() {
            self.push(Frame::already_encoded(said));
        }
        match read {
            Ok(Message::Text(text)) => {
                let frame = self.bounded(Incoming::text(text.as_str()), text.len(), at_end_of_frame);
                Poll::Ready(Event::Frame(frame))
            }
            Ok(Message::Binary(bytes)) => {
                let frame = self.bounded(Incoming::binary(), bytes.len(), at_end_of_frame);
                Poll::Ready(Event::Frame(frame))
            }
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Poll::Ready(Event::SignOfLife),
            Ok(Message::Close(_)) => Poll::Ready(Event::Gone),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                if !self.frames.are_too_many() {
                    return Poll::Pending;
                }
                self.intact = false;
                Poll::Ready(Event::Frame(Incoming::violation(CloseCode::TooManyOps)))
            }
            Err(error) => {
                self.intact = false;
                Poll::Ready(broken_rule(&error))
            }
        }
    }

    /// Refuses a large frame that is no login. The buffer of a large frame is given back, unless it may hold
    /// the beginning of the next one: a session must not keep for ever what its login took.
    fn bounded(&mut self, frame: Incoming, bytes: usize, at_end_of_frame: bool) -> Incoming {
        let max_frame = self.max_frame as usize;
        if bytes > max_frame && at_end_of_frame {
            self.reader = WebSocketContext::new(Role::Server, Some(*self.reader.get_config()));
        }
        frame.bounded(bytes, max_frame)
    }

    /// Writes what waits. True: everything has just been written. False: nothing waited.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.is_idle() {
            return Poll::Ready(Ok(false));
        }
        while let Some(first) = self.queue.front() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            slices[0] = IoSlice::new(&first.bytes()[self.written..]);
            for (slice, frame) in slices.iter_mut().zip(&self.queue).skip(1) {
                *slice = IoSlice::new(frame.bytes());
            }
            let count = self.queue.len().min(MAX_SLICES);
            let stream = Pin::new(&mut self.stream);
            match std::task::ready!(stream.poll_write_vectored(context, &slices[..count]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.advance(bytes),
            }
        }
        self.queue = VecDeque::new();
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.unflushed = false;
        Poll::Ready(Ok(true))
    }

    fn advance(&mut self, bytes: usize) {
        self.progress.wrote(Instant::now());
        self.unflushed = true;
        self.written += bytes;
        while let Some(first) = self.queue.front().map(Frame::len).filter(|length| *length <= self.written) {
            self.written -= first;
            self.queued -= first;
            if let Some(frame) = self.queue.pop_front() {
                frame.written();
            }
        }
    }
}

/// Returns the event for a broken rule of RFC 6455, or for a broken connection.
fn broken_rule(error: &Error) -> Event {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else there is or will be, the socket is of no use"
    )]
    match error {
        Error::Capacity(_) => Event::Frame(Incoming::too_big()),
        Error::Utf8(_) => Event::Frame(Incoming::violation(CloseCode::NotUtf8)),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Event::Gone,
        Error::Protocol(_) => Event::Frame(Incoming::violation(CloseCode::ProtocolError)),
        _ => Event::Gone,
    }
}

/// The stream as tungstenite sees it: reads go through, and writes are collected for the queue.
struct Tap<'t, 'c, S> {
    stream: Pin<&'t mut S>,
    context: &'t mut Context<'c>,
    frames: &'t mut Frames,
    said: Vec<u8>,
    /// Whether the last bytes that were read are the end of a frame whose beginning came before.
    at_end_of_frame: bool,
}

impl<S: AsyncRead> Read for Tap<'_, '_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.frames.are_too_many() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // The rest of a frame is read without what follows, so that its buffer ends with it.
        let rest = usize::try_from(self.frames.left()).unwrap_or(usize::MAX);
        let most = if rest == 0 { buffer.len() } else { buffer.len().min(rest) };
        let mut buffer = ReadBuf::new(&mut buffer[..most]);
        match self.stream.as_mut().poll_read(self.context, &mut buffer) {
            Poll::Ready(Ok(())) => {
                self.frames.feed(buffer.filled());
                self.at_end_of_frame = rest > 0 && self.frames.left() == 0;
                Ok(buffer.filled().len())
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S> Write for Tap<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.said.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
