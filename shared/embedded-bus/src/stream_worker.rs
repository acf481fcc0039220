//! The stream worker: the one thread that owns all streams of a bus.
//!
//! The worker ends when its queue is closed and empty: all accepted messages are then stored and
//! acknowledged. However it ends, it closes the queue, so that nobody waits in vain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Target};
use crate::config::{Storage, StreamsConfig};
use crate::delivery::Batch;
use crate::error::{BindError, StoreError, StreamsError};
use crate::jetstream::clock::{self, Clock};
use crate::jetstream::{
    Bounds, Item, MemoryBound, Output, Reserved, RouteChange, StreamQueue, Streams, Taken, time,
};
use crate::routing::Subscriber;
use crate::storage;
use crate::wire::Publish;

/// How often the streams do the work that is due by the clock.
const TICK: Duration = Duration::from_millis(200);
/// Bytes of outputs that are collected before a commit.
const FULL_OUTPUT: usize = 4 << 20;
/// Messages that are handled before a commit.
const FULL_BATCH: usize = 4096;
/// One answer may fill this fraction of a connection's pending bytes.
const ANSWER_PART: usize = 4;
/// The connection id of the streams' routes. The ids of clients count from 1.
const OWN: u64 = 0;

/// A handle on the running thread.
#[derive(Debug)]
pub(crate) struct StreamWorker {
    queue: Arc<StreamQueue>,
    /// Cancelled when the thread is gone.
    ended: CancellationToken,
}

impl StreamWorker {
    /// Starts the thread if the bus has streams, and waits until they are open.
    pub(crate) async fn start(bus: &Arc<Bus>) -> Result<Option<Self>, BindError> {
        let (Some(config), Some(queue)) = (bus.config.streams.clone(), &bus.stream_queue) else {
            return Ok(None);
        };
        let (tell_opened, opened) = oneshot::channel();
        let ended = CancellationToken::new();
        let tell_ended = ended.clone().drop_guard();
        let (thread_bus, thread_queue) = (Arc::clone(bus), Arc::clone(queue));
        let run = move || {
            // Dropped last, whatever happens before.
            let _ended = tell_ended;
            let _close_guard = CloseGuard(Arc::clone(&thread_queue));
            match open(&thread_bus, &config) {
                Ok(mut running) => {
                    running.change_routes();
                    if tell_opened.send(Ok(())).is_ok() {
                        running.run(&thread_queue);
                    }
                }
                // If this can't be sent, nobody waits for it any more.
                Err(error) => drop(tell_opened.send(Err(error))),
            }
        };
        let spawned = std::thread::Builder::new().name("bus-streams".to_owned()).spawn(run);
        spawned.map_err(StreamsError::Thread)?;
        let this = Self { queue: Arc::clone(queue), ended };
        match opened.await {
            Ok(Ok(())) => Ok(Some(this)),
            Ok(Err(error)) => Err(StreamsError::from(error).into()),
            Err(_) => Err(StreamsError::Panicked.into()),
        }
    }

    /// Accepts nothing more, and waits until all accepted messages are stored and answered.
    pub(crate) async fn end(self) {
        self.queue.close();
        self.ended.cancelled().await;
    }

    /// Returns a token that is cancelled when the thread is gone.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}

/// Ends the thread of a bus that is dropped.
impl Drop for StreamWorker {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Closes the queue when the thread ends, so that nobody waits for it.
struct CloseGuard(Arc<StreamQueue>);

impl Drop for CloseGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the thread of the streams panicked: nothing more is stored, and the bus ends");
        }
        self.0.close();
    }
}

