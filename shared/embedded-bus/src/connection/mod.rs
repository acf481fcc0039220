//! One connection: reads operations, keeps the timers, and ends it.
//!
//! Whatever the client does, at the end its subscriptions are gone and the gauges are right. Memory is
//! bounded by one line, one payload and the outbox. Every wait has a deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use sockets::Acknowledged;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::outbox::{LATE, Outbox};
use crate::session::{Fatal, Session};
use crate::stats::{add, subtract};
use crate::wire::encode;
use crate::wire::parse::Parser;

/// Bytes of one read, at first and at most.
const SMALLEST_READ: usize = 2 << 10;
const LARGEST_READ: usize = 64 << 10;
/// How long input of a refused client is read and dropped, so that the error reaches the client before a
/// reset does.
const LINGER: Duration = Duration::from_millis(200);

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The client closed the connection, or the network failed.
    Client,
    /// The server closes the connection.
    Fatal(Fatal),
    /// The outbox is closed: a slow consumer, or a socket that can't be written to.
    Cut,
    /// The bus ends.
    Shutdown,
}

/// Removes a connection from the subscriptions and the gauges when dropped, even if its task panics.
struct Registration {
    bus: Arc<Bus>,
    id: u64,
    outbox: Arc<Outbox>,
}

impl Registration {
    fn unsubscribe_all(&self) {
        let removed = self.bus.router_mut().disconnect(self.id);
        subtract(&self.bus.stats.counters().subscriptions, removed as u64);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.bus.on_panic(self.id);
        }
        self.unsubscribe_all();
        self.outbox.close(&[]);
        subtract(&self.bus.stats.counters().connections, 1);
    }
}

/// Serves one connection until it ends. `id` is unique. The caller has counted the connection.
pub(crate) async fn serve<R, W>(bus: Arc<Bus>, id: u64, client_ip: String, mut reader: R, writer: W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Acknowledged + Send + Unpin + 'static,
{
    let gone = bus.stop.child_token();
    let outbox = Arc::new(Outbox::new(id, bus.config.max_pending_bytes, bus.stats.clone(), gone.clone()));
    let registration = Registration { bus: Arc::clone(&bus), id, outbox: Arc::clone(&outbox) };
    let reading = bus.readers.token();
    outbox.answer(&encode::info(&bus.info.json(id, &client_ip, false)));
    let (queue, deadline) = (Arc::clone(&outbox), bus.config.write_deadline);
    let writing = bus.tasks.spawn(async move { queue.write_to(writer, deadline).await });

    let mut session = Session::new(Arc::clone(&bus), id, Arc::clone(&outbox));
    let farewell = || encode::info(&bus.info.json(id, &client_ip, true));
    let end = read(&bus, &mut session, &mut reader, (&gone, &farewell)).await;
    drop(session);
    let last_words = match end {
        End::Client | End::Cut => Vec::new(),
        End::Fatal(fatal) => {
            count(&bus, id, fatal);
            encode::error(fatal.text())
        }
        End::Shutdown => {
            drop(reading);
            bus.flush.cancelled().await;
            Vec::new()
        }
    };
    registration.unsubscribe_all();
    outbox.close(&last_words);
    // A panic of the writer ends this connection and no other.
    if writing.await.is_err_and(|error| error.is_panic()) {
        bus.on_panic(id);
    }
    if matches!(end, End::Fatal(_)) {
        linger(&mut reader).await;
    }
}

/// Reads and carries out operations until the connection has to end.
async fn read<R: AsyncRead + Unpin>(
    bus: &Bus,
    session: &mut Session,
    reader: &mut R,
    (gone, farewell): (&CancellationToken, &(dyn Fn() -> Vec<u8> + Sync)),
) -> End {
    let config = &bus.config;
    let mut parser = Parser::new(config.max_control_line, config.max_payload);
    let mut buffer = ReadBuffer::default();
    let mut active = false;
    let first = if session.is_admitted() { config.ping_interval } else { config.auth_timeout };
    let timer = sleep_until(Instant::now() + first);
    tokio::pin!(timer);
    let cancelled = gone.cancelled();
    tokio::pin!(cancelled);
    let mut told = false;
    let mut was_admitted = session.is_admitted();
    loop {
        buffer.bytes.reserve(buffer.next_read);
        tokio::select! {
            biased;
            () = bus.leaving.cancelled(), if !told => {
                told = true;
                session.tell(&farewell());
                continue;
            }
            () = &mut cancelled => return if bus.stop.is_cancelled() { End::Shutdown } else { End::Cut },
            () = &mut timer => {
                let late = Instant::now().saturating_duration_since(timer.deadline()) > LATE;
                // The process did not run. Input that came meanwhile is read before the client is judged.
                if !late && let Err(fatal) = on_timer(session, &mut active) {
                    return End::Fatal(fatal);
                }
                let next = if late { LATE } else { config.ping_interval };
                timer.as_mut().reset(Instant::now() + next);
                continue;
            }
            read = reader.read_buf(&mut buffer.bytes) => match read {
                Ok(0) | Err(_) => return End::Client,
                Ok(count) => {
                    add(&bus.stats.counters().bytes_in, count as u64);
                    active = true;
                    buffer.adapt(count);
                }
            },
        }
        if let Err(fatal) = carry_out(session, &mut parser, &mut buffer.bytes, gone).await {
            return End::Fatal(fatal);
        }
        if session.is_admitted() && !was_admitted {
            was_admitted = true;
            timer.as_mut().reset(Instant::now() + config.ping_interval);
        }
        buffer.release();
    }
}

/// Judges the client when its timer has run out. `active` says whether input came since the last time.
fn on_timer(session: &mut Session, active: &mut bool) -> Result<(), Fatal> {
    if !session.is_admitted() {
        return Err(Fatal::AuthenticationTimeout);
    }
    session.on_interval(std::mem::take(active))?;
    session.batch().wake();
    Ok(())
}

/// The input of a connection, and the size of its reads.
struct ReadBuffer {
    bytes: BytesMut,
    next_read: usize,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), next_read: SMALLEST_READ }
    }
}

