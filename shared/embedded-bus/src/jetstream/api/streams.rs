//! Requests about whole streams: create, update, info, names, list, delete.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::advisory::Action;
use super::{Done, Endpoint, read_or_ignore, write};
use crate::handshake::API_LEVEL;
use crate::jetstream::config::{Discard, StorageKind, StreamConfig};
use crate::jetstream::error::ApiError;
use crate::jetstream::state::Filter;
use crate::jetstream::stream::Stream;
use crate::jetstream::streams::Streams;
use crate::jetstream::time;
use crate::subject;

/// Entries of one answer, as in nats-server.
const NAMES: usize = 1024;
const LIST: usize = 256;
const SUBJECTS: usize = 100_000;

#[derive(Serialize)]
struct StreamBody<'a> {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    page: Option<Page>,
    config: &'a StreamConfig,
    created: String,
    state: StateBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Cluster<'a>>,
    ts: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    did_create: bool,
}

#[derive(Serialize)]
struct Cluster<'a> {
    leader: &'a str,
}

#[derive(Clone, Copy, Serialize)]
struct Page {
    total: usize,
    offset: usize,
    limit: usize,
}

#[derive(Serialize)]
struct StateBody {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    first_ts: String,
    last_seq: u64,
    last_ts: String,
    #[serde(skip_serializing_if = "is_nothing")]
    num_subjects: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    subjects: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_none")]
    num_deleted: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deleted: Vec<u64>,
    consumer_count: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
fn is_nothing(value: &usize) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
fn is_none(value: &u64) -> bool {
    *value == 0
}

impl StateBody {
    fn of(stream: &Stream) -> Self {
        let state = &stream.state;
        let write =
            |nanos: u64| if nanos == 0 { time::NEVER.to_owned() } else { time::format(stream.wall(nanos)) };
        Self {
            messages: state.len(),
            bytes: state.bytes(),
            first_seq: state.first_seq(),
            first_ts: write(state.first().map_or(0, |first| first.time)),
            last_seq: state.last_seq(),
            last_ts: write(state.last_time()),
            num_subjects: state.subject_count(),
            subjects: BTreeMap::new(),
            num_deleted: state.deleted_count(),
            deleted: Vec::new(),
            consumer_count: 0,
        }
    }
}

impl<'a> StreamBody<'a> {
    fn of(stream: &'a Stream, now: u64) -> Self {
        Self {
            page: None,
            config: &stream.config,
            created: time::format(stream.created),
            state: StateBody::of(stream),
            cluster: None,
            ts: time::format(stream.wall(now)),
            did_create: false,
        }
    }
}

#[derive(Serialize)]
struct AccountBody {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    streams: usize,
    consumers: usize,
    limits: AccountLimits,
    api: AccountApi,
}

#[derive(Serialize)]
struct AccountLimits {
    max_memory: i64,
    max_storage: i64,
    max_streams: usize,
    max_consumers: i64,
    max_ack_pending: i64,
    memory_max_stream_bytes: i64,
    storage_max_stream_bytes: i64,
    max_bytes_required: bool,
}

#[derive(Serialize)]
struct AccountApi {
    level: u32,
    total: u64,
    errors: u64,
}

#[derive(Serialize)]
struct Names {
    #[serde(flatten)]
    page: Page,
    /// `null` if there are none, as in nats-server.
    streams: Option<Vec<String>>,
}

#[derive(Serialize)]
struct List<'a> {
    #[serde(flatten)]
    page: Page,
    streams: Vec<StreamBody<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ListRequest {
    offset: Option<i64>,
    subject: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct InfoRequest {
    offset: Option<i64>,
    deleted_details: Option<bool>,
    subjects_filter: Option<String>,
}

fn offset(asked: Option<i64>) -> usize {
    usize::try_from(asked.unwrap_or(0)).unwrap_or(0)
}

impl Streams {
    pub(super) fn account(&self, endpoint: Endpoint) -> Bytes {
        let sum = |kind: StorageKind, count: fn(&Stream) -> u64| -> u64 {
            self.streams.values().filter(|stream| stream.config.storage == kind).map(count).sum()
        };
        let reserved = |stream: &Stream| StreamConfig::limit(stream.config.max_bytes).unwrap_or(0);
        let bytes = |stream: &Stream| stream.state.bytes();
        let body = AccountBody {
            memory: sum(StorageKind::Memory, bytes),
            storage: sum(StorageKind::File, bytes),
            reserved_memory: sum(StorageKind::Memory, reserved),
            reserved_storage: sum(StorageKind::File, reserved),
            streams: self.streams.len(),
            consumers: 0,
            limits: AccountLimits {
                max_memory: -1,
                max_storage: -1,
                max_streams: self.bounds.max_streams,
                max_consumers: 0,
                max_ack_pending: -1,
                memory_max_stream_bytes: -1,
                storage_max_stream_bytes: -1,
                max_bytes_required: false,
            },
            api: AccountApi { level: API_LEVEL, total: self.api.total, errors: self.api.errors },
        };
        write(endpoint.kind(), None, body)
    }

    pub(super) fn create(
        &mut self,
        endpoint: Endpoint,
        name: &str,
        body: &[u8],
        now: u64,
    ) -> Result<Bytes, ApiError> {
        let config = StreamConfig::read(body)?;
        if config.name != name {
            return Err(ApiError::name_differs());
        }
        if config.sealed {
            return Err(ApiError::invalid_config("stream configuration for create can not be sealed"));
        }
        let config = config.check()?;
        if let Some(stream) = self.streams.get(name) {
            if !stream.config.is_same(&config) {
                return Err(ApiError::name_in_use());
            }
            let body = StreamBody { did_create: true, ..StreamBody::of(stream, now) };
            return Ok(write(endpoint.kind(), None, body));
        }
        if self.overlaps(&config) {
            return Err(ApiError::overlap());
        }
        if self.streams.len() >= self.bounds.max_streams {
            return Err(ApiError::too_many_streams());
        }
        self.open_routes(&config);
        let stream = Stream::create(&mut *self.store, config.clone(), now, self.offset).map_err(|error| {
            tracing::error!(stream = name, %error, "a stream can't be made");
            ApiError::from(&error)
        });
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                self.close_routes(&config);
                return Err(error);
            }
        };
        tracing::info!(stream = name, subjects = ?config.subjects, "stream made");
        let json =
            write(endpoint.kind(), None, StreamBody { did_create: true, ..StreamBody::of(&stream, now) });
        self.streams.insert(name.to_owned(), stream);
        self.advise(name, Action::Create, now);
        Ok(json)
    }

