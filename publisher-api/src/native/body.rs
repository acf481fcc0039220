//! From the bytes of a request to the fields of a call.

use axum::body::Body;
use axum::http::HeaderMap;
use serde::Deserialize;

use crate::connmix::{http, object};
use crate::error::Refusal;
use crate::guard::check_content_type;
use crate::routes::App;

/// Reads the body of a call that `admitted` lets in. Whoever is refused gets to read why.
pub(super) async fn read(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    admitted: Result<(), Refusal>,
) -> Result<Vec<u8>, Refusal> {
    if let Err(refusal) = admitted.and_then(|()| check_content_type(headers)) {
        http::discard(app, headers, body);
        return Err(refusal);
    }
    http::read(app, headers, body, app.config.max_request.as_usize()).await
}

/// Reads a JSON object. What is JSON but does not fit is told apart from what is no JSON.
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
