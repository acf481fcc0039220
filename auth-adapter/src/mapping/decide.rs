//! The decision about one answer: yes, no or no answer, and why.
//!
//! Only a sure yes counts as a yes. An answer that is neither yes nor no counts as "no answer": a device must
//! not be logged out because a URL is wrong or a database is away.

use std::time::Duration;

use serde_json::Value;
use shared::ids::Uid;
use tokio::time::Instant;

use super::condition::Condition;
use super::expiry::{self, End};
use super::{Mapping, advice, key_names, once};
use crate::business::{Answer, Failure};
use crate::groups::{self, LeftOut};
use crate::pointer::Pointer;

/// The mark that editors and frameworks sometimes put before UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The answer of the business system, as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply<'a> {
    pub(crate) status: u16,
    /// The time for which the business system wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: &'a [u8],
    /// The token that was asked about: no reason names it.
    pub(crate) token: &'a str,
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) instant: Instant,
    /// Time since 1970.
    pub(crate) unix: Duration,
    /// The moment of the question to the business system, in Unix milliseconds.
    pub(crate) asked_at_ms: u64,
}

/// The meaning of an answer.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) answer: Result<Answer, Failure>,
    /// The label for the counter.
    pub(crate) outcome: &'static str,
    /// The reason why there is no yes, and what to set. `None`: there is a yes.
    pub(crate) reason: Option<String>,
    pub(crate) left_out: LeftOut,
}

impl Decision {
    /// Makes the decision of a call that failed.
    pub(crate) fn failed(failure: Failure) -> Self {
        let reason = failure.to_string();
        Self::unanswered(failure, reason)
    }

    fn unanswered(failure: Failure, reason: String) -> Self {
        let (outcome, left_out) = (failure.label(), LeftOut::default());
        Self { answer: Err(failure), outcome, reason: Some(reason), left_out }
    }

    fn refused(outcome: &'static str, reason: String) -> Self {
        Self { answer: Ok(Answer::No), outcome, reason: Some(reason), left_out: LeftOut::default() }
    }
}

/// Decides what an answer means.
pub(crate) fn decide(mapping: &Mapping, reply: Reply<'_>, now: Moment) -> Decision {
    if reply.status != 200 {
        return of_status(mapping, reply);
    }
    let text = reply.body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(reply.body);
    let Ok(answer) = serde_json::from_slice::<Value>(text) else { return no_json(text) };
    if !once::is_clear(text, &mapping.places()) {
        return Decision::failed(Failure::Ambiguous);
    }
    if let Some(condition) = mapping.unavailable.iter().find(|condition| condition.holds(&answer)) {
        return Decision::failed(Failure::Declared(condition.place().as_str().into()));
    }
    if let Some(condition) = mapping.ok.iter().find(|condition| !condition.holds(&answer)) {
        return not_ok(condition, &answer, reply.token);
    }
    let Some((place, user)) = user(mapping, &answer) else {
        return no_user(mapping, &answer, reply.token);
    };
    match Uid::from_json(user) {
        Ok(uid) => of_user(mapping, &answer, uid, now),
        Err(fault) => Decision::refused("no", format!("the value at {place} is no user: {fault}")),
    }
}

/// Returns whether a mapping sees a user in this answer.
pub(super) fn means_yes(mapping: &Mapping, answer: &Value) -> bool {
    mapping.ok.iter().all(|condition| condition.holds(answer))
        && user(mapping, answer).is_some_and(|(_, user)| Uid::from_json(user).is_ok())
}

impl Mapping {
    /// Returns the answer as JSON, with every value but the user masked. `None`: the body is no JSON.
    pub(crate) fn masked(&self, body: &[u8], token: &str) -> Option<String> {
        key_names::masked(body, &self.uid, token)
    }
}

/// Returns the first configured place that exists, with its value: null exists, too.
fn user<'a>(mapping: &'a Mapping, answer: &'a Value) -> Option<(&'a str, &'a Value)> {
    mapping.uid.iter().find_map(|place| Some((place.as_str(), place.of(answer)?)))
}

fn of_status(mapping: &Mapping, Reply { status, retry_after, .. }: Reply<'_>) -> Decision {
    if mapping.refusals.contains(&status) {
        let reason =
            format!("it answered with HTTP status {status}, which auth_adapter.refusals counts as a no");
        return Decision::refused("no", reason);
    }
    let failure = Failure::Status { status, retry_after };
    let reason = format!("{failure}; {}", advice::on_status(status));
    Decision::unanswered(failure, reason)
}

fn no_json(text: &[u8]) -> Decision {
    let looks = match text.trim_ascii_start().first() {
        None => "it is empty",
        Some(b'<') => "it looks like a page; check auth_adapter.url",
        Some(_) => "the business system must answer with JSON",
    };
    Decision::unanswered(Failure::NotJson, format!("{}: {looks}", Failure::NotJson))
}

fn not_ok(condition: &Condition, answer: &Value, token: &str) -> Decision {
    let place = condition.place().as_str();
    let found = match condition.place().of(answer) {
        Some(value) => format!("{} with another value is there", key_names::kind(value)),
        None => format!("nothing is there; {}", key_names::of(answer, token)),
    };
    let reason = format!(
        "looked for {} at {place}; {found}; if this token is good, set auth_adapter.answer.ok",
        condition.wanted()
    );
    Decision::refused("not_ok", reason)
}

fn no_user(mapping: &Mapping, answer: &Value, token: &str) -> Decision {
    let places: Vec<_> = mapping.uid.iter().map(Pointer::as_str).collect();
    let reason = format!(
        "looked for uid at {}; {}; {}",
        places.join(" "),
        key_names::of(answer, token),
        advice::on_user(mapping, answer)
    );
    Decision::refused("no_uid", reason)
}

fn of_user(mapping: &Mapping, answer: &Value, uid: Uid, now: Moment) -> Decision {
    let expires = match expiry::end(mapping, answer, now) {
        Err(failure) => return Decision::failed(failure),
        Ok(End::Over) => {
            let reason = "the login had ended by its expires_in or expires_at; compare the clocks";
            return Decision::refused("no", reason.to_owned());
        }
        Ok(End::Never) => None,
        Ok(End::At(at)) => Some(at),
    };
    let (groups, left_out) = groups::read(mapping.groups.as_ref().and_then(|place| place.of(answer)));
    let answer = Answer::Yes { uid, expires, groups, asked_at_ms: now.asked_at_ms };
    Decision { answer: Ok(answer), outcome: "yes", reason: None, left_out }
}
