//! The fate of tasks and drains when a task ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const GRACE: Duration = Duration::from_secs(5);

fn ends(drain: &Drain) -> String {
    let mut registry = Registry::default();
    drain.register(&mut registry);
    let (_, text) = crate::metrics::render(&registry, "*/*").unwrap();
    text.lines()
        .filter(|line| line.starts_with("mc_task_ends_total"))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn finishing_waits_for_the_tasks_but_not_longer_than_the_grace() {
    let drain = Drain::new();
    let polite = drain.clone();
    drain.spawn("one", async move { polite.begun().await });
    assert_eq!(drain.finish(GRACE).await, 0);

    let drain = Drain::new();
    drain.spawn("one", std::future::pending::<()>());
    assert_eq!(drain.finish(GRACE).await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_panic_of_one_of_many_ends_nothing_else_and_is_counted() {
    let drain = Drain::new();
    drain.spawn("one", async { panic!("on purpose") });
    drain.spawn("other", async {});
    drain.spawn("still there", drain.token().cancelled_owned());
    while drain.tasks() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!((drain.failure(), drain.has_begun()), (None, false));
    assert_eq!(ends(&drain), "mc_task_ends_total{task=\"one\",how=\"panicked\"} 1\n");
    assert_eq!(drain.finish(GRACE).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_that_leaves_something_half_changed_makes_the_process_leave() {
    let drain = Drain::new();
    let half = Arc::new(std::sync::Mutex::new(()));
    let (broken, seen) = (Arc::clone(&half), Arc::clone(&half));
    drain.on_panic(move || seen.is_poisoned().then_some("the books"));
    drain.spawn("harmless", async { panic!("on purpose") });
    drain.spawn("harmful", async move {
        let _guard = broken.lock();
        panic!("on purpose");
    });
    drain.begun().await;
    let failure = drain.failure().unwrap().to_string();
    assert!(failure.contains("harmful") && failure.contains("the books"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_vital_task_that_ends_makes_the_process_leave_whichever_drain_it_is_on() {
    for panics in [true, false] {
        let process = Drain::new();
        let part = process.beside();
        part.spawn_vital("feed", async move { assert!(!panics, "on purpose") });
        process.begun().await;
        assert!(!part.has_begun(), "whoever leads the process says in which order its drains begin");
        let failure = process.failure().unwrap().to_string();
        let how = if panics { "panicked" } else { "returned" };
        assert!(failure.contains("\"feed\"") && failure.contains(how), "{failure}");
        assert_eq!(ends(&part), format!("mc_task_ends_total{{task=\"feed\",how=\"{how}\"}} 1\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_must_not_stop_halfway_may_end_but_not_panic() {
    let drain = Drain::new();
    drain.spawn_whole("fetch", async {});
    while drain.tasks() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((drain.failure(), ends(&drain)), (None, String::new()));
    drain.spawn_whole("fetch", async { panic!("on purpose") });
    drain.begun().await;
    assert!(drain.failure().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_supervised_task_goes_on_with_its_state_and_is_given_up_at_last() {
    let (drain, runs) = (Drain::new(), Arc::new(AtomicUsize::new(0)));
    drain.supervise("keeper", Arc::clone(&runs), |runs| {
        Box::pin(async {
            runs.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose");
        })
    });
    let began = Instant::now();
    drain.begun().await;
    assert_eq!(runs.load(Ordering::Relaxed), 5);
    assert_eq!(began.elapsed().as_millis() / 10, (100 + 200 + 400 + 800) / 10);
    assert_eq!(ends(&drain), "mc_task_ends_total{task=\"keeper\",how=\"panicked\"} 5\n");
    assert!(drain.failure().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_useful_task_is_begun_anew_however_often_it_ends_and_leaving_is_no_end() {
    let (drain, runs) = (Drain::new(), Arc::new(AtomicUsize::new(0)));
    let state = (Arc::clone(&runs), drain.clone());
    drain.supervise_useful("balance", state, |(runs, drain)| {
        Box::pin(async {
            if runs.fetch_add(1, Ordering::Relaxed) < 20 {
                panic!("on purpose");
            }
            drain.begun().await;
        })
    });
    while runs.load(Ordering::Relaxed) < 21 {
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(drain.finish(GRACE).await, 0);
    assert_eq!(drain.failure(), None);
    assert_eq!(ends(&drain), "mc_task_ends_total{task=\"balance\",how=\"panicked\"} 20\n");
}

#[tokio::test(start_paused = true)]
async fn what_ends_because_the_process_leaves_is_no_loss() {
    let process = Drain::new();
    let part = process.beside();
    let leaving = process.token();
    part.spawn_vital("vital", leaving.clone().cancelled_owned());
    part.supervise("supervised", leaving, |leaving| Box::pin(leaving.cancelled()));
    process.begin();
    assert_eq!(part.finish(GRACE).await, 0);
    assert_eq!((process.failure(), ends(&process)), (None, String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_test_can_make_a_task_panic_in_a_debug_build_only() {
    let drain = Drain::new();
    drain.spawn_vital("feed", drain.token().cancelled_owned());
    tokio::task::yield_now().await;
    assert!(!drain.kill("none"));
    assert_eq!(drain.kill("feed"), cfg!(debug_assertions));
    if cfg!(debug_assertions) {
        drain.begun().await;
        assert!(drain.failure().unwrap().to_string().contains("a test made"));
    }
}
