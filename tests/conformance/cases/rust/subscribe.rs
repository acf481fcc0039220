//! Subscribing, queue groups, and the ways to stop.

use anyhow::ensure;

use super::{connect, next, rest, settle, text};
use crate::fixture::{Case, Fixture, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        wildcards_match,
        overlapping_subscriptions_get_one_copy_each,
        a_queue_group_on_two_connections_shares_the_work,
        several_groups_and_plain_subscriptions_each_get_a_copy,
        unsubscribe_ends_the_subscription,
        dropping_a_subscriber_ends_its_interest,
        unsubscribe_after_counts_from_the_start,
        unsubscribe_after_some_came_counts_them,
        draining_a_subscription_delivers_what_was_sent,
        draining_a_client_delivers_what_was_sent,
    ]
}

async fn wildcards_match(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut star = client.subscribe("rs.wild.*.x").await?;
    let mut tail = client.subscribe("rs.wild.>").await?;
    for subject in ["rs.wild.a.x", "rs.wild.a.y", "rs.wild.b.x", "rs.wild", "rs.wild.a.x.y"] {
        client.publish(subject, subject.into()).await?;
    }
    settle(&client).await?;
    client.publish("rs.wild.end.x", "end".into()).await?;
    for due in ["rs.wild.a.x", "rs.wild.b.x", "rs.wild.end.x"] {
        ensure!(next(&mut star).await?.subject.as_str() == due, "{due} was due at *");
    }
    for due in ["rs.wild.a.x", "rs.wild.a.y", "rs.wild.b.x", "rs.wild.a.x.y", "rs.wild.end.x"] {
        ensure!(next(&mut tail).await?.subject.as_str() == due, "{due} was due at >");
    }
    Ok(())
}

async fn overlapping_subscriptions_get_one_copy_each(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut subscribers = Vec::new();
    for pattern in ["rs.over.lap", "rs.over.*", "rs.*.lap", "rs.over.>"] {
        subscribers.push(client.subscribe(pattern).await?);
    }
    for payload in ["one", "two"] {
        client.publish("rs.over.lap", payload.into()).await?;
    }
    for subscriber in &mut subscribers {
        ensure!(text(&next(subscriber).await?) == "one", "the first copy is missing");
        ensure!(text(&next(subscriber).await?) == "two", "a copy came twice");
    }
    Ok(())
}

async fn a_queue_group_on_two_connections_shares_the_work(fixture: &Fixture) -> anyhow::Result<()> {
    let (one, other) = (connect(&fixture.shared).await?, connect(&fixture.shared).await?);
    let mut first = one.queue_subscribe("rs.queue", "workers".to_owned()).await?;
    let mut second = other.queue_subscribe("rs.queue", "workers".to_owned()).await?;
    settle(&one).await?;
    settle(&other).await?;
    for number in 0..300 {
        one.publish("rs.queue", number.to_string().into()).await?;
    }
    settle(&one).await?;
    // Everything sent to a connection comes before the answer to that connection's own request.
    settle(&other).await?;
    first.unsubscribe().await?;
    second.unsubscribe().await?;
    let (first, second) = (rest(&mut first).await?, rest(&mut second).await?);
    let mut numbers: Vec<u32> =
        first.iter().chain(&second).filter_map(|message| text(message).parse().ok()).collect();
    numbers.sort_unstable();
    ensure!(numbers == (0..300).collect::<Vec<_>>(), "each of 300 was due once: {numbers:?}");
    ensure!(first.len() > 20 && second.len() > 20, "not shared out: {} and {}", first.len(), second.len());
    Ok(())
}

