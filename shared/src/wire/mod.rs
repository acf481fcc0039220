//! The envelopes that travel on the bus between two parts.
//!
//! Every envelope carries a version (absent: 1). A part reads the version before its own, its own and the
//! next, and ignores unknown fields, so that any two parts of adjacent versions work together.

mod ask;
mod control;
mod heartbeat;
mod message;
mod verify;

pub use ask::{Answer, Ask, Counts, StoredRef};
pub use control::{Ban, Command, Control, ControlAnswer, MAX_SINCE, StoredAt, UserAnswer};
pub use heartbeat::{EdgeState, Heartbeat, HeartbeatAck};
pub use message::{Kind, LiveMessage};
pub use verify::{AUTH_HEARTBEAT, AuthHeartbeat, AuthState, Login, Verdict, VerifyReply, VerifyRequest};

/// The version of envelopes that this build writes.
pub const VERSION: u32 = 1;

/// Why an envelope can't be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes are not the expected JSON.
    #[error("not a valid envelope: {0}")]
    Json(#[from] serde_json::Error),
    /// A header is missing or wrong.
    #[error("header {0} is missing or wrong")]
    Header(&'static str),
    /// A part that is more than one version ahead wrote the envelope.
    #[error("version {0} is too new for this build, which reads up to {max}", max = VERSION + 1)]
    Version(u32),
    /// A text message that is not UTF-8.
    #[error("a text message is not UTF-8")]
    NotUtf8,
}

/// Refuses a version that is more than one ahead.
fn check_version(version: u32) -> Result<(), WireError> {
    if version > VERSION + 1 { Err(WireError::Version(version)) } else { Ok(()) }
}

fn first_version() -> u32 {
    1
}

/// An envelope in JSON.
///
/// ```
/// use shared::wire::{Ask, Envelope as _, VERSION};
///
/// let ask = Ask { v: VERSION, ids: vec![], stored: vec![] };
/// assert_eq!(Ask::decode(&ask.encode())?, ask);
/// assert_eq!(Ask::decode(br#"{"ids":[],"later":1}"#)?.v, 1, "an unknown field, and no version");
/// assert!(Ask::decode(br#"{"v":9,"ids":[]}"#).is_err());
/// # Ok::<(), shared::wire::WireError>(())
/// ```
pub trait Envelope: serde::Serialize + serde::de::DeserializeOwned {
    /// Returns the version with which the envelope was written.
    fn version(&self) -> u32;

    /// Encodes the envelope.
    fn encode(&self) -> bytes::Bytes {
        serde_json::to_vec(self).expect("an envelope has only string keys").into()
    }

    /// Decodes an envelope.
    ///
    /// # Errors
    /// The bytes are not the expected JSON, or the version is too new.
    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let envelope: Self = serde_json::from_slice(bytes)?;
        check_version(envelope.version())?;
        Ok(envelope)
    }
}

/// Implements [`Envelope`] for types with a field `v`.
macro_rules! envelope {
    ($($name:ident),*) => {$(
        impl $crate::wire::Envelope for $name {
            fn version(&self) -> u32 {
                self.v
            }
        }
    )*};
}
use envelope;

#[cfg(test)]
mod tests;
