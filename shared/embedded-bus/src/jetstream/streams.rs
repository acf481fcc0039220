//! All streams of a bus: handles items one by one, and collects outputs that leave after the commit.
//!
//! [`Streams`] has no thread and no socket. [`Streams::handle`] and [`Streams::on_tick`] change state and
//! collect outputs. [`Streams::settle`] makes everything durable and only then hands the outputs out, in the
//! order of collecting. If a stream's store fails, its outputs since the last commit turn into errors, and
//! the stream is read anew.
//!
//! The methods are spread over files: `publish` stores, `api` answers requests, `settle` commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::clock::{self, Offset, Reading};
use super::config::StreamConfig;
use super::direct;
use super::memory::{self, Memory};
use super::request::{Item, Output, OutputKind, Route, RouteChange};
use super::reserved::Reserved;
use super::stream::Stream;
use crate::headers::Extended;
use crate::stats::{Stats, StoreSnapshot, StreamSnapshot, add};
use crate::storage::{Store, StoreError};
use crate::subject;

/// Fixed limits and settings of all streams.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// Streams at the same time.
    pub(crate) max_streams: usize,
    /// Bytes of the messages in one answer; one more message may exceed it.
    pub(crate) max_answer: usize,
    /// The leader of the streams: the id of this server.
    pub(crate) leader: String,
    /// Streams and messages that may use reserved space.
    pub(crate) reserved: Reserved,
    /// The limit of memory.
    pub(crate) memory: memory::MemoryBound,
}

/// Counters of the API.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ApiCount {
    pub(crate) total: u64,
    pub(crate) errors: u64,
}

#[derive(Debug)]
pub(crate) struct Streams {
    pub(super) store: Box<dyn Store>,
    pub(super) streams: BTreeMap<String, Stream>,
    pub(super) bounds: Bounds,
    pub(super) api: ApiCount,
    /// From the clock of the streams to the time of day.
    pub(super) offset: Offset,
    pub(super) stats: Stats,
    /// An advisory that a request has caused. The answer of the request goes first.
    pub(super) advisory: Option<Output>,
    outputs: Vec<Output>,
    output_bytes: usize,
    routes: Vec<RouteChange>,
    /// Messages refused because the store is full.
    pub(super) refused_full: u64,
    /// Whether an attempt to reclaim space failed and nothing has changed since.
    pub(super) nothing_to_reclaim: bool,
    pub(super) memory: Memory,
}

impl Streams {
    /// Opens all stored streams. [`Streams::take_routes`] then returns their routes. The clock of the streams
    /// begins with the time of day `now`; if that is not set, with [`Streams::newest`].
    pub(crate) fn open(
        mut store: Box<dyn Store>,
        bounds: Bounds,
        stats: Stats,
        now: Option<u64>,
    ) -> Result<Self, StoreError> {
        let mut streams = BTreeMap::new();
        for saved in store.streams()? {
            streams.insert(saved.name.clone(), Stream::open(&mut *store, &saved, now)?);
        }
        let routes = streams.values().flat_map(|stream| opened(&stream.config)).collect();
        let memory = Memory::new(bounds.memory);
        let api = ApiCount::default();
        let mut this = Self {
            store,
            streams,
            bounds,
            api,
            offset: Offset::default(),
            stats,
            advisory: None,
            outputs: Vec::new(),
            output_bytes: 0,
            routes,
            refused_full: 0,
            nothing_to_reclaim: false,
            memory,
        };
        this.open_api_routes();
        this.count_memory();
        Ok(this)
    }

    /// Estimates anew the memory of all streams.
    fn count_memory(&mut self) {
        let all = self.streams.values();
        let used = all.map(|stream| self.memory.of(stream.state.memory(), stream.log_size())).sum();
        self.memory.recount(used);
    }

    /// Returns when the newest message of all streams was stored.
    pub(crate) fn newest(&self) -> u64 {
        self.streams.values().map(|stream| stream.state.last_time()).max().unwrap_or(0)
    }

    /// Compares the time of day with the clock of the streams. If the time of day was set, every message
    /// keeps its age, and the logs note the step.
    pub(crate) fn look_at_clock(&mut self, reading: Reading) {
        let Some(by) = self.offset.follow(reading) else { return };
        add(&self.stats.counters().clock_steps, 1);
        tracing::warn!(
            by = clock::words(by),
            "the system's clock was set; ages of messages go on by elapsed time"
        );
        for stream in self.streams.values_mut() {
            stream.on_step(&mut *self.store, self.offset, by);
        }
    }

    /// Handles one item of the queue.
    pub(crate) fn handle(&mut self, item: &Item, now: u64) {
        match Route::read(&item.route) {
            Some(Route::Publish(stream)) => self.publish(stream, item, now),
            Some(Route::Direct(stream)) => self.direct(stream, item),
            Some(Route::Api(number)) => self.ask(number, item, now),
            None => {}
        }
    }

    /// Answers a message whose stream was deleted after the message was queued, as if the message had come
    /// later.
    pub(super) fn answer_no_stream(&mut self, item: &Item) {
        add(&self.stats.counters().stream_dropped, 1);
        let Some(reply) = &item.reply else { return };
        let headers = Extended::status("503").line("Nats-Subject", &item.message.subject).end().into();
        let subject = reply.clone();
        self.collect(Output {
            stream: None,
            kind: OutputKind::Direct,
            subject,
            headers,
            payload: Bytes::new(),
        });
    }

