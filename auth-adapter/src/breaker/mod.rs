//! A circuit breaker: stops calls to a failing business system, and finds out when it works again. Pure: no
//! clock, no lock.
//!
//! While the breaker is closed, every check may call. When the share of failures among the latest calls is
//! too large, the breaker opens: nobody calls for a while, which grows each time in a row. Then a few probes
//! may call: the breaker closes when enough of them succeed, and opens again when they fail. Each change
//! begins a new period. Outcomes of calls of an earlier period do not count, so that a slow failure can't
//! undo what a probe has just shown.
//!
//! A failure may be caused by the question and not by the system. So all failures of one asker in a window
//! weigh as one; an error answer weighs a quarter beside successes; and a trusted asker, who was answered
//! well before, may call now and then to check whether an open breaker is still right.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The number of steps in which the window moves.
const STEPS: u32 = 10;
/// The most failing askers that are told apart in a window. Each failure beyond them counts by itself.
const MAX_ASKERS: usize = 4_096;
/// The number of error answers that weigh as much as one missing answer, as long as other calls succeed.
const ERRORS_PER_FAILURE: u64 = 4;

/// When the breaker opens, for how long, and when it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The share of failures at which the breaker opens, in percent.
    pub(crate) failure_percent: u8,
    /// The number of calls in the window below which no share matters.
    pub(crate) min_calls: u32,
    /// How far back calls count.
    pub(crate) window: Duration,
    /// How long the breaker stays open the first time; doubled each time in a row.
    pub(crate) open: Duration,
    /// The longest time that the breaker stays open.
    pub(crate) open_longest: Duration,
    /// The number of probes.
    pub(crate) probes: u32,
    /// The number of probes that must succeed before the breaker closes.
    pub(crate) successes: u32,
}

/// The phase of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Every check may call.
    Closed,
    /// No check may call.
    Open,
    /// A few checks may call, as probes.
    HalfOpen,
}

/// The asker of a call: a fingerprint, by which failures are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    pub(crate) id: u64,
    /// Whether the system answered the same question well lately, so that a failure is surely the system's.
    pub(crate) trusted: bool,
}

/// The permission for one call, given back with the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    period: u64,
    asker: Asker,
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer, yes or no.
    Good,
    /// No connection: the system never saw the question, so the question is not to blame.
    Unreachable,
    /// No answer, or none in time.
    Unanswered,
    /// An error answer, perhaps with the wish to be left alone for so long.
    Error(Option<Duration>),
    /// Unknown: the asker left.
    Abandoned,
}

/// The state machine. Times count from any fixed moment.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: Policy,
    state: State,
    period: u64,
    /// How often the breaker opened since it was last closed.
    openings: u32,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open {
        until: Duration,
        /// When a trusted asker may call. `None`: never, since the system asked to be left alone.
        look: Option<Duration>,
    },
    HalfOpen(Probing),
}

#[derive(Debug, Default)]
struct Probing {
    under_way: u32,
    succeeded: u32,
    failed: u32,
    /// The longest time for which the system asked to be left alone.
    wish: Option<Duration>,
    /// The time until which an asker whose probe failed lets others try. At most one entry per failure.
    barred: HashMap<u64, Duration>,
}

impl Breaker {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, state: State::Closed(Window::default()), period: 0, openings: 0 }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.state {
            State::Closed(_) => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen(_) => Phase::HalfOpen,
        }
    }

    /// Returns whether a call of an unknown asker is refused now, and after what time to come back.
    pub(crate) fn refuses(&self, now: Duration) -> Option<Duration> {
        match &self.state {
            State::Closed(_) => None,
            State::Open { until, .. } => left(*until, now),
            State::HalfOpen(probing) => {
                (probing.under_way + probing.succeeded >= self.policy.probes).then_some(self.policy.open)
            }
        }
    }

    /// Returns whether a call of this asker is refused now, and after what time to come back.
    pub(crate) fn refuses_asker(&self, asker: Asker, now: Duration) -> Option<Duration> {
        match &self.state {
            State::Open { look: Some(look), .. } if asker.trusted && *look <= now => None,
            // One probe more, which no stranger can take.
            State::HalfOpen(probing) if asker.trusted => {
                (probing.under_way + probing.succeeded > self.policy.probes).then_some(self.policy.open)
            }
            State::HalfOpen(probing) => {
                let barred = probing.barred.get(&asker.id).and_then(|until| left(*until, now));
                barred.or_else(|| self.refuses(now))
            }
            State::Closed(_) | State::Open { .. } => self.refuses(now),
        }
    }

    /// Takes the permission for a call.
    ///
    /// # Errors
    /// The time after which to come back.
    pub(crate) fn admit(&mut self, asker: Asker, now: Duration) -> Result<Ticket, Duration> {
        if let Some(left) = self.refuses_asker(asker, now) {
            return Err(left);
        }
        let pause = self.policy.open;
        match &mut self.state {
            State::Open { until, look } if now < *until => *look = Some(now + pause),
            State::Open { .. } => self.enter(State::HalfOpen(Probing::default())),
            State::Closed(_) | State::HalfOpen(_) => {}
        }
        if let State::HalfOpen(probing) = &mut self.state {
            probing.under_way += 1;
        }
        Ok(Ticket { period: self.period, asker })
    }

    /// Notes the outcome of a call. `jitter` is random, from 0 to 1: the open times of a fleet must not be in
    /// step.
    pub(crate) fn record(&mut self, ticket: Ticket, outcome: Outcome, now: Duration, jitter: f64) {
        if ticket.period != self.period {
            return;
        }
        let policy = self.policy;
        let opens = match &mut self.state {
            State::Closed(_) if outcome == Outcome::Abandoned => None,
            State::Closed(window) => {
                window.add(ticket.asker, outcome, now, &policy);
                window.is_failing(&policy).then(|| window.wish())
            }
            // The call of a trusted asker.
            State::Open { .. } => {
                if outcome == Outcome::Good {
                    self.enter(State::HalfOpen(Probing { succeeded: 1, ..Probing::default() }));
                }
                None
            }
            State::HalfOpen(probing) => {
                probing.under_way = probing.under_way.saturating_sub(1);
                probing.add(ticket.asker, outcome, now, &policy);
                probing.is_failing(ticket.asker, outcome, &policy).then_some(probing.wish)
            }
        };
        if let Some(wish) = opens {
            self.open(wish, now, jitter);
        }
        if matches!(&self.state, State::HalfOpen(probing) if probing.succeeded >= policy.successes) {
            self.openings = 0;
            self.enter(State::Closed(Window::default()));
        }
    }

    fn open(&mut self, wish: Option<Duration>, now: Duration, jitter: f64) {
        let time = self.next_open_time(jitter).max(wish.unwrap_or_default());
        self.openings = self.openings.saturating_add(1);
        let until = now + time.min(self.policy.open_longest);
        let look = wish.is_none().then(|| now + self.policy.open);
        self.enter(State::Open { until, look });
    }

    /// Returns the next open time: doubled each time in a row, at most the longest, less up to a quarter.
    fn next_open_time(&self, jitter: f64) -> Duration {
        let doubled = self.policy.open.saturating_mul(1 << self.openings.min(20));
        let longest = self.policy.open_longest.max(self.policy.open);
        doubled.min(longest).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0)
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.period += 1;
    }
}