fn open(bus: &Arc<Bus>, config: &StreamsConfig) -> Result<Running, StoreError> {
    let begun = Instant::now();
    let store = storage::open(&config.storage)?;
    let bounds = Bounds {
        max_streams: config.max_streams,
        max_answer: bus.config.max_pending_bytes / ANSWER_PART,
        leader: bus.info.server_id().to_owned(),
        reserved: Reserved {
            streams: config.reserved_streams.clone(),
            header: config.reserved_header.clone(),
        },
        memory: MemoryBound {
            max: config.max_memory,
            holds_messages: matches!(config.storage, Storage::Memory),
        },
    };
    let set = clock::wall();
    let streams = Streams::open(store, bounds, bus.stats.clone(), set)?;
    let clock = Clock::starting_at(set.unwrap_or_else(|| unset(&streams)));
    tracing::info!(storage = ?config.storage, took_ms = begun.elapsed().as_millis() as u64, "streams are open");
    Ok(Running { bus: Arc::clone(bus), streams, clock, batch: Batch::of_streams(bus.stats.clone()) })
}

/// Returns the first time of the streams' clock while the system's clock is not set.
fn unset(streams: &Streams) -> u64 {
    let begins_at = streams.newest().max(time::now());
    tracing::warn!(
        begins_at = time::format(begins_at),
        "the system's clock is not set: ages of messages go on from the newest one; set the clock"
    );
    begins_at
}

struct Running {
    bus: Arc<Bus>,
    streams: Streams,
    clock: Clock,
    batch: Batch,
}

impl Running {
    fn run(&mut self, queue: &StreamQueue) {
        let mut next_tick = Instant::now();
        loop {
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.look_at_clock();
                self.streams.on_tick(self.clock.now());
                self.flush();
                self.note_depth(queue);
            }
            match queue.take(next_tick.saturating_duration_since(Instant::now())) {
                Taken::Items(items) => self.carry_out(items.into()),
                Taken::Nothing => {}
                Taken::Ended => break,
            }
        }
        self.note_depth(queue);
    }

    /// Notices when the system's clock was set. Called only while nothing waits for a commit.
    fn look_at_clock(&mut self) {
        if let Some(reading) = self.clock.look() {
            self.streams.look_at_clock(reading);
        }
    }

    fn carry_out(&mut self, items: Vec<Item>) {
        self.look_at_clock();
        let mut taken = 0;
        for item in items {
            self.streams.handle(&item, self.clock.now());
            self.change_routes();
            taken += 1;
            if taken >= FULL_BATCH || self.streams.output_bytes() >= FULL_OUTPUT {
                taken = 0;
                self.flush();
            }
        }
        self.flush();
    }

    /// Commits the handled messages, and sends the outputs.
    fn flush(&mut self) {
        for output in self.streams.settle(self.clock.now()) {
            self.send(&output);
            if self.batch.is_full() {
                self.batch.settle_blocking();
            }
        }
        self.batch.settle_blocking();
    }

    fn send(&mut self, output: &Output) {
        let publish = Publish {
            subject: &output.subject,
            reply: None,
            headers: &output.headers,
            payload: &output.payload,
            with_headers: !output.headers.is_empty(),
        };
        self.bus.deliver(&publish, None, &mut self.batch);
    }

    fn change_routes(&mut self) {
        let changes = self.streams.take_routes();
        if changes.is_empty() {
            return;
        }
        let mut router = self.bus.router_mut();
        for change in changes {
            match change {
                RouteChange::Open { pattern, sid } => {
                    let subscriber = Subscriber { connection: OWN, target: Target::Streams };
                    router.subscribe(subscriber, pattern.as_bytes(), None, &sid);
                }
                RouteChange::Close { sid } => {
                    router.unsubscribe(OWN, &sid, None);
                }
            }
        }
    }

    fn note_depth(&self, queue: &StreamQueue) {
        let depth = queue.depth();
        let counters = self.bus.stats.counters();
        counters.stream_queued.store(depth.items as u64, std::sync::atomic::Ordering::Relaxed);
        counters.stream_queued_bytes.store(depth.bytes as u64, std::sync::atomic::Ordering::Relaxed);
    }
}
