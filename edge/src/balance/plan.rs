//! Decides when an edge has so many more sessions than the others that some should move, and how many may
//! move in a second.
//!
//! Pure: heartbeats and the time come in, numbers come out. Four invariants hold: an edge sends away only
//! what it has above the average of the edges that serve; it waits until no edge comes or goes; it never
//! sends away more than its share of a second; and it stops if sending sessions away makes nothing more even.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::config::{Problems, Span};
use shared::ids::NodeId;
use shared::wire::{EdgeState, Heartbeat};
use tokio::time::Instant;

/// How often a round checks whether sessions should move.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// Edges whose numbers are remembered. Beyond this number a new edge is ignored until another is gone.
const MAX_EDGES: usize = 10_000;
/// A deviation of this many sessions from the average is no reason to begin.
const NOT_WORTH: f64 = 5.0;

/// Sessions that were sent away must be seen at other edges within this time, at least a share of [`WORTH`].
const SEEN_AFTER: Duration = Duration::from_secs(10);
/// The share of the sessions sent away by which the edges must have become more even.
const WORTH: f64 = 1.0 / 8.0;
/// Sessions that must have been sent away before the effect is judged; fewer say nothing.
const SAMPLE: usize = 100;
/// How long no session moves after moves were in vain. The next rest is twice as long, up to
/// [`LONGEST_REST`].
const FIRST_REST: Duration = Duration::from_secs(600);
const LONGEST_REST: Duration = Duration::from_secs(86_400);

/// `[edge.balance]`: how sessions are spread over the edges after one was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct BalanceConfig {
    /// Which sessions may be asked to move.
    pub sessions: Movable,
    /// How long the sessions must have been uneven, with no edge coming or going, before any moves.
    #[serde(with = "Span")]
    pub after: Duration,
    /// By how many percent of the average the sessions of an edge may be above or below it.
    pub tolerance: u32,
    /// How many of 1,000 sessions an edge may ask to move in a second, for any reason but its end.
    pub per_mille_per_second: u32,
    /// How old a connection may become; its client is asked to move at an age from 80 to 100 % of this. 0s:
    /// no limit.
    #[serde(with = "Span")]
    pub max_connection_age: Duration,
}

/// Which sessions may be asked to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Movable {
    /// All; sessions that recover go first, because they lose nothing.
    All,
    /// Only sessions that recover.
    Recovering,
    /// None; connections that are too old are asked all the same.
    None,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            sessions: Movable::All,
            after: Duration::from_secs(30),
            tolerance: 10,
            per_mille_per_second: 5,
            max_connection_age: Duration::ZERO,
        }
    }
}

impl BalanceConfig {
    /// Adds the problems of these values.
    pub fn validate(&self, problems: &mut Problems) {
        problems.check((1..=1_000).contains(&self.tolerance), "edge.balance.tolerance", || {
            "must be from 1 to 1000 (percent of the average)".into()
        });
        problems.check(
            (1..=1_000).contains(&self.per_mille_per_second),
            "edge.balance.per_mille_per_second",
            || "must be from 1 to 1000 (of 1,000 sessions, in a second)".into(),
        );
        problems.check(self.after <= Duration::from_secs(86_400), "edge.balance.after", || {
            "must be at most 1day".into()
        });
        let age = self.max_connection_age;
        let round = Duration::from_secs_f64(1_250.0 / f64::from(self.per_mille_per_second.max(1)));
        let sensible = age.is_zero() || (round..=Duration::from_secs(366 * 86_400)).contains(&age);
        problems.check(sensible, "edge.balance.max_connection_age", || {
            format!(
                "must be 0s (no limit), or from {round:?}, in which edge.balance.per_mille_per_second lets all \
                 sessions go once, to 1year"
            )
        });
    }
}

#[derive(Debug, Clone, Copy)]
struct Other {
    sessions: u64,
    state: EdgeState,
    last_heartbeat: Instant,
}

