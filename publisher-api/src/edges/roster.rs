//! Which edges are live, judged by their signs of life. Pure: time is a parameter, nothing is sent.
//!
//! An edge is live from its first sign until it says bye or is silent for too long. A silent edge is named
//! for a while, because it may still hold sessions. [`Roster::sweep`] alone judges silence, and its caller
//! first takes in what has come. An edge that said bye never comes back, since an edge has a new id at each
//! start. The roster is certain only once every live edge had the time to be heard on this connection.

use std::collections::HashMap;
use std::time::Duration;

use shared::bus::BusState;
use shared::ids::NodeId;
use shared::wire::{EdgeState, Heartbeat};
use tokio::time::Instant;

/// The times that the roster goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// How often an edge speaks.
    pub(crate) heartbeat: Duration,
    /// After this long without a sign, an edge is not waited for.
    pub(crate) silent_after: Duration,
    /// After this long without a sign, an edge is forgotten.
    pub(crate) named_for: Duration,
    /// Whether there is at most one edge, which takes no client before this publisher acknowledged its
    /// heartbeat.
    pub(crate) one_edge: bool,
}

impl Times {
    /// How long to listen until every live edge was heard: an interval, and a quarter for a late timer. An
    /// edge that was not heard yet and can have no client need not be waited for.
    fn hearing(&self) -> Duration {
        if self.one_edge {
            return Duration::ZERO;
        }
        self.heartbeat + self.heartbeat / 4
    }
}

/// A change that a sign of life made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The first sign of this edge.
    Appeared,
    /// The edge was silent and is not any more.
    Returned,
    /// The edge said bye.
    Left,
    /// Nothing.
    None,
}

/// A change that the passing of time made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lapse {
    /// The edge is not waited for any more.
    Silent,
    /// The edge is not named any more.
    Forgotten,
}

#[derive(Debug)]
struct Edge {
    heard: Instant,
    silent: bool,
}

/// Which edges an ask must be answered by, as known at the moment of asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Edges to wait for.
    pub(crate) live: Vec<NodeId>,
    /// Edges that are silent for too long to be waited for, but not known to be gone.
    pub(crate) silent: Vec<NodeId>,
    /// Whether no other edge can exist. False just after the start, or when the bus was away.
    pub(crate) certain: bool,
}

impl Expected {
    /// Whether surely no edge exists, so that nobody need be asked.
    pub(crate) fn nobody(&self) -> bool {
        self.certain && self.live.is_empty() && self.silent.is_empty()
    }
}

/// The edges.
#[derive(Debug)]
pub(crate) struct Roster {
    times: Times,
    edges: HashMap<NodeId, Edge>,
    /// Edges that said bye, and when: a late answer must not bring them back. Forgotten like silent edges.
    departed: HashMap<NodeId, Instant>,
    proved: Option<Proof>,
}

/// Since when heartbeats surely arrive.
#[derive(Debug, Clone, Copy)]
struct Proof {
    /// The number of the connection.
    connects: u64,
    since: Instant,
}

impl Roster {
    /// Makes a roster without edges.
    pub(crate) fn new(times: Times) -> Self {
        Self { times, edges: HashMap::new(), departed: HashMap::new(), proved: None }
    }

    /// Takes a heartbeat.
    pub(crate) fn on_heartbeat(&mut self, heartbeat: &Heartbeat, now: Instant) -> Change {
        match heartbeat.state {
            EdgeState::Starting | EdgeState::Serving | EdgeState::Draining => {
                self.on_sign(&heartbeat.edge, now)
            }
            EdgeState::Bye => {
                self.departed.insert(heartbeat.edge.clone(), now);
                self.edges.remove(&heartbeat.edge).map_or(Change::None, |_| Change::Left)
            }
        }
    }

    /// Takes another sign of life: an answer.
    pub(crate) fn on_sign(&mut self, edge: &NodeId, now: Instant) -> Change {
        if self.departed.contains_key(edge) {
            return Change::None;
        }
        match self.edges.get_mut(edge) {
            Some(known) => {
                known.heard = now;
                if std::mem::take(&mut known.silent) { Change::Returned } else { Change::None }
            }
            None => {
                self.edges.insert(edge.clone(), Edge { heard: now, silent: false });
                Change::Appeared
            }
        }
    }

    /// Notes that the subscription to the heartbeats is proved active on the connection number `connects`.
    pub(crate) fn on_proved(&mut self, connects: u64, now: Instant) {
        self.proved = Some(Proof { connects, since: now });
    }

