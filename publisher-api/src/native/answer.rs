//! Answers of native calls. Types and comments are also what `/openapi.json` says.

use std::collections::BTreeSet;

use serde::Serialize;
use shared::ids::NodeId;
use utoipa::ToSchema;

use crate::error::Refusal;
use crate::receipts::Receipt;

/// Why a request was refused (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemAnswer {
    /// The kind of problem as a URI.
    #[serde(rename = "type")]
    #[schema(example = "urn:message-center:problem:invalid_json")]
    kind: String,
    /// What is the same for every problem of the kind.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened here and what to do, for people; it may change.
    detail: String,
    /// The kind of problem, for programs; it never changes.
    #[schema(example = "invalid_json")]
    code: &'static str,
    /// After so many seconds the same request may succeed.
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

/// Why one of several was refused. The codes are those of problems.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = EntryError)]
pub(super) struct EntryError {
    /// The kind of problem, for programs; it never changes.
    #[schema(example = "invalid_user")]
    pub(super) code: &'static str,
    /// What is wrong and what to do, for people; it may change.
    detail: String,
}

impl EntryError {
    pub(super) fn of(refusal: &Refusal) -> Self {
        Self { code: refusal.problem().row().name, detail: refusal.to_string() }
    }
}

/// What became of one target.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = TargetResult)]
pub(super) enum TargetResult {
    /// The store has the message, or, without history, the bus.
    Sent {
        /// The channel.
        #[schema(example = "user:1001")]
        to: String,
        /// Where recovering clients see the message, if its channel has history; otherwise an id for logs.
        #[schema(example = "2b9f42b420cf6b4c.42")]
        id: String,
        /// True if an earlier call with the same `Idempotency-Key` stored it.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        #[schema(required = false)]
        duplicate: bool,
        /// Sessions that took it. Absent if nobody was asked.
        #[serde(skip_serializing_if = "Option::is_none")]
        sessions: Option<u64>,
        /// Sessions that did not, being full or closing. Absent if nobody was asked.
        #[serde(skip_serializing_if = "Option::is_none")]
        failed: Option<u64>,
    },
    /// It was not sent.
    Refused {
        /// The channel, or what stood there.
        to: String,
        /// Why.
        error: EntryError,
    },
}

/// Which edges were counted.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Edges)]
pub(super) struct EdgesAnswer {
    /// Edges that there are or may be.
    expected: usize,
    /// Edges that answered.
    answered: usize,
    /// Those that did not.
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

    /// Over several receipts: an edge that is missing in one is missing.
    pub(super) fn of(receipts: &[Receipt]) -> Self {
        let expected = receipts.iter().map(|receipt| receipt.expected).max().unwrap_or(0);
        Self::new(expected, receipts.iter().flat_map(|receipt| receipt.missing.iter()))
    }
}

/// What became of a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Published)]
pub(super) struct PublishAnswer {
    /// Names this request, for logs.
    pub(super) id: String,
    /// One entry a target: users first, then channels, in their order.
    pub(super) results: Vec<TargetResult>,
    /// True if an earlier call with the same `Idempotency-Key` stored all that this one sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(super) duplicate: bool,
    /// Which edges were counted. Absent if nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) edges: Option<EdgesAnswer>,
    /// Whether the counts are all there is. Absent if nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) complete: Option<bool>,
}

/// What became of one message of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = MessageResult)]
pub(super) enum MessageResult {
    /// It was understood; each target has its own result.
    Results {
        /// One entry a target: users first, then channels, in their order.
        results: Vec<TargetResult>,
    },
    /// It was not sent to anyone.
    Refused {
        /// Why.
        error: EntryError,
    },
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchPublished)]
pub(super) struct BatchAnswer {
    /// Names this request, for logs.
    pub(super) id: String,
    /// One entry a message, in their order.
    pub(super) messages: Vec<MessageResult>,
    /// True if an earlier call with the same `Idempotency-Key` stored all that this one sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(super) duplicate: bool,
    /// Which edges were counted. Absent if nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) edges: Option<EdgesAnswer>,
    /// Whether the counts are all there is. Absent if nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) complete: Option<bool>,
}

/// The sessions of a user on one edge.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EdgeSessions)]
pub(super) struct EdgeSessions {
    /// The edge.
    pub(super) edge: String,
    /// How many.
    pub(super) sessions: u64,
    /// When they logged in (RFC 3339, UTC), the oldest first; of more than 32 sessions, the oldest 32.
    #[schema(example = json!(["2026-11-23T05:00:00.000Z"]))]
    pub(super) since: Vec<String>,
}

/// Who is online.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserSessions)]
pub(super) struct UserSessions {
    /// The user's id.
    #[schema(example = "1001")]
    pub(super) user: String,
    /// Whether there is a session. While the answer is not complete, false means that none was found.
    pub(super) online: bool,
    /// How many sessions there are.
    pub(super) sessions: u64,
    /// On which edges; only those that have one.
    pub(super) on: Vec<EdgeSessions>,
}

/// One user's sessions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionsOfUser)]
pub(super) struct SessionsAnswer {
    #[serde(flatten)]
    pub(super) user: UserSessions,
    /// Which edges were asked.
    pub(super) edges: EdgesAnswer,
    /// Whether every edge answered.
    pub(super) complete: bool,
}

/// One of several users.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = UserResult)]
pub(super) enum UserResult {
    /// What was found.
    Found(UserSessions),
    /// It was not asked for.
    Refused {
        /// The user, or what stood there.
        user: String,
        /// Why.
        error: EntryError,
    },
}

/// Many users' sessions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionsOfUsers)]
pub(super) struct ManySessionsAnswer {
    /// One entry a user, in the order of the question.
    pub(super) users: Vec<UserResult>,
    /// Which edges were asked.
    pub(super) edges: EdgesAnswer,
    /// Whether every edge answered.
    pub(super) complete: bool,
}

/// Sessions that one edge closed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EdgeClosed)]
pub(super) struct EdgeClosed {
    /// The edge.
    pub(super) edge: String,
    /// How many.
    pub(super) closed: u64,
}

/// What a disconnect did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Disconnected)]
pub(super) struct DisconnectAnswer {
    /// The user's id.
    #[schema(example = "1001")]
    pub(super) user: String,
    /// Sessions that are being closed, over all edges.
    pub(super) closed: u64,
    /// On which edges; only those that had one.
    pub(super) on: Vec<EdgeClosed>,
    /// Whether logins of the user are refused from now on: it is stored, and every edge that answered does so
    /// already.
    pub(super) denied: bool,
    /// Which edges were asked.
    pub(super) edges: EdgesAnswer,
    /// Whether every edge answered. If not, the silent ones may still have sessions of the user; repeat the
    /// call.
    pub(super) complete: bool,
}
