//! The breaker by sentences, and against a model that keeps every call and counts anew each time.

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

const POLICY: Policy = Policy {
    failure_percent: 50,
    min_calls: 4,
    window: Duration::from_secs(10),
    open: Duration::from_secs(1),
    open_longest: Duration::from_secs(8),
    probes: 2,
    successes: 2,
};

/// One of whom nothing is known.
const fn stranger(id: u64) -> Asker {
    Asker { id, trusted: false }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A call that begins and ends at once, without jitter.
fn call(breaker: &mut Breaker, now: Duration, outcome: Outcome) {
    let ticket = breaker.admit(stranger(1), now).expect("it lets the call through");
    breaker.record(ticket, outcome, now, 0.0);
}

fn opened(now: Duration) -> Breaker {
    let mut breaker = Breaker::new(POLICY);
    for _ in 0..4 {
        call(&mut breaker, now, Outcome::Unreachable);
    }
    assert_eq!(breaker.phase(), Phase::Open);
    breaker
}

#[test]
fn a_share_of_failures_opens_it_but_not_among_too_few_calls() {
    let mut breaker = Breaker::new(POLICY);
    for outcome in [Outcome::Unreachable, Outcome::Unreachable, Outcome::Unreachable] {
        call(&mut breaker, seconds(1), outcome);
        assert_eq!(breaker.phase(), Phase::Closed);
    }
    call(&mut breaker, seconds(1), Outcome::Good);
    assert_eq!(breaker.phase(), Phase::Open, "three of four failed");

    let mut breaker = Breaker::new(POLICY);
    for outcome in [Outcome::Good, Outcome::Good, Outcome::Good, Outcome::Unreachable, Outcome::Unreachable] {
        call(&mut breaker, seconds(1), outcome);
        assert_eq!(breaker.phase(), Phase::Closed, "less than half failed");
    }
    call(&mut breaker, seconds(1), Outcome::Unreachable);
    assert_eq!(breaker.phase(), Phase::Open, "half failed");
}

#[test]
fn failures_beyond_the_window_are_forgotten() {
    let mut breaker = Breaker::new(POLICY);
    for second in [0, 0, 0, 11, 11, 11] {
        call(&mut breaker, seconds(second), Outcome::Unreachable);
        assert_eq!(breaker.phase(), Phase::Closed);
    }
    call(&mut breaker, seconds(12), Outcome::Unreachable);
    assert_eq!(breaker.phase(), Phase::Open);
}

#[test]
fn probes_that_succeed_close_it_and_no_more_than_those_are_let_through() {
    let mut breaker = opened(seconds(0));
    assert_eq!(breaker.admit(stranger(1), Duration::from_millis(400)), Err(Duration::from_millis(600)));
    let one = breaker.admit(stranger(1), seconds(1)).unwrap();
    assert_eq!(breaker.phase(), Phase::HalfOpen);
    let two = breaker.admit(stranger(1), seconds(1)).unwrap();
    assert!(breaker.admit(stranger(1), seconds(1)).is_err(), "two probes are enough");
    breaker.record(one, Outcome::Good, seconds(1), 0.0);
    assert!(breaker.admit(stranger(1), seconds(1)).is_err(), "the other one may still fail");
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
        call(&mut breaker, now, Outcome::Unreachable);
    }
    now += seconds(8);
    call(&mut breaker, now, Outcome::Good);
    call(&mut breaker, now, Outcome::Good);
    for _ in 0..4 {
        call(&mut breaker, now, Outcome::Unreachable);
    }
    assert_eq!(breaker.refuses(now), Some(seconds(1)), "who was closed begins anew");
}

#[test]
fn a_probe_whose_asker_left_makes_room_for_another() {
    let mut breaker = opened(seconds(0));
    let (one, _two) =
        (breaker.admit(stranger(1), seconds(1)).unwrap(), breaker.admit(stranger(1), seconds(1)).unwrap());
    breaker.record(one, Outcome::Abandoned, seconds(1), 0.0);
    assert!(breaker.admit(stranger(1), seconds(1)).is_ok());
}

/// A call of this asker that ends at once, if it may begin.
fn call_of(breaker: &mut Breaker, asker: Asker, now: Duration, outcome: Outcome) -> bool {
    let ticket = breaker.admit(asker, now);
    if let Ok(ticket) = ticket {
        breaker.record(ticket, outcome, now, 0.0);
    }
    ticket.is_ok()
}

#[test]
fn a_system_that_asks_for_time_gets_it_within_bounds_if_several_are_told_so() {
    for (asked, given) in [(0, 1), (5, 5), (3_600, 8)] {
        let mut breaker = Breaker::new(POLICY);
        for id in 0..4 {
            assert_eq!(breaker.phase(), Phase::Closed, "{id} were told so");
            call_of(&mut breaker, stranger(id), seconds(0), Outcome::Error(Some(seconds(asked))));
        }
        assert_eq!(breaker.refuses(seconds(0)), Some(seconds(given)), "asked for {asked} s");
        let trusted = Asker { id: 9, trusted: true };
        assert!(breaker.refuses_asker(trusted, Duration::from_millis(given * 1_000 - 1)).is_some());
    }
}

