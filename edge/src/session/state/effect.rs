//! Effects of the conversation on the session's task, and their outcomes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use shared::config::Secret;
use shared::history::Position;
use shared::ids::{Channel, Group, Uid};

use crate::code::{CloseCode, ErrorCode};

/// An action that the session's task must carry out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Send this text, behind all that was said before.
    Reply(Cow<'static, str>),
    /// Send this error text, which says what was refused and why.
    Error(ErrorCode, Cow<'static, str>),
    /// Check the token and take the session in under its user; then [`super::State::on_verified`]. The answer
    /// must be newer than the refresh.
    Verify { token: Secret, newer_than: Option<u64> },
    /// Deliver this channel from now on; then [`super::State::on_subscribed`]. `has_history`: the
    /// channel has history, so its cursor is opened first.
    Watch { channel: Channel, has_history: bool },
    /// Deliver this channel no longer.
    Unwatch { channel: Channel, rest: Rest },
    /// Deliver this channel under this name with ids, after this position or from now on; then
    /// [`super::State::on_subscribed`]. The earlier delivery under that name, or with `instead_of_plain` of
    /// that channel, ends in the step in which this one begins.
    Follow { channel: Channel, name: Arc<str>, after: Option<Position>, instead_of_plain: bool },
    /// Deliver nothing more under this name.
    Unfollow { name: Arc<str>, rest: Rest },
    /// Send this text, which says that a subscription has ended since the user is no member.
    Closed(String),
    /// Hold messages back.
    Pause,
    /// Let messages go again.
    Resume,
    /// Deliver nothing more of any subscription, not even what already waits: another user is here.
    Forget,
    /// Ask for a sign of life.
    Ping,
    /// End the session with this code.
    Close(CloseCode),
}

/// Decides about the messages that still wait for a subscription when it ends. No such message comes after
/// the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The messages go out before anything else is sent, unless messages are held back.
    Give,
    /// The messages are thrown away: a replay brings them again, or the client named a later position.
    Drop,
    /// The messages are thrown away: the user may not have them any more.
    Forbid,
}

/// The outcome of a token check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verified {
    /// The token belongs to this user, who was let in.
    Known {
        uid: Uid,
        groups: Arc<[Group]>,
        expires_in: Option<Duration>,
        /// The latest refresh of the user that the answer is newer than.
        newer_than: Option<u64>,
    },
    /// The token belongs to nobody.
    Unknown,
    /// Nobody could tell whose token it is.
    Unavailable,
    /// The token belongs to a user who has as many sessions as allowed.
    TooManySessions,
    /// The token belongs to a user whom the back end keeps out for a while.
    Banned,
}

/// How a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Granted {
    /// With the next message.
    Plain,
    /// With the message behind this position. `recovered`: everything after the position that the client
    /// named follows.
    Following { position: Position, recovered: bool },
}

/// The bus or the store failed to prove in time that messages would arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unproved;
