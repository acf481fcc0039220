//! Errors and close codes that clients are told: two tables.
//!
//! Number, text and advice of an error or a close stand in one row and nowhere else, so that they can't drift
//! apart. The tables in `deploy/docs/protocol.md` are generated from these rows, and a test holds them equal.

use std::sync::Arc;

/// Why an op was refused; sent as `{"code":…,"msg":"…"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The op needs a login first.
    NotAuth,
    /// The token belongs to nobody.
    AuthFailed,
    /// The token could not be checked.
    AuthUnavailable,
    /// The frame, or one of its fields, is malformed.
    BadRequest,
    /// There is no such op.
    UnknownOp,
    /// No channel rule matches this name.
    UnknownChannel,
    /// The client sends more ops a second than allowed.
    TooManyRequests,
    /// The session has as many subscriptions as allowed.
    TooManySubscriptions,
    /// The login has expired.
    AuthExpired,
    /// The bus can't prove within its deadline that messages would arrive.
    Unavailable,
    /// The user is not in the group that the channel is for.
    NotAllowed,
}

/// Text that a close frame carries in place of its code's own reason.
pub(crate) type CloseReason = Option<Arc<str>>;

/// Advice to a client after its connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// Come back at once.
    Now,
    /// Come back, and wait longer after each failure.
    WithBackOff,
    /// Come back with a new token only.
    WithNewToken,
    /// Don't come back unasked: the same would happen again.
    No,
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The client broke RFC 6455.
    ProtocolError,
    /// A text frame is not UTF-8.
    NotUtf8,
    /// A frame is larger than the limit.
    TooBig,
    /// This edge leaves.
    Leaving,
    /// The token could not be checked.
    AuthUnavailable,
    /// Stored messages can't be read.
    StoreUnavailable,
    /// A frame is no op.
    BadRequest,
    /// The token belongs to nobody.
    AuthFailed,
    /// The login expired and was not renewed in time.
    AuthExpired,
    /// Neither a login nor a subscription came in time.
    NoLogin,
    /// Nothing was heard for too long.
    Silent,
    /// A newer session of the same user took its place.
    Replaced,
    /// The client went on although its ops were refused as too many.
    TooManyOps,
    /// The back end closed the session, or banned the user for a while.
    Disconnected,
    /// The user has as many sessions as allowed.
    TooManySessions,
    /// The client takes messages more slowly than they come.
    TooSlow,
}

impl ErrorCode {
    /// Every code, by number.
    pub const ALL: [Self; 11] = [
        Self::NotAuth,
        Self::AuthFailed,
        Self::AuthUnavailable,
        Self::BadRequest,
        Self::UnknownOp,
        Self::UnknownChannel,
        Self::TooManyRequests,
        Self::TooManySubscriptions,
        Self::AuthExpired,
        Self::Unavailable,
        Self::NotAllowed,
    ];

    /// Returns number and text, and a sentence for the documentation: when the error comes and what to do.
    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::NotAuth => (1, "Not Auth", "The channel needs a login: send `auth` first."),
            Self::AuthFailed => (2, "Auth Failed", "The token is not valid; close 4401 follows."),
            Self::AuthUnavailable => {
                (3, "Auth Unavailable", "The token can't be checked at the moment; close 1013 follows.")
            }
            Self::BadRequest => (4, "Bad Request", "The text says what is wrong with the frame; correct it."),
            Self::UnknownOp => (5, "Unknown Op", "There are `auth`, `subscribe` and `unsubscribe`."),
            Self::UnknownChannel => (6, "Unknown Channel", "No rule of the server knows this name."),
            Self::TooManyRequests => {
                (7, "Too Many Requests", "The op was not carried out; wait a second and send it again.")
            }
            Self::TooManySubscriptions => {
                (8, "Too Many Subscriptions", "Unsubscribe from something before you subscribe to more.")
            }
            Self::AuthExpired => {
                (9, "Auth Expired", "Deliveries pause: `auth` with a new token, or be closed with 4401.")
            }
            Self::Unavailable => (10, "Unavailable", "Nothing was subscribed; try again in a few seconds."),
            Self::NotAllowed => {
                (11, "Not Allowed", "Your login lacks the group of this channel; `auth` brings new groups.")
            }
        }
    }

    /// Returns the number in `code`.
    pub const fn number(self) -> u16 {
        self.row().0
    }

    /// Returns the label of counters.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::NotAuth => "not_auth",
            Self::AuthFailed => "auth_failed",
            Self::AuthUnavailable => "auth_unavailable",
            Self::BadRequest => "bad_request",
            Self::UnknownOp => "unknown_op",
            Self::UnknownChannel => "unknown_channel",
            Self::TooManyRequests => "too_many_requests",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::AuthExpired => "auth_expired",
            Self::Unavailable => "unavailable",
            Self::NotAllowed => "not_allowed",
        }
    }

    /// Returns the text that `msg` begins with.
    pub const fn text(self) -> &'static str {
        self.row().1
    }
}

impl CloseCode {
    /// Every code, by number.
    pub const ALL: [Self; 16] = [
        Self::ProtocolError,
        Self::NotUtf8,
        Self::TooBig,
        Self::Leaving,
        Self::AuthUnavailable,
        Self::StoreUnavailable,
        Self::BadRequest,
        Self::AuthFailed,
        Self::AuthExpired,
        Self::NoLogin,
        Self::Silent,
        Self::Replaced,
        Self::Disconnected,
        Self::TooManyOps,
        Self::TooManySessions,
        Self::TooSlow,
    ];

