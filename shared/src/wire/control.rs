//! Commands of publishers to every edge about users: tell who is online, disconnect them, and have them renew
//! their logins.

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// Times that one answer names for a user at most. Beyond, only the number of sessions tells.
pub const MAX_SINCE: usize = 32;

/// A command to every edge, sent to [`crate::subject::CONTROL_ALL`]. Each edge answers to the reply subject
/// with a [`ControlAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// The command.
    #[serde(flatten)]
    pub command: Command,
}

/// An instruction to an edge. An edge that does not know a command gives no answer, so that the publisher
/// never takes the command for carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum Command {
    /// Tell how many sessions these users have, and since when.
    Sessions {
        /// Checked again by the edge with [`crate::ids::Uid::parse`].
        users: Vec<String>,
    },
    /// Close every session of these users.
    Disconnect {
        /// As in `Sessions`.
        users: Vec<String>,
        /// The reason in the close frame; `None`: the reason that the edge has for this close code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// For how many milliseconds from now these users may not log in. 0 lifts an earlier ban; `None`
        /// changes none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deny_for_ms: Option<u64>,
        /// Where the list of bans stores this one; `None` from a publisher that stores no list.
        #[serde(default, rename = "kept", skip_serializing_if = "Option::is_none")]
        stored: Option<StoredAt>,
    },
    /// Have every session of these users renew its login, as if the login had expired.
    Refresh {
        /// As in `Sessions`.
        users: Vec<String>,
        /// The moment of the refresh, in milliseconds since 1970: no answer that the business system gave
        /// earlier counts for these users.
        newer_than_ms: u64,
    },
}

/// Where the list of bans stores a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAt {
    /// The sequence in the stream: of two bans of a user, the later one holds.
    pub seq: u64,
    /// Until when the user may not log in, in milliseconds since 1970.
    pub until_ms: u64,
}

/// The ban of one user, as stored in the list of bans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// Checked again by the edge with [`crate::ids::Uid::parse`].
    pub uid: String,
    /// Until when the user may not log in, in milliseconds since 1970. A time in the past lifts the ban.
    pub until_ms: u64,
    /// The reason in the close frame; `None`: the reason that the edge has for this close code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One edge's answer to a [`Control`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlAnswer {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// The edge that answers.
    pub edge: NodeId,
    /// One entry per user, in the order of the command.
    pub users: Vec<UserAnswer>,
}

/// The sessions that one edge has of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserAnswer {
    /// The number of sessions that the edge has, has closed, or has told to renew their logins.
    #[serde(rename = "n")]
    pub sessions: u64,
    /// When these logged in, in milliseconds since 1970 (UTC), the oldest first; at most [`MAX_SINCE`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub since: Vec<u64>,
    /// Whether the edge refuses logins of this user from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub denied: bool,
}

super::envelope!(Control, ControlAnswer, Ban);
