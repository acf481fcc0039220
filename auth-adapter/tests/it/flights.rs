//! One flight per token, and bounds on calls and on questions.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::bus::RequestError;
use shared::wire::Verdict;
use tokio::sync::Notify;

use crate::support::{Rig, Script, eventually, known, unavailable};

fn tokens(questions: usize, tokens: usize) -> Vec<String> {
    (0..questions).map(|question| format!("user-{}", question % tokens + 1)).collect()
}

#[tokio::test]
async fn ten_thousand_questions_about_a_hundred_tokens_are_a_hundred_calls() {
    let rig = Rig::with(|config| config.max_waiting = 10_000).await;
    rig.business.hold();
    let tokens = tokens(10_000, 100);
    let answers = rig.ask_all(&tokens);
    let all_in_flight = async {
        eventually("all wait", async || rig.adapter.metric("mc_auth_waiting") == 10_000).await;
        eventually("all calls are there", async || rig.business.in_flight() == 100).await;
        rig.business.open();
    };
    let (answers, ()) = tokio::join!(answers, all_in_flight);
    for (token, answer) in tokens.iter().zip(&answers) {
        assert_eq!(*answer, known(token.strip_prefix("user-").unwrap()));
    }
    assert_eq!(rig.business.call_count(), 100);
    assert!(tokens[..100].iter().all(|token| rig.business.calls_for(token) == 1));
    assert_eq!(rig.adapter.metric("mc_auth_waiting"), 0);
    rig.end().await;
}

#[tokio::test]
async fn calls_under_way_never_exceed_their_bound() {
    let rig = Rig::with(|config| config.max_in_flight = 8).await;
    rig.business.hold();
    let tokens = tokens(300, 300);
    let answers = rig.ask_all(&tokens);
    let full = async {
        eventually("all wait", async || rig.adapter.metric("mc_auth_waiting") == 300).await;
        eventually("all places are taken", async || rig.business.in_flight() == 8).await;
        rig.business.open();
    };
    let (answers, ()) = tokio::join!(answers, full);
    let users: BTreeSet<_> = answers.iter().map(|answer| format!("{answer:?}")).collect();
    assert!(users.len() == 300 && answers.iter().all(|a| matches!(a, Verdict::Known(_))), "{answers:?}");
    assert_eq!((rig.business.call_count(), rig.business.most_in_flight()), (300, 8));
    rig.end().await;
}

#[tokio::test]
async fn a_check_that_gets_no_turn_in_time_is_no_answer() {
    let rig = Rig::with(|config| {
        config.max_in_flight = 1;
        config.deadline = Duration::from_millis(200);
    })
    .await;
    rig.business.hold();
    let asked = tokens(3, 3);
    let answers = rig.ask_all(&asked).await;
    // The second call may begin when the first gives up, at its deadline. So the third, or even the second,
    // gets no turn in time.
    let reasons: Vec<_> = answers.iter().map(unavailable).collect();
    assert!(reasons.iter().any(|reason| reason.contains("could begin within 200ms")), "{reasons:?}");
    assert!(rig.adapter.metric("mc_auth_drops_total{reason=\"no_call_in_time\"}") >= 1);
    assert_eq!(rig.business.most_in_flight(), 1);
    rig.end().await;
}

#[tokio::test]
async fn questions_beyond_the_bound_are_turned_away_at_once() {
    let rig = Rig::with(|config| config.max_waiting = 10).await;
    rig.business.hold();
    let waiting = tokens(10, 10);
    let turned_away = async {
        eventually("all places are taken", async || rig.adapter.metric("mc_auth_waiting") == 10).await;
        let verdict = rig.edge.ask("user-11").await;
        assert!(unavailable(&verdict).contains("too many questions"), "{verdict:?}");
        assert_eq!(rig.adapter.metric("mc_auth_drops_total{reason=\"too_many_waiting\"}"), 1);
        rig.business.open();
    };
    let (answers, ()) = tokio::join!(rig.ask_all(&waiting), turned_away);
    assert!(answers.iter().all(|answer| matches!(answer, Verdict::Known(_))), "{answers:?}");
    assert_eq!(rig.edge.ask("user-11").await, known("11"));
    rig.end().await;
}

