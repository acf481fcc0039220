//! INFO, CONNECT, PING, and the switches of CONNECT.

use anyhow::{Context, ensure};

use crate::fixture::{Case, Fixture, cases};
use crate::raw::{CONNECT, Operation, RawClient};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        info_comes_first_and_tells_the_limits,
        each_connection_gets_its_own_client_id,
        connect_and_ping_are_answered_with_pong,
        operations_before_connect_work_without_credentials,
        verbose_acknowledges_each_operation,
        pedantic_complains_about_a_wildcard_in_publish,
        pedantic_complains_about_an_empty_token,
        a_second_connect_is_accepted,
        a_pong_without_a_ping_is_ignored,
        no_echo_keeps_own_messages_away,
    ]
}

async fn info_comes_first_and_tells_the_limits(fixture: &Fixture) -> anyhow::Result<()> {
    let client = RawClient::open(fixture.shared.address()).await?;
    let info = &client.info;
    for field in ["server_id", "server_name", "version", "host", "client_ip"] {
        ensure!(info[field].as_str().is_some_and(|text| !text.is_empty()), "{field} is missing in {info}");
    }
    ensure!(info["proto"] == 1, "proto is not 1 in {info}");
    ensure!(info["headers"] == true, "headers is not true in {info}");
    ensure!(info["max_payload"] == 1 << 20, "max_payload is not 1 MiB in {info}");
    ensure!(info["port"] == fixture.shared.address().port(), "port is not the one listened on in {info}");
    ensure!(info["auth_required"] != true, "auth_required is set on an open server");
    let version = info["version"].as_str().context("version")?;
    let numbers: Vec<u32> =
        version.split('.').map(str::parse).collect::<Result<_, _>>().context("version")?;
    ensure!(numbers >= vec![2, 10, 0], "version {version} makes clients leave out what they need");
    Ok(())
}

async fn each_connection_gets_its_own_client_id(fixture: &Fixture) -> anyhow::Result<()> {
    let one = RawClient::open(fixture.shared.address()).await?;
    let other = RawClient::open(fixture.shared.address()).await?;
    ensure!(one.info["client_id"].is_u64(), "client_id is not a number in {}", one.info);
    ensure!(one.info["client_id"] != other.info["client_id"], "two connections share a client_id");
    Ok(())
}

async fn connect_and_ping_are_answered_with_pong(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send(format!("{CONNECT}PING\r\n")).await?;
    let answer = client.next().await?;
    ensure!(answer == Operation::Pong, "PONG was due, {answer:?} came");
    Ok(())
}

async fn operations_before_connect_work_without_credentials(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send("SUB before.connect 1\r\nPUB before.connect 2\r\nhi\r\n").await?;
    // A connection is verbose until CONNECT says otherwise.
    let seen = client.sync().await?;
    let messages = seen.iter().filter(|operation| matches!(operation, Operation::Message(_))).count();
    ensure!(messages == 1, "one message was due, {seen:?} came");
    Ok(())
}

async fn verbose_acknowledges_each_operation(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    for line in
        ["CONNECT {\"verbose\":true}\r\n", "SUB verbose.x 1\r\n", "PUB verbose.y 1\r\nx\r\n", "UNSUB 1\r\n"]
    {
        client.send(line).await?;
        let answer = client.next().await?;
        ensure!(answer == Operation::Ok, "+OK was due for {line:?}, {answer:?} came");
    }
    client.settle().await
}

async fn pedantic_complains_about_a_wildcard_in_publish(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send("CONNECT {\"verbose\":false,\"pedantic\":true}\r\nPUB pedantic.* 1\r\nx\r\n").await?;
    let seen = client.sync().await?;
    ensure!(
        seen == [Operation::Error("Invalid Publish Subject".to_owned())],
        "an error was due, {seen:?} came"
    );
    Ok(())
}

async fn pedantic_complains_about_an_empty_token(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send("CONNECT {\"verbose\":false,\"pedantic\":true}\r\nSUB pedantic..x 1\r\n").await?;
    let seen = client.sync().await?;
    ensure!(seen == [Operation::Error("Invalid Subject".to_owned())], "an error was due, {seen:?} came");
    Ok(())
}

async fn a_second_connect_is_accepted(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send(CONNECT).await?;
    client.settle().await?;
    client.send("SUB connect.twice 1\r\nPUB connect.twice 0\r\n\r\n").await?;
    ensure!(client.sync_messages().await?.len() == 1, "the connection is of no more use");
    Ok(())
}

async fn a_pong_without_a_ping_is_ignored(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("PONG\r\nPONG\r\n").await?;
    client.settle().await
}

async fn no_echo_keeps_own_messages_away(fixture: &Fixture) -> anyhow::Result<()> {
    let mut other = RawClient::connect(fixture.shared.address()).await?;
    other.send("SUB raw.echo 1\r\n").await?;
    other.settle().await?;
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send("CONNECT {\"verbose\":false,\"echo\":false}\r\nSUB raw.echo 1\r\n").await?;
    client.publish("raw.echo", "mine").await?;
    client.settle().await?;
    ensure!(other.sync_messages().await?.len() == 1, "the other connection did not get the message");
    other.publish("raw.echo", "theirs").await?;
    ensure!(other.message().await?.text() == "theirs", "an echoing connection did not get its own message");
    ensure!(client.message().await?.text() == "theirs", "echo:false kept another's message away");
    Ok(())
}
