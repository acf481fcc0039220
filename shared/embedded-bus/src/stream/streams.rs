//! All streams of a bus: takes what waits, one by one, and says what leaves once it is kept.
//!
//! Without a thread or a socket. [`Streams::handle`] and [`Streams::on_tick`] change state and collect outputs;
//! [`Streams::settle`] makes everything durable and only then hands the outputs out, in the order they were collected.
//! If a stream's store fails, whatever it collected since then turns into errors and it is read anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::api::{self, Endpoint};
use super::clock::{self, Offset};
use super::config::StreamConfig;
use super::direct;
use super::error::ApiError;
use super::headers::Extended;
use super::memory::{self, Memory};
use super::one::{Admission, Message, Stored, Stream};
use super::publish;
use super::request::{Item, Kind, Output, Route, RouteChange};
use super::reserved::Reserved;
use crate::stats::{Stats, StoreSnapshot, StreamSnapshot, add};
use crate::storage::{Claim, LogError, Store};
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
    pub(crate) memory: memory::Bound,
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
    stats: Stats,
    /// What a request has caused besides its answer, which goes first.
    pub(super) advisory: Option<Output>,
    outputs: Vec<Output>,
    output_bytes: usize,
    routes: Vec<RouteChange>,
    /// Messages that were refused because the store is full.
    refused_full: u64,
    /// Whether room was looked for in vain since anything changed.
    has_no_more_room: bool,
    memory: Memory,
}