#[tokio::test]
async fn an_edge_that_gives_up_cancels_nothing_for_the_others() {
    let rig = Rig::start().await;
    rig.business.hold();
    let gave_up = Notify::new();
    let others = async {
        eventually("the flight has begun", async || rig.business.in_flight() == 1).await;
        let stays = rig.edge.ask("user-1");
        let opens = async {
            eventually("both wait", async || rig.adapter.metric("mc_auth_waiting") == 2).await;
            gave_up.notified().await;
            rig.business.open();
        };
        tokio::join!(stays, opens).0
    };
    let first = async {
        let answer = rig.edge.ask_within("user-1", Duration::from_millis(50)).await;
        gave_up.notify_one();
        answer
    };
    let (first, stayed) = tokio::join!(first, others);
    assert_eq!((first, stayed), (Err(RequestError::Timeout), known("1")));
    assert_eq!(rig.business.call_count(), 1);
    rig.end().await;
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_waited_and_remembered_for_nobody() {
    let rig = Rig::start().await;
    rig.business.hold();
    rig.business.follow(Script::Says(503, String::new()));
    let same = vec!["user-1".to_owned(); 50];
    let fail = async {
        eventually("all wait", async || rig.adapter.metric("mc_auth_waiting") == 50).await;
        eventually("the call is there", async || rig.business.in_flight() == 1).await;
        rig.business.open();
    };
    let (answers, ()) = tokio::join!(rig.ask_all(&same), fail);
    for answer in &answers {
        assert!(unavailable(answer).contains("503"), "{answer:?}");
    }
    assert_eq!(rig.business.call_count(), 1);
    rig.business.follow(Script::Honest);
    assert_eq!(rig.edge.ask("user-1").await, known("1"));
    assert_eq!(rig.business.call_count(), 2);
    rig.end().await;
}

#[tokio::test]
async fn a_question_whose_edge_gave_up_before_its_turn_is_neither_asked_nor_answered() {
    let rig = Rig::with(|config| config.max_in_flight = 1).await;
    rig.business.hold();
    let late = async {
        eventually("the only place is taken", async || rig.business.in_flight() == 1).await;
        let patience = Duration::from_millis(100);
        assert_eq!(rig.edge.ask_within("user-2", patience).await, Err(RequestError::Timeout));
        let dropped = "mc_auth_drops_total{reason=\"edge_gave_up\"}";
        eventually("it is dropped", async || rig.adapter.metric(dropped) == 1).await;
        assert_eq!(rig.adapter.metric("mc_auth_waiting"), 1);
        rig.business.open();
    };
    let (first, ()) = tokio::join!(rig.edge.ask("user-1"), late);
    assert_eq!(first, known("1"));
    assert_eq!(rig.business.call_count(), 1, "the late one was never asked about");
    assert_eq!(rig.edge.ask("user-2").await, known("2"));
    rig.end().await;
}

#[tokio::test]
async fn a_flight_from_before_a_refresh_is_not_joined_and_the_next_serves_all() {
    let rig = Rig::start().await;
    rig.business.hold();
    let ask = async |newer_than| rig.edge.ask_newer("user-1", newer_than).await;
    let in_flight = async |calls| {
        eventually("the business system is asked", async || rig.business.in_flight() == calls).await;
    };
    let waiting = "mc_auth_waiting";
    let all_wait = async |questions| {
        eventually("they wait", async || rig.adapter.metric(waiting) == questions).await;
    };
    let early = ask(None);
    let late = async {
        in_flight(1).await;
        let others = async {
            in_flight(2).await;
            let joined = async {
                all_wait(5).await;
                rig.business.open();
            };
            tokio::join!(ask(Some(7)), ask(None), ask(Some(6)), joined)
        };
        tokio::join!(ask(Some(7)), others)
    };
    let (early, (first, (second, third, fourth, ()))) = tokio::join!(early, late);
    assert!([early, first, second, third, fourth].into_iter().all(|answer| answer == known("1")));
    assert_eq!(rig.business.call_count(), 2);
    rig.end().await;
}