/// How uneven the edges are, in sessions.
#[derive(Debug, Clone, Copy)]
struct Uneven {
    /// Sessions of this edge above the average.
    above: f64,
    /// Sessions that all edges below the average lack together.
    lacking: f64,
}

/// Sessions sent away since a time, and how uneven the edges were then.
#[derive(Debug, Clone, Copy)]
struct Effort {
    since: Instant,
    before: Uneven,
    given: usize,
}

/// One edge's knowledge of the others, and the decisions that follow from it.
#[derive(Debug)]
pub(super) struct Plan {
    config: BalanceConfig,
    /// The silence after which another edge counts as gone.
    patience: Duration,
    others: HashMap<NodeId, Other>,
    uneven_since: Option<Instant>,
    moving: bool,
    effort: Option<Effort>,
    /// Set after moves were in vain: until then no session is sent away.
    resting: Option<Instant>,
    /// How long the next rest will be.
    rest: Duration,
    /// Sessions that may go now, from 0 to the share of one round.
    allowed: f64,
    last: Instant,
}

impl Plan {
    /// Returns a plan that knows no other edge. `heartbeat`: the interval of the edges' heartbeats.
    pub(super) fn new(config: BalanceConfig, heartbeat: Duration, now: Instant) -> Self {
        let patience = heartbeat.saturating_mul(3);
        Self {
            config,
            patience,
            others: HashMap::new(),
            uneven_since: None,
            moving: false,
            effort: None,
            resting: None,
            rest: FIRST_REST,
            allowed: 0.0,
            last: now,
        }
    }

    /// Takes the heartbeat of another edge.
    pub(super) fn on_heartbeat(&mut self, heartbeat: &Heartbeat, now: Instant) {
        if heartbeat.state == EdgeState::Bye {
            if self.others.remove(&heartbeat.edge).is_some() {
                self.begin_anew();
            }
            return;
        }
        let other = Other { sessions: heartbeat.sessions, state: heartbeat.state, last_heartbeat: now };
        if self.others.len() < MAX_EDGES || self.others.contains_key(&heartbeat.edge) {
            let before = self.others.insert(heartbeat.edge.clone(), other);
            if before.is_none_or(|before| before.state != heartbeat.state) {
                self.begin_anew();
            }
        }
    }

    /// Begins the wait anew, since an edge came or went: earlier numbers are no measure for later ones.
    fn begin_anew(&mut self) {
        self.stop();
        (self.resting, self.rest) = (None, FIRST_REST);
    }

    fn stop(&mut self) {
        (self.uneven_since, self.moving, self.effort) = (None, false, None);
    }

    /// Returns the number of other edges.
    pub(super) fn others(&self) -> usize {
        self.others.len()
    }

    /// Returns how many of `own` sessions are too many here now. `own` leaves out the sessions that are on
    /// their way already.
    pub(super) fn excess(&mut self, own: usize, now: Instant) -> usize {
        let there = self.others.len();
        self.others.retain(|_, other| now.duration_since(other.last_heartbeat) <= self.patience);
        if self.others.len() < there {
            self.begin_anew();
        }
        let calm = self.others.values().all(|other| other.state == EdgeState::Serving);
        if self.others.is_empty() || !calm || self.resting.is_some_and(|until| now < until) {
            self.stop();
            return 0;
        }
        let own = own as f64;
        let lowest = self.others.values().map(|other| other.sessions).min().unwrap_or(0) as f64;
        let all = self.others.values().map(|other| other.sessions as f64).sum::<f64>() + own;
        let average = all / (self.others.len() + 1) as f64;
        let tolerated = average * f64::from(self.config.tolerance) / 100.0;
        let (above, below) = (own - average, average - lowest);
        // An edge that has begun goes on down to half of the tolerance, so that it does not begin again and
        // again.
        let bound = if self.moving { tolerated / 2.0 } else { tolerated.max(NOT_WORTH) };
        // With many edges, a new one lowers the average only a little. So what the new edge lacks counts as
        // much.
        if above <= bound && (below <= bound || above < 1.0) {
            self.stop();
            return 0;
        }
        let since = *self.uneven_since.get_or_insert(now);
        self.moving |= now.duration_since(since) >= self.config.after;
        let lacks = |sessions: f64| (average - sessions).max(0.0);
        let lacking = self.others.values().map(|other| lacks(other.sessions as f64)).sum();
        if !self.moving || self.is_in_vain(Uneven { above, lacking }, own, now) {
            return 0;
        }
        let remaining = if below > tolerated / 2.0 { 0.0 } else { tolerated / 2.0 };
        (above - remaining).max(0.0) as usize
    }

