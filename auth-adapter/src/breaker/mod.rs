//! When to stop asking a business system that fails, and how to find out that it works again. Pure: no clock,
//! no lock.
//!
//! Closed, every check may ask. When the share of failures among the latest calls is too large, the breaker
//! opens: nobody asks for a while, which grows each time in a row. Then a few probes may ask: when enough of
//! them succeed the breaker closes, when they fail it opens again. Each change begins a new period; what a
//! call of an earlier period says does not count, so that a slow failure from before can't undo what a probe
//! has just shown.
//!
//! A failure may be the fault of what was asked and not of the system. So one asker's failures weigh once in
//! a window however many they are; an error that came as an answer weighs a quarter beside successes; and an
//! asker that was answered well before may look now and then whether an open breaker is still right.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The window moves in this many steps.
const STEPS: u32 = 10;
/// Failing askers that are told apart in a window. Each failure beyond them counts by itself.
const MAX_ASKERS: usize = 4_096;
/// How many error answers weigh as much as one failure to answer, as long as other calls succeed.
const ERRORS_PER_FAILURE: u64 = 4;

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
    /// How many calls may find out whether the system is back.
    pub(crate) probes: u32,
    /// How many of them must succeed before it closes.
    pub(crate) successes: u32,
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

/// Who wants to call: a fingerprint, by which failures are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    pub(crate) id: u64,
    /// Whether the system answered well lately to what is asked, so that a failure is surely the system's.
    pub(crate) trusted: bool,
}

/// Leave to ask once, to be given back with what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    period: u64,
    asker: Asker,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer, whichever.
    Good,
    /// No connection: whatever was asked, the system never saw the question.
    Unreachable,
    /// No answer, or none in time.
    Unanswered,
    /// An answer that is an error, maybe with the wish not to be asked again for so long.
    Error(Option<Duration>),
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
    Open {
        until: Duration,
        /// When a trusted asker may look. `None`: never, for the system asked for this time.
        look: Option<Duration>,
    },
    HalfOpen(Probing),
}

#[derive(Debug, Default)]
struct Probing {
    under_way: u32,
    succeeded: u32,
    failed: u32,
    /// The longest time that the system asked for.
    wish: Option<Duration>,
    /// Until when an asker whose probe failed lets others try. No more than there were failures.
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

    /// Whether a call of an asker that is not known would be refused now, and when it is worth coming back.
    pub(crate) fn refuses(&self, now: Duration) -> Option<Duration> {
        match &self.state {
            State::Closed(_) => None,
            State::Open { until, .. } => left(*until, now),
            State::HalfOpen(probing) => {
                (probing.under_way + probing.succeeded >= self.policy.probes).then_some(self.policy.open)
            }
        }
    }

    /// Whether this asker's call would be refused now, and when it is worth coming back.
    pub(crate) fn refuses_asker(&self, asker: Asker, now: Duration) -> Option<Duration> {
        match &self.state {
            State::Open { look: Some(look), .. } if asker.trusted && *look <= now => None,
            // One place more than there are probes, which no stranger can hold.
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

    /// Asks for leave to call.
    ///
    /// # Errors
    /// Not now; it is worth coming back in so long.
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

    /// Hears what came of a call. `jitter` is random, from 0 to 1: the open times of a fleet must not be in
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
            // A trusted asker looked.
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

    /// Whether the call that has just ended shows that the system still fails: by itself if it surely was not
    /// the asker's fault, else as one of several; beside a success it takes more of them.
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

/// The latest calls, counted by step, and the askers whose calls failed.
#[derive(Debug, Default)]
struct Window {
    steps: VecDeque<Step>,
    failing: HashMap<u64, Failing>,
}

#[derive(Debug)]
struct Step {
    number: u128,
    good: u64,
    /// Failures that count each by itself.
    failures: u64,
}

/// The latest failure of one asker.
#[derive(Debug)]
struct Failing {
    step: u128,
    /// Whether it was an error answer, to nobody who was answered well before.
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

    /// The longest time that the system asked for.
    fn wish(&self) -> Option<Duration> {
        self.failing.values().filter_map(|failing| failing.wish).max()
    }
}

#[cfg(test)]
mod tests;
