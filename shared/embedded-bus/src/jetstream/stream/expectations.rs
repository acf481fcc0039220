//! Checks before a message is stored: its expectations, and the limits of one message.

use super::{Message, Stream};
use crate::headers::Expectations;
use crate::jetstream::config::StreamConfig;
use crate::jetstream::error::ApiError;
use crate::jetstream::state::Filter;

/// The most bytes of a header block, as in nats-server.
const LARGEST_HEADERS: usize = u16::MAX as usize;

impl Stream {
    /// Checks the expectations of a message, in nats-server's order. Returns the sequence of the original if
    /// the message is a duplicate.
    pub(super) fn check_expectations(
        &mut self,
        expectations: &Expectations<'_>,
        message: &Message,
        now: u64,
    ) -> Result<Option<u64>, ApiError> {
        if self.config.sealed {
            return Err(ApiError::sealed());
        }
        let refused = [
            (expectations.batch, ApiError::atomic_disabled as fn() -> ApiError),
            (expectations.ttl, ApiError::ttl_disabled),
            (expectations.counter, ApiError::counters_disabled),
            (expectations.schedule, ApiError::schedules_disabled),
        ];
        if let Some((_, error)) = refused.iter().find(|(asked, _)| *asked) {
            return Err(error());
        }
        if expectations.expected_stream.is_some_and(|expected| expected != self.name.as_bytes()) {
            return Err(ApiError::expected_stream());
        }
        if let Some(id) = expectations.message_id
            && let Some(seq) = self.state.duplicate(id, now)
        {
            return Ok(Some(seq));
        }
        self.check_sequences(expectations, &message.subject)?;
        self.check_rollup(expectations)?;
        let size = (message.headers.len() + message.payload.len()) as u64;
        if StreamConfig::limit(self.config.max_msg_size.into()).is_some_and(|limit| size > limit) {
            return Err(ApiError::too_large());
        }
        if message.headers.len() > LARGEST_HEADERS {
            return Err(ApiError::headers_too_large());
        }
        Ok(None)
    }

    fn check_sequences(&self, expectations: &Expectations<'_>, subject: &[u8]) -> Result<(), ApiError> {
        // A text that is no number can't be the right sequence.
        let wrong = |expected: &[u8], last: u64| {
            std::str::from_utf8(expected).ok().and_then(|text| text.parse().ok()) != Some(last)
        };
        if let Some(expected) = expectations.expected_last_in_subject {
            let of = expectations.expected_last_subject.unwrap_or(subject);
            let last = self.state.last_of(Filter::of(of)).unwrap_or(0);
            if wrong(expected, last) {
                return Err(ApiError::wrong_last_sequence(last));
            }
        } else if expectations.expected_last_subject.is_some() {
            return Err(ApiError::sequence_missing());
        }
        let last = self.state.last_seq();
        if expectations.expected_last.is_some_and(|expected| wrong(expected, last)) {
            return Err(ApiError::wrong_last_sequence(last));
        }
        let last_id = self.state.last_id().unwrap_or_default();
        if expectations.expected_last_id.is_some_and(|expected| expected != last_id) {
            return Err(ApiError::wrong_last_msg_id(&String::from_utf8_lossy(last_id)));
        }
        Ok(())
    }

    fn check_rollup(&self, expectations: &Expectations<'_>) -> Result<(), ApiError> {
        match expectations.rollup {
            None => Ok(()),
            Some(_) if !self.config.allow_rollup_hdrs || self.config.deny_purge => {
                Err(ApiError::rollup_failed("rollup not permitted"))
            }
            Some(b"sub" | b"all") => Ok(()),
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                Err(ApiError::rollup_failed(format!("rollup value invalid: {other:?}")))
            }
        }
    }
}
