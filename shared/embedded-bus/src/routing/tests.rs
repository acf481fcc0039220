//! Routing compared with a list that is searched each time, and the memory of the router.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Connection and sid of a subscription.
type Name = (u64, Vec<u8>);

fn by(connection: u64) -> Subscriber<()> {
    Subscriber { connection, target: () }
}

/// The receivers of a message: plain subscriptions, and queue groups with their members.
#[derive(Debug, Default, PartialEq, Eq)]
struct Matched {
    plain: BTreeSet<Name>,
    queues: BTreeMap<Vec<u8>, BTreeSet<Name>>,
}

fn matched(router: &Router<()>, subject: &str) -> Matched {
    let mut found = Matched::default();
    let mut queues = Vec::new();
    let name = |it: &Arc<Subscription<()>>| (it.connection, it.sid.to_vec());
    router.matching(subject.as_bytes(), &mut queues, &mut |it| {
        assert!(found.plain.insert(name(it)), "one subscription was visited twice");
    });
    for (queue, members) in queues {
        assert!(!members.is_empty(), "an empty group was kept");
        for member in members {
            assert!(
                found.queues.entry(queue.to_vec()).or_default().insert(name(member)),
                "a member was seen twice"
            );
        }
    }
    found
}

#[derive(Clone, Debug)]
enum RouterCall {
    Subscribe { connection: u64, pattern: String, queue: Option<String>, sid: String },
    Unsubscribe { connection: u64, sid: String, max: Option<u64> },
    Disconnect(u64),
    Publish(String),
}

#[derive(Debug)]
struct Naive {
    name: Name,
    pattern: String,
    queue: Option<String>,
    delivered: u64,
    max: u64,
}

/// The receivers of a message by the list.
fn naive_matched(list: &[Naive], subject: &str) -> Matched {
    let mut found = Matched::default();
    let hit = |it: &&Naive| {
        subject::is_well_formed(subject.as_bytes())
            && subject::matches(it.pattern.as_bytes(), subject.as_bytes())
    };
    for it in list.iter().filter(hit) {
        match &it.queue {
            None => found.plain.insert(it.name.clone()),
            Some(queue) => {
                found.queues.entry(queue.clone().into_bytes()).or_default().insert(it.name.clone())
            }
        };
    }
    found
}

/// Gives a message to every plain subscription and the first member of each group, in both models.
fn deliver(router: &mut Router<()>, list: &mut Vec<Naive>, subject: &str) {
    let found = matched(router, subject);
    let taking: BTreeSet<Name> = found
        .plain
        .into_iter()
        .chain(found.queues.into_values().filter_map(|group| group.into_iter().next()))
        .collect();
    let mut last = Vec::new();
    let mut queues = Vec::new();
    let mut claim = |it: &Arc<Subscription<()>>| {
        if taking.contains(&(it.connection, it.sid.to_vec())) && it.count_one() == Allowance::Last {
            last.push(Arc::clone(it));
        }
    };
    router.matching(subject.as_bytes(), &mut queues, &mut claim);
    queues.iter().flat_map(|(_, members)| members.iter()).for_each(claim);
    for it in last {
        assert!(router.expire(&it));
        assert!(!router.expire(&it), "it was there twice");
    }
    for it in list.iter_mut().filter(|it| taking.contains(&it.name)) {
        it.delivered += 1;
    }
    list.retain(|it| it.delivered < it.max);
}

fn apply(router: &mut Router<()>, list: &mut Vec<Naive>, step: &RouterCall) {
    match step {
        RouterCall::Subscribe { connection, pattern, queue, sid } => {
            let name = (*connection, sid.clone().into_bytes());
            let queue_bytes = queue.as_ref().map(|queue| queue.as_bytes());
            let fresh = router.subscribe(by(*connection), pattern.as_bytes(), queue_bytes, sid.as_bytes());
            assert_eq!(fresh, !list.iter().any(|it| it.name == name));
            if fresh {
                let (pattern, queue) = (pattern.clone(), queue.clone());
                list.push(Naive { name, pattern, queue, delivered: 0, max: u64::MAX });
            }
        }
        RouterCall::Unsubscribe { connection, sid, max } => {
            let gone = router.unsubscribe(*connection, sid.as_bytes(), *max);
            let name = (*connection, sid.clone().into_bytes());
            let before = list.len();
            if let Some(it) = list.iter_mut().find(|it| it.name == name) {
                it.max = max.unwrap_or(0);
            }
            list.retain(|it| it.delivered < it.max);
            assert_eq!(gone, list.len() < before);
        }
        RouterCall::Disconnect(connection) => {
            let count = list.iter().filter(|it| it.name.0 == *connection).count();
            assert_eq!(router.disconnect(*connection), count);
            list.retain(|it| it.name.0 != *connection);
        }
        RouterCall::Publish(subject) => {
            assert_eq!(matched(router, subject), naive_matched(list, subject), "subject {subject:?}");
            deliver(router, list, subject);
        }
    }
}

