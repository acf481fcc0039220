//! Reads the bytes of a request into the fields of a call.

use axum::body::Body;
use axum::http::HeaderMap;
use serde::Deserialize;

use crate::app::App;
use crate::error::Refusal;
use crate::http::{check_content_type, object};

/// Reads the body of a call. `admitted`: the outcome of checks that need no body. The body of a refused call
/// is discarded rather than cut off, so that the caller can read the refusal.
///
/// # Errors
/// Fails if the call is not admitted, or if the body is not declared as JSON, too large, too slow, or ends
/// early.
pub(super) async fn read<T>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    admitted: Result<T, Refusal>,
) -> Result<(T, Vec<u8>), Refusal> {
    let admitted = match admitted.and_then(|admitted| check_content_type(headers).map(|()| admitted)) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            app.bodies.discard(headers, body);
            return Err(refusal);
        }
    };
    let body = app.bodies.read(headers, body, app.config.max_request.as_usize()).await?;
    Ok((admitted, body))
}

/// Reads a JSON object. The refusal tells JSON that does not fit the call from text that is no JSON.
pub(super) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8], example: &'static str) -> Result<T, Refusal> {
    object(json, example).map_err(shape)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other refusal stays what it is")]
fn shape(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::NotJson(error) if error.is_data() => Refusal::Shape(error),
        other => other,
    }
}
