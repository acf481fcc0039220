//! A leaving edge tells its recovering sessions their positions before it closes them.

use std::collections::BTreeMap;

use harness::device::Device;
use harness::fleet::{Fleet, Over};
use serde_json::{Value, json};

#[tokio::test]
async fn an_edge_that_leaves_names_the_ids_and_a_device_goes_on_elsewhere_without_a_gap() {
    let mut fleet = Fleet::plan(Over::Bus).edges(2).set("edge.drain_window", "2s").start().await;
    let (mut old, _) = Device::back(fleet.edge(1), "user-1", "").await;
    let mut plain = fleet.online(1, "user-1").await;
    let publisher = fleet.publisher(0);
    for number in 1..=3 {
        publisher.publish_to(2, "user:1", &number.to_string()).await;
    }
    let last = old.expect_messages(1..=3).await;
    let mut edge = fleet.edges.remove(1);
    edge.program.signal("TERM").await;

    let event = old.next_json().await;
    assert_eq!(event["event"], "@reconnect", "{event}");
    assert!(event["within_ms"].as_u64().is_some_and(|within| within <= 2_000), "{event}");
    let ids: BTreeMap<String, String> = serde_json::from_value(event["ids"].clone()).unwrap();
    assert_eq!(event, json!({ "event": "@reconnect", "within_ms": event["within_ms"], "ids": ids }));
    assert_eq!(ids.keys().collect::<Vec<_>>(), ["@user"]);
    // The new socket is open before the old one closes.
    let mut new = Device::recovered(fleet.edge(0), "user-1", &ids["@user"]).await;
    publisher.publish("user:1", "4").await;
    new.expect_message("4").await;
    // The device may name the id of its last message instead.
    let mut other = Device::recovered(fleet.edge(0), "user-1", &last).await;
    other.expect_message("4").await;

    for number in 1..=3 {
        plain.expect_text(&number.to_string()).await;
    }
    for device in [&mut old, &mut plain] {
        // Messages published before the close still arrive; a plain session receives nothing else.
        loop {
            match device.next().await {
                harness::device::Received::Text(text) => assert!(
                    text == "4" || serde_json::from_str::<Value>(&text).is_ok_and(|frame| frame["d"] == "4"),
                    "{text}"
                ),
                harness::device::Received::Close(code, reason) => {
                    assert_eq!(code, 1012, "{reason}");
                    break;
                }
                received @ (harness::device::Received::Binary(_) | harness::device::Received::Gone) => {
                    panic!("{received:?}")
                }
            }
        }
    }
    edge.program.expect_success().await;
    drop((old, plain));
    new.close().await;
    other.close().await;
    fleet.end().await;
}
