//! The commit: makes durable what the streams have taken, and hands out the outputs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::error::ApiError;
use super::request::{Output, OutputKind};
use super::streams::Streams;
use super::{api, publish};
use crate::headers;
use crate::stats::add;

impl Streams {
    /// Makes everything durable, and returns the outputs to send. Outputs of a stream whose store failed turn
    /// into errors, and the stream is read anew.
    pub(crate) fn settle(&mut self, now: u64) -> Vec<Output> {
        self.commit();
        let outputs = self.take_outputs();
        if self.streams.values().all(|stream| stream.usable().is_ok()) {
            return outputs;
        }
        let failed = self.recover_failed(now);
        let mut refused = Refused::default();
        let outputs = outputs.into_iter().filter_map(|output| {
            let error = output.stream.as_ref().and_then(|stream| failed.get(stream));
            match error {
                Some(error) => {
                    refused.count(&output, error);
                    error_in_place_of(output, error)
                }
                None => Some(output),
            }
        });
        let outputs = outputs.collect();
        add(&self.stats.counters().stream_refused, refused.messages);
        self.refused_full += refused.full;
        outputs
    }

    fn commit(&mut self) {
        let begun = Instant::now();
        let committed = self.streams.values_mut().filter_map(|stream| stream.commit().then_some(())).count();
        if committed > 0 {
            let counters = self.stats.counters();
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            add(&counters.stream_commits, committed as u64);
            add(&counters.stream_commit_micros, micros);
        }
    }

    /// Reads streams anew whose store failed. Returns the errors by stream.
    fn recover_failed(&mut self, now: u64) -> BTreeMap<Arc<str>, ApiError> {
        let mut failed = BTreeMap::new();
        for stream in self.streams.values_mut() {
            let Err(error) = stream.usable() else { continue };
            failed.insert(Arc::clone(&stream.name), error);
            if stream.recover(&mut *self.store, now) {
                add(&self.stats.counters().stream_failures, 1);
            }
        }
        failed
    }
}

/// Messages whose commit failed.
#[derive(Debug, Default)]
struct Refused {
    messages: u64,
    /// Of these, messages refused for want of free space.
    full: u64,
}

impl Refused {
    fn count(&mut self, output: &Output, error: &ApiError) {
        if output.kind == OutputKind::Ack {
            self.messages += 1;
            self.full += u64::from(error.is_full());
        }
    }
}

/// Returns the output to send in place of one whose stream failed. A live copy is not replaced.
fn error_in_place_of(output: Output, error: &ApiError) -> Option<Output> {
    let (headers, payload) = match output.kind {
        OutputKind::Copy => return None,
        OutputKind::Ack => {
            (Bytes::new(), publish::refusal(output.stream.as_deref().unwrap_or_default(), error))
        }
        OutputKind::Api(kind) => (Bytes::new(), api::failure(kind, error)),
        OutputKind::Direct => (headers::status("500 Storage Failed").into(), Bytes::new()),
    };
    Some(Output { headers, payload, ..output })
}
