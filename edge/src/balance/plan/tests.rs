//! The rounds of edges that spread their sessions.

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
    assert_eq!((faults(249, 5), faults(250, 5), faults(0, 1), faults(2, 1_000)), (true, false, false, false));
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
