//! Messages from the bus that wait for the feed: bounded in bytes.
//!
//! The bus client bounds a subscription by its number of messages, and a million large messages are more than
//! any machine has. So messages are taken from the client at once, and messages beyond the bound are dropped
//! here, the newest first, as the client would do it. A stored message that is dropped shows itself as a gap
//! and is fetched.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::bus::async_nats::Message;
use tokio::sync::mpsc;

/// Bytes that may wait. A feed must absorb a burst of the whole bus.
pub(crate) const BYTES: usize = 256 << 20;
/// Messages that may wait.
const MESSAGES: usize = 1 << 20;
/// Memory of a message besides its content.
const OVERHEAD: usize = 256;

/// The end of the backlog where messages go in.
#[derive(Debug)]
pub(crate) struct Intake {
    messages: mpsc::Sender<Message>,
    bytes: Arc<AtomicUsize>,
    limit: usize,
}

/// The end of the backlog where messages come out, in the same order.
#[derive(Debug)]
pub(crate) struct Backlog {
    messages: mpsc::Receiver<Message>,
    bytes: Arc<AtomicUsize>,
}

/// Opens a backlog that holds so many bytes.
pub(crate) fn open(limit: usize) -> (Intake, Backlog) {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Intake { messages: sender, bytes: Arc::clone(&bytes), limit }, Backlog { messages: receiver, bytes })
}

impl Intake {
    /// Takes a message, or drops it and returns false if there is no space. An empty backlog always takes a
    /// message.
    pub(crate) fn take(&self, message: Message) -> bool {
        let size = size(&message);
        let waiting = self.bytes.fetch_add(size, Ordering::Relaxed);
        let taken = (waiting == 0 || waiting.saturating_add(size) <= self.limit)
            && self.messages.try_send(message).is_ok();
        if !taken {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        taken
    }
}

impl Intake {
    /// Returns whether the other end is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }
}

impl Backlog {
    /// Takes out the next message. None: the end for going in is gone.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let message = self.messages.recv().await?;
        self.bytes.fetch_sub(size(&message), Ordering::Relaxed);
        Some(message)
    }
}

fn size(message: &Message) -> usize {
    message.length + OVERHEAD
}

#[cfg(test)]
mod tests {
    use shared::bus::async_nats::StatusCode;

    use super::*;

    fn message(number: usize, length: usize) -> Message {
        let subject = number.to_string().into();
        let (payload, status) = (Default::default(), Some(StatusCode::OK));
        Message { subject, reply: None, payload, headers: None, status, description: None, length }
    }

    #[tokio::test]
    async fn bytes_bound_it_whatever_the_number_of_messages_and_what_is_taken_keeps_its_order() {
        let (intake, mut backlog) = open(10 * (OVERHEAD + 1_000));
        let taken: Vec<_> = (0..20).filter(|number| intake.take(message(*number, 1_000))).collect();
        assert_eq!(taken, (0..10).collect::<Vec<_>>(), "the newest are dropped");
        for number in 0..10 {
            assert_eq!(backlog.next().await.unwrap().subject.as_str(), number.to_string());
        }
        let left = backlog.bytes.load(Ordering::Relaxed);
        assert_eq!(left, 0, "all space is given back");
        assert!(intake.take(message(22, 1 << 30)), "one always finds space");
        assert!(!intake.take(message(23, 0)));
        assert!(!intake.is_closed(), "it is full");
        assert_eq!(backlog.next().await.unwrap().subject.as_str(), "22");
        drop(intake);
        assert!(backlog.next().await.is_none());
    }

    #[tokio::test]
    async fn where_nothing_is_taken_out_any_more_it_is_closed_and_not_full() {
        let (intake, backlog) = open(1 << 20);
        drop(backlog);
        assert!(!intake.take(message(1, 0)) && intake.is_closed());
    }
}
