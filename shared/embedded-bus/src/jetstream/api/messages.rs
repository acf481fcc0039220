//! Requests about the messages of a stream: read or delete one, purge many.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Done, Endpoint, read, read_or_ignore, write};
use crate::jetstream::config::StorageKind;
use crate::jetstream::direct::GetRequest;
use crate::jetstream::error::ApiError;
use crate::jetstream::state::{Filter, Purge};
use crate::jetstream::streams::Streams;
use crate::jetstream::time;

#[derive(Serialize)]
struct MessageBody {
    message: MessageJson,
}

#[derive(Serialize)]
struct MessageJson {
    subject: String,
    seq: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    hdrs: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    time: String,
}

#[derive(Serialize)]
struct PurgeBody {
    success: bool,
    purged: u64,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PurgeRequest {
    filter: Option<String>,
    seq: Option<u64>,
    keep: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DeleteRequest {
    seq: Option<u64>,
    /// Whether the bytes may stay in their file. Readers can't see them either way.
    #[serde(rename = "no_erase")]
    _no_erase: Option<bool>,
}

impl Streams {
    pub(super) fn get_message(
        &mut self,
        endpoint: Endpoint,
        name: &str,
        body: &[u8],
    ) -> Result<Bytes, ApiError> {
        let request = if body.trim_ascii().is_empty() {
            return Err(ApiError::bad_request());
        } else {
            read::<GetRequest>(body)?
        };
        let stream = self.streams.get_mut(name).ok_or_else(ApiError::no_stream)?;
        if !request.asks_for_one() {
            return Err(ApiError::bad_request());
        }
        stream.usable()?;
        let seq = request.find_one(stream).map_err(|_| ApiError::bad_request())?;
        let record = match seq {
            Some(seq) => stream.read(seq)?,
            None => None,
        };
        let record = record.ok_or_else(ApiError::no_message)?;
        let hdrs = if request.wants_headers() { STANDARD.encode(&record.headers) } else { String::new() };
        let message = MessageJson {
            subject: String::from_utf8_lossy(&record.subject).into_owned(),
            seq: record.seq,
            hdrs,
            data: STANDARD.encode(&record.payload),
            time: time::format(record.time),
        };
        Ok(write(endpoint.kind(), None, MessageBody { message }))
    }

    pub(super) fn delete_message(
        &mut self,
        endpoint: Endpoint,
        name: &str,
        body: &[u8],
    ) -> Result<Bytes, ApiError> {
        let request: DeleteRequest = read(body)?;
        let seq = request.seq.ok_or_else(ApiError::bad_request)?;
        let stream = self.streams.get_mut(name).ok_or_else(ApiError::no_stream)?;
        if stream.config.sealed {
            return Err(ApiError::sealed());
        }
        if stream.config.deny_delete {
            return Err(ApiError::delete_failed("message delete not permitted"));
        }
        let beyond = seq > stream.state.last_seq();
        if !stream.remove(seq)? {
            // The two stores of nats-server answer differently.
            return Err(match (stream.config.storage, beyond) {
                (StorageKind::Memory, _) => ApiError::sequence_not_found(seq),
                (StorageKind::File, true) => ApiError::delete_failed("stream store EOF"),
                (StorageKind::File, false) => ApiError::delete_failed("no message found"),
            });
        }
        Ok(write(endpoint.kind(), None, Done { success: true }))
    }

    pub(super) fn purge(&mut self, endpoint: Endpoint, name: &str, body: &[u8]) -> Result<Bytes, ApiError> {
        let request: PurgeRequest = read_or_ignore(body)?;
        let (before, keep) = (request.seq.filter(|seq| *seq > 0), request.keep.filter(|keep| *keep > 0));
        if before.is_some() && keep.is_some() {
            return Err(ApiError::bad_request());
        }
        let stream = self.streams.get_mut(name).ok_or_else(ApiError::no_stream)?;
        if stream.config.sealed {
            return Err(ApiError::sealed());
        }
        if stream.config.deny_purge {
            return Err(ApiError::purge_failed("stream purge not permitted"));
        }
        let filter = Filter::new(request.filter.as_deref().unwrap_or_default());
        let purged = stream.purge(Purge { filter, before, keep: keep.unwrap_or(0) })?;
        tracing::info!(stream = name, purged, "messages purged");
        Ok(write(endpoint.kind(), None, PurgeBody { success: true, purged }))
    }
}
