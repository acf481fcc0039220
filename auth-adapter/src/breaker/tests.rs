//! The breaker by sentences, and against a model that keeps every call and counts anew each time.

use super::*;
use proptest::prelude::*;

const POLICY: Policy = Policy {
    failure_percent: 50,
    min_calls: 4,
    window: Duration::from_secs(10),
    open: Duration::from_secs(1),
    open_longest: Duration::from_secs(8),
    probes: 2,
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A call that begins and ends at once, without jitter.
fn call(breaker: &mut Breaker, now: Duration, outcome: Outcome) {
    let ticket = breaker.admit(now).expect("it lets the call through");
    breaker.record(ticket, outcome, now, 0.0);
}

fn opened(now: Duration) -> Breaker {
    let mut breaker = Breaker::new(POLICY);
    for _ in 0..4 {
        call(&mut breaker, now, Outcome::Bad);
    }
    assert_eq!(breaker.phase(), Phase::Open);
    breaker
}

#[test]
fn a_share_of_failures_opens_it_but_not_among_too_few_calls() {
    let mut breaker = Breaker::new(POLICY);
    for outcome in [Outcome::Bad, Outcome::Bad, Outcome::Bad] {
        call(&mut breaker, seconds(1), outcome);
        assert_eq!(breaker.phase(), Phase::Closed);
    }
    call(&mut breaker, seconds(1), Outcome::Good);
    assert_eq!(breaker.phase(), Phase::Open, "three of four failed");

    let mut breaker = Breaker::new(POLICY);
    for outcome in [Outcome::Good, Outcome::Good, Outcome::Good, Outcome::Bad, Outcome::Bad] {
        call(&mut breaker, seconds(1), outcome);
        assert_eq!(breaker.phase(), Phase::Closed, "less than half failed");
    }
    call(&mut breaker, seconds(1), Outcome::Bad);
    assert_eq!(breaker.phase(), Phase::Open, "half failed");
}

#[test]
fn failures_beyond_the_window_are_forgotten() {
    let mut breaker = Breaker::new(POLICY);
    for second in [0, 0, 0, 11, 11, 11] {
        call(&mut breaker, seconds(second), Outcome::Bad);
        assert_eq!(breaker.phase(), Phase::Closed);
    }
    call(&mut breaker, seconds(12), Outcome::Bad);
    assert_eq!(breaker.phase(), Phase::Open);
}

#[test]
fn probes_that_succeed_close_it_and_no_more_than_those_are_let_through() {
    let mut breaker = opened(seconds(0));
    assert_eq!(breaker.admit(Duration::from_millis(400)), Err(Duration::from_millis(600)));
    let one = breaker.admit(seconds(1)).unwrap();
    assert_eq!(breaker.phase(), Phase::HalfOpen);
    let two = breaker.admit(seconds(1)).unwrap();
    assert!(breaker.admit(seconds(1)).is_err(), "two probes are enough");
    breaker.record(one, Outcome::Good, seconds(1), 0.0);
    assert!(breaker.admit(seconds(1)).is_err(), "the other one may still fail");
    breaker.record(two, Outcome::Good, seconds(1), 0.0);
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn a_probe_that_fails_opens_it_for_twice_as_long_up_to_the_longest() {
    let mut breaker = opened(seconds(0));
    let mut now = seconds(0);
    for open in [1, 2, 4, 8, 8] {
        assert_eq!(breaker.refuses(now), Some(seconds(open)));
        now += seconds(open);
        call(&mut breaker, now, Outcome::Bad);
    }
    now += seconds(8);
    call(&mut breaker, now, Outcome::Good);
    call(&mut breaker, now, Outcome::Good);
    for _ in 0..4 {
        call(&mut breaker, now, Outcome::Bad);
    }
    assert_eq!(breaker.refuses(now), Some(seconds(1)), "who was closed begins anew");
}

#[test]
fn a_probe_whose_asker_left_makes_room_for_another() {
    let mut breaker = opened(seconds(0));
    let (one, _two) = (breaker.admit(seconds(1)).unwrap(), breaker.admit(seconds(1)).unwrap());
    breaker.record(one, Outcome::Abandoned, seconds(1), 0.0);
    assert!(breaker.admit(seconds(1)).is_ok());
}

#[test]
fn who_asks_for_time_gets_it_within_bounds() {
    for (asked, given) in [(0, 1), (5, 5), (3_600, 8)] {
        let mut breaker = Breaker::new(POLICY);
        call(&mut breaker, seconds(0), Outcome::ComeBackIn(seconds(asked)));
        assert_eq!(breaker.refuses(seconds(0)), Some(seconds(given)), "asked for {asked} s");
    }
}

#[test]
fn what_a_call_of_an_earlier_period_says_does_not_count() {
    let mut breaker = Breaker::new(POLICY);
    let late = breaker.admit(seconds(0)).unwrap();
    for _ in 0..4 {
        call(&mut breaker, seconds(0), Outcome::Bad);
    }
    call(&mut breaker, seconds(1), Outcome::Good);
    breaker.record(late, Outcome::Bad, seconds(1), 0.0);
    assert_eq!(breaker.phase(), Phase::HalfOpen);
}

/// Keeps everything, and decides by counting it anew.
struct Model {
    phase: Phase,
    calls: Vec<(u128, bool)>,
    openings: u32,
    until: Duration,
    /// Outcomes of this period's probes, `None` while they are under way.
    probes: Vec<(usize, Option<bool>)>,
    /// Calls of this period that are under way.
    current: Vec<usize>,
}

impl Model {
    fn open(&mut self, now: Duration, at_least: Duration, jitter: f64) {
        let mut time = POLICY.open;
        for _ in 0..self.openings {
            time = (time * 2).min(POLICY.open_longest);
        }
        let time = time.mul_f64(1.0 - jitter / 4.0).max(at_least).min(POLICY.open_longest);
        (self.phase, self.until) = (Phase::Open, now + time);
        self.openings += 1;
        self.forget();
    }

    fn forget(&mut self) {
        self.calls.clear();
        self.probes.clear();
        self.current.clear();
    }

    fn lets_through(&self, now: Duration) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::Open => now >= self.until,
            Phase::HalfOpen => self.probes.len() < 2,
        }
    }

    fn begin(&mut self, call: usize) {
        if self.phase == Phase::Open {
            self.phase = Phase::HalfOpen;
            self.forget();
        }
        self.current.push(call);
        if self.phase == Phase::HalfOpen {
            self.probes.push((call, None));
        }
    }

    fn end(&mut self, call: usize, outcome: Outcome, now: Duration, jitter: f64) {
        if !self.current.contains(&call) {
            return;
        }
        self.current.retain(|other| *other != call);
        match outcome {
            Outcome::ComeBackIn(time) => return self.open(now, time, jitter),
            Outcome::Abandoned => return self.probes.retain(|(probe, _)| *probe != call),
            Outcome::Good | Outcome::Bad => {}
        }
        let good = outcome == Outcome::Good;
        if self.phase == Phase::HalfOpen {
            for (_, result) in self.probes.iter_mut().filter(|(probe, _)| *probe == call) {
                *result = Some(good);
            }
            if !good {
                return self.open(now, Duration::ZERO, jitter);
            }
            if self.probes.iter().filter(|(_, result)| *result == Some(true)).count() == 2 {
                (self.phase, self.openings) = (Phase::Closed, 0);
                self.forget();
            }
            return;
        }
        self.calls.push((now.as_secs().into(), good));
        let seen = self.calls.iter().filter(|(second, _)| second + 10 > now.as_secs().into());
        let (all, failed) =
            seen.fold((0, 0), |(all, failed), (_, good)| (all + 1, failed + i32::from(!good)));
        if all >= 4 && failed * 2 >= all {
            self.open(now, Duration::ZERO, jitter);
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Wait(u64),
    Begin,
    End(prop::sample::Index, Outcome, f64),
}

fn event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Good),
        4 => Just(Outcome::Bad),
        1 => Just(Outcome::Abandoned),
        1 => (0_u64..20).prop_map(|time| Outcome::ComeBackIn(seconds(time))),
    ];
    prop_oneof![
        2 => (1_u64..4_000).prop_map(Event::Wait),
        4 => Just(Event::Begin),
        4 => (any::<prop::sample::Index>(), outcome, 0.0..=1.0).prop_map(|(which, outcome, jitter)| {
            Event::End(which, outcome, jitter)
        }),
    ]
}

