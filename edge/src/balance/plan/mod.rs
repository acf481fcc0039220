//! Decides when an edge has so many more sessions than the others that some should move, and how many may
//! move in a second.
//!
//! Pure: heartbeats and the time come in, numbers come out. Four invariants hold: an edge sends away only
//! what it has above the average of the edges that serve; it waits until no edge comes or goes; it never
//! sends away more than its share of a second; and it stops if sending sessions away makes nothing more even.

#[cfg(test)]
mod tests;

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
