//! Nobody keeps others out, whatever it does.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn source(last: u8) -> Source {
    IpAddr::from([192, 0, 2, last]).into()
}

async fn is_lost(slot: &Slot) -> bool {
    tokio::select! {
        biased;
        () = slot.lost() => true,
        () = std::future::ready(()) => false,
    }
}

#[tokio::test]
async fn a_source_has_its_bound_and_the_others_have_the_rest() {
    let slots = Arc::new(Slots::new(4, 2));
    let held = [1, 1, 2].map(|last| slots.take(source(last), true, Claim::Idle).unwrap());
    assert_eq!(slots.take(source(1), true, Claim::Idle).unwrap_err(), NoSlot::Source);
    let unlimited = slots.take(source(1), false, Claim::Idle).unwrap();
    assert_eq!(slots.taken(), 4);
    drop((held, unlimited));
    assert!(slots.taken() == 0 && slots.books().sources.is_empty(), "nothing is left");
}

#[tokio::test]
async fn once_all_are_taken_the_one_with_the_most_yields_its_oldest() {
    let slots = Arc::new(Slots::new(3, 0));
    let mut greedy: Vec<_> = (0..3).map(|_| slots.take(source(1), true, Claim::Idle).unwrap()).collect();
    assert_eq!(
        slots.take(source(1), true, Claim::Idle).unwrap_err(),
        NoSlot::Full,
        "not for more of its own"
    );
    let other = slots.take(source(2), true, Claim::Idle).unwrap();
    let lost = [is_lost(&greedy[0]).await, is_lost(&greedy[1]).await, is_lost(&greedy[2]).await];
    assert_eq!(lost, [true, false, false]);
    assert_eq!(
        slots.take(source(2), true, Claim::Idle).unwrap_err(),
        NoSlot::Full,
        "both would have as many"
    );
    let third = slots.take(source(3), true, Claim::Idle).unwrap();
    assert!(is_lost(&greedy[1]).await && !is_lost(&other).await);
    greedy.truncate(2);
    assert_eq!(slots.taken(), 2, "slots that were taken away free none when their holders end");
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn where_each_has_one_a_newcomer_without_any_takes_what_was_held_for_long() {
    let slots = Arc::new(Slots::new(3, 0));
    let held = [1, 2, 3].map(|last| slots.take(source(last), true, Claim::Idle).unwrap());
    assert_eq!(
        slots.take(source(4), true, Claim::Idle).unwrap_err(),
        NoSlot::Full,
        "nobody holds one for long"
    );
    tokio::time::advance(LONG).await;
    assert_eq!(slots.take(source(3), true, Claim::Idle).unwrap_err(), NoSlot::Full, "it has one");
    held[0].claim(Claim::Firm);
    let other = slots.take(source(4), true, Claim::Idle).unwrap();
    assert_eq!((is_lost(&held[0]).await, is_lost(&held[1]).await), (false, true));
    let waiting = slots.wait(source(5)).await.unwrap();
    assert!(is_lost(&held[2]).await);
    assert_eq!(
        slots.take(source(6), true, Claim::Idle).unwrap_err(),
        NoSlot::Full,
        "the newcomers hold theirs now"
    );
    drop((held, other, waiting));
    assert_eq!(slots.taken(), 0);
}

#[tokio::test]
async fn a_place_that_does_not_yield_stays() {
    let slots = Arc::new(Slots::new(2, 0));
    let proxy = [(); 2].map(|()| slots.take(source(1), false, Claim::Firm).unwrap());
    assert_eq!(slots.take(source(2), true, Claim::Idle).unwrap_err(), NoSlot::Full);
    proxy.iter().for_each(|slot| slot.claim(Claim::Idle));
    proxy[0].claim(Claim::Firm);
    assert_eq!(slots.take(source(2), true, Claim::Idle).unwrap_err(), NoSlot::Full, "only one would yield");
    proxy[0].claim(Claim::Idle);
    let _other = slots.take(source(2), true, Claim::Idle).unwrap();
    assert!(is_lost(&proxy[0]).await);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_yields_to_its_own_source_and_who_was_of_use_does_not() {
    let slots = Arc::new(Slots::new(9, 3));
    let held =
        [Claim::Idle, Claim::Begun, Claim::Silent].map(|claim| slots.take(source(1), true, claim).unwrap());
    assert_eq!(slots.take(source(1), true, Claim::Firm).unwrap_err(), NoSlot::Source, "not for long");
    tokio::time::advance(SILENCE).await;
    let next = slots.take(source(1), true, Claim::Firm).unwrap();
    assert!(is_lost(&held[2]).await, "it is silent");
    assert_eq!(slots.take(source(1), true, Claim::Silent).unwrap_err(), NoSlot::Source, "not for long");
    tokio::time::advance(LONG).await;
    let last = slots.take(source(1), true, Claim::Firm).unwrap();
    assert!(is_lost(&held[1]).await, "nothing of use came for long");
    tokio::time::advance(LONG).await;
    assert_eq!(slots.take(source(1), true, Claim::Silent).unwrap_err(), NoSlot::Source, "it was of use");
    drop((held, next, last));
    assert_eq!(slots.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_takes_an_idle_place_of_its_own_source_and_keeps_nobody_waiting_behind() {
    let slots = Arc::new(Slots::new(4, 0));
    let greedy = [1, 2, 1, 2].map(|last| slots.take(source(last), true, Claim::Idle).unwrap());
    tokio::time::advance(LONG).await;
    assert_eq!(slots.take(source(1), true, Claim::Silent).unwrap_err(), NoSlot::Full, "it does not wait");
    let next = slots.wait(source(1)).await.unwrap();
    assert!(is_lost(&greedy[0]).await, "the oldest of its own");
    tokio::time::advance(SILENCE).await;
    let last = slots.take(source(1), true, Claim::Silent).unwrap();
    assert!(is_lost(&next).await, "the silent one of its own");
    drop((greedy, next, last));
    assert_eq!(slots.taken(), 0);
}

#[tokio::test]
async fn behind_a_proxy_the_real_source_has_its_own_bound() {
    let slots = Arc::new(Slots::new(10, 1));
    let proxied = [(); 3].map(|()| slots.take(source(1), false, Claim::Firm).unwrap());
    assert_eq!(proxied[0].belongs_to(source(7), true), Ok(()));
    assert_eq!(proxied[0].belongs_to(source(7), true), Ok(()), "that is where it is");
    assert_eq!(proxied[1].belongs_to(source(7), true), Err(NoSlot::Source));
    assert_eq!(proxied[1].belongs_to(source(8), true), Ok(()));
    assert_eq!(proxied[2].belongs_to(source(7), false), Ok(()));
    drop(proxied);
    assert!(slots.books().sources.is_empty());
}

#[tokio::test]
async fn whoever_waits_gets_the_next_place_that_is_free() {
    let slots = Arc::new(Slots::new(1, 2));
    let first = slots.take(source(1), true, Claim::Idle).unwrap();
    let mut waiting = Box::pin(slots.wait(source(1)));
    assert!(futures_poll(&mut waiting).await.is_none(), "there is none");
    drop(first);
    assert!(futures_poll(&mut waiting).await.is_some_and(|slot| slot.is_ok()));
}

async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = tokio::task::yield_now() => None,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Take(u8, Claim),
    Move(usize, u8),
    Claim(usize, Claim),
    Drop(usize),
}

fn claims() -> impl Strategy<Value = Claim> {
    prop::sample::select(vec![Claim::Silent, Claim::Begun, Claim::Idle, Claim::Firm])
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..6_u8, claims()).prop_map(|(source, claim)| Step::Take(source, claim)),
        1 => (any::<usize>(), 0..6_u8).prop_map(|(slot, source)| Step::Move(slot, source)),
        1 => (any::<usize>(), claims()).prop_map(|(slot, claim)| Step::Claim(slot, claim)),
        2 => any::<usize>().prop_map(Step::Drop),
    ];
    prop::collection::vec(step, 1..120)
}

type Model = Vec<(Slot, u8, Claim)>;

/// The outcome for a newcomer; none of the slots is held for long.
fn expected(model: &Model, from: u8, most: usize, per_source: usize) -> Option<NoSlot> {
    let has = model.iter().filter(|held| held.1 == from).count();
    let yielding = |of: u8| model.iter().filter(|held| held.1 == of && held.2 != Claim::Firm).count();
    let fullest = (0..6).map(yielding).max().unwrap_or(0);
    if has >= per_source {
        Some(NoSlot::Source)
    } else if model.len() >= most && fullest < has + 2 {
        Some(NoSlot::Full)
    } else {
        None
    }
}

proptest! {
    /// A list of who has a slot, oldest first, is the model.
    #[test]
    fn the_books_are_right_and_who_has_none_gets_one_where_somebody_has_two(
        most in 1_usize..8, per_source in 1_usize..5, steps in steps(),
    ) {
        let slots = Arc::new(Slots::new(most, per_source));
        let mut model: Model = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for step in steps {
            let count = |model: &Model, of: u8| model.iter().filter(|held| held.1 == of).count();
            match step {
                Step::Take(from, claim) => {
                    let (has, replaces) = (count(&model, from), model.len() >= most);
                    let expected = expected(&model, from, most, per_source);
                    let taken = slots.take(source(from), true, claim);
                    prop_assert_eq!(taken.as_ref().err().copied(), expected);
                    if let Ok(slot) = taken {
                        let lost: Vec<_> = model
                            .iter()
                            .enumerate()
                            .filter(|(_, held)| runtime.block_on(is_lost(&held.0)))
                            .map(|(index, _)| index)
                            .collect();
                        prop_assert_eq!(lost.len(), usize::from(replaces));
                        for index in lost {
                            let (_, of, claim) = model.remove(index);
                            let has_more = count(&model, of) > has;
                            prop_assert!(claim != Claim::Firm && has_more, "the loser has as many");
                        }
                        model.push((slot, from, claim));
                    }
                }
                Step::Move(at, to) if !model.is_empty() => {
                    let at = at % model.len();
                    let fits = model[at].1 == to || count(&model, to) < per_source;
                    prop_assert_eq!(model[at].0.belongs_to(source(to), true).is_ok(), fits);
                    if fits {
                        (model[at].1, model[at].2) = (to, Claim::Idle);
                    }
                }
                Step::Claim(at, claim) if !model.is_empty() => {
                    let at = at % model.len();
                    model[at].0.claim(claim);
                    model[at].2 = claim;
                }
                Step::Drop(at) if !model.is_empty() => drop(model.remove(at % model.len())),
                Step::Move(..) | Step::Claim(..) | Step::Drop(_) => {}
            }
            prop_assert_eq!(slots.taken(), model.len());
            prop_assert!(model.len() <= most);
        }
        model.clear();
        prop_assert!(slots.books().sources.is_empty());
    }
}
