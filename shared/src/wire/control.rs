//! What a publisher asks of every edge about users: who is online, and "send them away".

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// Times that one answer names for a user at most. Beyond, only the number of sessions tells.
pub const MAX_SINCE: usize = 32;

/// A question or an order to every edge, sent to [`crate::subject::CONTROL_ALL`]; the answer goes to the
/// reply subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// What is wanted.
    #[serde(flatten)]
    pub order: Order,
}

/// What an edge shall do. An edge that does not know an order gives no answer, so that nobody takes it for
/// obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum Order {
    /// Say how many sessions these users have, and since when.
    Sessions {
        /// Checked again by the edge with [`crate::ids::Uid::parse`].
        users: Vec<String>,
    },
    /// Close every session of these users.
    Disconnect {
        /// As in `Sessions`.
        users: Vec<String>,
        /// What the close frame says; `None`: the edge's own words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// For how many milliseconds from now these users may not log in. 0 lifts what was ordered before;
        /// `None` leaves it as it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deny_for_ms: Option<u64>,
        /// Where the list keeps this; `None` from a publisher that keeps no list.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<Kept>,
    },
}

/// Where the list of those who may not log in keeps an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its sequence in the stream: of two orders about a user, the later one holds.
    pub seq: u64,
    /// Until when the user may not log in, in milliseconds since 1970.
    pub until_ms: u64,
}

/// What the list of those who may not log in keeps of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// Checked again by the edge with [`crate::ids::Uid::parse`].
    pub uid: String,
    /// Until when the user may not log in, in milliseconds since 1970; what is past means that it may.
    pub until_ms: u64,
    /// What the close frame says; `None`: the edge's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One edge's answer to a [`Control`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlAnswer {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// Who answers.
    pub edge: NodeId,
    /// One entry a user, in the order of the question.
    pub users: Vec<UserAnswer>,
}

/// What one edge has of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserAnswer {
    /// Sessions it has, or that it closed.
    #[serde(rename = "n")]
    pub sessions: u64,
    /// When these logged in, in milliseconds since 1970 (UTC), the oldest first; at most [`MAX_SINCE`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub since: Vec<u64>,
    /// Whether the edge refuses logins of this user from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub denied: bool,
}

super::envelope!(Control, ControlAnswer, Denial);
