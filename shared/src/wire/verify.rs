//! "Whose token is this?" between an edge and an auth-adapter.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// An edge's question. The token is a secret: it is in no log and in no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// What the device sent.
    pub token: String,
    /// Milliseconds from now after which the edge has given up, and an answer is of no use. `None`: an edge
    /// that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience_ms: Option<u64>,
    /// Where the device connects from: an IPv4 address, or the first 64 bits of an IPv6 one. Adapters tell
    /// the failures of one device from those of all by it. `None`: an edge that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl fmt::Debug for VerifyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyRequest")
            .field("v", &self.v)
            .field("token", &"***")
            .field("patience_ms", &self.patience_ms)
            .field("from", &self.from)
            .finish()
    }
}

/// An auth-adapter's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReply {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// What is known.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The three answers, which are never mixed up: a business system that is away is not a "no".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// The token belongs to this user.
    Known {
        /// Checked again by the edge with [`crate::ids::Uid::parse`].
        uid: String,
        /// Milliseconds until the login expires, from now. `None`: it does not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_in_ms: Option<u64>,
    },
    /// The business system says no.
    Unknown,
    /// It could not be asked, or gave no usable answer.
    Unavailable {
        /// For logs; never shown to a client.
        reason: String,
    },
}

/// What an auth-adapter says about itself every [`AUTH_HEARTBEAT`], when asked, and when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthHeartbeat {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// Who speaks.
    pub adapter: NodeId,
    /// How it stands.
    pub state: AuthState,
}

/// How an auth-adapter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthState {
    /// It can ask the business system, or tries to find out.
    Able,
    /// The business system gives it no answers: it knows only what it remembers. Better ask another one.
    Unable,
    /// Its last word.
    Bye,
}

/// How often an auth-adapter says that it lives.
pub const AUTH_HEARTBEAT: Duration = Duration::from_secs(1);

super::envelope!(VerifyRequest, VerifyReply, AuthHeartbeat);
