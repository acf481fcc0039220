//! All streams of a bus: takes what waits, one by one, and says what leaves once it is kept.
//!
//! Without a thread or a socket. [`Streams::handle`] and [`Streams::on_tick`] change state and collect outputs;
//! [`Streams::settle`] makes everything durable and only then hands the outputs out, in the order they were collected.
//! If a stream's store fails, whatever it collected since then turns into errors and it is read anew.

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

/// Settings that don't change.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// How many streams there may be.
    pub(crate) max_streams: usize,
    /// Bytes of messages that one request may be answered with; one more message may go over it.
    pub(crate) max_answer: usize,
    /// Who leads the streams: this server.
    pub(crate) leader: String,
    /// What may use what is kept back.
    pub(crate) reserved: Reserved,
    /// What memory they may take.
    pub(crate) memory: memory::MemoryBound,
}

/// What the API counts about itself.
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
    /// What a request has caused besides its answer, which goes first.
    pub(super) advisory: Option<Output>,
    outputs: Vec<Output>,
    output_bytes: usize,
    routes: Vec<RouteChange>,
    /// Messages that were refused because the store is full.
    pub(super) refused_full: u64,
    /// Whether room was looked for in vain since anything changed.
    pub(super) nothing_to_reclaim: bool,
    pub(super) memory: Memory,
}

impl Streams {
    /// Opens everything that is kept. [`Streams::take_routes`] then has the subjects that lead here. `now` is the time of
    /// day, with which the clock of the streams begins; if that is not set, the clock begins with [`Streams::newest`].
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

    /// MemoryCounts anew what memory all streams take.
    fn count_memory(&mut self) {
        let all = self.streams.values();
        let used = all.map(|stream| self.memory.of(stream.state.memory(), stream.log_size())).sum();
        self.memory.recount(used);
    }

    /// When the newest message of all was stored.
    pub(crate) fn newest(&self) -> u64 {
        self.streams.values().map(|stream| stream.state.last_time()).max().unwrap_or(0)
    }

    /// Compares the time of day with the clock of the streams. If it was set, every message keeps its age, and the logs are
    /// told.
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

    /// Carries out one thing that waited.
    pub(crate) fn handle(&mut self, item: &Item, now: u64) {
        match Route::read(&item.route) {
            Some(Route::Publish(stream)) => self.publish(stream, item, now),
            Some(Route::Direct(stream)) => self.direct(stream, item),
            Some(Route::Api(number)) => self.ask(number, item, now),
            None => {}
        }
    }

    /// The stream was deleted after the message was queued: it is answered as if it had come later.
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

    /// Takes out what is to be sent.
    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        self.output_bytes = 0;
        std::mem::take(&mut self.outputs)
    }

    /// Bytes of what is collected, about.
    pub(crate) fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    /// Subjects that begin or end to lead here. They are to be changed before the next outputs leave.
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

    /// Whether a subject of these is a subject of another stream.
    pub(super) fn overlaps(&self, config: &StreamConfig) -> bool {
        let others = self.streams.values().filter(|other| other.config.name != config.name);
        let mut theirs = others.flat_map(|other| &other.config.subjects);
        theirs.any(|one| config.subjects.iter().any(|own| subject::collide(own.as_bytes(), one.as_bytes())))
    }

    /// What is due by the clock. Tells what the streams hold.
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

    /// Looks for a message that the log does not have, or a count that is wrong.
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

/// The subjects that lead to a stream.
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