async fn several_groups_and_plain_subscriptions_each_get_a_copy(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut red = client.queue_subscribe("rs.groups", "red".to_owned()).await?;
    let mut blue = client.queue_subscribe("rs.groups", "blue".to_owned()).await?;
    let mut plain = client.subscribe("rs.groups").await?;
    for number in 0..20 {
        client.publish("rs.groups", number.to_string().into()).await?;
    }
    for number in 0..20 {
        for subscriber in [&mut red, &mut blue, &mut plain] {
            ensure!(text(&next(subscriber).await?) == number.to_string(), "{number} was due");
        }
    }
    Ok(())
}

async fn unsubscribe_ends_the_subscription(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut subscriber = client.subscribe("rs.unsub").await?;
    client.publish("rs.unsub", "x".into()).await?;
    next(&mut subscriber).await?;
    subscriber.unsubscribe().await?;
    client.publish("rs.unsub", "x".into()).await?;
    settle(&client).await?;
    let late = rest(&mut subscriber).await?;
    ensure!(late.is_empty(), "{} messages came after unsubscribe", late.len());
    Ok(())
}

async fn dropping_a_subscriber_ends_its_interest(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let subscriber = client.subscribe("rs.dropped").await?;
    settle(&client).await?;
    drop(subscriber);
    // The client unsubscribes in the background; each request checks whether it has.
    loop {
        let request = async_nats::Request::new()
            .payload("x".into())
            .timeout(Some(std::time::Duration::from_millis(50)));
        match client.send_request("rs.dropped", request).await {
            Err(error) if error.kind() == async_nats::RequestErrorKind::NoResponders => return Ok(()),
            Err(error) if error.kind() == async_nats::RequestErrorKind::TimedOut => {}
            other => anyhow::bail!("{other:?} came from a subject without a responder"),
        }
    }
}

async fn unsubscribe_after_counts_from_the_start(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut subscriber = client.subscribe("rs.after").await?;
    subscriber.unsubscribe_after(3).await?;
    for number in 0..10 {
        client.publish("rs.after", number.to_string().into()).await?;
    }
    let texts: Vec<String> = rest(&mut subscriber).await?.iter().map(text).collect();
    ensure!(texts == ["0", "1", "2"], "{texts:?}");
    Ok(())
}

async fn unsubscribe_after_some_came_counts_them(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut subscriber = client.subscribe("rs.after.some").await?;
    for number in 0..3 {
        client.publish("rs.after.some", number.to_string().into()).await?;
        next(&mut subscriber).await?;
    }
    subscriber.unsubscribe_after(5).await?;
    for number in 3..10 {
        client.publish("rs.after.some", number.to_string().into()).await?;
    }
    let texts: Vec<String> = rest(&mut subscriber).await?.iter().map(text).collect();
    ensure!(texts == ["3", "4"], "{texts:?}");
    Ok(())
}

async fn draining_a_subscription_delivers_what_was_sent(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut subscriber = client.subscribe("rs.drain").await?;
    for _ in 0..100 {
        client.publish("rs.drain", "x".into()).await?;
    }
    // This client's drain does not wait for messages still in the server.
    settle(&client).await?;
    subscriber.drain().await?;
    let count = rest(&mut subscriber).await?.len();
    ensure!(count == 100, "100 were sent before the drain, {count} came");
    // The client itself still works.
    settle(&client).await
}

async fn draining_a_client_delivers_what_was_sent(fixture: &Fixture) -> anyhow::Result<()> {
    let (client, other) = (connect(&fixture.shared).await?, connect(&fixture.shared).await?);
    let mut subscriber = client.subscribe("rs.drain.client").await?;
    let mut elsewhere = other.subscribe("rs.drain.out").await?;
    settle(&other).await?;
    for _ in 0..100 {
        client.publish("rs.drain.client", "x".into()).await?;
    }
    settle(&client).await?;
    client.publish("rs.drain.out", "last".into()).await?;
    client.drain().await?;
    let count = rest(&mut subscriber).await?.len();
    ensure!(count == 100, "100 were sent before the drain, {count} came");
    ensure!(text(&next(&mut elsewhere).await?) == "last", "what was published before the drain got lost");
    Ok(())
}