    /// Returns from when on the roster is certain on the connection number `connects`. `None`: not known yet.
    pub(crate) fn certain_from(&self, connects: u64) -> Option<Instant> {
        let proof = self.proved?;
        (proof.connects == connects).then(|| proof.since + self.times.hearing())
    }

    /// Whether no unknown edge can exist.
    fn is_certain(&self, bus: BusState, now: Instant) -> bool {
        bus.connected && self.certain_from(bus.connects).is_some_and(|from| from <= now)
    }

    /// Whether surely no edge exists.
    pub(crate) fn is_nobody(&self, bus: BusState, now: Instant) -> bool {
        self.edges.is_empty() && self.is_certain(bus, now)
    }

    /// The edges that must answer an ask that is sent now.
    pub(crate) fn expected(&self, bus: BusState, now: Instant) -> Expected {
        let mut expected = Expected { certain: self.is_certain(bus, now), ..Expected::default() };
        for (id, edge) in &self.edges {
            if edge.silent { &mut expected.silent } else { &mut expected.live }.push(id.clone());
        }
        expected
    }

    /// Whether [`Roster::sweep`] would find an edge silent that was not.
    pub(crate) fn is_lapsing(&self, now: Instant) -> bool {
        let after = self.times.silent_after;
        self.edges.values().any(|edge| !edge.silent && now.saturating_duration_since(edge.heard) >= after)
    }

    /// Lets time pass: returns the edges that became silent, and forgets edges that were silent for long.
    pub(crate) fn sweep(&mut self, now: Instant) -> Vec<(NodeId, Lapse)> {
        let mut lapses = Vec::new();
        let times = self.times;
        self.departed.retain(|_, left| now.saturating_duration_since(*left) < times.named_for);
        self.edges.retain(|id, edge| {
            let quiet = now.saturating_duration_since(edge.heard);
            if quiet >= times.named_for {
                lapses.push((id.clone(), Lapse::Forgotten));
                return false;
            }
            if quiet >= times.silent_after && !edge.silent {
                edge.silent = true;
                lapses.push((id.clone(), Lapse::Silent));
            }
            true
        });
        lapses
    }

