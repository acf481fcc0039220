//! A channel that everybody has: one announcement, and all who come back at once.

use serde_json::{Value, json};

use crate::recovery::Store;
use crate::support::World;
use crate::support::client::Client;

/// Sessions of the test.
const CROWD: usize = 200;

/// How a session subscribes to `@all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way<'a> {
    Plain,
    /// With this `after`.
    Recovering(&'a str),
}

impl Way<'_> {
    fn op(self) -> String {
        match self {
            Self::Plain => json!({"op": "subscribe", "channel": "@all"}),
            Self::Recovering(after) => json!({"op": "subscribe", "channel": "@all", "after": after}),
        }
        .to_string()
    }
}

async fn logged_in(world: &World) -> Vec<Client> {
    let mut clients = Vec::with_capacity(CROWD);
    for user in 0..CROWD {
        clients.push(Client::of(&world.edge, &format!("user-{}", user + 1)).await);
    }
    clients
}

/// Lets all subscribe before anyone reads an answer. Returns the answers.
async fn subscribe(clients: &mut [Client], way: Way<'_>) -> Vec<Value> {
    for client in clients.iter_mut() {
        client.say(&way.op()).await;
    }
    let mut answers = Vec::with_capacity(clients.len());
    for client in clients {
        answers.push(client.json().await);
    }
    answers
}

#[tokio::test]
async fn everybody_comes_back_without_a_read_and_gets_each_announcement_once() {
    let world = World::ready(|config| config.connection_burst_per_address = 10_000).await;
    let mut store = Store::of(&world, "all").await;
    store.publish("before").await;
    let mut clients = logged_in(&world).await;
    let first = subscribe(&mut clients[..1], Way::Recovering("")).await;
    let tail = first[0]["id"].as_str().expect("an answer with an id").to_owned();
    for way in [Way::Recovering(&tail), Way::Recovering(""), Way::Plain] {
        let answers = subscribe(&mut clients, way).await;
        assert!(answers.iter().all(|answer| answer["result"] == true), "{way:?}: {answers:?}");
        let whole = answers.iter().all(|answer| answer["recovered"] == true);
        assert_eq!(whole, way != Way::Plain, "{answers:?}");
        let text = format!("announced to {way:?}");
        store.publish(&text).await;
        for client in &mut clients {
            match way {
                Way::Plain => client.expect(&text).await,
                Way::Recovering(_) => assert_eq!(client.json().await["d"], text),
            }
            client.say(r#"{"op":"unsubscribe","channel":"@all"}"#).await;
            assert_eq!(client.json().await, json!({"result": true}), "nothing came twice");
        }
    }
    assert_eq!(world.metric("mc_edge_replay_reads_total", ""), 0, "nobody was behind");
    assert_eq!(world.metric("mc_edge_messages_fetched_total", ""), 0, "every live copy came");
    for client in clients {
        client.leave().await;
    }
    store.end(world).await;
}
