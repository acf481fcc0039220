//! `publisher-api` as a process of its own.

use std::process::ExitCode;

use clap::Parser;
use publisher_api::Settings;
use shared::service::{self, CommonArgs};

/// The HTTP and WebSocket API through which back ends publish
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Where back ends publish, e.g. 127.0.0.1:6789
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The bus to connect to, e.g. nats://10.0.0.5:4222; without it, one is embedded
    #[arg(long, value_name = "URL")]
    bus_url: Option<String>,
    /// Let everyone who reaches the port publish, where it is not on loopback
    #[arg(long)]
    insecure: bool,
}

fn main() -> ExitCode {
    let Args { common, listen, bus_url, insecure } = Args::parse();
    let flags = [
        ("publisher_api.listen", listen),
        ("bus.url", bus_url),
        ("publisher_api.insecure", insecure.then(|| "true".to_owned())),
    ];
    let flags = flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    service::block_on(service::run(common, flags, |settings: &Settings| &settings.log, publisher_api::run))
}