    /// Returns whether the sessions sent away made nothing more even; then no session moves for a while. This
    /// happens where a load balancer brings all clients back, or where an edge gets or takes no connections.
    fn is_in_vain(&mut self, uneven: Uneven, own: f64, now: Instant) -> bool {
        let anew = Effort { since: now, before: uneven, given: 0 };
        let effort = *self.effort.get_or_insert(anew);
        let sample = (own / 50.0).max(SAMPLE as f64);
        if now.duration_since(effort.since) < SEEN_AFTER + self.patience || (effort.given as f64) < sample {
            return false;
        }
        let worth = effort.given as f64 * WORTH;
        // Either improvement is enough: moving sessions from the fullest edge to average edges does not fill
        // the emptiest.
        let better =
            effort.before.above - uneven.above >= worth || effort.before.lacking - uneven.lacking >= worth;
        if better {
            (self.effort, self.rest) = (Some(anew), FIRST_REST);
            return false;
        }
        self.stop();
        self.resting = Some(now + self.rest);
        self.rest = (self.rest * 2).min(LONGEST_REST);
        true
    }

    /// Returns until when no session is sent away because moves were in vain.
    pub(super) fn resting(&self) -> Option<Instant> {
        self.resting
    }

    /// Returns how many sessions may be asked to move now. The caller takes what it uses with [`Plan::take`].
    pub(super) fn allowance(&mut self, own: usize, now: Instant) -> usize {
        let a_second = own as f64 * f64::from(self.config.per_mille_per_second) / 1_000.0;
        let passed = now.duration_since(self.last).as_secs_f64();
        self.last = now;
        // Unused shares are not saved up. If there are few sessions, a share is less than one: then one
        // session goes once the shares add up to it.
        let a_look = a_second * LOOK.as_secs_f64();
        self.allowed = (self.allowed + passed * a_second).min(a_look.max(1.0));
        self.allowed as usize
    }

    /// Takes sessions that were asked to move from the allowance.
    pub(super) fn take(&mut self, moved: usize) {
        self.allowed = (self.allowed - moved as f64).max(0.0);
    }