    fn direct(&mut self, name: &str, item: &Item) {
        let Some(reply) = &item.reply else { return };
        let Some(stream) = self.streams.get_mut(name) else {
            return self.answer_no_stream(item);
        };
        let of = format!("$JS.API.DIRECT.GET.{name}.");
        let last_of = item.message.subject.strip_prefix(of.as_bytes());
        let answers = direct::answer(stream, last_of, &item.message.payload, self.bounds.max_answer);
        let name = Arc::clone(&stream.name);
        for direct::Answer { headers, payload } in answers {
            let (stream, subject, headers) = (Some(Arc::clone(&name)), reply.clone(), headers.into());
            self.collect(Output { stream, kind: OutputKind::Direct, subject, headers, payload });
        }
    }

    pub(super) fn collect(&mut self, output: Output) {
        self.output_bytes += output.size();
        self.outputs.push(output);
    }

    /// Takes out the outputs to send.
    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        self.output_bytes = 0;
        std::mem::take(&mut self.outputs)
    }

    /// Returns the bytes of the collected outputs, about.
    pub(crate) fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    /// Takes out the changes of routes. They must be made before the next outputs leave.
    pub(crate) fn take_routes(&mut self) -> Vec<RouteChange> {
        std::mem::take(&mut self.routes)
    }

    pub(super) fn open_route(&mut self, pattern: String, sid: Vec<u8>) {
        self.routes.push(RouteChange::Open { pattern, sid });
    }

    pub(super) fn open_routes(&mut self, config: &StreamConfig) {
        self.routes.extend(opened(config));
    }

    pub(super) fn close_routes(&mut self, config: &StreamConfig) {
        self.routes.extend(opened(config).into_iter().filter_map(|change| match change {
            RouteChange::Open { sid, .. } => Some(RouteChange::Close { sid }),
            RouteChange::Close { .. } => None,
        }));
    }

    /// Whether a subject of this configuration is a subject of another stream.
    pub(super) fn overlaps(&self, config: &StreamConfig) -> bool {
        let others = self.streams.values().filter(|other| other.config.name != config.name);
        let mut theirs = others.flat_map(|other| &other.config.subjects);
        theirs.any(|one| config.subjects.iter().any(|own| subject::collide(own.as_bytes(), one.as_bytes())))
    }

    /// Does the work that is due by the clock, and publishes the snapshots.
    pub(crate) fn on_tick(&mut self, now: u64) {
        self.nothing_to_reclaim = false;
        for stream in self.streams.values_mut() {
            stream.on_tick(now);
        }
        let snapshots = self.streams.values().map(|stream| StreamSnapshot {
            name: (*stream.name).to_owned(),
            messages: stream.state.len(),
            bytes: stream.state.bytes(),
            max_bytes: StreamConfig::limit(stream.config.max_bytes).unwrap_or(0),
            subjects: stream.state.subject_count() as u64,
            ids: stream.state.ids_in_window() as u64,
            first_seq: stream.state.first_seq(),
            last_seq: stream.state.last_seq(),
            log_bytes: stream.log_size(),
        });
        self.stats.set_streams(snapshots.collect());
        let error = self.streams.values().find_map(|stream| stream.error(now));
        let store = StoreSnapshot { refused: self.refused_full, ..self.store.snapshot() };
        self.stats.set_store(store, error);
        self.count_memory();
        self.stats.set_memory(self.memory.snapshot());
    }
}

#[cfg(test)]
impl Streams {
    pub(super) fn store_now(&self) -> StoreSnapshot {
        self.store.snapshot()
    }

    pub(super) fn error_now(&self) -> Option<String> {
        self.stats.store_error()
    }

    pub(super) fn count(&self) -> usize {
        self.streams.len()
    }

    /// Returns a description of the first message that is missing in the log, or of a wrong count.
    pub(super) fn check(&mut self) -> Option<String> {
        self.streams.values_mut().find_map(|stream| {
            let all = crate::jetstream::state::Filter::All;
            let (mut next, mut found) = (stream.state.next_of(all, 0), 0);
            while let Some(seq) = next {
                found += 1;
                if !stream.read(seq).is_ok_and(|record| record.is_some_and(|record| record.seq == seq)) {
                    return Some(format!("message {seq} of {} is not in the log", stream.name));
                }
                next = stream.state.next_of(all, seq + 1);
            }
            (found != stream.state.len()).then(|| format!("{found} messages, not {}", stream.state.len()))
        })
    }
}

/// Returns the routes that lead to a stream.
fn opened(config: &StreamConfig) -> Vec<RouteChange> {
    let name = &config.name;
    let mut routes: Vec<RouteChange> = Vec::new();
    for (number, pattern) in config.subjects.iter().enumerate() {
        let sid = Route::Publish(name).sid(number);
        routes.push(RouteChange::Open { pattern: pattern.clone(), sid });
    }
    if config.allow_direct {
        for (number, rest) in ["", ".>"].iter().enumerate() {
            let pattern = format!("$JS.API.DIRECT.GET.{name}{rest}");
            routes.push(RouteChange::Open { pattern, sid: Route::Direct(name).sid(number) });
        }
    }
    routes
}
