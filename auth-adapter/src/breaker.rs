//! When to stop asking a business system that fails, and how to find out that it works again. Pure: no clock, no lock.
//!
//! Closed, every check may ask. When the share of failures among the latest calls is too large, the breaker opens:
//! nobody asks for a while, which grows each time in a row. Then a few probes may ask: when all of them succeed it
//! closes, when one fails it opens again. Each change begins a new period; what a call of an earlier period says does
//! not count, so that a slow failure from before can't undo what a probe has just shown.

use std::collections::VecDeque;
use std::time::Duration;

/// The window moves in this many steps.
const STEPS: u32 = 10;

/// When it opens, for how long, and what closes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Opens at this share of failures.
    pub(crate) failure_percent: u8,
    /// Calls in the window below which no share matters.
    pub(crate) min_calls: u32,
    /// How far back calls count.
    pub(crate) window: Duration,
    /// How long it stays open the first time; doubled each time in a row.
    pub(crate) open: Duration,
    /// The longest it stays open.
    pub(crate) open_longest: Duration,
    /// How many calls must succeed before it closes, and how many may ask until then.
    pub(crate) probes: u32,
}

/// What it does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Everyone may ask.
    Closed,
    /// Nobody may ask.
    Open,
    /// A few may, to find out.
    HalfOpen,
}

/// Leave to ask once, to be given back with what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer, whichever.
    Good,
    /// None.
    Bad,
    /// None, and the wish not to be asked again for so long.
    ComeBackIn(Duration),
    /// Nobody knows: the asker left.
    Abandoned,
}

/// The state machine. Times are since any fixed moment.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: Policy,
    state: State,
    period: u64,
    /// How often it opened since it was last closed.
    openings: u32,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until: Duration },
    HalfOpen { under_way: u32, succeeded: u32 },
}

impl Breaker {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, state: State::Closed(Window::default()), period: 0, openings: 0 }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.state {
            State::Closed(_) => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// Whether a call would be refused now, and when it is worth coming back.
    pub(crate) fn refuses(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Closed(_) => None,
            State::Open { until } => until.checked_sub(now).filter(|left| !left.is_zero()),
            State::HalfOpen { under_way, succeeded } => {
                (under_way + succeeded >= self.policy.probes).then_some(self.policy.open)
            }
        }
    }

    /// Asks for leave to call.
    ///
    /// # Errors
    /// Not now; it is worth coming back in so long.
    pub(crate) fn admit(&mut self, now: Duration) -> Result<Ticket, Duration> {
        if let Some(left) = self.refuses(now) {
            return Err(left);
        }
        if let State::Open { .. } = self.state {
            self.enter(State::HalfOpen { under_way: 0, succeeded: 0 });
        }
        if let State::HalfOpen { under_way, .. } = &mut self.state {
            *under_way += 1;
        }
        Ok(Ticket(self.period))
    }

    /// Hears what came of a call. `jitter` is random, from 0 to 1: the open times of a fleet must not be in step.
    pub(crate) fn record(&mut self, ticket: Ticket, outcome: Outcome, now: Duration, jitter: f64) {
        if ticket.0 != self.period {
            return;
        }
        let asked_for = match outcome {
            Outcome::ComeBackIn(time) => Some(time),
            Outcome::Good | Outcome::Bad | Outcome::Abandoned => None,
        };
        let opens = match (&mut self.state, outcome) {
            (State::Closed(window), Outcome::Good | Outcome::Bad) => {
                window.add(now, outcome == Outcome::Bad, &self.policy);
                window.is_failing(&self.policy)
            }
            (State::HalfOpen { under_way, .. }, Outcome::Abandoned) => {
                *under_way -= 1;
                false
            }
            (State::HalfOpen { under_way, succeeded }, Outcome::Good) => {
                (*under_way, *succeeded) = (*under_way - 1, *succeeded + 1);
                if *succeeded >= self.policy.probes {
                    self.openings = 0;
                    self.enter(State::Closed(Window::default()));
                }
                false
            }
            (State::HalfOpen { .. }, Outcome::Bad)
            | (State::Closed(_) | State::HalfOpen { .. }, Outcome::ComeBackIn(_)) => true,
            (State::Closed(_), Outcome::Abandoned) | (State::Open { .. }, _) => false,
        };
        if opens {
            let time = self.next_open_time(jitter).max(asked_for.unwrap_or_default());
            self.openings = self.openings.saturating_add(1);
            self.enter(State::Open { until: now + time.min(self.policy.open_longest) });
        }
    }

    /// Doubled each time in a row, at most the longest, less up to a quarter.
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

/// The latest calls, counted by step.
#[derive(Debug, Default)]
struct Window {
    steps: VecDeque<Step>,
}

#[derive(Debug)]
struct Step {
    number: u128,
    calls: u64,
    failures: u64,
}

impl Window {
    fn add(&mut self, now: Duration, failed: bool, policy: &Policy) {
        let length = (policy.window / STEPS).max(Duration::from_nanos(1));
        let number = now.as_nanos() / length.as_nanos();
        while self.steps.front().is_some_and(|step| step.number + u128::from(STEPS) <= number) {
            self.steps.pop_front();
        }
        if self.steps.back().is_none_or(|step| step.number < number) {
            self.steps.push_back(Step { number, calls: 0, failures: 0 });
        }
        if let Some(step) = self.steps.back_mut() {
            step.calls += 1;
            step.failures += u64::from(failed);
        }
    }

    fn is_failing(&self, policy: &Policy) -> bool {
        let calls: u64 = self.steps.iter().map(|step| step.calls).sum();
        let failures: u64 = self.steps.iter().map(|step| step.failures).sum();
        calls >= u64::from(policy.min_calls)
            && failures > 0
            && failures * 100 >= calls * u64::from(policy.failure_percent)
    }
}

#[cfg(test)]
mod tests;