impl Streams {
    /// Opens everything that is kept. [`Streams::take_routes`] then has the subjects that lead here. `now` is the time of
    /// day, with which the clock of the streams begins; if that is not set, the clock begins with [`Streams::newest`].
    pub(crate) fn open(
        mut store: Box<dyn Store>,
        bounds: Bounds,
        stats: Stats,
        now: Option<u64>,
    ) -> Result<Self, LogError> {
        let mut streams = BTreeMap::new();
        for saved in store.streams()? {
            streams.insert(saved.name.clone(), Stream::open(&mut *store, &saved, now)?);
        }
        let mut routes: Vec<RouteChange> = Vec::new();
        for (number, (pattern, _)) in api::ENDPOINTS.iter().enumerate() {
            let sid = Route::Api(number).sid(0);
            routes.push(RouteChange::Open { pattern: (*pattern).to_owned(), sid });
        }
        for stream in streams.values() {
            routes.extend(opened(&stream.config));
        }
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
            has_no_more_room: false,
            memory,
        };
        this.count_memory();
        Ok(this)
    }

    /// Counts anew what memory all streams take.
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
    pub(crate) fn look_at_clock(&mut self, now: u64, wall: u64) {
        let Some(by) = self.offset.follow(now, wall) else { return };
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
            Some(Route::Api(number)) => {
                if let Some((pattern, endpoint)) = api::ENDPOINTS.get(number) {
                    self.ask(pattern, *endpoint, item, now);
                }
            }
            None => {}
        }
    }

    fn publish(&mut self, name: &str, item: &Item, now: u64) {
        let Some(stream) = self.streams.get(name) else {
            return self.tell_nobody(item);
        };
        let (name, no_ack) = (Arc::clone(&stream.name), stream.config.no_ack);
        let result = self.store(&name, &item.message, now);
        let counters = self.stats.counters();
        let answer = match result {
            Ok(Stored::New { seq, copy }) => {
                self.has_no_more_room = false;
                add(&counters.stream_stored, 1);
                if let Some(copy) = copy {
                    let (subject, headers, payload) = (copy.subject, copy.headers, copy.payload);
                    let stream = Some(Arc::clone(&name));
                    self.collect(Output { stream, kind: Kind::Copy, subject, headers, payload });
                }
                publish::acknowledgement(&name, seq)
            }
            Ok(Stored::Duplicate { seq }) => {
                add(&counters.stream_duplicates, 1);
                publish::duplicate(&name, seq)
            }
            Err(error) => {
                add(&counters.stream_refused, u64::from(!error.is_expectation()));
                self.refused_full += u64::from(error.is_full());
                publish::refusal(&name, &error)
            }
        };
        if let Some(reply) = &item.reply
            && !no_ack
        {
            let (stream, subject) = (Some(name), reply.clone());
            self.collect(Output { stream, kind: Kind::Ack, subject, headers: Bytes::new(), payload: answer });
        }
    }

    /// Stores a message; if there is no room, after giving room back, or where only some may store.
    fn store(&mut self, name: &str, message: &Message, now: u64) -> Result<Stored, ApiError> {
        let erases = self.bounds.reserved.is_mark(message);
        let mut result = self.try_to_store(name, message, (Claim::Common, erases), now);
        if result.as_ref().is_err_and(ApiError::is_full_disk) && self.make_room(name, message, now) {
            result = self.try_to_store(name, message, (Claim::Common, erases), now);
        }
        let is_kept_out = result.as_ref().is_err_and(|error| error.is_full() || error.is_limit());
        if is_kept_out && self.bounds.reserved.claim_of(name, erases) == Claim::Reserved {
            result = self.try_to_store(name, message, (Claim::Reserved, erases), now);
        }
        result
    }

    fn try_to_store(
        &mut self,
        name: &str,
        message: &Message,
        (claim, erases): (Claim, bool),
        now: u64,
    ) -> Result<Stored, ApiError> {
        let stream = self.streams.get_mut(name).ok_or_else(ApiError::no_stream)?;
        let memory = &mut self.memory;
        let before = memory.of(stream.state.memory(), stream.log_size());
        let admission = Admission { claim, crowded: memory.refuses(claim), erases };
        let result = stream.publish(message, admission, now);
        memory.changed(before, memory.of(stream.state.memory(), stream.log_size()));
        result
    }

    /// Gives room back where that costs least, until there is some for a message. Whether there is; if not, it is not
    /// looked for again before something changes, because each refused message would look for it.
    fn make_room(&mut self, name: &str, message: &Message, now: u64) -> bool {
        if self.has_no_more_room {
            return false;
        }
        // Each file at most once.
        for _ in 0..self.store.snapshot().segments {
            if self.streams.get(name).is_some_and(|stream| stream.room(message, Claim::Common).is_ok()) {
                return true;
            }
            let all = self.streams.values_mut().filter_map(|stream| Some((stream.reclaimable()?, stream)));
            let best = all.reduce(|best, one| if one.0.is_better_than(best.0) { one } else { best });
            let Some((_, stream)) = best else { break };
            if stream.reclaim(now).is_err() {
                break;
            }
        }
        self.has_no_more_room =
            self.streams.get(name).is_none_or(|stream| stream.room(message, Claim::Common).is_err());
        !self.has_no_more_room
    }

    /// The stream was deleted after the message was queued: it is answered as if it had come later.
    fn tell_nobody(&mut self, item: &Item) {
        add(&self.stats.counters().stream_dropped, 1);
        let Some(reply) = &item.reply else { return };
        let headers = Extended::status("503").line("Nats-Subject", &item.message.subject).end().into();
        let subject = reply.clone();
        self.collect(Output { stream: None, kind: Kind::Direct, subject, headers, payload: Bytes::new() });
    }

    fn direct(&mut self, name: &str, item: &Item) {
        let Some(reply) = &item.reply else { return };
        let Some(stream) = self.streams.get_mut(name) else {
            return self.tell_nobody(item);
        };
        let of = format!("$JS.API.DIRECT.GET.{name}.");
        let last_of = item.message.subject.strip_prefix(of.as_bytes());
        let answers = direct::answer(stream, last_of, &item.message.payload, self.bounds.max_answer);
        let name = Arc::clone(&stream.name);
        for (headers, payload) in answers {
            let (stream, subject) = (Some(Arc::clone(&name)), reply.clone());
            self.collect(Output { stream, kind: Kind::Direct, subject, headers: headers.into(), payload });
        }
    }

    fn ask(&mut self, pattern: &str, endpoint: Endpoint, item: &Item, now: u64) {
        let place = pattern.split('.').count() - 1;
        let subject = std::str::from_utf8(&item.message.subject).unwrap_or_default();
        let name = subject.split('.').nth(place).unwrap_or_default().to_owned();
        let answer = self.call(endpoint, &name, &item.message.payload, now);
        self.has_no_more_room = false;
        self.api.total += 1;
        self.api.errors += u64::from(answer.is_error);
        if let Some(reply) = item.reply.clone() {
            let stream = self.streams.get(&name).map(|stream| Arc::clone(&stream.name));
            let kind = Kind::Api(endpoint.kind());
            self.collect(Output {
                stream,
                kind,
                subject: reply,
                headers: Bytes::new(),
                payload: answer.json,
            });
        }
        if let Some(advisory) = self.advisory.take() {
            self.collect(advisory);
        }
    }

    fn collect(&mut self, output: Output) {
        self.output_bytes += output.size();
        self.outputs.push(output);
    }

    /// Bytes of what is collected, about.
    pub(crate) fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    /// Subjects that begin or end to lead here. They are to be changed before the next outputs leave.
    pub(crate) fn take_routes(&mut self) -> Vec<RouteChange> {
        std::mem::take(&mut self.routes)
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

    /// Makes everything durable, and gives what is to be sent.
    pub(crate) fn settle(&mut self, now: u64) -> Vec<Output> {
        let begun = std::time::Instant::now();
        let committed = self.streams.values_mut().filter_map(|stream| stream.commit().then_some(())).count();
        if committed > 0 {
            let counters = self.stats.counters();
            add(&counters.stream_commits, committed as u64);
            add(
                &counters.stream_commit_micros,
                u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            );
        }
        self.output_bytes = 0;
        let outputs = std::mem::take(&mut self.outputs);
        if self.streams.values().all(|stream| stream.usable().is_ok()) {
            return outputs;
        }
        let failed: BTreeMap<Arc<str>, ApiError> = self
            .streams
            .values()
            .filter_map(|stream| Some((Arc::clone(&stream.name), stream.usable().err()?)))
            .collect();
        for stream in self.streams.values_mut().filter(|stream| stream.usable().is_err()) {
            if stream.recover(&mut *self.store, now) {
                add(&self.stats.counters().stream_failures, 1);
            }
        }
        let (mut refused, mut full) = (0, 0);
        let told = |output: Output| match output.stream.as_ref().and_then(|stream| failed.get(stream)) {
            Some(error) => {
                let was_stored = output.kind == Kind::Ack;
                refused += u64::from(was_stored);
                full += u64::from(was_stored && error.is_full());
                output.failed(error)
            }
            None => Some(output),
        };
        let outputs = outputs.into_iter().filter_map(told).collect();
        add(&self.stats.counters().stream_refused, refused);
        self.refused_full += full;
        outputs
    }

    /// What is due by the clock. Tells what the streams hold.
    pub(crate) fn on_tick(&mut self, now: u64) {
        self.has_no_more_room = false;
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
        let fault = self.streams.values().find_map(|stream| stream.fault(now));
        let store = StoreSnapshot { refused: self.refused_full, ..self.store.snapshot() };
        self.stats.set_store(store, fault);
        self.count_memory();
        self.stats.set_memory(self.memory.snapshot());
    }
}

#[cfg(test)]
impl Streams {
    pub(super) fn store_now(&self) -> StoreSnapshot {
        self.store.snapshot()
    }

    pub(super) fn fault_now(&self) -> Option<String> {
        self.stats.store_fault()
    }

    pub(super) fn count(&self) -> usize {
        self.streams.len()
    }

    /// Looks for a message that the log does not have, or a count that is wrong.
    pub(super) fn check(&mut self) -> Option<String> {
        self.streams.values_mut().find_map(|stream| {
            let all = crate::stream::state::Filter::All;
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
