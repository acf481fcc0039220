//! Reasons why logins were refused or got no answer: a line in the log once a minute for each kind, and the latest
//! reasons for `GET /logins` on the admin port.
//!
//! A reason names keys of the configuration and of the answer, never a value and never a token.

mod latest;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use shared::clock;
use shared::log_throttle::LogThrottle;

use crate::groups::IN_ANSWER;
use crate::mapping::Decision;
use latest::Latest;

/// The path of the latest reasons on the admin port.
pub(crate) const PATH: &str = "/logins";
/// The outcome of a token that was refused without a call.
pub(crate) const NOT_ASKED: &str = "not_asked";

/// The outcome of an answer without a user where the configuration looks.
const NO_UID: &str = "no_uid";
/// The kind of reasons about groups.
const GROUPS: &str = "groups";
/// The shortest time between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(60);

/// Tells reasons.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    latest: Mutex<Latest>,
    /// One throttle for each outcome, of which there is a fixed number.
    throttles: Mutex<BTreeMap<&'static str, LogThrottle>>,
}

impl Reasons {
    /// Tells why a call brought no yes, and what could not be taken from a yes.
    pub(crate) fn tell(&self, decision: &Decision) {
        let Decision { answer, outcome, reason, left_out } = decision;
        match reason {
            Some(reason) if answer.is_ok() => self.refused(outcome, reason),
            Some(failure) => self.unanswered(outcome, failure),
            None => {}
        }
        if !left_out.is_nothing() {
            self.groups(&left_out.words(IN_ANSWER));
        }
    }

    /// Tells why a token was refused.
    pub(crate) fn refused(&self, outcome: &'static str, reason: &str) {
        match self.note(outcome, reason) {
            // A mapping that does not fit looks like this; other refusals are daily life.
            Some(tokens) if outcome == NO_UID => {
                tracing::warn!(outcome, reason, tokens, "tokens are refused")
            }
            Some(tokens) => tracing::info!(outcome, reason, tokens, "tokens are refused"),
            None => {}
        }
    }

    /// Tells why nobody could say whose a token is.
    pub(crate) fn unanswered(&self, outcome: &'static str, failure: &str) {
        if let Some(failures) = self.note(outcome, failure) {
            tracing::warn!(outcome, failure, failures, "tokens can't be checked");
        }
    }

    /// Tells which groups of a login were left out.
    pub(crate) fn groups(&self, reason: &str) {
        if let Some(logins) = self.note(GROUPS, reason) {
            tracing::warn!(reason, logins, "groups of logins are left out");
        }
    }

    /// Notes a reason. `Some`: write a line now, for this number of reasons of this outcome.
    fn note(&self, outcome: &'static str, text: &str) -> Option<u64> {
        lock(&self.latest).note(outcome, text, clock::unix_ms());
        lock(&self.throttles).entry(outcome).or_insert_with(|| LogThrottle::every(PAUSE)).due()
    }

    /// Returns the latest reasons, the newest first.
    pub(crate) fn page(&self) -> Value {
        lock(&self.latest).page()
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::LeftOut;

    #[tokio::test(start_paused = true)]
    async fn each_outcome_has_a_line_a_minute_and_every_reason_is_on_the_page() {
        let reasons = Reasons::default();
        let lines = ["no", "no", "status", "no"].map(|outcome| reasons.note(outcome, "why"));
        assert_eq!(lines, [Some(1), None, Some(1), None]);
        tokio::time::advance(PAUSE).await;
        assert_eq!(reasons.note("no", "why"), Some(3));
        let page = reasons.page();
        assert_eq!((&page["reasons"][0]["outcome"], &page["reasons"][0]["count"]), (&"no".into(), &4.into()));
        assert_eq!(page["reasons"][1]["outcome"], "status");
    }

    #[test]
    fn groups_that_are_left_out_are_told_without_their_names() {
        let reasons = Reasons::default();
        reasons.groups(&LeftOut { unusable: 2, beyond: 3, no_list: false }.words(IN_ANSWER));
        reasons.groups(&LeftOut { no_list: true, ..LeftOut::default() }.words(IN_ANSWER));
        let page = reasons.page().to_string();
        assert!(page.contains("2 entries are no group and 3 are beyond 64"), "{page}");
        assert!(page.contains("is no list"), "{page}");
    }
}