impl Probing {
    fn add(&mut self, asker: Asker, outcome: Outcome, now: Duration, policy: &Policy) {
        match outcome {
            Outcome::Good => self.succeeded += 1,
            Outcome::Unreachable | Outcome::Unanswered | Outcome::Error(_) => {
                self.failed += 1;
                self.barred.insert(asker.id, now + policy.open);
            }
            Outcome::Abandoned => {}
        }
        if let Outcome::Error(wish) = outcome {
            self.wish = self.wish.max(wish);
        }
    }

    /// Returns whether the call that has just ended shows that the system still fails: by itself if the
    /// failure surely is not the asker's fault, else as one of several; beside successes, more failures are
    /// needed.
    fn is_failing(&self, asker: Asker, outcome: Outcome, policy: &Policy) -> bool {
        let probes = u64::from(policy.probes);
        let enough = if self.succeeded == 0 { probes } else { probes * ERRORS_PER_FAILURE };
        match outcome {
            Outcome::Unreachable => true,
            Outcome::Unanswered | Outcome::Error(_) => asker.trusted || u64::from(self.failed) >= enough,
            Outcome::Good | Outcome::Abandoned => false,
        }
    }
}

fn left(until: Duration, now: Duration) -> Option<Duration> {
    until.checked_sub(now).filter(|left| !left.is_zero())
}

/// The latest calls, counted by step, and the askers of failed calls.
#[derive(Debug, Default)]
struct Window {
    steps: VecDeque<Step>,
    failing: HashMap<u64, Failing>,
}

#[derive(Debug)]
struct Step {
    number: u128,
    good: u64,
    /// Failures that each count by themselves.
    failures: u64,
}

/// The latest failure of one asker.
#[derive(Debug)]
struct Failing {
    step: u128,
    /// Whether the failure was an error answer to an asker who is not trusted.
    weak: bool,
    wish: Option<Duration>,
}

impl Window {
    fn add(&mut self, asker: Asker, outcome: Outcome, now: Duration, policy: &Policy) {
        let length = (policy.window / STEPS).max(Duration::from_nanos(1));
        let number = now.as_nanos() / length.as_nanos();
        let is_over = |step: u128| step + u128::from(STEPS) <= number;
        while self.steps.front().is_some_and(|step| is_over(step.number)) {
            self.steps.pop_front();
        }
        if self.steps.back().is_none_or(|step| step.number < number) {
            self.failing.retain(|_, failing| !is_over(failing.step));
            self.steps.push_back(Step { number, good: 0, failures: 0 });
        }
        let Some(step) = self.steps.back_mut() else { return };
        let (weak, wish) = match outcome {
            Outcome::Abandoned => return,
            Outcome::Good => return step.good += 1,
            Outcome::Unreachable => return step.failures += 1,
            Outcome::Unanswered => (false, None),
            Outcome::Error(wish) => (!asker.trusted, wish),
        };
        if self.failing.len() >= MAX_ASKERS && !self.failing.contains_key(&asker.id) {
            return step.failures += 1;
        }
        self.failing.insert(asker.id, Failing { step: number, weak, wish });
    }

    fn is_failing(&self, policy: &Policy) -> bool {
        let good: u64 = self.steps.iter().map(|step| step.good).sum();
        let counted: u64 = self.steps.iter().map(|step| step.failures).sum();
        let weak = self.failing.values().filter(|failing| failing.weak).count() as u64;
        let strong = counted + self.failing.len() as u64 - weak;
        // In quarters, so that nothing is rounded.
        let weight = if good == 0 { strong + weak } else { strong * ERRORS_PER_FAILURE + weak };
        let good_weight = good * ERRORS_PER_FAILURE;
        good + strong + weak >= u64::from(policy.min_calls)
            && weight > 0
            && weight * 100 >= (good_weight + weight) * u64::from(policy.failure_percent)
    }

    /// The longest time for which the system asked to be left alone.
    fn wish(&self) -> Option<Duration> {
        self.failing.values().filter_map(|failing| failing.wish).max()
    }
}

#[cfg(test)]
mod tests;
