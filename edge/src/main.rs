//! `edge` as a process of its own.

use std::process::ExitCode;

use clap::Parser;
use edge::Settings;
use shared::service::{self, CommonArgs};

/// Holds the WebSockets of devices
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Where devices connect, e.g. 0.0.0.0:6790
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The bus to connect to, e.g. nats://10.0.0.5:4222; without it, one is embedded
    #[arg(long, value_name = "URL")]
    bus_url: Option<String>,
}

fn main() -> ExitCode {
    let Args { common, listen, bus_url } = Args::parse();
    let flags = [("edge.listen", listen), ("bus.url", bus_url)];
    let flags = flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    service::block_on(service::run(common, flags, |settings: &Settings| &settings.log, edge::run))
}
