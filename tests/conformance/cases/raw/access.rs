//! Access: token, user and password, and the refusal of everyone else.

use anyhow::ensure;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::RawClient;
use crate::server::{Access, PASSWORD, Server, Settings, TOKEN, USER};

/// The error that a refused connection gets.
const REFUSED: &str = "Authorization Violation";

pub(crate) fn cases() -> Vec<Case> {
    cases![
        info_tells_that_credentials_are_required,
        the_right_token_is_let_in,
        a_wrong_token_is_refused,
        a_token_that_only_starts_right_is_refused,
        the_right_password_is_let_in,
        a_wrong_password_is_refused,
        a_wrong_user_is_refused,
        connect_without_credentials_is_refused,
        an_operation_before_connect_is_refused,
    ]
}

/// Sends a CONNECT with these fields to a server with `access`.
async fn present(fixture: &Fixture, access: Access, fields: &str) -> anyhow::Result<(Server, RawClient)> {
    let server = fixture.server(Settings::with_access(access)).await?;
    let mut client = RawClient::open(server.address()).await?;
    client.send(format!("CONNECT {{\"verbose\":false{fields}}}\r\n")).await?;
    // Returns the server, too, because it stops on drop.
    Ok((server, client))
}

async fn info_tells_that_credentials_are_required(fixture: &Fixture) -> anyhow::Result<()> {
    for access in [Access::Token, Access::Password] {
        let server = fixture.server(Settings::with_access(access)).await?;
        let client = RawClient::open(server.address()).await?;
        ensure!(client.info["auth_required"] == true, "auth_required is not true with {access:?}");
    }
    Ok(())
}

async fn the_right_token_is_let_in(fixture: &Fixture) -> anyhow::Result<()> {
    let (_server, mut client) =
        present(fixture, Access::Token, &format!(",\"auth_token\":\"{TOKEN}\"")).await?;
    client.settle().await
}

async fn a_wrong_token_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let (_server, mut client) = present(fixture, Access::Token, ",\"auth_token\":\"wrong\"").await?;
    client.expect_fatal(REFUSED).await
}

async fn a_token_that_only_starts_right_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    for token in [format!("{TOKEN}x"), TOKEN[..TOKEN.len() - 1].to_owned(), String::new()] {
        let (_server, mut client) =
            present(fixture, Access::Token, &format!(",\"auth_token\":\"{token}\"")).await?;
        client.expect_fatal(REFUSED).await?;
    }
    Ok(())
}

async fn the_right_password_is_let_in(fixture: &Fixture) -> anyhow::Result<()> {
    let fields = format!(",\"user\":\"{USER}\",\"pass\":\"{PASSWORD}\"");
    let (_server, mut client) = present(fixture, Access::Password, &fields).await?;
    client.settle().await
}

async fn a_wrong_password_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let fields = format!(",\"user\":\"{USER}\",\"pass\":\"wrong\"");
    let (_server, mut client) = present(fixture, Access::Password, &fields).await?;
    client.expect_fatal(REFUSED).await
}

async fn a_wrong_user_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let fields = format!(",\"user\":\"someone\",\"pass\":\"{PASSWORD}\"");
    let (_server, mut client) = present(fixture, Access::Password, &fields).await?;
    client.expect_fatal(REFUSED).await
}

async fn connect_without_credentials_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    for access in [Access::Token, Access::Password] {
        let (_server, mut client) = present(fixture, access, "").await?;
        client.expect_fatal(REFUSED).await?;
    }
    Ok(())
}

async fn an_operation_before_connect_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    for line in ["PING\r\n", "SUB > 1\r\n", "PUB a 1\r\nx\r\n"] {
        let server = fixture.server(Settings::with_access(Access::Token)).await?;
        let mut client = RawClient::open(server.address()).await?;
        client.send(line).await?;
        client.expect_fatal(REFUSED).await?;
    }
    Ok(())
}
