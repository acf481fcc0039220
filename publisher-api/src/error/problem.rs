//! The kinds of refusals: one row each, from which both the codes of connmix's calls and the problems of the
//! native calls are taken.
//!
//! A kind is finer than a code: 101 covers many kinds. The name of a kind never changes once it is published.

use axum::http::StatusCode;

use super::code::Code;

/// A kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    /// Not JSON.
    InvalidJson,
    /// JSON that says something wrong.
    InvalidRequest,
    /// A text that is no channel name.
    InvalidChannel,
    /// A text that is no user.
    InvalidUser,
    /// A text that is no group, or a group that has no channel.
    InvalidGroup,
    /// An `Idempotency-Key` for a channel without history.
    IdempotencyUnavailable,
    /// An `Idempotency-Key` that was used for another call.
    IdempotencyKeyReused,
    /// A page of history with missing messages.
    HistoryNotWhole,
    /// A channel without history.
    NoHistory,
    /// No key, or a wrong one.
    InvalidKey,
    /// A web page of another origin.
    ForbiddenOrigin,
    /// A host name that is not this machine's.
    ForbiddenHost,
    /// The key is for other calls.
    MissingScope,
    /// The key is for other channels.
    ForbiddenChannel,
    /// A path that does not exist.
    NotFound,
    /// A path that does not take this method.
    MethodNotAllowed,
    /// The body came too slowly.
    RequestTimeout,
    /// The body, a message or a list is too large.
    TooLarge,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// More than the key may publish.
    RateLimited,
    /// More at once than there are slots.
    TooManyInFlight,
    /// A call of connmix that does not exist here.
    NotSupported,
    /// The bus or the store is away.
    Unavailable,
    /// The store has no space.
    StoreFull,
}

/// The row of a kind in the table.
#[derive(Debug, Clone, Copy)]
pub struct ProblemRow {
    /// `code` of a problem: stable, for programs.
    pub name: &'static str,
    /// HTTP status of a native call.
    pub status: StatusCode,
    /// `title`: the same for every problem of the kind.
    pub title: &'static str,
    /// The number in connmix's calls.
    pub code: Code,
}

impl Problem {
    /// Every kind.
    pub const ALL: [Self; 24] = [
        Self::InvalidJson,
        Self::InvalidRequest,
        Self::InvalidChannel,
        Self::InvalidUser,
        Self::InvalidGroup,
        Self::IdempotencyUnavailable,
        Self::IdempotencyKeyReused,
        Self::HistoryNotWhole,
        Self::NoHistory,
        Self::InvalidKey,
        Self::ForbiddenOrigin,
        Self::ForbiddenHost,
        Self::MissingScope,
        Self::ForbiddenChannel,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::RateLimited,
        Self::TooManyInFlight,
        Self::NotSupported,
        Self::Unavailable,
        Self::StoreFull,
    ];

    /// Returns the row of this kind.
    #[expect(clippy::too_many_lines, reason = "a table, a row each")]
    pub const fn row(self) -> ProblemRow {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        const NOT_ALLOWED: StatusCode = StatusCode::FORBIDDEN;
        let (name, status, code, title) = match self {
            Self::InvalidJson => ("invalid_json", BAD, Code::BadRequest, "The body is not JSON."),
            Self::InvalidRequest => {
                ("invalid_request", BAD, Code::BadRequest, "The request says something wrong.")
            }
            Self::InvalidChannel => ("invalid_channel", BAD, Code::BadChannel, "This is no channel name."),
            Self::InvalidUser => ("invalid_user", BAD, Code::BadRequest, "This is no user."),
            Self::InvalidGroup => ("invalid_group", BAD, Code::BadRequest, "This is no group."),
            Self::IdempotencyUnavailable => {
                ("idempotency_unavailable", BAD, Code::NotSupported, "Repeats can't be recognized here.")
            }
            Self::IdempotencyKeyReused => (
                "idempotency_key_reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                Code::BadRequest,
                "The Idempotency-Key was used for another call.",
            ),
            Self::HistoryNotWhole => (
                "history_not_whole",
                StatusCode::GONE,
                Code::NotSupported,
                "Not everything after this id is there any more.",
            ),
            Self::NoHistory => {
                ("no_history", StatusCode::NOT_FOUND, Code::NotSupported, "This channel keeps no messages.")
            }
            Self::InvalidKey => {
                ("invalid_key", StatusCode::UNAUTHORIZED, Code::BadKey, "A valid key is needed.")
            }
            Self::ForbiddenOrigin => {
                ("forbidden_origin", NOT_ALLOWED, Code::Forbidden, "Requests from this web page are refused.")
            }
            Self::ForbiddenHost => {
                ("forbidden_host", NOT_ALLOWED, Code::Forbidden, "Requests to this host name are refused.")
            }
            Self::MissingScope => {
                ("missing_scope", NOT_ALLOWED, Code::Forbidden, "The key may not make this call.")
            }
            Self::ForbiddenChannel => {
                ("forbidden_channel", NOT_ALLOWED, Code::Forbidden, "The key may not use this channel.")
            }
            Self::NotFound => {
                ("not_found", StatusCode::NOT_FOUND, Code::NotSupported, "There is nothing at this path.")
            }
            Self::MethodNotAllowed => (
                "method_not_allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                Code::BadRequest,
                "The path takes another method.",
            ),
            Self::RequestTimeout => (
                "request_timeout",
                StatusCode::REQUEST_TIMEOUT,
                Code::BadRequest,
                "The body came too slowly.",
            ),
            Self::TooLarge => {
                ("too_large", StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, "There is more than is taken.")
            }
            Self::UnsupportedMediaType => (
                "unsupported_media_type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::BadRequest,
                "The body must be declared as JSON.",
            ),
            Self::RateLimited => (
                "rate_limited",
                StatusCode::TOO_MANY_REQUESTS,
                Code::TooMany,
                "The key publishes faster than it may.",
            ),
            Self::TooManyInFlight => (
                "too_many_in_flight",
                StatusCode::TOO_MANY_REQUESTS,
                Code::TooMany,
                "There is no room at the moment.",
            ),
            Self::NotSupported => {
                ("not_supported", StatusCode::NOT_IMPLEMENTED, Code::NotSupported, "This is not offered.")
            }
            Self::Unavailable => (
                "unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                Code::Unavailable,
                "The bus or the store can't be reached.",
            ),
            Self::StoreFull => {
                ("store_full", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "The store is full.")
            }
        };
        ProblemRow { name, status, title, code }
    }
}

/// Writes the table of problems in Markdown, as it stands in the manual.
pub fn problem_table() -> String {
    let mut table = String::from("| `code` | HTTP | come again? | title |\n| --- | --- | --- | --- |\n");
    for row in Problem::ALL.map(Problem::row) {
        let again = if row.code.row().retry_after.is_some() { "yes" } else { "no" };
        table.push_str(&format!("| `{}` | {} | {again} | {} |\n", row.name, row.status.as_u16(), row.title));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_has_a_name_of_its_own_that_programs_can_compare() {
        let names: HashSet<&str> = Problem::ALL.map(|problem| problem.row().name).into();
        assert_eq!(names.len(), Problem::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }

    #[test]
    fn where_it_helps_to_come_again_the_status_says_so() {
        for row in Problem::ALL.map(Problem::row) {
            let says_so = matches!(row.status.as_u16(), 429 | 503);
            assert_eq!(row.code.row().retry_after.is_some(), says_so, "{}", row.name);
            assert!(row.status.is_client_error() || row.status.is_server_error(), "{}", row.name);
        }
    }
}
