//! When the key set is fetched, and which fetch answers a token that names an unknown key. Pure: times are
//! arguments, counted from the start of the adapter.
//!
//! A set can refuse a token only if its fetch began after the token came: an earlier set may be from before a
//! rotation. Tokens with unknown keys cause at most one fetch a [`PAUSE`], however many they are.

use std::time::Duration;

/// The shortest time between two fetches that tokens cause.
pub(super) const PAUSE: Duration = Duration::from_secs(60);
/// The pause after the first fetch that failed; doubled for each further one.
const RETRY: Duration = Duration::from_secs(1);

/// The number of a fetch, from 1.
pub(super) type Fetch = u64;

/// The next step of the fetcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Begin this fetch now.
    Begin(Fetch),
    /// Nothing is to be done before this time, unless a token asks for a fetch.
    Wait(Duration),
}

/// The plan of the fetches. One fetch is under way at most.
#[derive(Debug)]
pub(super) struct Schedule {
    period: Duration,
    begun: Fetch,
    /// When the next fetch is due without any token's doing.
    due: Duration,
    /// Whether a token was promised the next fetch.
    promised: bool,
    /// When a token was last promised a fetch.
    last_promise: Option<Duration>,
    failures: u32,
}

impl Schedule {
    /// Makes the plan of an adapter that starts now. The first fetch is due at once.
    pub(super) const fn new(period: Duration) -> Self {
        Self { period, begun: 0, due: Duration::ZERO, promised: false, last_promise: None, failures: 0 }
    }

    /// Returns the fetch that answers a token that came now with a key that the set lacks. `None`: no fetch is
    /// allowed so soon after the last one.
    pub(super) fn promise(&mut self, now: Duration) -> Option<Fetch> {
        if !self.promised && self.last_promise.is_some_and(|last| now < last + PAUSE) {
            return None;
        }
        if !self.promised {
            (self.promised, self.last_promise) = (true, Some(now));
        }
        Some(self.begun + 1)
    }

    /// Returns what is to be done now. Call it only while no fetch is under way.
    pub(super) fn step(&mut self, now: Duration) -> Step {
        if !self.promised && now < self.due {
            return Step::Wait(self.due);
        }
        self.promised = false;
        self.begun += 1;
        Step::Begin(self.begun)
    }

    /// Notes that the fetch under way has ended. `jitter` is random, from 0 to 1, and takes away up to a
    /// tenth of the period.
    pub(super) fn ended(&mut self, now: Duration, succeeded: bool, jitter: f64) {
        self.failures = if succeeded { 0 } else { self.failures.saturating_add(1) };
        let retry = RETRY.saturating_mul(1 << self.failures.saturating_sub(1).min(10)).min(PAUSE);
        let pause = if succeeded { self.period } else { retry.min(self.period) };
        self.due = now + pause.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 10.0);
    }
}

/// The outcome for a token that was promised a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// A set that was fetched for the token lacks its key.
    Refused,
    /// The fetch failed.
    Unavailable,
    /// The fetch has not ended.
    NotYet,
}

