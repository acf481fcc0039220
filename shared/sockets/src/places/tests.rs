//! Nobody keeps others out, whatever it does.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn source(last: u8) -> Source {
    IpAddr::from([192, 0, 2, last]).into()
}

async fn is_lost(place: &Place) -> bool {
    tokio::select! {
        biased;
        () = place.lost() => true,
        () = std::future::ready(()) => false,
    }
}

#[tokio::test]
async fn a_source_has_its_bound_and_the_others_have_the_rest() {
    let places = Arc::new(Places::new(4, 2));
    let held = [1, 1, 2].map(|last| places.take(source(last), true, true).unwrap());
    assert_eq!(places.take(source(1), true, true).unwrap_err(), NoPlace::Source);
    let unlimited = places.take(source(1), false, true).unwrap();
    assert_eq!(places.taken(), 4);
    drop((held, unlimited));
    assert!(places.taken() == 0 && places.books().sources.is_empty(), "nothing is left");
}

#[tokio::test]
async fn once_all_are_taken_the_one_with_the_most_yields_its_oldest() {
    let places = Arc::new(Places::new(3, 0));
    let mut greedy: Vec<_> = (0..3).map(|_| places.take(source(1), true, true).unwrap()).collect();
    assert_eq!(places.take(source(1), true, true).unwrap_err(), NoPlace::Full, "not for more of its own");
    let other = places.take(source(2), true, true).unwrap();
    let lost = [is_lost(&greedy[0]).await, is_lost(&greedy[1]).await, is_lost(&greedy[2]).await];
    assert_eq!(lost, [true, false, false]);
    assert_eq!(places.take(source(2), true, true).unwrap_err(), NoPlace::Full, "both would have as many");
    let third = places.take(source(3), true, true).unwrap();
    assert!(is_lost(&greedy[1]).await && !is_lost(&other).await);
    greedy.truncate(2);
    assert_eq!(places.taken(), 2, "places that were taken away free none when their holders end");
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn where_each_has_one_a_newcomer_without_any_takes_what_was_held_for_long() {
    let places = Arc::new(Places::new(3, 0));
    let held = [1, 2, 3].map(|last| places.take(source(last), true, true).unwrap());
    assert_eq!(places.take(source(4), true, true).unwrap_err(), NoPlace::Full, "nobody holds one for long");
    tokio::time::advance(LONG).await;
    assert_eq!(places.take(source(3), true, true).unwrap_err(), NoPlace::Full, "it has one");
    held[0].yields(false);
    let other = places.take(source(4), true, true).unwrap();
    assert_eq!((is_lost(&held[0]).await, is_lost(&held[1]).await), (false, true));
    let waiting = places.wait(source(5)).await.unwrap();
    assert!(is_lost(&held[2]).await);
    assert_eq!(
        places.take(source(6), true, true).unwrap_err(),
        NoPlace::Full,
        "the newcomers hold theirs now"
    );
    drop((held, other, waiting));
    assert_eq!(places.taken(), 0);
}

#[tokio::test]
async fn a_place_that_does_not_yield_stays() {
    let places = Arc::new(Places::new(2, 0));
    let proxy = [(); 2].map(|()| places.take(source(1), false, false).unwrap());
    assert_eq!(places.take(source(2), true, true).unwrap_err(), NoPlace::Full);
    proxy.iter().for_each(|place| place.yields(true));
    proxy[0].yields(false);
    assert_eq!(places.take(source(2), true, true).unwrap_err(), NoPlace::Full, "only one would yield");
    proxy[0].yields(true);
    let _other = places.take(source(2), true, true).unwrap();
    assert!(is_lost(&proxy[0]).await);
}

#[tokio::test]
async fn behind_a_proxy_the_real_source_has_its_own_bound() {
    let places = Arc::new(Places::new(10, 1));
    let proxied = [(); 3].map(|()| places.take(source(1), false, false).unwrap());
    assert_eq!(proxied[0].belongs_to(source(7), true), Ok(()));
    assert_eq!(proxied[0].belongs_to(source(7), true), Ok(()), "that is where it is");
    assert_eq!(proxied[1].belongs_to(source(7), true), Err(NoPlace::Source));
    assert_eq!(proxied[1].belongs_to(source(8), true), Ok(()));
    assert_eq!(proxied[2].belongs_to(source(7), false), Ok(()));
    drop(proxied);
    assert!(places.books().sources.is_empty());
}

#[tokio::test]
async fn whoever_waits_gets_the_next_place_that_is_free() {
    let places = Arc::new(Places::new(1, 2));
    let first = places.take(source(1), true, true).unwrap();
    let mut waiting = Box::pin(places.wait(source(1)));
    assert!(futures_poll(&mut waiting).await.is_none(), "there is none");
    drop(first);
    assert!(futures_poll(&mut waiting).await.is_some_and(|place| place.is_ok()));
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
    Take(u8, bool),
    Move(usize, u8),
    Yields(usize, bool),
    Drop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..6_u8, any::<bool>()).prop_map(|(source, yields)| Step::Take(source, yields)),
        1 => (any::<usize>(), 0..6_u8).prop_map(|(place, source)| Step::Move(place, source)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(place, yields)| Step::Yields(place, yields)),
        2 => any::<usize>().prop_map(Step::Drop),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// A list of who has a place, oldest first, is the model.
    #[test]
    fn the_books_are_right_and_who_has_none_gets_one_where_somebody_has_two(
        most in 1_usize..8, per_source in 1_usize..5, steps in steps(),
    ) {
        let places = Arc::new(Places::new(most, per_source));
        let mut model: Vec<(Place, u8, bool)> = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for step in steps {
            let count = |model: &[(Place, u8, bool)], of: u8| model.iter().filter(|held| held.1 == of).count();
            match step {
                Step::Take(from, yields) => {
                    let (has, full) = (count(&model, from), model.len() >= most);
                    let yielding = |of: u8| model.iter().filter(|held| held.1 == of && held.2).count();
                    let fullest = (0..6).map(yielding).max().unwrap_or(0);
                    let taken = places.take(source(from), true, yields);
                    let expected = if has >= per_source {
                        Some(NoPlace::Source)
                    } else if full && fullest < has + 2 {
                        Some(NoPlace::Full)
                    } else {
                        None
                    };
                    prop_assert_eq!(taken.as_ref().err().copied(), expected);
                    if let Ok(place) = taken {
                        let lost: Vec<_> = model
                            .iter()
                            .enumerate()
                            .filter(|(_, held)| runtime.block_on(is_lost(&held.0)))
                            .map(|(index, _)| index)
                            .collect();
                        prop_assert_eq!(lost.len(), usize::from(full));
                        for index in lost {
                            let (_, of, yielded) = model.remove(index);
                            prop_assert!(yielded && count(&model, of) > has, "the loser has as many");
                        }
                        model.push((place, from, yields));
                    }
                }
                Step::Move(at, to) if !model.is_empty() => {
                    let at = at % model.len();
                    let fits = model[at].1 == to || count(&model, to) < per_source;
                    prop_assert_eq!(model[at].0.belongs_to(source(to), true).is_ok(), fits);
                    if fits {
                        (model[at].1, model[at].2) = (to, true);
                    }
                }
                Step::Yields(at, yields) if !model.is_empty() => {
                    let at = at % model.len();
                    model[at].0.yields(yields);
                    model[at].2 = yields;
                }
                Step::Drop(at) if !model.is_empty() => drop(model.remove(at % model.len())),
                Step::Move(..) | Step::Yields(..) | Step::Drop(_) => {}
            }
            prop_assert_eq!(places.taken(), model.len());
            prop_assert!(model.len() <= most);
        }
        model.clear();
        prop_assert!(places.books().sources.is_empty());
    }
}
