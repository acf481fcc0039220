//! Every order of a few events around a group: a session whose user gains and loses the group, with messages,
//! replays, expiry, refreshes and the end of the connection in between.

use super::*;

/// Events after which anything else may follow.
const EVENTS: [&[Step]; 11] = [
    &[Step::Auth, Step::Done(MEMBER)],
    &[Step::Auth, Step::Done(STRANGER)],
    &[Step::Auth],
    &[Step::Done(STRANGER)],
    &[Step::Publish(GROUP)],
    &[Step::Expire],
    &[Step::Refresh(false)],
    &[Step::Deliver(1 << 20)],
    &[Step::Write(1 << 20)],
    &[Step::Read(1)],
    &[Step::Unsubscribe(NAME)],
];
/// The outcomes of a token check: the same user, with the group and without.
const MEMBER: u8 = 7;
const STRANGER: u8 = 7 + 16;
/// `@group/vip` among the names, and its channel among the channels.
const NAME: usize = 5;
const GROUP: usize = 4;
/// So many events follow each other.
const LENGTH: u32 = 4;

/// Ways to begin: plain, with ids from now on, and in the middle of a replay.
fn beginnings() -> [Vec<Step>; 3] {
    let subscribed = |by: Step| {
        let published = (0..3).map(|_| Step::Publish(GROUP));
        let login = [Step::Auth, Step::Done(MEMBER)];
        login.into_iter().chain(published).chain([by, Step::Done(MEMBER)]).collect()
    };
    [
        subscribed(Step::Plain(NAME)),
        subscribed(Step::WithIds(NAME, None)),
        subscribed(Step::WithIds(NAME, Some(2))),
    ]
}

/// Returns the sequence of events that has this number.
fn sequence(number: usize) -> impl Iterator<Item = Step> {
    let digits = (0..LENGTH).map(move |digit| number / EVENTS.len().pow(digit) % EVENTS.len());
    digits.flat_map(|event| EVENTS[event].to_vec())
}

#[test]
fn in_every_order_of_events_only_a_member_is_sent_what_is_for_the_group() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rest = Drain::new();
    let (deps, hub) = runtime.block_on(deps(patient(), &mut Registry::default(), &rest));
    let mut messages = 0;
    for beginning in beginnings() {
        for number in 0..EVENTS.len().pow(LENGTH) {
            let steps: Vec<_> = beginning.iter().cloned().chain(sequence(number)).collect();
            let mut world = World::new(&deps, &hub);
            world.run(steps.iter().cloned());
            messages += world.end(&runtime).unwrap_or_else(|failure| panic!("{failure} after {steps:?}"));
        }
    }
    let told = deps.metrics.ended_memberships.get();
    assert!(messages > 10_000 && told > 1_000, "{messages} messages and {told} ends show too little");
    runtime.block_on(async { assert_eq!(rest.finish(20 * SECOND).await, 0) });
}
