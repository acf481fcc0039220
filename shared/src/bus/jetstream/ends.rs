//! Where a subject of a stream ends.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;

use super::{ApiError, WRONG_LAST_SEQUENCE};
use crate::bus::Bus;
use crate::headers;

/// No sequence is so high, so a message that is to be stored behind it never is. The largest that nats-server
/// reads without taking it for another number.
const NEVER: &str = "9223372036854775807";
/// What a leader says behind [`WRONG_LAST_SEQUENCE`], with the sequence.
const WRONG_LAST: &str = "wrong last sequence: ";

impl Bus {
    /// The last sequence of a subject of a stream, as the stream's leader knows; 0 if there is none. Its
    /// message is not read, so how large it is costs nothing: the leader is asked to store an empty message
    /// behind a sequence that can't be, and says in its refusal which one would be right. `None`: it does not
    /// say now, since it refuses for another reason.
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
