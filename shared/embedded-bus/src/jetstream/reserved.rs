//! Messages that may use reserved space and memory when there is none for others.

use super::stream::Message;
use crate::headers;
use crate::storage::Priority;

/// Streams and messages that an operator relies on when everything else is refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reserved {
    /// Streams, by name.
    pub(crate) streams: Vec<String>,
    /// A header of messages in any stream; empty: none.
    pub(crate) header: String,
}

impl Reserved {
    /// Whether a message replaces all erased messages of its subject.
    pub(crate) fn is_erasure_mark(&self, message: &Message) -> bool {
        !self.header.is_empty()
            && headers::lines(&message.headers).any(|(name, _)| name == self.header.as_bytes())
    }

    /// Returns the priority of a message. `is_erasure_mark`: see [`Reserved::is_erasure_mark`].
    pub(crate) fn priority_of(&self, stream: &str, is_erasure_mark: bool) -> Priority {
        if is_erasure_mark || self.streams.iter().any(|own| own == stream) {
            Priority::Reserved
        } else {
            Priority::Common
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_by_its_stream_or_its_header() {
        let reserved = Reserved { streams: vec!["BANS".to_owned()], header: "Erased".to_owned() };
        let message = |headers: &'static str| Message {
            subject: "s.a".into(),
            headers: headers.into(),
            payload: "x".into(),
        };
        let (plain, marked) = (message(""), message("NATS/1.0\r\nErased: 1\r\n\r\n"));
        assert!(!reserved.is_erasure_mark(&plain) && reserved.is_erasure_mark(&marked));
        assert!(!Reserved::default().is_erasure_mark(&marked));
        assert_eq!(reserved.priority_of("S", false), Priority::Common);
        assert_eq!(reserved.priority_of("S", true), Priority::Reserved);
        assert_eq!(reserved.priority_of("BANS", false), Priority::Reserved);
    }
}
