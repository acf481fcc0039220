//! Many messages and many subscriptions over one client.

use anyhow::ensure;

use super::{connect, next, settle, text};
use crate::fixture::{Case, Fixture, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        ten_thousand_messages_keep_their_order_in_two_subscriptions,
        ten_thousand_subscriptions_on_one_client,
        unsubscribing_while_messages_flow_leaves_the_client_whole,
    ]
}

async fn ten_thousand_messages_keep_their_order_in_two_subscriptions(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let (publisher, client) = (connect(&fixture.shared).await?, connect(&fixture.shared).await?);
    let mut one = client.subscribe("rs.order.x").await?;
    let mut other = client.subscribe("rs.order.*").await?;
    settle(&client).await?;
    let publish = async {
        for number in 0..10_000 {
            publisher.publish("rs.order.x", number.to_string().into()).await?;
        }
        anyhow::Ok(())
    };
    let receive = async {
        for number in 0..10_000 {
            for subscriber in [&mut one, &mut other] {
                let got = text(&next(subscriber).await?);
                ensure!(got == number.to_string(), "{number} was due, {got} came");
            }
        }
        Ok(())
    };
    tokio::try_join!(publish, receive)?;
    Ok(())
}

async fn ten_thousand_subscriptions_on_one_client(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut subscribers = Vec::new();
    for number in 0..10_000 {
        subscribers.push(client.subscribe(format!("rs.many.{number}")).await?);
    }
    settle(&client).await?;
    for number in (0..10_000).step_by(501) {
        client.publish(format!("rs.many.{number}"), number.to_string().into()).await?;
        ensure!(text(&next(&mut subscribers[number]).await?) == number.to_string(), "the wrong message came");
    }
    drop(subscribers);
    settle(&client).await
}

async fn unsubscribing_while_messages_flow_leaves_the_client_whole(fixture: &Fixture) -> anyhow::Result<()> {
    let (publisher, client) = (connect(&fixture.shared).await?, connect(&fixture.shared).await?);
    let mut leaving = client.subscribe("rs.flow").await?;
    let mut staying = client.subscribe("rs.flow").await?;
    settle(&client).await?;
    let publish = async {
        for number in 0..10_000 {
            publisher.publish("rs.flow", number.to_string().into()).await?;
        }
        anyhow::Ok(())
    };
    let receive = async {
        for number in 0..10_000 {
            if number == 1_000 {
                leaving.unsubscribe().await?;
            }
            let got = text(&next(&mut staying).await?);
            ensure!(got == number.to_string(), "{number} was due, {got} came");
        }
        Ok(())
    };
    tokio::try_join!(publish, receive)?;
    settle(&client).await
}