#[test]
fn the_failures_of_one_asker_weigh_once() {
    for outcome in [Outcome::Unanswered, Outcome::Error(None), Outcome::Error(Some(seconds(60)))] {
        let mut breaker = Breaker::new(POLICY);
        for call in 0..1_000 {
            assert!(call_of(&mut breaker, stranger(1), seconds(call / 100), outcome));
        }
        for id in 2..5 {
            assert_eq!(breaker.phase(), Phase::Closed);
            call_of(&mut breaker, stranger(id), seconds(9), outcome);
        }
        assert_eq!(breaker.phase(), Phase::Open, "now there are four of them");
    }
}

#[test]
fn error_answers_beside_successes_weigh_a_quarter_and_nothing_else_does() {
    for (outcome, trusted, openers) in [
        (Outcome::Error(None), false, 8),
        (Outcome::Error(None), true, 2),
        (Outcome::Unanswered, false, 2),
        (Outcome::Unreachable, false, 2),
    ] {
        let mut breaker = Breaker::new(POLICY);
        for id in 0..2 {
            call_of(&mut breaker, stranger(id), seconds(0), Outcome::Good);
        }
        for id in 0..openers {
            assert_eq!(breaker.phase(), Phase::Closed, "{outcome:?} of {id}");
            call_of(&mut breaker, Asker { id: 10 + id, trusted }, seconds(1), outcome);
        }
        assert_eq!(breaker.phase(), Phase::Open, "{outcome:?} of {openers}");
    }
}

#[test]
fn an_asker_that_was_answered_well_may_look_now_and_then_while_it_is_open() {
    for is_back in [false, true] {
        let mut breaker = opened_for_eight_seconds();
        let trusted = Asker { id: 7, trusted: true };
        assert!(breaker.admit(trusted, Duration::from_millis(999)).is_err(), "not at once");
        assert!(breaker.admit(stranger(8), seconds(1)).is_err());
        let look = breaker.admit(trusted, seconds(1)).expect("a look");
        assert!(breaker.admit(trusted, Duration::from_millis(1_999)).is_err(), "one look a second");
        if !is_back {
            breaker.record(look, Outcome::Error(None), seconds(1), 0.0);
            assert_eq!((breaker.phase(), breaker.refuses(seconds(1))), (Phase::Open, Some(seconds(7))));
        } else {
            breaker.record(look, Outcome::Good, seconds(1), 0.0);
            assert_eq!(breaker.phase(), Phase::HalfOpen);
            assert!(call_of(&mut breaker, stranger(8), seconds(1), Outcome::Good));
            assert_eq!(breaker.phase(), Phase::Closed);
        }
    }
}

/// Opened at 0, the fourth time in a row.
fn opened_for_eight_seconds() -> Breaker {
    let mut breaker = Breaker::new(POLICY);
    breaker.openings = 3;
    for _ in 0..4 {
        call(&mut breaker, seconds(0), Outcome::Unreachable);
    }
    assert_eq!(breaker.refuses(seconds(0)), Some(seconds(8)));
    breaker
}

#[test]
fn a_stranger_whose_probe_fails_leaves_the_next_ones_to_others() {
    let mut breaker = opened(seconds(0));
    assert!(call_of(&mut breaker, stranger(1), seconds(1), Outcome::Error(None)));
    assert!(!call_of(&mut breaker, stranger(1), seconds(1), Outcome::Error(None)), "it had its turn");
    for id in 2..4 {
        assert_eq!(breaker.phase(), Phase::HalfOpen);
        assert!(call_of(&mut breaker, stranger(id), seconds(1), Outcome::Good));
    }
    assert_eq!(breaker.phase(), Phase::Closed);

    let mut breaker = opened(seconds(0));
    for id in 1..3 {
        assert!(call_of(&mut breaker, stranger(id), seconds(1), Outcome::Unanswered));
    }
    assert_eq!(breaker.phase(), Phase::Open, "as many failed as may probe, and none succeeded");
    let mut breaker = opened(seconds(0));
    assert!(call_of(&mut breaker, Asker { id: 1, trusted: true }, seconds(1), Outcome::Error(None)));
    assert_eq!(breaker.phase(), Phase::Open, "this was surely not the asker's fault");
}

