//! Cases that drive async-nats as any program would.

use std::time::Duration;

use anyhow::Context;
use async_nats::{Client, ConnectOptions, Message, RequestErrorKind, Subscriber};
use futures_util::StreamExt;

use crate::fixture::{Case, within};
use crate::server::Server;

mod access;
mod load;
mod publish;
mod reconnect;
mod requests;
mod streams;
mod subscribe;

const DEADLINE: Duration = Duration::from_secs(15);

/// All cases of core NATS.
pub(crate) fn all() -> Vec<Case> {
    [
        publish::cases(),
        subscribe::cases(),
        requests::cases(),
        access::cases(),
        load::cases(),
        reconnect::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// All cases of streams.
pub(crate) fn streams() -> Vec<Case> {
    streams::cases()
}

/// A client with default options.
async fn connect(server: &Server) -> anyhow::Result<Client> {
    connect_with(server, ConnectOptions::new()).await
}

/// A client with these options.
async fn connect_with(server: &Server, options: ConnectOptions) -> anyhow::Result<Client> {
    within(DEADLINE, "a connection", options.connect(server.url())).await
}

/// The next message of a subscription.
async fn next(subscriber: &mut Subscriber) -> anyhow::Result<Message> {
    tokio::time::timeout(DEADLINE, subscriber.next())
        .await
        .context("waited in vain for a message")?
        .context("the subscription ended")
}

/// All messages until the subscription ends by itself.
async fn rest(subscriber: &mut Subscriber) -> anyhow::Result<Vec<Message>> {
    tokio::time::timeout(DEADLINE, subscriber.collect())
        .await
        .context("waited in vain for the subscription to end")
}

/// Returns once the server has handled everything that this client sent: the answer to a request without
/// responders is queued behind it.
async fn settle(client: &Client) -> anyhow::Result<()> {
    let answer = client.request("settle.nobody", "".into());
    match tokio::time::timeout(DEADLINE, answer).await.context("waited in vain for 503")? {
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
        other => anyhow::bail!("no responders was due, {other:?} came"),
    }
}

/// The payload as text.
fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}
