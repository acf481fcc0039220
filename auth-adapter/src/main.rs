//! `auth-adapter` as a process of its own.

use std::process::ExitCode;

use auth_adapter::Settings;
use clap::Parser;
use shared::service::{self, CommonArgs};

/// Checks login tokens by asking the business system
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Your business system's token check, e.g. http://127.0.0.1:8000/websocket_auth
    #[arg(long, value_name = "URL")]
    auth_url: Option<String>,
    /// The bus to connect to, e.g. nats://10.0.0.5:4222; without it, one is embedded
    #[arg(long, value_name = "URL")]
    bus_url: Option<String>,
}

fn main() -> ExitCode {
    let Args { common, auth_url, bus_url } = Args::parse();
    let flags = [("auth_adapter.url", auth_url), ("bus.url", bus_url)];
    let flags = flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    service::block_on(service::run(common, flags, |settings: &Settings| &settings.log, auth_adapter::run))
}
