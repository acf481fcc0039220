//! Who may use the room and the memory that are kept back when there is none for others.

use super::headers;
use super::one::Message;
use crate::storage::Claim;

/// What an operator relies on when all else is refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reserved {
    /// Streams, by name.
    pub(crate) streams: Vec<String>,
    /// A header of messages in whichever stream; empty: none.
    pub(crate) header: String,
}

impl Reserved {
    /// Whether a message to a stream of this name may.
    pub(crate) fn claim_of(&self, stream: &str, message: &Message) -> Claim {
        let marked = || headers::lines(&message.headers).any(|(name, _)| name == self.header.as_bytes());
        if self.streams.iter().any(|own| own == stream) || marked() { Claim::Reserved } else { Claim::Common }
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
        assert_eq!(reserved.claim_of("S", &message("")), Claim::Common);
        assert_eq!(reserved.claim_of("BANS", &message("")), Claim::Reserved);
        assert_eq!(reserved.claim_of("S", &message("NATS/1.0\r\nErased: 1\r\n\r\n")), Claim::Reserved);
    }
}
