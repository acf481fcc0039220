//! "Lame duck mode": a server that will stop says so, and gives its clients time.

use std::time::Duration;

use anyhow::ensure;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::{Operation, RawClient};
use crate::server::Settings;

pub(crate) fn cases() -> Vec<Case> {
    cases![a_server_that_leaves_says_so_and_serves_on]
}

async fn a_server_that_leaves_says_so_and_serves_on(fixture: &Fixture) -> anyhow::Result<()> {
    let settings = Settings { lame_duck: Duration::from_secs(10), ..Settings::default() };
    let server = fixture.server(settings).await?;
    let mut client = RawClient::connect(server.address()).await?;
    client.send("SUB leaving 1\r\n").await?;
    client.settle().await?;
    server.leave()?;
    loop {
        let told = client.next().await?;
        let Operation::Info(info) = told else { anyhow::bail!("INFO was due, {told:?} came") };
        // nats-server sends one more INFO after CONNECT.
        if info["ldm"] == true {
            break;
        }
    }
    client.publish("leaving", "still here").await?;
    ensure!(client.message().await?.text() == "still here", "the connection is of no more use");
    ensure!(RawClient::open(server.address()).await.is_err(), "a server that leaves lets more clients in");
    drop(client);
    server.stop().await
}