    pub(super) fn update(
        &mut self,
        endpoint: Endpoint,
        name: &str,
        body: &[u8],
        now: u64,
    ) -> Result<Bytes, ApiError> {
        let config = StreamConfig::read(body)?;
        if config.name != name {
            return Err(ApiError::name_differs());
        }
        let mut config = config.check()?;
        let before = self.streams.get(name).ok_or_else(ApiError::no_stream)?.config.clone();
        config.check_update_of(&before)?;
        if config.sealed {
            config.discard = Discard::New;
            config.deny_delete = true;
            config.deny_purge = true;
            config.allow_rollup_hdrs = false;
        }
        if self.overlaps(&config) {
            return Err(ApiError::overlap());
        }
        let Self { streams, store, .. } = self;
        let stream = streams.get_mut(name).ok_or_else(ApiError::no_stream)?;
        stream.reconfigure(&mut **store, config.clone())?;
        tracing::info!(stream = name, "stream set up differently");
        let json = write(endpoint.kind(), None, StreamBody::of(stream, now));
        self.close_routes(&before);
        self.open_routes(&config);
        self.advise(name, Action::Modify, now);
        Ok(json)
    }

    pub(super) fn info(
        &mut self,
        endpoint: Endpoint,
        name: &str,
        body: &[u8],
        now: u64,
    ) -> Result<Bytes, ApiError> {
        let request: InfoRequest = read_or_ignore(body)?;
        let stream = self.streams.get(name).ok_or_else(ApiError::no_stream)?;
        stream.usable()?;
        let mut answer = StreamBody::of(stream, now);
        let mut page = Page { total: 0, offset: 0, limit: 0 };
        if let Some(filter) = request.subjects_filter.as_deref().filter(|filter| !filter.is_empty()) {
            let counts = stream.state.counts(Filter::new(filter));
            if !counts.is_empty() {
                page = Page { total: counts.len(), offset: offset(request.offset), limit: SUBJECTS };
                answer.state.subjects = counts.into_iter().skip(page.offset).take(SUBJECTS).collect();
            }
        }
        if request.deleted_details == Some(true) {
            answer.state.deleted = stream.state.deleted(SUBJECTS);
        }
        answer.page = Some(page);
        answer.cluster = Some(Cluster { leader: &self.bounds.leader });
        Ok(write(endpoint.kind(), None, answer))
    }