impl ReadBuffer {
    /// Doubles the size of reads after a full one, and halves it after one below a quarter.
    fn adapt(&mut self, count: usize) {
        if self.bytes.len() == self.bytes.capacity() {
            self.next_read = (self.next_read * 2).min(LARGEST_READ);
        } else if count < self.next_read / 4 {
            self.next_read = (self.next_read / 2).max(SMALLEST_READ);
        }
    }

    /// Gives an empty buffer back that is much larger than the next read.
    fn release(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > 2 * self.next_read {
            self.bytes = BytesMut::new();
        }
    }
}

/// Carries out every complete operation in the buffer and leaves the rest there.
async fn carry_out(
    session: &mut Session,
    parser: &mut Parser,
    buffer: &mut BytesMut,
    gone: &CancellationToken,
) -> Result<(), Fatal> {
    let mut used = 0;
    loop {
        session.screen(&buffer[used..])?;
        let Some((operation, taken)) = parser.next(&buffer[used..]).map_err(Fatal::Wire)? else { break };
        session.handle(operation)?;
        used += taken;
        if session.batch().is_full() {
            settle(session, gone).await;
            if gone.is_cancelled() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    buffer.advance(used);
    settle(session, gone).await;
    Ok(())
}

/// Settles the batch of the session, but waits no longer than the connection lives.
async fn settle(session: &mut Session, gone: &CancellationToken) {
    tokio::select! {
        biased;
        () = session.batch().settle() => {}
        () = gone.cancelled() => {}
    }
}

fn count(bus: &Bus, connection: u64, fatal: Fatal) {
    let counters = bus.stats.counters();
    let counter = match fatal {
        Fatal::Authorization | Fatal::AuthenticationTimeout => &counters.authorization_failures,
        Fatal::Stale => &counters.stale_connections,
        Fatal::Wire(_)
        | Fatal::Connect
        | Fatal::ClientProtocol
        | Fatal::NoRespondersWithoutHeaders
        | Fatal::HeadersNotSupported
        | Fatal::ClientError => &counters.protocol_errors,
    };
    add(counter, 1);
    tracing::debug!(connection, reason = fatal.text(), "connection closed by the bus");
}

/// Reads and drops input before the close. Closing a socket with unread input resets it, and a reset may
/// overtake the error that was just written.
async fn linger<R: AsyncRead + Unpin>(reader: &mut R) {
    let mut scrap = [0; 4096];
    let until_closed = async { while matches!(reader.read(&mut scrap).await, Ok(1..)) {} };
    // The connection ends either way.
    let _ = timeout(LINGER, until_closed).await;
}

#[cfg(test)]
mod tests;