/// Decides about a token that was promised the fetch `promised`, and whose key the latest set lacks. The set
/// came of the fetch `of_set`; `ended` is the last fetch that ended.
pub(super) const fn settle(promised: Fetch, of_set: Fetch, ended: Fetch) -> Settled {
    if of_set >= promised {
        Settled::Refused
    } else if ended >= promised {
        Settled::Unavailable
    } else {
        Settled::NotYet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PERIOD: Duration = Duration::from_secs(300);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_key_set_is_fetched_at_the_start_then_once_a_period_and_sooner_after_a_failure() {
        let mut schedule = Schedule::new(PERIOD);
        assert_eq!(schedule.step(seconds(0)), Step::Begin(1));
        schedule.ended(seconds(1), true, 0.0);
        assert_eq!(schedule.step(seconds(300)), Step::Wait(seconds(301)));
        assert_eq!(schedule.step(seconds(301)), Step::Begin(2));
        let mut pauses = Vec::new();
        for _ in 0..9 {
            schedule.ended(seconds(1_000), false, 0.0);
            let Step::Wait(due) = schedule.step(seconds(1_000)) else { panic!("no pause") };
            pauses.push((due - seconds(1_000)).as_secs());
            assert!(matches!(schedule.step(due), Step::Begin(_)));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        schedule.ended(seconds(2_000), true, 1.0);
        assert_eq!(schedule.step(seconds(2_000)), Step::Wait(seconds(2_270)), "less a tenth at most");
    }

    #[test]
    fn a_token_that_came_during_a_fetch_is_promised_the_next_one() {
        let mut schedule = Schedule::new(PERIOD);
        assert_eq!(schedule.step(seconds(0)), Step::Begin(1));
        assert_eq!(schedule.promise(seconds(1)), Some(2));
        schedule.ended(seconds(2), true, 0.0);
        assert_eq!(schedule.step(seconds(2)), Step::Begin(2), "at once");
        assert_eq!(schedule.promise(seconds(3)), None, "the fetch began before this token came");
        assert_eq!(schedule.promise(seconds(61)), Some(3));
    }

    #[test]
    fn a_token_is_refused_only_by_a_set_of_its_fetch_or_a_later_one() {
        for (of_set, ended, settled) in [
            (1, 1, Settled::NotYet),
            (1, 2, Settled::Unavailable),
            (2, 2, Settled::Refused),
            (3, 3, Settled::Refused),
            (1, 3, Settled::Unavailable),
        ] {
            assert_eq!(settle(2, of_set, ended), settled, "{of_set} {ended}");
        }
    }

    #[test]
    fn ten_thousand_unknown_keys_in_ten_minutes_cause_one_fetch_a_minute() {
        let (mut schedule, mut fetches) = (Schedule::new(seconds(86_400)), 0);
        assert_eq!(schedule.step(seconds(0)), Step::Begin(1));
        schedule.ended(seconds(0), true, 0.0);
        for token in 0..10_000_u64 {
            let now = Duration::from_millis(60 * token);
            let promised = schedule.promise(now);
            if let Step::Begin(fetch) = schedule.step(now) {
                assert_eq!(promised, Some(fetch));
                fetches += 1;
                schedule.ended(now, true, 0.0);
            }
        }
        assert_eq!(fetches, 10);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Pass(u64),
        Token,
        Fetcher,
        End(bool),
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0_u64..40_000).prop_map(Event::Pass),
            Just(Event::Token),
            Just(Event::Fetcher),
            any::<bool>().prop_map(Event::End),
        ]
    }

    proptest! {
        /// An issuer with a key per second: the key of a token that came at `t` is in every set whose fetch
        /// began at `t` or later, and no such token is ever refused.
        #[test]
        fn nobody_with_a_new_key_is_refused_and_fetches_are_bounded(events in prop::collection::vec(any_event(), 1..400)) {
            let mut schedule = Schedule::new(PERIOD);
            let (mut now, mut under_way) = (Duration::ZERO, None::<(Fetch, Duration)>);
            // When the fetch of the latest set began, and its number.
            let (mut set_began, mut of_set) = (Duration::ZERO, 0);
            let mut waiting: Vec<(Duration, Fetch)> = Vec::new();
            let mut promises: Vec<(Duration, Fetch)> = Vec::new();
            for event in events {
                match event {
                    Event::Pass(ms) => now += Duration::from_millis(ms),
                    Event::Token => if let Some(fetch) = schedule.promise(now) {
                        if promises.last().is_none_or(|(_, last)| *last != fetch) {
                            promises.push((now, fetch));
                        }
                        prop_assert!(under_way.is_none_or(|(under_way, _)| fetch > under_way));
                        waiting.push((now, fetch));
                    },
                    Event::Fetcher if under_way.is_none() => if let Step::Begin(fetch) = schedule.step(now) {
                        under_way = Some((fetch, now));
                    },
                    Event::Fetcher => {}
                    Event::End(succeeded) => if let Some((fetch, began)) = under_way.take() {
                        schedule.ended(now, succeeded, 0.5);
                        if succeeded {
                            (set_began, of_set) = (began, fetch);
                        }
                        waiting.retain(|(came, promised)| {
                            let has_key = set_began >= *came && of_set > 0;
                            let settled = settle(*promised, of_set, fetch);
                            assert!(has_key || settled != Settled::Refused, "refused by an old set");
                            !has_key && settled == Settled::NotYet
                        });
                        if waiting.iter().any(|(_, promised)| *promised == fetch + 1) {
                            prop_assert_eq!(schedule.step(now), Step::Begin(fetch + 1));
                            under_way = Some((fetch + 1, now));
                        }
                    },
                }
            }
            for pair in promises.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= PAUSE);
            }
        }
    }
}