#[test]
fn what_a_call_of_an_earlier_period_says_does_not_count() {
    let mut breaker = Breaker::new(POLICY);
    let late = breaker.admit(stranger(1), seconds(0)).unwrap();
    for _ in 0..4 {
        call(&mut breaker, seconds(0), Outcome::Unreachable);
    }
    call(&mut breaker, seconds(1), Outcome::Good);
    breaker.record(late, Outcome::Unreachable, seconds(1), 0.0);
    assert_eq!(breaker.phase(), Phase::HalfOpen);
}

/// Keeps everything, and decides by counting it anew.
struct Model {
    phase: Phase,
    /// Calls that ended in this period: when, in steps of the window; whose; and how.
    ended: Vec<(u128, Asker, Outcome)>,
    openings: u32,
    until: Duration,
    look: Option<Duration>,
    /// When each failed probe of this period ended, and whose it was.
    barred: Vec<(Duration, u64)>,
    /// Calls of this period that are under way.
    current: Vec<(usize, Asker)>,
}

impl Model {
    fn new() -> Self {
        let (phase, until) = (Phase::Closed, Duration::ZERO);
        let (ended, barred, current) = (Vec::new(), Vec::new(), Vec::new());
        Self { phase, ended, openings: 0, until, look: None, barred, current }
    }

    fn turn(&mut self, phase: Phase) {
        self.phase = phase;
        self.ended.clear();
        self.barred.clear();
        self.current.clear();
    }

    fn open(&mut self, now: Duration, wish: Option<Duration>, jitter: f64) {
        let mut time = POLICY.open;
        for _ in 0..self.openings {
            time = (time * 2).min(POLICY.open_longest);
        }
        let time = time.mul_f64(1.0 - jitter / 4.0).max(wish.unwrap_or_default()).min(POLICY.open_longest);
        self.until = now + time;
        self.look = wish.is_none().then_some(now + POLICY.open);
        self.openings += 1;
        self.turn(Phase::Open);
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.ended.iter().filter(|(_, _, ended)| *ended == outcome).count()
    }

    fn lets_through(&self, asker: Asker, now: Duration) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::Open => now >= self.until || (asker.trusted && self.look.is_some_and(|look| now >= look)),
            Phase::HalfOpen => {
                let places = 2 + usize::from(asker.trusted);
                let barred = self.barred.iter().any(|(end, id)| *id == asker.id && now < *end + POLICY.open);
                self.current.len() + self.count(Outcome::Good) < places && (asker.trusted || !barred)
            }
        }
    }

    fn begin(&mut self, call: usize, asker: Asker, now: Duration) {
        if self.phase == Phase::Open && now >= self.until {
            self.turn(Phase::HalfOpen);
        } else if self.phase == Phase::Open {
            self.look = Some(now + POLICY.open);
        }
        self.current.push((call, asker));
    }

    fn end(&mut self, call: usize, outcome: Outcome, now: Duration, jitter: f64) {
        let Some(place) = self.current.iter().position(|(other, _)| *other == call) else { return };
        let (_, asker) = self.current.swap_remove(place);
        if outcome == Outcome::Abandoned {
            return;
        }
        self.ended.push((now.as_secs().into(), asker, outcome));
        match self.phase {
            Phase::Closed => self.judge(now, jitter),
            Phase::Open if outcome == Outcome::Good => {
                self.turn(Phase::HalfOpen);
                self.ended.push((now.as_secs().into(), asker, outcome));
            }
            Phase::Open => {}
            Phase::HalfOpen => self.judge_probe(asker, outcome, now, jitter),
        }
    }

    fn judge(&mut self, now: Duration, jitter: f64) {
        let seen: Vec<_> =
            self.ended.iter().filter(|(step, ..)| step + 10 > u128::from(now.as_secs())).collect();
        let good = seen.iter().filter(|(.., outcome)| *outcome == Outcome::Good).count();
        let unreachable = seen.iter().filter(|(.., outcome)| *outcome == Outcome::Unreachable).count();
        let failed =
            seen.iter().filter(|(.., outcome)| matches!(outcome, Outcome::Unanswered | Outcome::Error(_)));
        let latest: BTreeMap<u64, _> =
            failed.map(|(_, asker, outcome)| (asker.id, (*asker, *outcome))).collect();
        let weights = latest.values().map(|(asker, outcome)| {
            if good > 0 && !asker.trusted && matches!(outcome, Outcome::Error(_)) { 0.25 } else { 1.0 }
        });
        let weight: f64 = weights.sum::<f64>() + f64::from(u32::try_from(unreachable).unwrap());
        let all = weight + f64::from(u32::try_from(good).unwrap());
        if good + unreachable + latest.len() >= 4 && weight > 0.0 && weight * 2.0 >= all {
            let wish = latest.values().filter_map(|(_, outcome)| wish_of(*outcome)).max();
            self.open(now, wish, jitter);
        }
    }

    fn judge_probe(&mut self, asker: Asker, outcome: Outcome, now: Duration, jitter: f64) {
        let good = self.count(Outcome::Good);
        if outcome == Outcome::Good {
            if good == 2 {
                self.openings = 0;
                self.turn(Phase::Closed);
            }
            return;
        }
        self.barred.push((now, asker.id));
        let enough = if good == 0 { 2 } else { 8 };
        let failed = self.ended.len() - good;
        if outcome == Outcome::Unreachable || asker.trusted || failed >= enough {
            let wish = self.ended.iter().filter_map(|(.., outcome)| wish_of(*outcome)).max();
            self.open(now, wish, jitter);
        }
    }
}

