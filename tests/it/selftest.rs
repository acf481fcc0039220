//! `message-center probe` and `message-center selftest` against the parts as processes, healthy and not.

use harness::fleet::{Fleet, Over};
use harness::program::{Finished, Launch};

const RULES: &str = r#"[{ name = "@user", channel = "user:{uid}", login = true, history = true },
    { name = "@selftest/{id}", channel = "selftest:{id}", login = false, history = true }]"#;

async fn selftest(fleet: &Fleet, arguments: &[&str]) -> Finished {
    let publisher = fleet.publishers[0].address.expect("it listens");
    let launch = Launch::of("selftest")
        .argument("--edge")
        .argument(&format!("ws://{}/message-center", fleet.edge(0)))
        .argument("--publisher")
        .argument(&format!("http://{publisher}"));
    arguments.iter().fold(launch, |launch, argument| launch.argument(argument)).run().await
}

#[tokio::test]
async fn the_self_test_receives_what_it_publishes_and_recovers_what_it_missed() {
    let fleet = Fleet::plan(Over::Bus).set("channels", RULES).start().await;
    for arguments in [vec![], vec!["--token", "user-7", "--user", "7"]] {
        let ended = selftest(&fleet, &arguments).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        for step in
            ["published over REST", "received on the WebSocket", "recovered what was missed", "has passed"]
        {
            assert!(ended.stdout.contains(step), "{step}: {ended:?}");
        }
    }
    fleet.end().await;
}

#[tokio::test]
async fn the_self_test_says_which_step_failed() {
    let fleet = Fleet::plan(Over::Bus).start().await;
    // Every channel of the default rules needs a login.
    let ended = selftest(&fleet, &[]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("the self-test has failed: subscribing:"), "{ended:?}");
    assert!(ended.stderr.contains("@selftest/{id}"), "the rule that is missing: {ended:?}");
    let ended = selftest(&fleet, &["--token", "stolen", "--user", "7"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("the login was answered with"), "{ended:?}");
    fleet.end().await;
}

#[tokio::test]
async fn a_probe_tells_success_from_everything_else() {
    let fleet = Fleet::plan(Over::Bus).start().await;
    let probe = async |url: &str| Launch::of("probe").argument(url).run().await;
    let admin = fleet.edges[0].admin;
    assert_eq!(probe(&format!("http://{admin}/readyz")).await.code, 0);
    let ended = probe(&format!("http://{admin}/nothing")).await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("status 404"), "{ended:?}");
    let ended = probe("https://localhost/").await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("write http://HOST:PORT/PATH"), "{ended:?}");
    fleet.end().await;
}
