//! The bytes that one connection has yet to be sent, and the task that writes them.
//!
//! Any thread may append, and appending never waits. Bytes leave in the order of appending, many in one
//! write. At most `bound` bytes wait: a connection that would exceed them is cut off as a slow consumer, at
//! no cost to others. After [`Outbox::close`] nothing more is accepted, and the pending bytes have
//! [`CLOSE_DEADLINE`] to leave.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sockets::{Acknowledged, Progress};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::stats::{Stats, add};
use crate::wire::{Publish, encode};

/// How long a closing connection may take to accept its pending bytes.
pub(crate) const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// Publishers do not wait for a receiver whose socket takes nothing for this long. The system reports space
/// in a full socket only once a good part of its own buffer is free, so a healthy receiver stands still for
/// tens of milliseconds.
const PATIENCE: Duration = Duration::from_millis(250);
/// A timer this late means that the process did not run for a while.
pub(crate) const LATE: Duration = Duration::from_millis(500);
/// The capacity that an empty buffer retains; more is given back.
const RETAINED_CAPACITY: usize = 16 << 10;

/// The pending bytes of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    connection: u64,
    bound: usize,
    stats: Stats,
    /// Lock order: the router's lock before this one; never two outboxes at a time; never held across an
    /// await.
    state: Mutex<Backlog>,
    /// Wakes the writer: bytes were appended, or the outbox closes.
    writer: Notify,
    /// Wakes publishers that were held back: there is space again.
    space: Notify,
    /// Cancelled when the connection can't go on, so that its reader ends too.
    gone: CancellationToken,
    /// Whether the client wants header blocks.
    headers: AtomicBool,
}

#[derive(Debug, Default)]
struct Backlog {
    waiting: Vec<u8>,
    waiting_messages: u64,
    /// Bytes that the writer has taken and not yet written.
    writing: usize,
    writing_messages: u64,
    /// When the socket last took bytes, or was last given some after it had taken all.
    progress: Option<Instant>,
    /// Whether the writer is at work, or a publisher has promised to wake it.
    awake: bool,
    /// Whether a publisher may be waiting for space.
    crowded: bool,
    /// The deadline for writing the rest, once the outbox closes.
    close_by: Option<Instant>,
}

impl Backlog {
    fn pending(&self) -> usize {
        self.waiting.len() + self.writing
    }

    /// Whether publishers should wait for this socket.
    fn is_responsive(&self) -> bool {
        self.progress.is_none_or(|progress| progress.elapsed() < PATIENCE)
    }
}

/// The result of appending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// The bytes wait. With `wake` the caller has to call [`Outbox::wake`] soon; with `crowded` it should
    /// slow down.
    Queued { wake: bool, crowded: bool },
    /// The connection is closing.
    Refused,
}

enum NextWrite {
    Write,
    Idle,
    Done,
}

/// Why the writer gave up.
enum WriteFailure {
    /// The socket took nothing for too long.
    Deadline,
    /// The client is gone.
    Broken,
}

