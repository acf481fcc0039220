//! A store that fails without being full: publishes are repeated under their ids, and never refused as
//! "full".
//!
//! The system forbids a file to grow (`EFBIG`), and sends a signal that ends a process without a handler.

use std::time::Duration;

use harness::alone::Alone;
use harness::publisher::{Published, Publisher};
use harness::wait::until;
use reqwest::Method;
use serde_json::{Value, json};

async fn publish(publisher: &Publisher, text: &str) -> Published {
    let body = json!({ "to": { "users": [1001] }, "raw": text, "receipt": false });
    let request = publisher.request(Method::POST, "/v1/publish").header("content-type", "application/json");
    publisher.send(request.body(body.to_string())).await
}

async fn kept(publisher: &Publisher) -> Vec<String> {
    let answer = publisher.send(publisher.request(Method::GET, "/v1/channels/user:1001/messages")).await.body;
    let texts = answer["messages"].as_array().into_iter().flatten();
    texts.map(|one| one["text"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_write_that_fails_is_tried_again_under_the_same_id_until_it_succeeds() {
    let mut alone = Alone::plan().start().await;
    let publisher = alone.publisher();
    assert_eq!(publish(&publisher, "before").await.status, 200);
    alone.limit_files(Some(1)).await;
    let while_it_fails = publish(&publisher, "meanwhile");
    let lifted = async {
        until("a try has failed", async || {
            (alone.metric("mc_bus_server_store_errors_total", "").await > 0.0).then_some(())
        })
        .await;
        assert!(alone.metric("mc_bus_server_store_refused_total", "").await < 1.0, "nothing is full");
        alone.limit_files(None).await;
    };
    let (answer, ()) = tokio::join!(while_it_fails, lifted);
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert_eq!(kept(&publisher).await, ["before", "meanwhile"], "once, and in order");
    alone.end().await;
}

#[tokio::test]
async fn a_store_that_goes_on_failing_is_unavailable_and_not_full() {
    let mut alone = Alone::plan().set("publisher_api.store_wait", "2s").start().await;
    let publisher = alone.publisher();
    assert_eq!(publish(&publisher, "before").await.status, 200);
    alone.limit_files(Some(1)).await;
    let answer = publish(&publisher, "lost").await;
    let said = |answer: &Published| {
        let error = &answer.body["results"][0]["error"];
        let whole: Value = if error.is_null() { answer.body.clone() } else { error.clone() };
        whole.to_string()
    };
    assert!(said(&answer).contains("unavailable"), "{:?}", answer.body);
    assert!(!said(&answer).contains("full"), "{:?}", answer.body);
    let mesh = publisher.publish("user:1001", "lost too").await;
    let words = mesh.expect_error(503, 108);
    assert!(!words.contains("full") && !words.contains("max_bytes"), "{words}");
    alone.limit_files(None).await;
    until("it stores again", async || (publish(&publisher, "after").await.status == 200).then_some(())).await;
    assert!(kept(&publisher).await.starts_with(&["before".to_owned()]));
    tokio::time::timeout(Duration::from_secs(30), alone.end()).await.expect("it ends");
}
