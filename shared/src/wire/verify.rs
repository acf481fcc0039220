//! Token checks: an edge asks an auth-adapter to whom a token belongs.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// The question of an edge. The token is a secret: no log and no `Debug` shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// The token, as the device sent it.
    pub token: String,
    /// Milliseconds from now after which the edge gives up and an answer is useless. `None`: the edge does
    /// not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience_ms: Option<u64>,
    /// The address of the device: an IPv4 address, or the first 64 bits of an IPv6 address. By the address an
    /// adapter tells failures of one device from failures of all. `None`: the edge does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Unix time in milliseconds: an answer that the business system gave earlier does not count. `None`: any
    /// remembered answer counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer_than_ms: Option<u64>,
}

impl fmt::Debug for VerifyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyRequest")
            .field("v", &self.v)
            .field("token", &"***")
            .field("patience_ms", &self.patience_ms)
            .field("from", &self.from)
            .field("newer_than_ms", &self.newer_than_ms)
            .finish()
    }
}

/// The answer of an auth-adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReply {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The three answers. They are never mixed up: a business system that is away has not said no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// The token belongs to a user.
    Known(Login),
    /// The token is refused by the business system, or is no valid JWT.
    Unknown,
    /// The business system could not be asked, or gave no usable answer.
    Unavailable {
        /// The reason, for logs; never shown to a client.
        reason: String,
    },
}

/// What a good token says about its user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user, checked again by the edge with [`crate::ids::Uid::parse`].
    pub uid: String,
    /// Milliseconds from now until the login expires. `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// The groups of the user, at most [`crate::ids::MAX_GROUPS`], checked again by the edge with
    /// [`crate::ids::Group::parse`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// When the token was issued, in Unix milliseconds: `iat` of a JWT, by the issuer's clock, or else the
    /// moment at which the business system was asked. `None`: a JWT without `iat`, or an adapter of the
    /// version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at_ms: Option<u64>,
    /// The fingerprint of the id of a JWT (`jti`), by which the token can be revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
}

impl Login {
    /// Returns the login of a user that never expires and has no groups.
    pub fn of(uid: impl Into<String>) -> Self {
        Self { uid: uid.into(), ..Self::default() }
    }
}

/// The heartbeat of an auth-adapter, sent every [`AUTH_HEARTBEAT`], when an edge asks, and when the state
/// changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthHeartbeat {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// The auth-adapter.
    pub adapter: NodeId,
    /// The state.
    pub state: AuthState,
}

/// The state of an auth-adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthState {
    /// The adapter can ask the business system, or is finding out.
    Able,
    /// The business system does not answer: the adapter knows only remembered tokens. Better ask another
    /// adapter.
    Unable,
    /// The last heartbeat: the adapter leaves.
    Bye,
}

/// The interval between two heartbeats of an auth-adapter.
pub const AUTH_HEARTBEAT: Duration = Duration::from_secs(1);

super::envelope!(VerifyRequest, VerifyReply, AuthHeartbeat);
