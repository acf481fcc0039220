//! Many messages by one request, and whether they are all that match.
//!
//! A server may end an answer early: at the bytes or the messages that the request names, at its own bound
//! for what waits on one connection (64 MB in nats-server, a quarter of `max_pending` in the embedded bus),
//! or at a message that was removed during the read. So every request names its bytes, and the type of an
//! answer makes each caller say what becomes of the rest. Each message names the message before it in the
//! answer, so a message that was lost on the way shows too. Source: NATS' ADR-31, and nats-server's answers
//! as captured.

use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;
use serde_json::json;

use super::message::{direct, number};
use super::{ApiError, RawMessage};
use crate::bus::Bus;
use crate::headers;

/// Which messages to read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch<'a> {
    /// Messages of a subject (wildcards allowed) from a sequence on, in order.
    Next {
        /// The lowest sequence.
        seq: u64,
        /// The subject.
        subject: &'a str,
        /// The most messages.
        messages: usize,
        /// The answer ends with the message that reaches so many bytes.
        bytes: usize,
    },
    /// The last message of each of these subjects, if it is not before a sequence.
    LastOf {
        /// Subjects without wildcards, at most 1,024.
        subjects: &'a [String],
        /// The lowest sequence.
        seq: u64,
        /// The answer ends with the message that reaches so many bytes.
        bytes: usize,
    },
}

/// The answer to a batch, in the order of the sequences.
#[derive(Debug, Clone)]
#[must_use]
pub enum BatchAnswer {
    /// All messages that match, as the answering replica knows.
    Whole {
        /// The messages.
        messages: Vec<RawMessage>,
        /// The sequence up to which the replica looked, if it says so.
        up_to: Option<u64>,
    },
    /// The first messages that match: ask for the rest.
    Cut {
        /// The messages, at least one.
        messages: Vec<RawMessage>,
        /// The number of further messages that match, at least one, as the replica knows.
        pending: u64,
        /// The sequence up to which the replica looked, if it says so.
        up_to: Option<u64>,
    },
}

impl Batch<'_> {
    /// Returns the request, and the most messages that may come.
    fn request(&self) -> (Bytes, usize) {
        let (body, most) = match self {
            // A server takes 0 bytes for "as many as you like".
            Self::Next { seq, subject, messages, bytes } => {
                let bytes = (*bytes).max(1);
                (
                    json!({ "seq": seq, "next_by_subj": subject, "batch": messages, "max_bytes": bytes }),
                    *messages,
                )
            }
            Self::LastOf { subjects, seq, bytes } => {
                let bytes = (*bytes).max(1);
                (json!({ "multi_last": subjects, "seq": seq, "max_bytes": bytes }), subjects.len())
            }
        };
        (body.to_string().into(), most)
    }

    /// Returns the description by which a server says that nothing matches. It describes a message that it
    /// could not read in another way.
    fn nothing(&self) -> &'static str {
        match self {
            Self::Next { .. } => "Message Not Found",
            Self::LastOf { .. } => "No Results",
        }
    }
}

