//! Answers of native calls. `/openapi.json` shows these types with their doc comments.

use std::collections::BTreeSet;

use serde::Serialize;
use shared::ids::NodeId;
use utoipa::ToSchema;

use crate::error::Refusal;
use crate::receipts::Receipt;

/// The reason why a request was refused (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemAnswer {
    /// The kind of problem as a URI.
    #[serde(rename = "type")]
    #[schema(example = "urn:message-center:problem:invalid_json")]
    kind: String,
    /// A summary, the same for every problem of this kind.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// The reason in this case, and what to do, for people; the text may change.
    detail: String,
    /// The kind of problem, for programs; a code never changes.
    #[schema(example = "invalid_json")]
    code: &'static str,
    /// Seconds after which the same request may succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl ProblemAnswer {
    pub(super) fn of(refusal: &Refusal) -> Self {
        let row = refusal.problem().row();
        Self {
            kind: format!("urn:message-center:problem:{}", row.name),
            title: row.title,
            status: row.status.as_u16(),
            detail: refusal.to_string(),
            code: row.name,
            retry_after: refusal.retry_after(),
        }
    }
}

/// The reason why one entry of a request was refused. The codes are those of `Problem`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = EntryError)]
pub(super) struct EntryError {
    /// The kind of problem, for programs; a code never changes.
    #[schema(example = "invalid_user")]
    pub(super) code: &'static str,
    /// The reason in this case, and what to do, for people; the text may change.
    detail: String,
}

impl EntryError {
    pub(super) fn of(refusal: &Refusal) -> Self {
        Self { code: refusal.problem().row().name, detail: refusal.to_string() }
    }
}

/// The result of one target.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = TargetResult)]
pub(super) enum TargetResult {
    /// The message was accepted: by the store, or by the bus if the channel has no history.
    Sent {
        /// The channel.
        #[schema(example = "user:1001")]
        to: String,
        /// The id of the message: for channels with history its position, which recovering clients receive
        /// too; for others an id for logs.
        #[schema(example = "2b9f42b420cf6b4c.42")]
        id: String,
        /// True if an earlier call with the same `Idempotency-Key` stored the message.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        #[schema(required = false)]
        duplicate: bool,
        /// How many sessions took the message. Absent if the call wanted no counts.
        #[serde(skip_serializing_if = "Option::is_none")]
        sessions: Option<u64>,
        /// How many sessions could not take the message, because they were full or closing. Absent if the
        /// call wanted no counts.
        #[serde(skip_serializing_if = "Option::is_none")]
        failed: Option<u64>,
    },
    /// The message was not sent to this target.
    Refused {
        /// The channel, or the text that the request had in its place.
        to: String,
        /// The reason.
        error: EntryError,
    },
}

/// The edges whose sessions were counted.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Edges)]
pub(super) struct EdgesAnswer {
    /// How many edges exist or may exist.
    expected: usize,
    /// How many of these edges answered.
    answered: usize,
    /// The edges that did not answer.
    silent: Vec<String>,
}

impl EdgesAnswer {
    pub(super) fn new<'a>(expected: usize, missing: impl IntoIterator<Item = &'a NodeId>) -> Self {
        let silent: BTreeSet<&NodeId> = missing.into_iter().collect();
        let expected = expected.max(silent.len());
        Self {
            expected,
            answered: expected - silent.len(),
            silent: silent.into_iter().map(|edge| edge.as_str().to_owned()).collect(),
        }
    }

    /// Sums up several receipts: an edge that is missing in one of them is missing.
    pub(super) fn of(receipts: &[Receipt]) -> Self {
        let expected = receipts.iter().map(|receipt| receipt.expected).max().unwrap_or(0);
        Self::new(expected, receipts.iter().flat_map(|receipt| receipt.missing.iter()))
    }
}

/// The outcome of publishing one message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Published)]
pub(super) struct PublishAnswer {
    /// The id of this request, for logs.
    pub(super) id: String,
    /// One result per target: users first, then channels, in the order of the request.
    pub(super) results: Vec<TargetResult>,
    /// True if an earlier call with the same `Idempotency-Key` stored every message that this call sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(super) duplicate: bool,
    /// The edges whose sessions were counted. Absent if the call wanted no counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) edges: Option<EdgesAnswer>,
    /// Whether the counts include every session. Absent if the call wanted no counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) complete: Option<bool>,
}

