//! `message-center`: everything in one process, or each part by itself.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use shared::service::{self, CommonArgs};
use standalone::{history, key, login_test, probe, selftest};

/// Delivers a business system's messages to every device of a user, over WebSocket
///
/// Without a subcommand, everything runs in this process; without a login of your own (--auth-url, or JWTs
/// in the file), a demo business system runs too.
#[derive(Debug, Parser)]
#[command(name = "message-center", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    all: All,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything in one process (the default)
    Run(All),
    /// Holds client sockets and delivers
    Edge(EdgeArgs),
    /// Accepts messages from back ends, over HTTP and WebSocket
    PublisherApi(PublisherArgs),
    /// Checks login tokens by asking the business system
    AuthAdapter(AuthArgs),
    /// The embedded bus alone, for parts in other processes
    Bus(BusArgs),
    /// Measures a message center: opens sessions, publishes, and checks every delivery
    Bench(Box<bench_tool::Args>),
    /// Shows and erases the history of channels, and declares that it may have changed
    #[command(subcommand)]
    History(history::Command),
    /// Divides the history of channels into another number of streams; every part must be stopped
    Partitions(history::Partitions),
    /// Makes keys for back ends that publish
    #[command(subcommand)]
    Key(key::Command),
    /// Asks your business system about one token and prints what was understood: exit code 0 for yes, 1 for no,
    /// 2 for no answer, 64 for a configuration that can't be used
    LoginTest(Box<login_test::LoginTest>),
    /// Asks a URL, e.g. /readyz of an admin port: exit code 0 if the answer is a success, 1 if not
    Probe(probe::Probe),
    /// Publishes over REST and receives on a WebSocket, with recovery: exit code 0 if every step works, 1 if
    /// not
    Selftest(selftest::SelfTest),
}

#[derive(Debug, Args)]
struct All {
    #[command(flatten)]
    common: CommonArgs,
    /// Your business system's token check, e.g. http://127.0.0.1:8000/websocket_auth
    #[arg(long, value_name = "URL")]
    auth_url: Option<String>,
    /// Where devices connect [default: 127.0.0.1:6790]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where back ends publish [default: 127.0.0.1:6789]
    #[arg(long, value_name = "ADDRESS")]
    publish_listen: Option<String>,
    /// Folder in which messages are stored [default: message-center-data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    #[command(flatten)]
    bus: BusFlags,
    /// Listen off loopback although there are no keys or bus credentials
    #[arg(long)]
    insecure: bool,
}

#[derive(Debug, Args)]
struct EdgeArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Where devices connect [default: 127.0.0.1:6790]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    #[command(flatten)]
    bus: BusFlags,
}

#[derive(Debug, Args)]
struct PublisherArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Where back ends publish [default: 127.0.0.1:6789]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    #[command(flatten)]
    bus: BusFlags,
    /// Listen off loopback although there are no keys or bus credentials
    #[arg(long)]
    insecure: bool,
}

#[derive(Debug, Args)]
struct AuthArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Your business system's token check, e.g. http://127.0.0.1:8000/websocket_auth
    #[arg(long, value_name = "URL")]
    auth_url: Option<String>,
    #[command(flatten)]
    bus: BusFlags,
}

#[derive(Debug, Args)]
struct BusArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Where other processes reach the bus [default: 127.0.0.1:4222]
    #[arg(long = "bus-listen", alias = "listen", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Folder in which messages are stored [default: message-center-data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    /// Listen off loopback although there are no bus credentials
    #[arg(long)]
    insecure: bool,
}

#[derive(Debug, Args)]
struct BusFlags {
    /// The bus to connect to, e.g. nats://10.0.0.5:4222 [default: embed one]
    #[arg(long, value_name = "URL")]
    bus_url: Option<String>,
    /// Where other processes reach the embedded bus, e.g. 127.0.0.1:4222 [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    bus_listen: Option<String>,
}

/// Turns the flags that were given into keys of the configuration with their values.
fn keys<const N: usize>(flags: [(&str, Option<String>); N]) -> Vec<(String, String)> {
    flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

fn truth(flag: bool) -> Option<String> {
    flag.then(|| "true".to_owned())
}

fn main() -> ExitCode {
    service::block_on(program(Cli::parse()))
}

async fn program(Cli { command, all }: Cli) -> ExitCode {
    match command.unwrap_or(Command::Run(all)) {
        Command::Run(args) => run(args).await,
        Command::Edge(EdgeArgs { common, listen, bus }) => {
            let flags =
                keys([("edge.listen", listen), ("bus.url", bus.bus_url), ("bus.listen", bus.bus_listen)]);
            service::run(common, flags, |settings: &edge::Settings| &settings.log, edge::run).await
        }
        Command::PublisherApi(PublisherArgs { common, listen, bus, insecure }) => {
            let flags = keys([
                ("publisher_api.listen", listen),
                ("bus.url", bus.bus_url),
                ("bus.listen", bus.bus_listen),
                ("publisher_api.insecure", truth(insecure)),
                ("bus.insecure", truth(insecure)),
            ]);
            service::run(common, flags, |s: &publisher_api::Settings| &s.log, publisher_api::run).await
        }
        Command::AuthAdapter(AuthArgs { common, auth_url, bus }) => {
            let flags = keys([
                ("auth_adapter.url", auth_url),
                ("bus.url", bus.bus_url),
                ("bus.listen", bus.bus_listen),
            ]);
            service::run(common, flags, |s: &auth_adapter::Settings| &s.log, auth_adapter::run).await
        }
        Command::History(command) => history::run(command).await,
        Command::Partitions(partitions) => partitions.run().await,
        Command::Key(command) => key::run(command),
        Command::LoginTest(test) => test.run().await,
        Command::Probe(probe) => probe.run().await,
        Command::Selftest(test) => test.run().await,
        Command::Bus(BusArgs { common, listen, data, insecure }) => {
            let flags =
                keys([("bus.listen", listen), ("bus.store.path", data), ("bus.insecure", truth(insecure))]);
            service::run(common, flags, |s: &standalone::bus::Settings| &s.log, standalone::bus::run).await
        }
        Command::Bench(args) => bench_tool::run(*args).await,
    }
}

async fn run(args: All) -> ExitCode {
    let All { common, auth_url, listen, publish_listen, data, bus, insecure } = args;
    let flags = keys([
        ("auth_adapter.url", auth_url),
        ("edge.listen", listen),
        ("publisher_api.listen", publish_listen),
        ("bus.store.path", data),
        ("bus.url", bus.bus_url),
        ("bus.listen", bus.bus_listen),
        ("publisher_api.insecure", truth(insecure)),
        ("bus.insecure", truth(insecure)),
    ]);
    service::run(common, flags, |settings: &standalone::Settings| &settings.log, standalone::run).await
}
