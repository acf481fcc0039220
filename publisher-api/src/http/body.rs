//! Bodies of requests: read within their limits, or discarded behind the answer.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::http::{HeaderMap, HeaderValue, header};
use futures_util::StreamExt as _;
use shared::drain::Drain;
use tokio::time::timeout;

use crate::error::Refusal;

/// The multiple of its limit up to which a body that is too large is read and discarded behind the answer. A
/// caller that sends its whole body first then reads why it is refused, instead of finding a broken
/// connection.
const DISCARD_FACTOR: usize = 8;
/// The longest pause in a body that is discarded. A caller that sends nothing for this long reads its answer
/// or is gone.
const DISCARD_PAUSE: Duration = Duration::from_secs(1);

/// Reads and discards bodies.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    /// How long a body may take.
    patience: Duration,
    /// How many bytes of an unread body are discarded.
    discarded: usize,
    drain: Drain,
}

impl Bodies {
    /// `patience`: how long a body may take. `discarded`: how many bytes of an unread body are discarded.
    pub(crate) fn new(patience: Duration, discarded: usize, drain: Drain) -> Self {
        Self { patience, discarded, drain }
    }

    /// Reads a body of at most `limit` bytes, in time. A longer body is refused as soon as its length is
    /// known.
    ///
    /// # Errors
    /// The body is too large, too slow, or ends early.
    pub(crate) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        limit: usize,
    ) -> Result<Vec<u8>, Refusal> {
        let announced = body.size_hint().lower();
        let (mut chunks, mut whole) = (body.into_data_stream(), Vec::new());
        let reading = async {
            if usize::try_from(announced).is_ok_and(|announced| announced <= limit) {
                while let Some(chunk) = chunks.next().await {
                    let chunk = chunk.map_err(|_| Refusal::BrokenBody)?;
                    if chunk.len() > limit - whole.len() {
                        return Err(Refusal::LargeBody(limit));
                    }
                    whole.extend_from_slice(&chunk);
                }
                return Ok(());
            }
            Err(Refusal::LargeBody(limit))
        };
        let read = timeout(self.patience, reading).await.unwrap_or(Err(Refusal::SlowBody(self.patience)));
        if let Err(Refusal::LargeBody(_)) = read {
            self.discard_rest(headers, chunks, limit.saturating_mul(DISCARD_FACTOR));
        }
        read.map(|()| whole)
    }

    /// Discards a body that nobody needs, behind the answer. Without this, a caller that is still sending
    /// would find the connection broken, and not read why it is refused.
    pub(crate) fn discard(&self, headers: &HeaderMap, body: Body) {
        self.discard_rest(headers, body.into_data_stream(), self.discarded);
    }

    /// Discards at most `most` bytes of what is left of a body. A caller that asks before it sends (`Expect`)
    /// has sent nothing.
    fn discard_rest(&self, headers: &HeaderMap, mut rest: BodyDataStream, most: usize) {
        if headers.contains_key(header::EXPECT) || rest.is_end_stream() {
            return;
        }
        let (patience, drain) = (self.patience, self.drain.clone());
        self.drain.spawn("publisher-discard", async move {
            let mut left = most;
            let reading = async {
                while left > 0
                    && let Ok(Some(Ok(chunk))) = timeout(DISCARD_PAUSE, rest.next()).await
                {
                    left = left.saturating_sub(chunk.len());
                }
            };
            tokio::select! { _ = timeout(patience, reading) => {}, () = drain.begun() => {} }
        });
    }
}

/// Checks that a body is declared as JSON.
///
/// # Errors
/// Code 101; for native calls 415.
pub(crate) fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(header::CONTENT_TYPE).map(text);
    let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json"
        || essence.strip_prefix("application/").is_some_and(|subtype| subtype.ends_with("+json"));
    if is_json {
        Ok(())
    } else {
        Err(Refusal::ContentType(given.map(|given| given.chars().take(80).collect())))
    }
}

/// Returns a header as text. A header that is not text matches nothing.
pub(crate) fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("\u{0}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_body_must_be_declared_as_json() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
            assert!(check_content_type(&headers(&[("content-type", good)])).is_ok(), "{good}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            let refusal = check_content_type(&headers(&[("content-type", bad)])).unwrap_err();
            assert!(refusal.to_string().contains(&format!("it is {bad:?}")), "{refusal}");
        }
        assert!(check_content_type(&HeaderMap::new()).unwrap_err().to_string().contains("there is none"));
    }
}