impl Bus {
    /// Reads many messages from any replica.
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::Timeout`] and [`ApiError::Cut`] too if only a part came.
    pub async fn direct_batch(
        &self,
        name: &str,
        batch: Batch<'_>,
        deadline: Duration,
    ) -> Result<BatchAnswer, ApiError> {
        match self.awake().timeout(deadline, self.on_this_connection(self.batch(name, batch))).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::Timeout),
        }
    }

    async fn batch(&self, name: &str, batch: Batch<'_>) -> Result<BatchAnswer, ApiError> {
        let (body, most) = batch.request();
        // One more for the end.
        let (reply, mut answers) = self.inner.inbox.expect_many(most + 1);
        self.publish(format!("$JS.API.DIRECT.GET.{name}"), Some(reply), None, body).await?;
        let mut gathered = Gathered::default();
        loop {
            let message = answers.receive().await?;
            let previous = number(&message, headers::LAST_SEQUENCE);
            let pending = number(&message, headers::NUM_PENDING);
            match message.status.map(|status| status.as_u16()) {
                None => gathered.add(direct(message)?, previous, pending)?,
                Some(204) => {
                    return gathered.end(previous, pending, number(&message, headers::UP_TO_SEQUENCE));
                }
                Some(404) => return gathered.not_found(says(&message, batch.nothing())),
                Some(503) => return Err(ApiError::NoLeader),
                Some(code) => {
                    let description = message.description.unwrap_or_default();
                    return Err(ApiError::Api { code: u64::from(code), err_code: 0, description });
                }
            }
        }
    }
}

fn says(message: &Message, words: &str) -> bool {
    message.description.as_deref().is_some_and(|description| description.trim() == words)
}

/// An answer of which the messages are still coming: pure.
#[derive(Debug, Default)]
struct Gathered {
    messages: Vec<RawMessage>,
    /// The number of messages that match beyond the last one here.
    pending: u64,
}

impl Gathered {
    /// The sequence of the last message; 0 before the first.
    fn last(&self) -> u64 {
        self.messages.last().map_or(0, |message| message.seq)
    }

    /// Takes a message, which names the message before it.
    fn add(
        &mut self,
        message: RawMessage,
        previous: Option<u64>,
        pending: Option<u64>,
    ) -> Result<(), ApiError> {
        self.follows(previous)?;
        self.pending = pending.ok_or(ApiError::Cut)?;
        self.messages.push(message);
        Ok(())
    }

    /// Takes the server's word that no more messages come.
    fn end(
        self,
        previous: Option<u64>,
        pending: Option<u64>,
        up_to: Option<u64>,
    ) -> Result<BatchAnswer, ApiError> {
        self.follows(previous)?;
        match (pending.ok_or(ApiError::Cut)?, self.messages) {
            (0, messages) => Ok(BatchAnswer::Whole { messages, up_to }),
            // Asking for the rest would ask for the same.
            (_, messages) if messages.is_empty() => Err(ApiError::Cut),
            (pending, messages) => Ok(BatchAnswer::Cut { messages, pending, up_to }),
        }
    }

    /// Takes the server's word that nothing matches, or that it could not read the next message.
    fn not_found(self, nothing_matches: bool) -> Result<BatchAnswer, ApiError> {
        match self.messages {
            messages if messages.is_empty() && nothing_matches => {
                Ok(BatchAnswer::Whole { messages, up_to: None })
            }
            messages if messages.is_empty() => Err(ApiError::Cut),
            messages => Ok(BatchAnswer::Cut { messages, pending: self.pending.max(1), up_to: None }),
        }
    }

    fn follows(&self, previous: Option<u64>) -> Result<(), ApiError> {
        if previous == Some(self.last()) { Ok(()) } else { Err(ApiError::Cut) }
    }
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    fn message(seq: u64) -> RawMessage {
        let (subject, headers, payload) = ("a".into(), HeaderMap::new(), Bytes::new());
        RawMessage { seq, time: 0, subject, headers, payload }
    }

    /// An answer of these sequences as a server sends them, so far as the messages at `kept` arrive.
    fn gathered(seqs: &[u64], more: u64, kept: impl Fn(usize) -> bool) -> Result<Gathered, ApiError> {
        let mut gathered = Gathered::default();
        for (index, seq) in seqs.iter().enumerate().filter(|(index, _)| kept(*index)) {
            let previous = index.checked_sub(1).map_or(0, |before| seqs[before]);
            let pending = (seqs.len() - index) as u64 - 1 + more;
            gathered.add(message(*seq), Some(previous), Some(pending))?;
        }
        Ok(gathered)
    }

    fn told(answer: Result<BatchAnswer, ApiError>) -> Result<(Vec<u64>, u64, Option<u64>), ApiError> {
        let (messages, pending, up_to) = match answer? {
            BatchAnswer::Whole { messages, up_to } => (messages, 0, up_to),
            BatchAnswer::Cut { messages, pending, up_to } => (messages, pending, up_to),
        };
        Ok((messages.iter().map(|message| message.seq).collect(), pending, up_to))
    }

    #[test]
    fn an_answer_is_whole_only_if_its_end_says_so() {
        let all = |more| gathered(&[3, 5, 9], more, |_| true).unwrap();
        assert_eq!(told(all(0).end(Some(9), Some(0), Some(12))), Ok((vec![3, 5, 9], 0, Some(12))));
        assert_eq!(told(all(2).end(Some(9), Some(2), Some(12))), Ok((vec![3, 5, 9], 2, Some(12))));
        assert_eq!(told(all(0).end(Some(9), None, Some(12))), Err(ApiError::Cut));
        assert_eq!(told(Gathered::default().end(Some(0), Some(0), Some(7))), Ok((vec![], 0, Some(7))));
        assert_eq!(told(Gathered::default().end(Some(0), Some(1), Some(7))), Err(ApiError::Cut));
    }

    #[test]
    fn nothing_found_behind_messages_or_for_one_that_can_not_be_read_is_not_the_end() {
        assert_eq!(told(Gathered::default().not_found(true)), Ok((vec![], 0, None)));
        assert_eq!(told(Gathered::default().not_found(false)), Err(ApiError::Cut));
        let some = |more| gathered(&[3, 5], more, |_| true).unwrap();
        assert_eq!(told(some(4).not_found(true)), Ok((vec![3, 5], 4, None)));
        assert_eq!(told(some(0).not_found(false)), Ok((vec![3, 5], 1, None)));
    }

    #[test]
    fn a_request_names_its_bytes() {
        let next = Batch::Next { seq: 7, subject: "a", messages: 9, bytes: 0 };
        let (body, most) = next.request();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((body["max_bytes"].as_u64(), most), (Some(1), 9));
        let subjects = ["a".to_owned(), "b".to_owned()];
        let (body, most) = Batch::LastOf { subjects: &subjects, seq: 4, bytes: 500 }.request();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((body["max_bytes"].as_u64(), body["seq"].as_u64(), most), (Some(500), Some(4), 2));
    }

    proptest! {
        /// Whichever messages of an answer are lost on the way: what is told is the beginning of what was
        /// sent, and whole only if all of it came.
        #[test]
        fn no_answer_with_a_hole_is_told(
            kept in prop::collection::vec(any::<bool>(), 0..12),
            more in 0_u64..3,
            ends in any::<bool>(),
        ) {
            let seqs: Vec<u64> = (0..kept.len() as u64).map(|index| 10 + 3 * index).collect();
            let last = seqs.last().copied().unwrap_or(0);
            let answer = gathered(&seqs, more, |index| kept[index]).and_then(|gathered| match ends {
                true => gathered.end(Some(last), Some(more), Some(99)),
                false => gathered.not_found(kept.is_empty()),
            });
            match answer {
                Ok(BatchAnswer::Whole { messages, .. }) => {
                    prop_assert!(messages.len() == seqs.len() && (more == 0 || seqs.is_empty()));
                }
                Ok(BatchAnswer::Cut { messages, .. }) => {
                    prop_assert!(!messages.is_empty());
                    prop_assert!(messages.iter().map(|message| message.seq).eq(seqs[..messages.len()].iter().copied()));
                }
                Err(error) => prop_assert_eq!(error, ApiError::Cut),
            }
        }
    }
}
