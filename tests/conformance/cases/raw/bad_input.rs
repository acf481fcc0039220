//! Input that breaks the protocol: the connection that sent it ends, all others continue.

use anyhow::ensure;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::{CONNECT, RawClient};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        an_unknown_operation_ends_the_connection,
        a_server_operation_from_a_client_ends_the_connection,
        a_control_line_without_end_ends_the_connection,
        a_control_line_that_is_too_long_ends_the_connection,
        a_payload_longer_than_announced_ends_the_connection,
        a_size_that_is_no_number_ends_the_connection,
        missing_arguments_end_the_connection,
        too_many_arguments_end_the_connection,
        connect_that_is_not_json_ends_the_connection,
        bytes_that_are_no_text_end_the_connection,
        others_go_on_while_a_client_misbehaves,
    ]
}

/// Sends `input` after a valid CONNECT.
async fn offend(fixture: &Fixture, input: impl AsRef<[u8]>) -> anyhow::Result<RawClient> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send(input).await?;
    Ok(client)
}

async fn an_unknown_operation_ends_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    for input in ["HELLO\r\n", "GET / HTTP/1.1\r\n\r\n", "PUBX a 1\r\n", "\r\n"] {
        offend(fixture, input).await?.expect_fatal("Unknown Protocol Operation").await?;
    }
    Ok(())
}

async fn a_server_operation_from_a_client_ends_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    offend(fixture, "MSG a 1 1\r\nx\r\n").await?.expect_closed().await
}

async fn a_control_line_without_end_ends_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = offend(fixture, format!("SUB {}", "a".repeat(5_000))).await?;
    client.expect_fatal("maximum control line exceeded").await
}

async fn a_control_line_that_is_too_long_ends_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = offend(fixture, format!("PUB {} 0\r\n\r\n", "a".repeat(5_000))).await?;
    client.expect_fatal("maximum control line exceeded").await
}

async fn a_payload_longer_than_announced_ends_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    offend(fixture, "PUB faults.size 3\r\nabcdef\r\n").await?.expect_fatal("Unknown Protocol Operation").await
}

async fn a_size_that_is_no_number_ends_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    for size in ["-1", "1x", "x", "99999999999999999999", "0x10", "1.0"] {
        offend(fixture, format!("PUB faults.size {size}\r\n")).await?.expect_closed().await?;
    }
    Ok(())
}

async fn missing_arguments_end_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    for line in ["PUB", "PUB a", "HPUB a", "HPUB a 12", "SUB", "SUB a", "UNSUB"] {
        offend(fixture, format!("{line}\r\n")).await?.expect_closed().await?;
    }
    Ok(())
}

async fn too_many_arguments_end_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    for line in ["PUB a b c 1", "HPUB a b c 12 13", "SUB a b c d"] {
        offend(fixture, format!("{line}\r\n")).await?.expect_closed().await?;
    }
    Ok(())
}

async fn connect_that_is_not_json_ends_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    for options in ["{", "{\"verbose\":1}", "hello"] {
        let mut client = RawClient::open(fixture.shared.address()).await?;
        client.send(format!("CONNECT {options}\r\n")).await?;
        client.expect_closed().await?;
    }
    Ok(())
}

async fn bytes_that_are_no_text_end_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    for input in [[0_u8, 1, 2, 3].as_slice(), &[0xff; 64], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"] {
        offend(fixture, input).await?.expect_closed().await?;
    }
    Ok(())
}

async fn others_go_on_while_a_client_misbehaves(fixture: &Fixture) -> anyhow::Result<()> {
    let mut good = RawClient::open(fixture.shared.address()).await?;
    good.send(format!("{CONNECT}SUB faults.good 1\r\n")).await?;
    good.settle().await?;
    for number in 0..50 {
        let mut bad = offend(fixture, "SUB faults.good 1\r\nHELLO\r\n").await?;
        good.publish("faults.good", number.to_string()).await?;
        let messages = good.sync_messages().await?;
        ensure!(messages.len() == 1 && messages[0].text() == number.to_string(), "{messages:?}");
        // A message may reach the offender before the server sees the bad input.
        bad.until_closed().await?;
    }
    Ok(())
}