impl Outbox {
    pub(crate) fn new(connection: u64, bound: usize, stats: Stats, gone: CancellationToken) -> Self {
        Self {
            connection,
            bound,
            stats,
            state: Mutex::default(),
            writer: Notify::new(),
            space: Notify::new(),
            gone,
            headers: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        // Every change of the backlog is complete before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whether this client wants header blocks.
    pub(crate) fn set_headers(&self, wanted: bool) {
        self.headers.store(wanted, Relaxed);
    }

    /// Appends a message for the subscription `sid`.
    pub(crate) fn deliver(&self, message: &Publish<'_>, sid: &[u8]) -> Push {
        let headers = self.headers.load(Relaxed);
        self.push(encode::message_bound(message, sid), true, |out| {
            encode::message(out, message, sid, headers)
        })
    }

    /// Appends an answer.
    pub(crate) fn answer(&self, bytes: &[u8]) -> Push {
        self.push(bytes.len(), false, |out| out.extend_from_slice(bytes))
    }

    fn push(&self, size: usize, message: bool, write: impl FnOnce(&mut Vec<u8>)) -> Push {
        let mut state = self.lock();
        if state.close_by.is_some() {
            return Push::Refused;
        }
        let pending = state.pending() + size;
        if pending > self.bound {
            state.waiting_messages += u64::from(message);
            self.cut_off(state, "too many bytes wait for it");
            return Push::Refused;
        }
        write(&mut state.waiting);
        state.waiting_messages += u64::from(message);
        let crowded = pending > self.bound / 4 * 3 && state.is_responsive();
        state.crowded |= crowded;
        let wake = !std::mem::replace(&mut state.awake, true);
        Push::Queued { wake, crowded }
    }

    /// Cuts off a slow consumer: drops the pending bytes, so that the reason follows right behind the bytes
    /// being written.
    fn cut_off(&self, mut state: MutexGuard<'_, Backlog>, reason: &str) {
        let pending = state.pending();
        add(&self.stats.counters().slow_consumers, 1);
        add(&self.stats.counters().messages_discarded, std::mem::take(&mut state.waiting_messages));
        state.waiting = encode::error("Slow Consumer");
        state.close_by = Some(Instant::now() + CLOSE_DEADLINE);
        drop(state);
        self.writer.notify_one();
        self.space.notify_waiters();
        self.gone.cancel();
        tracing::warn!(
            connection = self.connection,
            pending_bytes = pending,
            reason,
            "slow consumer cut off"
        );
    }

    /// Wakes the writer.
    pub(crate) fn wake(&self) {
        self.writer.notify_one();
    }

    /// Accepts nothing more, except these last words. The pending bytes still have [`CLOSE_DEADLINE`].
    pub(crate) fn close(&self, last_words: &[u8]) {
        let mut state = self.lock();
        if state.close_by.is_none() {
            state.close_by = Some(Instant::now() + CLOSE_DEADLINE);
            state.waiting.extend_from_slice(last_words);
        }
        drop(state);
        self.writer.notify_one();
        self.space.notify_waiters();
    }

    /// Whether at most half of the bound is pending, or nothing more is accepted.
    pub(crate) fn has_space(&self) -> bool {
        let state = self.lock();
        state.close_by.is_some() || state.pending() <= self.bound / 2
    }

    /// Waits until [`Outbox::has_space`], or until the deadline.
    pub(crate) async fn wait_for_space(&self, deadline: Instant) {
        loop {
            let space = self.space.notified();
            tokio::pin!(space);
            // Registered before the check, so that no wake-up is lost in between.
            space.as_mut().enable();
            if self.has_space() {
                return;
            }
            if timeout_at(deadline, space).await.is_err() {
                return;
            }
        }
    }

    /// Writes until the outbox is closed and empty, or the socket fails. Called once.
    pub(crate) async fn write_to<W>(&self, mut socket: W, write_deadline: Duration)
    where
        W: AsyncWrite + Acknowledged + Unpin,
    {
        let mut batch = Vec::new();
        loop {
            match self.take(&mut batch) {
                NextWrite::Idle => {
                    batch.shrink_to(RETAINED_CAPACITY);
                    self.writer.notified().await;
                }
                NextWrite::Done => {
                    // The client may have stopped reading; the connection ends either way.
                    let _ = timeout(CLOSE_DEADLINE, socket.shutdown()).await;
                    break;
                }
                NextWrite::Write => match self.write(&mut socket, &batch, write_deadline).await {
                    Ok(()) => {}
                    Err(WriteFailure::Broken) => break,
                    Err(WriteFailure::Deadline) => {
                        let state = self.lock();
                        if state.close_by.is_none() {
                            self.cut_off(state, "its socket took nothing for too long");
                        }
                        break;
                    }
                },
            }
        }
        self.end();
    }

    fn take(&self, batch: &mut Vec<u8>) -> NextWrite {
        batch.clear();
        let mut state = self.lock();
        state.writing_messages = 0;
        if state.waiting.is_empty() {
            if state.close_by.is_some() {
                return NextWrite::Done;
            }
            state.awake = false;
            state.waiting.shrink_to(RETAINED_CAPACITY);
            return NextWrite::Idle;
        }
        state.awake = true;
        std::mem::swap(&mut state.waiting, batch);
        state.writing = batch.len();
        state.progress = Some(Instant::now());
        state.writing_messages = std::mem::take(&mut state.waiting_messages);
        NextWrite::Write
    }

    async fn write<W: AsyncWrite + Acknowledged + Unpin>(
        &self,
        socket: &mut W,
        batch: &[u8],
        write_deadline: Duration,
    ) -> Result<(), WriteFailure> {
        let mut rest = batch;
        let mut progress = Progress::new(Instant::now());
        while !rest.is_empty() {
            let close_by = self.lock().close_by;
            let look = progress.next_look(write_deadline);
            let deadline = close_by.map_or(look, |close_by| close_by.min(look));
            tokio::select! {
                biased;
                written = timeout_at(deadline, socket.write(rest)) => match written {
                    Err(_) => {
                        let now = Instant::now();
                        if deadline == look && now.saturating_duration_since(deadline) > LATE {
                            // The process did not run for a while, so the client's time begins now.
                            progress.wrote(now);
                            continue;
                        }
                        // A full socket reports space late; the kernel knows how many bytes left it.
                        progress.look(now, socket.acknowledged());
                        let closes = close_by.is_some_and(|close_by| close_by <= now);
                        if closes || progress.since() + write_deadline <= now {
                            return Err(WriteFailure::Deadline);
                        }
                    }
                    Ok(Ok(count)) if count > 0 => {
                        rest = &rest[count..];
                        let now = Instant::now();
                        progress.wrote(now);
                        self.wrote(count);
                        if close_by.is_some_and(|close_by| close_by <= now) {
                            return Err(WriteFailure::Deadline);
                        }
                    }
                    Ok(Ok(_) | Err(_)) => return Err(WriteFailure::Broken),
                },
                // While the writer writes, only `close` and `cut_off` wake it: the deadline has changed.
                () = self.writer.notified() => {}
            }
        }
        Ok(())
    }

    fn wrote(&self, count: usize) {
        add(&self.stats.counters().bytes_out, count as u64);
        let mut state = self.lock();
        state.writing -= count;
        state.progress = Some(Instant::now());
        if state.crowded && state.pending() <= self.bound / 2 {
            state.crowded = false;
            drop(state);
            self.space.notify_waiters();
        }
    }

    /// Ends writing: counts the lost messages and frees their bytes.
    fn end(&self) {
        let mut state = self.lock();
        state.close_by.get_or_insert_with(Instant::now);
        let partly = if state.writing > 0 { state.writing_messages } else { 0 };
        add(&self.stats.counters().messages_discarded, state.waiting_messages + partly);
        state.waiting = Vec::new();
        (state.waiting_messages, state.writing, state.writing_messages) = (0, 0, 0);
        drop(state);
        self.space.notify_waiters();
        self.gone.cancel();
    }
}

#[cfg(test)]
mod tests;
