//! async-nats, unmodified, against the bus.

mod support;

use std::collections::HashSet;
use std::time::Duration;

use async_nats::{ConnectOptions, Event, HeaderMap, RequestErrorKind, Subscriber};
use embedded_bus::{Config, Credentials};
use futures_util::StreamExt as _;
use support::{DEADLINE, Server};
use tokio::time::timeout;

async fn next(subscriber: &mut Subscriber) -> async_nats::Message {
    timeout(DEADLINE, subscriber.next()).await.expect("no message came").expect("the subscription ended")
}

/// Subscribes, and waits until the bus has the subscription.
async fn subscribe(server: &Server, client: &async_nats::Client, subject: &str) -> Subscriber {
    let before = server.stats.snapshot().subscriptions;
    let subscriber = client.subscribe(subject.to_owned()).await.expect("subscribed");
    server.until(|stats| stats.subscriptions > before).await;
    subscriber
}

#[tokio::test]
async fn messages_reach_literal_and_wildcard_subscriptions_in_order() {
    let server = Server::start().await;
    let (publisher, client) = (server.client().await, server.client().await);
    let mut subscribers = Vec::new();
    for subject in ["news.eu.de", "news.*.de", "news.>", ">"] {
        subscribers.push(subscribe(&server, &client, subject).await);
    }
    let mut other = subscribe(&server, &client, "news.us.*").await;
    for number in 0..1000 {
        publisher.publish("news.eu.de", number.to_string().into()).await.expect("published");
    }
    publisher.publish("news.us.ny", "else".into()).await.expect("published");
    for subscriber in &mut subscribers {
        for number in 0..1000 {
            let message = next(subscriber).await;
            assert_eq!(
                (message.subject.as_str(), &message.payload[..]),
                ("news.eu.de", number.to_string().as_bytes())
            );
        }
    }
    assert_eq!(&next(&mut other).await.payload[..], b"else");
}

#[tokio::test]
async fn requests_are_answered_with_headers_both_ways() {
    let server = Server::start().await;
    let (asker, responder) = (server.client().await, server.client().await);
    let mut requests = subscribe(&server, &responder, "service.echo").await;
    let answer = async {
        let request = next(&mut requests).await;
        let headers = request.headers.expect("headers");
        assert_eq!(headers.get("Kind").map(|value| value.as_str()), Some("question"));
        responder
            .publish_with_headers(request.reply.expect("reply"), headers, request.payload)
            .await
            .expect("sent");
    };
    let mut headers = HeaderMap::new();
    headers.insert("Kind", "question");
    let ask = asker.request_with_headers("service.echo", headers, "hello".into());
    let (reply, ()) = tokio::join!(ask, answer);
    let reply = reply.expect("a reply");
    assert_eq!(&reply.payload[..], b"hello");
    assert!(reply.headers.is_some());
}

#[tokio::test]
async fn a_request_to_nobody_fails_at_once() {
    let server = Server::start().await;
    let client = server.client().await;
    for subject in ["nobody.here", "$JS.API.INFO", "$JS.API.STREAM.INFO.X"] {
        let error = client.request(subject, "".into()).await.expect_err("nobody answers");
        assert_eq!(error.kind(), RequestErrorKind::NoResponders, "{subject}");
    }
    assert_eq!(server.stats.snapshot().no_responders, 3);
}

#[tokio::test]
async fn a_queue_group_shares_the_messages() {
    let server = Server::start().await;
    let client = server.client().await;
    let mut members = Vec::new();
    for count in 1..=3 {
        members.push(client.queue_subscribe("work", "workers".to_owned()).await.expect("subscribed"));
        server.until(|stats| stats.subscriptions == count).await;
    }
    let publisher = server.client().await;
    for number in 0..300 {
        publisher.publish("work", number.to_string().into()).await.expect("published");
    }
    let mut merged = futures_util::stream::select_all(
        members
            .iter_mut()
            .enumerate()
            .map(|(index, member)| member.map(move |message| (index, message.payload)).boxed_local()),
    );
    let (mut numbers, mut busy) = (HashSet::new(), HashSet::new());
    while numbers.len() < 300 {
        let (member, payload) =
            timeout(DEADLINE, merged.next()).await.expect("a message").expect("a subscription");
        assert!(numbers.insert(payload), "a message was given twice");
        busy.insert(member);
    }
    assert_eq!(busy.len(), 3, "a member was never chosen");
}

