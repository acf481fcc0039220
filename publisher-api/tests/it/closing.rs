//! Callers who close their connection: half of it behind a request, or all of it before the answer.

use serde_json::json;

use crate::support::caller::{Http, JSON, PUBLISH, call, request};
use crate::support::{Bed, eventually};

const BATCH: &str = "POST /v1/publish/batch";

async fn stored(bed: &Bed) -> usize {
    let path = "GET /v1/channels/user:1001/messages?limit=1000";
    call(bed.address, &request(path, &[], "")).await.json()["messages"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_caller_who_closes_the_sending_side_is_answered() {
    let bed = Bed::start(|_| {}).await;
    for round in 0..50 {
        let mut caller = Http::connect(bed.address).await;
        let body = json!({ "c": "user:1001", "d": round.to_string() }).to_string();
        caller.send(&request(PUBLISH, &[JSON], &body)).await;
        caller.close_sending().await;
        assert_eq!(caller.answer().await.counts(), (0, 0, true), "round {round}");
        assert!(caller.is_closed().await);
    }
    assert_eq!(stored(&bed).await, 50);
    bed.finish().await;
}

#[tokio::test]
async fn a_caller_who_closes_the_sending_side_within_a_request_is_let_go() {
    let bed = Bed::start(|_| {}).await;
    let whole = request(PUBLISH, &[JSON], r#"{"c":"user:1001","d":"x"}"#);
    for length in [0, 1, 20, whole.len() - 1] {
        let mut caller = Http::connect(bed.address).await;
        caller.send(&whole[..length]).await;
        caller.close_sending().await;
        caller.read_to_end().await;
    }
    eventually("no connection is left", || bed.metric("mc_publisher_connections") == 0).await;
    assert_eq!(stored(&bed).await, 0);
    bed.finish().await;
}

#[tokio::test]
async fn what_was_accepted_is_finished_when_the_caller_is_gone() {
    let bed = Bed::start(|_| {}).await;
    let message = |number: usize| json!({ "to": { "users": [1001] }, "raw": number.to_string() });
    let messages: Vec<_> = (0..300).map(message).collect();
    let body = json!({ "messages": messages, "receipt": false }).to_string();
    let mut caller = Http::connect(bed.address).await;
    caller.send(&request(BATCH, &[JSON], &body)).await;
    let done = || bed.metric(r#"mc_publisher_stored_total{outcome="stored"}"#);
    eventually("some are stored", || done() > 0).await;
    caller.abort();
    assert!(done() < 300, "the batch was stored before its caller could go");
    eventually("all are stored", || done() == 300).await;
    assert_eq!(stored(&bed).await, 300);
    eventually("no connection is left", || bed.metric("mc_publisher_connections") == 0).await;
    bed.finish().await;
}
