//! Background tasks that die: logged, counted, and restarted; or the process leaves so that it is restarted.

use std::collections::BTreeSet;

use harness::alone::Alone;
use harness::raw;
use harness::wait::eventually;

/// Loops that restart with their state.
const BEGUN_ANEW: [&str; 20] = [
    "admin-port",
    "auth-heartbeats",
    "auth-readiness",
    "awake",
    "bus-store-readiness",
    "configuration",
    "edge-adapters",
    "edge-answers",
    "edge-balance",
    "edge-bans",
    "edge-heartbeats",
    "edge-listener",
    "edge-orders",
    "edge-proof",
    "edge-readiness",
    "history-keeper",
    "publisher-heartbeats",
    "publisher-history-readiness",
    "publisher-listener",
    "reload",
];
/// Loops that restart with their state, for publishers' keys.
const KEYS: [&str; 3] = ["publisher-keys", "publisher-keys-file", "publisher-readiness"];
/// Tasks without which the process leaves. The stream tasks run on a thread of the bus.
const NEEDED: [&str; 10] = [
    "auth-questions",
    "bus-client",
    "bus-server",
    "bus-streams",
    "edge-feed",
    "edge-intake",
    "edge-leave",
    "edge-sweep",
    "publisher-receipts",
    "signals",
];

async fn start() -> Alone {
    let mut alone = Alone::plan().in_memory().set("edge.drain_window", "1s").start().await;
    alone.program.expect_errors();
    alone
}

/// Makes a task panic; the tested build is a debug build.
async fn kill(alone: &Alone, task: &str) {
    let (admin, path) = (alone.admin(), format!("/debug/tasks/{task}/panic"));
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(raw::exchange(admin, request.as_bytes()).await.status, 204, "{task} is there");
}

async fn ends(alone: &Alone, task: &str) -> f64 {
    alone.metric("mc_task_ends_total", &format!("task=\"{task}\",how=\"panicked\"")).await
}

#[tokio::test]
async fn every_loop_that_dies_is_counted_and_begun_anew_and_message_center_goes_on() {
    let alone = start().await;
    let there: BTreeSet<_> =
        raw::get(alone.admin(), "/debug/tasks").await.body.lines().map(str::to_owned).collect();
    let known = BEGUN_ANEW.iter().chain(&KEYS).chain(&NEEDED).map(|task| (*task).to_owned()).collect();
    assert_eq!(there, known, "each task is in one of the lists");
    for task in BEGUN_ANEW.into_iter().chain(KEYS) {
        kill(&alone, task).await;
        eventually(&format!("the end of {task} is counted"), async || ends(&alone, task).await == 1.0).await;
    }
    alone.ready().await;
    let (mut device, _) = alone.begin().await;
    alone.publish(1, 0..3).await;
    device.expect_messages(["0", "1", "2"]).await;
    device.close().await;
    let log = alone.program.stderr();
    let told = log.lines().filter(|line| line.contains("ended and is begun anew")).count();
    assert_eq!(told, BEGUN_ANEW.len() + KEYS.len());
    alone.end().await;
}

#[tokio::test]
async fn a_loop_that_dies_again_and_again_ends_the_process_with_an_exit_code_and_a_reason() {
    let mut alone = start().await;
    for times in 1..=4 {
        kill(&alone, "edge-bans").await;
        eventually("its end is counted", async || ends(&alone, "edge-bans").await == f64::from(times)).await;
    }
    kill(&alone, "edge-bans").await;
    assert_eq!(alone.program.exit().await.code(), Some(1));
    assert!(alone.program.stderr().contains("the task \"edge-bans\" panicked and is needed"));
}

#[tokio::test]
async fn when_a_task_dies_that_is_needed_the_process_leaves_in_order_and_exits_with_1() {
    for task in NEEDED {
        let mut alone = start().await;
        let (mut device, _) = alone.begin().await;
        kill(&alone, task).await;
        let code = alone.program.exit().await.code();
        let log = alone.program.stderr();
        assert_eq!(code, Some(1), "{task}");
        let lost = if task == "bus-streams" { "bus-server" } else { task };
        assert!(
            log.contains(&format!("the task \\\"{lost}\\\""))
                || log.contains(&format!("the task \"{lost}\""))
        );
        assert!(log.contains("this process needs"), "{task}");
        if task == "edge-feed" {
            // The device may open its next connection first, as with any leaving edge.
            let told = device.next_json().await;
            assert_eq!(told["event"], "@reconnect", "{told}");
            device.expect_close(1012).await;
        }
    }
}