    /// Notes how many of these moved because there were too many sessions here.
    pub(super) fn gave(&mut self, moved: usize) {
        if let Some(effort) = &mut self.effort {
            effort.given += moved;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn plan(now: Instant) -> Plan {
        Plan::new(BalanceConfig { after: SECOND * 30, ..BalanceConfig::default() }, SECOND, now)
    }

    fn says(plan: &mut Plan, edge: u64, sessions: u64, state: EdgeState, now: Instant) {
        let edge = NodeId::from(format!("{edge:016x}").as_str());
        plan.on_heartbeat(&Heartbeat { v: 1, edge, state, sessions, rules: String::new() }, now);
    }

    #[test]
    fn an_edge_sends_away_what_it_has_above_the_average_once_that_has_lasted() {
        let start = Instant::now();
        let mut plan = plan(start);
        for second in 0..=30 {
            let now = start + SECOND * second;
            says(&mut plan, 1, 0, EdgeState::Serving, now);
            let wanted = if second < 30 { 0 } else { 1_000 };
            assert_eq!(plan.excess(2_000, now), wanted, "second {second}");
        }
        let now = start + SECOND * 31;
        says(&mut plan, 1, 950, EdgeState::Serving, now);
        assert_eq!(plan.excess(1_050, now), 0, "half of what is tolerated is even enough");
        assert_eq!(plan.excess(1_090, now), 0, "and it does not begin again below the tolerance");
    }

    #[test]
    fn nobody_moves_while_an_edge_comes_or_goes_or_when_there_is_none() {
        let start = Instant::now();
        for state in [EdgeState::Starting, EdgeState::Draining] {
            let mut plan = plan(start);
            for second in 0..100 {
                says(&mut plan, 1, 0, EdgeState::Serving, start + SECOND * second);
                says(&mut plan, 2, 5, state, start + SECOND * second);
                assert_eq!(plan.excess(2_000, start + SECOND * second), 0);
            }
            says(&mut plan, 1, 0, EdgeState::Serving, start + SECOND * 100);
            says(&mut plan, 2, 0, EdgeState::Bye, start + SECOND * 100);
            assert_eq!(plan.excess(2_000, start + SECOND * 100), 0, "the wait begins when it is calm");
        }
        let mut plan = plan(start);
        assert_eq!(plan.excess(2_000, start), 0, "there is nobody to move to");
    }

    #[test]
    fn an_edge_that_is_silent_is_not_moved_to() {
        let start = Instant::now();
        let mut plan = plan(start);
        for second in 0..31 {
            says(&mut plan, 1, 0, EdgeState::Serving, start + SECOND * second);
            plan.excess(2_000, start + SECOND * second);
        }
        assert!(plan.excess(2_000, start + SECOND * 31) > 0);
        assert_eq!(plan.excess(2_000, start + SECOND * 60), 0);
        assert_eq!(plan.others(), 0);
    }

    #[test]
    fn an_edge_that_falls_silent_is_one_that_went() {
        let start = Instant::now();
        let mut plan = plan(start);
        for second in 0..=40 {
            let now = start + SECOND * second;
            says(&mut plan, 1, 0, EdgeState::Serving, now);
            if second < 20 {
                says(&mut plan, 2, 2_000, EdgeState::Serving, now);
            }
            assert_eq!(plan.excess(2_000, now), 0, "second {second}: the wait begins when it is missed");
        }
        let now = start + SECOND * 60;
        says(&mut plan, 1, 0, EdgeState::Serving, now);
        assert_eq!(plan.excess(2_000, now), 1_000);
    }

    /// Lets `seconds` pass next to one edge with as many sessions and one with none, where every session that
    /// is sent away comes back. Returns how many were sent away.
    fn in_vain(plan: &mut Plan, second: &mut u32, seconds: u32, start: Instant) -> usize {
        let mut moved = 0;
        for _ in 0..seconds {
            let now = start + SECOND * *second;
            says(plan, 1, 2_000, EdgeState::Serving, now);
            says(plan, 2, 0, EdgeState::Serving, now);
            let moves = plan.excess(2_000, now).min(plan.allowance(2_000, now));
            plan.take(moves);
            plan.gave(moves);
            (moved, *second) = (moved + moves, *second + 1);
        }
        moved
    }

    #[test]
    fn who_moves_in_vain_rests_longer_and_longer_until_somebody_comes() {
        let (start, mut second) = (Instant::now(), 0);
        let mut plan = plan(start);
        let first = in_vain(&mut plan, &mut second, 120, start);
        assert!((SAMPLE..=2 * SAMPLE).contains(&first), "{first}");
        assert_eq!(in_vain(&mut plan, &mut second, 480, start), 0, "it rests");
        let again = in_vain(&mut plan, &mut second, 200, start);
        assert!((SAMPLE..=2 * SAMPLE).contains(&again), "{again}");
        assert_eq!(in_vain(&mut plan, &mut second, 1_000, start), 0, "twice as long");
        says(&mut plan, 3, 2_000, EdgeState::Serving, start + SECOND * second);
        assert!(plan.resting().is_none(), "with another edge it may be worth it");
    }

    #[test]
    fn a_new_edge_beside_many_gets_its_share_though_nobody_is_far_above_the_average() {
        let start = Instant::now();
        let mut plan = plan(start);
        let mut excess = 0;
        for second in 0..=30 {
            let now = start + SECOND * second;
            (1..=9).for_each(|edge| says(&mut plan, edge, 1_000, EdgeState::Serving, now));
            says(&mut plan, 10, 0, EdgeState::Serving, now);
            excess = plan.excess(1_000, now);
        }
        assert_eq!(excess, 90);
    }

    #[test]
    fn a_pace_too_slow_for_the_age_is_refused() {
        let faults = |seconds, per_mille_per_second| {
            let max_connection_age = SECOND * seconds;
            let mut problems = Problems::default();
            BalanceConfig { max_connection_age, per_mille_per_second, ..BalanceConfig::default() }
                .validate(&mut problems);
            problems.into_result(()).is_err()
        };
        assert_eq!(
            (faults(249, 5), faults(250, 5), faults(0, 1), faults(2, 1_000)),
            (true, false, false, false)
        );
    }

    proptest! {
        /// However uneven the edges begin, and wherever moved sessions arrive: no edge goes below the average
        /// by sending away, no second exceeds its share, and in the end all edges are even.
        #[test]
        fn edges_become_even_and_stay_so(
            mut edges in prop::collection::vec(0_usize..5_000, 2..6),
            seed in any::<u64>(),
        ) {
            let (start, mut random) = (Instant::now(), fastrand::Rng::with_seed(seed));
            let config = BalanceConfig { after: SECOND * 2, per_mille_per_second: 50, ..BalanceConfig::default() };
            let mut plans: Vec<_> = edges.iter().map(|_| Plan::new(config.clone(), SECOND, start)).collect();
            let average = edges.iter().sum::<usize>() as f64 / edges.len() as f64;
            let mut moved_late = 0;
            for tick in 1..=1_200_u32 {
                let now = start + SECOND / 4 * tick;
                if tick % 4 == 1 {
                    for (plan, own) in plans.iter_mut().zip(0..) {
                        for (edge, sessions) in edges.iter().enumerate().filter(|(edge, _)| *edge != own) {
                            says(plan, edge as u64, *sessions as u64, EdgeState::Serving, now);
                        }
                    }
                }
                for (own, plan) in plans.iter_mut().enumerate() {
                    let excess = plan.excess(edges[own], now);
                    let moves = excess.min(plan.allowance(edges[own], now));
                    plan.take(moves);
                    plan.gave(moves);
                    prop_assert!(moves <= (edges[own] / 80).max(1), "{moves} of {} in a look", edges[own]);
                    // The numbers of others are up to a second old.
                    prop_assert!(moves == 0 || (edges[own] - moves) as f64 >= average * 0.85 - 1.0);
                    edges[own] -= moves;
                    moved_late += if tick > 1_000 { moves } else { 0 };
                    for _ in 0..moves {
                        let to = random.usize(..edges.len());
                        edges[to] += 1;
                    }
                }
            }
            let bound = (average * 0.15).max(NOT_WORTH + 1.0);
            prop_assert!(edges.iter().all(|one| (*one as f64 - average).abs() <= bound), "{edges:?}");
            prop_assert!(moved_late <= edges.iter().sum::<usize>() / 20, "they move on and on: {moved_late}");
        }
    }

    #[test]
    fn no_second_has_more_than_its_share_and_few_sessions_move_too() {
        let start = Instant::now();
        for (own, seconds, most) in [(2_000, 10, 100), (100_000, 10, 5_000), (20, 100, 10)] {
            let (mut plan, mut moved) = (plan(start), 0);
            for tick in 1..=seconds * 4 {
                let now = start + SECOND / 4 * tick;
                let allowed = plan.allowance(own, now);
                assert!(allowed <= own.div_ceil(200), "{allowed} of {own} at once");
                plan.take(allowed);
                moved += allowed;
            }
            assert!((most - most / 5..=most).contains(&moved), "{moved} of {own} in {seconds} s");
        }
        let mut plan = plan(start);
        assert_eq!(plan.allowance(4_000, start + SECOND * 3_600), 5, "what was not used is not saved up");
    }
}
