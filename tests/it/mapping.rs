//! Logins against business systems as they are, by configuration alone: the recipes of the manual, and what is
//! told when a configuration does not fit.

use std::collections::BTreeMap;
use std::process::Stdio;

use harness::alone::{Alone, AlonePlan};
use harness::collector::Collector;
use harness::device::Device;
use harness::frameworks::Frameworks;
use harness::program::{Finished, Launch, binary};
use harness::raw;
use harness::wait::{eventually, soon};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A good token of the stand-ins; nobody may write it anywhere.
const TOKEN: &str = "good-4711-s3cr3tn3ss";
/// The user of [`TOKEN`].
const USER: &str = "4711-s3cr3tn3ss";

/// Settings as `--set` takes them.
pub(crate) type Sets = Vec<(String, String)>;

/// The recipes of the manual as settings, by the path of their URL. The URL is the stand-in's.
fn recipes(frameworks: &Frameworks) -> BTreeMap<String, Sets> {
    let manual = include_str!("../../deploy/docs/login.md");
    let recipes = manual.split_once("## Four recipes").expect("the manual has them").1;
    let recipes = recipes.split("\n## ").next().expect("they end").split("```toml\n").skip(1);
    let recipe = |text: &str| {
        let (mut section, mut path, mut sets) = (String::new(), String::new(), Sets::new());
        for line in text.split("```").next().expect("it ends").lines() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some((key, value)) = line.split_once(" = ") {
                let mut value = value.to_owned();
                if key == "url" {
                    let url = reqwest::Url::parse(value.trim_matches('"')).expect("the manual has a URL");
                    url.path().clone_into(&mut path);
                    value = format!("{:?}", frameworks.url(&path));
                }
                sets.push((format!("{section}.{key}"), value));
            }
        }
        (path, sets)
    };
    recipes.map(recipe).collect()
}

fn plan(sets: &Sets) -> AlonePlan {
    sets.iter().fold(Alone::plan().in_memory(), |plan, (key, value)| plan.set(key, value))
}