fn step() -> impl Strategy<Value = RouterCall> {
    let pattern = "[ab*](\\.[ab*]){0,3}(\\.>)?|>";
    let subject = "[ab*](\\.[ab]){0,4}|a\\.\\.b|a\\.>|\\.a|a\\.";
    let sid = "[1-6]";
    prop_oneof![
        6 => (0..4_u64, pattern, proptest::option::weighted(0.3, "[qr]"), sid)
            .prop_map(|(connection, pattern, queue, sid)| RouterCall::Subscribe { connection, pattern, queue, sid }),
        2 => (0..4_u64, sid, proptest::option::of(1..4_u64))
            .prop_map(|(connection, sid, max)| RouterCall::Unsubscribe { connection, sid, max }),
        1 => (0..4_u64).prop_map(RouterCall::Disconnect),
        8 => subject.prop_map(RouterCall::Publish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn routing_agrees_with_a_naive_matcher(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut router, mut list) = (Router::default(), Vec::new());
        for step in &steps {
            apply(&mut router, &mut list, step);
            for connection in 0..4 {
                let own = list.iter().filter(|it| it.name.0 == connection).count();
                prop_assert_eq!(router.count(connection), own);
            }
        }
        for connection in 0..4 {
            router.disconnect(connection);
        }
        prop_assert!(router.literal.is_empty() && router.wildcard.is_empty() && router.connections.is_empty());
    }
}

#[test]
fn a_group_is_one_even_when_its_members_use_different_patterns() {
    let mut router = Router::default();
    for (sid, pattern) in ["a.b", "a.*", "a.>"].iter().enumerate() {
        router.subscribe(by(sid as u64), pattern.as_bytes(), Some(b"workers"), b"1");
    }
    let found = matched(&router, "a.b");
    assert_eq!(found.queues.len(), 1);
    assert_eq!(found.queues[&b"workers"[..]].len(), 3);
}

#[test]
fn a_second_subscription_with_the_same_sid_changes_nothing() {
    let mut router = Router::default();
    assert!(router.subscribe(by(1), b"a", None, b"7"));
    assert!(!router.subscribe(by(1), b"b", None, b"7"));
    assert!(router.subscribe(by(2), b"b", None, b"7"));
    assert_eq!(matched(&router, "a").plain, [(1, b"7".to_vec())].into());
    assert_eq!(matched(&router, "b").plain, [(2, b"7".to_vec())].into());
}

#[test]
fn a_very_deep_pattern_neither_overflows_the_stack_nor_stays() {
    let mut router = Router::default();
    let deep = "*.".repeat(200_000) + "*";
    router.subscribe(by(1), deep.as_bytes(), None, b"1");
    let subject = "a.".repeat(200_000) + "a";
    assert_eq!(matched(&router, &subject).plain.len(), 1);
    assert_eq!(router.disconnect(1), 1);
    assert!(router.wildcard.is_empty());
}

#[test]
fn many_subscriptions_of_one_connection_to_one_subject_are_removed_quickly() {
    let mut router = Router::default();
    for sid in 0..100_000 {
        router.subscribe(by(1), b"same.subject", None, sid.to_string().as_bytes());
    }
    // With a search per removal these would be 5,000,000,000 steps.
    assert_eq!(router.disconnect(1), 100_000);
    assert!(router.literal.is_empty());
}

#[test]
fn a_subscription_with_a_maximum_gives_exactly_that_many() {
    let mut router = Router::default();
    router.subscribe(by(1), b"a", None, b"1");
    assert!(!router.unsubscribe(1, b"1", Some(2)));
    let mut found = None;
    router.matching(b"a", &mut Vec::new(), &mut |it| found = Some(Arc::clone(it)));
    let subscription = found.unwrap();
    // A second publisher may still see the subscription before it is removed.
    let claims = [Allowance::Granted, Allowance::Last, Allowance::Exhausted, Allowance::Exhausted];
    assert_eq!(claims.map(|_| subscription.count_one()), claims);
    assert!(router.expire(&subscription));
    router.subscribe(by(1), b"a", None, b"1");
    assert!(!router.expire(&subscription), "a new subscription with the same sid was taken for the old one");
}

#[test]
fn patterns_that_come_and_go_leave_no_memory_behind() {
    let mut router = Router::default();
    router.subscribe(by(1), b"stays.*", None, b"0");
    for number in 0..1000 {
        router.subscribe(by(1), format!("user.{number}.*.inbox.>").as_bytes(), None, b"1");
        assert!(router.unsubscribe(1, b"1", None));
    }
    assert!(router.wildcard.capacity() <= 10, "{} nodes for one pattern", router.wildcard.capacity());
    assert_eq!(matched(&router, "stays.here").plain.len(), 1);
}
