//! The codes of connmix's calls: one row each, with the HTTP status and whether to come again. The manual's
//! table is made from these rows.

use std::time::Duration;

use axum::http::StatusCode;

/// The numbers that publishers see as `E.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 101
    BadRequest,
    /// 103
    BadChannel,
    /// 104
    TooLarge,
    /// 105
    BadKey,
    /// 106
    Forbidden,
    /// 107
    TooMany,
    /// 108
    Unavailable,
    /// 109
    NotSupported,
}

/// The row of a code in the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// `E.c`.
    pub number: u16,
    /// Status over HTTP. Clients of the original look at `E` only, hence the many 200s.
    pub status: StatusCode,
    /// After which time the same request may succeed. `None`: never.
    pub retry_after: Option<Duration>,
    /// The meaning, and what to do, for the manual.
    pub meaning: &'static str,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 8] = [
        Self::BadRequest,
        Self::BadChannel,
        Self::TooLarge,
        Self::BadKey,
        Self::Forbidden,
        Self::TooMany,
        Self::Unavailable,
        Self::NotSupported,
    ];

    /// Returns the row of this code.
    pub const fn row(self) -> Row {
        const SOON: Option<Duration> = Some(Duration::from_secs(1));
        let (number, status, retry_after, meaning) = match self {
            Self::BadRequest => (
                101,
                StatusCode::OK,
                None,
                "The JSON or one of its fields is wrong. `m` names it; mend the request.",
            ),
            Self::BadChannel => (
                103,
                StatusCode::OK,
                None,
                "`c` is no channel name: 1 to 200 bytes without control characters, and without blanks but for a uid's \
                 behind `user:`.",
            ),
            Self::TooLarge => (
                104,
                StatusCode::OK,
                None,
                "The message is larger than `publisher_api.max_message`. Send less, or a link.",
            ),
            Self::BadKey => (
                105,
                StatusCode::UNAUTHORIZED,
                None,
                "No key, one that can't be read, or one that is not valid (any more). Never answered while no keys are configured.",
            ),
            Self::Forbidden => (
                106,
                StatusCode::FORBIDDEN,
                None,
                "Not permitted: the key lacks a scope or may not name the channel, or the request names an origin or a host that is not allowed.",
            ),
            Self::TooMany => (
                107,
                StatusCode::TOO_MANY_REQUESTS,
                SOON,
                "Too many publishes or sockets at once, in all or for the share of the key, or more messages a second than the key may publish. Come again after the pause that is named.",
            ),
            Self::Unavailable => (
                108,
                StatusCode::SERVICE_UNAVAILABLE,
                SOON,
                "The bus or the store can't be reached, or the store is full; `m` says which. Come again after a pause.",
            ),
            Self::NotSupported => (
                109,
                StatusCode::OK,
                None,
                "A call of the original that is not offered here. `m` names what to use instead.",
            ),
        };
        Row { number, status, retry_after, meaning }
    }

    /// `E.c` as text, for labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "101",
            Self::BadChannel => "103",
            Self::TooLarge => "104",
            Self::BadKey => "105",
            Self::Forbidden => "106",
            Self::TooMany => "107",
            Self::Unavailable => "108",
            Self::NotSupported => "109",
        }
    }
}

/// Writes the table of codes in Markdown, as it stands in the manual.
pub fn code_table() -> String {
    let mut table = String::from("| `E.c` | HTTP | come again? | meaning |\n| --- | --- | --- | --- |\n");
    for row in Code::ALL.map(Code::row) {
        let again = if row.retry_after.is_some() { "yes" } else { "no" };
        let line = format!("| {} | {} | {again} | {} |\n", row.number, row.status.as_u16(), row.meaning);
        table.push_str(&line);
    }
    table
}