    /// How many are known: waited for, and silent.
    pub(crate) fn totals(&self) -> (usize, usize) {
        let silent = self.edges.values().filter(|edge| edge.silent).count();
        (self.edges.len() - silent, silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIMES: Times = Times {
        heartbeat: Duration::from_secs(1),
        silent_after: Duration::from_secs(3),
        named_for: Duration::from_secs(60),
        one_edge: false,
    };
    const UP: BusState = BusState { connected: true, connects: 1 };

    fn heartbeat(edge: &str, state: EdgeState) -> Heartbeat {
        Heartbeat { v: 1, edge: edge.into(), state, sessions: 0, rules: String::new() }
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn who(expected: &Expected) -> (usize, usize) {
        (expected.live.len(), expected.silent.len())
    }

    #[test]
    fn an_edge_is_waited_for_in_every_state_but_bye() {
        let (mut roster, now) = (Roster::new(TIMES), Instant::now());
        for state in [EdgeState::Starting, EdgeState::Serving, EdgeState::Draining] {
            roster.on_heartbeat(&heartbeat("a", state), now);
            assert_eq!(who(&roster.expected(UP, now)), (1, 0), "{state:?}");
        }
        assert_eq!(roster.on_heartbeat(&heartbeat("a", EdgeState::Bye), now), Change::Left);
        assert_eq!(who(&roster.expected(UP, now)), (0, 0));
        assert_eq!(roster.on_sign(&"a".into(), now), Change::None, "a late answer brings nobody back");
        assert_eq!(who(&roster.expected(UP, now)), (0, 0));
    }

    #[test]
    fn a_silent_edge_is_named_for_a_minute_after_its_last_heartbeat() {
        let (mut roster, now) = (Roster::new(TIMES), Instant::now());
        assert_eq!(roster.on_heartbeat(&heartbeat("a", EdgeState::Serving), now), Change::Appeared);
        let at = |time| now + ms(time);
        assert_eq!(roster.sweep(at(2_999)), []);
        assert!(!roster.is_lapsing(at(2_999)) && roster.is_lapsing(at(3_000)));
        assert_eq!(
            who(&roster.expected(UP, at(3_000))),
            (1, 0),
            "nobody looked yet whether something has come"
        );
        assert_eq!(roster.sweep(at(3_000)), [("a".into(), Lapse::Silent)]);
        assert_eq!(who(&roster.expected(UP, at(3_000))), (0, 1));
        assert!(!roster.is_lapsing(at(4_000)));
        assert_eq!(roster.sweep(at(4_000)), [], "it is said once");
        assert_eq!(roster.totals(), (0, 1));
        assert_eq!(roster.sweep(at(59_999)), []);
        assert_eq!(who(&roster.expected(UP, at(59_999))), (0, 1));
        assert_eq!(roster.on_heartbeat(&heartbeat("a", EdgeState::Serving), at(59_999)), Change::Returned);
        assert_eq!(roster.sweep(at(60_000)), []);
        assert_eq!(who(&roster.expected(UP, at(60_000))), (1, 0));
        assert_eq!(roster.sweep(at(119_999)), [("a".into(), Lapse::Forgotten)]);
        assert_eq!(roster.totals(), (0, 0));
    }

    #[test]
    fn an_edge_that_answers_without_having_been_heard_is_remembered() {
        let (mut roster, now) = (Roster::new(TIMES), Instant::now());
        assert_eq!(roster.on_sign(&"new".into(), now), Change::Appeared);
        assert_eq!(who(&roster.expected(UP, now)), (1, 0));
    }

    #[test]
    fn certain_is_only_who_listened_for_an_interval_on_this_connection() {
        let (mut roster, now) = (Roster::new(TIMES), Instant::now());
        let certain = |roster: &Roster, bus, at| roster.expected(bus, now + ms(at)).certain;
        assert!(!certain(&roster, UP, 9_000), "nothing is proved");
        roster.on_proved(1, now);
        assert!(!certain(&roster, UP, 1_249));
        assert!(certain(&roster, UP, 1_250));
        assert!(!certain(&roster, BusState { connected: false, connects: 1 }, 2_000), "the bus is away");
        assert!(!certain(&roster, BusState { connected: true, connects: 2 }, 2_000), "another connection");
        roster.on_proved(2, now + ms(2_000));
        assert!(!certain(&roster, BusState { connected: true, connects: 2 }, 3_249));
        assert!(certain(&roster, BusState { connected: true, connects: 2 }, 3_250));
    }

    #[test]
    fn the_only_edge_that_there_can_be_need_not_be_waited_for() {
        let (mut roster, now) = (Roster::new(Times { one_edge: true, ..TIMES }), Instant::now());
        assert!(!roster.expected(UP, now).certain, "nothing is proved");
        roster.on_proved(1, now);
        assert!(roster.expected(UP, now).nobody());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Heartbeat(u8),
        Sign(u8),
        Bye(u8),
        Wait(u64),
    }

    fn any_steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..4_u8).prop_map(Step::Heartbeat),
            (0..4_u8).prop_map(Step::Sign),
            (0..4_u8).prop_map(Step::Bye),
            (0..40_000_u64).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// Against the definition by last sign and bye.
        #[test]
        fn who_is_expected_follows_from_the_last_sign(steps in any_steps()) {
            let mut roster = Roster::new(TIMES);
            let mut now = Instant::now();
            let mut last: [Option<Instant>; 4] = [None; 4];
            let mut gone: [Option<Instant>; 4] = [None; 4];
            for step in steps {
                match step {
                    Step::Heartbeat(n) | Step::Sign(n) => {
                        let id = format!("e{n}");
                        // A sign of one that said bye is too late, for as long as it is remembered.
                        let late = gone[usize::from(n)].is_some();
                        if matches!(step, Step::Sign(_)) {
                            roster.on_sign(&id.as_str().into(), now);
                        } else {
                            roster.on_heartbeat(&heartbeat(&id, EdgeState::Serving), now);
                        }
                        if !late {
                            last[usize::from(n)] = Some(now);
                        }
                    }
                    Step::Bye(n) => {
                        roster.on_heartbeat(&heartbeat(&format!("e{n}"), EdgeState::Bye), now);
                        last[usize::from(n)] = None;
                        gone[usize::from(n)] = Some(now);
                    }
                    Step::Wait(time) => now += ms(time),
                }
                roster.sweep(now);
                for left in &mut gone {
                    *left = left.filter(|left| now - *left < TIMES.named_for);
                }
                let quiet: Vec<Duration> = last.iter().flatten().map(|heard| now - *heard).collect();
                let live = quiet.iter().filter(|quiet| **quiet < TIMES.silent_after).count();
                let named = quiet.iter().filter(|quiet| **quiet < TIMES.named_for).count();
                prop_assert_eq!(who(&roster.expected(UP, now)), (live, named - live));
                prop_assert_eq!(roster.is_nobody(UP, now), roster.expected(UP, now).nobody());
            }
        }
    }
}