fn wish_of(outcome: Outcome) -> Option<Duration> {
    if let Outcome::Error(wish) = outcome { wish } else { None }
}

#[derive(Debug, Clone)]
enum Event {
    Wait(u64),
    Begin(Asker),
    End(prop::sample::Index, Outcome, f64),
}

fn event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Good),
        2 => Just(Outcome::Unreachable),
        2 => Just(Outcome::Unanswered),
        3 => Just(Outcome::Error(None)),
        1 => Just(Outcome::Abandoned),
        1 => (0_u64..20).prop_map(|time| Outcome::Error(Some(seconds(time)))),
    ];
    let asker = (0_u64..6, prop::bool::weighted(0.2)).prop_map(|(id, trusted)| Asker { id, trusted });
    prop_oneof![
        2 => (1_u64..4_000).prop_map(Event::Wait),
        4 => asker.prop_map(Event::Begin),
        4 => (any::<prop::sample::Index>(), outcome, 0.0..=1.0).prop_map(|(which, outcome, jitter)| {
            Event::End(which, outcome, jitter)
        }),
    ]
}

proptest! {
    #[test]
    fn it_does_what_a_model_that_forgets_nothing_does(events in prop::collection::vec(event(), 0..300)) {
        let mut breaker = Breaker::new(POLICY);
        let mut model = Model::new();
        let (mut now, mut next, mut under_way) = (Duration::ZERO, 0, Vec::new());
        for event in events {
            match event {
                Event::Wait(millis) => now += Duration::from_millis(millis),
                Event::Begin(asker) => {
                    let lets_through = model.lets_through(asker, now);
                    prop_assert_eq!(breaker.refuses_asker(asker, now).is_none(), lets_through);
                    let admitted = breaker.admit(asker, now);
                    prop_assert_eq!(admitted.is_ok(), lets_through);
                    if let Ok(ticket) = admitted {
                        model.begin(next, asker, now);
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

/// A business system of which many ask.
#[derive(Debug, Clone)]
enum Login {
    /// One stranger's, whatever comes of it.
    Strange(Outcome),
    /// Somebody else's.
    Other(u64),
}

fn failure() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Unanswered),
        Just(Outcome::Error(None)),
        (0_u64..1_000).prop_map(|time| Outcome::Error(Some(seconds(time)))),
        Just(Outcome::Good),
        Just(Outcome::Abandoned),
    ]
}

fn login() -> impl Strategy<Value = Login> {
    prop_oneof![
        20 => failure().prop_map(Login::Strange),
        1 => any::<u64>().prop_map(|id| Login::Other(id | 1)),
    ]
}

proptest! {
    /// The property that was missing: all calls of the model above are alike, so nothing could show that one
    /// asker's failures closed the door to others.
    #[test]
    fn one_stranger_stops_nobody(logins in prop::collection::vec((login(), 0_u64..300), 0..400)) {
        let mut breaker = Breaker::new(POLICY);
        let mut now = Duration::ZERO;
        for (login, pause) in logins {
            now += Duration::from_millis(pause);
            let (asker, outcome) = match login {
                Login::Strange(outcome) => (stranger(0), outcome),
                Login::Other(id) => (stranger(id), Outcome::Good),
            };
            let asked = call_of(&mut breaker, asker, now, outcome);
            prop_assert!(asked, "{login:?} was not let through");
        }
    }

    #[test]
    fn a_system_that_fails_for_all_is_spared_whoever_asks(
        calls in prop::collection::vec((0_u64..1_000, any::<bool>(), 0_u64..50), 1_000..1_001),
        outcome in prop_oneof![Just(Outcome::Unreachable), Just(Outcome::Unanswered), Just(Outcome::Error(None))],
    ) {
        let mut breaker = Breaker::new(POLICY);
        let (mut now, mut asked) = (Duration::ZERO, 0_u64);
        for (id, trusted, pause) in calls {
            now += Duration::from_millis(pause);
            asked += u64::from(call_of(&mut breaker, Asker { id, trusted }, now, outcome));
        }
        // Few until it opens the first time; then a look a second, and two probes whenever the time is over.
        let repeats = 12;
        prop_assert!(asked <= 4 + repeats + 3 * (now.as_secs() + 2), "{asked} calls in {now:?}");
    }
}