/// Runs `login-test` with the token on standard input.
pub(crate) async fn login_test(sets: &Sets, token: &str) -> Finished {
    let mut command = Command::new(binary());
    command.arg("login-test").env_clear().kill_on_drop(true);
    command.args(sets.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be started");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(format!("{token}\r\n").as_bytes()).await.expect("it reads");
    drop(input);
    let output = soon("login-test ends", child.wait_with_output()).await.expect("it is our child");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    let code = output.status.code().expect("no signal ended it");
    Finished { code, stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub(crate) async fn logins(alone: &Alone) -> Vec<Value> {
    let page: Value =
        serde_json::from_str(&raw::get(alone.admin(), "/logins").await.body).expect("it is JSON");
    page["reasons"].as_array().expect("it is a list").clone()
}

async fn refused(alone: &Alone, token: &str, code: u64, close: u16) {
    let mut device = Device::connect(alone.edge()).await;
    device.send(&serde_json::json!({ "op": "auth", "token": token }).to_string()).await;
    device.expect_error(code).await;
    device.expect_close(close).await;
}

#[tokio::test]
async fn every_recipe_of_the_manual_logs_a_device_in() {
    let frameworks = Frameworks::start().await;
    let recipes = recipes(&frameworks);
    assert_eq!(recipes.len(), 4, "{recipes:?}");
    for (path, sets) in &recipes {
        let alone = plan(sets).set("log.filter", "trace").start().await;
        Device::login(alone.edge(), "good-4711").await.close().await;
        refused(&alone, "bad-t0k3n", 2, 4401).await;
        let yes = login_test(sets, "good-4711").await;
        assert!(yes.code == 0 && yes.stdout.contains("understood  yes: user 4711"), "{path}: {yes:?}");
        let no = login_test(sets, "bad-t0k3n").await;
        assert!(no.code == 1 && no.stdout.contains("understood  no"), "{path}: {no:?}");
        let page = raw::get(alone.admin(), "/logins").await.body;
        let metrics = raw::get(alone.admin(), "/metrics").await.body;
        for output in [&yes.stdout, &no.stdout, &page, &metrics, &alone.program.stderr()] {
            assert!(!output.contains("bad-t0k3n") && !output.contains("good-4711"), "{path}: {output}");
        }
        alone.end().await;
    }
    frameworks.stop().await;
}

#[tokio::test]
async fn a_mapping_that_does_not_fit_is_told_in_the_log_at_logins_and_by_login_test() {
    let frameworks = Frameworks::start().await;
    let sets: Sets = [
        ("auth_adapter.url", frameworks.url("/profile")),
        ("auth_adapter.request.token", "header:Authorization: Bearer {token}".into()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let mut alone = plan(&sets).start().await;
    refused(&alone, TOKEN, 2, 4401).await;
    let told = "looked for uid at /uid; keys there: /code /data/id /data/nickname /msg; set \
                auth_adapter.answer.uid = [\"/data/id\"], or auth_adapter.preset = \"common-result\"";
    let line = alone.program.logged("tokens are refused").await;
    assert_eq!((line["reason"].as_str(), line["level"].as_str()), (Some(told), Some("WARN")), "{line}");
    let reasons = logins(&alone).await;
    assert_eq!((&reasons[0]["outcome"], reasons[0]["text"].as_str()), (&"no_uid".into(), Some(told)));
    let metric = alone.metric("mc_auth_business_calls_total", "outcome=\"no_uid\"").await;
    assert!((metric - 1.0).abs() < f64::EPSILON, "{metric}");
    let report = login_test(&sets, TOKEN).await;
    assert!(report.code == 1 && report.stdout.contains(told), "{report:?}");
    for output in [&alone.program.stderr(), &report.stdout, &report.stderr] {
        assert!(!output.contains(USER), "{output}");
    }
    alone.end().await;

    let mended = [&sets[..], &[("auth_adapter.preset".to_owned(), "common-result".to_owned())]].concat();
    let alone = plan(&mended).start().await;
    Device::login(alone.edge(), TOKEN).await.close().await;
    assert_eq!(logins(&alone).await, [] as [Value; 0]);
    assert_eq!(raw::get(alone.admin(), "/nothing").await.status, 404);
    alone.end().await;
    frameworks.stop().await;
}

#[tokio::test]
async fn a_token_in_the_url_is_in_no_output_and_is_warned_of() {
    let (frameworks, collector) = (Frameworks::start().await, Collector::http().await);
    let sets: Sets = [
        ("auth_adapter.url", frameworks.url("/query")),
        ("auth_adapter.request.method", "GET".into()),
        ("auth_adapter.request.token", "query:access_token".into()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let plan = plan(&sets).set("log.filter", "trace").variable("OTEL_BSP_SCHEDULE_DELAY", "20");
    let plan = plan.variable("OTEL_TRACES_SAMPLER", "always_on");
    let plan = collector.variables().iter().fold(plan, |plan, (name, value)| plan.variable(name, value));
    let mut alone = plan.start().await;
    alone.program.logged("puts tokens into the URL").await;
    // The uid of this stand-in is part of the token, so the token as a whole is searched for.
    Device::login(alone.edge(), TOKEN).await.close().await;
    let span = collector.span("business call", |_| true).await;
    assert_eq!(span.attributes["http.request.method"], "GET");
    frameworks.stop().await;
    refused(&alone, "good-an0ther", 3, 1013).await;
    eventually("the failure is told", async || !logins(&alone).await.is_empty()).await;
    let unreachable = login_test(&sets, "good-an0ther").await;
    assert!(
        unreachable.code == 2 && unreachable.stdout.contains("no answer (unreachable)"),
        "{unreachable:?}"
    );
    let page = raw::get(alone.admin(), "/logins").await.body;
    let metrics = raw::get(alone.admin(), "/metrics").await.body;
    let spans = format!("{:?}", collector.spans());
    for output in [&alone.program.stderr(), &page, &metrics, &spans, &unreachable.stdout] {
        assert!(!output.contains(TOKEN) && !output.contains("good-an0ther"), "{output}");
    }
    alone.end().await;
    collector.stop().await;
}

#[tokio::test]
async fn login_test_says_what_to_set_before_it_can_ask() {
    let none = Launch::of("login-test").argument("--token").argument("x").run().await;
    assert_eq!(none.code, 64, "{none:?}");
    assert!(none.stderr.contains("auth_adapter.url") && none.stderr.contains("--auth-url"), "{none:?}");
    let url = ["--auth-url", "http://127.0.0.1:1/check"];
    let empty = url.iter().fold(Launch::of("login-test"), |launch, argument| launch.argument(argument));
    let empty = empty.run().await;
    assert!(empty.code == 64 && empty.stderr.contains("--token"), "{empty:?}");
    let moved = Launch::of("login-test").variable("MC_AUTH_ADAPTER__BODY", "form").run().await;
    assert!(moved.code == 64 && moved.stderr.contains("auth_adapter.request.token"), "{moved:?}");
    let help = Launch::of("login-test").argument("--help").run().await;
    assert!(help.stdout.contains("2 for no answer"), "{help:?}");
}
