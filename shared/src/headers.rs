//! Names of headers on the bus: `Nats-*` are JetStream's, `Mc-*` message center's own.

/// The name of a message in the duplicate window of its stream.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The subject that a message was stored under.
pub const SUBJECT: &str = "Nats-Subject";
/// The sequence of a message in its stream.
pub const SEQUENCE: &str = "Nats-Sequence";
/// The time at which a message was stored, in RFC 3339.
pub const TIME_STAMP: &str = "Nats-Time-Stamp";
/// The sequence of the message before: on a republished copy, the one before on the same subject; in an
/// answer to a batch, the one before in the answer.
pub const LAST_SEQUENCE: &str = "Nats-Last-Sequence";
/// The number of messages that match a request and come after this one.
pub const NUM_PENDING: &str = "Nats-Num-Pending";
/// The last sequence that an answer to a batch looked at.
pub const UP_TO_SEQUENCE: &str = "Nats-UpTo-Sequence";
/// Asks to store a message only if the last one on its subject has this sequence; 0 means none. Source: NATS'
/// ADR-4.
pub const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
/// The kind of a live message, if it is not text.
pub const KIND: &str = "Mc-Kind";
/// Marks a message that stands in place of erased ones: it is given to nobody, and a client that recovers
/// from before it is told that messages are missing.
pub const ERASED: &str = "Mc-Erased";
/// The version of a live message, if it is not 1.
pub const VERSION: &str = "Mc-V";