proptest! {
    #[test]
    fn it_does_what_a_model_that_forgets_nothing_does(events in prop::collection::vec(event(), 0..300)) {
        let mut breaker = Breaker::new(POLICY);
        let mut model = Model {
            phase: Phase::Closed,
            calls: Vec::new(),
            openings: 0,
            until: Duration::ZERO,
            probes: Vec::new(),
            current: Vec::new(),
        };
        let (mut now, mut next, mut under_way) = (Duration::ZERO, 0, Vec::new());
        for event in events {
            match event {
                Event::Wait(millis) => now += Duration::from_millis(millis),
                Event::Begin => {
                    prop_assert_eq!(breaker.refuses(now).is_none(), model.lets_through(now));
                    let admitted = breaker.admit(now);
                    prop_assert_eq!(admitted.is_ok(), model.lets_through(now));
                    if let Ok(ticket) = admitted {
                        model.begin(next);
                        under_way.push((next, ticket));
                        next += 1;
                    }
                }
                Event::End(which, outcome, jitter) => {
                    if under_way.is_empty() {
                        continue;
                    }
                    let (call, ticket) = under_way.swap_remove(which.index(under_way.len()));
                    breaker.record(ticket, outcome, now, jitter);
                    model.end(call, outcome, now, jitter);
                }
            }
            prop_assert_eq!(breaker.phase(), model.phase);
            if model.phase == Phase::Open && now < model.until {
                prop_assert_eq!(breaker.refuses(now), Some(model.until - now));
                prop_assert!(model.until - now <= POLICY.open_longest);
            }
        }
    }
}