#[tokio::test]
async fn credentials_are_checked() {
    let user = || Credentials::UserPassword { user: "alice".to_owned(), password: "secret".to_owned() };
    let server = Server::with(Config { credentials: user(), ..Config::default() }).await;
    let good = ConnectOptions::with_user_and_password("alice".to_owned(), "secret".to_owned());
    good.connect(server.url()).await.expect("the right password");
    let bad = ConnectOptions::with_user_and_password("alice".to_owned(), "Secret".to_owned());
    let error = bad.connect(server.url()).await.expect_err("a wrong password");
    assert_eq!(error.kind(), async_nats::ConnectErrorKind::AuthorizationViolation);
    async_nats::connect(server.url()).await.expect_err("no password");

    let server =
        Server::with(Config { credentials: Credentials::Token("t".to_owned()), ..Config::default() }).await;
    ConnectOptions::with_token("t".to_owned()).connect(server.url()).await.expect("the right token");
    ConnectOptions::with_token("T".to_owned()).connect(server.url()).await.expect_err("a wrong token");
}

#[tokio::test]
async fn a_client_comes_back_after_a_restart_on_the_same_port() {
    let server = Server::start().await;
    let (events, mut seen) = tokio::sync::mpsc::channel(64);
    let client = ConnectOptions::new()
        .event_callback(move |event| {
            let events = events.clone();
            async move { events.send(event).await.expect("the test is still there") }
        })
        .connect(server.url())
        .await
        .expect("connected");
    let mut subscriber = subscribe(&server, &client, "a.>").await;
    let address = server.address;
    server.stop().await;
    let mut told = false;
    let server = Server::with(Config { listen: address, ..Config::default() }).await;
    server.until(|stats| stats.subscriptions == 1).await;
    let publisher = server.client().await;
    publisher.publish("a.b", "again".into()).await.expect("published");
    assert_eq!(&next(&mut subscriber).await.payload[..], b"again");
    while let Ok(event) = seen.try_recv() {
        told |= event == Event::LameDuckMode;
    }
    assert!(told, "the shutdown was not announced");
}

#[tokio::test]
async fn drain_and_unsubscribe_after_work() {
    let server = Server::start().await;
    let (publisher, client) = (server.client().await, server.client().await);
    let mut few = subscribe(&server, &client, "few").await;
    few.unsubscribe_after(3).await.expect("unsubscribed");
    client.flush().await.expect("flushed");
    client.request("nobody", "".into()).await.expect_err("a round trip");
    for number in 0..10 {
        publisher.publish("few", number.to_string().into()).await.expect("published");
    }
    let received: Vec<_> =
        timeout(DEADLINE, few.by_ref().collect::<Vec<_>>()).await.expect("it ends by itself");
    assert_eq!(received.len(), 3);
    client.drain().await.expect("drained");
    drop(publisher);
    server.until(|stats| stats.connections == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_payload_of_exactly_the_limit_passes() {
    let server = Server::with(Config { max_payload: 1 << 20, ..Config::default() }).await;
    let client =
        ConnectOptions::new().request_timeout(Some(Duration::from_secs(5))).connect(server.url()).await;
    let client = client.expect("connected");
    let mut subscriber = subscribe(&server, &client, "big").await;
    let payload = vec![7; 1 << 20];
    client.publish("big", payload.clone().into()).await.expect("published");
    assert_eq!(next(&mut subscriber).await.payload, payload);
    client.publish("big", vec![7; (1 << 20) + 1].into()).await.expect_err("the client refuses a larger one");
}