    pub(super) fn delete(
        &mut self,
        endpoint: Endpoint,
        name: &str,
        body: &[u8],
        now: u64,
    ) -> Result<Bytes, ApiError> {
        let empty: Option<serde_json::Map<String, serde_json::Value>> =
            if body.is_empty() { Some(serde_json::Map::new()) } else { serde_json::from_slice(body).ok() };
        if empty.is_none_or(|fields| !fields.is_empty()) {
            return Err(ApiError::not_empty());
        }
        let stream = self.streams.remove(name).ok_or_else(ApiError::no_stream)?;
        let config = stream.config.clone();
        // The log is closed before its files are deleted.
        drop(stream);
        self.close_routes(&config);
        self.store.delete(name).map_err(|error| {
            tracing::error!(stream = name, %error, "a deleted stream can't be removed from the store; it may come back");
            ApiError::from(&error)
        })?;
        tracing::warn!(stream = name, "stream deleted");
        self.advise(name, Action::Delete, now);
        Ok(write(endpoint.kind(), None, Done { success: true }))
    }

    /// Returns the streams whose subjects match, or all streams.
    fn having<'a>(&'a self, asked: Option<&'a str>) -> Vec<&'a Stream> {
        let asked = asked.filter(|subject| !subject.is_empty());
        let has = |stream: &&Stream| {
            asked.is_none_or(|asked| {
                let mut own = stream.config.subjects.iter();
                own.any(|own| subject::collide(own.as_bytes(), asked.as_bytes()))
            })
        };
        self.streams.values().filter(has).collect()
    }

    pub(super) fn names(&self, endpoint: Endpoint, body: &[u8]) -> Result<Bytes, ApiError> {
        let request: ListRequest = read_or_ignore(body)?;
        let found = self.having(request.subject.as_deref());
        let page = Page { total: found.len(), offset: offset(request.offset).min(found.len()), limit: NAMES };
        let names: Vec<String> =
            found.iter().skip(page.offset).take(NAMES).map(|stream| (*stream.name).to_owned()).collect();
        let streams = (!names.is_empty()).then_some(names);
        Ok(write(endpoint.kind(), None, Names { page, streams }))
    }

    pub(super) fn list(&self, endpoint: Endpoint, body: &[u8], now: u64) -> Result<Bytes, ApiError> {
        let request: ListRequest = read_or_ignore(body)?;
        let found = self.having(request.subject.as_deref());
        let page = Page { total: found.len(), offset: offset(request.offset).min(found.len()), limit: LIST };
        let shown = found.iter().skip(page.offset).take(LIST);
        let streams = shown.map(|stream| StreamBody::of(stream, now)).collect();
        Ok(write(endpoint.kind(), None, List { page, streams }))
    }
}