    /// Returns number, reason (at most 123 bytes), and whether the client may reconnect.
    const fn row(self) -> (u16, &'static str, Reconnect) {
        match self {
            Self::ProtocolError => (1002, "WebSocket protocol error: correct the client", Reconnect::No),
            Self::NotUtf8 => (1007, "a text frame is not UTF-8: correct the client", Reconnect::No),
            Self::TooBig => (1009, "the frame is too big: send smaller ones", Reconnect::No),
            Self::Leaving => (1012, "this server leaves: reconnect", Reconnect::Now),
            Self::AuthUnavailable => {
                (1013, "the token can't be checked now: reconnect later", Reconnect::WithBackOff)
            }
            Self::StoreUnavailable => (
                1013,
                "what is stored can't be read now: reconnect later and recover",
                Reconnect::WithBackOff,
            ),
            Self::BadRequest => (4400, "bad request: correct the client", Reconnect::No),
            Self::AuthFailed => {
                (4401, "the token is not valid: get a new token, then reconnect", Reconnect::WithNewToken)
            }
            Self::AuthExpired => {
                (4401, "the login has expired: get a new token, then reconnect", Reconnect::WithNewToken)
            }
            Self::NoLogin => {
                (4408, "no login or subscription in time: reconnect and send auth at once", Reconnect::Now)
            }
            Self::Silent => (4408, "nothing was heard for too long: reconnect", Reconnect::Now),
            Self::Replaced => {
                (4409, "replaced by a newer session of the same user: use that one", Reconnect::No)
            }
            Self::Disconnected => {
                (4410, "closed by the back end: do not come back by yourself", Reconnect::No)
            }
            Self::TooManyOps => {
                (4429, "too many ops: reconnect later and send fewer", Reconnect::WithBackOff)
            }
            Self::TooManySessions => {
                (4429, "too many sessions of this user: close another first", Reconnect::WithBackOff)
            }
            Self::TooSlow => (
                4503,
                "messages are taken too slowly: reconnect and recover, or reload",
                Reconnect::WithBackOff,
            ),
        }
    }

    /// Returns the number in the close frame.
    pub const fn number(self) -> u16 {
        self.row().0
    }

    /// Returns the reason in the close frame.
    pub const fn reason(self) -> &'static str {
        self.row().1
    }

    /// Returns what the client should do after the close.
    pub const fn reconnect(self) -> Reconnect {
        self.row().2
    }

    /// Returns the label of counters.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::ProtocolError => "protocol_error",
            Self::NotUtf8 => "not_utf8",
            Self::TooBig => "too_big",
            Self::Leaving => "leaving",
            Self::AuthUnavailable => "auth_unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::BadRequest => "bad_request",
            Self::AuthFailed => "auth_failed",
            Self::AuthExpired => "auth_expired",
            Self::NoLogin => "no_login",
            Self::Silent => "silent",
            Self::Replaced => "replaced",
            Self::Disconnected => "disconnected",
            Self::TooManyOps => "too_many_ops",
            Self::TooManySessions => "too_many_sessions",
            Self::TooSlow => "too_slow",
        }
    }

    /// Returns whether waiting messages are written before the close, since the client did nothing wrong.
    pub(crate) fn lets_finish(self) -> bool {
        matches!(self, Self::Leaving | Self::Replaced | Self::Disconnected)
    }
}

impl Reconnect {
    const fn text(self) -> &'static str {
        match self {
            Self::Now => "yes, at once",
            Self::WithBackOff => "yes, with back-off",
            Self::WithNewToken => "with a new token",
            Self::No => "no",
        }
    }
}

/// Returns both tables as Markdown, as they stand in the documentation.
pub fn tables() -> String {
    let mut page = String::from("| `code` | `msg` | what to do |\n| --- | --- | --- |\n");
    for code in ErrorCode::ALL {
        let (number, text, advice) = code.row();
        page.push_str(&format!("| {number} | {text} | {advice} |\n"));
    }
    page.push_str("\n| close code | reason | may reconnect |\n| --- | --- | --- |\n");
    for code in CloseCode::ALL {
        let (number, reason, reconnect) = code.row();
        page.push_str(&format!("| {number} | {reason} | {} |\n", reconnect.text()));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_are_those_of_the_contract() {
        let rows = ErrorCode::ALL.map(|code| (code.number(), code.text()));
        let numbers: Vec<u16> = rows.iter().map(|row| row.0).collect();
        assert_eq!(numbers, (1..=11).collect::<Vec<_>>());
        assert_eq!(rows[0].1, "Not Auth");
        assert_eq!(rows[9].1, "Unavailable");
    }

    #[test]
    fn a_close_reason_says_something_and_fits_its_frame() {
        for code in CloseCode::ALL {
            let reason = code.reason();
            assert!((10..=123).contains(&reason.len()), "{reason:?}");
            let standard = (1000..1016).contains(&code.number());
            assert!(standard || (4400..4600).contains(&code.number()), "{code:?}");
        }
    }

    #[test]
    fn the_documented_tables_are_the_ones_in_the_code() {
        let page = include_str!("../../deploy/docs/protocol.md");
        let (_, rest) =
            page.split_once("<!-- generated by edge/src/code.rs -->\n").expect("the page has the mark");
        let (documented, _) = rest.split_once("<!-- end -->").expect("the page has the end mark");
        assert_eq!(documented, tables(), "copy the right side into deploy/docs/protocol.md");
    }
}
