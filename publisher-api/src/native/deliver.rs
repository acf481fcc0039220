//! Turns the messages of a call into deliveries, and the sent deliveries into results.

use super::answer::{EdgesAnswer, EntryError, MessageResult, TargetResult};
use super::message::Addressed;
use super::target::Target;
use crate::app::App;
use crate::error::Refusal;
use crate::idempotency::{Key, KeyedCall};
use crate::keys::Caller;
use crate::publisher::{Counting, Delivery, Message, Sent};
use crate::receipts::Receipt;

/// The outcome of a call, without its shape.
pub(super) struct Done {
    pub(super) messages: Vec<MessageResult>,
    pub(super) receipts: Vec<Receipt>,
    /// The reason, if nothing was sent, and for one reason only.
    pub(super) refused: Option<Refusal>,
    /// Whether all messages were stored before, by an earlier call with the same key.
    pub(super) duplicate: bool,
}

/// Returns the edges whose sessions were counted, and whether the counts are complete. Both are `None` if the
/// call wanted no counts.
pub(super) fn edges_answer(receipts: &[Receipt], counting: Counting) -> (Option<EdgesAnswer>, Option<bool>) {
    if counting == Counting::Unwanted {
        return (None, None);
    }
    (Some(EdgesAnswer::of(receipts)), Some(receipts.iter().all(|receipt| receipt.complete)))
}

/// The source of the result of one target.
enum Source {
    /// The delivery with this index.
    Delivery(usize),
    /// The result of an earlier target of the same message.
    Same(usize),
    /// The target was not sent to.
    Refused(Refusal),
}

/// A target of a message.
struct Planned {
    /// How its result names the target.
    name: String,
    source: Source,
}

/// The deliveries of a call, and for each of its messages the targets, or the refusal of the message.
struct Plan {
    deliveries: Vec<Delivery>,
    messages: Vec<Result<Vec<Planned>, Refusal>>,
}

impl Plan {
    /// Plans a delivery for each target that the caller may name.
    fn of(caller: &Caller, messages: Vec<Result<Addressed, Refusal>>, key: Option<&Key>) -> Self {
        let (mut deliveries, mut planned) = (Vec::new(), Vec::with_capacity(messages.len()));
        for (index, message) in messages.into_iter().enumerate() {
            planned.push(message.map(|Addressed { targets, kind, payload, .. }| {
                let plan = |Target { name, channel, same_as }| {
                    let source = match (same_as, channel) {
                        (Some(first), _) => Source::Same(first),
                        (None, Err(refusal)) => Source::Refused(refusal),
                        (None, Ok(channel)) => match caller.require_channel(&channel) {
                            Err(refusal) => Source::Refused(refusal),
                            Ok(()) => {
                                let id = key.map(|key| key.message_id(&channel, index));
                                let message = Message { channel, kind, payload: payload.clone() };
                                deliveries.push(Delivery { message, id });
                                Source::Delivery(deliveries.len() - 1)
                            }
                        },
                    };
                    Planned { name, source }
                };
                targets.into_iter().map(plan).collect()
            }));
        }
        Self { deliveries, messages: planned }
    }
}

/// Sends to every target that is not refused. `keyed`: the call, if it has an `Idempotency-Key`.
///
/// # Errors
/// Fails if the whole call is refused.
pub(super) async fn send(
    app: &App,
    caller: &Caller,
    messages: Vec<Result<Addressed, Refusal>>,
    counting: Counting,
    keyed: Option<KeyedCall<'_>>,
) -> Result<Done, Refusal> {
    let publisher = &app.publisher;
    let Plan { deliveries, messages } = Plan::of(caller, messages, keyed.map(|call| call.key));
    if keyed.is_some() && deliveries.iter().any(|one| !publisher.has_history(&one.message.channel)) {
        return Err(Refusal::Idempotency);
    }
    if !deliveries.is_empty() {
        caller.admit(u32::try_from(deliveries.len()).unwrap_or(u32::MAX))?;
    }
    let deadline = keyed.map(|_| publisher.store().deadline());
    // The turn is held until everything is sent, so that a repeat of the call waits and then finds every
    // message.
    let turn = match (keyed, deadline) {
        (Some(call), Some(deadline)) if !deliveries.is_empty() => {
            Some(app.keyed.begin(call, deadline).await?)
        }
        (Some(_) | None, _) => None,
    };
    let sent = publisher.publish_all(caller, deliveries, counting, deadline).await;
    let mut outcome = Outcome {
        sent: sent.into_iter().map(Some).collect(),
        is_repeat: turn.is_some_and(|turn| turn.is_repeat()),
        fresh: false,
        receipts: Vec::new(),
        refusals: Vec::new(),
        sent_some: false,
    };
    let messages = messages.into_iter().map(|message| outcome.message(message)).collect();
    let duplicate = outcome.sent_some && !outcome.fresh && outcome.is_repeat;
    Ok(Done { messages, refused: outcome.common_refusal(), receipts: outcome.receipts, duplicate })
}

/// Turns sent deliveries into results.
struct Outcome {
    /// The outcome of each delivery; each is taken once.
    sent: Vec<Option<Result<Sent, Refusal>>>,
    /// Whether the call came before, with the same key.
    is_repeat: bool,
    /// Whether any message was not stored before.
    fresh: bool,
    receipts: Vec<Receipt>,
    /// One refusal of each kind.
    refusals: Vec<Refusal>,
    sent_some: bool,
}

impl Outcome {
    fn message(&mut self, message: Result<Vec<Planned>, Refusal>) -> MessageResult {
        match message {
            Err(refusal) => MessageResult::Refused { error: self.refused(refusal) },
            Ok(targets) => {
                let mut results: Vec<TargetResult> = Vec::with_capacity(targets.len());
                for Planned { name: to, source } in targets {
                    let result = match source {
                        Source::Same(first) => results[first].clone(),
                        Source::Refused(refusal) => {
                            TargetResult::Refused { to, error: self.refused(refusal) }
                        }
                        Source::Delivery(index) => self.delivered(to, index),
                    };
                    results.push(result);
                }
                MessageResult::Results { results }
            }
        }
    }

    fn delivered(&mut self, to: String, index: usize) -> TargetResult {
        match self.sent.get_mut(index).and_then(Option::take).unwrap_or(Err(Refusal::Unavailable)) {
            Ok(Sent { id, stored, receipt }) => {
                self.sent_some = true;
                let duplicate = self.is_repeat && stored.is_some_and(|stored| stored.duplicate);
                self.fresh |= !duplicate;
                let counts = receipt.as_ref().map(|receipt| receipt.counts);
                self.receipts.extend(receipt);
                TargetResult::Sent {
                    to,
                    id: stored.map_or_else(|| id.to_string(), |stored| stored.position.to_string()),
                    duplicate,
                    sessions: counts.map(|counts| counts.sessions),
                    failed: counts.map(|counts| counts.failed),
                }
            }
            Err(refusal) => TargetResult::Refused { to, error: self.refused(refusal) },
        }
    }

    fn refused(&mut self, refusal: Refusal) -> EntryError {
        let error = EntryError::of(&refusal);
        let kind = refusal.problem();
        if self.refusals.iter().all(|known| known.problem() != kind) {
            self.refusals.push(refusal);
        }
        error
    }

    fn common_refusal(&mut self) -> Option<Refusal> {
        if self.sent_some || self.refusals.len() != 1 { None } else { self.refusals.pop() }
    }
}
