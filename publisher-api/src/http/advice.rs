//! Headers that say what to do about a refusal.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::error::{Code, Refusal};

/// How to send a key, for clients that ask first.
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"message center\", charset=\"UTF-8\", Bearer");

/// Adds `Retry-After`, `WWW-Authenticate` or `Allow`, where the refusal has one.
pub(crate) fn advise(headers: &mut HeaderMap, refusal: &Refusal) {
    if let Some(pause) = refusal.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(pause));
    }
    if refusal.code() == Code::BadKey {
        headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    if let Refusal::Method { allowed, .. } = refusal
        && let Ok(allowed) = HeaderValue::try_from(&**allowed)
    {
        headers.insert(header::ALLOW, allowed);
    }
}
