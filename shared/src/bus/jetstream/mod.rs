//! The calls of JetStream that message center needs, over the requests of [`Bus`].
//!
//! async-nats has calls of its own, but a request that times out leaves something behind there, and it knows
//! no batches of direct reads. Every call here has a deadline and leaves nothing behind. The stream's leader
//! answers [`Bus::get_message`] and everything about a stream as a whole; any replica may answer
//! [`Bus::direct_batch`], and a replica may be behind. Source: NATS' ADR-1, ADR-8, ADR-31.
//!
//! | module | holds |
//! | --- | --- |
//! | this one | the calls |
//! | `stream` | a stream: settings, contents, leader |
//! | `message` | a stored message |
//! | `batch` | many messages by one request |
//! | `ends` | the last sequence of a subject |
//! | `error` | [`ApiError`] and JetStream's codes |

mod batch;
mod ends;
mod error;
mod message;
mod stream;

use std::time::Duration;

use async_nats::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Bus;

pub use batch::{Batch, BatchAnswer};
pub use error::{
    ApiError, ID_IN_PROCESS, NAME_IN_USE, NO_MESSAGE, STREAM_NOT_FOUND, Unreadable, WRONG_LAST_SEQUENCE,
};
pub use message::{Get, PubAck, RawMessage};
pub use stream::{Republish, StreamConfig, StreamInfo, StreamState};

use message::StoredAnswer;
use stream::{CountAnswer, InfoAnswer};

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct PurgeAnswer {
    #[serde(default)]
    purged: u64,
}

impl Bus {
    /// Asks for the settings and the contents of a stream.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn stream_info(&self, name: &str, deadline: Duration) -> Result<StreamInfo, ApiError> {
        let answer = self.api(&format!("STREAM.INFO.{name}"), &Value::Null, deadline).await?;
        info(answer)
    }

    /// Creates a stream. A stream that exists with the same settings is as good.
    ///
    /// # Errors
    /// See [`ApiError`]; [`NAME_IN_USE`] if a stream with other settings exists.
    pub async fn create_stream(
        &self,
        config: &StreamConfig,
        deadline: Duration,
    ) -> Result<StreamInfo, ApiError> {
        self.set_stream("CREATE", config, deadline).await
    }

    /// Gives a stream with the settings `is` the settings `should`. What an operator set besides stays.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn update_stream(
        &self,
        is: &StreamConfig,
        should: &StreamConfig,
        deadline: Duration,
    ) -> Result<StreamInfo, ApiError> {
        self.set_stream("UPDATE", &should.over(is), deadline).await
    }

    async fn set_stream(
        &self,
        call: &str,
        config: &StreamConfig,
        deadline: Duration,
    ) -> Result<StreamInfo, ApiError> {
        let body = serde_json::to_value(config)?;
        info(self.api(&format!("STREAM.{call}.{}", config.name), &body, deadline).await?)
    }

    /// Deletes a stream with all its messages.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn delete_stream(&self, name: &str, deadline: Duration) -> Result<(), ApiError> {
        self.api(&format!("STREAM.DELETE.{name}"), &Value::Null, deadline).await.map(drop)
    }

    /// Removes all messages of a subject, and returns their number.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn purge(&self, name: &str, subject: &str, deadline: Duration) -> Result<u64, ApiError> {
        let body = json!({ "filter": subject });
        let answer = self.api(&format!("STREAM.PURGE.{name}"), &body, deadline).await?;
        read::<PurgeAnswer>(answer).map(|answer| answer.purged)
    }

    /// Removes the messages of a subject below a sequence, and returns their number.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn purge_before(
        &self,
        name: &str,
        subject: &str,
        seq: u64,
        deadline: Duration,
    ) -> Result<u64, ApiError> {
        let body = json!({ "filter": subject, "seq": seq });
        let answer = self.api(&format!("STREAM.PURGE.{name}"), &body, deadline).await?;
        read::<PurgeAnswer>(answer).map(|answer| answer.purged)
    }

    /// Counts the messages of a subject without wildcards.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn count_of(&self, name: &str, subject: &str, deadline: Duration) -> Result<u64, ApiError> {
        let body = json!({ "subjects_filter": subject });
        let answer = self.api(&format!("STREAM.INFO.{name}"), &body, deadline).await?;
        read::<CountAnswer>(answer).map(|answer| answer.messages())
    }

    /// Reads one message from the stream's leader. `None`: the message does not exist.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get_message(
        &self,
        name: &str,
        get: Get<'_>,
        deadline: Duration,
    ) -> Result<Option<RawMessage>, ApiError> {
        let body = match get {
            Get::Last(subject) => json!({ "last_by_subj": subject }),
            Get::Seq(seq) => json!({ "seq": seq }),
            Get::Next { seq, subject } => json!({ "seq": seq, "next_by_subj": subject }),
        };
        match self.api(&format!("STREAM.MSG.GET.{name}"), &body, deadline).await {
            Ok(answer) => read::<StoredAnswer>(answer)?.decode().map(Some),
            Err(ApiError::Api { err_code: NO_MESSAGE, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Publishes to a stream and waits for the acknowledgement that the message is stored.
    ///
    /// # Errors
    /// See [`ApiError`]. After [`ApiError::Timeout`] and [`ApiError::Disconnected`] the message may be
    /// stored.
    pub async fn store(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<PubAck, ApiError> {
        let asked = self.request_with_headers(subject, Some(headers), payload, deadline);
        let answer = self.on_this_connection(async { Ok(asked.await?) }).await?;
        if answer.status.is_some_and(|status| status != StatusCode::OK) {
            return Err(ApiError::NoLeader);
        }
        read(checked(&answer.payload)?)
    }

    async fn api(&self, call: &str, body: &Value, deadline: Duration) -> Result<Value, ApiError> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let asked = self.request(format!("$JS.API.{call}"), body, deadline);
        let answer = self.on_this_connection(async { Ok(asked.await?) }).await?;
        checked(&answer.payload)
    }

    /// Waits for an answer, but not beyond the present connection: request or answer may be lost with the
    /// connection, and a new request is sooner than the deadline.
    async fn on_this_connection<T>(
        &self,
        asked: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let mut state = self.state();
        let connects = state.borrow_and_update().connects;
        tokio::select! {
            answer = asked => answer,
            _ = state.wait_for(|state| state.connects != connects) => Err(ApiError::Disconnected),
        }
    }
}

/// Parses an answer; an answer that names an error is that error.
fn checked(payload: &[u8]) -> Result<Value, ApiError> {
    let answer: Value = serde_json::from_slice(payload)?;
    if answer.get("error").is_none() {
        return Ok(answer);
    }
    let ErrorBody { code, err_code, description } = read::<ErrorAnswer>(answer)?.error;
    Err(match err_code {
        STREAM_NOT_FOUND => ApiError::NoStream,
        _ => ApiError::Api { code, err_code, description },
    })
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, ApiError> {
    Ok(serde_json::from_value(answer)?)
}

fn info(answer: Value) -> Result<StreamInfo, ApiError> {
    read::<InfoAnswer>(answer)?.decode()
}

#[cfg(test)]
mod tests;
