//! What travels on the bus between two parts.
//!
//! Every envelope carries a version (absent: 1). A part reads the version before its own, its own and the
//! one after, and takes fields that it does not know for granted, so that two adjacent versions of any two
//! parts work together.

mod ask;
mod control;
mod heartbeat;
mod message;
mod verify;

pub use ask::{Answer, Ask, Counts, StoredRef};
pub use control::{Ban, Command, Control, ControlAnswer, MAX_SINCE, StoredAt, UserAnswer};
pub use heartbeat::{EdgeState, Heartbeat, HeartbeatAck};
pub use message::{Kind, LiveMessage};
pub use verify::{AUTH_HEARTBEAT, AuthHeartbeat, AuthState, Verdict, VerifyReply, VerifyRequest};

/// The version that this build writes.
pub const VERSION: u32 = 1;

/// Why something from the bus could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not the JSON that is expected there.
    #[error("not a valid envelope: {0}")]
    Json(#[from] serde_json::Error),
    /// A header is missing or wrong.
    #[error("header {0} is missing or wrong")]
    Header(&'static str),
    /// Written by a part that is more than one version ahead.
    #[error("version {0} is too new for this build, which reads up to {max}", max = VERSION + 1)]
    Version(u32),
    /// A text message that is not UTF-8.
    #[error("a text message is not UTF-8")]
    NotUtf8,
}

/// Refuses what is more than one version ahead.
fn check_version(version: u32) -> Result<(), WireError> {
    if version > VERSION + 1 { Err(WireError::Version(version)) } else { Ok(()) }
}

fn first_version() -> u32 {
    1
}

/// An envelope in JSON.
pub trait Envelope: serde::Serialize + serde::de::DeserializeOwned {
    /// The version it was written with.
    fn version(&self) -> u32;

    /// The bytes that travel.
    fn encode(&self) -> bytes::Bytes {
        serde_json::to_vec(self).expect("an envelope has only string keys").into()
    }

    /// Reads what travelled.
    ///
    /// # Errors
    /// Not the JSON that is expected, or too new.
    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let envelope: Self = serde_json::from_slice(bytes)?;
        check_version(envelope.version())?;
        Ok(envelope)
    }
}

/// Gives a type with a field `v` the envelope's methods.
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
