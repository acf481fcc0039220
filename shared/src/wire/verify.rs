//! "Whose token is this?" between an edge and an auth-adapter.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An edge's question. The token is a secret: it is in no log and in no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Version.
    #[serde(default = "super::first_version")]
    pub v: u32,
    /// What the device sent.
    pub token: String,
}

impl fmt::Debug for VerifyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyRequest").field("v", &self.v).field("token", &"***").finish()
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

super::envelope!(VerifyRequest, VerifyReply);
