//! The last sequence of a subject.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;

use super::{ApiError, WRONG_LAST_SEQUENCE};
use crate::bus::Bus;
use crate::headers;

/// A sequence that is never reached, so a message that expects it is never stored: the largest number that
/// nats-server reads correctly.
const NEVER: &str = "9223372036854775807";
/// How a leader describes [`WRONG_LAST_SEQUENCE`]; the sequence follows.
const WRONG_LAST: &str = "wrong last sequence: ";

impl Bus {
    /// Asks the stream's leader for the last sequence of a subject; 0 if the subject has no message. `None`:
    /// the leader refuses for another reason and does not say.
    ///
    /// The message is not read, so its size costs nothing: the leader is asked to store an empty message
    /// behind an impossible sequence, and names the right one in its refusal.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn last_of_subject(&self, subject: &str, deadline: Duration) -> Result<Option<u64>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(headers::EXPECTED_LAST_SUBJECT_SEQUENCE, NEVER);
        match self.store(subject.to_owned(), headers, Bytes::new(), deadline).await {
            Err(ApiError::Api { err_code: WRONG_LAST_SEQUENCE, description, .. }) => {
                Ok(description.strip_prefix(WRONG_LAST).and_then(|last| last.parse().ok()))
            }
            Err(ApiError::Api { .. } | ApiError::Unreadable(_)) => Ok(None),
            Err(error) => Err(error),
            Ok(ack) => {
                tracing::error!(subject, seq = ack.seq, "the bus stored a message that it had to refuse");
                Ok(None)
            }
        }
    }
}
