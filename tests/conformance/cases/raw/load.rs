//! Many of everything, and a client that does not read.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::fixture::{Case, Fixture, cases};
use crate::raw::{CONNECT, RawClient};
use crate::server::Settings;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        ten_thousand_messages_keep_their_order_in_two_subscriptions,
        ten_thousand_subscriptions_on_one_connection,
        ten_thousand_subscriptions_can_be_removed_again,
        a_large_message_reaches_many,
        many_connections_at_once,
        who_lets_too_many_bytes_wait_is_cut_off_while_others_go_on,
        who_takes_nothing_for_too_long_is_cut_off_while_others_go_on,
    ]
}

async fn ten_thousand_messages_keep_their_order_in_two_subscriptions(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    const COUNT: usize = 10_000;
    let mut subscriber = RawClient::connect(fixture.shared.address()).await?;
    subscriber.send("SUB order.* 1\r\nSUB order.x 2\r\n").await?;
    subscriber.settle().await?;
    let mut publisher = RawClient::connect(fixture.shared.address()).await?;
    let publish = async {
        for chunk in (0..COUNT).collect::<Vec<_>>().chunks(100) {
            let mut input = String::new();
            for number in chunk {
                write!(input, "PUB order.x 5\r\n{number:05}\r\n")?;
            }
            publisher.send(input).await?;
        }
        publisher.settle().await
    };
    let receive = subscriber.messages(2 * COUNT);
    let ((), messages) = tokio::try_join!(publish, receive)?;
    for sid in ["1", "2"] {
        let numbers = messages.iter().filter(|message| message.sid == sid).map(|message| message.text());
        for (due, number) in numbers.enumerate() {
            ensure!(number == format!("{due:05}"), "subscription {sid} got {number} where {due} was due");
        }
    }
    // Both copies of a message come before the next message.
    for (index, pair) in messages.chunks(2).enumerate() {
        ensure!(
            pair.len() == 2 && pair[0].payload == pair[1].payload,
            "copies of message {index} are torn apart"
        );
    }
    Ok(())
}

/// A client with `count` subscriptions `{prefix}.{n}`, whose sids are the numbers.
async fn subscribed(fixture: &Fixture, prefix: &str, count: usize) -> anyhow::Result<RawClient> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    let mut input = String::new();
    for number in 0..count {
        write!(input, "SUB {prefix}.{number} {number}\r\n")?;
    }
    client.send(input).await?;
    client.settle().await?;
    Ok(client)
}

async fn ten_thousand_subscriptions_on_one_connection(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = subscribed(fixture, "many.subs", 10_000).await?;
    for number in (0..10_000).step_by(97) {
        client.publish(&format!("many.subs.{number}"), "x").await?;
        let message = client.message().await?;
        ensure!(message.sid == number.to_string(), "{message:?} came for {number}");
    }
    client.settle().await
}

async fn ten_thousand_subscriptions_can_be_removed_again(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = subscribed(fixture, "many.unsubs", 10_000).await?;
    let mut input = String::new();
    for number in (0..10_000).filter(|number| number % 1_000 != 0) {
        write!(input, "UNSUB {number}\r\n")?;
    }
    for number in 0..10_000 {
        write!(input, "PUB many.unsubs.{number} 0\r\n\r\n")?;
    }
    client.send(input).await?;
    let messages = client.sync_messages().await?;
    ensure!(messages.len() == 10, "10 subscriptions are left, {} messages came", messages.len());
    Ok(())
}

async fn a_large_message_reaches_many(fixture: &Fixture) -> anyhow::Result<()> {
    let mut subscribers = Vec::new();
    for _ in 0..5 {
        let mut subscriber = RawClient::connect(fixture.shared.address()).await?;
        subscriber.send("SUB large.x 1\r\n").await?;
        subscriber.settle().await?;
        subscribers.push(subscriber);
    }
    let payload: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let mut publisher = RawClient::connect(fixture.shared.address()).await?;
    publisher.publish("large.x", &payload).await?;
    for subscriber in &mut subscribers {
        ensure!(subscriber.message().await?.payload == payload, "1 MiB came back changed");
    }
    Ok(())
}

async fn many_connections_at_once(fixture: &Fixture) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = RawClient::open(fixture.shared.address()).await?;
        client.send(format!("{CONNECT}SUB crowd.x 1\r\n")).await?;
        clients.push(client);
    }
    for client in &mut clients {
        client.settle().await?;
    }
    clients[0].publish("crowd.x", "hello").await?;
    for client in &mut clients {
        ensure!(client.message().await?.text() == "hello", "the wrong message came");
    }
    Ok(())
}

/// Sends `total` bytes to a client that reads and one that does not; returns once the server has cut off the
/// second.
async fn cut_off(settings: Settings, fixture: &Fixture, total: usize) -> anyhow::Result<()> {
    const SIZE: usize = 32 << 10;
    let server = fixture.server(settings).await?;
    let mut slow = RawClient::open_narrow(server.address(), 16 << 10).await?;
    slow.send(format!("{CONNECT}SUB slow.x 1\r\nSUB slow.mark 2\r\n")).await?;
    slow.settle().await?;
    let mut quick = RawClient::connect(server.address()).await?;
    quick.send("SUB slow.x 1\r\n").await?;
    quick.settle().await?;
    let mut publisher = RawClient::connect(server.address()).await?;
    // One message at a time, so that the reading client never has much waiting.
    for number in 0..total / SIZE {
        publisher.publish("slow.x", vec![b'x'; SIZE]).await?;
        quick.message().await.with_context(|| format!("the quick one missed message {number}"))?;
    }
    // Once the slow client's subscription is gone, the server has closed its connection.
    publisher.until_nobody_listens("slow.mark").await?;
    let seen = slow.until_closed().await?.len();
    ensure!(seen * SIZE < total, "the slow one got all {seen} messages");
    quick.settle().await
}

async fn who_lets_too_many_bytes_wait_is_cut_off_while_others_go_on(fixture: &Fixture) -> anyhow::Result<()> {
    // A long write deadline, so that only the bytes can be the reason. 64 MiB exceed the buffers of any
    // kernel.
    let write_deadline = 4 * crate::fixture::DEADLINE;
    let settings =
        Settings { max_payload: 64 << 10, max_pending: 1 << 20, write_deadline, ..Settings::default() };
    cut_off(settings, fixture, 64 << 20).await
}

async fn who_takes_nothing_for_too_long_is_cut_off_while_others_go_on(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    // A large limit of pending bytes, so that only the time can be the reason.
    let settings = Settings { write_deadline: Duration::from_millis(500), ..Settings::default() };
    cut_off(settings, fixture, 32 << 20).await
}
