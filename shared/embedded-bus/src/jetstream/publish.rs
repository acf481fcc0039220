//! Storing a published message, and answering its publisher.
//!
//! Answers are byte for byte those of nats-server, because old clients compare text.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::error::ApiError;
use super::request::{Item, Output, OutputKind};
use super::stream::{Admission, Message, PublishOutcome};
use super::streams::Streams;
use crate::stats::add;
use crate::storage::Priority;

impl Streams {
    /// Stores a message in the stream of this name, and answers its publisher.
    pub(super) fn publish(&mut self, name: &str, item: &Item, now: u64) {
        let Some(stream) = self.streams.get(name) else {
            return self.answer_no_stream(item);
        };
        let (name, no_ack) = (Arc::clone(&stream.name), stream.config.no_ack);
        let result = self.store(&name, &item.message, now);
        let counters = self.stats.counters();
        let answer = match result {
            Ok(PublishOutcome::Stored { seq, copy }) => {
                self.nothing_to_reclaim = false;
                add(&counters.stream_stored, 1);
                if let Some(copy) = copy {
                    let (subject, headers, payload) = (copy.subject, copy.headers, copy.payload);
                    let stream = Some(Arc::clone(&name));
                    self.collect(Output { stream, kind: OutputKind::Copy, subject, headers, payload });
                }
                acknowledgement(&name, seq)
            }
            Ok(PublishOutcome::Duplicate { seq }) => {
                add(&counters.stream_duplicates, 1);
                duplicate(&name, seq)
            }
            Err(error) => {
                add(&counters.stream_refused, u64::from(!error.is_expectation()));
                self.refused_full += u64::from(error.is_full());
                refusal(&name, &error)
            }
        };
        if let Some(reply) = &item.reply
            && !no_ack
        {
            let (stream, subject, headers) = (Some(name), reply.clone(), Bytes::new());
            self.collect(Output { stream, kind: OutputKind::Ack, subject, headers, payload: answer });
        }
    }

    /// Stores a message. Without free space it tries again after reclaiming some, and then with reserved
    /// space if the message may use that.
    fn store(&mut self, name: &str, message: &Message, now: u64) -> Result<PublishOutcome, ApiError> {
        let erases = self.bounds.reserved.is_erasure_mark(message);
        let mut result = self.try_to_store(name, message, Priority::Common, erases, now);
        if result.as_ref().is_err_and(ApiError::is_full_disk) && self.reclaim_space(name, message, now) {
            result = self.try_to_store(name, message, Priority::Common, erases, now);
        }
        let is_kept_out = result.as_ref().is_err_and(|error| error.is_full() || error.is_limit());
        if is_kept_out && self.bounds.reserved.priority_of(name, erases) == Priority::Reserved {
            result = self.try_to_store(name, message, Priority::Reserved, erases, now);
        }
        result
    }

    fn try_to_store(
        &mut self,
        name: &str,
        message: &Message,
        priority: Priority,
        erases: bool,
        now: u64,
    ) -> Result<PublishOutcome, ApiError> {
        let stream = self.streams.get_mut(name).ok_or_else(ApiError::no_stream)?;
        let memory = &mut self.memory;
        let before = memory.of(stream.state.memory(), stream.log_size());
        let admission = Admission { priority, no_memory: memory.refuses(priority), erases };
        let result = stream.publish(message, admission, now);
        memory.changed(before, memory.of(stream.state.memory(), stream.log_size()));
        result
    }

    /// Reclaims disk space where that costs least, until a message has space. Returns whether it has. After a
    /// failure nothing is tried until something changes, because each refused message would try again.
    fn reclaim_space(&mut self, name: &str, message: &Message, now: u64) -> bool {
        if self.nothing_to_reclaim {
            return false;
        }
        // Each file at most once.
        for _ in 0..self.store.snapshot().segments {
            if self.has_space(name, message) {
                return true;
            }
            let all = self.streams.values_mut().filter_map(|stream| Some((stream.reclaimable()?, stream)));
            let best = all.reduce(|best, one| if one.0.is_better_than(best.0) { one } else { best });
            let Some((_, stream)) = best else { break };
            if stream.reclaim(now).is_err() {
                break;
            }
        }
        self.nothing_to_reclaim = !self.has_space(name, message);
        !self.nothing_to_reclaim
    }

    fn has_space(&self, name: &str, message: &Message) -> bool {
        self.streams.get(name).is_some_and(|stream| stream.check_space(message, Priority::Common).is_ok())
    }
}

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a ApiError,
    stream: &'a str,
    seq: u64,
}

/// Returns the answer to a message that is stored.
fn acknowledgement(stream: &str, seq: u64) -> Bytes {
    format!("{{\"stream\":{},\"seq\":{seq}}}", quoted(stream)).into()
}

/// Returns the answer to a message that was stored before.
fn duplicate(stream: &str, seq: u64) -> Bytes {
    format!("{{\"stream\":{},\"seq\":{seq},\"duplicate\": true}}", quoted(stream)).into()
}

/// Returns the answer to a message that is not stored.
pub(super) fn refusal(stream: &str, error: &ApiError) -> Bytes {
    let refusal = Refusal { error, stream, seq: 0 };
    serde_json::to_vec(&refusal).expect("strings and numbers are always JSON").into()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_read_as_nats_server_writes_them() {
        assert_eq!(acknowledgement("S1", 3), r#"{"stream":"S1","seq":3}"#);
        assert_eq!(duplicate("S1", 2), r#"{"stream":"S1","seq":2,"duplicate": true}"#);
        let expected = r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"stream":"S1","seq":0}"#;
        assert_eq!(refusal("S1", &ApiError::wrong_last_sequence(3)), expected);
    }
}
