//! Credentials as async-nats sends and judges them.

use async_nats::{ConnectErrorKind, ConnectOptions};

use super::{connect_with, settle};
use crate::fixture::{Case, Fixture, cases};
use crate::server::{Access, PASSWORD, Settings, TOKEN, USER};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        the_right_token_is_let_in,
        a_wrong_token_is_refused,
        the_right_password_is_let_in,
        a_wrong_password_is_refused,
        missing_credentials_are_refused,
    ]
}

async fn accepted(fixture: &Fixture, access: Access, options: ConnectOptions) -> anyhow::Result<()> {
    let server = fixture.server(Settings::with_access(access)).await?;
    settle(&connect_with(&server, options).await?).await
}

async fn refused(fixture: &Fixture, access: Access, options: ConnectOptions) -> anyhow::Result<()> {
    let server = fixture.server(Settings::with_access(access)).await?;
    match options.connect(server.url()).await {
        Err(error) if error.kind() == ConnectErrorKind::AuthorizationViolation => Ok(()),
        Err(error) => anyhow::bail!("refused, but as {:?}: {error}", error.kind()),
        Ok(_) => anyhow::bail!("let in"),
    }
}

async fn the_right_token_is_let_in(fixture: &Fixture) -> anyhow::Result<()> {
    accepted(fixture, Access::Token, ConnectOptions::with_token(TOKEN.to_owned())).await
}

async fn a_wrong_token_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    refused(fixture, Access::Token, ConnectOptions::with_token("wrong".to_owned())).await
}

async fn the_right_password_is_let_in(fixture: &Fixture) -> anyhow::Result<()> {
    let options = ConnectOptions::with_user_and_password(USER.to_owned(), PASSWORD.to_owned());
    accepted(fixture, Access::Password, options).await
}

async fn a_wrong_password_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let options = ConnectOptions::with_user_and_password(USER.to_owned(), "wrong".to_owned());
    refused(fixture, Access::Password, options).await
}

async fn missing_credentials_are_refused(fixture: &Fixture) -> anyhow::Result<()> {
    for access in [Access::Token, Access::Password] {
        refused(fixture, access, ConnectOptions::new()).await?;
    }
    Ok(())
}