/// The outcome of one message of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = MessageResult)]
pub(super) enum MessageResult {
    /// The message was understood; each target has its own result.
    Results {
        /// One result per target: users first, then channels, in the order of the message.
        results: Vec<TargetResult>,
    },
    /// The message was sent to no target.
    Refused {
        /// The reason.
        error: EntryError,
    },
}

/// The outcome of publishing a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchPublished)]
pub(super) struct BatchAnswer {
    /// The id of this request, for logs.
    pub(super) id: String,
    /// One outcome per message, in the order of the request.
    pub(super) messages: Vec<MessageResult>,
    /// True if an earlier call with the same `Idempotency-Key` stored every message that this call sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(super) duplicate: bool,
    /// The edges whose sessions were counted. Absent if the call wanted no counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) edges: Option<EdgesAnswer>,
    /// Whether the counts include every session. Absent if the call wanted no counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) complete: Option<bool>,
}

/// The sessions of a user on one edge.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EdgeSessions)]
pub(super) struct EdgeSessions {
    /// The id of the edge.
    pub(super) edge: String,
    /// How many sessions the user has on this edge.
    pub(super) sessions: u64,
    /// The login times of these sessions (RFC 3339, UTC), oldest first; of more than 32 sessions, the oldest
    /// 32.
    #[schema(example = json!(["2026-11-23T05:00:00.000Z"]))]
    pub(super) since: Vec<String>,
}

/// The sessions of a user, over all edges.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserSessions)]
pub(super) struct UserSessions {
    /// The user's id.
    #[schema(example = "1001")]
    pub(super) user: String,
    /// Whether the user has a session. If the answer is not complete, false means that no session was found.
    pub(super) online: bool,
    /// How many sessions the user has.
    pub(super) sessions: u64,
    /// The edges that have a session of the user.
    pub(super) on: Vec<EdgeSessions>,
}

/// The answer about one user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionsOfUser)]
pub(super) struct SessionsAnswer {
    #[serde(flatten)]
    pub(super) user: UserSessions,
    /// The edges that were asked.
    pub(super) edges: EdgesAnswer,
    /// Whether every edge answered.
    pub(super) complete: bool,
}

/// The result of one of several users.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = UserResult)]
pub(super) enum UserResult {
    /// The user's sessions.
    Found(UserSessions),
    /// The edges were not asked about this user.
    Refused {
        /// The user, or the text that the request had in its place.
        user: String,
        /// The reason.
        error: EntryError,
    },
}

/// The answer about several users.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionsOfUsers)]
pub(super) struct ManySessionsAnswer {
    /// One result per user, in the order of the request.
    pub(super) users: Vec<UserResult>,
    /// The edges that were asked.
    pub(super) edges: EdgesAnswer,
    /// Whether every edge answered.
    pub(super) complete: bool,
}

/// The sessions that one edge closes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EdgeClosed)]
pub(super) struct EdgeClosed {
    /// The id of the edge.
    pub(super) edge: String,
    /// How many sessions this edge closes.
    pub(super) closed: u64,
}

/// The sessions that one edge has told to renew their logins.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EdgeRefreshed)]
pub(super) struct EdgeRefreshed {
    /// The id of the edge.
    pub(super) edge: String,
    /// How many sessions this edge has told.
    pub(super) sessions: u64,
}

/// The outcome of a refresh.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Refreshed)]
pub(super) struct RefreshAnswer {
    /// The user's id.
    #[schema(example = "1001")]
    pub(super) user: String,
    /// How many sessions have to renew their logins, over all edges.
    pub(super) sessions: u64,
    /// The edges that had a session of the user.
    pub(super) on: Vec<EdgeRefreshed>,
    /// The edges that were asked.
    pub(super) edges: EdgesAnswer,
    /// Whether every edge answered. If not, sessions of the user at the silent edges may still have the old
    /// groups; repeat the call.
    pub(super) complete: bool,
}

/// The outcome of a disconnect.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Disconnected)]
pub(super) struct DisconnectAnswer {
    /// The user's id.
    #[schema(example = "1001")]
    pub(super) user: String,
    /// How many sessions are being closed, over all edges.
    pub(super) closed: u64,
    /// The edges that had a session of the user.
    pub(super) on: Vec<EdgeClosed>,
    /// Whether logins of the user are refused from now on: the ban is stored, and every edge that answered
    /// applies it already.
    pub(super) denied: bool,
    /// The edges that were asked.
    pub(super) edges: EdgesAnswer,
    /// Whether every edge answered. If not, the silent edges may still have sessions of the user; repeat the
    /// call.
    pub(super) complete: bool,
}
